"""What starts and watches a host from outside: Open MPI, sandboxes, a supervisor of services."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager

import pytest

from tests.hosts.far import debian, scripts
from tests.hosts.forking import kill
from tests.hosts.observing import expect, expect_gone, expect_nothing_left

SECTION = "Open MPI, sandboxes and runit"
PYTHON = debian.PYTHON

MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--mca", "btl", "self,vader", "-n", "2"]
COMMANDS = {
    "bwrap": lambda file: [
        *("bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--bind", "/", "/", "--proc", "/proc"),
        *("--dev", "/dev", PYTHON, file),
    ],
    "firejail": lambda file: [
        *("firejail", "--quiet", "--noprofile", "--private-dev", "--net=none", "--caps.drop=all", "--nonewprivs"),
        *("--seccomp", PYTHON, file),
    ],
}


@pytest.fixture(params=COMMANDS)
def sandbox(request):
    debian.needs(request.param)
    return COMMANDS[request.param]


@pytest.mark.case(SECTION, "in a sandbox: tasks, workers that crash, tasks, the end")
def test_sandboxes(contender, sandbox, home):
    told = scripts.work(contender, home, sandbox)
    expect(told == ["worked"], "the script does not come to its end", told)


@pytest.mark.case(SECTION, "the sandbox is killed (SIGKILL) while workers compute in it")
def test_killed_sandboxes(contender, sandbox, home):
    scripts.be_killed(contender, home, sandbox)


RANKS = """
from mpi4py import MPI
together = MPI.COMM_WORLD
with ProcessPoolExecutor(2) as pool:
    compute(pool)
    total = together.allreduce(sum(pool.map(tasks.double, range(together.rank, 20, together.size))), MPI.SUM)
    expect(total == 380, "a wrong result", total)
    if together.rank == 1:
        lose(pool, tasks.leave, 3)
    together.Barrier()
use()
names = together.gather(MPI.Get_processor_name(), root=0)
if names:
    tell(len(names))
"""


@pytest.mark.case(SECTION, "Open MPI: two processes, each with a pool; a worker of one crashes", ways="both")
def test_open_mpi(contender, home):
    debian.needs("mpirun")
    told = scripts.work(contender, home, lambda file: [*MPIRUN, PYTHON, file], RANKS, noise=True)
    expect(told == [2], "the processes do not come to their end", told)


@pytest.mark.case(SECTION, "Open MPI: one process is killed (SIGKILL) while both compute: mpirun ends the other")
def test_a_killed_process_of_open_mpi(contender, home):
    debian.needs("mpirun")
    code = f"from mpi4py import MPI\n{scripts.STAY}"
    with scripts.staying(contender, home, lambda file: [*MPIRUN, PYTHON, file], code) as host:
        one, other = host.next_told(), host.next_told()
        kill(one[0])
        expect_gone(other, "the other process or its workers are left", seconds=15)
        expect_gone(one, "the killed process's workers are left")
        expect_nothing_left(host.env)


def control(command, folder):
    """Have the service that is run in this folder do something, and wait until it has."""
    subprocess.run(["sv", "-w", "10", command, folder], stdout=subprocess.DEVNULL, timeout=20, check=True)


@contextmanager
def service(contender, home):
    """Run the script as a service; yield its host and folder, and stop it with the block."""
    debian.needs("runsv", "sv")

    def command(file):
        start = file.parent / "run"
        start.write_text(f"#!/bin/sh\nexec {PYTHON} {file}\n")
        start.chmod(0o755)
        return ["runsv", str(file.parent)]

    with scripts.staying(contender, home, command) as host:
        folder = host.process.args[-1]
        try:
            yield host, folder
        finally:
            control("force-shutdown", folder)


@pytest.mark.case(SECTION, "runit: the service is restarted (sv restart) while its workers compute; then stopped")
def test_a_service_is_restarted(contender, home):
    with service(contender, home) as (host, folder):
        before = host.next_told()
        control("restart", folder)
        expect_gone(before, "the old service's workers are left")
        host.next_told()
    expect_nothing_left(host.env)


@pytest.mark.case(SECTION, "runit: the service is killed (SIGKILL) while its workers compute; runsv starts it anew")
def test_a_service_is_killed(contender, home):
    with service(contender, home) as (host, _):
        before = host.next_told()
        kill(before[0])
        expect_gone(before, "the killed service's workers are left")
        host.next_told()
    expect_nothing_left(host.env)
