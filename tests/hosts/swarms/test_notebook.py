"""A Jupyter kernel with a swarm whose function was defined in a cell: interrupted, restarted."""

from __future__ import annotations

import pytest

from tests.conditions import is_alive, marked
from tests.hosts.notebook import notebook
from tests.hosts.observing import expect, expect_gone, expect_nothing_left
from tests.hosts.swarms.nodes import all_live, kill_and_expect_another

SECTION = "Jupyter notebooks"
OURS = """
from tests.hosts.programs.swarms.contender import Swarm, say
def live(node, folder):
    say(node.id, folder)
    while not node.stopping.wait(0.05):
        node.healthy()
swarm = Swarm(2, "nodes", target=live)
"""
STANDARD = """
import time
from tests.hosts.programs.swarms.contender import Swarm, say
def live(number, folder):
    say(number, folder)
    while True:
        time.sleep(0.05)
swarm = Swarm(2, "nodes", target=live)
"""


@pytest.mark.case(
    SECTION, "a cell's function in a swarm; a node is killed, and started again; an interrupt; the kernel restarts"
)
def test_a_swarm_of_a_cell(contender, tmp_path):
    env = marked("notebook")
    folder = tmp_path / "nodes"
    folder.mkdir()
    before = marked("before")
    with notebook(contender, tmp_path, env) as opened:
        opened.run(f"import os; os.environ.update({before!r})")
        opened.run(STANDARD if contender == "standard" else OURS)
        kill_and_expect_another(folder)
        pids = all_live(folder)
        opened.ask("interrupt")
        opened.run("print('the kernel goes on')")
        expect(all(is_alive(pid) for pid in pids), "an interrupt of the kernel ends nodes")
        opened.ask("restart", seconds=30)
        expect_gone(pids, "nodes of the kernel before are left")
        expect_nothing_left(before)
