"""The maps of the executor on a cluster, and its calls for asyncio."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import pidfdpool
from pidfdpool.cli import sample, transform
from pidfdpool.cli.target import Target
from tests.clients import dask_work as work

distributed = pytest.importorskip("distributed")
dask_door = pytest.importorskip("pidfdpool.dask")

LONG = 90.0


@pytest.fixture(autouse=True)
def nothing_is_left(no_pool_is_left):
    """Leave the cluster itself as it is, with its threads and connections."""


class TestMaps:
    @pytest.mark.parametrize(
        "settings", [{}, {"chunksize": 7}, {"buffersize": 20}, {"chunksize": 3, "buffersize": 2}]
    )
    def test_results_come_in_order(self, executor, settings):
        assert list(executor.map(work.square, range(200), **settings)) == [value * value for value in range(200)]
        assert sorted(executor.map_unordered(work.square, range(200), **settings)) == [v * v for v in range(200)]

    def test_a_failing_call_ends_the_map_behind_those_before_it(self, executor):
        results = executor.map(work.fail_for_three, range(100))
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(work.Own):
            next(results)
        assert list(results) == []

    def test_a_bounded_map_takes_one_further_input_for_each_result(self, executor):
        taken = []
        endless = (taken.append(value) or value for value in range(10**9))
        results = executor.map(work.square, endless, buffersize=10)
        assert len(taken) == 10
        assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
        assert len(taken) == 15
        results.close()

    def test_what_the_input_raises_comes_in_its_turn(self, executor):
        def broken():
            yield from range(5)
            raise work.Own("input")

        results = executor.map(work.square, broken(), buffersize=3)
        assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
        with pytest.raises(work.Own, match="input"):
            next(results)
        with pytest.raises(work.Own, match="input"):
            list(executor.map(work.square, broken()))

    def test_stars_and_timeouts(self, executor):
        assert list(executor.map(pow, [(2, 5), (3, 2)], star=True)) == [32, 9]
        with pytest.raises(TypeError, match="item 1 is 5"):
            list(executor.map(pow, [(2, 5), 5], star=True))
        with pytest.raises(TypeError, match="one iterable"):
            executor.map(pow, [1], [2], star=True)
        with pytest.raises(TimeoutError):
            list(executor.options(timeout=1).map(time.sleep, [LONG], timeout=0.2))

    def test_one_argument_that_does_not_pickle_is_one_outcome(self, executor):
        outcomes = list(executor.map(repr, [1, threading.Lock(), 3], return_exceptions=True))
        assert [outcome.ok for outcome in outcomes] == [True, False, True]
        assert isinstance(outcomes[1].error, pidfdpool.CallNotSendable)

    def test_bad_arguments_are_named(self, executor):
        for wrong in ({"chunksize": 0}, {"buffersize": -1}, {"star": 1}, {"return_exceptions": None}):
            with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
                executor.map(work.square, [1], **wrong)

    def test_the_demos_job_gives_the_same_bytes(self, executor):
        lines = list(sample.generate(600, 20))
        blocks = [b"".join(lines[start : start + 20]) for start in range(0, len(lines), 20)]
        inline = b"".join(map(sample.summarize_lines, blocks))
        assert b"".join(executor.map(sample.summarize_lines, blocks)) == inline
        assert b"".join(executor.map(sample.summarize_lines, iter(blocks), buffersize=8)) == inline
        job = transform.Job(Target("pidfdpool.cli.sample", "summarize"), False, "fail", False)
        asked = [
            executor.submit(transform.run, job, transform.Block("events", 1, block, len(block))) for block in blocks
        ]
        assert b"".join(future.result(LONG).output for future in asked) == inline


class TestAsyncio:
    def test_calls_and_maps_are_awaited_in_another_loop(self, client):
        async def numbers():
            for number in range(50):
                yield number

        async def main():
            async with dask_door.DaskExecutor(client) as executor:
                assert await executor.run(work.square, 3) == 9
                assert [value async for value in executor.amap(work.square, range(50))] == [v * v for v in range(50)]
                found = [value async for value in executor.amap(pow, numbers(), range(50), buffersize=6)]
                assert found == [value**value for value in range(50)]
                found = [value async for value in executor.amap_unordered(work.square, numbers())]
                assert sorted(found) == [value * value for value in range(50)]
                outcomes = [o async for o in executor.amap(work.fail_for_three, range(5), return_exceptions=True)]
                assert [outcome.ok for outcome in outcomes] == [True, True, True, False, True]

        asyncio.run(asyncio.wait_for(main(), LONG))

    def test_cancelling_cancels(self, client):
        async def main():
            async with dask_door.DaskExecutor(client, cancel_kills=True) as executor:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(executor.run(time.sleep, LONG), 1)
                return await executor.run(work.square, 2)

        assert asyncio.run(asyncio.wait_for(main(), LONG)) == 4

    def test_an_endless_input_is_closed(self, client):
        closed = []

        async def endless():
            number = 0
            try:
                while True:
                    yield number
                    number += 1
            finally:
                closed.append(number)

        async def main():
            async with dask_door.DaskExecutor(client) as executor:
                results = executor.amap(work.square, endless(), buffersize=4)
                assert [await anext(results) for _ in range(3)] == [0, 1, 4]
                await results.aclose()

        asyncio.run(asyncio.wait_for(main(), LONG))
        assert closed
        assert closed[0] <= 8
