"""The nodes of a swarm, and the few things that are done to them. Pure: it collects actions, and carries out none.

The rules (`process_rules`, `endings`, `rolling`, `machine`) decide when; this knows how.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool.swarm import actions as do
from pidfdpool.swarm.records import EventKind, NodeState, Phase, Reason
from pidfdpool.swarm.restarts import YoungDeaths
from pidfdpool.swarm.states import Node, Process, Template

if TYPE_CHECKING:
    from pidfdpool.swarm.options import Options
    from pidfdpool.swarm.records import NodeDeath


class Fleet:
    """The state of one swarm.

    Attributes:
        nodes: by number.
        size: how many there are to be. Those beyond that are on their way out.
        phase: that of the swarm.
        template: what is known of it.
        failure: why no process can be started any more; empty: they can.
        actions: what is to be done, in this order.
        asked: how many processes were asked for, ever: the number of the last one.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.nodes: dict[int, Node] = {}
        self.size = 0
        self.phase = Phase.NEW
        self.template = Template.DOWN
        self.failure = ""
        self.actions: list[do.Action] = []
        self.asked = 0

    def resize(self, size: int, now: float) -> None:
        """Have so many nodes. Those with the highest numbers are stopped."""
        self.size = size
        for number in range(size):
            node = self.nodes.get(number)
            if node is None:
                young = YoungDeaths(self.options.intensity, self.options.period)
                self.nodes[number] = Node(number, young, start_at=now)
            elif not node.wanted:  # its process is on its way out; the next one follows
                node.wanted = True
                if not node.processes:
                    node.rest, node.start_at = NodeState.WAITING, now
        for node in [node for node in self.nodes.values() if node.id >= size]:
            node.wanted = False
            self.end(node, Reason.RESIZE, now)

    def end(self, node: Node, reason: Reason, now: float) -> None:
        """Have a node end, and start no further process for it."""
        node.replacing = None
        for process in node.processes:
            self.stop(node, process, reason, now)
        if not node.processes:
            self.rest_in_peace(node)

    def rest_in_peace(self, node: Node) -> None:
        """Note that a node that was to end has no process any more."""
        if not node.wanted:
            del self.nodes[node.id]
        elif not node.rest.over:
            node.rest = NodeState.STOPPED

    def fork(self, node: Node, now: float) -> None:
        """Ask for a process of the node."""
        self.asked += 1
        node.attempt += 1
        process = Process(self.asked, node.attempt, now)
        node.processes.append(process)
        self.actions.append(do.Fork(node.id, process.number, process.attempt))

    def stop(self, node: Node, process: Process, reason: Reason, now: float, detail: str = "") -> None:
        """Tell a process to stop, by the first step of stop_order, unless that was done before."""
        if not process.works:
            if reason in (Reason.SHUTDOWN, Reason.RESIZE) and process.reason is not None:
                process.reason = reason if not process.reason.is_fault else process.reason
            return
        process.state, process.reason, process.told_at = NodeState.STOPPING, reason, now
        process.detail = process.detail or detail
        process.steps_taken = 0
        self.tell(EventKind.STOPPING, node, process, detail=detail, reason=reason)
        self.next_step(node, process)

    def next_step(self, node: Node, process: Process) -> None:
        """Take the next step of stop_order."""
        step = self.options.stop_order[process.steps_taken]
        if process.steps_taken:  # it does not do as it was told: its stack tells why
            self.actions.append(do.DumpStack(node.id, process.number))
        process.steps_taken += 1
        action = do.Request if step == "request" else do.Terminate
        self.actions.append(action(node.id, process.number))

    def step_due(self, process: Process) -> float | None:
        """Return when the next step of stop_order is due; None: there is none."""
        count = len(self.options.stop_order)
        if process.steps_taken >= count:
            return None
        return process.told_at + self.options.stop_timeout * process.steps_taken / count

    def kill(self, node: Node, process: Process, reason: Reason) -> None:
        """Kill a process with its group, whatever it was told before."""
        if process.state is NodeState.KILLING:
            return
        process.state, process.reason = NodeState.KILLING, process.reason or reason
        self.tell(EventKind.KILLED, node, process, reason=process.reason)
        self.actions.append(do.Kill(node.id, process.number))

    def replace(self, node: Node, reason: Reason, now: float) -> None:
        """Replace the node's process: with overlap when another one is healthy."""
        front = node.front
        if front is None or not front.works or node.replacing is not None:
            return
        if self.options.overlap and front.state is NodeState.HEALTHY and self.phase is Phase.RUNNING:
            node.replacing, node.start_at = reason, now
        else:
            self.stop(node, front, reason, now)

    def give_up(self, node: Node, detail: str) -> None:
        """Start no further process for a node that has none."""
        node.rest = NodeState.GAVE_UP
        self.tell(EventKind.GAVE_UP, node, None, detail=detail, history=tuple(node.history))

    def tell(
        self,
        kind: EventKind,
        node: Node,
        process: Process | None,
        *,
        detail: str = "",
        reason: Reason | None = None,
        death: NodeDeath | None = None,
        history: tuple[NodeDeath, ...] = (),
    ) -> None:
        """Tell users what has happened."""
        attempt, pid = (node.attempt, None) if process is None else (process.attempt, process.pid)
        self.actions.append(do.Tell(kind, node.id, attempt, pid, detail, reason, death, history))
