"""The calls of an `amap` that are submitted one by one: how many, what is given, and what is taken back. No pool."""

from __future__ import annotations

import itertools

import pytest

from pidfdpool.executor import async_map
from pidfdpool.loop.chunk_calls import Chunk
from tests.executor.amap_calls import Submitter, begun, function, run, submitter_of, turns


@pytest.fixture(params=[False, True], ids=["by the pool", "by its own submit"])
def submitter(request):
    """Give a submitter of each kind."""
    return submitter_of(request.param)


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
