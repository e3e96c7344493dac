"""The inputs of an `amap` that a task reads: how far ahead, and how they are closed. Without a pool."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import sys
import weakref

import pytest

from pidfdpool import Outcome
from pidfdpool.executor import async_map
from pidfdpool.executor.async_inputs import AHEAD, TURN
from pidfdpool.loop.chunk_calls import Chunk
from tests.executor.amap_calls import Inputs, Submitter, begun, function, of, run, turns

needs_eager_tasks = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
both = pytest.mark.parametrize("begin", [async_map.in_order, async_map.as_they_come])


# ---- how far ahead ------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(("how", "ahead"), [({}, 2 * AHEAD), ({"buffersize": 1}, 1), ({"buffersize": 3}, 3)])
def test_nothing_is_read_before_a_result_is_asked_for_and_then_so_many(begin, how, ahead):
    async def main():
        submitter, inputs = Submitter(), Inputs()
        results = begin(submitter, function, (inputs,), **how)
        await turns()
        assert inputs.taken == 0
        for given in range(4):
            waiting = begun(results)
            await turns(30)
            assert (inputs.taken, len(submitter.taken)) == (ahead + given, ahead + given)
            submitter.taken[given].end(given)
            assert await waiting == given
            await turns(30)
            assert inputs.taken == ahead + given + 1, "what was given is ahead no more"
        await results.aclose()
        assert inputs.closed == 1
        assert submitter.cancelled == list(range(4, ahead + 4))

    run(main())


def test_max_pending_is_kept():
    async def main():
        submitter, inputs = Submitter(max_pending=2), Inputs()
        results = async_map.in_order(submitter, function, (inputs,))
        waiting = begun(results)
        await turns(30)
        assert inputs.taken == len(submitter.taken) == 2
        submitter.taken[1].end(1)
        await turns(30)
        assert inputs.taken == len(submitter.taken) == 3
        submitter.taken[0].end(0)
        assert [await waiting, await anext(results)] == [0, 1]
        await results.aclose()

    run(main())


def test_while_an_input_is_awaited_results_are_given():
    async def main():
        submitter, inputs = Submitter(), Inputs(5, gate=2)
        results = async_map.in_order(submitter, function, (inputs,))
        waiting = begun(results)
        await turns(30)
        assert len(submitter.taken) == 2
        for number in range(2):
            submitter.taken[number].end(number)
        assert [await waiting, await anext(results)] == [0, 1]
        waiting = begun(results)
        await turns()
        assert not waiting.done()
        inputs.opened.set()
        await turns(30)
        for number in range(2, 5):
            submitter.taken[number].end(number)
        assert [await waiting, *[each async for each in results]] == [2, 3, 4]
        assert inputs.closed == 1

    run(main())


def test_others_in_the_loop_have_their_turns_though_no_input_waits():
    async def main():
        submitter, inputs, seen = Submitter(), Inputs(4 * TURN + 1), []

        async def watch():
            while True:
                seen.append(len(submitter.taken))
                await asyncio.sleep(0)

        watching = asyncio.ensure_future(watch())
        results = async_map.in_order(submitter, function, (inputs,), buffersize=1000)
        waiting = begun(results)
        await turns(30)
        assert [after - before for before, after in itertools.pairwise(seen) if after != before] == [TURN] * 4 + [1]
        watching.cancel()
        waiting.cancel()
        await turns()
        await results.aclose()

    run(main())


# ---- what is submitted --------------------------------------------------------------------------------------------


@both
def test_calls_have_an_item_of_each_input_and_end_with_the_shortest(begin):
    async def main():
        submitter, inputs = Submitter(), (Inputs(), Inputs(9))
        results = begin(submitter, function, (inputs[0], "abc", inputs[1]))
        waiting = begun(results)
        await turns(30)
        assert [call.args for call in submitter.taken] == [(0, "a", 0), (1, "b", 1), (2, "c", 2)]
        assert {call.fn for call in submitter.taken} == {function}
        for number, call in enumerate(submitter.taken):
            call.end(number)
        assert [await waiting, *[each async for each in results]] == [0, 1, 2]
        assert [each.closed for each in inputs] == [1, 1]

    run(main())


def test_tuples_are_the_arguments_with_a_star_and_what_is_none_is_named():
    async def main():
        submitter = Submitter()
        results = async_map.in_order(submitter, function, (of((1, 2), [3, 4], 5),), star=True)
        waiting = begun(results)
        await turns(30)
        assert [call.args for call in submitter.taken] == [(1, 2), (3, 4)]
        submitter.taken[0].end("first")
        submitter.taken[1].end("second")
        assert [await waiting, await anext(results)] == ["first", "second"]
        with pytest.raises(TypeError, match="item 2 of the iterable is 5"):
            await anext(results)

    run(main())


@both
@pytest.mark.parametrize("error", [None, LookupError("no more"), asyncio.CancelledError("no more")])
def test_calls_that_share_a_task_are_submitted_when_they_are_complete_and_at_the_end(begin, error):
    async def main():
        submitter, inputs = Submitter(), Inputs(5, error, gate=3)
        results = begin(submitter, function, (inputs,), chunksize=2)
        waiting = begun(results)
        await turns(30)
        assert len(submitter.taken) == 1, "the second is not complete"
        inputs.opened.set()
        await turns(30)
        assert [type(call.fn) for call in submitter.taken] == [Chunk] * 3
        assert [call.fn.label for call in submitter.taken] == [
            f"{NAME}, items 0 to 1 of map", f"{NAME}, items 2 to 3 of map", f"{NAME}, item 4 of map",
        ]  # fmt: skip
        assert [call.args for call in submitter.taken] == [([(0,), (1,)],), ([(2,), (3,)],), ([(4,)],)]
        assert {call.fn.func for call in submitter.taken} == {function}
        for call in submitter.taken:
            call.end([number for (number,) in call.args[0]])
        came = [await waiting]
        with pytest.raises(type(error)) if error is not None else contextlib.nullcontext():
            async for each in results:
                came.append(each)  # noqa: PERF401
        assert came == [0, 1, 2, 3, 4]

    run(main())


NAME = "tests.executor.amap_calls.function"


def test_a_number_of_calls_that_is_a_multiple_of_the_size_leaves_no_empty_task():
    async def main():
        submitter = Submitter()
        results = async_map.in_order(submitter, function, (Inputs(4),), chunksize=2)
        waiting = begun(results)
        await turns(30)
        assert len(submitter.taken) == 2
        for call in submitter.taken:
            call.end([number for (number,) in call.args[0]])
        assert [await waiting, *[each async for each in results]] == [0, 1, 2, 3]

    run(main())


class Argument:
    """Can be watched."""


def test_an_argument_is_kept_no_longer_than_its_call_while_there_is_no_room():
    async def main():
        watched = []

        def watch(made):
            watched.append(weakref.ref(made))
            return made

        async def arguments():
            while True:
                yield watch(Argument())

        submitter = Submitter()
        results = async_map.in_order(submitter, function, (arguments(),), buffersize=2)
        waiting = begun(results)
        await turns(30)
        submitter.taken.clear()
        gc.collect()
        assert [each() for each in watched] == [None, None]
        waiting.cancel()
        await asyncio.wait([waiting])

    run(main())


# ---- failures and the end -----------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("error", [LookupError("no more"), asyncio.CancelledError("no more")])
@pytest.mark.parametrize("eager", [False, pytest.param(True, marks=needs_eager_tasks)])
def test_what_an_input_raises_comes_behind_the_results(begin, error, eager):
    async def main():
        submitter, inputs, other = Submitter(), Inputs(2, error), Inputs()
        results = begin(submitter, function, (inputs, other), return_exceptions=True)
        waiting = begun(results)
        await turns(30)
        for number in range(2):
            submitter.taken[number].end(number)
            await turns()
        assert [await waiting, await anext(results)] == [Outcome(0, 0), Outcome(1, 1)]
        with pytest.raises(type(error), match="no more"):
            await anext(results)
        assert (inputs.closed, other.closed) == (1, 1)

    run(main(), eager=eager)


def test_a_call_that_the_pool_refuses_comes_behind_the_results_and_ends_the_reading():
    async def main():
        submitter, inputs = Submitter(), Inputs()
        submitter.refusals[1] = LookupError("full")
        results = async_map.in_order(submitter, function, (inputs,))
        waiting = begun(results)
        await turns(30)
        submitter.taken[0].end(0)
        assert await waiting == 0
        with pytest.raises(LookupError, match="full"):
            await anext(results)
        assert (inputs.taken, inputs.closed) == (2, 1)

    run(main())


@pytest.mark.parametrize("reading", [False, True])
def test_who_leaves_ends_the_reading_and_waits_until_inputs_are_closed(reading):
    async def main():
        submitter, inputs = Submitter(), Inputs(gate=1 if reading else None)
        results = async_map.in_order(submitter, function, (inputs,), buffersize=1)
        waiting = begun(results)
        await turns(30)
        submitter.taken[0].end(0)
        assert await waiting == 0
        await turns(30)
        await results.aclose()
        assert inputs.closed == 1
        taken = inputs.taken
        await turns(30)
        assert (inputs.taken, inputs.closed) == (taken, 1)

    run(main())


def test_chunks_that_are_not_complete_when_somebody_leaves_are_not_submitted():
    async def main():
        submitter, inputs = Submitter(), Inputs(gate=3)
        results = async_map.in_order(submitter, function, (inputs,), chunksize=2)
        waiting = begun(results)
        await turns(30)
        submitter.taken[0].end([0, 1])
        assert await waiting == 0
        await results.aclose()
        assert len(submitter.taken) == 1

    run(main())


def test_who_leaves_in_the_same_turn_in_which_it_began_has_the_inputs_closed():
    async def main():
        submitter, inputs = Submitter(), Inputs()
        results = async_map.in_order(submitter, function, (inputs,))
        waiting = begun(results)
        await asyncio.sleep(0)
        waiting.cancel()
        await turns()
        assert waiting.cancelled()
        assert inputs.closed == 1

    run(main())


class Left:
    """Waits for the next result, and is cancelled before anything else in the loop has a turn."""

    def __init__(self, results):
        self.steps = results.__anext__().__await__()

    def __await__(self):
        self.steps.send(None)
        future = self.steps.throw(asyncio.CancelledError())
        while True:
            yield future
            future = self.steps.send(None)


def test_who_leaves_before_the_reading_task_has_its_first_turn_has_the_inputs_closed():
    async def main():
        inputs = Inputs()
        with pytest.raises(asyncio.CancelledError):
            await Left(async_map.in_order(Submitter(), function, (inputs,)))
        assert (inputs.taken, inputs.closed) == (0, 1)

    run(main())


def test_what_closing_an_input_raises_is_raised_by_the_end_and_closes_the_others():
    async def main():
        for end in (None, 1):
            submitter, stubborn, other = Submitter(), Inputs(end, close_error=LookupError("not closed")), Inputs()
            results = async_map.in_order(submitter, function, (other, stubborn))
            waiting = begun(results)
            await turns(30)
            submitter.taken[0].end(0)
            assert await waiting == 0
            with pytest.raises(LookupError, match="not closed"):
                await (anext(results) if end else results.aclose())
            assert (stubborn.closed, other.closed) == (1, 1)

    run(main())


def test_an_input_that_takes_its_time_to_close_is_not_disturbed_by_the_end():
    class Slow(Inputs):
        async def aclose(self):
            await self.opened.wait()
            self.closed += 1

    async def main():
        submitter, inputs = Submitter(), Slow(1)
        results = async_map.in_order(submitter, function, (inputs,))
        waiting = begun(results)
        await turns(30)
        submitter.taken[0].end(0)
        assert await waiting == 0
        ending = begun(results)
        await turns()
        assert not ending.done()
        inputs.opened.set()
        with pytest.raises(StopAsyncIteration):
            await ending
        assert inputs.closed == 1

    run(main())


def test_an_input_that_is_not_iterable_is_refused_when_the_reading_begins():
    async def main():
        for inputs in ((Inputs(), 5), (5, Inputs())):
            results = async_map.in_order(Submitter(), function, inputs)
            with pytest.raises(TypeError):
                await anext(results)

    run(main())
