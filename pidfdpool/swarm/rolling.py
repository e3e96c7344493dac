"""A restart of all nodes, one after the other. Pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from pidfdpool.swarm.records import NodeState, Phase, Reason

if TYPE_CHECKING:
    from pidfdpool.swarm.fleet import Fleet
    from pidfdpool.swarm.states import Node


class RollingRestart:
    """The nodes that are still to be restarted, and the one that is being restarted."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._left: deque[int] = deque()
        self._current: int | None = None
        self._before = 0  # the number of the last process that does not count as restarted

    @property
    def under_way(self) -> bool:
        """Whether there is one."""
        return self._current is not None or bool(self._left)

    def ask(self, *, rolling: bool, now: float) -> None:
        """Restart every node, one by one or all at once."""
        numbers = sorted(number for number, node in self._fleet.nodes.items() if node.wanted)
        if rolling:
            self._left.extend(number for number in numbers if number not in self._left)
            return
        self.end()
        for number in numbers:
            self._begin(self._fleet.nodes[number], now)

    def end(self) -> None:
        """Restart none any more."""
        self._left.clear()
        self._current = None

    def go_on(self, now: float) -> None:
        """Begin with the next node if the one before it is healthy again."""
        while self.under_way:
            if self._fleet.phase is not Phase.RUNNING:
                self.end()
            elif self._current is None:
                node = self._fleet.nodes.get(self._left.popleft())
                if node is not None and node.wanted and node.rest is not NodeState.DONE:
                    front = node.front  # a replacement of it that is under way is as good as another
                    self._current, self._before = node.id, self._fleet.asked if front is None else front.number
                    self._begin(node, now)
            elif not self._is_restarted(self._fleet.nodes.get(self._current)):
                return

    def _is_restarted(self, node: Node | None) -> bool:
        if node is None or not node.wanted or node.state is NodeState.DONE:
            self._current = None
        elif node.state is NodeState.GAVE_UP:
            self.end()
        elif node.state is NodeState.HEALTHY and node.replacing is None:
            front = node.front
            if front is None or front.number <= self._before:
                return False
            self._current = None
        else:
            return False
        return True

    def _begin(self, node: Node, now: float) -> None:
        """Have a node get a new process."""
        if node.processes:
            self._fleet.replace(node, Reason.RESTART, now)
        elif node.rest in (NodeState.GAVE_UP, NodeState.WAITING):
            node.young.forget()
            node.rest, node.start_at = NodeState.WAITING, now
