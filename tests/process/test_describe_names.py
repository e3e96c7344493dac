"""Texts and names in messages are instances of str itself, whatever kind of string or callable they come from."""

from __future__ import annotations

import functools
import sys
from types import SimpleNamespace

import pytest

from pidfdpool.process import describe


class Text(str):
    """A string that shows something else."""

    __slots__ = ()

    def __str__(self):
        return "something else"

    def __format__(self, _how):
        raise AssertionError("it was asked")


class Odd:
    def __str__(self):
        return Text("its text")

    def __repr__(self):
        return Text("its repr")


def function():
    pass


def is_plain(text, expected):
    return type(text) is str and text == expected


def test_the_characters_of_any_string_become_one_of_strs_own():
    assert is_plain(describe.plain(Text("characters")), "characters")
    same = "characters"
    assert describe.plain(same) is same


def test_texts_and_reprs_are_strs_own():
    assert is_plain(describe.text_of(Odd()), "its text")
    assert is_plain(describe.repr_of(Odd()), "its repr")
    assert is_plain(describe.error_text(LookupError(Odd())), "LookupError: its text")


def test_the_name_of_a_type_is_not_asked_of_its_metaclass():
    class Meta(type):
        @property
        def __name__(cls):
            raise AssertionError("it was asked")

    assert is_plain(describe.type_name(Meta("Made", (), {})()), "Made")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"__qualname__": "inner", "__module__": "module"}, "module.inner"),
        ({"__qualname__": "inner", "__module__": None}, "inner"),
        ({"__qualname__": "inner", "__module__": ""}, "inner"),
        ({"__qualname__": "", "__module__": "module"}, "module.SimpleNamespace"),
        ({"__qualname__": 7, "__module__": "module"}, "module.SimpleNamespace"),
        ({"__qualname__": Text("inner"), "__module__": Text("module")}, "module.inner"),
    ],
)
def test_the_name_of_a_callable_is_made_of_what_it_has(names, expected):
    assert is_plain(describe.name_of(SimpleNamespace(**names)), expected)


def test_of_a_partial_the_function_is_named_and_of_a_function_its_own_name_whatever_it_bears():
    assert describe.name_of(functools.partial(function, 1)) == f"{__name__}.function"

    def other():
        pass

    other.func = function
    assert describe.name_of(other).endswith("other")
    other.__module__ = None
    assert describe.name_of(other).endswith("other")
    assert not describe.name_of(other).startswith(".")
    other.__module__ = ""
    assert not describe.name_of(other).startswith(".")


def test_names_that_are_strings_of_the_users_are_made_plain():
    def other():
        pass

    other.__qualname__ = Text("renamed")
    other.__module__ = Text("module")
    assert is_plain(describe.name_of(other), "module.renamed")


class Leaving:
    def __getattribute__(self, _name):
        raise SystemExit


def test_what_asks_to_exit_while_a_name_is_looked_up_goes_on_in_a_host_and_else_does_not(monkeypatch):
    """Other processes than hosts do not load the module that knows."""
    with pytest.raises(SystemExit):
        describe.name_of(Leaving())
    monkeypatch.delitem(sys.modules, "pidfdpool.process.interruptible", raising=False)
    assert describe.name_of(Leaving()) == "Leaving"


@pytest.mark.parametrize("function", [describe.text_of, describe.repr_of])
def test_a_process_without_handlers_describes_whatever_is_raised(monkeypatch, function):
    class Leaves:
        def __str__(self):
            raise SystemExit

        __repr__ = __str__

    monkeypatch.delitem(sys.modules, "pidfdpool.process.interruptible", raising=False)
    assert function(Leaves()) in ("(it has no text)", "<Leaves, whose repr() fails>")
