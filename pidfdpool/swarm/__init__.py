"""Supervised processes that live long (nodes), such as consumers of a queue and servers.

It owns what a swarm is: the class that users call (`swarm`, `aio`), its options, the rules (`machine`, pure), the
supervisor thread that carries them out (`supervisor`, `links`), and the node's side (`node_process`, `node`). It
stands on the same ground as `executor`: a template forks the nodes, pidfds name them.

Called by users on their threads; there is one supervisor thread for each swarm that runs. In a node everything runs
on the node's threads. It knows no task and no worker, and shares no template with a pool.

The public names are loaded at their first use, because the template imports this package, too.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pidfdpool.swarm.aio import AsyncSwarm
    from pidfdpool.swarm.node import Flag, Node
    from pidfdpool.swarm.records import (
        EventKind,
        NodeDeath,
        NodeEvent,
        NodeState,
        NodeStatus,
        Phase,
        Reason,
        SwarmStatus,
    )
    from pidfdpool.swarm.swarm import Swarm
    from pidfdpool.swarm.trace import SwarmTrace

_HOME = {
    "AsyncSwarm": "aio",
    "EventKind": "records",
    "Flag": "node",
    "Node": "node",
    "NodeDeath": "records",
    "NodeEvent": "records",
    "NodeState": "records",
    "NodeStatus": "records",
    "Phase": "records",
    "Reason": "records",
    "Swarm": "swarm",
    "SwarmStatus": "records",
    "SwarmTrace": "trace",
}

__all__ = [
    "AsyncSwarm",
    "EventKind",
    "Flag",
    "Node",
    "NodeDeath",
    "NodeEvent",
    "NodeState",
    "NodeStatus",
    "Phase",
    "Reason",
    "Swarm",
    "SwarmStatus",
    "SwarmTrace",
]


def __getattr__(name: str) -> object:
    """Load a public name from the file that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(__import__(f"{__name__}.{_HOME[name]}", fromlist=(name,)), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Name what can be imported, loaded or not."""
    return sorted({*globals(), *__all__})
