"""What travels as a name, what as itself, and what is recorded of it: calls on their way, and their results back."""

from __future__ import annotations

import copyreg
import functools
import io
import pickle
import sys
import types

import cloudpickle
import pytest

from pidfdpool.serialization import by_value, definitions, namespaces, payload, picklers
from tests.serialization.far_side import dumped

since_315 = pytest.mark.skipif(sys.version_info < (3, 15), reason="new in 3.15")
since_314 = pytest.mark.skipif(sys.version_info < (3, 14), reason="new in 3.14")


@pytest.fixture
def run(main):
    """Return a function that runs statements as the script's, without this file's `from __future__`."""
    return lambda code: exec(compile(code, "<string>", "exec", dont_inherit=True), vars(main))


def pickled(value, defining=()):
    """Return the pickler that has pickled a value as part of a call."""
    pickler = by_value.CallPickler(io.BytesIO(), by_value.dispatch_table(), {}, {})
    pickler.defining = defining
    pickler.dump(value)
    return pickler


def keys(*names):
    return {("__main__", name) for name in names}


SCRIPT = """
number, text = 1, "text"
def used(): return number
def other(a, b=used): return text
class C:
    def method(self): return number
    @classmethod
    def of_class(cls): return cls
    @staticmethod
    def static(): return text
    class Inner:
        def deep(self): return 1
"""


def test_what_has_a_name_is_recorded_as_that_name(main, run):
    run(SCRIPT)
    for value in (main.used, main.C, main.C.Inner, main.C.method, main.C.static, main.C().method, main.C.of_class):
        pickler = pickled([value])
        name = "used" if value is main.used else "C"
        assert set(pickler.used) == pickler.in_pickle == keys(name)
        assert pickler.used["__main__", name] is vars(main)
        assert pickler.hints == {}
        assert not pickler.has_module_globals
        assert not pickler.looks_up_main


def test_a_definition_records_what_it_uses_and_not_itself(main, run):
    run(SCRIPT)
    pickler = pickled([main.other], [("__main__", "other")])
    assert set(pickler.used) == keys("text", "used")
    assert pickler.in_pickle == keys("used"), "the text is used by code alone"
    assert pickler.has_module_globals
    pickler = pickled([main.C], [("__main__", "C")])
    assert set(pickler.used) == keys("number", "text")
    assert pickler.in_pickle == set()


def test_code_without_a_name_records_what_it_uses(main, run):
    run("number = 1\ndef make():\n    return lambda: (number, missing)")
    pickler = pickled([main.make()])
    assert set(pickler.used) == keys("number"), "there is nothing else of these names"
    assert (pickler.in_pickle, pickler.has_module_globals, pickler.looks_up_main) == (set(), True, False)
    run("def make():\n    return lambda: globals()")
    assert pickled([main.make()]).looks_up_main
    pickler = pickled([(lambda: (globals(), pickle))])
    assert (pickler.used, pickler.has_module_globals, pickler.looks_up_main) == ({}, False, False)


def test_only_a_lookup_in_the_script_itself_needs_the_script(main, monkeypatch):
    module = types.ModuleType("not_the_script")
    monkeypatch.setitem(sys.modules, "not_the_script", module)
    exec("def make():\n    return lambda: globals()", vars(module))
    cloudpickle.register_pickle_by_value(module)
    try:
        pickler = pickled([module.make()])
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    assert pickler.has_module_globals
    assert not pickler.looks_up_main


@pytest.mark.parametrize("future", [False, True], ids=["", "as text"])
def test_names_of_annotations_are_hints(main, run, future):
    run(("from __future__ import annotations\n" if future else "") + "class A: pass\nclass B: pass\nclass D: pass\n"
        "def f(a: 'A[B]', c: 'Nothing'): return D\nclass K:\n    a: 'A'")  # fmt: skip
    pickler = pickled([main.f], [("__main__", "f")])
    assert set(pickler.hints) == keys("A", "B")
    assert set(pickler.used) == keys("D")
    assert set(pickled([main.K], [("__main__", "K")]).hints) == keys("A")


@since_314
def test_names_of_unevaluated_annotations_are_hints(main, run):
    run("class A: pass\nclass B: pass\ndef f(a: A, b: Missing = B): pass\nclass K:\n    a: A")
    pickler = pickled([main.f], [("__main__", "f")])
    assert set(pickler.hints) == keys("A")
    assert set(pickler.used) == keys("B")
    pickler = pickled([main.K], [("__main__", "K")])
    assert set(pickler.hints) == keys("A")
    assert set(pickler.used) == set()


# ---- methods -----------------------------------------------------------------------------------------------------


def test_methods_are_found_in_the_workers_class_unless_another_one_has_that_name(main, run, far):
    run(
        SCRIPT
        + """
def same(function): return function is C.method, function.__qualname__
def bound(method): return method(), type(method.__self__) is C
def instead(self=None): return "instead"
"""
    )
    assert far.ask(main.same, main.C.method) == (True, "C.method")
    assert far.ask(main.bound, main.C().method) == (1, True)
    assert far.ask(main.bound, types.MethodType(main.instead, main.C())) == ("instead", True)
    covered = main.C()
    method = covered.method
    covered.method = main.instead
    assert far.ask(main.bound, method) == (1, True)
    assert far.ask(main.C.of_class) is main.C
    taken_out = main.C.method
    main.C.method = main.instead
    assert far.ask(main.same, taken_out) == (False, "C.method")


@functools.lru_cache
def cached(_):
    return []


class HasCache:
    @functools.lru_cache(5)  # noqa: B019  it is never called
    def method(self):
        return []


def test_a_cache_of_a_module_that_workers_import_is_the_one_of_that_module(main, run, far):
    """Guards: each call brought a new one, which was empty."""
    caches = [cached, HasCache.method]
    main.caches = [cached]
    run("def look(): return caches[0]")
    for data in (payload.dumps_by_value([*caches, lambda: 0], None), by_value.dumps_self_contained(caches, None)):
        assert far.load(data)[:2] == caches
    assert far.call(dumped(main.look)) is cached
    assert payload.loads(far.pickled([*caches, lambda: 0]))[:2] == caches
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        made = far.load(payload.dumps_by_value([lambda: cached(1), cached], None))
        assert made[1] is not cached
        assert made[0]() is made[1](1)
        assert far.load(by_value.dumps_self_contained([cached], None))[0] is not cached
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_a_cache_without_a_name_travels_as_itself(main, run, far):
    run("import functools\nnumber = 5\ndef use(function): return function(), function.cache_info().maxsize")
    assert far.ask(main.use, functools.lru_cache(7)(lambda: 3)) == (3, 7)
    run("def make():\n    return functools.lru_cache(9)(lambda: number)\ncached = make()\n"
        "def look(): return cached(), cached.cache_info().maxsize")  # fmt: skip
    assert far.ask(main.use, main.make()) == (5, 9)
    assert far.ask(main.look) == (5, 9)
    back = far.ask(main.make)
    assert (back(), back.cache_info().maxsize) == (5, 9)
    made = far.load(by_value.dumps_self_contained(main.cached, None))
    assert (made(), made.cache_info().maxsize) == (5, 9)


# ---- objects that reduce to a name --------------------------------------------------------------------------------

NAMED = """
class Kind:
    def __init__(self, name): self.name, self.reduced = name, 0
    def __reduce__(self): return self.name
class Holder:
    ONLY = Kind("Holder.ONLY")
ONLY = Kind("ONLY")
def look(value, name):
    return value is (ONLY if name == "ONLY" else Holder.ONLY), value.name, type(value) is Kind
def give(): return ONLY, Holder.ONLY
"""


@pytest.mark.parametrize("name", ["ONLY", "Holder.ONLY"])
def test_an_object_that_reduces_to_its_name_is_the_one_of_that_name(main, run, far, name):
    run(NAMED)
    value = eval(name, vars(main))
    assert far.ask(main.look, value, name) == (True, name, True)
    assert far.ask(main.look, [value][0], name) == (True, name, True)
    pickler = pickled([value])
    assert set(pickler.used) == pickler.in_pickle == keys(name.partition(".")[0])
    for module in ("__main__", None):
        value.__module__ = module
        assert far.ask(main.look, value, name) == (True, name, True)


@since_315
def test_a_sentinel_of_a_class_is_the_one_of_that_class(main, run, far):
    run("class C:\n    GONE = sentinel('C.GONE')\ndef look(value=C.GONE): return value is C.GONE, value, repr(value)")
    assert far.ask(main.look) == far.ask(main.look, main.C.GONE) == (True, main.C.GONE, "C.GONE")


def test_an_object_of_the_worker_that_has_a_name_is_the_hosts_object_of_that_name(main, run, far):
    run(NAMED)
    assert far.call(dumped(main.give))[0] is far.names["ONLY"]
    assert far.ask(main.give) == (main.ONLY, main.Holder.ONLY)


@pytest.mark.parametrize("name", ["ONLY", "Holder.ONLY", "NOTHING", "Holder.NOTHING"])
def test_an_object_that_is_not_the_one_of_its_name_is_refused(main, run, name):
    run(NAMED)
    other = main.Kind(name)
    with pytest.raises((pickle.PicklingError, AttributeError), match="not the same|not found|no attribute|lookup"):
        dumped(main.look, other, name)


ONLY = None


class Own:
    """An object of a module that workers import; it counts how often it is asked."""

    asked = 0

    def __reduce__(self):
        Own.asked += 1
        return "ONLY"


ONLY = Own()


class Counted:
    asked = 0

    def __reduce_ex__(self, _protocol):
        Counted.asked += 1
        return Counted, ()


def test_objects_of_modules_that_workers_import_are_left_to_pickle(far):
    Own.asked = Counted.asked = 0
    data = payload.dumps_by_value([ONLY, Counted(), lambda: 0], None)
    made = far.load(data)
    assert made[0] is ONLY
    assert type(made[1]) is Counted
    assert (Own.asked, Counted.asked) == (1, 1)
    with far.here():
        data = by_value.dumps_result(made, None)
    assert payload.loads([data])[0] is ONLY
    assert (Own.asked, Counted.asked) == (2, 2)


# ---- results -------------------------------------------------------------------------------------------------------


def test_results_name_what_came_from_the_host_and_carry_what_did_not(main, run, far):
    run("import functools\n@functools.cache\ndef cached(): return 1\nclass C: pass\ndef f(): return 1\n"
        "def give(): return f, C, cached, C(), give\ndef make():\n    def g(): return 2\n    class Made: pass\n"
        "    return g, Made, functools.cache(lambda: 3)")  # fmt: skip
    f, kind, cached, made, give = far.ask(main.give)
    assert (f, kind, cached, type(made), give) == (main.f, main.C, main.cached, main.C, main.give)
    function, own, other = far.ask(main.make)
    assert (function(), other()) == (2, 3)
    assert (own.__name__, own.__module__) == ("Made", "__main__")


def test_results_name_what_the_script_has_made_in_the_worker(main, run, far):
    text = NAMED + "def f(): return 1\nclass C:\n    class In: pass\n    def method(self): return 1\n"
    run(text)
    far.run_script(text)
    names = far.names
    given = [names["f"], names["C"], names["C"].In, names["C"].method, names["ONLY"]]
    assert payload.loads(far.pickled(given)) == [main.f, main.C, main.C.In, main.C.method, main.ONLY]
    changed = names.pop("f")
    back = payload.loads(far.pickled([changed]))[0]
    assert back is not main.f
    assert back() == 1


# ---- reducers ------------------------------------------------------------------------------------------------------


class Thing:
    pass


def test_registered_reducers_are_seen_at_once_and_the_table_is_kept_in_between():
    before = by_value.dispatch_table()
    assert by_value.dispatch_table() is before
    copyreg.pickle(Thing, lambda _: (str, ("thing",)))
    try:
        table = by_value.dispatch_table()
        assert Thing in table
        assert by_value.dispatch_table() is table
        assert payload.loads([payload.dumps_by_value([Thing(), lambda: 0], None)])[0] == "thing"
    finally:
        del copyreg.dispatch_table[Thing]
    assert Thing not in by_value.dispatch_table()
    with picklers.ResourceReducers() as resources:
        assert by_value.dispatch_table(resources) is not by_value.dispatch_table()
        assert by_value.dispatch_table(resources).keys() >= resources.dispatch_table.keys()


def test_the_reducers_of_this_room_come_first_then_cloudpickles_then_registered_ones():
    ours, theirs = types.CodeType, types.MethodType
    assert ours not in copyreg.dispatch_table
    assert theirs not in copyreg.dispatch_table
    for kind in (ours, theirs):
        copyreg.pickle(kind, lambda _: "nothing")
    try:
        table = by_value.dispatch_table()
    finally:
        del copyreg.dispatch_table[ours], copyreg.dispatch_table[theirs]
    assert table[ours] is by_value.reducers.REDUCERS[ours]
    assert table[theirs] is cloudpickle.Pickler.dispatch_table[theirs]


# ---- without names -----------------------------------------------------------------------------------------------


def test_a_self_contained_payload_refers_to_no_name_of_a_script(main, run, far):
    run("number = [1]\ndef inner(): return number\ndef f(): return inner(), number\nclass C:\n    value = number")
    data = by_value.dumps_self_contained([main.f, main.C, main.C()], None)
    assert data[-1:] == pickle.STOP
    vars(main).clear()
    function, kind, made = far.load(data)
    assert function() == ([1], [1])
    assert function.__globals__ is not far.names
    assert (kind.value, type(made)) == ([1], kind)
    assert far.names.get("number") is None


def test_a_function_of_code_without_a_module_has_globals_of_its_own(far):
    names = {"__name__": "of no module", "count": [0], "unused": 1}
    exec("def add():\n    count[0] += 1\n    return count[0], sorted(globals())", names)
    data = dumped(names["add"])
    found = "__builtins__", "__name__", "count"
    for _ in range(2):
        number, there = far.call(data)
        assert number == 1
        assert set(there) <= {*found, "__file__", "__package__", "__path__"}
    assert names["count"] == [0]
    assert far.state("globals_by_module") == {}


def test_definitions_are_recorded_under_the_name_that_payloads_use(main, run):
    run("def f(): return 1")
    pickler = pickled([main.f])
    assert list(pickler.used) == [definitions.key_of(main.f, "__main__")]
    assert namespaces.globals_by_module.get("__main__") is None
