"""Waiting for room (`max_pending`) in event loops: no thread waits, and the call of who leaves does not run."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import signal
import threading

import pytest

from pidfdpool import PidfdPoolExecutor, PoolBroken, QueueFull
from tests import calls
from tests.conditions import eventually, in_forked_child, run_python
from tests.executor.test_backpressure import Caller


@pytest.fixture
def full(tmp_path):
    """Give a pool of one worker that has room for one task, and one that runs until `pool.release.touch()`."""
    with PidfdPoolExecutor(1, max_pending=1) as pool:
        pool.release = tmp_path / "release"
        pool.holding = pool.submit(calls.run_until, str(tmp_path / "runs"), str(pool.release), "held")
        eventually((tmp_path / "runs").exists, "it runs")
        yield pool
        pool.release.touch()


async def begin(*coroutines):
    """Return tasks that have come as far as they can: to wait for room, if there is none."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    await asyncio.sleep(0)
    return tasks


async def group_of(*coroutines):
    async with asyncio.TaskGroup() as group:
        for coroutine in coroutines:
            group.create_task(coroutine)


async def outcomes_of(tasks):
    return await asyncio.gather(*tasks, return_exceptions=True)


def lines_of(path):
    return path.read_text().split() if path.exists() else []


# ---- leaving -----------------------------------------------------------------------------------------------


def test_a_cancelled_call_does_not_run_and_no_thread_waits(full, tmp_path):
    threads = set(threading.enumerate())

    async def main():
        waiting = await begin(*(full.run(calls.append, str(tmp_path / "ran"), n) for n in range(50)))
        assert set(threading.enumerate()) == threads
        assert await asyncio.to_thread(int, "3") == 3  # the loop's own executor is free
        for task in waiting[::2]:
            task.cancel()
        cancelled = await outcomes_of(waiting[::2])
        assert all(isinstance(error, asyncio.CancelledError) for error in cancelled)
        full.release.touch()
        assert await outcomes_of(waiting[1::2]) == [None] * 25

    asyncio.run(main())
    assert lines_of(tmp_path / "ran") == [str(n) for n in range(1, 50, 2)]
    assert full.stats().submitted == 26  # those that left were never accepted


def test_a_call_whose_task_is_cancelled_does_not_run_though_there_is_room_before_the_loop_goes_on(full, tmp_path):
    async def main():
        first, second = await begin(*(full.run(calls.append, str(tmp_path / "ran"), n) for n in range(2)))
        first.cancel()
        full.release.touch()
        eventually(lambda: lines_of(tmp_path / "ran"), "there is room for the next")  # the loop stands still
        await outcomes_of([first, second])

    asyncio.run(main())
    assert lines_of(tmp_path / "ran") == ["1"]
    assert full.stats().submitted == 2  # it was never accepted


def test_a_call_that_was_accepted_when_its_task_is_cancelled_does_not_begin_either(full, tmp_path):
    async def main():
        (first,) = await begin(full.run(calls.append, str(tmp_path / "ran"), 1))
        full.holding.cancel()  # it runs: this does nothing
        first.cancel()
        full.release.touch()
        assert full.holding.result(20) == "held"
        await outcomes_of([first])

    asyncio.run(main())
    assert full.submit(calls.double, 2).result(20) == 4
    assert lines_of(tmp_path / "ran") == []


@pytest.mark.parametrize("way_out", ["timeout", "wait_for", "TaskGroup", "close"])
def test_every_way_of_leaving_withdraws_the_call(full, way_out, tmp_path):
    call = calls.append, str(tmp_path / "ran"), 1

    async def fail():
        raise KeyError

    async def main():
        if way_out == "timeout":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await full.run(*call)
        elif way_out == "wait_for":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(full.run(*call), 0.01)
        elif way_out == "TaskGroup":
            with pytest.raises(ExceptionGroup):
                await group_of(full.run(*call), fail())
        else:
            coroutine = full.run(*call)
            coroutine.send(None)
            coroutine.close()
        full.release.touch()
        assert await full.run(calls.double, 2) == 4  # while there is a loop to run the call for

    asyncio.run(main())
    assert lines_of(tmp_path / "ran") == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_is_closed_while_its_call_waits_leaves_the_room_to_others(full, tmp_path):
    loop = asyncio.new_event_loop()
    task = loop.create_task(full.run(calls.append, str(tmp_path / "ran"), "of the closed loop"))
    loop.run_until_complete(asyncio.sleep(0))
    other = Caller(full.submit, calls.append, str(tmp_path / "ran"), "of the thread")
    eventually(other.is_blocked, "submit waits")
    task._log_destroy_pending = False
    loop.close()
    full.release.touch()
    other.join(20)
    assert other.result.result(20) is None
    assert lines_of(tmp_path / "ran") == ["of", "the", "thread"]


def test_cancelling_amid_the_coming_of_room_loses_neither_room_nor_calls(tmp_path):
    ran = tmp_path / "ran"

    async def main(pool):
        tasks = []
        for number in range(300):
            tasks.append(asyncio.ensure_future(pool.run(calls.append, str(ran), number)))
            if number % 3 == 0:
                await asyncio.sleep(0)
            if number % 2:
                tasks[number * 7919 % len(tasks)].cancel()
        outcomes = await asyncio.wait_for(outcomes_of(tasks), 30)
        done = [str(number) for number, outcome in enumerate(outcomes) if outcome is None]
        ran_so_far = lines_of(ran)
        assert set(done) <= set(ran_so_far)
        assert len(ran_so_far) == len(set(ran_so_far))
        # There is as much room as ever.
        return await asyncio.gather(*(pool.run(calls.double, n) for n in range(20)))

    with PidfdPoolExecutor(2, max_pending=3) as pool:
        assert asyncio.run(main(pool)) == [2 * n for n in range(20)]
    stats = pool.stats()
    assert stats.submitted == stats.finished + stats.cancelled
    assert len(lines_of(ran)) + 20 == stats.finished


# ---- who is next -------------------------------------------------------------------------------------------


def test_threads_and_loops_take_turns_and_the_more_urgent_go_first(full, tmp_path):
    ran = str(tmp_path / "ran")
    callers = []

    def in_loop(name, pool=full):
        callers.append(Caller(asyncio.run, pool.run(calls.append, ran, name)))
        eventually(lambda: len(full._pool.core.admission.waiting) == len(callers), "the loop's call waits")

    def in_thread(name):
        callers.append(Caller(full.submit, calls.append, ran, name))
        eventually(lambda: len(full._pool.core.admission.waiting) == len(callers), "submit waits")

    for turn in range(3):
        in_loop(f"loop-{turn}")
        in_thread(f"thread-{turn}")
    in_loop("urgent", full.options(priority=1))
    full.release.touch()
    for caller in callers:
        caller.join(20)
        assert caller.error is None
    full.submit(calls.double, 1).result(20)
    turns = [f"{who}-{turn}" for turn in range(3) for who in ("loop", "thread")]
    assert lines_of(tmp_path / "ran") == ["urgent", *turns]


def test_a_crowd_gets_its_results_and_no_more_than_may_are_pending():
    most = []

    async def main(pool):
        async def one(number):
            result = await pool.run(calls.double, number)
            most.append(pool.stats().pending)
            return result

        return await asyncio.gather(*(one(n) for n in range(2000)))

    with PidfdPoolExecutor(2, max_pending=8) as pool:
        threads = threading.active_count()
        assert asyncio.run(main(pool)) == [2 * n for n in range(2000)]
        assert threading.active_count() <= threads + 1
    assert max(most) <= 8


def test_arguments_are_those_of_the_moment_of_the_call(full):
    async def main():
        argument = [1]
        (waiting,) = await begin(full.run(calls.double, argument))
        argument.append(2)
        full.release.touch()
        assert await waiting == [1, 1]
        with pytest.raises(TypeError, match="does not pickle"):
            await full.run(calls.double, calls.Unpicklable())

    asyncio.run(main())


def test_large_calls_wait_without_segments_of_their_own(full):
    async def main():
        document = b"x" * (1 << 18)
        waiting = await begin(*(full.run(len, document + bytes([n])) for n in range(40)))
        assert len(full._pool.leases.arena.segments) < 10
        waiting.pop().cancel()
        full.release.touch()
        assert await asyncio.gather(*waiting) == [(1 << 18) + 1] * 39

    asyncio.run(main())


def test_leaving_the_line_costs_no_memory():
    """Whoever gives up and asks again, of a pool that stands still, leaves nothing behind."""

    async def main(pool):
        (first,) = await begin(pool.run(calls.hang_in_python))
        for _ in range(2000):
            (waiting,) = await begin(pool.run(calls.double, 1))
            waiting.cancel()
            await outcomes_of([waiting])
        assert len(pool._pool.core.admission._order) < 200
        pool.kill_workers()
        await outcomes_of([first])

    with PidfdPoolExecutor(1, max_pending=1) as pool:
        asyncio.run(main(pool))


def test_who_begins_to_wait_while_an_answer_is_told_is_none_of_what_is_to_be_told(full, tmp_path):
    """Guards against looking into the line without the lock, in which another thread may stand by then."""
    begun, release = tmp_path / "begun", tmp_path / "another release"
    callers = []

    def others_come(_):
        callers.append(Caller(full.submit, calls.run_until, str(begun), str(release), "took the room"))
        eventually(begun.exists, "it runs")
        callers.append(Caller(full.submit, calls.double, 2))
        eventually(lambda: full._pool.core.admission.waiting, "submit waits")

    full.holding.add_done_callback(others_come)
    full.release.touch()
    eventually(lambda: len(callers) == 2 and callers[1].is_blocked(), "both have come")
    release.touch()
    for caller, result in zip(callers, ("took the room", 4), strict=True):
        caller.join(20)
        assert caller.error is None
        assert caller.result.result(20) == result


# ---- being refused -----------------------------------------------------------------------------------------


def test_queue_full_is_raised_where_waiting_was_not_asked_for(full):
    hasty = full.options(block=False)

    async def main():
        waiting = await begin(full.run(calls.double, 1))
        with pytest.raises(QueueFull, match="1 tasks are pending and max_pending is 1"):
            await hasty.run(calls.double, 2)
        with pytest.raises(QueueFull):
            hasty.amap(calls.double, range(3))
        full.release.touch()
        assert await waiting[0] == 2
        assert await hasty.run(calls.double, 2) == 4
        assert [result async for result in hasty.amap(calls.double, [3])] == [6]

    asyncio.run(main())


def end_by_shutdown(pool):
    pool.shutdown(wait=False)


def end_by_kill(pool):
    pool.kill_workers()


def end_by_break(pool):
    os.kill(pool.holding.worker.pid, signal.SIGKILL)


def end_by_failure(pool):
    """Have the pool's own thread fail, as by a fault of ours."""

    def fail():
        raise ZeroDivisionError("a fault of the pool's")

    pool._pool.starter.start_if_wanted = fail
    pool._pool.core.poller.wake()


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (end_by_shutdown, RuntimeError),
        (end_by_kill, RuntimeError),
        (end_by_break, PoolBroken),
        (end_by_failure, PoolBroken),
    ],
)
def test_who_waits_is_told_when_the_pool_ends(end, kind, tmp_path):
    release = tmp_path / "release"

    async def main():
        waiting = await begin(*(pool.run(calls.append, str(tmp_path / "ran"), n) for n in range(3)))
        end(pool)
        return await asyncio.wait_for(outcomes_of(waiting), 20)

    with PidfdPoolExecutor(1, max_pending=1, on_crash="break") as pool:
        pool.holding = pool.submit(calls.run_until, str(tmp_path / "runs"), str(release))
        eventually(lambda: (tmp_path / "runs").exists() and pool.holding.worker, "it runs")
        callers = [Caller(pool.submit, calls.append, str(tmp_path / "ran"), n) for n in range(2)]
        eventually(lambda: all(caller.is_blocked() for caller in callers), "submit waits")
        errors = asyncio.run(main())
        for caller in callers:
            caller.join(20)
        release.touch()
        errors += [caller.error for caller in callers]
        assert [type(error) for error in errors] == [kind] * 5
        assert len({id(error) for error in errors}) == 5  # each has a traceback of its own
    assert lines_of(tmp_path / "ran") == []


def test_a_child_that_is_forked_meanwhile_has_room(full):
    async def main():
        (waiting,) = await begin(full.run(calls.double, 3))

        def child():
            asyncio.events._set_running_loop(None)
            assert full.submit(calls.double, 4).result(20) == 8
            full.shutdown()

        assert in_forked_child(child) == "ok"
        full.release.touch()
        assert await waiting == 6

    asyncio.run(main())


def test_who_waits_in_the_first_moments_can_be_interrupted(tmp_path):
    """Ctrl-C, while another thread still starts the pool with the task that takes all the room."""
    release = tmp_path / "release"
    with PidfdPoolExecutor(1, max_pending=1, preload=Waiting(str(tmp_path / "preload"))) as pool:
        first = Caller(pool.submit, calls.run_until, str(tmp_path / "runs"), str(release))
        eventually(lambda: pool.stats().pending, "the other thread starts the pool")

        def interrupt():
            (tmp_path / "preload").touch()
            eventually((tmp_path / "runs").exists, "the other's task runs")
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            eventually(lambda: interrupted, "KeyboardInterrupt")

        interrupted = []
        interrupter = Caller(interrupt)
        try:
            with pytest.raises(KeyboardInterrupt):
                pool.submit(calls.append, str(tmp_path / "ran"), 1)
            interrupted.append(True)
        finally:
            interrupter.join()
            release.touch()
        assert interrupter.error is None
        first.join(20)
        first.result.result(20)
    assert lines_of(tmp_path / "ran") == []


class Waiting:
    """What a template has to wait for."""

    def __init__(self, path):
        self.path = path

    def __call__(self):
        calls.wait_for(self.path)


# ---- other ways to call ------------------------------------------------------------------------------------


def test_run_in_executor_holds_the_loop_up_and_comes_through(tmp_path):
    async def main(pool):
        loop = asyncio.get_running_loop()
        doubles = await asyncio.gather(*(loop.run_in_executor(pool, calls.double, n) for n in range(50)))
        running = loop.run_in_executor(pool, calls.run_until, str(tmp_path / "runs"), str(tmp_path / "release"))
        with pytest.raises(QueueFull):
            loop.run_in_executor(pool.options(block=False), calls.double, 1)
        (tmp_path / "release").touch()
        await running
        return doubles

    with PidfdPoolExecutor(2, max_pending=1) as pool:
        assert asyncio.run(main(pool)) == [2 * n for n in range(50)]


def test_with_uvloop():
    pytest.importorskip("uvloop")
    done = run_python("""
        import asyncio, uvloop  # in a process of its own: it keeps descriptors
        from pidfdpool import PidfdPoolExecutor

        async def main():
            waiting = [asyncio.ensure_future(pool.run(pow, 2, n)) for n in range(6)]
            await asyncio.sleep(0)
            waiting[4].cancel()
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
            print([outcome for outcome in outcomes if isinstance(outcome, int)])
            print([result async for result in pool.amap(abs, range(20))] == list(range(20)))

        with PidfdPoolExecutor(1, max_pending=2) as pool:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(main())
        print(pool.stats().submitted)
    """)
    assert (done.stdout.split("\n"), done.stderr) == (["[1, 2, 4, 8, 32]", "True", "25", ""], "")


# ---- amap --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"chunksize": 7}, {"buffersize": 2}, {"buffersize": 50}])
def test_amap_does_not_hold_up_the_loop(options):
    turns = []

    async def beat():
        while True:
            turns.append(1)
            await asyncio.sleep(0)

    async def main(pool):
        await pool.run(calls.double, 1)
        beating = asyncio.ensure_future(beat())
        results = pool.amap(calls.double, range(100), **options)
        assert not turns  # the loop had no turn, and none was needed
        assert [result async for result in results] == [2 * n for n in range(100)]
        assert len(turns) > 1
        beating.cancel()

    with PidfdPoolExecutor(2, max_pending=3) as pool:
        asyncio.run(main(pool))


def test_amap_takes_its_arguments_as_there_is_room():
    taken = []

    def numbers():
        for number in itertools.count():
            taken.append(threading.get_ident())
            yield number

    async def main(pool):
        results = pool.amap(calls.double, numbers())
        assert len(taken) == 3
        assert [await anext(results) for _ in range(20)] == [2 * n for n in range(20)]
        await results.aclose()
        ahead = len(taken)
        await pool.run(calls.double, 1)
        assert len(taken) == ahead
        assert set(taken) == {threading.get_ident()}

    with PidfdPoolExecutor(2, max_pending=3) as pool:
        asyncio.run(main(pool))
        eventually(lambda: not pool.stats().pending, "nothing is left to do")


def test_amap_takes_no_more_than_buffersize_ahead():
    taken = []

    async def main(pool):
        results = pool.amap(calls.double, (taken.append(n) or n for n in range(50)), buffersize=2)
        assert len(taken) == 2
        assert await anext(results) == 0
        for _ in range(3):
            await pool.run(calls.double, 1)
        assert len(taken) == 3
        assert [result async for result in results] == [2 * n for n in range(1, 50)]

    with PidfdPoolExecutor(2, max_pending=10) as pool:
        asyncio.run(main(pool))


def test_all_calls_of_amap_are_made_though_nobody_takes_the_results(tmp_path):
    async def main(pool):
        results = pool.amap(calls.append, itertools.repeat(str(tmp_path / "ran")), range(20))
        while len(lines_of(tmp_path / "ran")) < 20:
            await asyncio.sleep(0.01)
        await results.aclose()

    with PidfdPoolExecutor(2, max_pending=3) as pool:
        asyncio.run(main(pool))


def test_amap_that_finds_no_room_waits_for_it_and_can_be_left(full, tmp_path):
    async def main():
        left = full.amap(calls.append, [str(tmp_path / "ran")] * 5, range(5))
        first = asyncio.ensure_future(anext(left))
        await asyncio.sleep(0)
        other = full.amap(calls.double, range(5))
        first.cancel()
        await outcomes_of([first])
        with pytest.raises(StopAsyncIteration):
            await anext(left)
        with pytest.raises(TimeoutError):
            await anext(full.amap(calls.append, [str(tmp_path / "ran")] * 5, range(5), timeout=0.01))
        full.release.touch()
        return [result async for result in other]

    assert asyncio.run(main()) == [0, 2, 4, 6, 8]
    assert lines_of(tmp_path / "ran") == []


@pytest.mark.parametrize("later", [False, True])
def test_amap_raises_what_its_arguments_raise(later):
    def numbers():
        yield from range(10 if later else 1)
        raise LookupError("no more numbers")

    async def main(pool):
        if not later:
            with pytest.raises(LookupError, match="no more numbers"):
                pool.amap(calls.double, numbers())
            return
        results = pool.amap(calls.double, numbers())
        assert [await anext(results) for _ in range(10)] == [2 * n for n in range(10)]
        with pytest.raises(LookupError, match="no more numbers"):
            await anext(results)

    with PidfdPoolExecutor(1, max_pending=2) as pool:
        asyncio.run(main(pool))


def test_amap_raises_where_the_result_would_have_been_and_withdraws_the_rest(tmp_path):
    complaints = []

    async def main(pool):
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        results = pool.amap(divmod, [6] * 6, [1, 2, 0, 0, 1, 1])
        assert [await anext(results) for _ in range(2)] == [(6, 0), (3, 0)]
        with pytest.raises(ZeroDivisionError):
            await anext(results)
        assert [result async for result in pool.amap(calls.double, [2])] == [4]

    with PidfdPoolExecutor(1, max_pending=4) as pool:
        asyncio.run(main(pool))
    assert complaints == []


def test_nobody_complains_of_the_failures_that_an_amap_was_left_with():
    complaints = []

    async def main(pool):
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        results = pool.amap(divmod, [6] * 3, [1, 0, 0])
        assert await anext(results) == (6, 0)
        eventually(lambda: pool.stats().finished == 3, "all have come")
        assert await pool.run(calls.double, 1) == 2  # and the loop has taken them
        await results.aclose()
        del results
        gc.collect()

    with PidfdPoolExecutor(1, max_pending=4) as pool:
        asyncio.run(main(pool))
    assert complaints == []


def test_amap_from_outside_a_loop_begins_with_the_first_result():
    with PidfdPoolExecutor(1, max_pending=2) as pool:
        results = pool.amap(calls.double, range(5))

        async def main():
            return [result async for result in results]

        assert asyncio.run(main()) == [0, 2, 4, 6, 8]


# ---- what comes together -----------------------------------------------------------------------------------


def test_results_that_come_together_with_that_of_a_cancelled_call_arrive(tmp_path):
    """The loop stands still until all of them are there, and takes them at once."""

    async def main(pool):
        waiting = await begin(*(pool.run(calls.append, str(tmp_path / "ran"), n) for n in range(5)))
        eventually(lambda: pool.stats().finished == 5, "all have come")
        for number in (0, 2):
            waiting[number].cancel()
        outcomes = await asyncio.wait_for(outcomes_of(waiting), 20)
        return [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes]

    with PidfdPoolExecutor(1) as pool:
        assert asyncio.run(main(pool)) == [True, False, True, False, False]


def test_a_loop_is_woken_again_after_it_has_taken_what_came_together():
    async def main(pool):
        for _ in range(20):
            waiting = await begin(*(pool.run(calls.double, n) for n in range(3)))
            waiting[0].cancel()
            await asyncio.wait_for(outcomes_of(waiting), 20)
        return True

    with PidfdPoolExecutor(1) as pool:
        assert asyncio.run(main(pool))
