"""A script's function is pickled once, and anew when anything has changed that it is made of or can reach.

The worker's call has to give what the host's own call gives, whatever was changed since the last one, in whichever
order. In most of these tests both sides are this one process.
"""

from __future__ import annotations

import itertools
import sys

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.serialization import function_cache, namespaces, payload

SCRIPT = """
VALUE, ITEMS, SHARED = 1, [1], {}
def tail(n=1): return n, VALUE
def helper(n=1): return n, ITEMS, tail()
def other(x=1): return "other", x, helper()
def look(x=1):
    "as it was"
    try: added = late
    except NameError: added = None
    return x, helper(), look.__doc__, vars(look), look.__kwdefaults__, look.__name__, added, alias()
alias = tail
"""
CHANGES = {
    "a number": "VALUE = 2",
    "a number of another type": "VALUE = True",
    "a list in place": "ITEMS.append(2) if type(ITEMS) is list else ITEMS.update(more=1)",
    "another list": "ITEMS = [0]",
    "a default": "look.__defaults__ = (5,)",
    "a default that may change": "look.__defaults__ = (ITEMS,)",
    "a default of another type": "look.__defaults__ = (1.0,)",
    "keyword defaults": "look.__kwdefaults__ = {'k': 1}",
    "an attribute": "look.tag = 1",
    "the text": "look.__doc__ = 'another'",
    "the code": "look.__code__ = (lambda x=1: ('short', x, VALUE)).__code__",
    "a helper": "def helper(n=2): return 'new', n, VALUE",
    "a helper's code": "helper.__code__ = (lambda n=1: ('coded', n, VALUE)).__code__",
    "a helper's default": "helper.__defaults__ = (7,)",
    "what a helper calls": "def tail(n=3): return n, ITEMS",
    "a default of what a helper calls": "tail.__defaults__ = (8,)",
    "a name that was not there": "late = 1",
    "a name that is a function from now on": "def late(): return VALUE",
    "what another name means": "alias = lambda: 'aliased'",
    "the name of another function": "alias = other",
    "what two names share": "ITEMS = SHARED = {}; SHARED['both'] = 1",
}


@pytest.fixture
def worker(monkeypatch):
    """Have this process be a worker that has received nothing; return what it does with a payload."""
    for name in ("globals_by_module", "_last_received", "_pending", "_loading", "_held", "_made_by_script"):
        monkeypatch.setattr(namespaces, name, {})

    def call(data):
        function, arguments, keywords = payload.loads([data])
        return function(*arguments, **keywords)

    return call


def dumped(function):
    return payload.dumps_by_value((function, (), {}), None)


def shown(value):
    """Return text that tells True, 1 and 1.0 apart, and functions by their names only."""
    return repr(value) if not callable(value) else value.__name__


def outcome(call, *arguments):
    result = call(*arguments)
    return [shown(part) for part in result]


@pytest.mark.parametrize("first", CHANGES.values(), ids=CHANGES)
def test_after_each_change_a_worker_gives_what_the_host_would_give(main, run, worker, first):
    for second in CHANGES.values():
        vars(main).clear()
        vars(main)["__name__"] = "__main__"
        namespaces.globals_by_module.clear()
        namespaces._last_received.clear()
        run(SCRIPT)
        for change in ("pass", first, second, second):
            run(change)
            for _ in range(2):
                assert outcome(worker, dumped(main.look)) == outcome(main.look), (first, second, change)


def test_as_long_as_nothing_changes_nothing_is_pickled_anew(main, run, monkeypatch):
    run("VALUE = 1\ndef tail(): return VALUE\ndef look(n=1): return tail()")
    data = dumped(main.look)
    known = function_cache.bundle_of(main.look)
    assert known is not None
    monkeypatch.setattr(function_cache, "remember_bundle", None)
    monkeypatch.setattr(function_cache, "remember", None)
    for _ in range(3):
        assert dumped(main.look) == data
        assert function_cache.bundle_of(main.look) is known


@pytest.mark.parametrize(
    "code",
    [
        "def look(x=[]): return x",
        "def look(*, k=1): return k",
        "def look(): return 1\nlook.tag = []",
        "def make(n):\n    def look(): return n\n    return look\nlook = make(1)\nlook.__qualname__ = 'look'",
    ],
)
def test_what_may_change_unnoticed_is_pickled_each_time(main, run, code):
    run(code)
    dumped(main.look)
    assert function_cache.get(main.look) is None


def test_a_worker_that_has_received_nothing_gets_all_that_a_remembered_function_uses(main, run, worker):
    run("""
    class Kind: pass
    def look(x=1):
        return [kind.__name__ for kind in look.__annotations__.values()], tail()
    def tail(): return VALUE
    VALUE = 5
    look.__annotations__ = {"x": Kind}
    """)
    for _ in range(3):
        data = dumped(main.look)
        assert function_cache.get(main.look) is not None
        for received in (namespaces.globals_by_module, namespaces._last_received, namespaces._held):
            received.clear()  # another worker
        assert worker(data) == (["Kind"], 5)


def test_what_is_remembered_of_a_function_keeps_nothing_alive(main, run):
    import gc
    import weakref

    run("def tail(): return look\ndef look(): return tail()")
    dumped(main.look)
    gone = [weakref.ref(main.look), weakref.ref(main.tail)]
    data = weakref.ref(function_cache.get(main.tail))
    vars(main).clear()
    from pidfdpool.serialization import kept_definitions

    kept_definitions._small.clear()
    gc.collect()
    assert [each() for each in gone] == [None, None]
    assert data() is None


def test_submodules_that_were_loaded_meanwhile_are_sent_along(main, run, worker, monkeypatch, tmp_path):
    package = tmp_path / "package_of_a_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "part.py").write_text("value = 5")
    monkeypatch.syspath_prepend(str(tmp_path))
    run("import package_of_a_test\ndef look():\n    return package_of_a_test.part.value")
    dumped(main.look)
    run("import package_of_a_test.part")
    data = dumped(main.look)
    for name in [name for name in sys.modules if name.startswith("package_of_a_test")]:
        monkeypatch.delitem(sys.modules, name)
    assert worker(data) == 5
    for name in [name for name in sys.modules if name.startswith("package_of_a_test")]:
        del sys.modules[name]


def test_of_several_functions_each_is_pickled_anew_only_if_it_has_changed(main, run, worker):
    """In whichever order they are called."""
    for order in itertools.permutations(range(3)):
        run("def f0(): return 0\ndef f1(): return f0(), 1\ndef f2(): return f0(), f1(), 2")
        functions = [main.f0, main.f1, main.f2]
        for number in order:
            assert worker(dumped(functions[number])) == functions[number]()
        run("def f0(): return 'new'")
        functions[0] = main.f0
        for number in order:
            assert worker(dumped(functions[number])) == functions[number]()


# ---- what holds a definition -----------------------------------------------------------------------------------


@pytest.fixture
def pool():
    with PidfdPoolExecutor(1) as pool:
        yield pool


CELL = """
class Kind:
    def get(self): return {n}
def tail(): return {n}
alias, table, kinds = tail, {{"tail": tail}}, [Kind]
model = Kind()
nested = {{"a": [model, {{"b": model}}]}}
class Holder:
    call, own = staticmethod(tail), model
holder = Holder()
holder.model = model
def default(held=model, call=tail): return held.get(), call()
import functools
part, cached = functools.partial(tail), functools.lru_cache(tail)
"""
LOOK = """
def look():
    held = nested["a"][0], nested["a"][1]["b"], holder.model, Holder.own, model, kinds[0]()
    return [*{each.get() for each in held}, alias(), table["tail"](), Holder.call(), *default(), part(), cached()]
def same():
    objects = nested["a"][0] is nested["a"][1]["b"] is holder.model is model
    return objects, type(model) is Kind is kinds[0], alias is tail
"""


def test_what_holds_a_function_or_an_object_holds_the_new_one_when_its_cell_is_run_again(main, run, pool):
    """Guards: an object was sent as the name of its class and its state, which are the same with another class."""
    run(LOOK)
    for n in range(1, 4):
        run(CELL.format(n=n))
        assert pool.submit(main.look).result(20) == main.look() == [n] * 8
        assert pool.submit(main.same).result(20) == main.same() == (True, True, True)
        assert pool.submit(main.model.get).result(20) == n


def test_what_holds_a_definition_may_come_later_than_the_new_one(main, run, pool):
    run("""
    def first(): return tail()
    def second(): return table["tail"](), model.get()
    def third(): return nested["a"][0].get()
    """)
    for n in range(1, 4):
        run(CELL.format(n=n))
        for function, expected in ((main.first, n), (main.second, (n, n)), (main.third, n), (main.second, (n, n))):
            if n != 2 or function is not main.third:
                assert pool.submit(function).result(20) == expected


def test_definitions_that_hold_each_other_are_made_again_once(main, run, pool):
    cell = """
    class A:
        number, seen = {n}, []
    class B:
        other, seen = A, []
    A.other, A.shared = B, [B]
    def tail(kind=A): return kind
    holder = [A, B, tail]
    """
    run("""
    def look():
        for each in (A.seen, B.seen, holder):
            each.append(1)
        return len(A.seen), len(B.seen), len(holder), A.other.other.number, tail().number, holder[0] is A
    """)
    for n in (1, 2):
        run(cell.format(n=n))
        for count in range(1, 4):
            assert pool.submit(main.look).result(20) == (count, count, 3 + count, n, n, True)


def test_of_what_a_worker_has_changed_nothing_is_lost_as_long_as_no_definition_is_replaced(main, run, pool):
    run("""
    class Model:
        scale = 1
    def tail(): return 1
    model, unrelated = Model(), {"tail": tail}
    def look():
        model.seen = getattr(model, "seen", 0) + 1
        unrelated["seen"] = unrelated.get("seen", 0) + 1
        return model.seen, unrelated["seen"], Model.scale
    """)
    assert pool.submit(main.look).result(20) == (1, 1, 1)
    main.Model.scale = 2  # the class itself is the same as before
    assert pool.submit(main.look).result(20) == (2, 2, 2)
    run("class Model: scale = 3\nmodel = Model()")
    assert pool.submit(main.look).result(20) == (1, 3, 3)


def test_a_holder_that_cannot_be_rebuilt_again_is_told_where_it_is_used_and_costs_no_other(main, run, pool):
    run("""
    import os
    here = os.getpid()
    def refuse(kind, ok):
        if os.getpid() != here and not ok: raise LookupError("not here")
        return kind()
    class Kind:
        value, ok = 1, True
    class Holder:
        def __init__(self, kind): self.kind = kind
        def __reduce__(self): return refuse, (self.kind, self.kind.ok)
    first, other = Holder(Kind), [Kind]
    def look(): return first.value
    def rest(): return other[0].value
    def both(really=False): return first.value if really else rest()
    """)
    assert pool.submit(main.look).result(20) == 1
    run("class Kind:\n    value, ok = 2, False\nfirst, other = Holder(Kind), [Kind]")
    assert pool.submit(main.both).result(20) == pool.submit(main.rest).result(20) == 2
    assert isinstance(pool.submit(main.look).exception(20), NameError)
    run("class Kind:\n    value, ok = 3, True\nfirst, other = Holder(Kind), [Kind]")
    assert pool.submit(main.look).result(20) == 3
