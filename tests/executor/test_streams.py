"""`stream`: the items of a generator that runs in a worker, as they are made, bounded, and closed early."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import gc
import os
import pickle
import signal
import threading
import time
from concurrent.futures import CancelledError

import pytest

from pidfdpool import (
    CallNotSendable,
    InheritedFutureError,
    PayloadError,
    PidfdPoolExecutor,
    QueueFull,
    TaskKilled,
    TaskTimeout,
    WorkerCrashed,
)
from tests.conditions import eventually, run_python
from tests.executor import streamed


@pytest.fixture(params=["spawn", "fork"])
def pool(request):
    with PidfdPoolExecutor(2, mp_context=request.param) as pool:
        yield pool


@pytest.fixture
def same():
    """Give a pool. How its template comes into being makes no difference to what is tested with it."""
    with PidfdPoolExecutor(2) as pool:
        yield pool


def text_of(path):
    return path.read_text() if path.exists() else ""


def payload_count(stream):
    """Return how many items each of the payloads has that the reader has not taken."""
    return [len(pickle.loads(buffers[0])) if together else 1 for buffers, together in list(stream._feed.payloads)]


def taken_until(stream, error):
    """Return the items before the error."""
    items = []
    with pytest.raises(error) as raised:
        items.extend(iter(stream.__next__, object()))
    return items, raised.value


def test_all_items_come_in_order(pool):
    assert list(pool.stream(streamed.count, 20_000)) == list(range(20_000))
    assert list(pool.stream(streamed.count, 0)) == []


def test_a_coroutine_reads_them_without_blocking_its_loop(pool, tmp_path):
    async def read():
        stream = pool.stream(streamed.pause_after, 3, str(tmp_path / "go"))
        items = [await anext(stream) for _ in range(3)]
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        (tmp_path / "go").touch()  # the loop goes on while the task waits
        items.append(await waiting)
        rest = [item async for item in stream]
        return items, rest, [item async for item in pool.stream(streamed.count, 5000)]

    items, rest, numbers = asyncio.run(read())
    assert (items, rest) == ([0, 1, 2, "over"], [])
    assert numbers == list(range(5000))


def test_items_are_there_while_the_generator_pauses(pool, tmp_path):
    """Whatever share of them travels together: those that came quickly must not wait for the next one."""
    go = tmp_path / "go"
    for most in (1, 2, 3, 50):
        stream = pool.stream(streamed.pause_after, most, str(go))
        assert [next(stream) for _ in range(most)] == list(range(most))
        go.touch()
        assert list(stream) == ["over"]
        go.unlink()


@pytest.mark.parametrize("buffersize", [1, 2, 7, 100])
def test_the_generator_waits_for_its_reader(same, tmp_path, buffersize):
    path = tmp_path / "at"
    stream = same.stream(streamed.advance, str(path), 1000, buffersize=buffersize)
    for taken in range(1, 20):
        assert next(stream) == taken - 1
        assert int(path.read_text()) <= taken - 1 + buffersize
    eventually(lambda: int(path.read_text()) >= 19 - 1 + buffersize // 2, "the generator uses its room")
    assert list(stream) == list(range(19, 1000))


def test_it_waits_before_its_reader_has_taken_anything(same, tmp_path):
    path = tmp_path / "at"
    with same.stream(streamed.advance, str(path), 1000, buffersize=10):
        eventually(lambda: text_of(path) == "9", "as many items as there is room for")
        assert same.submit(streamed.thread_count).result() > 0  # another worker answers meanwhile
        assert text_of(path) == "9"


def test_large_items_are_bounded_by_their_bytes(same, tmp_path):
    path = tmp_path / "closed"
    stream = same.stream(streamed.blocks, 40, 3 << 20)
    eventually(lambda: len(stream._feed.payloads) >= 5, "16 MB have come")
    time.sleep(0.05)
    assert len(stream._feed.payloads) <= 6, "it holds no more than 16 MB and one item"
    assert all(data == bytes([number]) * (3 << 20) for number, data in stream)
    assert not path.exists()


def test_an_item_is_what_it_was_when_it_was_yielded(same):
    assert list(same.stream(streamed.reuse_buffer, 50)) == [list(range(number + 1)) for number in range(50)]


@pytest.mark.parametrize("how", ["break", "close", "with", "forget", "throw"])
def test_a_reader_that_leaves_has_the_generator_closed(pool, tmp_path, how):
    path = tmp_path / "closed"

    def read():
        stream = pool.stream(streamed.count_for_ever, str(path), buffersize=100)
        if how == "break":
            for number in stream:
                if number == 250:
                    break
        elif how == "close":
            assert next(stream) == 0
            stream.close()
            stream.close()
            assert list(stream) == []
        elif how == "with":
            with stream:
                next(stream)
        elif how == "forget":
            assert next(stream) == 0
        elif how == "throw":
            with pytest.raises(KeyError), contextlib.closing(stream):
                raise KeyError(next(stream))

    read()
    gc.collect()
    eventually(lambda: text_of(path), "the generator is closed")
    assert pool.submit(os.getpid).result() > 0
    assert len(pool.workers()) <= 2


@pytest.mark.parametrize("how", ["async with", "aclose", "cancel"])
def test_a_coroutine_that_leaves_has_the_generator_closed(same, tmp_path, how):
    path = tmp_path / "closed"

    async def read():
        stream = same.stream(streamed.count_for_ever, str(path))
        if how == "async with":
            async with stream:
                assert await anext(stream) == 0
        elif how == "aclose":
            await anext(stream)
            await stream.aclose()
        else:
            begun = asyncio.Event()

            async def read_all():
                async with stream:
                    async for _ in stream:
                        begun.set()
                        await asyncio.sleep(0)

            task = asyncio.create_task(read_all())
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(read())
    eventually(lambda: text_of(path), "the generator is closed")


def test_a_stream_that_is_closed_before_it_begins_never_runs(same, tmp_path):
    path = tmp_path / "closed"
    gates = [same.submit(streamed.hang) for _ in range(2)]
    eventually(lambda: same.stats().running == 2, "both workers are busy")
    stream = same.stream(streamed.count_for_ever, str(path))
    stream.close()
    assert same.stats().pending == 2
    for gate in gates:
        gate.kill()
    assert same.submit(abs, -1).result() == 1
    assert not path.exists()


@pytest.mark.parametrize("most", [0, 1, 5000])
def test_items_come_before_what_the_generator_raises(pool, most):
    items, error = taken_until(pool.stream(streamed.fail_after, most, KeyError("gone")), KeyError)
    assert items == list(range(most))
    assert error.args == ("gone",)
    assert "fail_after" in str(error.__cause__)


@pytest.mark.parametrize("most", [1, 300])
def test_items_come_before_the_death_of_the_worker(pool, tmp_path, most):
    stream = pool.stream(streamed.die_after, most, str(tmp_path / "die"))
    eventually(lambda: sum(payload_count(stream)) == most, "they have come, and nobody has read them")
    (tmp_path / "die").touch()
    items, error = taken_until(stream, WorkerCrashed)
    assert items[:most] == list(range(most))
    assert items[most:] in ([], ["over"]), "what was held for 5 ms may be lost"
    assert error.exit_status.signal == signal.SIGKILL
    assert pool.submit(abs, -1).result() == 1
    assert list(stream) == [], "the error is raised once"


def test_a_timeout_ends_it(pool):
    items, _ = taken_until(pool.options(timeout=0.5).stream(streamed.hang_after, 3), TaskTimeout)
    assert items == [0, 1, 2]


def test_it_is_not_tried_again(same):
    view = same.options(retries=3, retry_on=(WorkerCrashed, KeyError))
    assert taken_until(view.stream(streamed.fail_after, 2, KeyError("once")), KeyError)[0] == [0, 1]
    assert same.stats().retries == 0


def test_it_can_be_killed(pool):
    stream = pool.stream(streamed.hang_after, 2)
    assert [next(stream), next(stream)] == [0, 1]
    assert stream.kill() is True
    with pytest.raises(TaskKilled):
        next(stream)
    assert stream.kill() is False


def test_closing_kills_where_cancelling_does(same):
    with same.options(cancel_kills=True).stream(streamed.hang_after, 1) as stream:
        assert next(stream) == 0
    eventually(lambda: not same.stats().running, "the worker was killed")
    assert list(stream) == []


def test_an_item_that_cannot_be_pickled_ends_it_behind_the_others(same):
    items, error = taken_until(same.stream(streamed.unpicklable_after, 3), TypeError)
    assert items == [0, 1, 2]
    assert "lock" in str(error)


def test_an_item_that_cannot_be_rebuilt_costs_only_itself(same):
    stream = same.stream(streamed.unreadable_between, 3)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(PayloadError, match="refused"):
        next(stream)
    assert list(stream) == ["after"]


def test_a_fork_within_the_generator_sends_nothing_of_its_own(same):
    items = list(same.stream(streamed.fork_after, 3))
    assert items[:3] == [0, 1, 2]
    assert len(items) == 5
    assert items[3] == items[4], "both are the worker's"


def test_a_worker_that_writes_items_of_its_task_which_is_no_stream_is_killed(same):
    error = same.submit(streamed.write_items).exception(30)
    assert isinstance(error, WorkerCrashed)
    assert "is no stream of its own" in str(error)
    assert list(same.stream(streamed.count, 3)) == [0, 1, 2]


@pytest.mark.parametrize("buffers", [[b"no pickle"], [pickle.dumps("no list")], [pickle.dumps([1])]])
def test_items_that_a_stream_writes_itself_cost_only_the_stream(same, buffers):
    stream = same.stream(streamed.write_items_and_yield, buffers)
    with pytest.raises(PayloadError, match="items of a stream cannot be read"):
        list(stream)
    assert list(stream) == ["yielded"]
    assert same.submit(abs, -1).result() == 1


VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


def values_of_variable(most):
    for _ in range(most):
        yield VARIABLE.get()


def test_context_variables_travel_with_a_stream(same):
    token = VARIABLE.set("set")
    try:
        assert list(same.options(context_vars=[VARIABLE]).stream(values_of_variable, 3)) == ["set"] * 3
    finally:
        VARIABLE.reset(token)
    assert list(same.stream(values_of_variable, 2)) == ["unset"] * 2


def test_no_thread_is_left_in_the_worker(same):
    with PidfdPoolExecutor(1) as alone:
        before = alone.submit(streamed.thread_count).result()
        assert list(alone.stream(streamed.threads_meanwhile, 5000))[-1] <= before + 1
        assert alone.submit(streamed.thread_count).result() == before


def test_many_streams_side_by_side(pool):
    streams = [pool.stream(streamed.count, 300, buffersize=10) for _ in range(2)]
    waiting = [pool.stream(streamed.count, 300, buffersize=400) for _ in range(4)]
    for number in range(300):
        assert [next(stream) for stream in streams] == [number, number]
    assert [list(stream) for stream in [*streams, *waiting]] == [[], [], *[list(range(300))] * 4]


def test_shutdown_closes_what_its_own_thread_reads_and_gives_what_had_come(tmp_path):
    """Guards: it waited for ever for a generator that waited for this thread to read."""
    path = tmp_path / "closed"
    with PidfdPoolExecutor(1) as pool:
        begun = pool.stream(streamed.count_for_ever, str(path), buffersize=3)
        queued = pool.stream(streamed.count, 5000, buffersize=3)
        for number in begun:
            assert number == 0
            break
        eventually(lambda: sum(payload_count(begun)) > 0, "more has come")
    assert "closed" in path.read_text()
    items, error = taken_until(begun, RuntimeError)
    assert items == list(range(1, len(items) + 1))
    assert items
    assert "before the generator of this stream had ended" in str(error)
    assert taken_until(queued, RuntimeError)[0] == []


def test_shutdown_waits_for_what_another_thread_reads():
    pool, begun, items = PidfdPoolExecutor(1), threading.Event(), []

    def read():
        for item in pool.stream(streamed.count, 5000, buffersize=3):
            items.append(item)
            begun.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(30)
    pool.shutdown()
    reader.join(30)
    assert items == list(range(5000))


def test_shutdown_that_does_not_wait_lets_this_thread_read_on():
    pool = PidfdPoolExecutor(1)
    stream = pool.stream(streamed.count, 5000, buffersize=3)
    assert next(stream) == 0
    pool.shutdown(wait=False)
    assert list(stream) == list(range(1, 5000))


def test_a_script_ends_though_it_has_left_a_stream_open():
    done = run_python(
        """
        from pidfdpool import PidfdPoolExecutor
        from tests.executor import streamed
        pool = PidfdPoolExecutor(1)
        stream = pool.stream(streamed.count, 10**12)
        print(next(stream))
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_shutdown_that_cancels_closes_it(tmp_path):
    path = tmp_path / "closed"
    pool = PidfdPoolExecutor(1)
    stream = pool.stream(streamed.count_for_ever, str(path))
    assert next(stream) == 0
    pool.shutdown(cancel_futures=True)
    assert "closed" in path.read_text()
    with pytest.raises(CancelledError):
        list(stream)


def test_a_stream_keeps_its_pool_alive():
    assert sum(PidfdPoolExecutor(1).stream(streamed.count, 5000)) == sum(range(5000))


def test_a_forked_copy_has_ended(same):
    stream = same.stream(streamed.hang_after, 1)
    assert next(stream) == 0
    pid = os.fork()
    if not pid:
        code = 1
        with contextlib.suppress(BaseException):
            try:
                next(stream)
            except InheritedFutureError:
                code = 0
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert stream.kill()


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((5,), {}, TypeError, "callable, not 5"),
        ((streamed.count, 1), {"buffersize": 0}, ValueError, "buffersize must be >= 1, not 0"),
        ((streamed.count, 1), {"buffersize": 1.5}, TypeError, "buffersize must be an integer, not 1.5"),
        ((streamed.count, 1), {"buffersize": None}, TypeError, "buffersize must be an integer, not None"),
        ((streamed.count, threading.Lock()), {}, CallNotSendable, "lock"),
    ],
)
def test_bad_arguments_are_refused_at_once(same, arguments, options, error, text):
    with pytest.raises(error, match=text):
        same.stream(*arguments, **options)
    assert same.submit(abs, -1).result() == 1


def test_what_is_no_generator_is_named(same):
    with pytest.raises(TypeError, match=r"no_items returned 5"):
        next(same.stream(streamed.no_items))


class Interrupted(Exception):
    """What a signal handler raises."""


@pytest.mark.many_times
def test_a_signal_handler_that_raises_anywhere_costs_neither_the_end_nor_the_order(same):
    """The generator has to learn what was taken, or it waits for its reader for ever, and its reader for it."""

    def interrupt(_number, _frame):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for rep in range(10):
            stream, items, interrupts, ended = same.stream(streamed.count, 2000, buffersize=2), [], 0, False
            while not ended:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0003 + rep * 0.0001)
                    for item in stream:
                        items.append(item)  # noqa: PERF402 - each at once, before the next interrupt
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    ended = True
                except Interrupted:
                    interrupts += 1
            assert items == sorted(set(items))
            assert 2000 - len(items) <= interrupts
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert signal.SIGALRM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_second_reader_is_told_so(same):
    stream = same.stream(streamed.hang_after, 0)
    reader = threading.Thread(target=lambda: taken_until(stream, TaskKilled))
    reader.start()
    eventually(lambda: stream._is_read and same.stats().running, "the first one waits")
    with pytest.raises(RuntimeError, match="for one reader"):
        next(stream)
    with pytest.raises(RuntimeError, match="for one reader"):
        asyncio.run(anext(stream))
    stream.kill()
    reader.join()
    assert list(stream) == []


def test_it_counts_as_one_pending_task():
    with PidfdPoolExecutor(1, max_pending=1, block=False) as pool:
        stream = pool.stream(streamed.hang_after, 1)
        assert next(stream) == 0
        with pytest.raises(QueueFull):
            pool.submit(abs, -1)
        stream.kill()


def test_in_a_coroutine_it_waits_for_room_when_it_is_read(tmp_path):
    async def read(pool):
        first = pool.stream(streamed.pause_after, 1, str(tmp_path / "go"))
        assert await anext(first) == 0
        second = pool.stream(streamed.count, 3)  # does not block the loop
        (tmp_path / "go").touch()
        return [item async for item in second], [item async for item in first]

    with PidfdPoolExecutor(1, max_pending=1) as pool:
        assert asyncio.run(read(pool)) == ([0, 1, 2], ["over"])


def test_it_is_neither_copied_nor_pickled(same):
    with same.stream(streamed.hang_after, 1) as stream:
        for refuse in (copy.copy, pickle.dumps):
            with pytest.raises(TypeError, match="Stream"):
                refuse(stream)
        assert "open" in repr(stream)
        stream.kill()
    assert "ended" in repr(stream)
