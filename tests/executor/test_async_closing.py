"""`async with` and `aclose`: a pool is shut down, and neither the event loop nor a thread waits for it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading

import pytest

from pidfdpool import PidfdPoolExecutor, TaskKilled, WorkerCrashed
from tests import calls
from tests.conditions import eventually, run_python


@pytest.fixture
def release(tmp_path):
    """Give the path of a file that ends what `calls.wait_for` waits for."""
    yield tmp_path / "go"
    (tmp_path / "go").touch()


async def turns(count):
    for _ in range(count):
        await asyncio.sleep(0.001)


def test_the_loop_goes_on_while_the_accepted_tasks_are_finished(way, run, release):
    async def main():
        threads = threading.active_count()
        async with PidfdPoolExecutor(2, mp_context=way) as pool:
            futures = [pool.submit(calls.wait_for, str(release)) for _ in range(5)]
            closing = asyncio.ensure_future(pool.aclose())
            await turns(20)
            assert not closing.done()
            with pytest.raises(RuntimeError, match="after shutdown"):
                pool.submit(calls.double, 1)
            assert threading.active_count() == threads + 1, "the pool's own, and no other"
            release.touch()
            await closing
            assert [future.result(0) for future in futures] == [None] * 5
            assert threading.active_count() == threads
        assert threading.active_count() == threads

    run(main())


def test_pending_ones_are_cancelled_if_asked(way, run, release):
    async def main():
        pool = PidfdPoolExecutor(1, mp_context=way)
        futures = [pool.submit(calls.run_until, f"{release}{number}", str(release)) for number in range(9)]
        eventually(lambda: os.path.exists(f"{release}0"), "the first runs")
        closing = asyncio.ensure_future(pool.aclose(cancel_futures=True))
        await turns(5)
        assert [future.cancelled() for future in futures] == [False] + [True] * 8
        release.touch()
        await closing
        assert futures[0].result(0) is None

    run(main())


def test_again_and_of_an_unused_pool_and_of_a_view(run):
    async def main():
        async with PidfdPoolExecutor(1) as pool:
            pass
        await pool.aclose()
        await pool.aclose(cancel_futures=True)
        pool = PidfdPoolExecutor(1)
        async with pool.options(timeout=60) as view:
            assert await view.run(calls.double, 1) == 2
        await view.aclose(cancel_futures=True)
        assert await view.run(calls.double, 2) == 4, "a view does not own the pool"
        pool.shutdown()
        await pool.aclose()

    run(main())


def test_several_may_wait_in_several_loops(run, release):
    async def main():
        pool = PidfdPoolExecutor(1)
        pool.submit(calls.run_until, f"{release}0", str(release))
        eventually(lambda: os.path.exists(f"{release}0"), "it runs")
        ended = []

        def in_a_thread():
            asyncio.run(pool.aclose())
            ended.append(1)

        threads = [threading.Thread(target=in_a_thread), threading.Thread(target=lambda: pool.shutdown())]
        for thread in threads:
            thread.start()
        here = [asyncio.ensure_future(pool.aclose()) for _ in range(3)]
        await turns(20)
        assert not ended
        assert not any(closing.done() for closing in here)
        release.touch()
        await asyncio.gather(*here)
        for thread in threads:
            thread.join(20)
        assert ended == [1]

    run(main())


def test_a_wait_that_is_cancelled_leaves_a_pool_that_ends(way, run, release):
    async def main():
        pool = PidfdPoolExecutor(1, mp_context=way)
        futures = [pool.submit(calls.wait_for, str(release)) for _ in range(3)]
        closing, other = asyncio.ensure_future(pool.aclose()), asyncio.ensure_future(pool.aclose())
        await turns(5)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(calls.double, 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await pool.aclose()
        release.touch()
        await other
        assert [future.result(0) for future in futures] == [None] * 3

    run(main())


def test_async_with_that_is_cancelled_finishes_what_was_accepted(run, release):
    async def work(pools):
        async with PidfdPoolExecutor(1) as pool:
            pools.append((pool, pool.submit(calls.wait_for, str(release))))
            await asyncio.sleep(1000)

    async def main():
        pools = []
        working = asyncio.ensure_future(work(pools))
        await turns(20)
        working.cancel()
        await turns(20)
        assert not working.done(), "it waits for what it has accepted, as `with` does"
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        ((pool, future),) = pools
        assert not future.done()
        release.touch()
        await pool.aclose()
        assert future.result(0) is None

    run(main())


def test_an_exception_of_the_body_is_raised(run):
    async def fail(futures):
        async with PidfdPoolExecutor(1) as pool:
            futures.append(pool.submit(calls.double, 1))
            raise LookupError

    async def main():
        futures = []
        with pytest.raises(LookupError):
            await fail(futures)
        assert futures[0].result(0) == 2

    run(main())


def test_workers_that_are_killed_meanwhile(run):
    async def main():
        pool = PidfdPoolExecutor(1)
        future = pool.submit(calls.sleep, 1000)
        eventually(future.running, "it runs")
        closing = asyncio.ensure_future(pool.aclose())
        await turns(5)
        pool.kill_workers()
        await closing
        assert isinstance(future.exception(0), WorkerCrashed | TaskKilled)

    run(main())


def test_maps_that_are_under_way_are_finished(run):
    async def main():
        async with PidfdPoolExecutor(2) as pool:
            results = pool.map(calls.double, range(500))
            outcomes = pool.map(calls.double, range(500), return_exceptions=True)
        assert list(results) == [2 * number for number in range(500)]
        assert [outcome.value for outcome in outcomes] == [2 * number for number in range(500)]
        pool = PidfdPoolExecutor(1)
        results = pool.map(calls.sleep, [0.01] * 500)
        await pool.aclose(cancel_futures=True)
        with pytest.raises(concurrent.futures.CancelledError):
            list(results)

    run(main())


def test_in_a_forked_child(run):
    async def main():
        async with PidfdPoolExecutor(1) as pool:
            assert await pool.run(calls.double, 1) == 2
            if not (child := os.fork()):
                try:
                    pool.aclose().send(None)
                except StopIteration:
                    os._exit(0)
                os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert await pool.run(calls.double, 2) == 4

    run(main())


@pytest.mark.parametrize("where", ["body", "end"])
@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_ctrl_c_kills_what_runs(kind, where):
    if kind == "uvloop":
        pytest.importorskip("uvloop")
    ran = run_python(
        f"""
        import asyncio, os, signal, sys, time
        from pidfdpool import PidfdPoolExecutor, WorkerCrashed

        async def main():
            loop = asyncio.get_running_loop()
            async with PidfdPoolExecutor(1) as pool:
                await pool.run(abs, 1)
                told.append(pool.submit(time.sleep, 1000))
                loop.call_later(0.2, os.kill, os.getpid(), signal.SIGINT)
                if {where!r} == "body":
                    await asyncio.sleep(1000)

        told = []
        if {kind!r} == "uvloop":
            import uvloop
            factory = uvloop.new_event_loop
        else:
            factory = None
        try:
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(main())
        except KeyboardInterrupt:
            print("interrupted", isinstance(told[0].exception(0), WorkerCrashed))
        """
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("interrupted True\n", "", 0)


def test_a_pool_that_another_thread_is_starting(run):
    async def main():
        pool = PidfdPoolExecutor(1)

        def start():
            with contextlib.suppress(RuntimeError):  # it may be shut down before
                assert pool.submit(calls.double, 1).result(60) == 2

        starting = threading.Thread(target=start)
        starting.start()
        eventually(lambda: pool._pool is not None, "it is being started")
        await pool.aclose()
        starting.join(20)

    run(main())
