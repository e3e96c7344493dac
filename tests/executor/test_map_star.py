"""`map(fn, calls, star=True)` and its kin: one iterable, whose items are the arguments of a call."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from pidfdpool import PidfdPoolExecutor
from tests.outcome_calls import MAPS, all_of, append_to

SIZES = ({}, {"chunksize": 3}, {"buffersize": 2}, {"buffersize": 50}, {"buffersize": 2, "chunksize": 3})
maps = pytest.mark.parametrize("name", MAPS)


@pytest.fixture
def pool():
    """Provide a pool. How its template comes into being makes no difference to what is tested here."""
    with PidfdPoolExecutor(2) as pool:
        pool.submit(abs, 1).result()
        yield pool


def results(submitter, name, function, *iterables, **keywords):
    """Return the results of a map, in order."""

    async def take():
        return await all_of(getattr(submitter, name)(function, *iterables, star=True, **keywords))

    if name.startswith("a"):
        found = asyncio.run(take())
    else:
        found = list(getattr(submitter, name)(function, *iterables, star=True, **keywords))
    return sorted(found) if "unordered" in name else found


@maps
def test_each_item_is_the_arguments_of_a_call(pool, name):
    given = [(number, 2) for number in range(100)]
    for size in SIZES:
        for submitter in (pool, pool.options(timeout=60)):
            assert results(submitter, name, pow, given, **size) == [number**2 for number in range(100)]
        assert results(pool, name, max, ([number, 5] for number in range(9)), **size) == [5] * 5 + [5, 6, 7, 8]
        assert results(pool, name, complex, [(), (1,)][:1], **size) == [0]
        assert results(pool, name, pow, [], **size) == []
    given = [(2, number) for number in range(10)] + [(3,)]
    outcomes = results(pool, name, pow, given, return_exceptions=True)
    assert [outcome.value for outcome in outcomes] == [2**number for number in range(10)] + [None]
    assert isinstance(outcomes[10].error, TypeError)


def test_with_max_pending():
    with PidfdPoolExecutor(2, max_pending=3) as pool:
        for name, size in itertools.product(MAPS, SIZES):
            assert results(pool, name, pow, [(2, 5), (3, 2)], **size) == ([9, 32] if "un" in name else [32, 9])


@maps
def test_an_item_that_is_no_tuple_is_named(pool, name):
    for size in SIZES:
        with pytest.raises(TypeError, match=r"star=True takes tuples of arguments, and item 1 of .* is 5$"):
            results(pool, name, pow, [(2, 5), 5, (3, 2)], **size)
        with pytest.raises(TypeError, match="item 0 of the iterable is 0$"):
            results(pool, name, pow, range(3), **size)


@maps
def test_results_before_a_wrong_item_come_first_where_inputs_are_taken_later(pool, name):
    given = [*[(number, 1) for number in range(60)], None]

    results = getattr(pool, name)(pow, given, star=True, buffersize=3)
    came = []
    with pytest.raises(TypeError, match="item 60 of the iterable is None"):
        asyncio.run(append_to(came, results)) if name.startswith("a") else came.extend(results)
    assert sorted(came) == list(range(60))


@maps
@pytest.mark.parametrize("iterables", [(), ([1], [2]), ([1], [2], [3])])
def test_another_number_of_iterables_is_refused(pool, name, iterables):
    with pytest.raises(
        TypeError, match=f"takes one iterable, of tuples of arguments, not {len(iterables)} iterables"
    ):
        getattr(pool, name)(pow, *iterables, star=True)
