"""What users see of a swarm at one moment: made from the machine and the links, in whichever thread asks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pidfdpool import checks
from pidfdpool.loop import stacks as stack_texts
from pidfdpool.process import native
from pidfdpool.scheduler.policy import MOST_WORKERS
from pidfdpool.swarm.records import NodeState, NodeStatus, Phase, SwarmStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.swarm.fleet import Fleet
    from pidfdpool.swarm.links import NodeLink
    from pidfdpool.swarm.machine import Machine
    from pidfdpool.swarm.processes import Processes
    from pidfdpool.swarm.states import Node

# Seconds between two looks at the stacks that nodes are writing, line by line; and how many looks in a row have to
# find nothing new: nothing marks the end.
_LOOK, _LOOKS = 0.01, 5


def checked_size(nodes: Any) -> int:
    """Return a number of nodes. Raises ValueError, TypeError: it is none."""
    number: int = checks.integer("nodes", nodes, least=1, most=MOST_WORKERS)
    return number


def status(
    machine: Machine,
    processes: Processes | None,
    pid: int | None,
    turned_at: float | None,
    *,
    restarts: bool,
    measure_memory: bool,
) -> SwarmStatus:
    """Return the status. The caller has the lock.

    pid: of the template. turned_at: when the thread last went through its loop. restarts: a restart was asked for
    that has not begun. measure_memory: as for `Swarm.status`.
    """
    now = time.monotonic()
    fleet = machine.fleet
    return SwarmStatus(
        phase=fleet.phase,
        nodes=tuple(
            _node_status(fleet.nodes[number], processes, now, measure_memory=measure_memory)
            for number in sorted(fleet.nodes)
        ),
        template_pid=pid,
        restarting=restarts or machine.rolling.under_way,
        turned=None if turned_at is None else now - turned_at,
        failure=fleet.failure,
    )


def _node_status(node: Node, processes: Processes | None, now: float, *, measure_memory: bool) -> NodeStatus:
    front = node.front
    link = processes.links.get(front.number) if front is not None and processes is not None else None
    reported = link.last_report() if link is not None else None
    memory = None if front is None else front.memory
    if measure_memory and link is not None:
        memory = link.memory() or memory
    return NodeStatus(
        id=node.id,
        state=node.state,
        attempt=node.attempt if front is None else front.attempt,
        pid=None if front is None else front.pid,
        uptime=None if front is None or front.forked_at is None else now - front.forked_at,
        reported=None if reported is None else now - reported,
        deaths=node.deaths,
        last_death=node.history[-1] if node.history else None,
        starts_in=max(0.0, node.start_at - now) if node.state is NodeState.WAITING else None,
        replacing=node.replacing is not None,
        memory=memory,
    )


def stacks(processes: Processes | None, lock: Any, timeout: float) -> dict[int, str]:
    """Return the stacks of all nodes that write them within the timeout."""
    if processes is None:
        return {}
    with lock:
        requests = _StackRequests(processes)
    deadline = time.monotonic() + timeout
    while not requests.are_answered:
        over = time.monotonic() >= deadline
        with lock:
            requests.look()
        if over:
            break
        native.sleep(_LOOK)
    return {number: stack_texts.told(text) or text for number, text in requests.found.items()}


class _StackRequests:
    """The requests for the stacks of all nodes. The caller holds the supervisor's lock, but for `are_answered`.

    Attributes:
        found: the text that each node has written so far.
    """

    def __init__(self, processes: Processes) -> None:
        self.found: dict[int, str] = {}
        self._processes = processes
        self._to_ask = list(processes.links.values())
        self._starts: dict[NodeLink, int] = {}
        self._unchanged: dict[NodeLink, int] = {}  # since so many looks

    @property
    def are_answered(self) -> bool:
        """Whether all were asked, and write no more."""
        return not self._to_ask and all(count >= _LOOKS for count in self._unchanged.values())

    def look(self) -> None:
        """Ask those that can be asked, and take what they have written."""
        for link in self._to_ask:
            if (start := link.request_stack()) is not None:
                self._starts[link], self._unchanged[link] = start, 0
        # Some are being born, and can be asked in a moment.
        known = self._processes.links.values()
        self._to_ask = [link for link in self._to_ask if link.handle is None and link in known]
        for link, start in self._starts.items():
            text = link.stack_since(start)
            same = bool(text) and text == self.found.get(link.node)
            self._unchanged[link] = self._unchanged[link] + 1 if same else 0
            if text:
                self.found[link.node] = text


class Answer:
    """What a question was answered with when somebody waited for that: a moment later it may be open again.

    Attributes:
        value: None: it was open when it was asked last.
    """

    def __init__(self, ask: Callable[[], bool | None]) -> None:
        self._ask = ask
        self.value: bool | None = None

    def is_known(self) -> bool:
        """Ask, and return whether there is an answer."""
        self.value = self._ask()
        return self.value is not None


def outlook(fleet: Fleet, nodes: int | None) -> bool | None:
    """Return whether so many nodes are healthy (default: all); None: that may still come."""
    states = [node.state for node in fleet.nodes.values() if node.wanted]
    wanted = fleet.size if nodes is None else nodes
    if states.count(NodeState.HEALTHY) >= wanted:
        return True
    hopeless = fleet.phase in (Phase.STOPPING, Phase.ENDED)
    return False if hopeless or sum(not state.over for state in states) < wanted else None


def described(fleet: Fleet, size: int) -> str:
    """Return the phase and how many nodes are healthy, for a repr. Takes no lock."""
    healthy = sum(node.state is NodeState.HEALTHY for node in list(fleet.nodes.values()))
    return f"{fleet.phase.value}, {healthy} of {size} nodes healthy"
