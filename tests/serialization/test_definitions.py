"""Names and ids of a script's functions and classes, as host and worker find them. All in this one process."""

from __future__ import annotations

import gc
import pickle
import sys
import types
import weakref

import cloudpickle
import pytest

from pidfdpool.serialization import definitions, kept_definitions, namespaces

SCRIPT = """
import functools
def f(): return 1
class C:
    def method(self): return 1
    @classmethod
    def of_class(cls): return 2
    @staticmethod
    def static(): return 3
    class Inner:
        def deep(self): return 4
@functools.lru_cache
def cached(): return 5
alias = f
"""


@pytest.fixture
def module(monkeypatch):
    """Provide a module of this process that travels by value."""
    module = types.ModuleType("travels_by_value")
    monkeypatch.setitem(sys.modules, "travels_by_value", module)
    exec(SCRIPT, vars(module))
    cloudpickle.register_pickle_by_value(module)
    yield module
    cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture
def received(monkeypatch):
    """Have this process be a worker; return the globals of `__main__` that it has received."""
    names = {"__name__": "__main__"}
    exec(SCRIPT, names)
    monkeypatch.setattr(namespaces, "globals_by_module", {"__main__": names})
    return names


@pytest.fixture
def script(main, run):
    run(SCRIPT)
    return main


def test_what_has_its_own_name_in_a_module_that_travels_by_value_is_found_there(module, script):
    for names in (vars(module), vars(script)):
        home = names["f"].__module__
        for name in ("f", "C", "cached"):
            assert definitions.defining_globals(names[name], home) is names
        for other in (names["C"].method, names["C"].Inner, lambda: 1):
            assert definitions.defining_globals(other, home) is None
        assert definitions.defining_globals(names["f"], None) is None
    assert definitions.defining_globals(pickle.dumps, "_pickle") is None
    assert definitions.defining_globals(weakref.ref, "weakref") is None
    module.f = lambda: 2
    assert definitions.defining_globals(module.alias, "travels_by_value") is None, "the name means another one now"


def test_a_worker_finds_what_it_has_received(received):
    assert definitions.defining_globals(received["f"], "__main__") is received
    assert definitions.module_of_globals(received) == "__main__"
    assert definitions.globals_of("__main__") is not None
    assert definitions.module_of_globals({"__name__": "__main__"}) is None
    assert definitions.module_of_globals({"__name__": 5}) is None
    assert definitions.module_of_globals(vars(pickle)) is None


def test_the_class_that_defines_a_method_is_found_by_its_own_name_only(module, script):
    for names in (vars(module), vars(script)):
        kind = names["C"]
        home = kind.__module__
        for value in (kind.method, kind.of_class.__func__, kind.static, kind.Inner, kind.Inner.deep):
            assert definitions.defining_class(value, home) is kind
        assert definitions.defining_class(names["f"], home) is None
        names["D"] = kind
        taken_out = kind.method
        kind.method = lambda self: 2
        assert definitions.defining_class(taken_out, home) is None
        del names["C"]
        assert definitions.defining_class(kind.static, home) is None


def test_a_class_of_a_module_that_workers_import_defines_nothing_that_travels():
    assert definitions.defining_class(pickle._Pickler.dump, "pickle") is None


def test_a_script_that_is_run_again_is_still_the_script(script, monkeypatch):
    assert definitions.canonical_name("__mp_main__") == "__mp_main__"
    monkeypatch.setitem(sys.modules, "__mp_main__", types.ModuleType("__mp_main__"))
    assert definitions.canonical_name("__mp_main__") == "__mp_main__", "another module of that name"
    monkeypatch.setitem(sys.modules, "__mp_main__", script)
    assert definitions.canonical_name("__mp_main__") == "__main__"
    assert definitions.canonical_name("json") == "json"
    assert definitions.key_of(script.C.Inner, "__mp_main__") == ("__main__", "C.Inner")


def test_an_id_is_that_of_one_definition_as_long_as_it_lives(script):
    numbers = [definitions.id_of(value) for value in (script.f, script.C, script.cached)]
    assert len(set(numbers)) == 3
    assert [definitions.id_of(value) for value in (script.f, script.C, script.cached)] == numbers
    assert [definitions.definition_by_id(number) for number in numbers] == [script.f, script.C, script.cached]
    gone = weakref.ref(script.f)
    del script.f, script.alias
    gc.collect()
    assert gone() is None
    with pytest.raises(pickle.UnpicklingError, match="deleted or redefined"):
        definitions.definition_by_id(numbers[0])


def test_a_size_is_noted_of_definitions_that_were_sent_only(script, monkeypatch):
    noted = []
    monkeypatch.setattr(kept_definitions, "record", lambda *it: noted.append(it))
    definitions.record_size(("__main__", "f"), script.f, 10)
    assert noted == [], "it has no id"
    numbers = {name: definitions.id_of(vars(script)[name]) for name in ("f", "C", "cached")}
    for name in ("f", "C", "cached"):
        definitions.record_size(("__main__", name), vars(script)[name], 10)
    definitions.record_size(("__main__", "number"), 5, 10)
    assert noted == [
        (numbers[name], ("__main__", name), vars(script)[name], 10, vars(script)) for name in ("f", "C", "cached")
    ]


def test_what_a_worker_has_from_running_the_script_is_named_and_found_by_its_dotted_name(received, script):
    kind = received["C"]
    for value in (received["f"], kind, kind.method, kind.Inner, kind.Inner.deep):
        assert definitions.name_in_script(value) is None, "it has not run the script"
        value.__module__ = "__mp_main__"
        name = definitions.name_in_script(value)
        assert name == value.__qualname__
        found = definitions.definition_by_name(name)
        assert found.__qualname__ == name
        assert found is not value
    taken_out, kind.method = kind.method, None
    assert definitions.name_in_script(taken_out) is None
    assert definitions.definition_by_name("C.Inner") is script.C.Inner
