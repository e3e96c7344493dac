"""Which names a call carries, in which order and with which values, and what is said of those that it cannot."""

from __future__ import annotations

import pickle
import sys
import threading
import types

import cloudpickle
import pytest

from pidfdpool.serialization import namespaces, payload, picklers, script_calls
from tests.serialization.far_side import dumped


def entries(data):
    """Return what a payload carries besides the call."""
    begin, mark = namespaces.TRAILER.unpack(data[-namespaces.TRAILER.size :])
    assert mark in (namespaces.WITH_GLOBALS, namespaces.NEEDS_SCRIPT)
    assert data[begin - 1 : begin] == pickle.STOP
    return pickle.loads(data[begin:])


def sent(data):
    return [tuple(name for _, name in keys) for keys, _, _ in entries(data)]


def test_a_call_carries_all_names_that_it_can_reach_and_no_others(main, run):
    run("""
    import json
    unused, number, text, table = 1, 2, "text", {"a": 1}
    class Kind:
        def method(self): return text
    def inner(): return Kind, json
    def outer(): return inner(), number, missing
    def other(): return unused
    """)
    assert sorted(sent(dumped(main.outer))) == [
        (each,) for each in ("Kind", "inner", "json", "number", "outer", "text")
    ]
    assert sent(dumped(len, [main.inner])) == sent(dumped(main.inner))
    assert payload.dumps_by_value((len, ([1],), {}), None)[-1:] == pickle.STOP


def test_values_come_before_what_is_rebuilt_with_them(main, run):
    run("""
    class Kind: pass
    def make(): return Kind
    class Made:
        def __reduce__(self): return make, ()
    value = Made()
    def look(): return value
    """)
    order = [name for names in sent(dumped(main.look)) for name in names]
    assert order.index("Kind") < order.index("make") < order.index("value") < order.index("look")


SHARED = """
import datetime
class Kind: pass
a = []
one, two = {"a": a}, [a]
b = Kind()
three, four = (b,), {"b": b}
c, d = datetime.date(2000, 1, 1), (1, "text")
five, six = [c, d, len, Kind], [c, d, len, Kind]
e = [1]
both = [two, four]
def look(): return one, two
def look_at_objects(): return three, four
def look_at_values(): return five, six
def look_at_all(): return one, two, three, four, both
def look_at_itself(): return e
"""


def test_values_that_share_what_can_be_changed_travel_together(main, run):
    run(SHARED)
    together = {"look": {"one", "two"}, "look_at_objects": {"three", "four"}, "look_at_values": set(),
                "look_at_all": {"one", "two", "three", "four", "both"}, "look_at_itself": set()}  # fmt: skip
    for function, expected in together.items():
        groups = [names for names in sent(dumped(getattr(main, function))) if len(names) > 1]
        assert set().union(*groups) == expected, function
        assert len(groups) == (1 if expected else 0), function
    for keys, data, alone in entries(dumped(main.look)):
        assert len(alone) == len(keys) == len(pickle.loads(data) if keys[0][1] == "one" else keys)
        assert all(each[-1:] == pickle.STOP for each in alone)


# ---- what is said of values that cannot travel ---------------------------------------------------------------------


def why(far, function, name="LOCK"):
    value = far.call(dumped(function))
    with pytest.raises(NameError, match=name) as caught:
        value.acquire()
    return str(caught.value)


@pytest.fixture
def with_lock(main, run, far):
    """Have functions use a lock; return a function that tells what the worker is told of it."""
    main.LOCK = threading.Lock()
    run("def get(): return LOCK\ndef use(): return get()")
    return lambda: why(far, main.use)


def test_a_prompt_is_told_that_there_is_no_script(with_lock):
    text = with_lock()
    assert text.startswith("the script's global 'LOCK' (_thread.lock), used by 'get', cannot be sent to a worker: ")
    assert "A worker cannot make it by running the script again either: there is no script" in text


def test_a_script_without_a_guard_is_told_that(with_lock, main, tmp_path):
    (tmp_path / "a.py").write_text("LOCK = 1\n")
    main.__file__ = str(tmp_path / "a.py")
    assert "either: " + str(tmp_path / "a.py") + " has no `if __name__" in with_lock()


def test_a_script_that_defines_it_behind_its_guard_is_told_that(with_lock, main, tmp_path):
    (tmp_path / "a.py").write_text('if __name__ == "__main__":\n    LOCK = 1\n')
    main.__file__ = str(tmp_path / "a.py")
    assert "either: the script does not define LOCK outside of its guard. " in with_lock()


def test_a_script_that_defines_it_is_run_again_and_told_nothing(main, run, tmp_path):
    (tmp_path / "a.py").write_text('LOCK = 1\nif __name__ == "__main__":\n    pass\n')
    main.__file__ = str(tmp_path / "a.py")
    main.LOCK = threading.Lock()
    run("def get(): return LOCK")
    data = dumped(main.get)
    assert payload.needs_script([data])
    assert b"either" not in data


def test_of_another_module_nothing_is_said_of_the_script(far, monkeypatch):
    module = types.ModuleType("by_value_with_a_lock")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    module.LOCK = threading.Lock()
    exec("def use(): return LOCK", vars(module))
    cloudpickle.register_pickle_by_value(module)
    try:
        text = why(far, module.use)
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    assert text.startswith("the global 'LOCK' of module 'by_value_with_a_lock' (_thread.lock), used by 'use', cannot")
    assert "either" not in text


def test_a_name_that_only_annotations_mention_is_left_out_without_a_word(main, run, far):
    main.LOCK = threading.Lock()
    run("def f(a: 'LOCK', b: 'number'): return globals().get('LOCK')\nnumber = 5")
    data = dumped(main.f, 1, 2)
    assert sorted(sent(data)) == [("f",), ("number",)]
    assert far.call(data) is None


# ---- modules -------------------------------------------------------------------------------------------------------


def test_a_module_travels_as_its_name(main, run, far, monkeypatch):
    run("import json, os.path\ndef look(): return json, os.path")
    assert far.call(dumped(main.look)) == (main.json, main.os.path)
    gone = types.ModuleType("of_no_file")
    gone.value = 5
    main.gone = gone
    run("def look_at_gone(): return gone.value")
    assert far.call(dumped(main.look_at_gone)) == 5, "its contents travel"
    assert far.call(dumped(main.look)) == (main.json, main.os.path)


@pytest.mark.parametrize("second_name", [True, False])
def test_to_send_a_module_no_module_is_registered(main, run, far, monkeypatch, second_name):
    """Guards: the script was registered to travel by value, so all modules took the long way, and it took none."""
    monkeypatch.delitem(sys.modules, "__mp_main__", raising=False)
    if second_name:  # as multiprocessing makes it
        monkeypatch.setitem(sys.modules, "__mp_main__", main)
    registered = []
    monkeypatch.setattr(cloudpickle, "register_pickle_by_value", registered.append)
    run("import json, __main__ as me\ndef look(): return json, me")
    data = dumped(main.look)
    assert registered == []
    assert b"excessively deep recursion" not in data
    json, me = far.call(data)
    assert json is main.json
    assert vars(me) is far.names


def test_the_script_of_a_spawned_process_is_registered_for_the_time(main, run, far, monkeypatch):
    monkeypatch.setitem(sys.modules, "__mp_main__", main)
    main.__name__ = "__mp_main__"
    run("def inner(): return 5\ndef look(): return inner()")
    assert far.call(dumped(main.look)) == 5
    assert "__mp_main__" not in cloudpickle.list_registry_pickle_by_value()


def test_the_script_as_a_module_needs_the_script(main, run, tmp_path, monkeypatch):
    look = "def look(): return other.number"
    run(f"import __main__ as me\nother = me\n{look}")
    assert not payload.needs_script([dumped(main.look)])
    run(look)
    (tmp_path / "a.py").write_text('if __name__ == "__main__":\n    pass\n')
    main.__file__ = str(tmp_path / "a.py")
    assert payload.needs_script([dumped(main.look)])
    module = types.ModuleType("registered_by_value")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    cloudpickle.register_pickle_by_value(module)
    try:
        run(look)
        assert payload.needs_script([dumped(main.look)]), "whatever else travels by value"
    finally:
        cloudpickle.unregister_pickle_by_value(module)


@pytest.mark.parametrize(
    ("code", "looks_up"),
    [
        ("def inner(): return globals()", True),
        ("class inner:\n    def method(self): return eval('number')", True),
        ("def inner(*, default=[1]): return exec('number')", True),
        ("def make():\n    return lambda: globals()\ninner = make()", True),
        ("inner = [(lambda: globals())]", True),
        ("def inner(): return 5", False),
        ("class inner:\n    def method(self): return 5", False),
    ],
)
def test_what_looks_names_up_anywhere_needs_the_script_each_time(main, run, tmp_path, code, looks_up):
    use = "def look(): return inner\ndef look_too(): return inner, look"
    run(f"{code}\n{use}")
    assert not payload.needs_script([dumped(main.look)]), "it cannot be run again"
    (tmp_path / "a.py").write_text('if __name__ == "__main__":\n    pass\n')
    main.__file__ = str(tmp_path / "a.py")
    run(f"{code}\n{use}")
    for function in (main.look, main.look, main.look_too, main.look):
        assert payload.needs_script([dumped(function)]) is looks_up


# ---- the same again ------------------------------------------------------------------------------------------------


def test_a_payload_that_is_made_again_says_again_whether_it_needs_the_script(main, run, tmp_path):
    (tmp_path / "a.py").write_text('import random\nrandom.seed(1)\nif __name__ == "__main__":\n    pass\n')
    main.__file__ = str(tmp_path / "a.py")
    run("number = 1\ndef look(): return number")
    first = dumped(main.look)
    assert payload.needs_script([first])
    assert dumped(main.look) == first
    main.number = 2
    assert dumped(main.look) != first
    main.number = 1
    assert dumped(main.look) == first


def test_where_multiprocessing_is_not_loaded_registered_reducers_count_all_the_same(main, run, far, monkeypatch):
    import copyreg

    monkeypatch.delitem(sys.modules, "multiprocessing.reduction")
    monkeypatch.setattr(picklers, "_tables", None)
    run("class Thing: pass\nthing = Thing()\ndef look(): return thing")
    assert type(far.ask(main.look)) is main.Thing
    monkeypatch.setitem(copyreg.dispatch_table, main.Thing, lambda _: (str, ("reduced",)))
    assert far.call(dumped(main.look)) == "reduced"


def test_the_bytes_of_a_value_are_those_that_the_host_sends(main, run):
    run("table, number = {'a': [1]}, 5\nclass Kind: pass\nthing = Kind()\ndef look(): return table, number, thing")
    for keys, _, alone in entries(dumped(main.look)):
        for (module, name), data in zip(keys, alone, strict=True):
            assert script_calls.pickle_value((module, name), getattr(main, name)) == data
