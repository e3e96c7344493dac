"""An exception with all that it is chained to: each once, whatever refers to whatever, and without its own code."""

from __future__ import annotations

import dataclasses
import errno
import sys
import traceback

import pytest

from pidfdpool.serialization import exception_chains, payload


def raised(error, cause=None):
    try:
        raise error from cause
    except BaseException as caught:
        return caught


@pytest.fixture
def tree():
    """Return a group, all exceptions that belong to it, and one that none of them refers to."""
    cause, context = raised(KeyError("cause")), raised(KeyError("context"))
    member = raised(ValueError("member"), cause)
    other = raised(ValueError("other"))
    other.__context__ = context
    inner = ExceptionGroup("inner", [other])
    group = raised(BaseExceptionGroup("outer", [member, inner, KeyboardInterrupt()]))
    context.__context__ = group  # a ring
    return group, {id(each) for each in (group, member, inner, other, cause, context, group.exceptions[2])}


def test_each_is_found_once_also_in_groups_and_rings(tree):
    group, belonging = tree
    found = list(map(id, exception_chains.chained(group)))
    assert len(found) == len(belonging)
    assert set(found) == belonging


def test_the_tracebacks_of_all_are_dropped(tree):
    group, _ = tree
    assert group.__traceback__ is not None
    assert group.exceptions[0].__cause__.__traceback__ is not None
    exception_chains.drop_tracebacks(group)
    assert [each.__traceback__ for each in exception_chains.chained(group)] == [None] * 7


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    number: int


class Liar(Exception):
    @property
    def __traceback__(self):
        raise AssertionError("its own code was run")

    __cause__ = __context__ = __traceback__

    def __str__(self):
        raise ValueError("it has no text")


def test_classes_that_refuse_or_replace_the_attributes_are_handled_too():
    cause = KeyError("cause")
    frozen = exception_chains.with_cause(Frozen(1), cause)
    assert frozen.__cause__ is cause
    for error in (frozen, Liar()):
        error = raised(error)
        exception_chains.drop_tracebacks(error)
        assert BaseException.__dict__["__traceback__"].__get__(error) is None
    assert "Liar: (it has no text)" in exception_chains.format_exception(raised(Liar()))


def test_the_text_is_that_of_the_interpreter():
    text = exception_chains.format_exception(raised(ValueError("why"), raised(KeyError("cause"))))
    assert "KeyError: 'cause'" in text
    assert "direct cause" in text
    assert text.endswith("ValueError: why\n")


class Leaves(Exception):
    """Its notes end whatever looks at them."""

    ending: type[BaseException] = SystemExit

    @property
    def __notes__(self):
        raise self.ending


@pytest.mark.parametrize("ending", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_an_attribute_that_raises_whatever_it_is_costs_only_its_part_of_the_text(ending):
    error = Leaves("all the same")
    error.ending = ending
    text = exception_chains.format_exception(raised(error))
    assert "all the same" in text
    assert "in raised" in text
    _, sent = payload.dump_error(raised(Leaves("sent")))
    assert b"sent" in sent


@pytest.mark.parametrize("refused", ["format_exception", "format_tb", "import"])
def test_without_what_formatting_needs_there_is_the_stack_without_source(monkeypatch, refused):
    """A task may have left no descriptor, and formatting loads modules and reads files."""

    def refuse(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(traceback, "format_exception", refuse)
    if refused == "import":
        monkeypatch.setitem(sys.modules, "traceback", None)
    elif refused == "format_tb":
        monkeypatch.setattr(traceback, "format_tb", refuse)
    first, place, *rest = exception_chains.format_exception(raised(ValueError("why"))).splitlines()
    assert first == "Traceback (most recent call last):"
    assert place.startswith(f'  File "{__file__}", line ')
    assert place.endswith(", in raised")
    assert rest[-1] == "ValueError: why"
    assert (len(rest) == 1) == (refused != "format_exception")
