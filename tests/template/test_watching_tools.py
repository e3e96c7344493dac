"""Debuggers and profilers that watch the host: the pool works, they go on watching, and workers are not watched."""

from __future__ import annotations

import sys

import pytest

from tests.conditions import run_python

PRELUDE = """
import os, sys, threading
from pidfdpool import PidfdPoolExecutor

me = os.getpid()
way = sys.argv[1]
seen = []

def watched_work():
    return sys.gettrace(), sys.getprofile()

def call_and_count():
    "Return how often the tool that was inherited is called in this process."
    before = len(seen)
    watched_work()
    return len(seen) - before

def use(way=way):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        assert pool.submit(watched_work).result(timeout=20) == (None, None)
        assert pool.submit(call_and_count).result(timeout=20) == 0
        assert list(pool.map(abs, range(-20, 0), timeout=20)) == list(range(20, 0, -1))
"""


def run_host(code: str, *arguments: str, **options: object) -> str:
    done = run_python(PRELUDE + code, *arguments, flags=["-W", "error"], **options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_profilers_that_are_written_in_c(way):
    """They set a function of C's. What `sys.getprofile` tells of it cannot be called, or is None."""
    run_host(
        """
import ctypes

CALLBACK = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
look = CALLBACK(lambda *_: seen.append(os.getpid()) or 0)
for name in ("PyEval_SetProfile", "PyEval_SetTrace"):
    function = getattr(ctypes.pythonapi, name)
    function.restype = None
    told = sys.getprofile if name == "PyEval_SetProfile" else sys.gettrace
    for state in (ctypes.py_object(object()), ctypes.c_void_p(None)):
        function(look, state)
        before = told()
        assert not callable(before)
        use()
        assert told() is before
        seen.clear()
        watched_work()
        assert seen, "the host is not watched any more"
        function(ctypes.c_void_p(None), ctypes.c_void_p(None))
""",
        way,
    )


def test_the_standards_profiler(way):
    run_host(
        """
import cProfile
profile = cProfile.Profile()
profile.enable()
use()
watched_work()
profile.disable()
counts = {entry.code.co_name: entry.callcount for entry in profile.getstats() if not isinstance(entry.code, str)}
assert counts["use"] == counts["watched_work"] == 1, counts
""",
        way,
    )


@pytest.mark.skipif(not hasattr(sys, "monitoring"), reason="sys.monitoring is there since Python 3.12")
def test_monitoring_of_single_functions():
    """What a tool watches in one function only is not in its list of events."""
    run_host(
        """
monitoring = sys.monitoring
tool = monitoring.COVERAGE_ID
monitoring.use_tool_id(tool, "coverage")
monitoring.register_callback(tool, monitoring.events.LINE, lambda *_: seen.append(os.getpid()))
monitoring.set_local_events(tool, watched_work.__code__, monitoring.events.LINE)
use()
seen.clear()
watched_work()
assert seen == [me], seen
""",
        "fork",
    )


def test_a_wrapper_that_still_starts_threads(way):
    """Debuggers put one in the place of `_thread.start_new_thread`; gevent's greenlets are told by gevent."""
    run_host(
        """
import _thread
real = _thread.start_new_thread

def start(function, arguments, keywords={}):
    seen.append(me)
    return real(function, arguments, keywords)

_thread.start_new_thread = start
for name in ("_start_new_thread", "start_new_thread", "start_new"):
    for module in (_thread, threading):
        if hasattr(module, name):
            setattr(module, name, start)
use()
""",
        way,
    )


def test_a_debugger_that_listens(way):
    pytest.importorskip("debugpy")
    done = run_python(
        PRELUDE
        + """
import debugpy
debugpy.listen(("127.0.0.1", 0))
use()
print("done")
""",
        way,
        flags=["-X", "frozen_modules=off"],
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
