"""In which order a template does what it is told at its start, and what a worker's initializer gets."""

from __future__ import annotations

import sys

import pytest

from pidfdpool.serialization import payload, scripts
from pidfdpool.worker import boot as boots
from pidfdpool.worker import context, rebuild_guard, script_module
from pidfdpool.worker.boot import PIDFD, Boot

DONE: list = []


def note(*what):
    DONE.append(what or rebuild_guard.state.activity)


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    """Give the name of a module that notes when it is imported."""
    DONE.clear()
    (tmp_path / "noting_its_import.py").write_text(f"from {__name__} import DONE; DONE.append('module')")
    monkeypatch.syspath_prepend(tmp_path)
    yield "noting_its_import"
    sys.modules.pop("noting_its_import", None)


def told(**options):
    fields = {"preload": (), "forked": False, "preload_call": None, "initializer": None} | options
    return Boot(handles=PIDFD, host_pid=1, host_name="MainProcess", argv=[], authkey=None, **fields)


def test_tools_set_themselves_up_before_the_modules_the_script_and_the_call(module, monkeypatch):
    """Guards: modules that are imported before are not seen by a tool that measures, or patches what they take."""
    monkeypatch.setattr(boots.preparation, "restore", DONE.append)
    monkeypatch.setattr(script_module, "run_script", lambda: DONE.append("script"))
    call = payload.dumps((note, (), {}))
    boot = told(preload=(module,), preload_call=call, runs_script=True, preparation=b"tools")
    monkeypatch.setattr(payload, "loads", lambda buffers: (lambda: DONE.append("call")) if buffers is call else None)
    assert boot.has_preload
    boot.run_preload()
    assert DONE == [b"tools", "module", "script", "call"]


def test_a_preload_call_that_needs_the_script_is_loaded_again_when_that_was_run(monkeypatch):
    def load(_buffers):
        DONE.append("load")
        if DONE.count("load") == 1:
            raise scripts.NeedsScript
        return lambda: DONE.append("call")

    monkeypatch.setattr(payload, "loads", load)
    monkeypatch.setattr(script_module, "run_script", lambda: DONE.append("script"))
    told(preload_call=[b""]).run_preload()
    assert DONE == ["load", "script", "load", "call"]


@pytest.mark.parametrize("option", ["preload", "preload_call", "runs_script", "preparation"])
def test_whatever_runs_code_of_the_users_in_the_template_is_a_preload(option):
    assert not told().has_preload
    assert told(**{option: {"preload": ("os",), "runs_script": True}.get(option, b"")}).has_preload


def test_what_is_told_arrives(module, monkeypatch):
    monkeypatch.setattr(context, "worker", None)  # the initializer's worker is this process, for this test
    boot = told(preload=(module,), initializer=payload.dumps((note, (1, "two"))), spin=0.5, watch_memory=True)
    received = Boot.load(boot.dump(), [])
    assert (received.preload, received.spin, received.watch_memory) == ((module,), 0.5, True)
    received.run_initializer()
    assert DONE == [(1, "two")]
    assert rebuild_guard.state.activity is None, "it is rebuilt, and may use a pool when it runs"
