"""`await pool.run(...)` and `async for ... in pool.amap(...)`."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import deque

import pytest

from pidfdpool import PidfdPoolExecutor, PoolBroken, QueueFull, WorkerCrashed
from pidfdpool.executor.async_calls import Mailbox
from tests import calls
from tests.conditions import eventually


async def all_of(results):
    return [result async for result in results]


def test_results_and_keywords(pool):
    async def main():
        assert await pool.run(calls.double, 4) == 8
        assert await pool.run(int, "11", base=2) == 3
        return await asyncio.gather(*(pool.run(calls.double, n) for n in range(300)))

    assert asyncio.run(main(), debug=True) == [2 * n for n in range(300)]


def test_in_several_loops_one_after_another_and_in_threads(pool):
    async def main(number):
        return await asyncio.gather(*(pool.run(calls.double, n) for n in range(number, number + 50)))

    async def in_threads():
        return await asyncio.gather(*(asyncio.to_thread(asyncio.run, main(n)) for n in range(4)))

    for _ in range(2):
        assert asyncio.run(in_threads()) == [[2 * n for n in range(start, start + 50)] for start in range(4)]


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError(), TimeoutError("no")])
def test_what_the_call_raises_is_raised(pool, error):
    async def main():
        with pytest.raises(type(error)) as raised:
            await pool.run(calls.raise_it, error)
        return raised.value

    assert asyncio.run(main()).args == error.args


def test_stop_iteration_does_not_look_like_a_return(pool):
    async def main():
        with pytest.raises(RuntimeError, match="StopIteration") as raised:
            await pool.run(calls.raise_it, StopIteration(3))
        return raised.value.__cause__

    assert asyncio.run(main()).value == 3


def test_a_crash_and_what_does_not_pickle(pool):
    async def main():
        with pytest.raises(WorkerCrashed) as raised:
            await pool.run(calls.leave, 3)
        assert raised.value.exit_status.code == 3
        with pytest.raises(TypeError, match="does not pickle"):
            await pool.run(calls.double, calls.Unpicklable())
        return await pool.run(calls.double, 2)

    assert asyncio.run(main()) == 4


def test_a_broken_pool_and_one_that_is_shut_down(way):
    async def main(pool):
        with pytest.raises(PoolBroken):
            await pool.run(calls.double, 1)
        pool.shutdown()
        with pytest.raises(RuntimeError):
            await pool.run(calls.double, 1)

    asyncio.run(main(PidfdPoolExecutor(1, mp_context=way, initializer=calls.raise_it, initargs=(ValueError(),))))


def test_cancelling_takes_a_waiting_call_out_of_the_queue(pool, tmp_path):
    async def main():
        holding = [
            asyncio.ensure_future(pool.run(calls.run_until, str(tmp_path / f"runs{n}"), str(tmp_path / "go")))
            for n in range(2)
        ]
        while not all((tmp_path / f"runs{n}").exists() for n in range(2)):
            await asyncio.sleep(0.005)
        waiting = asyncio.ensure_future(pool.run(calls.note, str(tmp_path / "never")))
        await asyncio.sleep(0)
        assert pool.stats().queued == 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert pool.stats().queued == 0
        # One that runs goes on, and its worker is not lost.
        holding[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await holding[0]
        assert pool.stats().running == 2
        (tmp_path / "go").touch()
        await holding[1]
        assert await pool.run(calls.double, 1) == 2

    asyncio.run(main())
    assert not (tmp_path / "never").exists()
    assert pool.stats().deaths == 0


def test_who_awaits_a_call_that_the_end_of_the_pool_cancels_is_told(pool, held):
    async def main():
        tasks = [
            asyncio.ensure_future(pool.run(calls.run_until, f"{held.release}{n}", str(held.release))) for n in (1, 2)
        ]
        await asyncio.sleep(0)
        pool.shutdown(wait=False, cancel_futures=True)
        held.release.touch()
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(outcome) for outcome in asyncio.run(main())].count(asyncio.CancelledError) >= 1


def test_cancelling_kills_where_it_is_to(pool, tmp_path):
    async def main():
        spinning = asyncio.ensure_future(
            pool.options(cancel_kills=True).run(calls.touch_and, str(tmp_path / "pid"), "spin")
        )
        while not (tmp_path / "pid").exists():
            await asyncio.sleep(0.005)
        spinning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await spinning
        return await pool.run(calls.double, 1)

    assert asyncio.run(main()) == 2
    eventually(lambda: not pool.stats().running, "the worker was killed")


def test_the_options_of_a_view_hold(pool):
    async def main():
        from pidfdpool import TaskTimeout

        with pytest.raises(TaskTimeout):
            await pool.options(timeout=0.2, grace=0.1).run(calls.hang_in_python)
        return await pool.options(priority=1).run(calls.double, 1)

    assert asyncio.run(main()) == 2


def test_waiting_for_room_does_not_stop_the_loop(way, tmp_path):
    async def main(pool):
        await pool.run(calls.double, 1)
        first = asyncio.ensure_future(pool.run(calls.run_until, str(tmp_path / "runs"), str(tmp_path / "go")))
        while not (tmp_path / "runs").exists():
            await asyncio.sleep(0.005)
        second = asyncio.ensure_future(pool.run(calls.double, 2))
        for _ in range(5):
            await asyncio.sleep(0.005)  # the loop runs
        assert not second.done()
        with pytest.raises(QueueFull):
            await pool.options(block=False).run(calls.double, 3)
        (tmp_path / "go").touch()
        await first
        return await second

    with PidfdPoolExecutor(1, mp_context=way, max_pending=1) as pool:
        assert asyncio.run(main(pool)) == 4


def test_a_loop_that_ends_while_a_call_runs_costs_nobody_else_anything(pool, tmp_path):
    async def main():
        running = asyncio.ensure_future(pool.run(calls.run_until, str(tmp_path / "runs"), str(tmp_path / "go")))
        while not (tmp_path / "runs").exists():
            await asyncio.sleep(0.005)
        assert not running.done()

    asyncio.run(main())
    (tmp_path / "go").touch()
    assert pool.submit(calls.double, 1).result() == 2
    eventually(lambda: not pool.stats().running, "the call has ended")


def test_a_forked_child_has_a_loop_and_a_pool_of_its_own(pool):
    async def child():
        return await pool.run(calls.double, 2)

    async def main():
        return await pool.run(calls.sleep, 0.1, 7)

    async def both():
        under_way = asyncio.ensure_future(main())
        await asyncio.sleep(0)
        pid = os.fork()
        if not pid:
            status = 1
            try:
                asyncio.events._set_running_loop(None)
                status = 0 if asyncio.run(child()) == 4 else 2
                pool.shutdown()
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0) == (pid, 0)
        return await under_way

    assert asyncio.run(both()) == 7


def test_what_arrives_just_after_the_loop_has_looked_is_seen():
    late = []

    class Letters(deque):
        def __len__(self):
            count = super().__len__()
            if not count and late:
                mailbox.post(late.pop(), 2, None)
            return count

    mailbox = Mailbox()
    mailbox._outcomes = Letters()

    async def main():
        first, second = (asyncio.get_running_loop().create_future() for _ in range(2))
        late.append(second)
        mailbox.post(first, 1, None)
        return await first, await asyncio.wait_for(second, 10)

    assert asyncio.run(main()) == (1, 2)


# ---- amap ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"chunksize": 1}, {"chunksize": 7}, {"buffersize": 3}])
def test_amap_yields_results_in_order(pool, options):
    async def main():
        assert await all_of(pool.amap(calls.double, range(500), **options)) == [2 * n for n in range(500)]
        assert await all_of(pool.amap(pow, range(10), itertools.repeat(2), **options)) == [n * n for n in range(10)]
        assert await all_of(pool.amap(calls.double, [], **options)) == []

    asyncio.run(main())


@pytest.mark.parametrize("options", [{}, {"chunksize": 1}])
def test_amap_raises_where_the_result_would_have_been(pool, options):
    async def main():
        results = pool.amap(divmod, [6] * 5, [1, 2, 3, 0, 1], **options)
        assert [await anext(results) for _ in range(3)] == [(6, 0), (3, 0), (2, 0)]
        with pytest.raises(ZeroDivisionError):
            await anext(results)

    asyncio.run(main())


@pytest.mark.parametrize("options", [{}, {"chunksize": 1}])
def test_amap_that_takes_too_long(pool, options):
    async def main():
        with pytest.raises(TimeoutError):
            await all_of(pool.amap(calls.sleep, [0.0, 60.0], timeout=0.5, **options))
        pool.kill_workers()

    asyncio.run(main())


@pytest.mark.parametrize("options", [{}, {"chunksize": 1}, {"buffersize": 2}])
def test_amap_that_is_left_makes_no_more_calls(pool, options, tmp_path):
    path = tmp_path / "made"

    async def main():
        results = pool.amap(calls.touch_and, [str(path)] * 200, ["sleep"] * 200, [0.02] * 200, **options)
        async for _ in results:
            break
        await results.aclose()

    asyncio.run(main())
    pool.submit(calls.double, 1).result()
    eventually(lambda: not pool.stats().pending, "nothing is left to do")
    assert len(path.read_text().split()) < 100


def test_amap_checks_its_arguments(pool):
    with pytest.raises(ValueError, match="chunksize must be >= 1, not 0"):
        pool.amap(calls.double, [1], chunksize=0)
