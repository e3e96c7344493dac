"""The error of a call that cannot be pickled: which part it names, why, and what it leaves alone. Without a pool."""

from __future__ import annotations

import contextlib
import functools
import gc
import multiprocessing
import pickle
import sys
import threading
import types
import weakref

import pytest

from pidfdpool import CallNotSendable
from pidfdpool.executor.unsendable import INSTEAD_OF_ARGUMENTS, describe_pickling_error
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.serialization import payload
from pidfdpool.serialization.placeholder import REMEDIES
from pidfdpool.worker.chunk import call_each
from pidfdpool.worker.task_context import InContext
from tests import calls

LOCK = threading.Lock()


def described(function, *arguments, error=None, shared=None, **keywords):
    """Return what the future of a call is told of the error of pickling it."""
    if error is None:
        with pytest.raises(Exception) as raised:  # noqa: PT011  whatever pickle raises
            payload.dumps((function, arguments, keywords), shared)
        error = raised.value
    return describe_pickling_error(error, function, arguments, keywords, shared)


def part_of(function, *arguments, **keywords):
    """Return which part of a call is named."""
    error = described(function, *arguments, **keywords)
    assert type(error) is CallNotSendable
    what, _, rest = str(error).partition(" cannot be sent to a worker: ")
    why, _, remedies = rest.partition(". ")
    assert "cannot pickle" in why
    assert remedies == (REMEDIES if what.startswith("the function") else INSTEAD_OF_ARGUMENTS)
    return what


class Box:
    def __init__(self, **held):
        vars(self).update(held)

    def look(self):
        return vars(self)


# ---- which part ---------------------------------------------------------------------------------------------------


KIND = "(_thread.lock)"


@pytest.mark.parametrize(
    ("arguments", "keywords", "told"),
    [
        ((LOCK,), {}, f"argument 1 of double() {KIND}"),
        ((1, 2, LOCK), {}, f"argument 3 of double() {KIND}"),
        ((1,), {"key": LOCK}, f"argument 'key' of double() {KIND}"),
        ((LOCK,), {"key": LOCK}, f"argument 1 of double() {KIND}"),
        (([0, LOCK],), {}, f"argument 1 of double(), in it [1] {KIND}"),
        (((0, (1, LOCK)),), {}, f"argument 1 of double(), in it [1][1] {KIND}"),
        (({"a": 1, ("b", 2): LOCK},), {}, f"argument 1 of double(), in it [('b', 2)] {KIND}"),
        ((Box(a=1, b=Box(c=LOCK)),), {}, f"argument 1 of double(), in it .b.c {KIND}"),
        (([1], {"a": [Box(b=LOCK)]}), {}, f"argument 2 of double(), in it ['a'][0].b {KIND}"),
    ],
    ids=range(9),
)
def test_the_innermost_part_is_named_with_its_path_and_its_kind(arguments, keywords, told):
    assert part_of(calls.double, *arguments, **keywords) == told


def test_a_path_is_as_deep_as_six_levels_and_a_key_is_cut():
    deep = LOCK
    for _ in range(9):
        deep = [deep]
    assert part_of(calls.double, deep) == "argument 1 of double(), in it [0][0][0][0][0][0] (list)"
    named = part_of(calls.double, {"k" * 500: LOCK})
    assert named == f"argument 1 of double(), in it ['{'k' * 58} {KIND}"


@pytest.mark.parametrize("make", [list, tuple, lambda items: dict(enumerate(items)), lambda items: boxed(items)])
def test_of_each_object_a_hundred_parts_are_tried(make):
    last = [0] * 99 + [LOCK]
    assert "99" in part_of(calls.double, make(last))
    beyond = part_of(calls.double, make([0] * 100 + [LOCK]))
    assert beyond.partition(" (")[0] == "argument 1 of double()", "the container itself is named"


def boxed(items):
    return Box(**{f"n{number}": item for number, item in enumerate(items)})


class Slots:
    __slots__ = ("held",)


class Reduces(Box):
    """Says itself what is pickled."""

    def __reduce_ex__(self, _protocol):
        return list, (iter([LOCK]),)


def test_an_object_that_says_itself_what_is_pickled_is_not_looked_into():
    assert part_of(calls.double, Reduces(held=LOCK)).startswith("argument 1 of double() (")
    slots = Slots()
    slots.held = LOCK
    assert part_of(calls.double, slots).startswith("argument 1 of double() (")


def closure(**held):
    first, second = held["first"], held["second"]
    return lambda: (first, second)


def empty_cell():
    def function():
        return later, value

    value = LOCK
    if value is None:
        later = 1
    return function


def test_a_function_is_looked_into():
    name = "the function closure.<locals>.<lambda>"
    assert part_of(closure(first=1, second=[LOCK])) == f"{name}, in it its variable 'second'[0] {KIND}"
    assert part_of(lambda a=1, b=LOCK: a).endswith(f"in it its default 2 {KIND}")
    assert part_of(lambda *, a=1, b=LOCK: a).endswith(f"in it its default 'b' {KIND}")
    assert part_of(empty_cell()).endswith(f"in it its variable 'value' {KIND}")
    argument = part_of(calls.double, closure(first=LOCK, second=1))
    assert argument == f"argument 1 of double(), in it its variable 'first' {KIND}"


def test_a_global_is_named_only_of_code_that_belongs_to_no_module():
    names = {"__name__": "elsewhere", "HELD": LOCK, "OTHER": 1}
    exec("def work():\n    return OTHER, HELD\n", names)
    assert part_of(names["work"]) == f"the function work, in it its global 'HELD' {KIND}"


def test_what_has_no_name_is_named_by_its_type():
    assert part_of(functools.partial(calls.double, LOCK)).startswith("the function partial")
    assert part_of(functools.partial(calls.double), LOCK) == f"argument 1 of partial() {KIND}"


def test_what_the_object_of_a_method_holds_is_named():
    assert part_of(Box(a=1, b=LOCK).look) == f"the function Box.look, in it its object.b {KIND}"


def test_the_function_comes_behind_the_arguments():
    function = closure(first=LOCK, second=1)
    assert part_of(function, LOCK).startswith("argument 1 of closure.<locals>.<lambda>() (")


def test_of_a_chunk_the_call_is_named_and_of_one_that_is_a_call_its_arguments():
    several = Chunk(call_each, "double", 7, [(1, 2), (3, LOCK)], func=calls.double)
    assert part_of(several, [(1, 2), (3, LOCK)]) == f"argument 2 of item 8 of map {KIND}"
    single = Chunk(calls.double, "double", 7, ((1, LOCK),))
    assert part_of(single, 1, LOCK) == f"argument 2 of double() {KIND}"
    function = closure(first=LOCK, second=1)
    assert part_of(Chunk(call_each, "a name", 0, [(1,)], func=function), [(1,)]).startswith("the function closure")


def test_where_no_chunk_was_ever_made_none_is_looked_for(monkeypatch):
    monkeypatch.delitem(sys.modules, "pidfdpool.loop.chunk_calls")
    assert part_of(calls.double, LOCK) == f"argument 1 of double() {KIND}"


def test_the_value_of_a_context_variable_is_named_first():
    function = InContext(calls.double, (("a.module", "FIRST", 1), ("a.module", "Holder.SECOND", LOCK)))
    named = part_of(function, LOCK)
    assert named == f"the value {LOCK!r} of the context variable a.module.Holder.SECOND {KIND}"
    assert part_of(InContext(calls.double, ()), LOCK) == f"argument 1 of double() {KIND}"
    assert part_of(InContext(closure(first=LOCK, second=1), ())).startswith("the function closure")


def test_the_value_of_a_context_variable_is_named_whatever_its_code_raises():
    class Stubborn:
        def __reduce__(self):
            raise LookupError("not this one")

    function = InContext(calls.double, (("a.module", "FIRST", Stubborn()),))
    error = described(function, 1)
    assert type(error) is CallNotSendable
    assert "of the context variable a.module.FIRST (" in str(error)
    assert "cannot be sent to a worker: LookupError: not this one. " in str(error)
    for fails, value in (
        (InContext(calls.double, (("a.module", "FIRST", 1),)), Stubborn()),
        (calls.double, Stubborn()),
    ):
        assert type(described(fails, value)) is LookupError, "an argument's own error is the call's"


def test_what_is_too_large_is_told_as_that():
    function, error = InContext(calls.double, (("a.module", "FIRST", LOCK),)), MemoryError("too large")
    assert described(function, 1, error=error) is error


# ---- what the error is --------------------------------------------------------------------------------------------


def raised(error):
    """Return the error with a traceback, as it is when it was raised and caught."""
    with contextlib.suppress(type(error)):
        raise error
    return error


def test_the_error_of_pickle_is_its_cause_and_holds_no_frames():
    original = raised(TypeError("cannot pickle '_thread.lock' object"))
    error = described(calls.double, LOCK, error=original)
    assert error.__cause__ is original
    assert original.__traceback__ is None
    assert isinstance(error, TypeError)
    assert isinstance(error, pickle.PicklingError)


@pytest.mark.parametrize(
    "error",
    [TypeError("t"), AttributeError("a"), pickle.PicklingError("p"), NotImplementedError("n"), ValueError("v")],
    ids=repr,
)
def test_errors_of_the_kinds_that_pickle_raises_have_the_part_looked_for(error):
    assert type(described(calls.double, LOCK, error=error)) is CallNotSendable
    assert described(calls.double, 1, error=error) is error, "each part can be pickled alone"
    assert f"{type(error).__name__}" in str(error.__cause__)


class Derived(pickle.PicklingError):
    """As libraries have them."""


class OwnTypeError(TypeError):
    """Of an object's own."""


def test_what_is_derived_from_picklings_error_counts_and_what_is_derived_from_others_is_the_objects_own():
    assert type(described(calls.double, LOCK, error=Derived("no"))) is CallNotSendable
    for own in map(raised, (OwnTypeError("mine"), LookupError("mine"), RuntimeError("mine"))):
        assert described(calls.double, LOCK, error=own) is own
        assert "mine" in str(own.__cause__)
        assert "in raised" in str(own.__cause__)
        assert own.__traceback__ is None


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "Condition", "Event", "Queue", "SimpleQueue"])
def test_what_multiprocessing_has_workers_inherit_only_is_named_itself_with_what_helps(kind):
    shared = getattr(multiprocessing.get_context("fork"), kind)()
    error = described(calls.double, 1, [Box(held=shared)])
    inner = "._cond" if kind == "Event" else ""
    assert str(error).startswith(f"argument 2 of double(), in it [0].held{inner} (multiprocessing.")
    assert "initargs" in str(error)
    assert "Manager" in str(error)
    assert isinstance(error, CallNotSendable)
    assert isinstance(error, RuntimeError), "which the standard pool raises"
    if kind.endswith("Queue"):
        shared.close()


def test_code_of_a_part_that_raises_while_it_is_looked_for_leaves_the_error_as_it_was():
    class Key:
        def __repr__(self):
            raise LookupError

        def __reduce__(self):
            raise TypeError("not me")

    original = TypeError("of the whole call")
    error = described(calls.double, {Key(): LOCK}, error=original)
    assert error is original
    assert "of the whole call" in str(error.__cause__)


def test_an_error_with_its_own_cause_keeps_it_as_text():
    try:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise LookupError("mine") from first
    except LookupError as raised:
        original = raised
    error = described(calls.double, LOCK, error=original)
    assert error is original
    assert "KeyError: 'first'" in str(error.__cause__)
    assert 'raise LookupError("mine") from first' in str(error.__cause__)


def test_what_host_and_workers_have_in_common_is_not_looked_for(monkeypatch):
    script = types.ModuleType("__main__")
    script.LOCK = LOCK
    exec("def work(*_):\n    return LOCK\n", vars(script))
    monkeypatch.setitem(sys.modules, "__main__", script)
    shared = payload.SharedMain(script)
    error = describe_pickling_error(TypeError("no"), script.work, (1, LOCK), {}, shared)
    assert str(error).startswith(f"argument 2 of work() {KIND}")
    original = TypeError("no")
    assert describe_pickling_error(original, script.work, (1,), {}, shared) is original


def test_nothing_of_the_search_is_kept():
    class Argument:
        pass

    gc.disable()
    try:
        argument = Argument()
        argument.held = LOCK
        gone = weakref.ref(argument)
        error = describe_pickling_error(TypeError("no"), calls.double, (argument,), {}, None)
        assert type(error) is CallNotSendable
        del argument
        assert gone() is None
    finally:
        gc.enable()
