"""Twisted: its reactor reaps the processes that it spawned when SIGCHLD comes, through a wakeup fd."""

from __future__ import annotations

import json
import os
import sys

import pytest

from tests.hosts.observing import Observed, expect, expect_nothing_left, run_clean

pytest.importorskip("twisted")

SECTION = "Twisted"
CODES = [0, 1, 3, 7, 77, 255]

handlers = pytest.mark.parametrize("handlers", ["with signal handlers", "without signal handlers"])


def told(contender, story, handlers):
    command = [sys.executable, "-m", "tests.hosts.programs.twisted_children", story, handlers.split()[0]]
    out = run_clean(contender, command, seconds=15.0 if contender == "standard" else 40.0)
    found = json.loads(out)
    if isinstance(found, dict):
        raise Observed(found["error"])
    expect_nothing_left(os.environ)
    return found


@pytest.mark.case(SECTION, "the reactor's own processes run and end while a pool works", ways="both")
@handlers
def test_children_and_a_pool(contender, handlers):
    codes, doubles = told(contender, "together", handlers)
    expect(codes == CODES, "wrong exit codes of the reactor's processes", codes)
    expect(doubles == [2 * number for number in range(20)], "wrong results", doubles)


@pytest.mark.case(SECTION, "workers of the pool crash while the reactor's own processes run and end", ways="both")
@handlers
def test_children_and_crashing_workers(contender, handlers):
    codes, crashes, doubles = told(contender, "crashes", handlers)
    expect(codes == CODES, "wrong exit codes of the reactor's processes", codes)
    expect(crashes == len(CODES), "a crash is not told", crashes)
    expect(doubles == [2 * code for code in CODES], "wrong results", doubles)


@pytest.mark.case(SECTION, "a worker, made while the reactor runs, is sent SIGTERM", ways="both")
@handlers
def test_a_worker_is_terminated(contender, handlers):
    ended, status, running = told(contender, "terminate_a_worker", handlers)
    expect(ended, "the worker does not end")
    expect(status == -15, "a wrong end of the reactor's process", status)
    expect(running, "the reactor stops")
