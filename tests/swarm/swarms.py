"""What the tests of running swarms share: a swarm that keeps its events, and looks at them."""

from __future__ import annotations

from contextlib import contextmanager

from pidfdpool.swarm import EventKind, Swarm
from tests.conditions import eventually

QUICK = {"restart_pause": 0.02, "stop_timeout": 10.0}


@contextmanager
def swarm_of(target, nodes=1, **options):
    """Run a swarm whose events are kept in its attribute `seen`."""
    seen = []
    swarm = Swarm(target, nodes, on_event=seen.append, **{**QUICK, **options})
    swarm.seen = seen
    try:
        with swarm:
            yield swarm
    finally:
        if swarm.status().phase.value not in ("NEW", "ENDED"):
            swarm.kill()


def kinds(swarm, node=0):
    return [event.kind for event in swarm.seen if event.node == node]


def deaths(swarm, node=0):
    return [event.death for event in swarm.seen if event.node == node and event.kind is EventKind.DIED]


def saw(swarm, kind, node=0, times=1):
    """Wait for an event, and return it."""

    def found():
        events = [event for event in swarm.seen if event.node == node and event.kind is kind]
        return events[times - 1] if len(events) >= times else None

    return eventually(found, f"{kind} of node {node}; seen: {[str(event) for event in swarm.seen]}")


def pid_of(swarm, node=0):
    """Return the pid of a node once it is healthy."""
    assert swarm.wait_until_healthy(timeout=30), swarm.status()
    return swarm.status().nodes[node].pid
