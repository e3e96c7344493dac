"""Code, its source and what it looks up, and functions with all that belongs to them, as they arrive."""

from __future__ import annotations

import functools
import importlib.machinery
import linecache
import sys
import types

import pytest

from pidfdpool.serialization import payload, reconstructors, reducers
from tests.serialization.far_side import dumped

since_312 = pytest.mark.skipif(sys.version_info < (3, 12), reason="new in 3.12")
FIELDS = [name for name in dir(types.CodeType) if name.startswith("co_") and name not in ("co_lnotab", "co_lines")]


def code_of(text, name="<nowhere>"):
    return compile(text, name, "exec", dont_inherit=True)


VARIOUS = """
def outer(a, b, /, c=1, *d, e, f=2, **g):
    '''A text.'''
    held = [a]
    def inner(x):
        try:
            return held, x, c
        except (KeyError, ValueError) as error:
            raise TypeError from error
        finally:
            print(len(held))
    class Local:
        value = 1
    return inner, lambda: (yield held)
async def waits(): await outer
"""


def all_codes(code):
    yield code
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from all_codes(each)


def test_code_is_the_same_in_each_of_its_parts():
    codes = list(all_codes(code_of(VARIOUS)))
    assert len(codes) > 5
    for code in codes:
        make, arguments = reducers.reduce_code(code)
        made = make(*arguments)
        for field in FIELDS:
            if not callable(getattr(code, field)):
                assert getattr(made, field) == getattr(code, field), field
        assert list(made.co_positions()) == list(code.co_positions())


@pytest.fixture
def cell():
    """Return a function that has the source of a cell known under a name; all are forgotten afterwards."""
    names = []

    def make(text, name):
        names.append(name)
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        return code_of(text, name)

    yield make
    for name in names:
        linecache.cache.pop(name, None)


def source_with(code):
    make, arguments = reducers.reduce_code(code)
    return arguments[0] if make is reconstructors.make_code_with_source else None


def test_only_source_that_is_in_no_file_travels(cell, tmp_path):
    path = tmp_path / "module.py"
    path.write_text("a = 1\n")
    assert source_with(code_of("a = 1\n", str(path))) is None
    assert source_with(code_of("a = 1\n", "<a cell without source>")) is None
    assert source_with(cell("a = 1\nb = 2\n", "<cell with source>")) == "a = 1\nb = 2\n"
    assert source_with(code_of("a = 1\n", str(tmp_path / "gone.py"))) is None


def test_all_code_of_one_cell_has_one_source_until_the_cell_is_run_again(cell):
    """One object, so that a pickle holds the source once."""
    first = source_with(cell("def f():\n    pass\n", "<one cell>"))
    assert source_with(code_of("def g():\n    pass\n", "<one cell>")) is first
    assert source_with(cell("def f():\n    return 1\n", "<one cell>")) == "def f():\n    return 1\n"
    latest = source_with(code_of("a = 1\n", "<one cell>"))
    assert source_with(cell("a = 1\n", "<another cell>")) == "a = 1\n"
    assert source_with(code_of("a = 1\n", "<one cell>")) is latest


@pytest.mark.skipif(not hasattr(linecache, "_register_code"), reason="new in 3.13")
def test_code_of_a_prompt_has_the_source_that_is_known_of_this_code():
    first, second = code_of("a = 1\n", "<typed in 1>"), code_of("bb = 2\n", "<typed in 2>")
    known = dict(linecache._interactive_cache)
    try:
        linecache._register_code(first, "a = 1\n", "<typed in 1>")
        linecache._register_code(second, "bb = 2\n", "<typed in 2>")
        assert [source_with(each) for each in (first, second, first)] == ["a = 1\n", "bb = 2\n", "a = 1\n"]
    finally:
        linecache._interactive_cache.clear()
        linecache._interactive_cache.update(known)


def test_a_loader_that_fails_costs_the_source_only():
    class Failing:
        def get_source(self, _name):
            raise ZeroDivisionError

    name = "of_a_loader_that_fails.py"
    loader = Failing()
    spec = importlib.machinery.ModuleSpec("a_name", loader)
    assert linecache.lazycache(name, {"__name__": "a_name", "__loader__": loader, "__spec__": spec})
    try:
        with pytest.raises(ZeroDivisionError):
            linecache.getlines(name)
        assert source_with(code_of("a = 1\n", name)) is None
    finally:
        linecache.cache.pop(name, None)


def test_what_is_known_of_many_cells_is_bounded(cell):
    names = [f"<cell {number}>" for number in range(1_050)]
    code = code_of("a = 1\n")
    for name in names:
        cell(f"{name[1:-1]!r}\n", name)
        assert source_with(code.replace(co_filename=name)) == f"{name[1:-1]!r}\n"
    assert 0 < len(reducers._files) <= 1_000
    assert 0 < len(reducers._sources) <= 1_000
    assert source_with(code.replace(co_filename=names[0])) == "'cell 0'\n"


def test_a_source_that_comes_is_found_line_by_line(cell):
    code = cell("def f():\n    return 1\n", "<a cell that comes>")
    make, arguments = reducers.reduce_code(code)
    del linecache.cache["<a cell that comes>"]
    assert make(*arguments).co_filename == "<a cell that comes>"
    assert linecache.getlines("<a cell that comes>") == ["def f():\n", "    return 1\n"]
    make("another = 1\n", *arguments[1:])
    assert linecache.getlines("<a cell that comes>") == ["another = 1\n"]
    linecache.cache["<a cell that comes>"] = 1, None, ["host's\n"], "<a cell that comes>"
    make(*arguments)
    assert linecache.getlines("<a cell that comes>") == ["host's\n"], "this process knows better"


# ---- what code may look up by name -------------------------------------------------------------------------------

LOOKS_UP = {
    "globals": "globals()['a']",
    "eval": "eval('a')",
    "exec": "exec('a')",
    "an import": "import __main__",
    "an import of a name": "from __main__ import a",
    "the name as text": "import_module('__main__')",
    "sys.modules": "sys.modules['__main__']",
    "its own name": "sys.modules[__name__]",
    "subclasses": "Base.__subclasses__()",
    "a nested function": "def g():\n        return globals()",
    "text in a nested function": "def g():\n        return find('__main__')",
    "its own name in a nested function": "def g():\n        return sys.modules[__name__]",
    "its own name around it": "name = __name__\n    def g():\n        return sys.modules[name]",
}
NO_LOOK_UP = {
    "its own name alone": "return __name__",
    "modules alone": "return sys.modules['json']",
    "a local name": "x = 1\n    return x",
    "another text": "return 'main', '__mp_main__'",
    "other globals": "return abs(number)",
}


@pytest.mark.parametrize(
    ("body", "looks_up"),
    [*((body, True) for body in LOOKS_UP.values()), *((body, False) for body in NO_LOOK_UP.values())],
    ids=[*LOOKS_UP, *NO_LOOK_UP],
)
def test_code_that_may_use_names_of_the_script_that_it_does_not_mention(body, looks_up):
    names: dict = {}
    exec(f"def f():\n    {body}", names)
    assert reducers.looks_up_main(names["f"].__code__) is looks_up


# ---- functions ---------------------------------------------------------------------------------------------------

FUNCTIONS = """
def plain(a, b=1, *, c=2):
    '''What it does.'''
    return a, b, c
plain.tag = [1]
def make(n):
    cell = n
    def inner(x: int = 5) -> str:
        '''Inside.'''
        return cell + x
    inner.also = "also"
    return inner
inner = make(1)
renamed = make(2)
renamed.__name__, renamed.__qualname__, renamed.__module__ = "renamed", "a.renamed", "elsewhere"
"""


def described(function):
    return {
        name: getattr(function, name)
        for name in (
            "__name__",
            "__qualname__",
            "__module__",
            "__doc__",
            "__defaults__",
            "__kwdefaults__",
            "__dict__",
        )
    } | {
        "annotations": function.__annotations__,
        "cells": [each.cell_contents for each in function.__closure__ or ()],
    }


@pytest.mark.parametrize("name", ["plain", "inner", "renamed"])
@pytest.mark.parametrize("home", ["the script", "code without a module"])
def test_a_function_arrives_with_all_that_belongs_to_it(main, run, far, name, home):
    names = vars(main)
    if home == "the script":
        run(FUNCTIONS)
    else:
        names = {"__name__": "elsewhere_too"}
        exec(FUNCTIONS, names)
    made = far.load(payload.dumps_by_value([names[name]], None))[0]
    assert made is not names[name]
    assert described(made) == described(names[name])
    back = payload.loads(far.pickled([far.load(payload.dumps_by_value([names[name]], None))[0]]))[0]
    assert described(back) == described(names[name])


@since_312
def test_a_function_has_its_type_parameters(main, run, far):
    run("def first[T](items: list[T]) -> T:\n    return items[0]\ndef give(): return first")
    made = far.call(dumped(main.give))
    assert [each.__name__ for each in made.__type_params__] == ["T"]
    local: dict = {}
    exec("def second[T, U](items): return items", local)
    assert [each.__name__ for each in far.load(payload.dumps(local["second"])[0]).__type_params__] == ["T", "U"]


def test_a_closure_may_have_an_empty_cell(main, run, far):
    run("""
    def make():
        def inner():
            return later
        if False:
            later = 1
        return inner
    inner = make()
    def ask():
        try:
            return inner()
        except NameError:
            return "nothing yet"
    """)
    assert far.ask(main.ask) == "nothing yet"


def test_a_cache_has_its_size_and_tells_types_apart_as_in_the_host(main, run, far):
    run("""
    import functools
    @functools.lru_cache(maxsize=7, typed=True)
    def cached(x): return x
    @functools.cache
    def unbounded(x): return x
    def look():
        return [each.cache_parameters() for each in (cached, unbounded)], cached.__name__
    """)
    asked = [{"maxsize": 7, "typed": True}, {"maxsize": None, "typed": False}], "cached"
    assert far.ask(main.look) == asked
    local = functools.lru_cache(3)(lambda x: x)
    assert far.load(payload.dumps(local)[0]).cache_parameters() == {"maxsize": 3, "typed": False}


def test_a_submodule_that_code_reaches_through_its_package_is_imported(main, run, far, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "a_package_with_a_part"
    folder.mkdir()
    for name in ("__init__", "part", "other"):
        (folder / f"{name}.py").write_text(f"value = {name!r}\n")
    run("import a_package_with_a_part.part, a_package_with_a_part.other\ndef look():\n"
        "    return a_package_with_a_part.part.value")  # fmt: skip
    main.inner = (lambda package: lambda: package.part.value)(main.a_package_with_a_part)
    for data in (dumped(main.look), dumped(main.inner)):
        for name in list(sys.modules):
            if name.startswith("a_package_with_a_part"):
                monkeypatch.delitem(sys.modules, name)
        assert far.call(data) == "part"
        assert "a_package_with_a_part.other" not in sys.modules
        run("import a_package_with_a_part.part, a_package_with_a_part.other")
    for name in list(sys.modules):
        if name.startswith("a_package_with_a_part"):
            monkeypatch.delitem(sys.modules, name)
