"""gevent, which replaces threads, locks, polling and forking, and reaps children in C."""

from __future__ import annotations

import pytest

from tests.conditions import marked
from tests.hosts.observing import expect, expect_nothing_left, host, python, run_clean, within
from tests.hosts.swarms.nodes import kill_and_expect_another

pytest.importorskip("gevent")

SECTION = "gevent, patched"
BODY = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent, os, subprocess, sys
from tests.hosts.programs.swarms.contender import LINGER, Swarm
"""
BESIDE_CHILDREN = """
swarm = Swarm(2, sys.argv[1])
codes = []
while not os.path.exists(os.path.join(sys.argv[1], "end")):
    codes.append(subprocess.call(["sh", "-c", f"exit {len(codes) % 5}"]))
    gevent.sleep(0.01)
assert codes == [number % 5 for number in range(len(codes))], codes
swarm.stop()
"""
WAITING = """
ticks = 0
def tick():
    global ticks
    while True:
        gevent.sleep(0.01)
        ticks += 1
ticker = gevent.spawn(tick)
swarm = Swarm(2, sys.argv[1], target=LINGER)
assert swarm.wait_until_healthy(timeout=20)
before = ticks
swarm.stop()
print(ticks - before)
"""


@pytest.mark.case(
    SECTION, "a node is killed (SIGKILL), and started again, beside gevent's subprocesses; the swarm is stopped"
)
def test_a_node_is_killed(contender, tmp_path):
    env = marked("gevent")
    with host(contender, python(BODY + BESIDE_CHILDREN, str(tmp_path)), env=env) as process:
        kill_and_expect_another(tmp_path)
        (tmp_path / "end").touch()
        within(10, lambda: process.poll() is not None, "the host does not end")
        _, err = process.communicate()
    expect(process.returncode == 0, f"the host fails: {(err.strip().splitlines() or [''])[-1]}", err)
    expect_nothing_left(env)


def test_greenlets_go_on_while_one_waits_for_the_end_of_a_swarm(tmp_path):
    """Its nodes take half a second to end."""
    assert int(run_clean("spawn", python(BODY + WAITING, str(tmp_path)))) >= 10
