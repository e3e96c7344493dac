"""The nodes of a host that is being tested, as they tell of themselves in a folder."""

from __future__ import annotations

import signal
from pathlib import Path

from pidfdpool.pidfd import Pidfd
from tests.conditions import is_alive
from tests.hosts.observing import expect, within

NODES = 2


def living(folder: Path, number: int) -> list[int]:
    """Return the pids of the processes of this node that are alive."""
    return [pid for path in folder.glob(f"{number}-*") if is_alive(pid := int(path.name.partition("-")[2]))]


def all_live(folder: Path, seconds: float = 20.0) -> list[int]:
    """Wait until every node has a process, and return their pids by number."""
    within(seconds, lambda: all(living(folder, number) for number in range(NODES)), "the nodes do not start")
    return [living(folder, number)[0] for number in range(NODES)]


def kill_and_expect_another(folder: Path, seconds: float = 10.0) -> None:
    """Kill the process of one node; fail the case unless the node is started again, and the other one lives on."""
    first, second = all_live(folder)
    with Pidfd.open(first) as process:
        process.send_signal(signal.SIGKILL)
    within(seconds, lambda: set(living(folder, 0)) - {first}, "a node that was killed is not started again")
    expect(is_alive(second), "the other node does not live on")
    expect(len(living(folder, 0)) == 1, "there are two processes of one node")
