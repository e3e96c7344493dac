"""Numbers of dead nodes that belong to other processes by now: those are never signalled.

As tests/hosts/test_pid_reuse.py, in a pid namespace whose pid 1 has the kernel give numbers again.
"""

from __future__ import annotations

import json
import os
import shutil
import sys

import pytest

from tests.hosts.observing import expect, run
from tests.hosts.test_pid_reuse import NAMESPACE

NUMBERS = [sys.executable, "-m", "tests.hosts.programs.swarms.numbers"]


@pytest.mark.costly_table
@pytest.mark.parametrize("way", ["spawn", "fork"])
@pytest.mark.parametrize(
    "name", ["starts again", "is asked", "same number", "template dies", "stop", "kill", "host dies"]
)
def test_nobody_is_taken_for_a_dead_node(way, name):
    if os.geteuid() or shutil.which("unshare") is None:
        pytest.skip("a pid namespace needs root and unshare(1)")
    if not os.path.exists("/proc/sys/kernel/ns_last_pid"):
        pytest.skip("this kernel cannot be told which pid to give next")
    done = run(way, [*NAMESPACE, *NUMBERS, name, "leaves SIGCHLD alone"], seconds=40)
    expect(done.returncode == 0, "the host does not get through", done.stdout + done.stderr)
    assert json.loads(done.stdout) == []
