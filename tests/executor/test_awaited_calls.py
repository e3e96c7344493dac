"""The calls of an `amap` that are submitted one by one: how many, what is given, and what is taken back. No pool."""

from __future__ import annotations

import asyncio
import gc
import itertools
from concurrent.futures import CancelledError as PoolCancelled

import pytest

from pidfdpool import Outcome, PoolBroken
from pidfdpool.executor import async_map
from pidfdpool.loop.chunk_calls import Chunk
from tests.executor.amap_calls import Submitter, begun, run, turns


def function(*_):
    raise AssertionError("it is run by workers only")


@pytest.fixture(params=[False, True], ids=["by the pool", "by its own submit"])
def submitter(request):
    """Give a submitter of each kind."""
    return submitter_of(request.param)


def submitter_of(by_submit):
    made = Submitter() if by_submit else Submitter(max_pending=50)
    made.by_submit = by_submit
    return made


async def end_all(submitter, results):
    """Resolve all calls as they come, each with its own argument. Return what the map gives."""
    given, ended = [], 0
    next_one = begun(results)
    while True:
        await turns()
        if next_one.done():
            try:
                given.append(next_one.result())
            except StopAsyncIteration:
                return given
            next_one = begun(results)
        elif ended < len(submitter.taken):
            call, ended = submitter.taken[ended], ended + 1
            call.end(call.args[0])


# ---- results ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"buffersize": 1}, {"buffersize": 3}])
def test_results_come_in_order_whatever_comes_first(submitter, how):
    async def main():
        results = async_map.in_order(submitter, function, (range(3),), **{"buffersize": 3, **how})
        if how.get("buffersize") == 1:
            assert await end_all(submitter, results) == [0, 1, 2]
            return
        first = begun(results)
        for number in (2, 1):
            submitter.taken[number].end(f"result {number}")
            await turns()
            assert not first.done()
        submitter.taken[0].end("result 0")
        assert [await first, *[each async for each in results]] == ["result 0", "result 1", "result 2"]
        assert [call.args for call in submitter.taken] == [(0,), (1,), (2,)]
        assert {call.fn for call in submitter.taken} == {function}
        assert submitter.cancelled == []

    run(main())


def test_unordered_results_come_as_they_come(submitter):
    async def main():
        results = async_map.as_they_come(submitter, function, (range(4), "abcd"))
        assert [call.args for call in submitter.taken] == list(zip(range(4), "abcd", strict=True))
        first = begun(results)
        submitter.taken[2].end("third")
        assert await first == "third"
        submitter.taken[3].end("fourth")
        submitter.taken[0].end("first")
        await turns()
        assert [await anext(results), await anext(results)] == ["fourth", "first"]
        last = begun(results)
        await turns()
        assert not last.done()
        submitter.taken[1].end("second")
        assert await last == "second"
        assert [each async for each in results] == []
        assert submitter.cancelled == []

    run(main())


def test_the_calls_have_the_policy_of_their_submitter():
    async def main():
        submitter = Submitter(max_pending=5, timeout=3.0)
        results = async_map.in_order(submitter, function, ([1],))
        assert submitter.taken[0].policy is submitter._policy
        await results.aclose()

    run(main())


@pytest.mark.parametrize("begin", [async_map.in_order, async_map.as_they_come])
def test_no_inputs_give_no_results(submitter, begin):
    async def main():
        assert [each async for each in begin(submitter, function, ([],))] == []

    run(main())


@pytest.mark.parametrize("begin", [async_map.in_order, async_map.as_they_come])
def test_calls_that_share_a_task_give_their_results_one_by_one(submitter, begin):
    async def main():
        results = begin(submitter, function, (range(5),), chunksize=2)
        assert [type(call.fn) for call in submitter.taken] == [Chunk] * 3
        assert [call.fn.label.partition(", ")[2] for call in submitter.taken] == [
            "items 0 to 1 of map", "items 2 to 3 of map", "item 4 of map",
        ]  # fmt: skip
        assert [list(call.args[0]) for call in submitter.taken] == [[(0,), (1,)], [(2,), (3,)], [(4,)]]
        for call in submitter.taken:
            call.end([f"result {argument}" for (argument,) in call.args[0]])
        assert [each async for each in results] == [f"result {number}" for number in range(5)]

    run(main())


# ---- how many are taken -------------------------------------------------------------------------------------------


def test_no_more_are_pending_than_may_be_and_each_end_makes_room():
    async def main():
        submitter = Submitter(max_pending=3)
        results = async_map.in_order(submitter, function, (itertools.count(),))
        assert submitter.inputs == [0, 1, 2]
        submitter.taken[1].end(1)
        await turns()
        assert submitter.inputs == [0, 1, 2, 3], "nobody needs to take a result"
        submitter.taken[2].end(2)
        submitter.taken[3].end(3)
        await turns()
        assert len(submitter.taken) == 6
        submitter.taken[0].end(0)
        assert [await anext(results) for _ in range(4)] == [0, 1, 2, 3]
        assert len(submitter.taken) == 7
        await results.aclose()
        assert submitter.cancelled == [4, 5, 6]

    run(main())


def test_where_no_call_is_to_wait_for_room_the_pool_is_asked_for_each():
    """With block=False, which raises QueueFull, as in `map`."""

    async def main():
        submitter = Submitter(max_pending=3, block=False)
        async_map.in_order(submitter, function, (range(10),))
        assert len(submitter.taken) == 10

    run(main())


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("begin", [async_map.in_order, async_map.as_they_come])
def test_buffersize_calls_are_ahead_of_the_one_that_is_waited_for(submitter, begin, size):
    async def main():
        results = begin(submitter, function, (itertools.count(),), buffersize=size)
        assert len(submitter.taken) == size
        for given in range(4):
            waiting = begun(results)
            await turns()
            assert len(submitter.taken) == size + given + 1
            submitter.taken[given].end(given)
            assert await waiting == given
            await turns()
            assert len(submitter.taken) == size + given + 1, "one was given, and none is waited for"
        await results.aclose()

    run(main())


def test_without_a_limit_all_are_submitted_at_once(submitter):
    async def main():
        results = async_map.in_order(submitter, function, (range(40),))
        assert submitter.inputs == list(range(40))
        assert await end_all(submitter, results) == list(range(40))

    run(main())


def test_outside_of_an_event_loop_it_begins_with_the_first_result(submitter):
    results = async_map.in_order(submitter, function, (range(3),))
    assert submitter.taken == []

    async def main():
        assert await end_all(submitter, results) == [0, 1, 2]

    run(main())


# ---- failures -----------------------------------------------------------------------------------------------------


def test_a_call_that_raises_ends_it_in_its_place_and_the_rest_is_taken_back(submitter):
    async def main():
        results = async_map.in_order(submitter, function, (range(5),))
        submitter.taken[1].end(error=LookupError("mine"))
        submitter.taken[3].end(error=ValueError("nobody is told of this one"))
        submitter.taken[0].end("result")
        await turns()
        assert await anext(results) == "result"
        with pytest.raises(LookupError, match="mine"):
            await anext(results)
        assert submitter.cancelled == [2, 4]
        with pytest.raises(StopAsyncIteration):
            await anext(results)
        gc.collect()

    run(main())


def test_unordered_the_first_failure_that_comes_ends_it(submitter):
    async def main():
        results = async_map.as_they_come(submitter, function, (range(4),))
        submitter.taken[3].end("fourth")
        submitter.taken[1].end(error=LookupError("mine"))
        submitter.taken[0].end("first")
        await turns()
        assert await anext(results) == "fourth"
        with pytest.raises(LookupError, match="mine"):
            await anext(results)
        assert submitter.cancelled == [2]

    run(main())


@pytest.mark.parametrize("begin", [async_map.in_order, async_map.as_they_come])
def test_outcomes_tell_of_each_call_and_its_error(submitter, begin):
    async def main():
        results = begin(submitter, function, (range(3),), return_exceptions=True, chunksize=2)
        error = LookupError("mine")
        for number, end in enumerate(({"result": "a"}, {"error": error}, {"result": "c"})):
            submitter.taken[number].end(**end)
            await turns()
        assert [each async for each in results] == [Outcome(0, "a"), Outcome(1, None, error), Outcome(2, "c")]

    run(main())


def test_what_a_call_itself_raises_as_a_cancellation_is_an_outcome_of_it():
    async def main():
        submitter = Submitter(max_pending=9)
        results = async_map.in_order(submitter, function, (range(2),), return_exceptions=True)
        raised = asyncio.CancelledError("by the call")
        raised.__cause__ = LookupError("where")
        submitter.taken[0].end(error=raised)
        submitter.taken[1].end(error=asyncio.CancelledError())
        outcome = await anext(results)
        assert (outcome.index, outcome.error) == (0, raised)
        with pytest.raises(asyncio.CancelledError):  # the pool has cancelled it, and will no other
            await anext(results)

    run(main())


@pytest.mark.parametrize("begin", [async_map.in_order, async_map.as_they_come])
def test_what_ends_the_map_is_raised_and_without_order_behind_the_outcomes_that_come(begin):
    async def main():
        submitter = Submitter(max_pending=3)
        results = begin(submitter, function, (itertools.count(),), return_exceptions=True)
        submitter.taken[0].end(error=PoolBroken("broken", ()))
        submitter.taken[1].end("second")
        await turns()
        taken = len(submitter.taken)
        if begin is async_map.as_they_come:
            assert await anext(results) == Outcome(1, "second")
            last = begun(results)
            await turns()
            assert not last.done()
            for call in submitter.taken[2:]:
                call.end("late")
            assert (await last).value == "late"
            assert [(await anext(results)).value for _ in range(2)] == ["late"] * 2
            with pytest.raises(PoolBroken):
                await anext(results)
        else:
            with pytest.raises(PoolBroken):
                await anext(results)
        assert len(submitter.taken) == taken, "nothing more is submitted"

    run(main())


class Failing:
    """Yields some numbers, and raises."""

    def __init__(self, count, error):
        self.count, self.error = count, error

    def __iter__(self):
        yield from range(self.count)
        raise self.error


def test_what_an_input_raises_is_raised_at_once_where_all_are_taken_at_once(submitter):
    async def main():
        with pytest.raises(LookupError, match="no more"):
            async_map.in_order(submitter, function, (Failing(3, LookupError("no more")),))
        await turns()
        assert submitter.cancelled == [0, 1, 2]

    run(main())


@pytest.mark.parametrize("begin", [async_map.in_order, async_map.as_they_come])
@pytest.mark.parametrize("outcomes", [False, True])
def test_with_a_buffersize_it_comes_behind_the_results(submitter, begin, outcomes):
    async def main():
        inputs = Failing(2, LookupError("no more"))
        results = begin(submitter, function, (inputs,), buffersize=9, return_exceptions=outcomes)
        for number in range(2):
            submitter.taken[number].end(number)
            await turns()
            assert await anext(results) == (Outcome(number, number) if outcomes else number)
        with pytest.raises(LookupError, match="no more"):
            await anext(results)
        assert submitter.cancelled == []

    run(main())


@pytest.mark.parametrize("how", [{}, {"buffersize": 9}])
def test_a_call_that_the_pool_refuses_is_raised_at_once(submitter, how):
    async def main():
        submitter.refusals[2] = LookupError("full")
        with pytest.raises(LookupError, match="full"):
            async_map.in_order(submitter, function, (range(5),), **how)
        await turns()
        assert len(submitter.taken) == 2
        assert submitter.cancelled == [0, 1]

    run(main())


def test_a_call_that_is_refused_later_on_comes_behind_the_results(submitter):
    async def main():
        submitter.refusals[2] = LookupError("full")
        results = async_map.in_order(submitter, function, (range(5),), buffersize=1)
        first = begun(results)
        await turns()
        submitter.taken[0].end("first")
        assert await first == "first"
        second = begun(results)
        submitter.taken[1].end("second")
        assert await second == "second"
        with pytest.raises(LookupError, match="full"):
            await anext(results)

    run(main())


def test_ctrl_c_in_an_input_ends_it_and_is_raised_where_it_was(submitter):
    async def main():
        with pytest.raises(KeyboardInterrupt):
            async_map.in_order(submitter, function, (Failing(1, KeyboardInterrupt()),), buffersize=5)

    run(main())


# ---- its end ------------------------------------------------------------------------------------------------------


def test_who_leaves_takes_back_what_is_left_in_the_order_of_the_calls(submitter):
    async def main():
        results = async_map.in_order(submitter, function, (range(4),))
        submitter.taken[0].end("result")
        submitter.taken[2].end(error=LookupError("nobody is told"))
        assert await anext(results) == "result"
        await results.aclose()
        await turns()
        assert submitter.cancelled == [1, 3]
        assert len(submitter.taken) == 4

    run(main())


def test_who_is_cancelled_while_waiting_takes_back_the_rest(submitter):
    async def main():
        results = async_map.as_they_come(submitter, function, (itertools.count(),), buffersize=2)
        waiting = begun(results)
        await turns()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await turns()
        assert submitter.cancelled == [0, 1, 2]
        taken = len(submitter.taken)
        await turns()
        assert len(submitter.taken) == taken

    run(main())


@pytest.mark.parametrize("begin", [async_map.in_order, async_map.as_they_come])
def test_after_the_end_nothing_more_is_taken_from_the_inputs(submitter, begin):
    async def main():
        taken = []
        results = begin(submitter, function, (map(taken.append, itertools.count()),), buffersize=2)
        waiting = begun(results)
        await turns()
        submitter.taken[0].end("result")
        assert await waiting == "result"
        before = len(taken)
        await results.aclose()
        await turns()
        for call in submitter.taken[1:]:
            if not submitter.by_submit:
                call.end("too late")
        await turns()
        assert len(taken) == before

    run(main())


def test_the_time_of_the_map_ends_it(submitter):
    async def main():
        results = async_map.in_order(submitter, function, (range(2),), timeout=0.01)
        with pytest.raises(TimeoutError):
            await anext(results)
        await turns()
        assert submitter.cancelled == [0, 1]

    run(main())


def test_a_call_that_the_pool_has_cancelled_ends_it():
    async def main():
        submitter = submitter_of(True)
        results = async_map.in_order(submitter, function, (range(2),), return_exceptions=True)
        submitter.taken[0].end(error=PoolCancelled())
        with pytest.raises((PoolCancelled, asyncio.CancelledError)):
            await anext(results)

    run(main())
