"""How a process becomes one of multiprocessing's, before and after that is loaded. Each test is a process."""

from __future__ import annotations

import importlib
import multiprocessing.process
import os
import sys

import pytest

from pidfdpool.worker import identity, import_hook
from pidfdpool.worker.boot import PIDFD, Boot
from tests.conditions import in_forked_child

BOOT = Boot(
    handles=PIDFD, host_pid=77, host_name="TheHost", argv=[], authkey=b"key", preload=(), forked=False,
    preload_call=None, initializer=None,
)  # fmt: skip
HOST_FD = 9


def in_process(look):
    assert in_forked_child(look) == "ok"


def without(*names):
    """Have these modules be not loaded yet."""
    for name in list(sys.modules):
        if name in names or name.partition(".")[0] in names:
            del sys.modules[name]


def waiting():
    return [finder.name for finder in sys.meta_path if isinstance(finder, import_hook._Finder)]


def check(process):
    me, parent = process.current_process(), process.parent_process()
    assert (me.name, me._identity, me.daemon, me.pid) == ("AWorker", (4,), False, os.getpid())
    assert (bytes(me.authkey), type(me.authkey)) == (b"key", process.AuthenticationString)
    assert (me._parent_pid, me._parent_name, me._start_method) == (77, "TheHost", None)
    assert (parent.name, parent.pid, parent.sentinel) == ("TheHost", 77, HOST_FD)
    assert me._config["semprefix"] == "/mp"
    assert process.active_children() == []
    child = process.BaseProcess()
    assert child.name == "BaseProcess-4:1", "its own processes are counted from the first on"


class OfTheHost:
    """A process that the host has started, and that the fork has copied."""

    class _popen:  # noqa: N801
        poll = staticmethod(lambda: None)


def test_where_it_is_loaded_it_is_told_at_once():
    def look():
        multiprocessing.process._children.add(OfTheHost())
        assert len(multiprocessing.active_children()) == 1
        identity.become_process("AWorker", (4,), BOOT, HOST_FD)
        assert waiting() == []
        check(multiprocessing.process)

    in_process(look)


@pytest.mark.parametrize("loaded_logging", [False, True])
def test_where_it_is_not_loaded_it_is_told_when_it_is(loaded_logging):
    def look():
        without("multiprocessing", *(() if loaded_logging else ("logging",)))
        if loaded_logging:
            sys.modules["logging"] = None
        identity.prepare = lambda: None
        identity.become_process("AWorker", (4,), BOOT, HOST_FD)
        assert "multiprocessing.process" not in sys.modules
        assert sorted(waiting()) == (
            ["multiprocessing.process"] if loaded_logging else ["logging", "multiprocessing.process"]
        )
        check(importlib.import_module("multiprocessing.process"))
        assert "multiprocessing.process" not in waiting()

    in_process(look)


def test_logging_loads_it_in_a_worker():
    def look():
        without("multiprocessing", "logging")
        identity.become_process("AWorker", (4,), BOOT, HOST_FD)
        logging = importlib.import_module("logging")
        check(sys.modules["multiprocessing.process"])
        assert logging.LogRecord("", 0, "", 0, "", (), None).processName == "AWorker"
        assert waiting() == []

    in_process(look)


@pytest.mark.parametrize("loaded", [False, True])
def test_a_template_that_has_loaded_logging_loads_it_for_all_workers(loaded):
    def look():
        without("multiprocessing")
        if not loaded:
            without("logging")
        identity.prepare()
        assert ("multiprocessing.process" in sys.modules) is loaded
        assert "logging" in sys.modules or not loaded

    in_process(look)


def test_where_logging_is_loaded_a_worker_is_told_at_once():
    def look():
        without("multiprocessing")
        identity.become_process("AWorker", (4,), BOOT, HOST_FD)
        check(sys.modules["multiprocessing.process"])

    in_process(look)


def test_the_template_has_no_place_among_the_hosts_processes():
    def look():
        identity.become_process(identity.TEMPLATE, (), BOOT, HOST_FD)
        me = multiprocessing.process.current_process()
        assert (me.name, me._identity) == ("PidfdPoolTemplate", ())
        assert multiprocessing.process.BaseProcess().name == "BaseProcess-1"

    in_process(look)


def test_work_is_done_as_it_is_where_no_tool_has_replaced_the_bootstrap():
    def look():
        assert not identity.bootstrap_is_replaced()
        assert identity.run(lambda: 7) == 7
        del sys.modules["multiprocessing.process"]
        assert not identity.bootstrap_is_replaced()
        assert identity.run(lambda: 8) == 8

    in_process(look)


@pytest.mark.parametrize("fails", [False, True])
def test_work_is_done_within_a_bootstrap_that_a_tool_has_replaced(fails):
    order = []

    def look():
        identity.become_process("AWorker", (4,), BOOT, HOST_FD)
        before = multiprocessing.process.current_process()

        def bootstrap(me, *arguments, **keywords):
            order.append(("start", me is before, arguments, keywords))
            if not fails:
                me.run()
            order.append("stop")
            return 0

        multiprocessing.process.BaseProcess._bootstrap = bootstrap
        assert identity.bootstrap_is_replaced()
        status = identity.run(lambda: order.append("work") or 7)
        start = ("start", True, (), {"parent_sentinel": HOST_FD})
        assert (status, order) == ((1, [start, "stop"]) if fails else (7, [start, "work", "stop"]))

    in_process(look)
