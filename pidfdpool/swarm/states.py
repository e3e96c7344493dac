"""What the machine knows of nodes and their processes, and the table of what can happen to a process. Pure data.

`Machine` looks inputs up in the table; docs/swarm.md shows it, and a test compares the two.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from pidfdpool.records import dataclass, field
from pidfdpool.swarm import inputs as ip
from pidfdpool.swarm.records import NodeState, Reason

if TYPE_CHECKING:
    from pidfdpool.swarm.records import NodeDeath
    from pidfdpool.swarm.restarts import YoungDeaths

REMEMBERED = 10  # deaths of a node that are kept for its history


class Template(enum.Enum):
    """What the machine knows of the template."""

    DOWN = "DOWN"
    STARTING = "STARTING"
    UP = "UP"  # requests wait in its channel while it loads its preload
    STOPPING = "STOPPING"  # it was told to end, or is killed


@dataclass(slots=True, eq=False)
class Process:
    """One process of a node, from the request for it until it is reaped.

    Attributes:
        number: unique in its swarm.
        attempt: the number of the process among those of its node, from 1.
        state: STARTING, HEALTHY, STOPPING or KILLING.
        pid: None: it was not forked yet.
        requested_at: when the template was asked for it, or was ready to serve that, whichever was later.
        forked_at: when the news of its fork came.
        was_healthy: whether it has reported that it is healthy.
        reported_at: its last report that is known.
        reason: what the swarm ends it for.
        detail: what it has said about that.
        told_at: when it was told to stop.
        steps_taken: how many steps of stop_order were taken.
        asked_for_report: it is being looked when its last report was.
        measure_at: when its memory is to be measured next.
        memory: as it was measured last.
    """

    number: int
    attempt: int
    requested_at: float
    state: NodeState = NodeState.STARTING
    pid: int | None = None
    forked_at: float | None = None
    was_healthy: bool = False
    reported_at: float | None = None
    reason: Reason | None = None
    detail: str = ""
    told_at: float = 0.0
    steps_taken: int = 0
    asked_for_report: bool = False
    measure_at: float = 0.0
    memory: int | None = None

    @property
    def works(self) -> bool:
        """Whether nobody has told it to end."""
        return self.state in (NodeState.STARTING, NodeState.HEALTHY)


@dataclass(slots=True, eq=False)
class Node:
    """One node, and what is known of it.

    Attributes:
        id: its number.
        young: counts its young deaths.
        processes: none, one, or with `overlap` two: that which is being replaced, and its replacement.
        rest: its state while it has no process: WAITING, DONE, GAVE_UP or STOPPED.
        start_at: when its next process is to be asked for.
        replacing: why a replacement is to be started beside its process.
        wanted: False: the swarm was made smaller.
        attempt: that of the last process.
        deaths: how many processes have ended.
        history: the last of these.
    """

    id: int
    young: YoungDeaths
    processes: list[Process] = field(default_factory=list)
    rest: NodeState = NodeState.WAITING
    start_at: float = 0.0
    replacing: Reason | None = None
    wanted: bool = True
    attempt: int = 0
    deaths: int = 0
    history: deque[NodeDeath] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    @property
    def front(self) -> Process | None:
        """The process that stands for the node: a healthy one, or the one that was there first."""
        healthy = [process for process in self.processes if process.state is NodeState.HEALTHY]
        return healthy[-1] if healthy else self.processes[0] if self.processes else None

    @property
    def state(self) -> NodeState:
        """The state of the node."""
        front = self.front
        return self.rest if front is None else front.state

    @property
    def over(self) -> bool:
        """Whether it has no process and gets none by itself."""
        return not self.processes and self.rest.over


class Rule(NamedTuple):
    """What an input does to a process in one of these states.

    then: the state that follows; "same": none; "-": the process is removed. handler: in `process_rules`.
    """

    input: type[Any]
    states: tuple[NodeState, ...]
    then: str
    handler: str
    why: str


class TimeRule(NamedTuple):
    """What the passing of time does to a process in one of these states. The first that applies is followed."""

    when: str
    states: tuple[NodeState, ...]
    then: str
    handler: str
    why: str


_S = NodeState
_ALL = (_S.STARTING, _S.HEALTHY, _S.STOPPING, _S.KILLING)
_TOLD = (_S.STOPPING, _S.KILLING)
_WORKS = (_S.STARTING, _S.HEALTHY)

RULES = (
    Rule(ip.Forked, _ALL, "same", "on_forked", "note its pid; its time to become healthy begins"),
    Rule(ip.ForkFailed, _ALL, "-", "on_fork_failed", "ask for another one after restart_pause"),
    Rule(ip.Begun, (_S.STARTING,), "same", "on_begun", "HEALTHY if nodes need not report"),
    Rule(ip.Begun, (_S.HEALTHY, *_TOLD), "same", "ignore", "it is to end, or has reported already"),
    Rule(
        ip.ReportedHealthy,
        (_S.STARTING,),
        "HEALTHY",
        "on_healthy",
        "if it is a replacement, stop the process that it replaces",
    ),
    Rule(ip.ReportedHealthy, (_S.HEALTHY, *_TOLD), "same", "ignore", "it is to end, or has reported already"),
    Rule(ip.ReportedUnhealthy, _WORKS, "STOPPING", "on_unhealthy", "stop it; its next start waits for restart_pause"),
    Rule(ip.ReportedUnhealthy, _TOLD, "same", "ignore", "it is to end"),
    Rule(ip.Ending, _ALL, "same", "on_ending", "note the exception, for the record of its death"),
    Rule(ip.LastReport, _WORKS, "same", "on_last_report", "wait for the next one; STOPPING if it is too long ago"),
    Rule(ip.LastReport, _TOLD, "same", "ignore", "it is to end"),
    Rule(
        ip.MemoryMeasured,
        (_S.HEALTHY,),
        "same",
        "on_memory_measured",
        "if it is above max_memory, replace it: STOPPING, with overlap when the replacement is healthy",
    ),
    Rule(ip.MemoryMeasured, (_S.STARTING, *_TOLD), "same", "ignore", "it is to end"),
    Rule(
        ip.Died,
        _ALL,
        "-",
        "on_died",
        "report it; start another one after restart_pause, or at once if it was to be replaced; or the node is done, "
        "given up or stopped",
    ),
)

TIME_RULES = (
    TimeRule("it was told to stop stop_timeout ago", (_S.STOPPING,), "KILLING", "kill_overdue", "kill its group"),
    TimeRule("the next step of stop_order is due", (_S.STOPPING,), "same", "next_step", "request, or SIGTERM"),
    TimeRule(
        "its last report was report_timeout ago",
        (_S.HEALTHY,),
        "same",
        "look_at_report",
        "look whether there was another one; STOPPING if not",
    ),
    TimeRule(
        "it was forked start_timeout ago",
        (_S.STARTING,),
        "same",
        "look_at_report",
        "look whether there was a report; STOPPING if not",
    ),
    TimeRule(
        "it was forked max_age ago",
        (_S.HEALTHY,),
        "same",
        "outgrow",
        "replace it: STOPPING, with overlap when the replacement is healthy",
    ),
    TimeRule("memory_interval has passed", (_S.HEALTHY,), "same", "measure", "measure its memory"),
    TimeRule(
        "the template was asked for it 30 s ago, or it is to be killed and was told to stop 5 s ago",
        (_S.STARTING, _S.STOPPING, _S.KILLING),
        "same",
        "blame_template",
        "kill the template, which does not answer",
    ),
)


def render_rules() -> str:
    """Return the table of inputs as the documentation shows it (Markdown)."""
    lines = ["| input | in state | then | what is done |", "|---|---|---|---|"]
    for rule in RULES:
        states = ", ".join(state.value for state in rule.states)
        lines.append(f"| {rule.input.__name__} | {states} | {rule.then} | {rule.why} |")
    return "\n".join(lines)


def render_time_rules() -> str:
    """Return the table of what the passing of time does, as the documentation shows it (Markdown)."""
    lines = ["| when | in state | then | what is done |", "|---|---|---|---|"]
    for rule in TIME_RULES:
        states = ", ".join(state.value for state in rule.states)
        lines.append(f"| {rule.when} | {states} | {rule.then} | {rule.why} |")
    return "\n".join(lines)
