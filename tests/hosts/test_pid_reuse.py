"""Numbers of dead workers that belong to other processes by now: those are never signalled.

In a pid namespace of its own, pid 1 has the kernel give the very numbers of dead workers, templates and launchers to
innocent processes, which note what comes to them; see programs/numbers.py.
"""

from __future__ import annotations

import json
import os
import shutil
import sys

import pytest

from tests.hosts.observing import expect, run

SECTION = "Numbers of dead workers that other processes have got"

NUMBERS = [sys.executable, "-m", "tests.hosts.programs.numbers"]
NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


def scenario(contender, name, sigchld="leaves SIGCHLD alone", **options):
    """Run a scenario; return what it printed."""
    if os.geteuid() or shutil.which("unshare") is None:
        pytest.skip("a pid namespace needs root and unshare(1)")
    if not os.path.exists("/proc/sys/kernel/ns_last_pid"):
        pytest.skip("this kernel cannot be told which pid to give next")
    done = run(contender, [*NAMESPACE, *NUMBERS, name, sigchld], seconds=40, **options)
    expect(done.returncode == 0, "the host does not get through", done.stdout + done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.case(
    SECTION, "a worker dies while the host is stopped, its number is taken, the host goes on", ways="both"
)
@pytest.mark.parametrize("sigchld", ["leaves SIGCHLD alone", "ignores SIGCHLD"])
def test_while_the_host_stands_still(contender, sigchld):
    (harmed,) = scenario(contender, "while the host stands still", sigchld)
    expect(not harmed, f"the process that has the dead worker's number gets {' and '.join(sorted(set(harmed)))}")


@pytest.fixture(params=["pidfd", "fallback"])
def handles(request):
    """With pidfds, and as where there are none: then the template signals by number, which must be right, too."""
    return {"env": {"PIDFDPOOL_NO_PIDFD": "1" if request.param == "fallback" else ""}}


@pytest.mark.costly_table
@pytest.mark.parametrize("name", ["every way of dying", "kill_workers", "terminate_workers", "host dies"])
def test_nobody_is_taken_for_a_dead_worker(way, handles, name):
    assert scenario(way, name, **handles) == [[]]


def test_nobody_is_taken_for_a_dead_template(handles):
    assert scenario("spawn", "template dies", **handles) == [[]]


def test_two_workers_that_had_the_same_number_are_told_apart(way, handles):
    """The second one has the number of the first; outcomes and deaths are each its own."""
    told, harmed = scenario(way, "new worker", **handles)
    assert harmed == []
    assert [(name, pid) for name, pid, _ in told["told"]] == [("WorkerCrashed", told["number"])] * 2
    generations = [generation for *_, generation in told["told"]]
    assert generations[0] < generations[1]
    died = [status for pid, status in told["deaths"] if pid == told["number"]]
    assert died == ["killed by SIGKILL"] * 2
