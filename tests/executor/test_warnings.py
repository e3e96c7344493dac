"""Hosts in which warnings are errors, or are shown by code that fails: no fork of the pool's is undone by them."""

from __future__ import annotations

import sys

import pytest

from tests.conditions import run_python

WARNS = sys.version_info >= (3, 12)  # of forks beside other threads
ERRORS = ["error", "error::DeprecationWarning"]

USE = """
import os, sys, threading, warnings
from pidfdpool import PidfdPoolExecutor
from tests.conditions import children, eventually
from tests import calls

def start_thread():
    threading.Thread(target=threading.Event().wait, daemon=True).start()

def use(pool):
    assert [pool.submit(calls.double, n).result(timeout=20) for n in range(4)] == [0, 2, 4, 6]
    pool.submit(os._exit, 3).exception(timeout=20)
    assert pool.submit(calls.double, 4).result(timeout=20) == 8

def check(way, **options):
    with PidfdPoolExecutor(2, mp_context=way, **options) as pool:
        use(pool)
    eventually(lambda: not children(os.getpid()), "the host has no child")
"""


def run_host(code, way, *flags, **options):
    done = run_python(USE + code, way, flags=flags, **options)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("errors", ERRORS)
def test_a_preload_may_start_threads_where_warnings_are_errors(way, errors):
    done = run_host("check(sys.argv[1], preload=start_thread)", way, "-W", errors)
    assert done.stderr == ""


def test_a_preload_may_start_threads_where_the_environment_makes_warnings_errors(way):
    run_host("check(sys.argv[1], preload=start_thread)", way, env={"PYTHONWARNINGS": "error"})


def test_a_preload_may_make_warnings_errors(way):
    run_host(
        """
def preload():
    start_thread()
    warnings.simplefilter("error")

check(sys.argv[1], preload=preload)
""",
        way,
    )


@pytest.mark.parametrize("errors", ERRORS)
def test_a_host_with_threads_where_warnings_are_errors_keeps_no_child(way, errors):
    done = run_host("start_thread(); check(sys.argv[1])", way, "-W", errors)
    assert done.stderr == ""


@pytest.mark.parametrize("kind", ["ZeroDivisionError", "SystemExit", "KeyboardInterrupt"])
def test_a_host_that_fails_to_show_warnings_keeps_no_child(kind):
    run_host(
        """
def fail(*_, **__):
    raise kind

kind = getattr(__builtins__, sys.argv[1])
start_thread()
warnings.simplefilter("always")
warnings.showwarning = fail
check("fork")
""",
        kind,
    )


@pytest.mark.parametrize("errors", [True, False])
def test_what_the_host_catches_stays_its_own(errors):
    """Guards against filters that are changed for other threads as well, or stay changed."""
    done = run_host(
        """
start_thread()
warnings.simplefilter("error" if sys.argv[1] == "True" else "always")
before = list(warnings.filters)
with warnings.catch_warnings(record=True) as caught:
    check("fork")
assert warnings.filters == before
print([(entry.category.__name__, "use of fork()" in str(entry.message)) for entry in caught])
""",
        str(errors),
    )
    assert done.stdout == (f"{[('DeprecationWarning', True)] if WARNS and not errors else []}\n")


def test_a_fork_of_a_workers_own_is_warned_of_as_ever(way):
    done = run_host(
        """
def fork():
    start_thread()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
    return len(caught)

with PidfdPoolExecutor(1, mp_context=sys.argv[1]) as pool:
    print(pool.submit(fork).result(timeout=20))
""",
        way,
    )
    assert done.stdout == f"{int(WARNS)}\n"
