"""How a chunk makes its calls: with and without a black box, up to a stop, and what is sent of odd results."""

from __future__ import annotations

import time

import pytest

from pidfdpool.serialization import payload, picklers
from pidfdpool.transport import black_box
from pidfdpool.transport.black_box import MAX_MARKS
from pidfdpool.worker import chunk
from tests.worker.test_chunk_outcomes import Strange, received
from tests.worker.test_chunk_parts import NOW, box, call, dumped  # noqa: F401  a fixture


@pytest.fixture
def no_box(monkeypatch):
    for name in ("_run", "_marks", "black_box_fd", "shared_main"):
        monkeypatch.setattr(chunk, name, None)


@pytest.mark.parametrize(
    ("marks", "count", "calls"),
    [
        (0, 5, None),
        (1, 5, (0, 1)),
        (5, 5, (4, 5)),
        (6, 5, None),
        (-1, 5, None),
        (1, 0, None),
        (MAX_MARKS, MAX_MARKS, (MAX_MARKS - 1, MAX_MARKS)),
        (1, 1025, (0, 17)),
        (2, 1025, (17, 34)),
        (61, 1025, (1020, 1025)),
        (62, 1025, None),
        (64, 6400, (6300, 6400)),
    ],
)
def test_marks_tell_which_calls_were_under_way(marks, count, calls):
    assert chunk.calls_under_way(marks, count) == calls


def make(count, do):
    NOW[:] = [do]
    return chunk.call_all(dumped(call)[0], dumped(list(range(count))), False)


@pytest.mark.parametrize("count", [0, 1, 5, MAX_MARKS + 1])
def test_without_a_black_box_all_calls_are_made_too(no_box, count):
    results, failure, _ = make(count, lambda number: number)
    assert (received(results), failure) == (list(range(count)), None)
    assert chunk.call_each(call, [(number,) for number in range(count)]) == list(range(count))
    assert chunk._run is None


def test_a_black_box_that_cannot_be_mapped_is_done_without(no_box, monkeypatch):
    monkeypatch.setattr(chunk, "black_box_fd", 1 << 20)
    assert received(make(3, lambda number: number)[0]) == [0, 1, 2]
    assert chunk._marks is None


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("calls", [list(range(5)), range(5), list(range(3000)), range(3000)])
def test_a_run_that_is_stopped_begins_no_further_call(box, monkeypatch, calls, boxed):  # noqa: F811
    if not boxed:
        monkeypatch.setattr(chunk, "black_box_fd", None)
    run, taken = chunk._Run(calls), []
    for number in run.calls():
        taken.append(number)
        if number == 2:
            run.stop()
    assert taken == [0, 1, 2]


def test_a_run_that_is_stopped_before_it_begins_makes_no_call(box):  # noqa: F811
    run = chunk._Run(range(3000))
    run.stop()
    assert list(run.calls()) == []


def test_a_copy_ends_its_chunk_with_the_call_that_has_made_it(box):  # noqa: F811
    """Up to the loop, where it exits."""
    made = []

    def do(number):
        made.append(number)
        if number == 1:
            chunk.forget_in_forked_child()
        return number

    with pytest.raises(StopIteration):
        make(4, do)
    assert made == [0, 1]
    assert (chunk._marks, chunk.black_box_fd) == (None, None)

    def fail(_number):
        chunk.forget_in_forked_child()
        raise LookupError("of the copy")

    with pytest.raises(LookupError, match="of the copy"):
        make(4, fail)


def test_where_no_chunk_runs_a_copy_has_nothing_to_stop(no_box):
    chunk.forget_in_forked_child()
    assert chunk._run is None


def test_nothing_of_a_chunk_is_left_when_it_is_over(box):  # noqa: F811
    seen = []

    def look(number):
        seen.append(type(chunk._run).__name__)
        return 1 / number

    with pytest.raises(ZeroDivisionError):
        chunk.call_each(look, [(1,), (0,)])
    assert (seen, chunk._run, black_box.count_marks(box)) == (["_Run", "_Run"], None, 0)
    make(2, look)
    assert (seen[2:], chunk._run, black_box.count_marks(box)) == (["_Run", "_Run"], None, 0)


def test_marks_of_the_chunk_before_are_gone_when_the_next_is_rebuilt(box, monkeypatch):  # noqa: F811
    marks = black_box.map_marks(box)
    monkeypatch.setattr(chunk, "_marks", marks)
    black_box.clear_marks(marks)
    marks.write(b"\1\1\1")
    counts, load = [], chunk.load_calls
    monkeypatch.setattr(chunk, "load_calls", lambda *told: counts.append(black_box.count_marks(box)) or load(*told))
    make(1, lambda number: number)
    assert counts == [0]


def test_the_time_of_a_chunk_is_that_of_its_calls(no_box, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def do(number):
        now[0] += 2.0
        return number

    assert make(3, do)[2] == 6.0


def test_no_failure_holds_its_frames(no_box):
    errors = []

    def do(number):
        errors.append(LookupError(number))
        raise errors[-1]

    make(3, do)
    assert [error.__traceback__ for error in errors] == [None, None, None]
    errors.clear()

    def return_it(number):
        return Unpicklable(errors)

    results, failure, _ = make(2, return_it)
    assert received(results) == []
    assert "on purpose" in str(payload.load_error(failure))
    assert errors
    assert all(error.__traceback__ is None for error in errors)


class Unpicklable:
    def __init__(self, errors):
        self.errors = errors

    def __reduce__(self):
        self.errors.append(LookupError("on purpose"))
        raise self.errors[-1]


# ---- results ---------------------------------------------------------------------------------------------------


def test_results_that_share_resources_are_rebuilt_as_soon_as_they_arrive(no_box, monkeypatch):
    closed, shared = [], ["resource"]
    monkeypatch.setattr(picklers, "shared_resources", shared)
    monkeypatch.setattr(picklers, "pop_shared_resources", lambda: [shared.pop()])
    monkeypatch.setattr(picklers, "close_unfetched", closed.extend)
    results, failure, _ = make(2, lambda number: number)
    assert (results, failure, closed) == (([0, 1],), None, ["resource"])


@pytest.mark.parametrize("by_value", [False, True])
def test_a_pickle_with_classes_that_travel_by_value_is_one_bytes_object(no_box, by_value):
    results, _, _ = make(2, lambda _: (payload.CLASS_BY_VALUE if by_value else b"x", bytes(1 << 17)))
    assert received(results)[1][1] == bytes(1 << 17)
    if by_value:
        assert type(results[0]) is bytes


class Counting:
    """Can be pickled only so many times, together with all others of its kind."""

    left = 0

    def __reduce__(self):
        Counting.left -= 1
        if Counting.left < 0:
            raise LookupError("once too often")
        return int, ()


def test_results_that_can_be_pickled_one_by_one_but_not_together_are_none(no_box):
    Counting.left = 3
    results, failure = chunk._dump_up_to_failure([Counting(), Counting()], None)
    assert received(results) == []
    assert "once too often" in str(payload.load_error(failure))


def test_the_failure_of_a_call_is_told_if_all_results_can_be_pickled_this_time(no_box):
    assert chunk._dump_up_to_failure([1, 2], ["failure"]) == ([payload.dumps([1, 2])[0]], ["failure"])
    results, failure = chunk._dump_up_to_failure([1, Strange(7, fails=True), 3], ["failure"])
    assert received(results) == [1]
    assert "result 7" in str(payload.load_error(failure))


def test_arguments_that_were_salvaged_are_tuples_and_known_as_such(no_box):
    single = payload.dumps([1, Strange(2, late=True)])
    calls, starred = chunk.load_calls(single, False)
    assert (calls[0], starred) == ((1,), True)
    with pytest.raises(LookupError, match="argument 2"):
        print(*calls[1])
    calls, starred = chunk.load_calls(payload.dumps([(1, 2), Strange(2, late=True)]), True)
    assert (calls[0], starred) == ((1, 2), True)
    assert chunk.load_calls(payload.dumps([(1, 2)]), True) == ([(1, 2)], True)
    assert chunk.load_calls(payload.dumps([1]), False) == ([1], False)


def test_calls_of_which_none_can_be_rebuilt_are_an_error(no_box):
    with pytest.raises(LookupError, match="argument 1"):
        chunk.load_calls(payload.dumps(Strange(1, late=True)), False)
