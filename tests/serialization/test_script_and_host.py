"""A worker that has run the script again: what of it is the script's, and what is the host's."""

from __future__ import annotations

import functools

import pytest

from pidfdpool.serialization import namespaces, payload
from tests.serialization.far_side import dumped

DEFINED = """
import functools, threading
LOCK = threading.Lock()
def plain(a=1, *, k=1):
    return a, k, getattr(plain, "tag", None), plain.__name__
@functools.lru_cache(5)
def cached():
    return 1
class C:
    number, items = 1, [1]
    def method(self):
        return C.number
    @property
    def prop(self):
        return 1
    @classmethod
    def of_class(cls):
        return cls.number
    class Inner:
        number = 1
        def method(self):
            return 1
def use(function, *arguments):
    with LOCK:
        return function(*arguments)
def all_of_it():
    with LOCK:
        return plain(), cached(), C().method(), C().prop, C.of_class(), C.Inner.number, C.items
"""
NAMES = ("plain", "cached", "C", "use", "all_of_it", "LOCK")


def test_what_the_host_has_not_changed_is_the_scripts(main, script):
    far = script(DEFINED)
    before = {name: far.names[name] for name in NAMES}
    for _ in range(2):
        assert far.ask(main.all_of_it) == ((1, 1, None, "plain"), 1, 1, 1, 1, 1, [1])
        assert {name: far.names[name] for name in NAMES} == before
        assert all(far.names[name] is value for name, value in before.items())
    assert far.ask(main.use, type, main.C()) is main.C
    assert far.ask(main.use, type, main.C.Inner()) is main.C.Inner
    assert type(far.ask(main.use, main.C.Inner)) is main.C.Inner
    assert type(far.ask(main.use, main.C)) is main.C


CHANGES = {
    "a function": ("def plain():\n    return 'new'", 0, "new"),
    "a cache": ("@functools.lru_cache(5)\ndef cached():\n    return 2", 1, 2),
    "a cache by a function": ("def cached():\n    return 2", 1, 2),
    "a method": ("C.method = lambda self: 2", 2, 2),
    "a property": ("C.prop = property(lambda self: 2)", 3, 2),
    "a number in a class in it": ("C.Inner.number = 2", 5, 2),
    "a class in it by something else": ("C.Inner = type('Other', (), {'number': 2})", 5, 2),
    "a class's method": ("C.of_class = classmethod(lambda cls: 2)", 4, 2),
    "a class by another": (
        "class C:\n    items, prop, number = [2], 2, 2\n    class Inner:\n        number = 2\n"
        "    def method(self): return 2\n    @classmethod\n    def of_class(cls): return 2",
        slice(2, 7),
        (2, 2, 2, 2, [2]),
    ),
    "a number in a class": ("C.number = 2", slice(2, 5), (2, 1, 2)),
    "a list in a class": ("C.items.append(2)", 6, [1, 2]),
    "a tuple of plain data": (
        "C.items = ({'a': {1, 2}}, frozenset([3]), None, b'1', 1.5)",
        6,
        ({"a": {1, 2}}, frozenset([3]), None, b"1", 1.5),
    ),
    "a default": ("plain.__defaults__ = (2,)", 0, (2, 1, None, "plain")),
    "a default by keyword": ("plain.__kwdefaults__ = {'k': 2}", 0, (1, 2, None, "plain")),
    "an attribute of a function": ("plain.tag = 2", 0, (1, 1, 2, "plain")),
    "the same of another type": ("plain.__defaults__ = (True,)", 0, (True, 1, None, "plain")),
}


@pytest.mark.parametrize(("change", "at", "expected"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("when", ["before the first call", "after it"])
def test_what_the_host_has_changed_is_the_hosts(main, run, script, change, at, expected, when):
    far = script(DEFINED)
    if when == "after it":
        far.ask(main.all_of_it)
    run(change)
    for _ in range(2):
        found = far.ask(main.all_of_it)[at]
        assert (found, repr(found)) == (expected, repr(expected))


def test_a_class_in_a_class_and_its_methods_are_compared_like_the_class(main, run, script):
    """Guards: the worker's class was the script's, with the methods that the host had replaced."""
    text = """
    import threading
    LOCK = threading.Lock()
    class C:
        def method(self, a=1, *, k=1): return a, k
        class Inner:
            def method(self, a=1): return a
            class Deep:
                def method(self): return 1
    def look():
        with LOCK:
            return C().method(), C.Inner().method(), C.Inner.Deep().method()
    """
    changes = {
        "C.Inner.Deep.method = lambda self: 2": ((1, 1), 1, 2),
        "C.Inner.method = lambda self: 2": ((1, 1), 2, 1),
        "C.method.__defaults__ = (2,)": ((2, 1), 1, 1),
        "C.method.__kwdefaults__ = {'k': 2}": ((1, 2), 1, 1),
        "C.Inner.method.__defaults__ = (2,)": ((1, 1), 2, 1),
        "C.Inner.New = C.Inner": ((1, 1), 1, 1),
    }
    for change, expected in changes.items():
        far = script(text)
        run(change)
        assert far.ask(main.look) == expected, change
        far = script(text)
        assert far.ask(main.look) == ((1, 1), 1, 1)
        run(change)
        assert far.ask(main.look) == expected, change


def test_what_is_no_plain_data_stays_the_scripts(main, run, script):
    """What only one process can hold belongs to the objects that the script has made there."""
    far = script("""
    import threading
    LOCK = threading.Lock()
    class C:
        lock, both, itself = LOCK, [LOCK, 1], []
        itself.append(itself)
        name = "script"
    def look():
        with LOCK:
            return C.lock is LOCK, C.both[0] is LOCK, C.itself[0] is C.itself, C.name
    """)
    assert far.ask(main.look) == (True, True, True, "script")


def test_a_value_of_plain_data_is_the_scripts_while_the_host_has_the_same(main, script):
    far = script("""
    import threading
    LOCK, table, number = threading.Lock(), {"a": 1}, 5
    def look():
        with LOCK:
            return table, number
    """)
    table = far.names["table"]
    assert far.ask(main.look) == ({"a": 1}, 5)
    assert far.names["table"] is table
    table["own"] = 2
    assert far.ask(main.look) == ({"a": 1, "own": 2}, 5)
    main.table["b"] = 3
    assert far.ask(main.look) == ({"a": 1, "b": 3}, 5)
    assert far.names["table"] is not table


def test_a_value_that_the_script_made_in_its_own_way_is_replaced_by_the_hosts(main, script):
    far = script("import os, threading\nLOCK, where = threading.Lock(), __name__\ndef look():\n    with LOCK:\n"
                 "        return where")  # fmt: skip
    assert far.names["where"] == "__mp_main__"
    assert far.ask(main.look) == "__main__"


def test_a_value_that_only_the_host_can_pickle_is_the_hosts(main, script):
    far = script("import threading\nLOCK, handle = threading.Lock(), threading.Lock()\ndef look():\n    with LOCK:\n"
                 "        return handle")  # fmt: skip
    main.handle = 5
    assert far.ask(main.look) == 5


def test_what_a_worker_sets_after_the_script_has_run_stays(main, script):
    far = script("import threading\nLOCK, level = threading.Lock(), 1\ndef look():\n    with LOCK:\n"
                 "        return level")  # fmt: skip
    far.names["level"] = 5
    assert far.ask(main.look) == 5
    main.level = 6
    assert far.ask(main.look) == 6


def test_a_value_that_cannot_be_made_leaves_the_scripts_in_its_place(main, run, script):
    far = script("""
    import threading
    LOCK = threading.Lock()
    def refuse():
        raise ValueError("not here")
    class Value:
        pass
    value, other = Value(), Value()
    def look():
        with LOCK:
            return type(value).__name__, type(other).__name__
    """)
    made = far.names["value"]
    run("class Refusing:\n    def __reduce__(self):\n        return refuse, ()\nvalue = Refusing()")
    assert far.ask(main.look) == ("Value", "Value")
    assert far.names["value"] is made


def test_a_value_that_does_not_pickle_is_the_one_that_the_script_has_made(main, script):
    far = script("import threading\nLOCK, other = threading.Lock(), threading.Event()\ndef look():\n"
                 "    return LOCK, other")  # fmt: skip
    lock, other = far.names["LOCK"], far.names["other"]
    assert far.call(dumped(main.look)) == (lock, other)
    assert payload.needs_script([dumped(main.look)])


def test_before_the_script_has_run_such_a_value_is_a_placeholder(main, script):
    far = script("import threading\nLOCK = threading.Lock()\ndef look():\n    return LOCK", again=False)
    with pytest.raises(NameError, match="LOCK"):
        far.call(dumped(main.look)).acquire()


def test_values_that_share_an_object_are_all_the_scripts_or_all_the_hosts(main, run, script):
    text = """
    import threading
    LOCK, cache = threading.Lock(), []
    class C:
        held = cache
    def get(also=cache):
        return also
    def look():
        with LOCK:
            return C.held is cache is get(), cache
    """
    far = script(text)
    assert far.ask(main.look) == (True, [])
    main.cache.append(1)
    assert far.ask(main.look) == (True, [1])
    far = script(text)
    main.cache.append(2)
    assert far.ask(main.look) == (True, [2])


def test_what_a_class_inherits_unchanged_makes_it_no_other(main, script):
    far = script("""
    import dataclasses, threading
    LOCK = threading.Lock()
    class Base:
        def shared(self): return 1
    class C(Base):
        again = Base.shared
        shared = Base.shared
        def own(self): return 2
    def look():
        with LOCK:
            return C().again(), C().own(), C().shared()
    """)
    kind = far.names["C"]
    assert far.ask(main.look) == (1, 2, 1)
    assert far.names["C"] is kind


def test_a_change_of_the_hosts_class_reaches_the_scripts_class_and_the_classes_in_it(main, script):
    far = script(DEFINED)
    far.ask(main.all_of_it)
    kind, inner = far.names["C"], far.names["C"].Inner
    main.C.number = 2
    main.C.Inner.number = 3
    assert far.ask(main.all_of_it) == ((1, 1, None, "plain"), 1, 2, 1, 2, 3, [1])
    assert far.names["C"] is kind
    assert far.names["C"].Inner is inner
    made = far.call(dumped(main.use, main.C.Inner))
    assert type(made) is inner


def test_a_class_that_refuses_to_be_changed_is_left_as_it_is(main, run, script):
    far = script("""
    import threading
    LOCK = threading.Lock()
    class Meta(type):
        def __setattr__(cls, name, value):
            if name == "number" and LOCK: raise AttributeError(name)
            super().__setattr__(name, value)
    class C(metaclass=Meta):
        number, other = 1, 1
    def look():
        with LOCK:
            return C.number, C.other
    """)
    with far.here():
        received = type("C", (), {"number": 2, "other": 2, "__doc__": "new"})
        namespaces._copy_plain_changes(far.names["C"], received, substitute=True)
    assert far.ask(main.look) == (1, 2)
    assert far.names["C"].__doc__ is None


def test_running_the_script_forgets_what_came_for_it_and_for_no_other_module(far):
    with far.here():
        namespaces.module_globals("__main__")
        namespaces._last_received.update({("__main__", "a"): b"1", ("another", "a"): b"2"})
    far.run_script("b = 2")
    assert far.state("_last_received") == {("another", "a"): b"2"}
    assert far.state("_made_by_script")["__main__", "b"] == 2


@pytest.mark.parametrize(
    ("made", "received", "same"),
    [
        ("def f(): return 1", "def f(): return 1", True),
        ("def f(): return 1", "def f(): return 2", False),
        ("def f(): pass", "class f: pass", False),
        ("class f: pass", "def f(): pass", False),
        ("class f: pass", "f = 1", False),
        ("class f: pass", "class f(metaclass=__import__('abc').ABCMeta): pass", True),
        ("class f:\n    def a(self): return 1", "class f:\n    def a(self): return 1\n    b = 1", True),
        ("class f:\n    def a(self): return 1", "class f:\n    def b(self): return 1", False),
        ("class f:\n    def a(self): return 1", "class f:\n    a = property(lambda self: 2)", False),
        ("f = 1", "f = 1", False),
        ("f = 1", "f = True", False),
        ("f = property(lambda self: 1)", "f = property(lambda self: 1)", True),
        ("f = property(lambda self: 1)", "f = property(lambda self: 2)", False),
        ("f = staticmethod(lambda: 1)", "f = staticmethod(lambda: 1)", True),
        ("f = classmethod(lambda c: 1)", "f = classmethod(lambda c: 2)", False),
        ("f = functools.lru_cache(lambda: 1)", "f = functools.lru_cache(lambda: 1)", True),
        ("f = functools.lru_cache(lambda: 1)", "f = functools.lru_cache(lambda: 2)", False),
        ("f = functools.cached_property(lambda s: 1)", "f = functools.cached_property(lambda s: 2)", False),
        ("f = functools.partial(lambda: 1)", "f = functools.partial(lambda: 1)", True),
    ],
)  # fmt: skip
def test_two_definitions_are_the_same_if_they_are_made_by_the_same_lines(made, received, same):
    found = []
    for text in (made, received):
        names: dict = {"functools": functools}
        exec(text, names)
        found.append(names["f"])
    assert namespaces._is_same_definition(*found) is same
