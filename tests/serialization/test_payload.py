"""What travels by reference, what by value, and what takes the place of what cannot travel."""

from __future__ import annotations

import pickle
import sys
import types
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pidfdpool import PayloadError
from pidfdpool.serialization import payload
from tests import calls

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@settings(deadline=None)
@given(plain)
def test_plain_data_comes_back_equal(value):
    assert payload.loads(payload.dumps(value)) == value


@settings(deadline=None)
@given(plain)
def test_data_that_mentions_main_comes_back_equal_too(value):
    assert payload.loads(payload.dumps(("__main__", value))) == ("__main__", value)


def test_importable_functions_travel_by_reference():
    assert payload.loads(payload.dumps(calls.double)) is calls.double
    assert b"cloudpickle" not in bytes(payload.dumps(calls.double)[0])


@pytest.fixture
def main(monkeypatch):
    module = types.ModuleType("__main__")
    exec("def f():\n    return TABLE\nclass C:\n    class Inner: pass\nTABLE = 'x' * 100_000", module.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


def test_functions_of_main_travel_by_value(main):
    data = payload.dumps(main.f)
    assert len(data[0]) > 100_000
    assert payload.loads(data) is not main.f


def test_functions_shared_with_a_forked_worker_travel_by_reference(main):
    shared = payload.SharedMain(main)
    for value in (main.f, main.C, main.C.Inner):
        data = payload.dumps(value, shared)
        assert len(data[0]) < 100
        assert payload.loads(data) is value
    assert payload.loads(payload.dumps(main.C(), shared)).__class__ is main.C


def test_functions_defined_after_the_fork_travel_by_value(main):
    shared = payload.SharedMain(main)
    exec("def f():\n    return 'new'\ndef g():\n    return f()", main.__dict__)
    assert payload.loads(payload.dumps(main.f, shared))() == "new"
    assert payload.loads(payload.dumps(main.g, shared))() == "new"


@pytest.mark.parametrize(
    "change",
    ["def f():\n    return 'new'\nkept = f", "kept = f\ndef f():\n    return 'new'", "kept = f; del f"],
    ids=["another function", "the former one", "one without a name"],
)
def test_what_a_forked_worker_does_not_find_by_its_name_travels_by_value(main, monkeypatch, change):
    shared, at_fork = payload.SharedMain(main), types.ModuleType("__main__")
    vars(at_fork).update(vars(main))
    exec(change, vars(main))
    data = payload.dumps(main.kept, shared)
    expected = main.kept()
    monkeypatch.setitem(sys.modules, "__main__", at_fork)  # as in the worker
    assert payload.loads(data)() == expected


def test_an_exception_carries_its_traceback():
    try:
        calls.raise_it(ValueError("x"))
    except ValueError as error:
        copy = payload.load_error(payload.dump_error(error))
    assert isinstance(copy, ValueError)
    assert "raise_it" in str(copy.__cause__)


def test_an_error_rebuilt_as_another_type_is_replaced():
    buffers = [payload.dumps(42)[0], b"a traceback"]
    error = payload.load_error(buffers)
    assert isinstance(error, PayloadError)
    assert "a traceback" in str(error)


def test_an_error_of_a_class_that_travels_by_value_leaves_the_hosts_class_as_it_is():
    """What the host has changed in its class since the submit is not undone, and its lists are not replaced."""

    class Own(Exception):
        tries = 0
        seen: list[int] = []  # noqa: RUF012

    seen = Own.seen
    buffers = payload.dump_error(Own("x"), payload.ReceivedMain())
    assert payload.CLASS_BY_VALUE in bytes(buffers[0])
    Own.tries = 1
    error = payload.load_error(buffers)
    assert type(error) is Own
    assert error.args == ("x",)
    assert Own.tries == 1
    assert Own.seen is seen


class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def test_an_exception_that_cannot_be_printed_is_sent():
    assert isinstance(payload.load_error(payload.dump_error(Silent())), Silent)


def test_errors_of_reduction_are_raised():
    with pytest.raises(TypeError, match="does not pickle"):
        payload.dumps(calls.Unpicklable())


@pytest.mark.parametrize("value", [lambda: 1, calls.Unpicklable()], ids=["it travels", "it does not"])
def test_the_script_of_a_spawned_process_is_a_module_of_its_own_for_cloudpickle_again(monkeypatch, value):
    """While a payload is made it is not. Other users of cloudpickle must not find it that way."""
    import cloudpickle

    monkeypatch.setitem(sys.modules, "__mp_main__", types.ModuleType("__mp_main__"))
    before = set(cloudpickle.list_registry_pickle_by_value())
    with suppress(TypeError):
        payload.dumps_by_value(value, None)
    assert set(cloudpickle.list_registry_pickle_by_value()) == before


# ---- two forms of one object -----------------------------------------------------------------------------------

ABSENT = {"no such module": b"cno_such_module\nname\n.", "no such name in it": b"cjson\nno_such_name\n."}


@pytest.mark.parametrize("by_reference", ABSENT.values(), ids=ABSENT)
def test_where_what_the_first_form_names_is_not_there_the_second_is_used(by_reference):
    data = pickle.dumps(payload.ReferenceOrValue(by_reference, pickle.dumps("by value")))
    assert payload.loads([data]) == payload.load_result([data]) == "by value"


def test_where_the_first_form_is_found_the_second_is_not_looked_at():
    data = pickle.dumps(payload.ReferenceOrValue(pickle.dumps(calls.double), b"no pickle"))
    assert payload.loads([data]) is payload.load_result([data]) is calls.double


def test_an_objects_own_error_is_not_taken_for_a_module_that_is_not_there():
    """It would be rebuilt twice, and the second error would hide the first."""
    by_reference = pickle.dumps(calls.Unloadable("ValueError"))
    data = pickle.dumps(payload.ReferenceOrValue(by_reference, pickle.dumps("by value")))
    for load in (payload.loads, payload.load_result):
        with pytest.raises(ValueError, match="does not unpickle"):
            load([data])
