"""Which calls of a map a message names, when a task that makes several of them fails as a whole."""

from __future__ import annotations

import pytest

from pidfdpool.loop.chunk_calls import Chunk, Terms, describe
from pidfdpool.transport.published import Published


def chunk(count=4, **options):
    """Give a chunk of the calls 10, 11 ..., whose arguments are 0, 1 ..."""
    return Chunk(print, "work", 10, range(count), starred=False, **options)


def published(begun, done):
    return Published(1, begun, list(range(1, done + 1)), b"")


@pytest.mark.parametrize(
    ("begun", "done", "label", "arguments"),
    [
        (0, 0, "items 10 to 13", ""),
        (1, 0, "item 10", ": 0"),
        (3, 2, "item 12", ": 2"),
        (3, 1, "items 11 to 12", ""),
        (4, 3, "item 13", ": 3"),
    ],
)
def test_what_was_published_tells_which_call_was_under_way(begun, done, label, arguments):
    each = chunk()
    each.take(published(begun, done))
    assert (each.label, each.arguments()) == (f"work, {label} of map", arguments)
    assert each.published is not None


@pytest.mark.parametrize("count", [1, 3, 4])
def test_between_two_calls_none_was_under_way(count):
    """Guards: "items 13 to 12": a call that had not begun, and one that was over."""
    each = chunk()
    each.take(published(count, count))
    assert each.label == "work, items 10 to 13 of map"
    assert each.arguments() == ""
    assert each.published is not None, "the results count all the same"


def test_what_cannot_be_true_is_not_believed():
    each = chunk()
    each.take(published(5, 4))
    each.take(None)
    assert each.published is None
    assert each.label == "work, items 10 to 13 of map"


@pytest.mark.parametrize(
    ("marks", "label"), [(0, "items 10 to 13"), (1, "item 10"), (4, "item 13"), (5, "items 10 to 13")]
)
def test_marks_in_the_black_box_tell_it_where_nothing_is_published(marks, label):
    each = chunk()
    each.narrow(marks)
    assert each.label == f"work, {label} of map"
    each.narrow_to_first()
    assert each.label == "work, item 10 of map"


def test_an_error_names_the_call_with_its_arguments_once():
    each = chunk()
    each.narrow(2)
    error = RuntimeError()
    error.task, error.message, error.chunk = each.label, f"task 1 ({each.label}) was lost", each
    for _ in range(2):
        describe(error)
        assert error.task == "work, item 11 of map: 1"
        assert error.args == ("task 1 (work, item 11 of map: 1) was lost",)


def test_calls_count_for_themselves_until_one_of_them_is_a_task_by_itself():
    assert chunk().counted == 0
    assert chunk(terms=Terms()).counted == 4
    assert chunk(1, terms=Terms(attempts=1)).counted == 0
