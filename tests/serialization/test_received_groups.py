"""Names whose values refer to each other or share objects, as a worker gets and keeps them."""

from __future__ import annotations

import pickle

import pytest

from pidfdpool.serialization import namespaces
from pidfdpool.serialization.placeholder import Placeholder
from tests.serialization.far_side import dumped

CYCLES = {
    "classes": """
        class A: pass
        class B(A): pass
        A.other, B.other = B, A
        def look(): return A.other is B, B.other is A, issubclass(B, A), A.other.other is A
        """,
    "functions": """
        def f(): return 1
        def g(): return 2
        f.other, g.other = g, f
        def look(): return f.other is g, g.other is f, f.other.other is f, (f(), g()) == (1, 2)
        """,
    "a function and its class": """
        class C:
            def method(self, also=None): return 3
        def f(kind=C): return kind
        C.function = staticmethod(f)
        def look(): return f() is C, C.function is f, C().method() == 3, C.function() is C
        """,
    "a class and itself": """
        class C:
            pass
        C.me, C.all = C, [C]
        def look(): return C.me is C, C.all[0] is C, C().me is C, type(C()) is C
        """,
    "a cache and a class": """
        import functools
        class C: pass
        @functools.lru_cache
        def cached(*, kind=C): return kind
        C.method = staticmethod(cached)
        def look(): return cached() is C, C.method() is C, cached().method() is C, callable(C.method.cache_info)
        """,
    "objects by name": """
        class Kind:
            number = 1
            def __init__(self, name): self.name = name
            def __reduce__(self): return self.name
        first, second = Kind("first"), Kind("second")
        first.other, second.other = second, first
        def look():
            return first.other is second, second.other is first, type(first) is Kind, first.number == Kind.number
        """,
}  # fmt: skip


@pytest.mark.parametrize("code", CYCLES.values(), ids=CYCLES)
def test_values_that_refer_to_each_other_do_so_in_the_worker(main, run, far, code):
    run(code)
    for _ in range(2):
        assert far.call(dumped(main.look)) == (True, True, True, True)
    run(code.replace("number = 1", "number = 2"))
    assert far.call(dumped(main.look)) == (True, True, True, True), "all were defined anew"
    assert far.state("_pending") == far.state("_loading") == {}
    assert far.state("_looking_up") == []


def test_one_of_them_is_replaced_and_the_others_are_made_anew_once(main, run, far):
    run("""
    made = []
    class Kind:
        number = 1
        def __init__(self, name): self.name = name
        def __reduce__(self): return self.name
        def __setstate__(self, state):
            made.append(state["name"])
            vars(self).update(state)
    first, second = Kind("first"), Kind("second")
    first.other, second.other = second, first
    def look():
        return first.other is second, second.other is first, type(first) is Kind, first.number, list(made)
    """)
    *same, made = far.call(dumped(main.look))
    assert same == [True, True, True, 1]
    assert sorted(made) == ["first", "second"]
    made = far.names["made"]
    made.clear()
    run("""
    class Kind:
        number = 2
        def __init__(self, name): self.name = name
        def __reduce__(self): return self.name
        def __setstate__(self, state):
            made.append(state["name"])
            vars(self).update(state)
    first, second = Kind("first"), Kind("second")
    first.other, second.other = second, first
    """)
    *same, made = far.call(dumped(main.look))
    assert same == [True, True, True, 2]
    assert sorted(made) == ["first", "second"]


def test_values_that_share_an_object_come_together_and_leave_nothing_behind(main, run, far):
    run("""
    shared = []
    first, second, third = [shared], {"a": shared}, (shared,)
    def look(): return first[0] is second["a"] is third[0] is shared
    """)
    assert far.ask(main.look) is True
    assert far.state("_pending") == far.state("_loading") == {}
    main.shared.append(1)
    assert far.ask(main.look) is True
    assert far.names["first"] == [[1]]


def test_a_definition_that_cannot_be_made_leaves_no_older_and_no_half_made_one(main, run, far):
    run("""
    def refuse(): raise ValueError("not here")
    class Refusing:
        def __reduce__(self): return refuse, ()
    def work(): return "first"
    class Kind:
        number = 1
    def look(): return work, Kind
    """)
    first = main.work
    work, kind = far.call(dumped(main.look))
    assert (work(), kind.number) == ("first", 1)
    run("def work(default=Refusing()): return 'second'\nclass Kind:\n    number, bad = 2, Refusing()")
    for _ in range(2):
        assert [type(each) for each in far.call(dumped(main.look))] == [Placeholder] * 2
    main.work = first
    run("class Kind:\n    number = 3")
    work, kind = far.call(dumped(main.look))
    assert (work(), kind.number) == ("first", 3)


@pytest.mark.parametrize("value", [0, 1, [1], "\x01", b"\x00"])
def test_a_pickle_without_globals_is_just_loaded(value):
    assert namespaces.load(pickle.dumps(value, 5)) == value
    assert namespaces.load(pickle.dumps(value, 5), loads=lambda data, buffers: (value, bytes(buffers))) == (
        value,
        b"",
    )


def test_globals_know_their_builtins(main, run, far):
    run("def look(): return __builtins__")
    assert far.call(dumped(main.look)) is far.names["__builtins__"]


def test_of_a_long_value_little_is_remembered(main, run, far):
    run("table, word = list(range(100_000)), 'short'\ndef look(): return len(table), word")
    assert far.ask(main.look) == (100_000, "short")
    remembered = far.state("_last_received")
    assert len(remembered) == 3
    assert len(pickle.dumps(list(remembered.values()))) < 3_000


# ---- where the script was run again --------------------------------------------------------------------------------


def test_a_change_of_one_of_several_that_share_an_object_takes_the_others_with_it(main, script):
    far = script("""
    import threading
    LOCK, shared = threading.Lock(), [1]
    first, second = {"a": shared}, [shared]
    def look():
        with LOCK:
            return first["a"] is second[0] is shared, first
    """)
    main.first["own"] = 5
    assert far.ask(main.look) == (True, {"a": [1], "own": 5})


def test_what_shares_an_object_with_one_that_came_before_is_still_rebuilt(main, script):
    far = script("""
    import threading
    LOCK, shared = threading.Lock(), [1]
    def get(also=shared): return also
    def look_at_shared():
        with LOCK:
            return shared
    def look_at_both():
        with LOCK:
            return shared, get()
    """)
    main.shared.append(2)
    assert far.ask(main.look_at_shared) == [1, 2]
    assert far.ask(main.look_at_both) == ([1, 2], [1, 2])


NOTED = """
import threading
LOCK, made = threading.Lock(), []
def note():
    made.append(1)
    return 5
class Noted:
    def __reduce__(self): return note, ()
class C:
    held = Noted()
def use():
    with LOCK:
        return type(C.held).__name__, len(made)
"""


def test_a_definition_that_is_the_scripts_is_compared_once(main, script):
    far = script(NOTED)
    assert far.ask(main.use) == ("Noted", 1)
    assert far.ask(main.use) == ("Noted", 1)


def test_objects_in_containers_of_the_scripts_class_stay_its_own(main, script):
    far = script("""
    import threading
    LOCK = threading.Lock()
    class Own:
        count = 0
    class C:
        by_name, by_key, listed, deep = {"a": Own()}, {Own(): 1}, [1, Own()], {"a": [({"b": Own()},)]}
        plain, itself = {"a": [1, {2}], 3: (4, None)}, []
        itself.append(itself)
    def look():
        with LOCK:
            return C.plain
    """)
    kind = far.names["C"]
    before = {name: getattr(kind, name) for name in ("by_name", "by_key", "listed", "deep", "plain", "itself")}
    assert far.ask(main.look) == main.C.plain
    assert all(getattr(kind, name) is value for name, value in before.items())
    main.C.by_name["b"] = 1
    main.C.listed.append(2)
    main.C.plain["b"] = 1
    assert far.ask(main.look) == main.C.plain
    assert far.names["C"] is kind
