"""`amap` and `amap_unordered` of asynchronous iterables: how far they are read ahead, and what happens at the end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading

import pytest

from pidfdpool import PidfdPoolExecutor, PoolBroken
from pidfdpool.executor.async_items import Items
from pidfdpool.executor.map_request import MapRequest
from tests import calls, map_calls, outcome_calls
from tests.conditions import eventually
from tests.outcome_calls import all_of, append_to

NAMES = ("amap", "amap_unordered")
names = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def pool():
    """Provide a pool. How its template comes into being makes no difference to what is tested here."""
    with PidfdPoolExecutor(2) as pool:
        pool.submit(calls.double, 1).result()
        yield pool


class Inputs:
    """An asynchronous iterable of 0, 1, 2 and so on, that notes how it is read."""

    def __init__(self, end=None, error=None, pause=0.0):
        self.taken = 0
        self.under_way = 0
        self.closed = 0
        self.threads = set()
        self._end, self._error, self._pause = end, error, pause

    def __aiter__(self):
        return self

    async def __anext__(self):
        assert not self.under_way, "it is read concurrently"
        assert not self.closed
        self.under_way += 1
        self.threads.add(threading.get_ident())
        try:
            if self._pause is not None:
                await asyncio.sleep(self._pause)
            if self.taken == self._end:
                raise self._error if self._error is not None else StopAsyncIteration
            self.taken += 1
            return self.taken - 1
        finally:
            self.under_way -= 1

    async def aclose(self):
        await asyncio.sleep(0)
        self.closed += 1


# ---- results ---------------------------------------------------------------------------------------------------


@names
def test_results_come_whatever_the_inputs_are(pool, run, name):
    async def main():
        for keywords in ({}, {"buffersize": 1}, {"buffersize": 3}, {"buffersize": 500}, {"chunksize": 7}):
            for pause in (None, 0.0):
                inputs = Inputs(100, pause=pause)
                found = await all_of(getattr(pool, name)(calls.double, inputs, **keywords))
                assert (found if name == "amap" else sorted(found)) == [2 * number for number in range(100)]
                assert inputs.closed == 1
            assert await all_of(getattr(pool, name)(calls.double, Inputs(0), **keywords)) == []

    run(main())


@names
def test_asynchronous_and_ordinary_ones_side_by_side(pool, run, name):
    async def main():
        inputs = Inputs(), Inputs(20)
        found = await all_of(getattr(pool, name)(max, inputs[0], [5] * 50, inputs[1], buffersize=4))
        assert sorted(found) == [5] * 6 + list(range(6, 20))
        assert [each.closed for each in inputs] == [1, 1], "also the one that was not at its end"
        assert sorted(await all_of(getattr(pool, name)(max, [1, 2], Inputs()))) == [1, 2]

    run(main())


@names
def test_tuples_of_arguments_and_outcomes(pool, run, name):
    async def pairs():
        for number in range(30):
            yield number, 2

    async def wrong():
        yield 2, 2
        yield 7

    async def main():
        found = await all_of(getattr(pool, name)(pow, pairs(), star=True))
        assert sorted(found) == [number**2 for number in range(30)]
        found = await all_of(getattr(pool, name)(outcome_calls.half, Inputs(30), return_exceptions=True))
        assert sorted(outcome.index for outcome in found) == list(range(30))
        assert all(outcome.ok == (outcome.index % 2 == 0) for outcome in found)
        assert all(outcome.error.args == (outcome.index,) for outcome in found if not outcome.ok)
        found = await all_of(getattr(pool, name)(map_calls.die_at, Inputs(30), [7] * 99, return_exceptions=True))
        assert [outcome.index for outcome in found if not outcome.ok] == [7]
        assert len(found) == 30
        with pytest.raises(TypeError, match="item 1 of the iterable is 7"):
            await all_of(getattr(pool, name)(pow, wrong(), star=True))

    run(main())


@names
def test_an_outcome_has_the_very_exception_that_the_call_has_raised(pool, run, name):
    async def main():
        raised = (error for error in (StopIteration(3), StopAsyncIteration(4), RuntimeError("plain")))
        errors = [outcome.error async for outcome in outcomes_of(raised)]
        assert sorted((type(error).__name__, *error.args) for error in errors) == [
            ("RuntimeError", "plain"),
            ("StopAsyncIteration", 4),
            ("StopIteration", 3),
        ]

    async def asynchronous(items):
        for item in items:
            yield item

    def outcomes_of(items):
        return getattr(pool, name)(calls.raise_it, asynchronous(items), return_exceptions=True)

    run(main())


def test_unordered_results_come_as_they_come(pool, run, tmp_path):
    async def main():
        results = pool.amap_unordered(_wait_for_if_first, [str(tmp_path / "go")] * 30, Inputs(30), buffersize=3)
        came = [await anext(results) for _ in range(29)]
        assert sorted(came) == list(range(1, 30))
        (tmp_path / "go").touch()
        assert await all_of(results) == [0]
        (tmp_path / "go").unlink()
        for keywords in ({}, {"chunksize": 1}, {"buffersize": 3}, {"buffersize": 30}):
            results = pool.amap_unordered(_wait_for_if_first, [str(tmp_path / "go")] * 9, range(9), **keywords)
            came = [await anext(results) for _ in range(8)]
            assert sorted(came) == list(range(1, 9))
            (tmp_path / "go").touch()
            assert await all_of(results) == [0]
            (tmp_path / "go").unlink()

    run(main())


def _wait_for_if_first(path, number):
    if not number:
        calls.wait_for(path)
    return number


@pytest.mark.costly_table
@names
def test_a_call_that_raises_ends_it(pool, run, name):
    async def main():
        inputs, came = Inputs(), []
        with pytest.raises(ValueError, match="7"):
            await append_to(came, getattr(pool, name)(_fail_at_seven, inputs, buffersize=2))
        assert 7 not in came
        assert name != "amap" or came == list(range(7)), "what came before"
        assert inputs.closed == 1

    run(main())


def _fail_at_seven(number):
    if number == 7:
        raise ValueError(number)
    return number


def test_a_broken_pool_ends_it(run):
    async def main(pool):
        inputs = Inputs()
        with pytest.raises(PoolBroken):
            await all_of(pool.amap(calls.double, inputs, return_exceptions=True))
        assert inputs.closed == 1

    with PidfdPoolExecutor(1, initializer=calls.raise_it, initargs=(ValueError(),)) as pool:
        run(main(pool))


# ---- how far it reads ahead ------------------------------------------------------------------------------------


@names
@pytest.mark.parametrize("keywords", [{}, {"buffersize": 1}, {"buffersize": 3}, {"return_exceptions": True}])
@pytest.mark.parametrize("pause", [0.0, None])
def test_no_more_is_read_than_may_be(pool, run, name, keywords, pause):
    ahead = keywords.get("buffersize", 8)  # four for each worker

    async def main():
        inputs = Inputs(pause=pause)
        results = getattr(pool, name)(calls.double, inputs, **keywords)
        await asyncio.sleep(0)
        assert inputs.taken == 0, "nothing is read before the first result is asked for"
        for given in range(1, 60):
            await anext(results)
            assert inputs.taken <= ahead + given
            if given in (1, 20):
                while inputs.taken < ahead + given:  # it reads on while nobody takes results
                    await asyncio.sleep(0.001)
                await pool.run(calls.double, 1)
                assert inputs.taken == ahead + given
        await results.aclose()
        assert (inputs.closed, inputs.threads) == (1, {threading.get_ident()})

    run(main())


@names
def test_no_more_chunks_are_read_than_may_be(pool, run, name):
    async def main():
        inputs = Inputs()
        results = getattr(pool, name)(calls.double, inputs, chunksize=5, buffersize=2)
        for given in range(1, 60):
            await anext(results)
            assert inputs.taken <= 5 * (2 + (given + 4) // 5)
        await results.aclose()

    run(main())


@pytest.mark.costly_table
@names
def test_max_pending_is_kept_without_a_thread(run, name, tmp_path):
    async def main(pool):
        threads = threading.active_count()
        inputs = Inputs()
        paths = itertools.repeat(str(tmp_path / "go"))
        results = getattr(pool, name)(_note_and_wait, paths, inputs, buffersize=100)
        first = asyncio.ensure_future(anext(results))
        while pool.stats().pending < 3:
            await asyncio.sleep(0.001)
        for _ in range(20):
            await asyncio.sleep(0.001)
            assert pool.stats().pending == 3
        assert inputs.taken <= 4
        assert threading.active_count() == threads
        (tmp_path / "go").touch()
        assert [await first, *[await anext(results) for _ in range(20)]]
        await results.aclose()
        assert inputs.closed == 1

    with PidfdPoolExecutor(2, max_pending=3) as pool:
        pool.submit(calls.double, 1).result()
        run(main(pool))


def _note_and_wait(path, number):
    calls.wait_for(path)
    return number


def test_the_loop_has_its_turns_though_no_input_waits(pool, run):
    async def beat(inputs, taken):
        while True:
            taken.append(inputs.taken)
            await asyncio.sleep(0)

    async def main():
        inputs, taken = Inputs(2000, pause=None), []
        beating = asyncio.ensure_future(beat(inputs, taken))
        results = pool.amap(calls.double, inputs, buffersize=2000)
        assert await all_of(results) == [2 * number for number in range(2000)]
        assert max(after - before for before, after in itertools.pairwise(taken)) <= 32
        beating.cancel()

    run(main())


# ---- the end ---------------------------------------------------------------------------------------------------


@names
@pytest.mark.parametrize(
    "error", [LookupError("no more"), asyncio.CancelledError("no more"), TimeoutError("no more")]
)
def test_results_come_before_what_an_input_raises(pool, run, name, error):
    async def main():
        inputs, came = Inputs(20, error), []
        with pytest.raises(type(error), match="no more"):
            await append_to(came, getattr(pool, name)(calls.double, inputs, buffersize=30))
        assert sorted(came) == [2 * number for number in range(20)]
        assert inputs.closed == 1
        came = []
        with pytest.raises(type(error), match="no more"):
            await append_to(came, getattr(pool, name)(calls.double, Inputs(20, error), chunksize=7))
        assert sorted(came) == [2 * number for number in range(20)]

    run(main())


@names
@pytest.mark.parametrize(
    "how", ["break", "aclose", "cancel", "cancel while waiting for an input", "timeout", "raise"]
)
def test_who_leaves_early_closes_the_inputs_and_cancels_what_has_not_begun(run, name, how, tmp_path):
    log, release = str(tmp_path / "log"), str(tmp_path / "go")

    async def consume(results, first):
        async with contextlib.aclosing(results):
            async for _ in results:
                first.set()
                if how == "break":
                    break
                if how == "raise":
                    raise LookupError
                if how == "aclose":
                    await results.aclose()

    async def main(pool):
        waits = how == "cancel while waiting for an input"
        inputs, second, first = Inputs(pause=1000 if waits else 0.0), Inputs(), asyncio.Event()
        columns = itertools.repeat(log), itertools.repeat(release), inputs, itertools.repeat(1), second
        options = {"timeout": 2.0} if how == "timeout" else {}
        results = getattr(pool, name)(_append_and_stay, *columns, buffersize=20, **options)
        consumer = asyncio.ensure_future(consume(results, first))
        if not waits:
            has_first = asyncio.ensure_future(first.wait())
            await asyncio.wait([has_first, consumer], return_when=asyncio.FIRST_COMPLETED)
            has_first.cancel()
            if how == "cancel":
                while inputs.taken < 20:
                    await asyncio.sleep(0.001)
        else:
            while not inputs.under_way:
                await asyncio.sleep(0.001)
        if how.startswith("cancel"):
            consumer.cancel()
        outcome = (await asyncio.gather(consumer, return_exceptions=True))[0]
        expected = {"raise": LookupError, "timeout": TimeoutError, "break": type(None), "aclose": type(None)}
        assert isinstance(outcome, expected.get(how, asyncio.CancelledError)), outcome
        assert (inputs.closed, second.closed, inputs.under_way) == (1, 1, 0)
        eventually(lambda: pool.stats().pending <= 1, "all that is left is what has begun")
        (tmp_path / "go").touch()
        assert await pool.run(calls.double, 1) == 2
        assert pool.stats().pending == 0
        taken = inputs.taken
        await asyncio.sleep(0.01)
        assert inputs.taken == taken
        assert not log_of(log) or log_of(log) == [0, 1][: len(log_of(log))]

    with PidfdPoolExecutor(1) as pool:
        pool.submit(calls.double, 1).result()
        run(main(pool))


def _append_and_stay(log, release, number, held, _other):
    return calls.append_and_stay(log, release, number, held)


def log_of(path):
    try:
        with open(path) as file:
            return list(map(int, file.read().split()))
    except FileNotFoundError:
        return []


def test_who_leaves_before_the_first_result_has_read_nothing(pool, run):
    async def main():
        inputs = Inputs()
        results = pool.amap(calls.double, inputs)
        await results.aclose()
        assert inputs.taken == 0

    run(main())


def test_a_generator_is_closed_by_the_task_that_has_read_it(pool, run):
    told = []

    async def numbers():
        told.append(asyncio.current_task())
        try:
            for number in itertools.count():
                yield number
        finally:
            await asyncio.sleep(0)
            told.append(asyncio.current_task())

    async def main():
        async with contextlib.aclosing(pool.amap(calls.double, numbers())) as results:
            assert await anext(results) == 0
        assert len(told) == 2
        assert told[0] is told[1]

    run(main())


def test_an_input_is_closed_in_peace_though_all_results_were_taken(pool, run):
    told = []

    async def numbers():
        try:
            yield 1
        finally:
            await asyncio.sleep(0.05)
            told.append("closed")

    async def main():
        assert await all_of(pool.amap(max, numbers(), [0, 5])) == [1]
        assert told == ["closed"]
        assert await all_of(pool.amap(max, numbers(), [0])) == [1]
        assert told == ["closed"] * 2

    run(main())


def test_what_closing_an_input_raises_is_told(pool, run):
    class Stubborn(Inputs):
        async def aclose(self):
            raise LookupError("not closed")

    async def main():
        second = Inputs()
        results = pool.amap(max, Stubborn(), second)
        assert await anext(results) == 0
        with pytest.raises(LookupError, match="not closed"):
            await results.aclose()
        assert second.closed == 1

    run(main())


# ---- bad input -------------------------------------------------------------------------------------------------


def test_an_input_whose_closing_raises_keeps_no_other_open():
    class Stubborn(Inputs):
        async def aclose(self):
            self.closed += 1
            raise LookupError

    inputs = [Stubborn() for _ in range(3)]
    with pytest.raises(LookupError):
        asyncio.run(Items(MapRequest(calls.double, tuple(inputs))).close())
    assert [each.closed for each in inputs] == [1, 1, 1]


@pytest.mark.parametrize("name", ["map", "map_unordered"])
def test_a_map_that_no_loop_reads_refuses_an_asynchronous_iterable(pool, name):
    with pytest.raises(TypeError, match="iterable 2 is asynchronous .*: use amap or amap_unordered"):
        getattr(pool, name)(max, [1], Inputs())


@names
def test_what_is_not_iterable_is_refused(pool, run, name):
    class Not:
        def __aiter__(self):
            return 5

    async def main():
        with pytest.raises(TypeError):
            await all_of(getattr(pool, name)(max, Inputs(), 5))
        with pytest.raises(TypeError):
            await all_of(getattr(pool, name)(max, Not()))
        with pytest.raises(ValueError, match="buffersize"):
            getattr(pool, name)(max, Inputs(), buffersize=0)

    run(main())
