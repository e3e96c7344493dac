"""Modules that workers cannot import, and how their functions and classes travel nevertheless."""

from __future__ import annotations

import sys
import textwrap
import types
from importlib import util

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.serialization import importable, payload, salvage
from tests.conditions import run_python

SOURCE = """
STEP = 3

class Kept:
    pass

def step(number):
    return number + STEP

def make():
    return Kept()

def by_lambda(number):
    return lambda: step(number)
"""


def load(name, path, monkeypatch):
    """Load a module from its file, as servers and plugin systems do with scripts."""
    path.write_text(textwrap.dedent(SOURCE))
    spec = util.spec_from_file_location(name, path)
    module = util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_modules_imported_by_name_are_importable():
    done = run_python(
        """
import asyncio, concurrent.futures, email.mime.text, http.server, json, logging.handlers, os.path, sqlite3, typing
import multiprocessing.shared_memory, unittest.mock, xml.etree.ElementTree, zoneinfo
import cloudpickle, hypothesis, pytest
from pidfdpool.serialization import importable
print(importable.unimportable_modules())
"""
    )
    assert (done.stdout, done.stderr) == ("()\n", "")


def test_a_module_loaded_from_a_file_is_not_importable(monkeypatch, tmp_path):
    module = load("a_script_of_a_test", tmp_path / "script.py", monkeypatch)
    assert module in importable.unimportable_modules()


def run_with_script(folder, code):
    """Run code in a fresh interpreter that has loaded SOURCE from its file, as `module`."""
    path = folder / "script.py"
    path.write_text(textwrap.dedent(SOURCE))
    return run_python(f"""
import json, pickle, sys
from importlib import util
from pidfdpool.serialization import importable
spec = util.spec_from_file_location("a_script", {str(path)!r})
module = sys.modules["a_script"] = util.module_from_spec(spec)
spec.loader.exec_module(module)
{code}""")


def test_the_first_call_of_a_program_finds_what_it_mentions(tmp_path):
    """It does not look at all modules, as later ones do."""
    done = run_with_script(
        tmp_path,
        """
print(importable.mentions_unimportable(pickle.dumps(module.Kept)), "json" in importable._importable)
print(importable.mentions_unimportable(pickle.dumps(sum)))
print(importable.mentions_unimportable(pickle.dumps(module.step)))
print(importable.unimportable_modules() == (module,))
""",
    )
    assert (done.stdout, done.stderr) == ("True False\nFalse\nTrue\nTrue\n", "")


def test_a_large_first_call_is_not_searched_for_the_name_of_each_module(tmp_path):
    """Guards: to search 20 MB for hundreds of names took two seconds."""
    done = run_with_script(
        tmp_path,
        """

class Searched(bytes):
    count = 0
    def __contains__(self, name):
        Searched.count += 1
        return super().__contains__(name)

data = Searched(pickle.dumps([module.Kept, "x" * 10_000]))
print(importable.mentions_unimportable(data), Searched.count, "json" in importable._importable)
""",
    )
    assert (done.stdout, done.stderr) == ("True 1 True\n", "")


def test_functions_and_classes_of_unimportable_modules_travel_both_ways(way, monkeypatch, tmp_path):
    module = load("another_script_of_a_test", tmp_path / "script.py", monkeypatch)
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert pool.submit(module.step, 1).result() == 4
        assert type(pool.submit(module.make).result()) is module.Kept
        assert list(pool.map(module.step, range(3))) == [3, 4, 5]
        assert pool.submit(module.by_lambda(4)).result() == 7


def test_a_module_that_an_initializer_loaded_is_used_by_reference(monkeypatch, tmp_path):
    module = load("a_plugin_of_a_test", tmp_path / "plugin.py", monkeypatch)
    with PidfdPoolExecutor(
        1, initializer=bring, initargs=("a_plugin_of_a_test", str(tmp_path / "plugin.py"))
    ) as pool:
        assert pool.submit(module.step, 1).result() == 11


def bring(name, path):
    spec = util.spec_from_file_location(name, path)
    sys.modules[name] = util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    sys.modules[name].STEP = 10


def load_first_item(buffers):
    """Load a list as is done if another of its items has failed."""
    return salvage.load_items(buffers, in_host=True)


def test_a_result_leaves_the_hosts_class_alone():
    class Own:
        held = []  # noqa: RUF012  shared on purpose

    held, data = Own.held, payload.dumps(Own())
    Own.held.append("of the host")
    copy = payload.load_result(data)
    assert type(copy) is Own
    assert Own.held is held
    assert held == ["of the host"]


@pytest.mark.parametrize("load_one", [payload.load_result, load_first_item], ids=["a result", "an item of a list"])
def test_a_result_in_two_forms_leaves_the_hosts_class_alone_too(monkeypatch, tmp_path, load_one):
    """A forked worker sends an object of a module of the host's in two forms; here the host uses the second."""
    module = load("a_plugin_with_a_class", tmp_path / "plugin.py", monkeypatch)
    kind = module.Kept
    kind.held = held = ["at the fork"]
    data = payload.dumps([kind()], payload.InheritedMain())
    held.append("of the host")
    del module.Kept  # so it is not found by its name
    (copy,) = load_one(data)
    assert type(copy) is kind
    assert kind.held is held
    assert held == ["at the fork", "of the host"]


# ---- what was found out before -----------------------------------------------------------------------------------


def put(name, monkeypatch, **names):
    """Put a module that was made up into the place of one."""
    module = types.ModuleType(name)
    vars(module).update({"__builtins__": {}, **names})
    monkeypatch.setitem(sys.modules, name, module)
    return module


def test_modules_are_looked_at_again_when_one_was_loaded_or_took_the_place_of_another(monkeypatch):
    first = put("made_up_first", monkeypatch)
    assert first in importable.unimportable_modules()
    again = importable.unimportable_modules()
    assert importable.unimportable_modules() is again, "nothing was loaded since"
    monkeypatch.delitem(sys.modules, "made_up_first")
    second = put("made_up_second", monkeypatch)  # as many as before
    assert second in importable.unimportable_modules()
    assert first not in importable.unimportable_modules()
    assert importable.mentions_unimportable(b"...made_up_second...")
    assert not importable.mentions_unimportable(b"...made_up_first...")


def test_what_is_in_a_package_that_cannot_be_imported_cannot_be_imported_either(monkeypatch):
    package = put("made_up_package", monkeypatch, __path__=["/nowhere/made_up_package"])
    inner = put("made_up_package.inner", monkeypatch, __spec__=types.SimpleNamespace(origin="/nowhere/inner.py"))
    found = importable.unimportable_modules()
    assert package in found
    assert inner in found


def test_a_module_that_native_code_or_another_name_stands_for_is_left_to_itself(monkeypatch):
    """It counts as importable: it is pickled as in the standard library."""
    native = types.ModuleType("made_up_native")
    monkeypatch.setitem(sys.modules, "made_up_native", native)
    alias = put("made_up_alias", monkeypatch)
    alias.__name__ = "json"
    frozen = put("made_up_frozen", monkeypatch, __spec__=types.SimpleNamespace(origin="frozen"))
    attribute = put("json.made_up", monkeypatch, __spec__=None)  # made by a module that is no package, as os.path is
    monkeypatch.delattr("json.__path__")
    found = importable.unimportable_modules()
    for module in (native, alias, frozen, attribute):
        assert module not in found


def test_a_finder_that_fails_does_no_harm(monkeypatch):
    class Finder:
        def find_spec(self, name, path, target=None):
            if name.startswith("made_up"):
                raise LookupError(name)

    module = put("made_up_for_a_finder", monkeypatch)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert module not in importable.unimportable_modules()
