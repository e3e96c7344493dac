"""How a script's code, annotations, imports, type parameters and similar objects arrive in a worker."""

from __future__ import annotations

import linecache
import sys
import textwrap
import traceback

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.serialization import reconstructors, reducers
from tests.scripting import run as run_script

since_312 = pytest.mark.skipif(sys.version_info < (3, 12), reason="new in 3.12")
since_314 = pytest.mark.skipif(sys.version_info < (3, 14), reason="new in 3.14")
since_315 = pytest.mark.skipif(sys.version_info < (3, 15), reason="new in 3.15")


@pytest.fixture
def run(main):
    """Return a function that runs statements as the script's, from a file of that name."""
    return lambda code, name="<string>": exec(compile(textwrap.dedent(code), name, "exec", 0, True), vars(main))


@pytest.fixture
def pool():
    with PidfdPoolExecutor(1) as pool:
        yield pool


def ask(pool, function, *arguments):
    return pool.submit(function, *arguments).result(timeout=20)


# ---- code ------------------------------------------------------------------------------------------------------


def test_code_has_the_file_and_the_lines_of_the_script(main, run, pool, tmp_path):
    """Guards: tracebacks named <dynamic-code>, and had no source."""
    path = tmp_path / "a script.py"
    text = "\n\ndef fail():\n    1 / 0  # here\nclass C:\n    def fail(self):\n        return (lambda: 1 / 0)()\n"
    path.write_text(text)
    run(text, str(path))
    for function, line in ((main.fail, 4), (main.C().fail, 7)):
        error = pool.submit(function).exception(20)
        assert isinstance(error, ZeroDivisionError)
        assert f'File "{path}", line {line}' in str(error.__cause__)
        assert text.splitlines()[line - 1].strip() in str(error.__cause__)


def test_code_without_a_file_carries_its_source(main, run, pool):
    """This is the case of a notebook's cells, whose source linecache knows in the host."""
    name, text = "<a cell of a test>", "def fail():\n    raise ValueError('in a cell')\n"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    try:
        run(text, name)
        told = str(pool.submit(main.fail).exception(20).__cause__)
        assert f'File "{name}", line 2' in told
        assert "raise ValueError('in a cell')" in told.partition(name)[2]
        run("import inspect\ndef look(function):\n    return inspect.getsource(function)")
        assert ask(pool, main.look, main.fail) == text
    finally:
        del linecache.cache[name]


def test_a_cell_that_is_run_again_under_its_name_shows_its_new_source(main, run, pool):
    name = "<a cell that is run again>"
    try:
        for line in ("raise ValueError('first')", "raise KeyError('second')", "raise ValueError('first')"):
            text = f"def fail():\n    {line}\n"
            linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
            run(text, name)
            assert line in str(pool.submit(main.fail).exception(20).__cause__)
    finally:
        del linecache.cache[name]


def test_a_source_that_comes_takes_the_place_of_one_that_has_come_and_of_no_other():
    name = "<a cell of this test>"
    fields = reducers._code_fields(compile("value = 1", name, "exec"))

    def source():
        return "".join(linecache.getlines(name))

    try:
        for text in ("first = 1\n", "second = 2\n", "first = 1\n"):
            reconstructors.make_code_with_source(text, *fields)
            assert source() == text
        linecache.clearcache()
        reconstructors.make_code_with_source("third = 3\n", *fields)
        assert source() == "third = 3\n"
        linecache.cache[name] = (6, None, ["host's\n"], name)  # newer, as far as this process knows
        reconstructors.make_code_with_source("fourth = 4\n", *fields)
        assert source() == "host's\n"
    finally:
        linecache.cache.pop(name, None)


def test_code_without_source_is_sent(main, run, pool):
    run("def fail():\n    raise ValueError('so')", "<nowhere>")
    assert 'File "<nowhere>", line 2' in str(pool.submit(main.fail).exception(20).__cause__)


def test_code_in_results_keeps_its_lines(main, run, pool):
    run("def make():\n    def inner():\n        1 / 0\n    return inner", "<nowhere>")
    with pytest.raises(ZeroDivisionError) as caught:
        ask(pool, main.make)()
    assert traceback.extract_tb(caught.value.__traceback__)[-1].lineno == 3


# ---- annotations -----------------------------------------------------------------------------------------------


ANNOTATED = """
import dataclasses, functools, threading, typing
if typing.TYPE_CHECKING:
    from nowhere import Missing
def function(a: Missing, *, b: list[Missing] = None) -> Missing:
    return a
@functools.lru_cache
def cached(a: Missing) -> Missing:
    return a
class Plain:
    x: int
    y: Missing
    def method(self, a: Missing) -> Missing:
        return a
class Row(typing.NamedTuple):
    x: int
    next: Row | None = None
class Keys(typing.TypedDict):
    x: int
    y: typing.NotRequired[str]
@dataclasses.dataclass
class Node:
    value: int
    next: Node | None = None
def init(a: Missing = None): pass
def hints(value):
    return typing.get_type_hints(value)
def names(value):
    import annotationlib
    return list(annotationlib.get_annotations(value, format=annotationlib.Format.STRING).items())
def same(node): return node, type(node) is Node
"""


@since_314
def test_annotations_for_type_checkers_only(main, run, pool):
    run(ANNOTATED)
    assert ask(pool, main.function, 1) == ask(pool, main.cached, 1) == ask(pool, main.Plain().method, 1) == 1
    assert ask(pool, main.names, main.function) == [("a", "Missing"), ("b", "list[Missing]"), ("return", "Missing")]
    assert ask(pool, main.names, main.Plain) == [("x", "int"), ("y", "Missing")]
    with PidfdPoolExecutor(1, initializer=main.init) as other:
        assert ask(other, main.function, 2) == 2
    assert isinstance(pool.submit(main.hints, main.Plain).exception(20), NameError)


@pytest.mark.parametrize("future", [False, True], ids=["", "as text"])
def test_annotations_can_be_read_in_a_task(main, run, pool, future):
    text = ANNOTATED.replace("Missing", "int").replace("from nowhere import int", "pass")
    if not future and sys.version_info < (3, 14):
        text = text.replace("Row | None", "'Row | None'").replace("Node | None", "'Node | None'")
    run(("from __future__ import annotations\n" if future else "") + text)
    assert ask(pool, main.hints, main.function) == {"a": int, "b": list[int], "return": int}
    assert ask(pool, main.hints, main.Plain) == {"x": int, "y": int}
    assert ask(pool, main.hints, main.Row) == {"x": int, "next": main.Row | None}
    assert ask(pool, main.hints, main.Keys) == {"x": int, "y": str}
    assert ask(pool, main.hints, main.Node) == {"value": int, "next": main.Node | None}
    assert ask(pool, main.same, main.Node(1, main.Node(2))) == (main.Node(1, main.Node(2)), True)


@since_315
def test_a_call_does_not_trigger_lazy_imports(tmp_path):
    (tmp_path / "costly.py").write_text(
        "import os\nwith open('imported', 'a') as f: f.write(f'{os.getpid()}\\n')\nclass T: pass\n"
    )
    assert run_script(tmp_path, """
        import sys
        lazy from costly import T
        lazy import costly
        def hinted(value: T) -> T:
            return value, "costly" in sys.modules
        class C:
            x: T
        def used():
            return costly.__name__, T.__name__
        def look(value):
            return type(value).__name__, "costly" in sys.modules
        if __name__ == "__main__":
            with PidfdPoolExecutor(1) as pool:
                print(pool.submit(hinted, 1).result(), pool.submit(look, C()).result())
                print("costly" in sys.modules)
                print(pool.submit(used).result(), "costly" in sys.modules)
        """) == ["(1, False) ('C', False)", "False", "('costly', 'T') False"]  # fmt: skip
    assert len((tmp_path / "imported").read_text().split()) == 1


# ---- what is the same object wherever it turns up ----------------------------------------------------------------


def test_type_variables_and_new_types(main, run, pool):
    run("""
    import typing
    T = typing.TypeVar("T", bound=int)
    P = typing.ParamSpec("P")
    Ts = typing.TypeVarTuple("Ts")
    UserId = typing.NewType("UserId", int)
    class Box(typing.Generic[T]):
        kind = UserId
    def look(t, p, ts, new):
        return t is T, p is P, ts is Ts, new is UserId, Box.__parameters__ == (T,), Box.kind is UserId, UserId(3)
    def give():
        return T, P, Ts, UserId, Box[int]
    """)
    assert ask(pool, main.look, main.T, main.P, main.Ts, main.UserId) == (True,) * 6 + (3,)
    assert ask(pool, main.give) == (main.T, main.P, main.Ts, main.UserId, main.Box[int])


@since_312
def test_type_parameters_and_aliases(main, run, pool):
    run("""
    class Box[T, *Ts, **P]:
        def get(self, x: T) -> T: return x
    type Pair[A] = tuple[A, A]
    type Tree = list[Tree] | int
    def first[X](items: list[X]) -> X:
        return items[0]
    def look(pair, tree):
        return pair is Pair, tree is Tree, Pair.__value__, first([1]), Box().get(2), len(Box.__type_params__)
    def give(): return Pair, Tree, Box, first
    """)
    same_pair, same_tree, value, *rest = ask(pool, main.look, main.Pair, main.Tree)
    assert (same_pair, same_tree, rest) == (True, True, [1, 2, 3])
    assert str(value) == "tuple[A, A]"
    assert ask(pool, main.give) == (main.Pair, main.Tree, main.Box, main.first)


@since_315
def test_sentinels(main, run, pool):
    run("MISSING = sentinel('MISSING')\ndef look(x=MISSING):\n    return x is MISSING, x, repr(x)")
    assert ask(pool, main.look) == ask(pool, main.look, main.MISSING) == (True, main.MISSING, "MISSING")


def test_a_singleton_that_reduces_to_its_name(main, run, pool):
    run("""
    class Kind:
        def __reduce__(self): return "ONLY"
    ONLY = Kind()
    def look(x): return x is ONLY, x
    """)
    assert ask(pool, main.look, main.ONLY) == (True, main.ONLY)


def test_loggers_and_cached_properties(main, run, pool):
    run("""
    import functools, logging
    log = logging.getLogger("a.logger.of.a.test")
    class C:
        @functools.cached_property
        def value(self):
            self.calls = getattr(self, "calls", 0) + 1
            return self.calls
    def look(c):
        return log.name, log is logging.getLogger("a.logger.of.a.test"), c.value, c.value
    """)
    assert ask(pool, main.look, main.C()) == ("a.logger.of.a.test", True, 1, 1)


# ---- classes whose subclasses are told of ----------------------------------------------------------------------


def test_a_hook_for_subclasses_is_called_for_those_that_a_task_makes_and_for_no_other(main, run, pool):
    """To make the script's own classes again does not repeat what it has done; and then it is there again."""
    run("""
    class Registry:
        known = []
        def __init_subclass__(cls, *, short, **others):
            super().__init_subclass__(**others)
            Registry.known.append(short)
    class First(Registry, short="first"): pass
    class Refused(Registry, short="refused"):
        __slots__ = ("a",)
    class Second(First, short="second"): pass
    def look(n):
        class Own(Second, short=f"own {n}"): pass
        return list(Registry.known), Own.__mro__[1:4] == (Second, First, Registry), Refused.__slots__
    """)
    before = ["first", "refused", "second"]
    assert ask(pool, main.look, 1) == ([*before, "own 1"], True, ("a",))
    assert ask(pool, main.look, 2) == ([*before, "own 1", "own 2"], True, ("a",))
