"""A call that has the context variables of whoever submitted it, and leaves none behind."""

from __future__ import annotations

import pickle
import re
import sys
from contextvars import ContextVar

import pytest

from pidfdpool.serialization.placeholder import Placeholder
from pidfdpool.worker.task_context import InContext

COLOUR: ContextVar[str] = ContextVar("COLOUR", default="none")
SIZE: ContextVar[int] = ContextVar("SIZE", default=0)
NO_VARIABLE = 5


class Holder:
    inner: ContextVar[str] = ContextVar("inner", default="none")


def look(*arguments, **keywords):
    found = COLOUR.get(), SIZE.get(), Holder.inner.get()
    COLOUR.set("changed by the call")
    return found, arguments, keywords


def test_the_call_has_the_values_and_its_arguments_and_nothing_of_it_stays():
    call = InContext(look, ((__name__, "COLOUR", "red"), (__name__, "Holder.inner", "deep")))
    for _ in range(2):
        assert call(1, two=2) == (("red", 0, "deep"), (1,), {"two": 2})
        assert (COLOUR.get(), Holder.inner.get()) == ("none", "none")


def test_variables_that_were_not_sent_are_as_they_are_here():
    before = SIZE.set(3)
    try:
        assert InContext(look, ((__name__, "COLOUR", "red"),))()[0] == ("red", 3, "none")
    finally:
        SIZE.reset(before)


def test_it_travels_with_its_function_and_values():
    call = pickle.loads(pickle.dumps(InContext(look, ((__name__, "COLOUR", "red"),))))
    assert (type(call), call.func, call.values) == (InContext, look, ((__name__, "COLOUR", "red"),))


def test_a_module_that_is_not_loaded_yet_is(tmp_path, monkeypatch):
    (tmp_path / "with_a_variable.py").write_text("from contextvars import ContextVar; V = ContextVar('V')")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        call = InContext(lambda: sys.modules["with_a_variable"].V.get(), (("with_a_variable", "V", 7),))
        assert call() == 7
    finally:
        sys.modules.pop("with_a_variable", None)


def test_a_module_that_is_loaded_is_not_looked_for(monkeypatch):
    module = type(sys)("nowhere_to_be_found")
    module.V = SIZE
    monkeypatch.setitem(sys.modules, "nowhere_to_be_found", module)
    assert InContext(SIZE.get, (("nowhere_to_be_found", "V", 8),))() == 8


@pytest.mark.parametrize(
    ("module", "path", "message"),
    [
        ("no_such_module", "V", r"no context variable no_such_module\.V: No module named 'no_such_module'"),
        (__name__, "MISSING", rf"no context variable {__name__}\.MISSING: .*has no attribute 'MISSING'"),
        (__name__, "Holder.outer", r"no context variable .*\.Holder\.outer: .*has no attribute 'outer'"),
        (__name__, "NO_VARIABLE", rf"in this worker {__name__}\.NO_VARIABLE is no context variable but int"),
    ],
)
def test_a_variable_that_is_not_there_is_told_by_its_name_and_nothing_is_called(module, path, message):
    made = []
    with pytest.raises(LookupError, match=message) as caught:
        InContext(lambda: made.append(1), ((module, path, 1),))()
    assert made == []
    assert type(caught.value) is LookupError


def test_a_variable_of_the_script_that_could_not_be_sent_is_told_with_the_reason(monkeypatch):
    module = type(sys)("a_script")
    module.V = Placeholder("the script has no file")
    monkeypatch.setitem(sys.modules, "a_script", module)
    told = "this worker has no context variable a_script.V: <not available here: the script has no file>"
    with pytest.raises(LookupError, match=f"^{re.escape(told)}$"):
        InContext(int, (("a_script", "V", 1),))()
