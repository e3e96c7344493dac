"""What a script's file tells: whether it may be run again, what it binds, and whether it changes the process."""

from __future__ import annotations

import importlib.util
import logging
import sys
import textwrap
import types
from importlib.machinery import ModuleSpec

import pytest

from pidfdpool.serialization import scripts

GUARD = '\nif __name__ == "__main__":\n    inside = 1\n'


@pytest.fixture
def script(tmp_path):
    """Return a function that makes a script from its text."""

    def make(text, encoding="utf-8"):
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(text), encoding=encoding)
        return scripts.Script(str(path), None)

    return make


# ---- the guard -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "guard",
    [
        'if __name__ == "__main__": pass',
        'if "__main__" == __name__: pass',
        "if (__name__ == '__main__'): pass",
        'if __name__ == "__main__" and True: pass',
        'if True and (not False) and __name__ == "__main__": pass',
        'if not __name__ != "__main__": pass',
        'if __name__ != "__main__":\n    pass\nelse:\n    work()',
        'if __name__ in ("__main__",): pass\nif __name__ == "__main__": pass',
        'def main(): pass\nif __name__ == "__main__":\n    main()',
    ],
)
def test_a_guard_of_each_spelling(script, guard):
    assert script(guard).can_run_again
    assert script(guard).obstacle == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "work()",
        'print(__name__, "__main__")',
        "if __name__: pass",
        'if name == "__main__": pass',
        'def f():\n    if __name__ == "__main__": pass',
        '# if __name__ == "__main__":',
    ],
)
def test_without_a_guard_it_is_never_run_again(script, text):
    assert not script(text).can_run_again
    assert "has no `if __name__" in script(text).obstacle


def test_guarded_statements_are_ignored(script):
    found = script("""
    import random
    outside = 1
    if __name__ == "__main__":
        random.seed(1)
        inside = 1
        def function(): pass
    else:
        other = 1
    """)
    assert found.names == {"random", "outside", "other"}
    assert not found.changes_process


@pytest.mark.parametrize(
    ("condition", "host_only"),
    [
        ('__name__ == "__main__"', True),
        ('__name__ != "__main__"', False),
        ("multiprocessing.parent_process() is None", True),
        ("multiprocessing.parent_process() is not None", False),
        ("parent_process() == None", True),
        ("parent_process() != None", False),
        ('multiprocessing.current_process().name == "MainProcess"', True),
        ('multiprocessing.current_process().name != "MainProcess"', False),
    ],
)
def test_which_branch_of_a_guard_workers_run_depends_on_how_it_asks(script, condition, host_only):
    found = script(f"if {condition}:\n    first = 1\nelse:\n    second = 1")
    assert found.can_run_again
    assert found.names == {"second" if host_only else "first"}


# ---- names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("def f(a): b = 1", "f"),
        ("async def f(): pass", "f"),
        ("class C:\n    x = 1", "C"),
        ("import a.b, c as d", "a d"),
        ("from a import b, c as d", "b d"),
        ("a = b = 1", "a b"),
        ("a, (b, *c) = [d] = x", "a b c d"),
        ("a: int = 1", "a"),
        ("a += 1", "a"),
        ("if x: a = 1\nelif y: b = 1\nelse: c = 1", "a b c"),
        ("try: a = 1\nexcept E as x: b = 1\nelse: c = 1\nfinally: d = 1", "a b c d"),
        ("try: a = 1\nexcept* E: b = 1", "a b"),
        ("with x as a, y as (b, c): d = 1", "a b c d"),
        ("for a, b in x: c = 1\nelse: d = 1", "a b c d"),
        ("while x: a = 1\nelse: b = 1", "a b"),
        ("print(a := 1)", "a"),
        ("if (a := 1): pass", "a"),
        ("while a := x: pass", "a"),
        ("for b in (a := [1]): pass", "a b"),
        ("with (a := x): pass", "a"),
        (
            "match x:\n    case [a, *b]: c = 1\n    case {'k': d, **e}: pass\n    case C(f) as g: pass",
            "a b c d e f g",
        ),
        ("x.a = 1\ny[0] = 1", ""),
        ("del a", ""),
        pytest.param(
            "type A[T] = list[T]", "A", marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="new in 3.12")
        ),
    ],
)
def test_names_that_each_kind_of_statement_binds(script, text, names):
    assert script(text + GUARD).names == set(names.split())


def test_names_that_a_star_import_binds(script):
    """They are taken from the module that is loaded here, since nobody knows them without importing it."""
    assert script("from string import *" + GUARD).names >= {"ascii_letters", "Template"}


# ---- what it sets up -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "import random\nrandom.seed(1)",
        "import numpy as np\nnp.random.seed(1)",
        "import logging\nlogging.basicConfig(level=10)",
        "import logging.config\nlogging.config.dictConfig({})",
        "import logging\nlogging.getLogger().setLevel(10)",
        "import logging\nlogging.getLogger('a').addHandler(x)",
        "import warnings\nwarnings.filterwarnings('ignore')",
        "import warnings\nwarnings.simplefilter('error')",
        "import signal\nsignal.signal(10, f)",
        "import atexit\natexit.register(f)",
        "import decimal\ndecimal.getcontext().prec = 5",
        "import sys\nsys.setrecursionlimit(5000)",
        "import locale\nlocale.setlocale(locale.LC_ALL, 'C')",
        "from random import seed\nseed(1)",
        "import copyreg\nif True:\n    copyreg.pickle(A, f)\nimport json\njson.dumps = f",
        "import a\ntry:\n    a.configure(1)\nexcept E: pass",
    ],
)
def test_statements_that_change_the_process(script, text):
    assert script(text + GUARD).changes_process


@pytest.mark.parametrize(
    "text",
    [
        "import random\nrandom.random()",
        "print('hello')",
        "import sys\nprint(sys.argv)",
        "x = {}\nx.setdefault('a', 1)",
        "items = []\nitems.append(1)",
        "import os\nos.environ.setdefault('A', '1')",
        "class C: pass\nC.x = 1",
        "import logging\nlog = logging.getLogger(__name__)",
        "import logging\nlogging.getLogger().info('x')",
        "import os\nos.makedirs('x', exist_ok=True)",
    ],
)
def test_statements_that_do_not_change_the_process(script, text):
    assert not script(text + GUARD).changes_process


def test_setting_up_the_scripts_own_logger_changes_the_process(script, monkeypatch):
    main = types.ModuleType("__main__")
    main.log = logging.getLogger("a.test")
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert script("import logging\nlog = logging.getLogger('a.test')\nlog.setLevel(10)" + GUARD).changes_process


def test_numbers_that_are_valid_in_one_process_only(script):
    found = script("import os\na, b = os.pipe()\nc = os.getpid()\nd = 5\ne = len('x')" + GUARD)
    assert found.process_local == {"a", "b", "c"}


# ---- files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["1 +" + GUARD, "\0" + GUARD, "(" * 500 + GUARD], ids=["not Python", "a zero byte", "too deep"]
)
def test_a_file_that_is_not_python(script, text):
    assert not script(text).can_run_again
    assert "cannot be read as Python" in script(text).obstacle
    assert script(text).names == frozenset()


def test_a_missing_file(tmp_path):
    found = scripts.Script(str(tmp_path / "gone.py"), None)
    assert not found.can_run_again
    assert "FileNotFoundError" in found.obstacle
    assert not scripts.Script(str(tmp_path), None).can_run_again


@pytest.mark.parametrize(("encoding", "cookie"), [("latin-1", "# coding: latin-1\n"), ("utf-8-sig", "")])
def test_a_file_in_another_encoding(script, encoding, cookie):
    assert script(f"{cookie}größe = 'ü'{GUARD}", encoding).names == {"größe"}


def test_it_is_read_once(script, tmp_path):
    found = script("a = 1" + GUARD)
    assert found.names == {"a"}
    (tmp_path / "script.py").unlink()
    assert found.names == {"a"}
    assert found.can_run_again


def test_it_is_recreated_from_plain_data(script):
    found = script("a = 1" + GUARD)
    assert scripts.Script(*found.as_fields()).names == {"a"}


# ---- which script it is ----------------------------------------------------------------------------------------


@pytest.fixture
def main(monkeypatch):
    """Put another module in the place of `__main__`."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


def test_a_script_with_a_file(main, tmp_path):
    main.__file__ = str(tmp_path / "a.py")
    assert scripts.current().as_fields() == (str(tmp_path / "a.py"), None, "")


def test_a_relative_path_starts_at_the_initial_directory(main, monkeypatch, tmp_path):
    from multiprocessing import process

    monkeypatch.setattr(process, "ORIGINAL_DIR", str(tmp_path))
    monkeypatch.chdir("/")
    main.__file__ = "a.py"
    assert scripts.current().path == str(tmp_path / "a.py")


def test_a_module_run_by_name(main, tmp_path):
    (tmp_path / "a.py").touch()
    main.__spec__ = importlib.util.spec_from_file_location("package.a", tmp_path / "a.py")
    assert scripts.current().as_fields() == (str(tmp_path / "a.py"), "package.a", "")


@pytest.mark.parametrize("name", ["__main__", "package.__main__"])
def test_the_main_of_a_package_is_not_run_again(main, name):
    main.__spec__ = ModuleSpec(name, None, origin="/somewhere/__main__.py")
    assert not scripts.current().can_run_again
    assert "__main__ of a package" in scripts.current().obstacle


@pytest.mark.parametrize("file", [None, "<stdin>"])
def test_without_a_file_there_is_no_script(main, file):
    main.__file__ = file
    assert not scripts.current().can_run_again
    assert "typed in" in scripts.current().obstacle


def test_without_a_main_there_is_no_script(monkeypatch):
    monkeypatch.delitem(sys.modules, "__main__")
    assert not scripts.current().can_run_again


def test_another_main_is_another_script(main, tmp_path):
    main.__file__ = str(tmp_path / "a.py")
    assert scripts.current() is scripts.current()
    main.__file__ = str(tmp_path / "b.py")
    assert scripts.current().path == str(tmp_path / "b.py")
