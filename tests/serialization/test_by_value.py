"""What functions of `__main__` find in a worker as the values of their globals, from one task to the next."""

from __future__ import annotations

import gc
import pickle
import threading

import pytest

from pidfdpool import GlobalNotAvailable, PidfdPoolExecutor, PoolBroken
from pidfdpool.serialization import namespaces, payload


@pytest.fixture
def pool():
    with PidfdPoolExecutor(1) as pool:
        yield pool


def ask(pool, function, *arguments):
    return pool.submit(function, *arguments).result(timeout=20)


# ---- what a worker does to its globals stays -------------------------------------------------------------------


def test_globals_set_by_an_initializer_are_visible_to_tasks(main, run):
    run("def init(x):\n    global L\n    L = x\ndef work(n):\n    return L + n")
    with PidfdPoolExecutor(1, initializer=main.init, initargs=(5,)) as pool:
        assert ask(pool, main.work, 1) == 6
        assert list(pool.map(main.work, range(3))) == [5, 6, 7]


def test_a_global_that_only_the_initializer_sets_overrides_the_script(main, run):
    run("L = None\ndef init(x):\n    globals()['L'] = x\ndef work(n):\n    return L + n")
    with PidfdPoolExecutor(1, initializer=main.init, initargs=(5,)) as pool:
        assert ask(pool, main.work, 1) == 6


def test_globals_set_by_a_preload_are_inherited(main, run):
    run("L = None\ndef load():\n    global L\n    L = 5\ndef work(n):\n    return L + n")
    with PidfdPoolExecutor(1, preload=main.load) as pool:
        assert ask(pool, main.work, 1) == 6


def test_a_global_keeps_the_workers_value_until_the_host_changes_it(main, run, pool):
    run("calls = 0\ndef count():\n    global calls\n    calls += 1\n    return calls")
    assert [ask(pool, main.count) for _ in range(3)] == [1, 2, 3]
    assert main.calls == 0
    main.calls = 10
    assert [ask(pool, main.count) for _ in range(2)] == [11, 12]
    main.calls = True  # equal to 1, but of another type
    assert ask(pool, main.count) == 2


def test_changing_one_global_leaves_the_others(main, run, pool):
    run("""
    limit, cache = 1, {}
    def work(key):
        return cache.setdefault(key, limit), limit
    """)
    assert ask(pool, main.work, "a") == (1, 1)
    main.limit = 2
    assert ask(pool, main.work, "a") == (1, 2)
    main.cache["b"] = 7  # the host's dictionary has changed, and never had "a"
    assert ask(pool, main.work, "b") == (7, 2)
    assert ask(pool, main.work, "a") == (2, 2)


def test_large_values_are_compared_too(main, run, pool):
    run("table = list(range(10_000))\ndef add(n):\n    table.append(n)\n    return len(table), table[0]")
    assert ask(pool, main.add, 1) == (10_001, 0)
    assert ask(pool, main.add, 1) == (10_002, 0)
    main.table[0] = 5
    assert ask(pool, main.add, 1) == (10_001, 5)


def test_each_task_sees_the_values_at_its_submit(main, run, pool):
    run("limit = 0\ndef look():\n    return limit")
    futures = []
    for main.limit in (10, 2, 2, 20):
        futures.append(pool.submit(main.look))
    main.limit = 100
    assert [future.result(20) for future in futures] == [10, 2, 2, 20]


def test_attributes_of_functions_and_classes_persist(main, run, pool):
    run("""
    def f(seen=[]):
        seen.append(None)
        f.calls = getattr(f, "calls", 0) + 1
        return len(seen), f.calls
    class C:
        one = None
        @classmethod
        def get(cls):
            if cls.one is None:
                cls.one = object()
            return id(cls.one)
    def get():
        return C.get()
    """)
    assert [ask(pool, main.f) for _ in range(3)] == [(1, 1), (2, 2), (3, 3)]
    assert ask(pool, main.C.get) == ask(pool, main.get) == ask(pool, main.C.get)


def test_methods_and_nested_classes_belong_to_the_workers_class(main, run, pool):
    run("""
    class C:
        calls = 0
        class Inner:
            calls = 0
            def count(self, seen=[]):
                seen.append(1)
                type(self).calls += 1
                return len(seen), type(self).calls, type(self) is C.Inner
        def count(self, seen=[]):
            seen.append(1)
            return len(seen), type(self).count is C.count
        @staticmethod
        def plain(seen=[]):
            seen.append(1)
            return len(seen)
        @classmethod
        def bound(cls, seen=[]):
            seen.append(1)
            return len(seen), cls is C
    """)
    for n in (1, 2, 3):
        assert ask(pool, main.C().count) == (n, True)
        assert ask(pool, main.C.plain) == n
        assert ask(pool, main.C.bound) == (n, True)
        assert ask(pool, main.C.Inner().count) == (n, n, True)
    run("""
    class D(C):
        def count(self):
            return "another"
        def above(self):
            return super().count
        def __private(self):
            return 1
        def private(self):
            return self.__private
    """)
    assert ask(pool, main.D().count) == "another"
    assert ask(pool, main.D().above()) == (4, False)
    assert ask(pool, main.D().private()) == 1
    assert ask(pool, main.D.bound) == (4, False)
    inner = main.C.Inner()
    assert type(ask(pool, type(inner))) is main.C.Inner


def test_an_lru_cache_persists_between_tasks(main, run, pool):
    run("""
    import functools, os
    made = []
    @functools.lru_cache(maxsize=7)
    def make(n):
        made.append(n)
        return n
    def parameters():
        return make.cache_parameters(), make.cache_info().hits, made
    """)
    assert [ask(pool, main.make, n) for n in (1, 1, 2, 1)] == [1, 1, 2, 1]
    assert ask(pool, main.parameters) == ({"maxsize": 7, "typed": False}, 2, [1, 2])


def test_closures_and_lambdas_share_the_modules_globals(main, run, pool):
    run("""
    calls = 0
    def make():
        inner = 0
        def count():
            global calls
            nonlocal inner
            inner += 1
            calls += 1
            return inner, calls
        return count
    bump = lambda: globals().__setitem__("calls", calls + 1) or calls
    counted = make()
    """)
    assert ask(pool, main.make()) == (1, 1)
    assert ask(pool, main.make()) == (1, 2)
    assert ask(pool, main.bump) == 3
    assert ask(pool, main.counted) == (1, 4)


def test_globals_of_exec_are_separate(main, run, pool):
    names = {"__name__": "__main__", "calls": 0}
    exec("def count():\n    global calls\n    calls += 1\n    return calls", names)
    run("calls = 5\ndef look():\n    return calls")
    assert [ask(pool, names["count"]) for _ in range(2)] == [1, 1]
    assert ask(pool, main.look) == 5


def test_several_threads_submit(main, run):
    run("limit = 0\ndef look(n):\n    return n, limit")
    with PidfdPoolExecutor(2) as pool:
        wrong = []

        def submit(n):
            wrong.extend(i for i in range(50) if ask(pool, main.look, (n, i)) != ((n, i), 0))

        threads = [threading.Thread(target=submit, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_a_pool_in_a_worker_sends_received_definitions(main, run, pool):
    run("""
    calls = 0
    class Kept:
        def __init__(self, n):
            self.n = n
    def count():
        global calls
        calls += 1
        return Kept(calls)
    def inside():
        from pidfdpool import PidfdPoolExecutor
        global calls
        calls = 10
        with PidfdPoolExecutor(1) as pool:
            made = [pool.submit(count).result(20) for _ in range(2)]
        assert type(made[0]) is Kept
        return [kept.n for kept in made], made[0], calls
    """)
    numbers, kept, calls = ask(pool, main.inside)
    assert (numbers, calls) == ([11, 12], 10)
    assert type(kept) is main.Kept


# ---- definitions -----------------------------------------------------------------------------------------------


def test_a_redefined_function_is_used(main, run, pool):
    run("""
    def answer():
        return 1
    def ask():
        return answer()
    class C:
        def get(self):
            return 1
    """)
    assert (ask(pool, main.ask), ask(pool, main.C().get)) == (1, 1)
    run("def answer():\n    return 2\nclass C:\n    def get(self):\n        return 2")
    assert (ask(pool, main.ask), ask(pool, main.answer), ask(pool, main.C().get)) == (2, 2, 2)
    main.C.get = lambda self: 3
    assert ask(pool, main.C().get) == 3


@pytest.mark.parametrize(
    "change",
    [
        "f.__defaults__ = (2,)",
        "f.__code__ = (lambda a=2: a).__code__; f.__defaults__ = (2,)",
        "f.__kwdefaults__ = None; f.__defaults__ = (2,)",
        "def f(*, a=2): return a",
    ],
)
def test_a_function_changed_in_place_is_sent_again(main, run, pool, change):
    run("def f(a=1):\n    return a")
    assert [ask(pool, main.f) for _ in range(2)] == [1, 1]
    run(change)
    assert [ask(pool, main.f) for _ in range(2)] == [2, 2]


def test_equal_defaults_of_different_types_are_distinguished(main, run, pool):
    run("def f(a=1):\n    return a\ndef g(*, a):\n    return a")
    assert [ask(pool, main.f) for _ in range(2)] == [1, 1]
    main.f.__defaults__ = (True,)
    assert ask(pool, main.f) is True
    assert [pool.submit(main.g, a=1).result(20) for _ in range(2)] == [1, 1]
    main.g.__kwdefaults__ = {"a": 2}
    assert ask(pool, main.g) == 2


def test_a_global_that_is_defined_later(main, run, pool):
    run("""
    def look():
        try:
            return later
        except NameError:
            return None
    """)
    assert [ask(pool, main.look) for _ in range(2)] == [None, None]
    main.later = 5
    assert ask(pool, main.look) == 5


def test_a_submodule_loaded_after_its_package(main, run, pool, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_package_of_a_test").mkdir()
    (tmp_path / "a_package_of_a_test" / "__init__.py").touch()
    (tmp_path / "a_package_of_a_test" / "part.py").write_text("value = 3\n")
    run("""
    import a_package_of_a_test as package
    def look():
        return package.part.value
    """)
    with PidfdPoolExecutor(1) as pool:
        assert isinstance(pool.submit(main.look).exception(20), AttributeError)
        run("import a_package_of_a_test.part")
        assert ask(pool, main.look) == 3


def test_functions_and_classes_that_refer_to_each_other(main, run, pool):
    run("""
    class Base:
        kinds = []
    class Left(Base):
        pass
    class Right(Left):
        left = Left
    Left.right = Right
    Base.kinds += [Left, Right]
    def even(n):
        return n == 0 or odd(n - 1)
    def odd(n):
        return n != 0 and even(n - 1)
    TABLE = {"even": even, "odd": odd, "left": Left}
    def call(name, n):
        return TABLE[name](n), TABLE["even"] is even, TABLE["left"] is Left
    def kinds(right):
        return [kind.__name__ for kind in Base.kinds], type(right) is Right, Left.right is Right, Right.left is Left
    """)
    assert ask(pool, main.call, "odd", 7) == (True, True, True)
    assert ask(pool, main.kinds, main.Right()) == (["Left", "Right"], True, True, True)
    with PidfdPoolExecutor(1) as other:
        assert ask(other, main.kinds, main.Right()) == (["Left", "Right"], True, True, True)
    with PidfdPoolExecutor(1) as other:
        assert ask(other, type, main.Base()) is main.Base


def test_names_that_share_an_object_share_it_in_the_worker(main, run, pool):
    run("""
    shared = []
    first, second, other = {"s": shared}, [shared], []
    class C:
        held = shared
    second.append(second)
    def add(n, also=shared):
        first["s"].append(n)
        other.append(n)
        return second[0] is first["s"] is C.held is also, second[1] is second, second[0], other
    def first_only():
        return len(first["s"])
    """)
    assert ask(pool, main.add, 1) == (True, True, [1], [1])
    assert ask(pool, main.add, 2) == (True, True, [1, 2], [1, 2])
    assert ask(pool, main.first_only) == 2
    main.shared.append(7)
    assert ask(pool, main.add, 3) == (True, True, [7, 3], [1, 2, 3])


def test_two_names_of_one_object(main, run, pool):
    run("""
    def f():
        return g is f, h is K
    class K:
        pass
    g, h = f, K
    """)
    assert ask(pool, main.g) == (True, True)


def test_classes_with_slots_and_members_with_attributes(main, run, pool):
    run("""
    import enum, typing
    class Row(typing.NamedTuple):
        x: int = 1
    class Longer(Row):
        __slots__ = ()
    class Slotted:
        __slots__ = ("a", "_b", "__c", "__weakref__")
        def __init__(self):
            self.a, self._b, self.__c = 1, 2, 3
        def sum(self):
            return self.a + self._b + self.__c
    class Narrow(Slotted):
        __slots__ = ()
    class Planet(enum.Enum):
        EARTH = (6, 2)
        def __init__(self, mass, radius):
            self.mass, self.radius = mass, radius
        @property
        def gravity(self):
            return self.mass / self.radius
    class Bits(enum.IntFlag):
        LOW, HIGH = 1, 2
    def same(value):
        return value, not hasattr(value, "__dict__")
    def local():
        class Local:
            __slots__ = ("a",)
        made = Local()
        made.a = 4
        return made
    """)
    for kind in (main.Slotted, main.Narrow):
        made, is_slotted = ask(pool, main.same, kind())
        assert type(made) is kind
        assert (made.sum(), is_slotted) == (6, True)
    assert ask(pool, main.Slotted().sum) == 6
    for row in (main.Row(2), main.Longer(3)):
        assert ask(pool, main.same, row)[0] == row
    assert ask(pool, main.local).a == 4
    assert ask(pool, main.same, main.Planet.EARTH)[0] is main.Planet.EARTH
    assert ask(pool, getattr, main.Planet.EARTH, "gravity") == 3
    assert ask(pool, main.same, main.Bits.LOW | main.Bits.HIGH)[0] == main.Bits(3)


# ---- results ---------------------------------------------------------------------------------------------------


def test_a_result_refers_to_the_hosts_definitions(main, run, pool):
    run("""
    import threading
    lock = None
    def use():
        return lock
    class C:
        def use(self):
            return lock
    class Failed(Exception):
        def use(self):
            return lock
    def work(fail):
        global lock
        lock = threading.Lock()
        if fail:
            raise Failed("so")
        return C(), use
    """)
    made, function = ask(pool, main.work, False)
    assert type(made) is main.C
    assert function is main.use
    assert main.lock is None
    error = pool.submit(main.work, True).exception(20)
    assert type(error) is main.Failed
    assert error.args == ("so",)


def test_a_result_of_a_class_that_was_redefined_meanwhile(main, run, pool, tmp_path):
    run("""
    import os, time
    class C:
        age = "old"
    def make(name):
        while not os.path.exists(name):
            time.sleep(0.01)
        return C()
    """)
    future = pool.submit(main.make, str(tmp_path / "go"))
    for _ in range(3):
        run("class C:\n    age = 'between'")
        pool.submit(main.make, str(tmp_path))
    run("class C:\n    age = 'new'")
    gc.collect()  # a class is part of cycles
    (tmp_path / "go").touch()
    assert future.result(20).age == "old"
    assert ask(pool, main.make, str(tmp_path)).age == "new"


def test_a_function_as_a_result_leaves_the_hosts_globals_alone(main, run, pool):
    run("""
    number = 1
    def make():
        global number
        number = 2
        return lambda: number
    """)
    assert ask(pool, main.make)() == 2
    assert main.number == 1
    assert "number" not in namespaces.globals_by_module.get("__main__", {})


def test_an_error_of_the_initializer_or_the_preload_is_of_the_hosts_class(main, run):
    run("class Bad(Exception):\n    pass\ndef fail():\n    raise Bad('so')")
    for way in ({"initializer": main.fail}, {"preload": main.fail}):
        with PidfdPoolExecutor(1, **way) as pool:
            error = pool.submit(abs, 1).exception(20)
        assert isinstance(error, PoolBroken)
        assert type(error.__cause__) is main.Bad, way


# ---- failures --------------------------------------------------------------------------------------------------


def test_a_global_that_cannot_be_pickled_is_named(main, run, pool):
    run("import threading\nlock = threading.Lock()\ndef use():\n    return lock\ndef other():\n    return 1")
    with pytest.raises(GlobalNotAvailable, match=r"global 'lock' \(_thread.lock\), used by 'use', cannot be sent"):
        ask(pool, main.use)
    assert ask(pool, main.other) == 1


def test_a_value_that_cannot_be_rebuilt_is_tried_again(main, run, pool, tmp_path):
    run("""
    import os
    def rebuild(name):
        if not os.path.exists(name):
            raise RuntimeError("not yet")
        return 4
    class Value:
        def __init__(self, name):
            self.name = name
        def __reduce__(self):
            return rebuild, (self.name,)
    other = [1]
    def look():
        return value, other
    """)
    main.value = main.Value(str(tmp_path / "go"))
    for _ in range(2):
        with pytest.raises(GlobalNotAvailable, match="global 'value' cannot be rebuilt .* RuntimeError: not yet"):
            ask(pool, main.look)
    (tmp_path / "go").touch()
    assert ask(pool, main.look) == (4, [1])


def test_a_definition_that_cannot_be_rebuilt_leaves_no_older_one_in_its_place(main, run, pool):
    """Not while the host has it, nor after the host has put back the older definition or a third one."""
    run("""
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no text")
    def refuse():
        raise Mute
    class Refusing:
        def __reduce__(self):
            return refuse, ()
    def work():
        return "first"
    def ask_work():
        return work()
    """)
    first = main.work
    assert (ask(pool, main.work), ask(pool, main.ask_work)) == ("first", "first")
    run("def work(default=Refusing()):\n    return 'second'")
    second = main.work
    for function in (main.work, main.ask_work):
        with pytest.raises(GlobalNotAvailable, match=r"global 'work' cannot be rebuilt .* Mute: \(it has no text\)"):
            ask(pool, function)
    main.work = first
    assert (ask(pool, main.ask_work), ask(pool, main.work)) == ("first", "first")
    main.work = second
    with pytest.raises(GlobalNotAvailable):
        ask(pool, main.ask_work)
    run("def work():\n    return 'third'")
    assert (ask(pool, main.ask_work), ask(pool, main.work)) == ("third", "third")


def test_unchanged_globals_give_the_same_payload(main, run):
    run("""
    import abc, collections, dataclasses, enum, typing
    T = typing.TypeVar("T")
    class Abstract(abc.ABC):
        @abc.abstractmethod
        def one(self): ...
    @Abstract.register
    class Registered: ...
    @dataclasses.dataclass
    class Data:
        x: int = 1
        y: list = dataclasses.field(default_factory=list)
    class Colour(enum.Enum):
        RED = 1
    Pair = collections.namedtuple("Pair", "left right")
    class Box(typing.Generic[T]):
        @property
        def one(self): return super().__repr__()
        @staticmethod
        def two(): return Colour.RED
        @classmethod
        def three(cls): return Data(), Pair, Abstract, Registered
    def make(n):
        def inner():
            return n, Box
        return inner
    made, held = make(1), {"a": [Data()], "b": Box(), "c": make(2)}
    def use(box: Box, *, default=(1, [])):
        return made, held, box, make
    """)
    before = payload.dumps((main.use, (main.Box(),), {}))
    for _ in range(30):
        main.Box.two(), main.Box.three(), main.made(), main.use(1), main.make(2), main.Box().one
        assert payload.dumps((main.use, (main.Box(),), {})) == before


def test_a_payload_without_names_is_a_pickle():
    data = payload.dumps(("__main__", lambda: 1))[0]
    assert pickle.loads(data)[0] == "__main__"
    assert data[-1:] == pickle.STOP


def test_classes_in_classes_have_their_qualified_names(main, run, pool):
    """Guards: they were called by their last name, so no pickle that a task makes could name them."""
    run("""
    import pickle
    class C:
        class In:
            class Deep:
                pass
    def look(value):
        return C.In.__qualname__, C.In.Deep.__qualname__, repr(C.In), type(value).__qualname__
    def pickled():
        return pickle.dumps([C.In(), C.In.Deep])
    """)
    assert ask(pool, main.look, main.C.In()) == ("C.In", "C.In.Deep", "<class '__main__.C.In'>", "C.In")
    made, deep = pickle.loads(ask(pool, main.pickled))
    assert type(made) is main.C.In
    assert deep is main.C.In.Deep
