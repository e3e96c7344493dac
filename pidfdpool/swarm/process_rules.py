"""What happens to one process of a node: what it says, what time does to it. Pure; see the tables in `states`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pidfdpool.swarm import actions as do
from pidfdpool.swarm.records import EventKind, NodeState, Phase, Reason
from pidfdpool.swarm.states import TIME_RULES, Template

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pidfdpool.swarm import inputs as ip
    from pidfdpool.swarm.endings import Endings
    from pidfdpool.swarm.fleet import Fleet
    from pidfdpool.swarm.states import Node, Process

SPAWN_TIMEOUT = 30.0  # seconds; a template that was asked for a process and has forked none by then is killed
KILL_TIMEOUT = 5.0  # seconds after it was told to stop; one that is to be killed and was not forked by then likewise


class ProcessRules:
    """The handlers of the tables. Each gets the node, its process, the input (or nothing), and the time."""

    def __init__(self, fleet: Fleet, endings: Endings) -> None:
        self._fleet = fleet
        self._options = fleet.options
        self.booted_at: float | None = None  # since when the template serves requests at once
        self.on_died = endings.on_died
        self.on_fork_failed = endings.on_fork_failed

    # ---- what it says --------------------------------------------------------------------------------------

    def ignore(self, _node: Node, _process: Process, _event: ip.OfProcess, _now: float) -> None:
        """Do nothing."""

    def on_forked(self, node: Node, process: Process, event: ip.Forked, now: float) -> None:
        """Note the pid."""
        process.pid, process.forked_at = event.pid, now
        self._fleet.tell(EventKind.STARTED if process.attempt == 1 else EventKind.RESTARTED, node, process)
        if self._fleet.phase is Phase.QUIET:
            self._fleet.actions.append(do.Quiet(node.id, process.number))

    def on_begun(self, node: Node, process: Process, _event: ip.Begun, now: float) -> None:
        """Take it for healthy if nodes need not report."""
        if not self._options.reports:
            self._become_healthy(node, process, now)

    def on_healthy(self, node: Node, process: Process, _event: ip.ReportedHealthy, now: float) -> None:
        """Note the first report."""
        self._become_healthy(node, process, now)

    def _become_healthy(self, node: Node, process: Process, now: float) -> None:
        process.state, process.was_healthy, process.reported_at = NodeState.HEALTHY, True, now
        process.measure_at = now
        self._fleet.tell(EventKind.HEALTHY, node, process)
        before = node.processes[0]
        if before is not process:
            reason, node.replacing = node.replacing or Reason.RESTART, None
            self._fleet.stop(node, before, reason, now)

    def on_unhealthy(self, node: Node, process: Process, event: ip.ReportedUnhealthy, now: float) -> None:
        """Stop it."""
        self._fleet.tell(EventKind.UNHEALTHY, node, process, detail=event.reason)
        self._fleet.stop(node, process, Reason.UNHEALTHY, now, event.reason)

    def on_ending(self, _node: Node, process: Process, event: ip.Ending, _now: float) -> None:
        """Note what ends it."""
        process.detail = event.text
        if event.loading:
            process.reason = process.reason or Reason.LOADING

    # ---- what time does to it ------------------------------------------------------------------------------

    def judge(self, node: Node, process: Process, now: float) -> None:
        """Follow the first rule whose time has come, until there is none."""
        while True:
            for when, handler in self._due(node, process):
                if when <= now:
                    getattr(self, handler)(node, process, now)
                    break
            else:
                return

    def next_due(self, node: Node, process: Process) -> float | None:
        """Return when the next rule's time comes."""
        return min((when for when, _ in self._due(node, process)), default=None)

    def _due(self, node: Node, process: Process) -> Iterator[tuple[float, str]]:
        """Yield the rules that time may have follow, in their order, and when."""
        for rule in TIME_RULES:
            if process.state in rule.states:
                when = _WHEN[rule.handler](self, node, process)
                if when is not None:
                    yield when, rule.handler

    def _kill_overdue_at(self, _node: Node, process: Process) -> float | None:
        return process.told_at + self._options.stop_timeout

    def kill_overdue(self, node: Node, process: Process, _now: float) -> None:
        """Kill what has not stopped in time."""
        self._fleet.kill(node, process, Reason.SHUTDOWN)

    def _next_step_at(self, _node: Node, process: Process) -> float | None:
        return self._fleet.step_due(process)

    def next_step(self, node: Node, process: Process, _now: float) -> None:
        """Tell it once more, in the next way."""
        self._fleet.next_step(node, process)

    def _look_at_report_at(self, _node: Node, process: Process) -> float | None:
        if process.asked_for_report:
            return None
        if process.state is NodeState.HEALTHY:
            limit, since = self._options.report_timeout, process.reported_at
        else:
            limit, since = self._options.start_timeout or self._options.report_timeout, process.forked_at
        return None if limit is None or since is None else since + limit

    def look_at_report(self, node: Node, process: Process, _now: float) -> None:
        """Have it looked when its last report was: `on_last_report` goes on."""
        process.asked_for_report = True
        self._fleet.actions.append(do.LookAtReport(node.id, process.number))

    def on_last_report(self, node: Node, process: Process, event: ip.LastReport, now: float) -> None:
        """Stop it if that was too long ago."""
        process.asked_for_report = False
        if process.state is NodeState.STARTING:
            if event.at is not None:  # the message is on its way
                self._become_healthy(node, process, now)
                process.reported_at = event.at
        elif event.at is not None and process.reported_at is not None:
            process.reported_at = max(process.reported_at, event.at)
        due = self._look_at_report_at(node, process)
        if due is not None and due <= now:
            was_healthy = process.state is NodeState.HEALTHY
            reason = Reason.SILENT if was_healthy else Reason.START
            self._fleet.tell(EventKind.SILENT, node, process, reason=reason)
            self._fleet.actions.append(do.DumpStack(node.id, process.number))
            self._fleet.stop(node, process, reason, now)

    def _outgrow_at(self, node: Node, process: Process) -> float | None:
        if self._options.max_age is None or process.forked_at is None or not self._may_replace(node, process):
            return None
        return process.forked_at + self._options.max_age

    def outgrow(self, node: Node, process: Process, now: float) -> None:
        """Replace it because of its age."""
        self._replace(node, process, Reason.AGE, "", now)

    def _measure_at(self, node: Node, process: Process) -> float | None:
        if self._options.max_memory is None or not self._may_replace(node, process):
            return None
        return process.measure_at

    def measure(self, node: Node, process: Process, now: float) -> None:
        """Have its memory measured: `on_memory_measured` goes on."""
        # Later than now, so that it is measured once: an interval may be too short to change the sum.
        process.measure_at = max(now + self._options.memory_interval, math.nextafter(now, math.inf))
        self._fleet.actions.append(do.MeasureMemory(node.id, process.number))

    def on_memory_measured(self, node: Node, process: Process, event: ip.MemoryMeasured, now: float) -> None:
        """Replace it if it is too large."""
        process.memory = event.memory or process.memory
        limit = self._options.max_memory
        if limit is not None and event.memory > limit and self._may_replace(node, process):
            detail = f"{event.memory} bytes of resident memory, of {limit} allowed"
            self._replace(node, process, Reason.MEMORY, detail, now)

    def _may_replace(self, node: Node, process: Process) -> bool:
        """Whether a process may be replaced for its size or age: not a second time, and not in a quiet swarm."""
        return self._fleet.phase is Phase.RUNNING and node.replacing is None and node.processes[-1] is process

    def _replace(self, node: Node, process: Process, reason: Reason, detail: str, now: float) -> None:
        self._fleet.tell(EventKind.OUTGROWN, node, process, detail=detail, reason=reason)
        process.detail = detail
        self._fleet.replace(node, reason, now)

    def _blame_template_at(self, _node: Node, process: Process) -> float | None:
        if process.pid is not None or self.booted_at is None or self._fleet.template is not Template.UP:
            return None
        due = max(process.requested_at, self.booted_at) + SPAWN_TIMEOUT
        if process.state is NodeState.KILLING:
            due = min(due, max(process.told_at, self.booted_at) + KILL_TIMEOUT)
        return due

    def blame_template(self, _node: Node, _process: Process, _now: float) -> None:
        """Kill the template: it does not answer."""
        self._fleet.template = Template.STOPPING
        self._fleet.actions.append(do.KillTemplate())


_WHEN = {rule.handler: getattr(ProcessRules, f"_{rule.handler}_at") for rule in TIME_RULES}
