"""How an `amap` whose calls are submitted one by one fails, and how it ends. Without a pool."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from concurrent.futures import CancelledError as PoolCancelled

import pytest

from pidfdpool import Outcome, PoolBroken
from pidfdpool.executor import async_map
from tests.executor.amap_calls import Submitter, begun, function, run, submitter_of, turns


@pytest.fixture(params=[False, True], ids=["by the pool", "by its own submit"])
def submitter(request):
    """Give a submitter of each kind."""
    return submitter_of(request.param)


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


def test_a_cancellation_by_the_pool_is_not_kept_back_until_the_other_calls_have_ended():
    """Unlike a broken pool, a shutdown that cancels may be followed by calls that run for long, or for ever."""

    async def main():
        submitter = Submitter(max_pending=9)
        results = async_map.as_they_come(submitter, function, (range(3),), return_exceptions=True)
        submitter.taken[0].end("first")
        submitter.taken[1].end(error=asyncio.CancelledError())
        await turns()
        assert await anext(results) == Outcome(0, "first")
        last = begun(results)
        await turns()
        assert last.done()
        with pytest.raises(asyncio.CancelledError):
            await last
        assert submitter.cancelled == [2]

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


class Watched(Exception):
    """Can be watched."""


def test_an_error_of_a_call_is_gone_when_nobody_holds_it(submitter):
    """Nobody has to wait for the collector: an exception's traceback holds frames, and these would hold it."""

    async def main():
        results = async_map.in_order(submitter, function, ([1],))
        submitter.taken[0].end(error=Watched())
        try:
            await anext(results)
        except Watched as error:
            gone = weakref.ref(error)
        submitter.taken.clear()
        await turns()
        assert gone() is None

    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


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


def test_of_what_has_ended_the_map_the_first_is_told(submitter):
    async def main():
        inputs = Failing(2, LookupError("no more"))
        results = async_map.as_they_come(submitter, function, (inputs,), buffersize=9, return_exceptions=True)
        submitter.taken[0].end(error=PoolBroken("broken", ()))
        submitter.taken[1].end("second")
        await turns()
        assert (await anext(results)).value == "second"
        with pytest.raises(LookupError, match="no more"):
            await anext(results)

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
        submitter.taken.clear()
        gc.collect()
        await turns()  # nobody complains of the error that was not looked at

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
