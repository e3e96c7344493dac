"""The maps of a SerialExecutor: what is called when, what fails where, and what is given."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from pidfdpool import Outcome, PoolBroken, SerialExecutor

FORMS = ("map", "map_unordered", "amap", "amap_unordered")


@pytest.fixture
def executor():
    with SerialExecutor(2) as executor:
        yield executor


async def _collected(results) -> list:
    return [result async for result in results]


def collected(results) -> list:
    return asyncio.run(_collected(results)) if hasattr(results, "__anext__") else list(results)


def taken_from(results) -> tuple[list, Exception | None]:
    """Return the results that come, and what ends them."""

    async def take() -> tuple[list, Exception | None]:
        got: list = []
        while True:
            try:
                got.append(await anext(results) if hasattr(results, "__anext__") else next(results))
            except (StopIteration, StopAsyncIteration):
                return got, None
            except Exception as error:
                return got, error

    return asyncio.run(take())


def inverse(number: int) -> float:
    return 1 / number


@pytest.mark.parametrize("form", FORMS)
def test_results_come_in_order(executor, form):
    mapped = getattr(executor, form)
    assert collected(mapped(pow, [2, 3, 4], [5, 2])) == [32, 9]
    assert collected(mapped(abs, [])) == []
    assert collected(mapped(abs, [-1, -2], timeout=60, chunksize=2, buffersize=1)) == [1, 2]
    assert collected(getattr(executor.options(timeout=5), form)(abs, [-1])) == [1]


@pytest.mark.parametrize("form", FORMS)
def test_a_failure_ends_the_map_behind_the_results_before_it(executor, form):
    for more in ({}, {"buffersize": 2}):
        got, error = taken_from(getattr(executor, form)(inverse, [1, 2, 0, 4], **more))
        assert (got, type(error)) == ([1.0, 0.5], ZeroDivisionError)


@pytest.mark.parametrize("form", FORMS)
def test_outcomes_come_for_all(executor, form):
    for more in ({}, {"buffersize": 1}):
        found = collected(getattr(executor, form)(inverse, [2, 0, 4], return_exceptions=True, **more))
        assert [outcome.index for outcome in found] == [0, 1, 2]
        assert [outcome.ok for outcome in found] == [True, False, True]
        assert (found[0], type(found[1].error)) == (Outcome(0, 0.5), ZeroDivisionError)


@pytest.mark.parametrize("form", FORMS)
def test_star_takes_tuples_of_arguments(executor, form):
    mapped = getattr(executor, form)
    assert collected(mapped(pow, [(2, 5), [3, 2]], star=True)) == [32, 9]
    assert collected(mapped(max, iter([(1, 2), (3, 2, 1)]), star=True, buffersize=1)) == [2, 3]
    with pytest.raises(TypeError, match="one iterable"):
        mapped(pow, [2], [5], star=True)
    with pytest.raises(TypeError, match="item 1 .* 5"):
        collected(mapped(pow, [(2, 5), 5], star=True))


WRONG = [
    ({"chunksize": 0}, ValueError),
    ({"buffersize": 0}, ValueError),
    ({"chunksize": "2"}, TypeError),
    ({"timeout": "2"}, TypeError),
    ({"star": 1}, TypeError),
    ({"return_exceptions": None}, TypeError),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("arguments", "error"), WRONG, ids=str)
def test_what_makes_no_sense_is_refused_at_once(executor, form, arguments, error):
    with pytest.raises(error, match=next(iter(arguments))):
        getattr(executor, form)(abs, [1], **arguments)


def test_all_calls_are_made_at_once_without_a_buffersize(executor):
    log: list = []
    executor.map(log.append, range(4))
    assert log == [0, 1, 2, 3]
    with pytest.raises(ZeroDivisionError):
        executor.map(log.append, (1 // number for number in (1, 0)))


def test_a_buffersize_takes_one_input_for_each_result(executor):
    taken: list = []
    results = executor.map(abs, (taken.append(number) or number for number in itertools.count()), buffersize=3)
    assert len(taken) == 3
    assert next(results) == 0
    assert len(taken) == 4
    assert next(results) == 1
    assert len(taken) == 5
    results.close()


@pytest.mark.parametrize("buffersize", [1, 3, 9])
def test_what_an_input_raises_comes_in_its_turn(executor, buffersize):
    def inputs():
        yield from (1, 2, 3, 4)
        raise LookupError

    got, error = taken_from(executor.map(abs, inputs(), buffersize=buffersize))
    assert (got, type(error)) == ([1, 2, 3, 4], LookupError)


# ---- asynchronous inputs -------------------------------------------------------------------------------------------


class Ticks:
    """An endless asynchronous input, which counts what was taken of it, and whether it was closed."""

    def __init__(self, end: int | None = None, failing: int | None = None) -> None:
        self.taken, self.closed, self.end, self.failing = 0, False, end, failing

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.sleep(0)
        if self.taken == self.end:
            raise StopAsyncIteration
        if self.taken == self.failing:
            raise LookupError(self.taken)
        self.taken += 1
        return self.taken - 1

    async def aclose(self):
        self.closed = True


@pytest.mark.parametrize("form", ["amap", "amap_unordered"])
def test_asynchronous_inputs_are_read_as_results_are_taken(executor, form):
    async def main():
        ticks = Ticks()
        results = getattr(executor, form)(pow, ticks, [2, 2, 2])
        assert ticks.taken == 0
        assert await anext(results) == 0
        assert await anext(results) == 1
        assert ticks.taken == 2
        await results.aclose()
        assert ticks.closed
        assert await _collected(getattr(executor, form)(abs, Ticks(3))) == [0, 1, 2]

    asyncio.run(main())


def test_asynchronous_inputs_may_give_arrays_and_the_shortest_input_ends_the_map(executor):
    numpy = pytest.importorskip("numpy")

    async def arrays():
        for number in range(5):
            yield numpy.arange(number, number + 2)

    async def main():
        numbers = iter([1, 2, 3])
        results = [result.tolist() async for result in executor.amap(numpy.add, arrays(), numbers)]
        assert results == [[1, 2], [3, 4], [5, 6]]
        ticks = Ticks()
        assert await _collected(executor.amap(pow, [2], ticks)) == [1]
        assert ticks.taken == 1, "the input before it was at its end"
        assert ticks.closed

    asyncio.run(main())


def test_an_executor_that_breaks_ends_a_map_of_outcomes():
    for more in ({}, {"buffersize": 1}):
        executor = SerialExecutor(initializer=lambda: {}["missing"])
        with pytest.raises(PoolBroken):
            list(executor.map(abs, [1], return_exceptions=True, **more))


class MadeAnew:
    """An asynchronous iterable whose iterator has `__anext__` only, as Python allows it."""

    def __aiter__(self):
        return NextOnly()


class NextOnly:
    def __init__(self) -> None:
        self._left = [2, 1]

    async def __anext__(self):
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


@pytest.mark.parametrize("form", ["amap", "amap_unordered"])
def test_an_asynchronous_iterator_needs_no_aiter_of_its_own(executor, form):
    assert collected(getattr(executor, form)(pow, MadeAnew(), [3, 3, 3])) == [1, 8]


class Unclosable(Ticks):
    async def aclose(self):
        raise OSError("it does not close")


def test_an_input_that_does_not_close_leaves_no_other_open(executor):
    others = Ticks(), Ticks()
    with pytest.raises(OSError, match="does not close"):
        collected(executor.amap(lambda *items: items, others[0], Unclosable(1), others[1]))
    assert [each.closed for each in others] == [True, True]


def test_what_an_asynchronous_input_raises_comes_in_its_turn(executor):
    got, error = taken_from(executor.amap(abs, Ticks(failing=2)))
    assert (got, type(error)) == ([0, 1], LookupError)
