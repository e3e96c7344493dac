"""Hosts that may have few processes: a small pids.max, as containers and units of systemd have, and RLIMIT_NPROC.

Whatever cannot be started, no future may hang, and when the limit is lifted the same pool works.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conditions import processes
from tests.hosts.observing import expect, host, within

SECTION = "Limits to processes"

CRAMPED = [sys.executable, "-m", "tests.hosts.programs.cramped"]
PIDS = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))  # of cgroup v1, and of v2


@pytest.fixture
def cgroup():
    """Make a cgroup of this test's own, in which processes are counted."""
    name = f"pidfdpool-test-{os.getpid()}-{time.monotonic_ns()}"
    for root in PIDS:
        folder = root / name
        with suppress(OSError):
            folder.mkdir()
            if (folder / "pids.max").exists():
                break
            folder.rmdir()
    else:
        pytest.skip("no cgroup with pids.max can be made here")
    yield folder
    (folder / "pids.max").write_text("max")
    within(10, lambda: _removed(folder), "the cgroup is not empty", (folder / "cgroup.procs").read_text)


def _removed(folder):
    for pid in (folder / "cgroup.procs").read_text().split():
        (folder.parent / "cgroup.procs").write_text(pid)  # what the standard pool leaves is ended later
    with suppress(OSError):
        folder.rmdir()
    return not folder.exists()


@pytest.fixture
def alone():
    """Return a command to put before another, which then runs under a user of its own."""
    if os.geteuid() or shutil.which("setpriv") is None:
        pytest.skip("running as another user needs root and setpriv(1)")
    taken = set()
    for pid in processes():
        with suppress(OSError):
            taken.add(os.stat(f"/proc/{pid}").st_uid)
    user = next(user for user in range(70000 + os.getpid() % 1000, 80000) if user not in taken)
    # It may read whatever the one who runs the tests may read: the interpreter may lie in that one's home.
    reading = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    return ["setpriv", "--reuid", str(user), "--clear-groups", *reading]


def check(contender, command):
    with host(contender, command) as process:
        refused = process.stdout.readline()
        expect(refused, "the host ends at its start")
        verdict = process.stdout.readline().strip()
        expect(verdict == "works again", verdict, refused)
        expect(process.wait(10) == 0, "the host does not end well")
        expect(not process.stderr.read(), "noise on standard error")


@pytest.mark.case(SECTION, "pids.max is reached at the first submit, and lifted; processes that it leaves room for:")
@pytest.mark.parametrize("more", [0, 1, 2, 3])
def test_pids_max(contender, more, cgroup):
    check(contender, [*CRAMPED, str(more), str(cgroup)])


@pytest.mark.case(SECTION, "the same with RLIMIT_NPROC; processes that it leaves room for:")
@pytest.mark.parametrize("more", [0, 2, 3])
def test_rlimit_nproc(contender, more, alone):
    check(contender, [*alone, *CRAMPED, str(more), "rlimit"])
