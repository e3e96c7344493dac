"""Hosts that reap every child, ignore SIGCHLD or sit in os.wait(), with a swarm beside."""

from __future__ import annotations

import textwrap

import pytest

from tests.conditions import marked
from tests.hosts.observing import expect, expect_gone, expect_nothing_left, host, python, within
from tests.hosts.swarms.nodes import all_live, kill_and_expect_another

SECTION = "Signals and children of the host"

TRAPS = {
    "a SIGCHLD handler loops over waitpid(-1, WNOHANG)": """
        def reap(*_):
            try:
                while True:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                    if not pid:
                        return
                    reaped.append(os.waitstatus_to_exitcode(status))
            except ChildProcessError:
                pass
        signal.signal(signal.SIGCHLD, reap)
        """,
    "SIGCHLD is ignored": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "a thread sits in os.wait()": """
        def wait():
            while True:
                try:
                    reaped.append(os.waitstatus_to_exitcode(os.wait()[1]))
                except ChildProcessError:
                    time.sleep(0.001)
        threading.Thread(target=wait, daemon=True).start()
        """,
}
HOST = """
import os, signal, sys, threading, time
from tests.hosts.programs.swarms.contender import SPIN, Swarm
reaped = []
{trap}
swarm = Swarm(2, sys.argv[1])
while not os.path.exists(os.path.join(sys.argv[1], "end")):
    time.sleep(0.01)
swarm.stop()
print(sorted(set(reaped) - {{0}}))
"""


@pytest.mark.case(SECTION, "a node is killed (SIGKILL), and started again; then the swarm is stopped", ways="both")
@pytest.mark.parametrize("trap", TRAPS)
def test_a_node_is_killed(contender, trap, tmp_path):
    env = marked("trap")
    code = HOST.format(trap=textwrap.dedent(TRAPS[trap]))
    with host(contender, python(code, str(tmp_path)), env=env) as process:
        all_live(tmp_path)
        kill_and_expect_another(tmp_path, seconds=3.0 if contender == "standard" else 10.0)
        (tmp_path / "end").touch()
        within(10, lambda: process.poll() is not None, "the host does not end")
        out, err = process.communicate()
    expect(process.returncode == 0 and not err, "the host fails", err)
    expect(out == "[]\n", f"the host's handler reaps nodes: exit codes {out.strip()}")
    expect_nothing_left(env)


@pytest.mark.case(SECTION, "the host is killed (SIGKILL) while its nodes spin", ways="both")
def test_the_host_is_killed(contender, tmp_path):
    env = marked("killed")
    code = HOST.format(trap="").replace("Swarm(2, sys.argv[1])", "Swarm(2, sys.argv[1], target=SPIN)")
    with host(contender, python(code, str(tmp_path)), env=env) as process:
        pids = all_live(tmp_path)
        process.kill()
        expect_gone(pids, "nodes are left")
    expect_nothing_left(env)
