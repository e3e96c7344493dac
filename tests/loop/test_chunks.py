"""What stands for the function of a task that makes several calls: to workers, to subclasses, and in messages."""

from __future__ import annotations

import pickle
from functools import partial

import pytest

from pidfdpool.loop.chunk_calls import Chunk, Terms, describe
from pidfdpool.transport.published import Published


def add(*numbers):
    return sum(numbers)


def chunk(calls=((1, 2), (3, 4), (5, 6)), *, first=10, **options):
    return Chunk(add, "work", first, calls, **options)


def test_a_worker_gets_what_it_is_to_call_and_nothing_of_the_hosts():
    plain = pickle.loads(pickle.dumps(chunk()))
    assert (type(plain), plain.func, plain.args) == (partial, add, ())
    bound = chunk(func=len)
    assert bound.__reduce__() == (partial, (add, len))
    assert (bound.func, bound.bound) == (len, (len,))
    assert (chunk().func, chunk().bound) == (None, ())


def test_a_subclass_that_calls_what_it_gets_makes_the_calls():
    assert chunk()(1, 2) == 3
    assert chunk(func=4)(1, 2) == 7


def test_a_new_chunk_may_have_been_at_any_of_its_calls():
    made = chunk()
    assert (made.size, made.published, made.terms, made.of_script) == (3, None, None, False)
    assert made.label == "work, items 10 to 12 of map"
    assert made.arguments() == ""
    assert chunk(of_script=True).of_script


def test_a_chunk_of_one_call_names_that():
    one = chunk(((1, 2),))
    assert (one.label, one.arguments(), one.size) == ("work, item 10 of map", ": 1, 2", 1)


@pytest.mark.parametrize(("starred", "shown"), [(True, ": 3, 4"), (False, ": (3, 4)")])
def test_arguments_are_shown_as_they_were_given(starred, shown):
    made = chunk(starred=starred)
    made.narrow(2)
    assert made.arguments() == shown


@pytest.mark.parametrize("length", [99, 100, 101, 200])
def test_arguments_that_are_long_are_shown_in_part(length):
    class Argument:
        def __repr__(self):
            return "x" * 10

    count, rest = divmod(length - 10, 12)  # behind the first, each takes a comma and a space, too
    filler = type("Filler", (), {"__repr__": lambda _: "y" * (10 + rest)})()
    made = chunk(((filler, *(Argument() for _ in range(count))),))
    text = made.arguments().removeprefix(": ")
    full = ", ".join(["y" * (10 + rest), *["x" * 10] * count])
    assert len(full) == length
    assert text == (full if length <= 100 else full[:97] + "...")


def test_marks_of_more_calls_than_there_are_tell_nothing_new():
    made = chunk()
    made.narrow(2)
    assert made.label == "work, item 11 of map"
    for marks in (0, 4):
        made.narrow(marks)
        assert made.label == "work, item 11 of map"


def test_what_was_published_of_all_calls_counts():
    made = chunk()
    made.take(published := Published(1, 3, [1, 2, 3], b"abc"))
    assert made.published is published
    assert made.label == "work, items 10 to 12 of map", "none was under way"
    made.take(None)
    assert made.published is published


def test_each_argument_of_each_call_has_a_name():
    assert chunk(((1, 2), (3,))).named() == {
        "argument 1 of item 10 of map": 1, "argument 2 of item 10 of map": 2, "argument 1 of item 11 of map": 3
    }  # fmt: skip
    assert chunk(("a", (1, 2)), first=0, starred=False).named() == {
        "argument 1 of item 0 of map": "a", "argument 1 of item 1 of map": (1, 2)
    }  # fmt: skip


def test_terms_say_nothing_until_a_call_has_a_history():
    terms = Terms()
    assert (terms.since, terms.attempts, terms.deaths, terms.follows) == (None, 0, (), False)
    assert chunk(terms=terms).counted == 3
    assert chunk(terms=Terms(since=1.0, follows=True)).counted == 3
    assert chunk(((1,),), terms=Terms(attempts=2)).counted == 0


def test_an_error_of_a_task_that_was_no_chunk_stays_as_it_is():
    for extra in ({}, {"chunk": None}, {"chunk": "the user's own"}):
        error = RuntimeError("text")
        vars(error).update(extra)
        describe(error)
        assert error.args == ("text",)


def test_only_the_first_naming_of_the_task_gets_the_arguments():
    """The history of deaths behind it names the task again."""
    error, made = RuntimeError(), chunk()
    made.narrow(1)
    error.task, error.chunk = made.label, made
    error.message = f"task 1 ({made.label}) was lost\n  {made.label}"
    describe(error)
    assert error.message == f"task 1 ({made.label}: 1, 2) was lost\n  {made.label}"
    assert str(error) == error.message
    assert "chunk" not in vars(error)
