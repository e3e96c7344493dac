"""An event loop reads the workers' channels itself. Nobody is to notice, whatever the loop or others do meanwhile."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from pidfdpool import PidfdPoolExecutor, WorkerCrashed
from pidfdpool.executor import async_calls
from pidfdpool.loop import watchdog
from tests import calls
from tests.conditions import eventually, run_python


@pytest.fixture
def eager(monkeypatch):
    """Have loops read as soon as they can, so that these tests do not depend on the speed of the machine."""
    monkeypatch.setattr(async_calls, "OFTEN", 0)
    monkeypatch.setattr(watchdog, "CLOSE", 1000.0)
    monkeypatch.setattr(watchdog, "PAUSES", (0.0, 0.0))


def poller_of(pool):
    return pool._pool.core.poller


async def reads(pool):
    """Have the loop read, and return when it does."""
    until = asyncio.get_running_loop().time() + 20
    while pool._pool is None or poller_of(pool).reader is None:
        assert asyncio.get_running_loop().time() < until, "the loop reads"
        await pool.run(calls.double, 1)


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def blocked_until(event):
    assert event.wait(20), "others get their results, though the loop is blocked"


def test_the_loop_reads_its_results_and_gives_the_channels_back_when_nothing_comes(pool, eager):
    async def main():
        await reads(pool)
        before = poller_of(pool).reads
        for number in range(300):
            assert await pool.run(calls.double, number) == 2 * number
        assert poller_of(pool).reads > before
        assert await asyncio.gather(*(pool.run(calls.double, n) for n in range(300))) == list(range(0, 600, 2))

    asyncio.run(main())
    eventually(lambda: not poller_of(pool).guarded, "the channels are the pool thread's again")
    eventually(lambda: not pool._pool.core.watchdog._ticks, "and it sleeps until something happens")
    assert pool.submit(calls.double, 2).result(20) == 4


def test_results_of_others_do_not_wait_for_a_loop_that_is_blocked(pool, eager):
    async def main():
        for _ in range(5):
            await reads(pool)
            called = threading.Event()
            pool.submit(calls.double, 1).add_done_callback(lambda _, called=called: called.set())
            blocked_until(called)

            await reads(pool)
            got = threading.Event()
            waiting = threading.Thread(target=lambda got=got: pool.submit(calls.double, 1).result(20) and got.set())
            waiting.start()
            blocked_until(got)
            waiting.join()
        return await pool.run(calls.double, 3)

    assert asyncio.run(main()) == 6


def test_a_timeout_and_a_death_do_not_wait_for_a_loop_that_is_blocked(pool, eager):
    async def main():
        for submit in (
            lambda: pool.options(timeout=0.05).submit(calls.sleep, 60),
            lambda: pool.submit(calls.leave, 3),
        ):
            await reads(pool)
            told = threading.Event()
            submit().add_done_callback(lambda _, told=told: told.set())
            blocked_until(told)
        with pytest.raises(WorkerCrashed):
            await pool.run(calls.leave, 3)
        return await pool.run(calls.double, 3)

    assert asyncio.run(main()) == 6


def test_waiting_tasks_are_sent_though_the_loop_is_blocked(eager, tmp_path):
    """With a timeout nothing is sent ahead, so each task needs the answer of the one before."""
    with PidfdPoolExecutor(1) as pool:

        async def main():
            await reads(pool)
            timed = pool.options(timeout=60)
            told = threading.Event()
            waiting = [asyncio.ensure_future(timed.run(calls.double, n)) for n in range(5)]
            await asyncio.sleep(0)
            timed.submit(calls.double, 1).add_done_callback(lambda _: told.set())
            blocked_until(told)
            assert await asyncio.gather(*waiting) == [0, 2, 4, 6, 8]

        asyncio.run(main())


def test_a_loop_that_is_blocked_does_not_read_for_a_while(pool, monkeypatch, eager):
    monkeypatch.setattr(watchdog, "PAUSES", (1000.0, 1000.0))

    async def main():
        for _ in range(100):
            if pool._pool is not None and pool._pool.core.watchdog._not_before > 0:
                break  # mostly at once; but a worker may be so slow that the loop had nothing to read
            await reads(pool)
            called = threading.Event()
            pool.submit(calls.double, 1).add_done_callback(lambda _, called=called: called.set())
            blocked_until(called)
        eventually(lambda: poller_of(pool).reader is None, "the pool thread has taken the channels back, too")
        for _ in range(20):
            await pool.run(calls.double, 1)
            assert poller_of(pool).reader is None

    asyncio.run(main())


rebuilt_in: list = []


class Noting:
    """A result that notes in which thread of the host it is rebuilt."""

    def __reduce__(self):
        return _note_thread, ()


def _note_thread():
    rebuilt_in.append(threading.current_thread())


def test_what_calls_something_or_is_large_is_not_rebuilt_in_the_loop(pool, eager):
    async def main():
        rebuilt_in.clear()
        for _ in range(10):
            await reads(pool)
            assert await pool.run(Noting) is None
            await reads(pool)
            assert len(await pool.run(calls.double, b"x" * 5000)) == 10000
            await reads(pool)
            with pytest.raises(ValueError, match="no"):
                await pool.run(calls.raise_it, ValueError("no"))

    asyncio.run(main())
    assert len(rebuilt_in) == 10
    assert threading.current_thread() not in rebuilt_in


def test_loops_in_several_threads_share_a_pool(pool, eager):
    async def main(start):
        for number in range(start, start + 100):
            assert await pool.run(calls.double, number) == 2 * number
        return await asyncio.gather(*(pool.run(calls.double, n) for n in range(start, start + 100)))

    async def in_threads():
        return await asyncio.gather(*(asyncio.to_thread(asyncio.run, main(1000 * n)) for n in range(4)))

    assert asyncio.run(in_threads()) == [[2 * n for n in range(start, start + 100)] for start in range(0, 4000, 1000)]


def test_threads_wait_for_results_beside_a_loop(pool, eager):
    wrong = []

    def work(start):
        numbers = range(start, start + 100)
        wrong.extend(number for number in numbers if pool.submit(calls.double, number).result(30) != 2 * number)

    async def main():
        others = [asyncio.create_task(asyncio.to_thread(work, 1000 * index)) for index in range(3)]
        number = 0
        while not all(other.done() for other in others):
            assert await pool.run(calls.double, number) == 2 * number
            number += 1
        await asyncio.gather(*others)

    asyncio.run(main())
    assert wrong == []


def test_what_the_loop_cancels_while_it_reads(pool, held, eager):
    async def main():
        for _ in range(20):
            await reads(pool)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pool.run(calls.sleep, 0.05), 0.001)
            assert await pool.run(calls.double, 1) == 2

    asyncio.run(main())


# ---- the end of the loop, of the pool, of the process ------------------------------------------------------------


def test_a_loop_that_is_closed_while_it_reads_leaves_nothing(way, eager):
    before = descriptors()
    with PidfdPoolExecutor(2, mp_context=way) as pool:

        async def main():
            await reads(pool)
            left = [asyncio.ensure_future(pool.run(calls.double, 1)) for _ in range(10)]
            await asyncio.sleep(0)
            assert not all(each.done() for each in left)

        for _ in range(20):
            asyncio.run(main())
        assert pool.submit(calls.double, 1).result(20) == 2
        eventually(pool.submit(calls.double, 1).done, "the pool thread reads again")
    assert descriptors() == before


@pytest.mark.parametrize("where", ["in the loop", "beside it", "another thread"])
def test_a_loop_that_outlives_the_pool_watches_nothing_of_it(way, eager, where):
    """If it did, it would take the next descriptor of that number for one that it watches already."""
    loop = asyncio.new_event_loop()
    before = descriptors()
    pool = PidfdPoolExecutor(2, mp_context=way)
    loop.run_until_complete(reads(pool))
    if where == "in the loop":

        async def end():
            await reads(pool)
            pool.shutdown()

        loop.run_until_complete(end())
    elif where == "beside it":
        pool.shutdown()
    else:
        loop.run_until_complete(asyncio.to_thread(pool.shutdown))
        eventually(lambda: (loop.run_until_complete(asyncio.sleep(0)), descriptors() == before)[1], "nothing is left")
    assert descriptors() == before
    seen = []
    pipes = [os.pipe() for _ in range(20)]
    for reader, writer in pipes:
        loop.add_reader(reader, lambda reader=reader: seen.append(os.read(reader, 1)))
        os.write(writer, b"x")

    async def all_seen():
        async with asyncio.timeout(20):
            while len(seen) < len(pipes):
                await asyncio.sleep(0.001)

    loop.run_until_complete(all_seen())
    for pair in pipes:
        loop.remove_reader(pair[0])
        for fd in pair:
            os.close(fd)
    loop.close()


def test_the_pool_ends_while_the_loop_reads(way, eager):
    async def main():
        for _ in range(5):
            with PidfdPoolExecutor(1, mp_context=way) as pool:
                await reads(pool)
                waiting = asyncio.ensure_future(pool.run(calls.double, 4))
                await asyncio.sleep(0)
            assert await waiting == 8

    before = descriptors()
    asyncio.run(main())
    assert descriptors() == before


def test_a_loop_that_cannot_watch_descriptors(pool, eager):
    class Loop(asyncio.SelectorEventLoop):
        def add_reader(self, fd, callback, *args):
            raise NotImplementedError

    async def main():
        return await asyncio.gather(*(pool.run(calls.double, n) for n in range(20)))

    loop = Loop()
    for _ in range(3):
        assert loop.run_until_complete(main()) == list(range(0, 40, 2))
    assert poller_of(pool).reader is None
    loop.close()


BEGIN = """
    import asyncio, os, signal, sys, threading, time
    from pidfdpool import PidfdPoolExecutor
    from pidfdpool.executor import async_calls
    from pidfdpool.loop import watchdog
    from tests import calls
    async_calls.OFTEN, watchdog.CLOSE, watchdog.PAUSES = 0, 1000.0, (0.0, 0.0)
    pool = PidfdPoolExecutor(2, mp_context=sys.argv[1])

    async def reads():
        while pool._pool is None or pool._pool.core.poller.reader is None:
            await pool.run(calls.double, 1)
"""

FORKING = """
    import warnings
    warnings.simplefilter("ignore")

    async def main():
        for number in range(10):
            await reads()
            waiting = asyncio.ensure_future(pool.run(calls.double, number))
            await asyncio.sleep(0)
            readers = list(pool._pool.core.poller.readers)
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    status = 0 if pool.submit(calls.double, 4).result(20) == 8 else 2
                    status = status if all(reader.closed for reader in readers) else 3
                    pool.shutdown()
                finally:
                    os._exit(status)
            assert await waiting == 2 * number
            assert os.waitstatus_to_exitcode(await asyncio.to_thread(lambda: os.waitpid(child, 0)[1])) == 0

    asyncio.run(main())
    pool.shutdown()
    print("gone on")
"""


def test_the_host_forks_while_the_loop_reads(way):
    done = run_python(BEGIN + FORKING, way)
    assert (done.returncode, done.stdout, done.stderr) == (0, "gone on\n", "")


HANDLING = """
    got, interrupted = [], []

    def handle(*_):
        interrupted.append(pool._pool.core.outbox.leader)
        if len(interrupted) % 20 == 0 and not pool._pool.core.is_reentered:
            got.append(pool.submit(calls.double, 21).result(20))

    signal.signal(signal.SIGUSR1, handle)
    over = threading.Event()

    def send():
        while not over.wait(0.001):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    async def main():
        await reads()
        sending = threading.Thread(target=send)
        sending.start()
        count = 0
        while len(got) < 20:
            assert await pool.run(calls.double, count) == 2 * count
            count += 1
        over.set()
        sending.join()

    asyncio.run(main())
    pool.shutdown()
    assert set(got) == {42}
    assert not any(interrupted), "no handler runs in the middle of serving"
    print("gone on")
"""


def test_signal_handlers_wait_for_results_and_do_not_run_while_the_loop_serves(way):
    done = run_python(BEGIN + HANDLING, way)
    assert (done.returncode, done.stdout, done.stderr) == (0, "gone on\n", "")


def test_where_handlers_are_expected_to_raise_the_loop_of_the_main_thread_does_not_read():
    code = """
    signal.signal(signal.SIGALRM, lambda *_: None)

    async def main():
        for number in range(200):
            assert await pool.run(calls.double, number) == 2 * number
            await asyncio.sleep(0)
        return pool._pool.core.poller.reads

    assert asyncio.run(main()) == 0
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    asyncio.run(reads())
    pool.shutdown()
    print("so it is")
    """
    done = run_python(BEGIN + code, "fork")
    assert (done.returncode, done.stdout, done.stderr) == (0, "so it is\n", "")


def test_ctrl_c_while_the_loop_reads_ends_the_program_as_without_us(way):
    code = """
    async def main():
        await reads()
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        while True:
            await pool.run(calls.double, 1)

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("interrupted")
    assert pool.submit(calls.double, 1).result(20) == 2
    pool.shutdown()
    """
    done = run_python(BEGIN + code, way)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


def test_a_loop_that_submits_many_calls_at_once_does_not_read_meanwhile(pool, eager):
    async def main():
        await reads(pool)
        reader = poller_of(pool).reader
        for count, keeps in ((10, True), (watchdog.MANY_WAITING + 1, False)):
            poller_of(pool).reader, poller_of(pool).guarded = reader, True
            pool._pool.core.watchdog.note_waiting(count)
            assert (poller_of(pool).reader is reader) is keeps
        return await pool.run(calls.double, 1)

    assert asyncio.run(main()) == 2
