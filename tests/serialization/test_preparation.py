"""What tools add to the data that multiprocessing prepares for a new process."""

from __future__ import annotations

import pickle
import sys
from multiprocessing import spawn

import pytest

from pidfdpool.serialization import preparation

restored = []


def set_up(tool):
    restored.append(tool)


class Tool:
    def __reduce__(self):
        return set_up, ("the tool",)


def test_where_no_tool_adds_anything_nothing_is_sent(monkeypatch):
    assert preparation.capture() is None
    original = spawn.get_preparation_data
    monkeypatch.setattr(spawn, "get_preparation_data", lambda name: original(name))
    assert preparation.capture() is None


def test_what_a_tool_adds_is_sent_alone_and_sets_it_up_where_it_is_restored(monkeypatch):
    original = spawn.get_preparation_data
    monkeypatch.setattr(spawn, "get_preparation_data", lambda name: {**original(name), "tool": Tool()})
    data = preparation.capture()
    restored.clear()
    assert pickle.loads(data).keys() == {"tool"}
    restored.clear()
    preparation.restore(data)
    assert restored == ["the tool"]


def test_an_addition_that_cannot_be_made_is_an_error(monkeypatch):
    def fail(_name):
        raise LookupError("no")

    monkeypatch.setattr(spawn, "get_preparation_data", fail)
    with pytest.raises(LookupError):
        preparation.capture()


KNOWN = [
    *("authkey", "dir", "init_main_from_name", "init_main_from_path", "log_level", "log_to_stderr", "name"),
    *("orig_dir", "start_method", "sys_argv", "sys_path"),
]


def test_what_multiprocessing_itself_prepares_is_no_addition(monkeypatch):
    asked = []
    data = dict.fromkeys(KNOWN, 1)
    monkeypatch.setattr(spawn, "get_preparation_data", lambda name: asked.append(name) or data)
    assert preparation.capture() is None
    assert asked == ["PidfdPoolWorker"]
    data["another"] = 2
    assert pickle.loads(preparation.capture()) == {"another": 2}


def test_where_nobody_has_replaced_the_function_or_loaded_the_module_nobody_is_asked(monkeypatch):
    assert not preparation.is_replaced(spawn.get_preparation_data, spawn)
    assert preparation.is_replaced(set_up, spawn)
    assert preparation.is_replaced(len, spawn)
    assert preparation.is_replaced(None, spawn)
    monkeypatch.setattr(spawn, "get_preparation_data", lambda _: {"another": 2})
    monkeypatch.delitem(sys.modules, "multiprocessing.spawn")
    assert preparation.capture() is None
