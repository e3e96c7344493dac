"""Which context variables travel, where they are found, and the context of callbacks. Without a pool."""

from __future__ import annotations

import contextvars
import sys
import types

import pytest

from pidfdpool import CallNotSendable
from pidfdpool.executor import context_vars
from pidfdpool.executor.context_vars import ContextFuture, in_context
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.worker.chunk import call_each
from pidfdpool.worker.task_context import InContext
from tests.executor.context_variables import REQUEST, USER, Holder, see

MODULE = "tests.executor.context_variables"


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch):
    """Begin without the places of variables, and in a context of the test's own."""
    monkeypatch.setattr(context_vars, "_places", {})


def in_new_context(function, **values):
    """Call it where these variables are set, and no others."""
    context = contextvars.Context()
    known = {"REQUEST": REQUEST, "USER": USER, "INNER": Holder.INNER}
    for name, value in values.items():
        context.run(known[name].set, value)
    return context.run(function)


@pytest.fixture
def module(monkeypatch):
    """Give a new module of this process."""
    made = types.ModuleType("made_by_a_test")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


# ---- the values ---------------------------------------------------------------------------------------------------


def test_of_those_that_were_named_the_ones_that_are_set_travel_in_their_order():
    chosen = (USER, REQUEST, Holder.INNER)
    made = in_new_context(lambda: in_context(see, chosen), REQUEST="r-1", USER="me")
    assert type(made) is InContext
    assert made.func is see
    assert made.values == ((MODULE, "USER", "me"), (MODULE, "REQUEST", "r-1"))
    made = in_new_context(lambda: in_context(see, chosen), INNER=None)
    assert made.values == ((MODULE, "Holder.INNER", None),), "also with a value that is none"
    assert in_new_context(lambda: in_context(see, ()), REQUEST="r-1").values == ()
    assert in_new_context(lambda: in_context(see, None), REQUEST="r-1").values == ()


def test_of_all_that_are_set_those_travel_that_a_module_has_and_none_of_pythons_own(module, monkeypatch):
    nowhere, own, deep = (contextvars.ContextVar(name) for name in ("nowhere", "own", "deep"))
    monkeypatch.setattr(sys.modules["json.decoder"], "OWN", own, raising=False)
    module.DEEP = deep
    context = contextvars.Context()
    for variable in (nowhere, own, deep, REQUEST):
        context.run(variable.set, variable.name)
    made = context.run(in_context, see, True)
    assert sorted(made.values) == sorted(
        [("made_by_a_test", "DEEP", "deep"), (MODULE, "REQUEST", "a request")]
    )  # fmt: skip


def test_a_variable_that_is_set_and_that_no_module_has_is_named():
    nowhere = contextvars.ContextVar("nowhere")
    context = contextvars.Context()
    assert context.run(in_context, see, (nowhere,)).values == (), "it is not set"
    context.run(nowhere.set, 1)
    with pytest.raises(CallNotSendable) as raised:
        context.run(in_context, see, (nowhere,))
    assert str(raised.value) == (
        "the context variable 'nowhere' cannot be sent to a worker: no module has it as a global, or as an attribute "
        "of a class, by which the worker could find it. Make it a global of a module."
    )


def test_what_has_its_values_already_stays_as_it_is():
    made = InContext(see, ())
    chunk = Chunk(call_each, "see", 0, [(1,)], func=made)
    for function in (made, chunk):
        assert in_new_context(lambda function=function: in_context(function, (REQUEST,)), REQUEST="r-1") is function


# ---- where a variable is found ------------------------------------------------------------------------------------


def place_of(variable):
    return context_vars._place_of(variable)


def test_a_variable_is_found_as_a_global_or_as_an_attribute_of_a_class():
    assert place_of(REQUEST) == (MODULE, "REQUEST"), "whatever it is called itself"
    assert place_of(Holder.INNER) == (MODULE, "Holder.INNER")
    assert place_of(contextvars.ContextVar("REQUEST")) is None, "another one of the same name"


def test_a_script_is_where_a_variable_is_found_only_if_no_other_module_has_it(module, monkeypatch):
    variable = contextvars.ContextVar("variable")
    for name in ("__main__", "__mp_main__"):
        script = types.ModuleType(name)
        script.HERE = variable
        monkeypatch.setitem(sys.modules, name, script)
    assert place_of(variable)[0] in ("__main__", "__mp_main__")
    context_vars._places.clear()
    module.THERE = variable
    assert place_of(variable) == ("made_by_a_test", "THERE")


def test_a_class_that_a_module_has_only_imported_is_not_where_it_is_found(module):
    """The worker would not find it there, if its module is not the one."""
    variable = contextvars.ContextVar("variable")
    module.Imported = type("Imported", (), {"HELD": variable, "__module__": "another"})
    assert place_of(variable) is None
    context_vars._places.clear()
    module.Own = type("Own", (), {"HELD": variable, "__module__": "made_by_a_test"})
    assert place_of(variable) == ("made_by_a_test", "Own.HELD")


class Meta(type):
    @property
    def __module__(cls):
        raise AssertionError("code of somebody's is run by a look")


def test_no_code_of_others_is_run_by_the_search(module, monkeypatch):
    class Odd:
        @property
        def __dict__(self):
            return ["no dictionary"]

    module.Strange = Meta("Strange", (), {})
    monkeypatch.setitem(sys.modules, "odd_made_by_a_test", Odd())
    assert place_of(contextvars.ContextVar("nowhere")) is None
    monkeypatch.setitem(sys.modules, "none_made_by_a_test", None)
    assert place_of(REQUEST) == (MODULE, "REQUEST")


def test_a_place_is_looked_for_once_and_what_was_not_found_again_when_modules_were_loaded(monkeypatch):
    searched, search = [], context_vars._search
    monkeypatch.setattr(context_vars, "_search", lambda variable: searched.append(variable) or search(variable))
    variable = contextvars.ContextVar("variable")
    for _ in range(3):
        assert place_of(REQUEST) == (MODULE, "REQUEST")
        assert place_of(variable) is None
    assert searched == [REQUEST, variable]
    late = types.ModuleType("late_made_by_a_test")
    late.LATE = variable
    monkeypatch.setitem(sys.modules, late.__name__, late)
    for _ in range(3):
        assert place_of(variable) == (late.__name__, "LATE")
    assert searched == [REQUEST, variable, variable]


# ---- callbacks ----------------------------------------------------------------------------------------------------


def test_each_callback_runs_in_a_copy_of_the_context_of_the_submit():
    future = in_new_context(ContextFuture.here, REQUEST="of the submit")
    assert isinstance(future, ContextFuture)
    seen = []

    def note(it):
        seen.append((it, REQUEST.get()))
        REQUEST.set("by a callback")

    before = REQUEST.get()
    for _ in range(2):
        future.add_done_callback(note)
    in_new_context(lambda: future._resolve(1, None), REQUEST="of who resolves")
    future.add_done_callback(note)
    assert seen == [(future, "of the submit")] * 3
    assert REQUEST.get() == before
