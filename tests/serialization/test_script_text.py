"""What the text of a script tells, construct by construct: its guard, its names, and what it changes."""

from __future__ import annotations

import logging
import sys
import textwrap
import types

import pytest

from pidfdpool.serialization import script_text, scripts

GUARD = '\nif __name__ == "__main__":\n    inside = 1\n'


@pytest.fixture
def analysed(tmp_path):
    """Return a function that analyses a script of this text."""

    def analyse(text):
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(text))
        return script_text.analysed(str(path))

    return analyse


@pytest.fixture
def module(monkeypatch, tmp_path):
    """Return a function that loads an empty module under a name, as if from a file in a folder."""

    def make(name, folder="", *, is_file=True, **contents):
        made = types.ModuleType(name)
        if is_file:
            made.__file__ = str(tmp_path / folder / f"{name}.py")
        vars(made).update(contents)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    return make


# ---- why it cannot be run again --------------------------------------------------------------------------------


def test_each_obstacle_names_the_file_and_what_is_wrong_with_it(tmp_path):
    path = str(tmp_path / "script.py")
    assert scripts.Script(None, None).obstacle == "it has no file"
    assert scripts.Script(None, None).names == frozenset()
    told = script_text.analysed(path).obstacle
    assert told.startswith(f"{path} cannot be read as Python (FileNotFoundError: ")
    (tmp_path / "script.py").write_text("1 +")
    assert script_text.analysed(path).obstacle.startswith(f"{path} cannot be read as Python (SyntaxError: ")
    (tmp_path / "script.py").write_text("a = 1")
    found = script_text.analysed(path)
    assert found.obstacle == f'{path} has no `if __name__ == "__main__":`'
    assert (found.names, found.process_local, found.changes_process) == (frozenset(), frozenset(), False)


@pytest.mark.parametrize(
    "text",
    [
        'if len(x) > 1 and __name__ == "__main__": pass',
        'if x == 1 or __name__ == "__main__": pass',
        'a = 1\nif a: pass\nif __name__ == "__main__": pass',
        'def start():\n    a = 1\n    if __name__ == "__main__": pass\nstart()',
        'def other(): pass\ndef start():\n    if __name__ == "__main__": pass\nother()\nstart()',
        'from multiprocessing import current_process\nif current_process().name == "MainProcess": pass',
        "from multiprocessing import parent_process\nif parent_process() is None: pass",
        "if None is multiprocessing.parent_process(): pass",
        "if os.environ.get('A') == '1' and parent_process() is None: pass",
    ],
)
def test_a_guard_is_found_wherever_it_counts(analysed, text):
    assert analysed(text).obstacle == ""


@pytest.mark.parametrize(
    "text",
    [
        'def start():\n    if __name__ == "__main__": pass',
        'def start():\n    if __name__ == "__main__": pass\nx = start',
        'def start():\n    if __name__ == "__main__": pass\nother()',
        'if __name__ == "other": pass',
        'if x == "__main__": pass',
        'if name == "x": pass',
        'if x == "MainProcess": pass',
        "if x is None: pass",
        'while __name__ == "__main__": pass',
        "if __name__ and '__main__': pass",
    ],
)
def test_what_only_looks_like_a_guard_is_none(analysed, text):
    assert "has no `if __name__" in analysed(text).obstacle


# ---- names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('if __name__ == "__main__":\n    a = 1\nelif x:\n    b = 1\nelse:\n    c = 1', "b c"),
        ('if __name__ != "__main__":\n    a = 1\nelif x:\n    b = 1\nelse:\n    c = 1', "a"),
        ('try:\n    if __name__ == "__main__":\n        a = 1\n    else:\n        b = 1\nfinally:\n    c = 1', "b c"),
        ('if x:\n    a = 1\n    if __name__ == "__main__":\n        b = 1', "a"),
        ("match (a := x):\n    case 1: pass\n    case _ if (b := x): pass", "a b"),
        ("match x:\n    case [1, *rest]: pass\n    case {**more}: pass\n    case y: pass", "rest more y"),
        ("match x:\n    case 1:\n        a = 1\n    case _:\n        b = 1", "a b"),
        ("for a in b:\n    pass\nelse:\n    c = d", "a c"),
        ("try:\n    pass\nexcept E:\n    a = 1\nexcept F:\n    b = 1", "a b"),
        ("with f(x) as a, g(y) as b: pass", "a b"),
        ("while f(y): pass", ""),
        ("import a.b.c\nimport d.e as f\nfrom g.h import i", "a f i"),
        ("a.b = c\nd[e] = f", ""),
        ("class A(B):\n    c = 1\n    def d(self): e = 1", "A"),
    ],
)
def test_names_that_are_bound_outside_of_the_guard_and_no_others(analysed, text, names):
    assert analysed(text + GUARD).names == set(names.split())


@pytest.mark.parametrize(
    ("star", "contents", "names"),
    [
        ("from loaded import *", {"a": 1, "_b": 2, "C": 3}, "a C"),
        ("from loaded import *", {"a": 1, "_b": 2, "__all__": ["_b"]}, "_b"),
        ("from loaded import *", {"a": 1, "__all__": ("a",)}, "a"),
        ("from not_loaded_here import *", {"a": 1}, ""),
        ("from loaded import x\nfrom not_loaded_here import *\nz = 1", {}, "x z"),
    ],
)
def test_a_star_import_binds_what_the_loaded_module_makes_public(analysed, module, star, contents, names):
    module("loaded", **contents)
    assert analysed(star + GUARD).names == set(names.split())


def test_a_star_import_may_be_relative_to_the_package_of_the_script(analysed, module, main):
    module("package_of_a_script", shared=1)
    module("package_of_a_script.part", own=1)
    assert analysed("from . import *\nfrom .part import *" + GUARD).names == set(), "the script is in no package"
    main.__package__ = "package_of_a_script"
    assert analysed("from . import *" + GUARD).names == {"shared"}
    assert analysed("from .part import *" + GUARD).names == {"own"}
    main.__package__ = "package_of_a_script.deeper"
    assert analysed("from ..part import *" + GUARD).names == {"own"}


# ---- numbers of one process ------------------------------------------------------------------------------------

CALLS = [
    *("os.pipe", "os.pipe2", "os.open", "os.dup", "os.memfd_create", "os.eventfd", "os.openpty", "os.pidfd_open"),
    *("time.timerfd_create", "file.fileno", "os.getpid", "threading.get_ident", "threading.get_native_id", "id"),
]


@pytest.mark.parametrize("call", CALLS)
def test_each_call_whose_number_holds_for_one_process_is_known(analysed, call):
    last = call.rpartition(".")[2]
    found = analysed(f"first = {call}(x)\nsecond, third = {last}()\ntyped: int = {call}(x)\nother = {last}" + GUARD)
    assert found.process_local == {"first", "second", "third", "typed"}


@pytest.mark.parametrize("text", ["a = os.getcwd()", "os.pipe()", "a = pipe", "a = [1]", "a = calls[0]()", "a: int"])
def test_other_values_hold_for_every_process(analysed, text):
    assert analysed(text + GUARD).process_local == frozenset()


def test_numbers_made_behind_the_guard_are_not_the_scripts(analysed):
    found = analysed('if __name__ == "__main__":\n    a = os.dup(0)\nif x:\n    b = os.dup(0)')
    assert found.process_local == {"b"}


# ---- what it changes -------------------------------------------------------------------------------------------

SETTERS = [
    *("set_start_method", "setLevel", "seed", "register", "filterwarnings", "simplefilter", "basicConfig"),
    *("dictConfig", "fileConfig", "addHandler", "addFilter", "captureWarnings", "enable", "disable", "configure"),
    *("install", "patch_all", "use", "init", "signal", "SetOption", "Register"),
]


@pytest.mark.parametrize("name", SETTERS)
def test_each_kind_of_function_that_sets_something_up_is_known(analysed, name):
    assert analysed(f"import lib\nlib.{name}(1)" + GUARD).changes_process
    assert analysed(f"from lib import {name}\n{name}()" + GUARD).changes_process
    assert not analysed(f"lib.{name}(1)" + GUARD).changes_process, "it is not an imported one"
    assert not analysed(f"import lib\nvalue = lib.{name}(1)" + GUARD).changes_process, "what comes of it has a name"


@pytest.mark.parametrize(
    "text",
    [
        "import lib\nx = lib.level = 5",
        "import lib\nlib.level += 1",
        "import lib\nlib.get().level = 5",
        "import package.lib as other\nother.level = 5",
        "import package.lib\npackage.lib.level = 5",
        "x = 1\nimport lib\nx = 2\nlib.level = 5",
        "from lib import thing\nthing.level = 5",
        "import lib\ntry:\n    lib.level = 5\nfinally: pass",
        "import lib\nprint(1)\nlib.seed(1)",
        "try:\n    import lib\nexcept ImportError:\n    lib = None\nlib.seed(1)",
    ],
)
def test_assignments_to_what_was_imported_change_the_process(analysed, text):
    assert analysed(text + GUARD).changes_process


@pytest.mark.parametrize(
    "text",
    [
        "import lib\nlevel = 5",
        "import lib\nthing = Thing()\nthing.level = 5",
        "import lib\nlib.values[0] = 5",
        "import lib\n'text'.setdefault(lib)",
        "import lib\nlib.setdefault('a', 1)",
        "import lib\n[].register()",
        "import lib\ndef f():\n    lib.seed(1)",
        "import lib\nlib.offset(1)",
        "import lib\n(lambda: 1)().level = 5",
        "import lib as other\nlib.seed(1)",
        "import lib\n'a note'",
        'import lib\nif __name__ == "__main__":\n    lib.level = 5\n    lib.seed(1)',
    ],
)
def test_what_stays_with_the_script_does_not(analysed, text):
    assert not analysed(text + GUARD).changes_process


def test_only_a_logger_of_the_scripts_own_counts_as_imported(analysed, main):
    main.log, main.other = logging.getLogger("of a script"), types.SimpleNamespace()
    assert analysed("log = x\nlog.setLevel(1)" + GUARD).changes_process
    assert not analysed("other = x\nother.setLevel(1)" + GUARD).changes_process
    assert not analysed("log = x\nlog.info(1)" + GUARD).changes_process


CALLED = {
    "a function of a module": "import helper\nhelper.prepare()",
    "an imported function": "from helper import prepare\nprepare()",
    "a decorator": "from helper import prepare\n@prepare\ndef f(): pass",
    "a decorator that is called": "import helper\n@helper.prepare(1)\ndef f(): pass",
    "a decorator of a class": "import helper\n@other\n@helper.prepare\nclass C: pass",
    "a decorator of a coroutine": "import helper\n@helper.prepare\nasync def f(): pass",
}


@pytest.mark.parametrize("text", CALLED.values(), ids=CALLED)
def test_what_the_users_own_modules_do_when_called_may_change_the_process(analysed, module, main, text):
    """Nobody knows what they register; what is installed is known by the names of its functions."""
    main.helper = module("helper")
    main.prepare = lambda: None
    main.prepare.__module__ = "helper"
    assert analysed(text + GUARD).changes_process
    for folder in ("lib/site-packages", "lib/dist-packages"):
        main.helper = module("helper", folder)
        assert not analysed(text + GUARD).changes_process
    main.helper = module("helper", is_file=False)
    assert not analysed(text + GUARD).changes_process


def test_a_module_of_the_standard_library_is_not_the_users(analysed, main):
    import json

    main.json = json
    assert not analysed("import json\njson.dumps(1)" + GUARD).changes_process


def test_a_users_module_that_is_named_without_a_call_changes_nothing(analysed, module, main):
    main.helper = module("helper")
    for text in ("import helper", "import helper\nx = helper.prepare()", "import helper\nhelper", "helper.prepare()"):
        assert not analysed(text + GUARD).changes_process


def test_without_a_main_nothing_is_known_of_names(analysed, monkeypatch):
    monkeypatch.delitem(sys.modules, "__main__")
    assert not analysed("import helper\nhelper.prepare()" + GUARD).changes_process
    assert analysed("import lib\nlib.seed(1)\nfrom . import *" + GUARD).changes_process
