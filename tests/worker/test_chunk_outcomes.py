"""What a chunk of calls gives back: the results before the first failure, and what cannot be published."""

from __future__ import annotations

import pytest

from pidfdpool.serialization import payload, scripts
from pidfdpool.transport import black_box, published
from pidfdpool.transport.black_box import MAX_MARKS
from pidfdpool.worker import chunk, chunk_publishing, context, rebuild_guard
from pidfdpool.worker.chunk_publishing import LARGE, FailedCall, Unpublished
from tests.worker.test_chunk_parts import NOW, box, call, dumped, publish  # noqa: F401  a fixture

MADE: list = []


class Strange:
    """Can be pickled by itself; not if `fails`; cannot be unpickled if `late`."""

    def __init__(self, number, *, fails=False, late=False):
        self.number, self.fails, self.late = number, fails, late

    def __reduce__(self):
        if self.fails:
            raise ValueError(f"result {self.number}")
        return (_raise if self.late else Strange), (self.number,)


def _raise(number):
    raise LookupError(f"argument {number}")


def add(one, two):
    MADE.append((one, two))
    return one + two


@pytest.fixture(autouse=True)
def nothing_made():
    MADE.clear()


def received(buffers):
    """Rebuild what was sent in these buffers."""
    return payload.loads([bytes(buffer) for buffer in buffers])


def all_of(numbers, do):
    """Return the results, and the failure, of a chunk of these calls."""
    NOW[:] = [do]
    results, failure, took = chunk.call_all(dumped(call)[0], dumped(numbers), False)
    assert took >= 0
    return received(results), None if failure is None else payload.load_error(failure)


def test_calls_behind_a_failure_are_made_too_and_only_the_first_failure_is_told(box):  # noqa: F811
    made = []

    def do(number):
        made.append(number)
        if number in (1, 3):
            raise KeyError(number)
        return number

    results, failure = all_of([0, 1, 2, 3, 4], do)
    assert (made, results) == ([0, 1, 2, 3, 4], [0])
    assert (type(failure), failure.args) == (KeyError, (1,))


@pytest.mark.parametrize("where", [0, 2, 4])
def test_a_stop_iteration_of_the_functions_is_a_failure_like_others(box, where):  # noqa: F811
    made = []

    def do(number):
        made.append(number)
        if number == where:
            raise StopIteration(number)
        return number

    results, failure = all_of([0, 1, 2, 3, 4], do)
    assert (made, results, type(failure)) == ([0, 1, 2, 3, 4], list(range(where)), StopIteration)


def test_a_result_that_cannot_be_pickled_is_the_failure_if_it_comes_before_another(box):  # noqa: F811
    def do(number):
        if number == 3:
            raise KeyError(number)
        return Strange(number, fails=number == 1)

    results, failure = all_of([0, 1, 2, 3], do)
    assert [each.number for each in results] == [0]
    assert (type(failure), failure.args) == (ValueError, ("result 1",))


def test_a_failure_before_a_result_that_cannot_be_pickled_is_the_failure(box):  # noqa: F811
    def do(number):
        if number == 1:
            raise KeyError(number)
        return Strange(number, fails=number == 2)

    results, failure = all_of([0, 1, 2], do)
    assert [each.number for each in results] == [0]
    assert type(failure) is KeyError


def test_each_call_has_its_arguments(box):  # noqa: F811
    results, failure, _ = chunk.call_all(dumped(add)[0], dumped([(1, 2), (3, 4)]), True)
    assert (received(results), failure) == ([3, 7], None)
    assert chunk.call_each(add, [(5, 6)]) == [11]
    assert chunk_publishing.call_alone(dumped(add)[0], dumped([(1, 2)]), True)[0] == 3
    NOW[:] = [lambda number: number]
    assert chunk_publishing.call_alone(dumped(call)[0], dumped([7]), False)[0] == 7


def test_the_first_failure_ends_a_chunk_of_a_given_size(box):  # noqa: F811
    with pytest.raises(TypeError):
        chunk.call_each(add, [(1, 2), (None, 1), (3, 4)])
    assert MADE == [(1, 2), (None, 1)]


def test_an_argument_that_cannot_be_unpickled_fails_its_own_call(box):  # noqa: F811
    results, failure = all_of([0, Strange(1, late=True), 2], lambda number: number)
    assert results == [0]
    assert "argument 1" in str(failure)


def test_calls_that_need_the_script_are_not_salvaged(monkeypatch):
    def load(_calls):
        raise scripts.NeedsScript

    monkeypatch.setattr(payload, "loads", load)
    with pytest.raises(scripts.NeedsScript):
        chunk.load_calls([b""], True)


def test_only_the_rebuilding_is_recorded_and_not_the_calls(box):  # noqa: F811
    seen = []
    all_of([0], lambda _number: seen.append(rebuild_guard.state.activity))
    NOW[:] = [lambda _number: seen.append(rebuild_guard.state.activity)]
    publish([0])
    chunk_publishing.call_alone(dumped(call)[0], dumped([0]), False)
    assert seen == [None] * 3


# ---- published ---------------------------------------------------------------------------------------------------


def loaded(ends, data):
    """Return the results that were published."""
    numbers = [int.from_bytes(ends[at : at + 4], "little") for at in range(0, len(ends), 4)]
    return [payload.loads([bytes(data[begin:end])]) for begin, end in zip([0, *numbers], numbers, strict=False)]


def test_results_of_all_kinds_are_published_in_their_order(box):  # noqa: F811
    NOW[:] = [lambda number: [None, 1, 2.5, "three", b"four", True, [6], {"seven": 7}][number]]
    ends, data, last, failed, took = publish(list(range(8)))
    assert loaded(ends, data) == [None, 1, 2.5, "three", b"four", True, [6], {"seven": 7}]
    assert (last, failed) == (None, ())
    assert took >= 0


def test_a_chunk_has_begun_no_call_while_its_calls_are_rebuilt(box, monkeypatch):  # noqa: F811
    """Guards: what was published of the chunk before counted. To rebuild may import, and takes long; or dies."""
    NOW[:] = [lambda number: number]
    context.enter(6, 1, None)
    publish([0, 1, 2])
    context.enter(7, 1, None)
    seen, loads = [], payload.loads

    def look(buffers):
        seen.append((published.calls_begun(box, 7), published.read(box).task, len(published.read(box).ends)))
        return loads(buffers)

    monkeypatch.setattr(payload, "loads", look)
    publish([0, 1])
    assert seen == [(0, 7, 0)] * 2
    assert published.calls_begun(box, 7) == 2


@pytest.mark.parametrize("count", [MAX_MARKS - 1, MAX_MARKS, MAX_MARKS + 1, 5000])
def test_a_chunk_has_a_mark_for_each_call_or_for_each_few(box, count):  # noqa: F811
    seen = []
    NOW[:] = [lambda number: seen.append((number, black_box.count_marks(box)))]
    assert chunk.call_each(call, [(number,) for number in range(count)]) == [None] * count
    assert [number for number, _ in seen] == list(range(count))
    for number, marks in seen[:: count // 50]:
        first, end = chunk.calls_under_way(marks, count)
        assert first <= number < end
        assert end - first == (1 if count <= MAX_MARKS else -(-count // 64)) or end == count
    seen.clear()
    chunk.call_all(dumped(call)[0], dumped(range(count)), False)
    assert len(seen) == count
    assert black_box.count_marks(box) == 0


def test_a_call_that_raises_is_published_as_that_and_named_and_the_next_is_made(box):  # noqa: F811
    def do(number):
        if number in (1, 2):
            raise KeyError(number)
        return Strange(number, fails=number == 3)

    NOW[:] = [do]
    ends, data, last, failed, _ = publish([0, 1, 2, 3, 4])
    results = loaded(ends, data)
    assert failed == (1, 2, 3)
    assert [type(each) for each in results] == [Strange, FailedCall, FailedCall, FailedCall, Strange]
    assert [type(payload.load_error(each.error)) for each in results[1:4]] == [KeyError, KeyError, ValueError]
    assert last is None


@pytest.mark.parametrize("size", [LARGE // 2, LARGE, 2 * LARGE])
def test_a_large_result_is_sent_along_and_ends_the_chunk(box, size):  # noqa: F811
    NOW[:] = [lambda number: b"x" * size if number == 1 else number]
    ends, data, last, failed, _ = publish([0, 1, 2])
    if size < LARGE:
        assert loaded(ends, data) == [0, b"x" * size, 2]
        assert last is None
    else:
        assert loaded(ends, data) == [0]
        assert type(last) is Unpublished
        assert payload.loads([bytes(last.data)]) == b"x" * size
    assert failed == ()


def test_a_result_that_finds_no_room_any_more_is_sent_along(box):  # noqa: F811
    count = (1 << 20) // (LARGE // 2) + 10
    NOW[:] = [lambda number: bytes([number]) * (LARGE // 2)]
    ends, data, last, *_ = publish(list(range(count)))
    results = loaded(ends, data)
    assert 10 < len(results) < count
    assert results == [bytes([number]) * (LARGE // 2) for number in range(len(results))]
    assert payload.loads([bytes(last.data)]) == bytes([len(results)]) * (LARGE // 2)
