"""The checks of an executor's arguments at their bounds, and the signatures that list options. No executor."""

from __future__ import annotations

import enum
import inspect
import multiprocessing
import re
from types import SimpleNamespace
from typing import TypedDict

import pytest

from pidfdpool import Options, PidfdPoolExecutor, Policy
from pidfdpool.executor import arguments
from pidfdpool.process import cpus
from pidfdpool.scheduler.policy import MOST_WORKERS, PoolOptions, TaskOptions
from tests.conditions import run_python


@pytest.mark.parametrize("number", [1, MOST_WORKERS])
def test_a_number_of_workers_may_be_as_small_and_as_large_as_this(number):
    assert arguments.checked_max_workers(number) == number


@pytest.mark.parametrize(
    ("value", "kind", "told"),
    [
        (0, ValueError, "max_workers must be greater than 0, not 0"),
        (-1, ValueError, "max_workers must be greater than 0, not -1"),
        (MOST_WORKERS + 1, ValueError, "max_workers must be at most 65535, not 65536"),
        (1.0, TypeError, "max_workers must be an integer, not 1.0"),
    ],
)
def test_no_other_number_of_workers_is_taken(value, kind, told):
    with pytest.raises(kind, match=f"^{told}$"):
        arguments.checked_max_workers(value)


def test_who_names_no_number_gets_the_cpus_but_no_more_than_there_may_be(monkeypatch):
    for there, expected in ((3, 3), (MOST_WORKERS, MOST_WORKERS), (MOST_WORKERS + 1, MOST_WORKERS)):
        monkeypatch.setattr(cpus, "usable", lambda there=there: there)
        assert arguments.checked_max_workers(None) == expected


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((0, 5, True, None), "workers must be >= 1, not 0"),
        ((6, 5, True, None), "workers must not exceed max_workers: 6 > 5"),
        ((2.0, 5, True, None), "workers must be an integer or None, not 2.0"),
        ((2, 5, 1, None), "wait must be True or False, not 1"),
        ((2, 5, True, -1), "timeout must be a number of seconds, 0 or more, or None, not -1"),
        ((None, 5, True, "x"), "timeout must be a number of seconds, 0 or more, or None, not 'x'"),
    ],
)
def test_what_prestart_cannot_do_is_refused_in_these_words(given, told):
    with pytest.raises((TypeError, ValueError), match=f"^{told}"):
        arguments.checked_prestart(*given)


def test_workers_to_start_are_from_one_to_all():
    assert arguments.checked_prestart(1, 5, True, 0) == (1, 0)
    assert arguments.checked_prestart(None, 5, False, 2.5) == (5, 2.5)


def test_a_stream_has_room_for_what_a_frame_can_count():
    assert arguments.checked_stream(print, 1) == 1
    assert arguments.checked_stream(print, 2**31) == 2**31
    for room, told in ((0, ">= 1, not 0"), (2**31 + 1, "<= 2147483648, not 2147483649")):
        with pytest.raises(ValueError, match=f"^buffersize must be {told}$"):
            arguments.checked_stream(print, room)
    with pytest.raises(TypeError, match="^stream takes a callable, not 'print'$"):
        arguments.checked_stream("print", 1)


# ---- the start of a template --------------------------------------------------------------------------------------


class Context:
    def __init__(self, method):
        self.method, self.asked = method, []

    def get_start_method(self, **how):
        self.asked.append(how)
        return self.method


@pytest.mark.parametrize(("method", "way"), [("fork", "fork"), ("spawn", "exec"), ("forkserver", "exec")])
def test_a_context_is_asked_without_fixing_its_method(method, way):
    context = Context(method)
    assert arguments.checked_start_method(context) == way
    assert context.asked == [{"allow_none": True}]
    assert arguments.checked_start_method(method) == way


def test_a_context_that_has_not_decided_has_the_first_method_of_this_system(monkeypatch):
    for first, last, way in (("fork", "spawn", "fork"), ("spawn", "fork", "exec")):
        monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda first=first, last=last: [first, last])
        assert arguments.checked_start_method(Context(None)) == way
    assert arguments.checked_start_method(None) == "any"


@pytest.mark.parametrize(
    ("context", "kind", "told"),
    [
        ("thread", ValueError, "mp_context must be one of 'fork', 'spawn', 'forkserver', not 'thread'"),
        (Context("thread"), ValueError, "mp_context must be one of 'fork', 'spawn', 'forkserver', not 'thread'"),
        (5, TypeError, "mp_context must be a multiprocessing context or the name of one, not 5"),
        (
            SimpleNamespace(get_start_method="fork"),
            TypeError,
            "mp_context must be a multiprocessing context or the name of one, not namespace(get_start_method='fork')",
        ),
    ],
    ids=["name", "method", "number", "no method"],
)
def test_what_is_no_context_is_refused_in_these_words(context, kind, told):
    with pytest.raises(kind, match=f"^{re.escape(told)}$"):
        arguments.checked_start_method(context)


class Name(enum.StrEnum):
    ONE = "json"
    TWO = "json.tool"


def test_what_is_preloaded_keeps_its_order_and_is_read_once():
    assert arguments.checked_preload(iter(["b", "a.c", print, "d"])) == (("b", "a.c", "d"), print)
    assert arguments.checked_preload({"a": 1}) == (("a",), None)
    assert arguments.checked_preload(len) == ((), len)
    modules, _ = arguments.checked_preload([Name.ONE, Name.TWO])
    assert (modules, {type(module) for module in modules}) == (("json", "json.tool"), {str}), (
        "a template, which has no module of the user's yet, has to know their class"
    )
    for value, kind, told in (
        (["a", 5], TypeError, "preload takes names of modules and a callable, not 5"),
        (["a."], ValueError, "preload takes names of modules, such as 'numpy', and 'a.' is none"),
        ([".a"], ValueError, "preload takes names of modules, such as 'numpy', and '.a' is none"),
        ("", ValueError, "preload takes names of modules, such as 'numpy', and '' is none"),
        ([len, abs], ValueError, "preload takes at most one callable, not [<built-in function len>, <built-in"),
        (5, TypeError, "preload must be the name of a module, a callable, or an iterable of these, not 5"),
    ):
        with pytest.raises(kind, match=f"^{re.escape(told)}"):
            arguments.checked_preload(value)


def test_an_iterable_is_not_asked_for_its_length():
    class Lies:
        def __iter__(self):
            return iter([1, 2])

        def __len__(self):
            raise AssertionError

    assert arguments.checked_initializer(print, Lies()) == (print, (1, 2))


def test_an_initializer_is_a_callable_with_an_iterable_of_arguments_or_none():
    assert arguments.checked_initializer(None, None) is None
    for call, given, told in (
        (5, (), "initializer must be a callable, not 5"),
        (print, None, "initargs must be an iterable of arguments, not None"),
        (None, 5, "initargs must be an iterable of arguments, not 5"),
    ):
        with pytest.raises(TypeError, match=f"^{told}$"):
            arguments.checked_initializer(call, given)


def test_a_start_has_each_of_its_parts():
    start = arguments.checked_start("spawn", len, "ab", "json")
    assert start == {"way": "exec", "preload": ("json",), "preload_call": None, "initializer": (len, ("a", "b"))}
    assert arguments.checked_start(None, None, (), print) == {
        "way": "any", "preload": (), "preload_call": print, "initializer": None
    }  # fmt: skip


# ---- equality -----------------------------------------------------------------------------------------------------


def test_values_are_the_same_if_they_are_equal_and_what_cannot_be_compared_is_not():
    class Odd:
        def __eq__(self, other):
            raise LookupError

        __hash__ = None

    odd = Odd()
    assert arguments.is_same(odd, odd)
    assert not arguments.is_same(odd, Odd())
    assert arguments.is_same(1, 1.0)
    assert arguments.is_same((1,), (1,))
    assert arguments.is_same(1, 2) is False


# ---- signatures ---------------------------------------------------------------------------------------------------


class Chosen(TypedDict, total=False):
    timeout: float | None
    retries: int


@pytest.fixture
def function():
    """Give a function that takes options, and has no signature of its own yet."""

    def takes(first, second=2, /, *, third: int = 3, **options) -> str:
        return f"{first}{second}{third}{options}"

    return takes


def test_a_signature_lists_each_option_in_the_place_of_all_with_its_type_and_default(function):
    arguments.list_options(function, Chosen, Policy)
    signature = inspect.signature(function)
    assert list(signature.parameters) == ["first", "second", "third", "timeout", "retries"]
    retries = signature.parameters["retries"]
    assert (retries.kind, retries.annotation, retries.default) == (retries.KEYWORD_ONLY, int, 0)
    third, second = signature.parameters["third"], signature.parameters["second"]
    assert (third.default, third.annotation, second.default) == (3, int, 2)
    assert second.kind is second.POSITIONAL_ONLY
    assert signature.return_annotation is str
    assert signature.parameters["timeout"].annotation == (float | None)
    assert function.__signature__ == signature


def test_without_a_class_of_defaults_an_option_stays_as_it_is(function):
    arguments.list_options(function, Chosen)
    parameters = inspect.signature(function).parameters
    assert {parameters[name].default for name in ("timeout", "retries")} == {arguments.UNCHANGED}
    assert repr(arguments.UNCHANGED) == "<unchanged>"
    assert "retries: int = <unchanged>" in str(inspect.signature(function))


def test_a_signature_that_is_not_computed_yet_behaves_as_one(function):
    looks = {
        "class": lambda it: isinstance(it, inspect.Signature),
        "str": lambda it: str(it).startswith("(first, second=2, /, *, third: int = 3, timeout: "),
        "repr": lambda it: repr(it).startswith("<Signature (first, second=2, /, *, third"),
        "attribute": lambda it: next(iter(it.parameters)) == "first",
        "eq": lambda it: it == inspect.signature(function) and it != 5,
        "hash": lambda it: hash(it) == hash(inspect.signature(function)),
        "bind": lambda it: it.bind(1, timeout=5).arguments == {"first": 1, "timeout": 5},
    }
    for look in looks.values():
        arguments.list_options(function, Chosen, Policy)
        lazy = function.__signature__
        assert look(lazy)
        assert function.__signature__ is not lazy, "it was computed once"
        computed = function.__signature__
        assert look(lazy), "who has kept it has the same"
        assert function.__signature__ is computed
        assert look(function.__signature__)


def test_executors_list_their_options():
    made = inspect.signature(PidfdPoolExecutor)
    assert set(PoolOptions.__annotations__) < set(made.parameters)
    assert "options" not in made.parameters
    assert list(made.parameters)[:5] == ["max_workers", "mp_context", "initializer", "initargs", "preload"]
    assert made.parameters["retries"].default == Policy(1).retries
    for refine in (PidfdPoolExecutor.options, Options.options):
        parameters = inspect.signature(refine).parameters
        assert list(parameters) == ["self", *TaskOptions.__annotations__]
        assert {parameters[name].default for name in TaskOptions.__annotations__} == {arguments.UNCHANGED}


def test_who_makes_an_executor_does_not_wait_for_what_signatures_and_counting_need():
    ran = run_python(
        """
        import sys
        import pidfdpool
        pidfdpool.PidfdPoolExecutor(2).options(timeout=5)
        print(*(name for name in ("inspect", "pidfdpool.process.cpus", "asyncio") if name in sys.modules))
        """
    )
    assert (ran.stdout, ran.stderr) == ("\n", "")
