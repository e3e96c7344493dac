"""What follows from the end of a node's process: another one, a pause, or none any more. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool.swarm.records import EventKind, NodeDeath, NodeState, Phase, Reason

if TYPE_CHECKING:
    from pidfdpool.swarm import inputs as ip
    from pidfdpool.swarm.fleet import Fleet
    from pidfdpool.swarm.states import Node, Process

_PLANNED = (Reason.MEMORY, Reason.AGE, Reason.RESTART, Reason.RESIZE, Reason.TEMPLATE)


class Endings:
    """Decides about nodes whose process has ended."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._options = fleet.options

    def on_fork_failed(self, node: Node, process: Process, event: ip.ForkFailed, now: float) -> None:
        """Try again after a pause. The failures of the system are no deaths of the node, and no attempts."""
        node.processes.remove(process)
        node.attempt -= process.attempt == node.attempt
        if self._starts_again(node):  # otherwise nobody wants it any more
            self._fleet.tell(EventKind.START_FAILED, node, process, detail=event.reason)
        self._settle(node, now + self._options.pause(1))

    def on_died(self, node: Node, process: Process, event: ip.Died, now: float) -> None:
        """Report a death, and decide about the node."""
        replaces = node.processes[0] is not process  # it was a replacement; that which it should replace goes on
        node.processes.remove(process)
        node.deaths += 1
        reason = process.reason or Reason.UNASKED
        uptime = 0.0 if process.forked_at is None else now - process.forked_at
        done = reason is Reason.UNASKED and event.status.code == 0
        failed = reason.is_fault and not done
        again = done and self._options.restart == "always"
        young = (failed and not process.was_healthy) or ((failed or again) and uptime < self._options.young_age)
        death = NodeDeath(
            node=node.id,
            attempt=process.attempt,
            pid=process.pid,
            reason=reason,
            exit_status=event.status,
            uptime=uptime,
            was_healthy=process.was_healthy,
            young=young,
            detail=process.detail,
            peak_rss=event.peak_rss,
            cpu_time=event.cpu_time,
            stack=event.stack,
            stderr=event.stderr,
            oom_kills=event.oom_kills,
            ended_at=event.ended_at,
        )
        node.history.append(death)
        self._fleet.tell(EventKind.DIED, node, process, reason=reason, death=death)
        one_too_many = self._count(node, young, now)
        if done and not again and not node.processes:
            node.rest = NodeState.DONE
            if self._starts_again(node):
                self._fleet.tell(EventKind.DONE, node, process)
            self._settle(node, now)
        elif self._starts_again(node) and not node.processes and (one_too_many or reason is Reason.LOADING):
            self._fleet.give_up(node, self._why(node, reason, process))
        else:
            pause = 0.0 if reason in _PLANNED else self._options.pause(node.young.streak)
            self._settle(node, now + pause)
        if not replaces and node.state is not NodeState.HEALTHY:
            node.replacing = None  # a replacement that is there takes over early

    def _starts_again(self, node: Node) -> bool:
        """Whether further processes of this node are wanted at all."""
        return self._fleet.phase is Phase.RUNNING and node.wanted

    def _count(self, node: Node, young: bool, now: float) -> bool:
        """Count a death; return whether it is one too many."""
        if young:
            return node.young.add(now)
        node.young.end_streak()
        return False

    def _why(self, node: Node, reason: Reason, process: Process) -> str:
        if reason is Reason.LOADING:
            return f"its target cannot be loaded: {process.detail}"
        count, period = node.young.count, self._options.period
        return f"{count} of its processes died young within {period:g} s; the last ones:"

    def _settle(self, node: Node, start_at: float) -> None:
        """Have the next process started then, if there is to be one."""
        node.start_at = start_at
        if node.processes or node.rest is NodeState.DONE:
            if not node.wanted and not node.processes:
                self._fleet.rest_in_peace(node)
        elif self._fleet.failure and self._starts_again(node):
            self._fleet.give_up(node, self._fleet.failure)
        elif self._starts_again(node):
            node.rest = NodeState.WAITING
        else:
            self._fleet.rest_in_peace(node)
