"""The states of a pool, and the table of what can happen to a worker in each. Pure data.

`machine` looks events up in the table, the documentation renders it, and a test compares the two.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from pidfdpool.records import dataclass, field
from pidfdpool.scheduler import events as ev

if TYPE_CHECKING:
    from pidfdpool.deaths import Cause
    from pidfdpool.scheduler.policy import Policy


class State(enum.Enum):
    """The states of a slot, which are those of its worker; DEAD is also that of a slot never filled."""

    # Members are unique objects, and looked up by the dozen for each task; Enum's own hash is a Python function.
    __hash__ = object.__hash__

    STARTING = "STARTING"
    IDLE = "IDLE"
    BUSY = "BUSY"
    STOPPING = "STOPPING"
    DEAD = "DEAD"


class Phase(enum.Enum):
    """The life of the pool: tasks are accepted in OPEN only, and run in OPEN and DRAINING."""

    OPEN = "OPEN"
    DRAINING = "DRAINING"
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"


class Template(enum.Enum):
    """What the machine knows of the template."""

    DOWN = "DOWN"
    STARTING = "STARTING"
    UP = "UP"
    STUCK = "STUCK"  # it did not answer and is being killed
    STOPPING = "STOPPING"


@dataclass(slots=True, eq=False)
class Slot:
    """One place for a worker, and what is known of the worker in it."""

    index: int
    state: State = State.DEAD
    generation: int = 0
    counted: bool = False  # towards the pool's level: no replacement for it is needed
    leaving: bool = False  # it gets no further task
    retire_cause: Cause | None = None  # why it is to be replaced
    cause: Cause | None = None  # what the pool did to end it, or knows of its end
    end_expected: bool = False  # its death was caused by the pool or by the template's
    pid: int | None = None
    task: int | None = None  # that it runs, as far as is known
    ahead: deque[int] = field(default_factory=deque)  # tasks behind that one, in the order in which it begins them
    to_drop: int = 0  # tasks that were taken back, but are still in its channel
    recall_pending: bool = False  # some of what is ahead is being taken back
    rebalanced: bool = False  # for the sake of others, since its last answer
    kill_requested_for: int | None = None  # the task for which it is to be killed, if that hits no other
    tasks_done: int = 0
    requested_at: float = 0.0
    ready_at: float | None = None
    busy_since: float = 0.0
    detail: str = ""

    def occupy(self, generation: int, now: float) -> None:
        """Begin anew with another worker."""
        self.state, self.generation, self.counted, self.requested_at = State.STARTING, generation, True, now
        self.leaving = self.end_expected = False
        self.retire_cause = self.cause = self.pid = self.task = self.ready_at = self.kill_requested_for = None
        self.ahead.clear()
        self.rebalanced = self.recall_pending = False
        self.tasks_done = self.to_drop = 0
        self.detail = ""


class Task:
    """What the machine knows of an accepted task until it is resolved."""

    __slots__ = ("attempt", "begun", "deaths", "heavy", "kill_requested", "policy", "start_by")

    def __init__(self, policy: Policy, now: float, heavy: bool = False) -> None:
        self.policy = policy
        self.attempt = 0  # the number of the one that runs or ran last
        self.begun = False  # it was handed to a worker, which may not have read it
        self.deaths = 0  # of workers, under it
        self.kill_requested = False  # it was to be killed: whatever becomes of this attempt, there is no other
        self.heavy = heavy  # its call is large
        self.start_by = None if policy.deadline is None else now + policy.deadline


class Rule(NamedTuple):
    """One row of the table: in these states the event is taken by this method of a part of the machine."""

    event: type[Any]
    states: tuple[State, ...]
    then: str
    handler: str
    why: str


_S = State

RULES: tuple[Rule, ...] = (
    Rule(ev.Spawned, (_S.STARTING, _S.STOPPING), "same", "workers.on_spawned", "its pid is known"),
    Rule(ev.SpawnFailed, (_S.STARTING, _S.STOPPING), "DEAD", "workers.on_spawn_failed", "try again after a pause"),
    Rule(
        ev.Ready,
        (_S.STARTING,),
        "IDLE",
        "workers.on_ready",
        "it may be given a task; STOPPING if it is unhealthy already",
    ),
    Rule(ev.Ready, (_S.STOPPING,), "same", "workers.ignore", "it will read that it is to leave"),
    Rule(
        ev.InitializerFailed,
        (_S.STARTING,),
        "same",
        "workers.on_initializer_failed",
        "no worker would do better: break",
    ),
    Rule(ev.InitializerFailed, (_S.STOPPING,), "same", "workers.ignore", "it is leaving anyway"),
    Rule(
        ev.Finished,
        (_S.BUSY,),
        "IDLE",
        "workers.on_finished",
        "deliver, or try again; BUSY if another task is ahead; STOPPING if it is to be replaced, or was being killed",
    ),
    Rule(ev.Finished, (_S.STOPPING,), "same", "workers.ignore", "too late: whoever waited for it was told"),
    Rule(ev.Answered, (_S.BUSY,), "same", "workers.on_answered", "it has begun the next task; send it more"),
    Rule(
        ev.TakenBack,
        (_S.BUSY, _S.STOPPING),
        "same",
        "workers.on_taken_back",
        "back to the queue's head, or withdrawn",
    ),
    Rule(
        ev.Dropped,
        (_S.BUSY,),
        "IDLE",
        "workers.on_dropped",
        "BUSY as long as it runs a task; then it may be sent more",
    ),
    Rule(ev.Dropped, (_S.STOPPING,), "same", "workers.ignore", "it gets nothing more"),
    Rule(
        ev.SendRefused,
        (_S.BUSY,),
        "STOPPING",
        "workers.on_send_refused",
        "the task never ran: back to the queue's head",
    ),
    Rule(
        ev.SendSkipped,
        (_S.BUSY,),
        "IDLE",
        "workers.on_send_skipped",
        "the task was cancelled at the last moment; it never ran",
    ),
    Rule(
        ev.ProtocolViolated,
        (_S.STARTING, _S.IDLE, _S.BUSY, _S.STOPPING),
        "same",
        "workers.on_protocol_violated",
        "SIGKILL",
    ),
    Rule(
        ev.ChannelClosed,
        (_S.STARTING, _S.IDLE, _S.BUSY),
        "same",
        "workers.on_channel_closed",
        "SIGKILL, if it has not ended in a moment",
    ),
    Rule(ev.ChannelClosed, (_S.STOPPING,), "same", "workers.ignore", "it is leaving anyway"),
    Rule(ev.Unhealthy, (_S.STARTING, _S.BUSY), "same", "workers.on_unhealthy", "no task after this one; replace it"),
    Rule(ev.Unhealthy, (_S.IDLE,), "STOPPING", "workers.on_unhealthy", "replace it"),
    Rule(ev.Unhealthy, (_S.STOPPING,), "same", "workers.ignore", "it is leaving anyway"),
    Rule(ev.Outdated, (_S.STARTING, _S.IDLE), "STOPPING", "workers.on_outdated", "replace it"),
    Rule(
        ev.Outdated,
        (_S.BUSY,),
        "STOPPING",
        "workers.on_outdated",
        "its task never ran: back to the queue's head; replace it",
    ),
    Rule(ev.Outdated, (_S.STOPPING,), "same", "workers.ignore", "it is leaving anyway"),
    Rule(ev.LastHeartbeat, (_S.BUSY,), "same", "limits.on_last_heartbeat", "wait on, or SIGTERM, grace, SIGKILL"),
    Rule(ev.LastHeartbeat, (_S.STARTING, _S.IDLE, _S.STOPPING), "same", "workers.ignore", "its task is over"),
    Rule(ev.MemoryMeasured, (_S.BUSY,), "same", "limits.on_memory_measured", "SIGKILL if it is too much"),
    Rule(ev.MemoryMeasured, (_S.STARTING, _S.IDLE, _S.STOPPING), "same", "workers.ignore", "its task is over"),
    Rule(
        ev.Died,
        (_S.BUSY,),
        "DEAD",
        "workers.on_died",
        "fail its task or try it again; requeue what never began; refill",
    ),
    Rule(ev.Died, (_S.STARTING, _S.IDLE), "DEAD", "workers.on_died", "refill, after a pause if it died young"),
    Rule(ev.Died, (_S.STOPPING,), "DEAD", "workers.on_died", "as asked; refill if it was not replaced before"),
)


def render_rules() -> str:
    """Return the table as the documentation shows it (Markdown)."""
    lines = ["| event | in state | then | why |", "|---|---|---|---|"]
    for rule in RULES:
        states = ", ".join(state.value for state in rule.states)
        lines.append(f"| {rule.event.__name__} | {states} | {rule.then} | {rule.why} |")
    return "\n".join(lines)
