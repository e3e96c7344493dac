"""Tornado: its Subprocess reaps upon SIGCHLD, and the parent of `fork_processes` takes every child with os.wait()."""

from __future__ import annotations

import json
import os
import re
import signal
import sys

import pytest

from pidfdpool.pidfd import Pidfd
from tests.hosts.observing import Observed, expect, expect_gone, expect_nothing_left, run_clean, within
from tests.hosts.programs.web import SUM
from tests.hosts.serving import free_port, serve

pytest.importorskip("tornado")

SECTION = "Tornado"
CODES = [0, 1, 3, 7, 77, 255]


def told(contender, story):
    command = [sys.executable, "-m", "tests.hosts.programs.tornado_children", story]
    found = json.loads(run_clean(contender, command, seconds=15.0 if contender == "standard" else 40.0))
    if isinstance(found, dict):
        raise Observed(found["error"])
    expect_nothing_left(os.environ)
    return found


@pytest.mark.case(SECTION, "processes of Tornado's run and end while a pool works in run_in_executor", ways="both")
def test_children_and_a_pool(contender):
    codes, doubles = told(contender, "together")
    expect(codes == CODES, "wrong exit codes of Tornado's processes", codes)
    expect(doubles == [2 * number for number in range(20)], "wrong results", doubles)


@pytest.mark.case(SECTION, "workers of the pool crash while processes of Tornado's run and end", ways="both")
def test_children_and_crashing_workers(contender):
    codes, crashes, doubles = told(contender, "crashes")
    expect(codes == CODES, "wrong exit codes of Tornado's processes", codes)
    expect(crashes == len(CODES), "a crash is not told", crashes)
    expect(doubles == [2 * code for code in CODES], "wrong results", doubles)


def tornado(contender, folder, processes):
    port = free_port()
    command = [sys.executable, "-m", "tests.hosts.programs.tornado_app", str(port), str(processes)]
    return serve(contender, command, port, folder)


def use(server, contender, times=4):
    """Make requests that use the pool; return the pids of the processes that answered and of their pools' workers."""
    seconds = 5.0 if contender == "standard" else 20.0
    found = set()
    for _ in range(times):
        said = server.get("/", seconds)
        expect(said["sum"] == SUM, "a wrong result")
        expect(server.get("/double", seconds) == 42, "a wrong result")
        found |= {said["pid"], said["worker"]}
    return found


def stop(server, processes):
    for _ in range(processes):
        server.get("/stop")
    expect(server.wait(15.0, "the server does not end") == 0, "the server ends with an error", server.log())
    expect_nothing_left(os.environ)


@pytest.mark.case(SECTION, "an HTTP server with a pool; a worker exits with code 3, and requests go on", ways="both")
def test_a_server(contender, tmp_path):
    with tornado(contender, tmp_path, 1) as server:
        use(server, contender)
        expect(server.get("/crash?code=3")["error"], "the crash is not told")
        use(server, contender)
        stop(server, 1)


@pytest.mark.case(
    SECTION,
    "a pool is used, then fork_processes(2); the processes and their parent use it on, workers of it crash",
    ways="both",
)
def test_forked_processes_inherit_a_pool(contender, tmp_path):
    with tornado(contender, tmp_path, 2) as server:
        use(server, contender)
        for _ in range(3):
            expect(server.get("/crash?code=3", 5.0 if contender == "standard" else 20.0)["error"], "no crash told")
        use(server, contender)
        stop(server, 2)
        survived = re.search(r"the parent's pool survived (\d+) crashes", server.log())
        expect(survived and int(survived[1]) > 0, "the parent's pool does not go on", server.log())


@pytest.mark.case(
    SECTION,
    "a process of fork_processes(2) is killed; its pool goes with it, and Tornado starts another",
    ways="both",
)
def test_a_forked_process_is_killed(contender, tmp_path):
    with tornado(contender, tmp_path, 2) as server:
        said = server.get("/", 5.0 if contender == "standard" else 20.0)
        with Pidfd.open(said["pid"]) as process:
            process.send_signal(signal.SIGKILL)
        expect_gone([said["pid"], said["worker"]], "its pool's worker lives on")
        within(
            10.0,
            lambda: f"(pid {said['pid']}) killed by signal 9, restarting" in server.log(),
            "no restart",
            server.log,
        )
        use(server, contender)
        stop(server, 2)
