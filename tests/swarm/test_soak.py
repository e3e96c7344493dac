"""Minutes of chaos: nodes hang, crash, leak, stop, fork away; nodes and template are killed and stopped from outside;
the swarm is resized and restarted meanwhile.

However that goes, no node ever has two processes (unless that was asked for), every death is told once and in order,
and in the end all nodes are healthy again and nothing is left. Not part of the usual run; `tox -e soak`. The seed is
printed, and PIDFDPOOL_SEED replays its choices.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections import Counter

import pytest

from pidfdpool.pidfd import Pidfd
from pidfdpool.swarm import EventKind, NodeState, Swarm
from tests.conditions import open_descriptors
from tests.swarm import chaotic

SECONDS = float(os.environ.get("PIDFDPOOL_SOAK_SECONDS", "60"))
MOST_NODES = 5
HARMS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGSTOP)
TEMPLATE_PAUSE = 15.0  # seconds; a swarm whose templates are lost more often gives up
GROWTH = 32 << 20  # bytes that the host may grow by; each restart's kilobyte would show


class Told:
    """What the swarm tells, and whether it makes sense. Called in the supervisor's thread."""

    def __init__(self, exclusive):
        self.counts = Counter()
        self.wrong = []
        self._exclusive = exclusive
        self._alive = {}
        self._attempts = Counter()

    def __call__(self, event):
        self.counts[event.kind.value] += 1
        alive = self._alive.setdefault(event.node, set())
        if event.kind in (EventKind.STARTED, EventKind.RESTARTED):
            if self._exclusive and alive:
                self.wrong.append(f"started while {alive} live: {event}")
            before = 0 if event.kind is EventKind.STARTED else self._attempts[event.node]  # the node may be a new one
            if event.attempt <= before:
                self.wrong.append(f"an attempt that was before: {event}")
            self._attempts[event.node] = event.attempt
            alive.add(event.attempt)
        elif event.kind is EventKind.START_FAILED:
            self._attempts[event.node] = 0  # it may be a new one, whose first attempt this was
        elif event.kind is EventKind.DIED:
            if event.death.uptime > 0.0 and event.attempt not in alive:
                self.wrong.append(f"died without being alive: {event}")
            alive.discard(event.attempt)

    @property
    def alive(self):
        return {node: alive for node, alive in self._alive.items() if alive}


def harm(swarm, chance):
    """Do something to the swarm, from outside or by asking it."""
    dice = chance.random()
    status = swarm.status()
    if dice < 0.5:
        pids = [node.pid for node in status.nodes if node.pid is not None]
        if pids:
            hit(chance.choice(pids), chance.choice(HARMS))
    elif dice < 0.55:
        swarm.resize(chance.randint(1, MOST_NODES))
    elif dice < 0.6:
        swarm.restart(rolling=chance.random() < 0.7)
    elif dice < 0.7:
        swarm.signal(signal.SIGRTMIN, chance.getrandbits(64))
    elif dice < 0.72:
        swarm.stacks(0.1)
    else:
        assert swarm.ping(20)


def hit(pid, number):
    try:
        with Pidfd.open(pid) as victim:
            victim.send_signal(number)
    except (ProcessLookupError, OSError):
        pass  # it has ended meanwhile


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize(("way", "overlap"), [("spawn", False), ("spawn", True), ("fork", False)])
def test_chaos_ends_with_every_node_healthy(way, overlap, tmp_path):
    seed = int(os.environ.get("PIDFDPOOL_SEED", random.randrange(1 << 30)))
    print("PIDFDPOOL_SEED", seed, way, overlap)
    chance = random.Random(seed)
    told = Told(exclusive=not overlap)
    options = {"report_timeout": 0.5, "start_timeout": 5.0, "stop_timeout": 0.3, "restart_pause": 0.01}
    options |= {"restart_pause_limit": 0.1, "intensity": None, "restart": "always", "overlap": overlap}
    options |= {"max_memory": 120 << 20, "memory_interval": 0.1, "max_age": 5.0}
    swarm = Swarm(
        chaotic.run,
        3,
        args=(str(tmp_path), seed, not overlap, way == "fork"),
        mp_context=way,
        on_event=told,
        **options,
    )
    with swarm:
        assert swarm.wait_until_healthy(1, timeout=30)
        end, before = time.monotonic() + SECONDS / 3, None
        next_template = time.monotonic() + TEMPLATE_PAUSE / 3
        while time.monotonic() < end:
            harm(swarm, chance)
            template = swarm.status().template_pid
            if way == "spawn" and template is not None and time.monotonic() > next_template:
                next_template = time.monotonic() + TEMPLATE_PAUSE
                hit(template, chance.choice(HARMS))
            time.sleep(chance.uniform(0, 0.05))
            assert not told.wrong
            if before is None and time.monotonic() > end - SECONDS / 6:
                before = resident()
        (tmp_path / chaotic.QUIET_DOWN).touch()
        assert swarm.wait_until_healthy(timeout=60), swarm.status()
        print(dict(told.counts), f"grew by {resident() - before} bytes, {len(open_descriptors())} descriptors")
        assert resident() - before < GROWTH
    assert not told.wrong
    assert not told.alive
    assert {node.state for node in swarm.status().nodes} == {NodeState.STOPPED}
    assert not list(tmp_path.glob("two-of-*"))
