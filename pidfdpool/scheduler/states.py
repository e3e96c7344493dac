"""The states of pool, template, slots and tasks, and the table of what can happen to a worker. Pure data.

`Machine` looks events up in the table, docs/architecture.md shows it, and a test compares the two.
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
    """The states of a slot, which are those of its worker. A slot that never had a worker is DEAD, too."""

    # Members are unique objects. A task needs a dozen look-ups by state, and Enum's own hash is a Python function.
    if not TYPE_CHECKING:  # type checkers see the base class's method, which has the same signature
        __hash__ = object.__hash__

    STARTING = "STARTING"
    IDLE = "IDLE"
    BUSY = "BUSY"
    STOPPING = "STOPPING"
    DEAD = "DEAD"


class Phase(enum.Enum):
    """The life of the pool. Tasks are accepted in OPEN only, and run in OPEN and DRAINING."""

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
    """One place for a worker, and what is known of the worker in it. Changed by several parts of the machine.

    Attributes:
        index: the number of the slot.
        state: that of its worker. Only `Workforce` changes it.
        generation: that of its worker.
        counted: the worker counts towards the pool's level, so it needs no replacement.
        leaving: the worker gets no further task.
        retire_cause: why the worker is to be replaced.
        cause: what the pool did to end the worker, or knows of its end.
        end_expected: the worker ends because of what the pool did, or because of the template's end.
        pid: that of the worker; None: it was not forked yet.
        task: the number of the task that the worker runs, as far as is known.
        ahead: the tasks behind that one, in the order in which the worker begins them.
        to_drop: the number of tasks that were taken back, but are still in the worker's channel.
        recall_pending: some of what is ahead is being taken back.
        rebalanced: what was taken back for idle workers since the worker has answered a task: 0 for nothing, 1 for a
            part of what was ahead, 2 for all.
        kill_requested_for: the task for which the worker is to be killed, as soon as that hits no other task.
        tasks_done: the number of tasks that the worker has answered.
        requested_at: when the worker was asked for.
        ready_at: when it became ready.
        busy_since: when its task began.
        detail: what is known of its end, for people.
    """

    index: int
    state: State = State.DEAD
    generation: int = 0
    counted: bool = False
    leaving: bool = False
    retire_cause: Cause | None = None
    cause: Cause | None = None
    end_expected: bool = False
    pid: int | None = None
    task: int | None = None
    ahead: deque[int] = field(default_factory=deque)
    to_drop: int = 0
    recall_pending: bool = False
    rebalanced: int = 0
    kill_requested_for: int | None = None
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
        self.rebalanced, self.recall_pending = 0, False
        self.tasks_done = self.to_drop = 0
        self.detail = ""


class Task:
    """What the machine knows of an accepted task until it is resolved.

    Attributes:
        policy: its own, or that of the pool.
        attempt: the number of the attempt that runs, or that ran last.
        begun: it was sent to a worker, which may not have read it.
        deaths: how many workers have died while they ran it.
        kill_requested: it is to be killed. Whatever becomes of this attempt, there is no other.
        heavy: its call is large.
        calls: how many calls of a map it makes; 0: it is one task by itself.
        start_by: its deadline, on the machine's clock.
    """

    __slots__ = ("attempt", "begun", "calls", "deaths", "heavy", "kill_requested", "policy", "start_by")

    def __init__(self, policy: Policy, now: float, heavy: bool = False, calls: int = 0) -> None:
        self.policy: Policy = policy
        self.attempt: int = 0
        self.begun: bool = False
        self.deaths: int = 0
        self.kill_requested: bool = False
        self.heavy: bool = heavy
        self.calls: int = calls
        self.start_by: float | None = None if policy.deadline is None else now + policy.deadline


class NewTask(Task):
    """What the machine knows of all tasks under the pool's own policy that no worker has begun: they share it.

    So it is never changed. What changes something of a task takes `TaskRules.own`. Where many tasks wait, an object
    for each would take memory, and the time that new memory takes.
    """

    __slots__ = ()


class Rule(NamedTuple):
    """One row of the table: what an event means in these states, and what follows.

    Attributes:
        event: the class of the event.
        states: the states of the worker in which it is taken.
        then: the state after it, in the usual case; `why` names the others.
        handler: the part of the machine and its method, as "workers.on_ready".
        why: for people.
    """

    event: type[Any]
    states: tuple[State, ...]
    then: str
    handler: str
    why: str


_S = State

RULES: tuple[Rule, ...] = (
    Rule(ev.Spawned, (_S.STARTING, _S.STOPPING), "same", "workers.on_spawned", "note its pid"),
    Rule(
        ev.SpawnFailed,
        (_S.STARTING, _S.STOPPING),
        "DEAD",
        "workers.on_spawn_failed",
        "start another worker after a pause",
    ),
    Rule(
        ev.Ready,
        (_S.STARTING,),
        "IDLE",
        "workers.on_ready",
        "it may be given a task; STOPPING if it has said that it is unhealthy",
    ),
    Rule(ev.Ready, (_S.STOPPING,), "same", "workers.ignore", "it has yet to read that it is to leave"),
    Rule(
        ev.InitializerFailed,
        (_S.STARTING,),
        "same",
        "workers.on_initializer_failed",
        "break the pool, because the initializer would raise in every worker",
    ),
    Rule(ev.InitializerFailed, (_S.STOPPING,), "same", "workers.ignore", "it leaves in any case"),
    Rule(
        ev.Finished,
        (_S.BUSY,),
        "IDLE",
        "workers.on_finished",
        "deliver it or try again; BUSY if another task is ahead; STOPPING if the worker is being replaced or killed",
    ),
    Rule(ev.Finished, (_S.STOPPING,), "same", "workers.ignore", "too late: the future has an outcome already"),
    Rule(ev.Answered, (_S.BUSY,), "same", "workers.on_answered", "it has begun its next task; send it more"),
    Rule(
        ev.TakenBack,
        (_S.BUSY, _S.STOPPING),
        "same",
        "workers.on_taken_back",
        "the tasks go back to the head of the queue, or are cancelled",
    ),
    Rule(
        ev.Dropped,
        (_S.BUSY,),
        "IDLE",
        "workers.on_dropped",
        "it may be sent tasks again; BUSY while it runs one",
    ),
    Rule(ev.Dropped, (_S.STOPPING,), "same", "workers.ignore", "it is sent nothing more"),
    Rule(
        ev.SendRefused,
        (_S.BUSY,),
        "STOPPING",
        "workers.on_send_refused",
        "its task never ran and goes back to the head of the queue; the worker is about to end",
    ),
    Rule(
        ev.SendSkipped,
        (_S.BUSY,),
        "IDLE",
        "workers.on_send_skipped",
        "its task was cancelled at the last moment and never ran",
    ),
    Rule(
        ev.ProtocolViolated,
        (_S.STARTING, _S.IDLE, _S.BUSY, _S.STOPPING),
        "same",
        "workers.on_protocol_violated",
        "SIGKILL, because nothing that it writes can be trusted",
    ),
    Rule(
        ev.ChannelClosed,
        (_S.STARTING, _S.IDLE, _S.BUSY),
        "same",
        "workers.on_channel_closed",
        "SIGKILL if it has not ended after 0.2 s",
    ),
    Rule(ev.ChannelClosed, (_S.STOPPING,), "same", "workers.ignore", "it leaves in any case"),
    Rule(ev.Unhealthy, (_S.STARTING, _S.BUSY), "same", "workers.on_unhealthy", "replace it; it gets no further task"),
    Rule(ev.Unhealthy, (_S.IDLE,), "STOPPING", "workers.on_unhealthy", "replace it"),
    Rule(ev.Unhealthy, (_S.STOPPING,), "same", "workers.ignore", "it leaves in any case"),
    Rule(ev.Outdated, (_S.STARTING, _S.IDLE), "STOPPING", "workers.on_outdated", "replace it"),
    Rule(
        ev.Outdated,
        (_S.BUSY,),
        "STOPPING",
        "workers.on_outdated",
        "its task never ran and goes back to the head of the queue; replace the worker",
    ),
    Rule(ev.Outdated, (_S.STOPPING,), "same", "workers.ignore", "it leaves in any case"),
    Rule(
        ev.LastHeartbeat,
        (_S.BUSY,),
        "same",
        "limits.on_last_heartbeat",
        "wait for the next one, or SIGTERM, and SIGKILL after the grace",
    ),
    Rule(
        ev.LastHeartbeat,
        (_S.STARTING, _S.IDLE, _S.STOPPING),
        "same",
        "workers.ignore",
        "the task that was asked about is over",
    ),
    Rule(
        ev.CallStarted,
        (_S.BUSY,),
        "same",
        "limits.on_call_started",
        "wait for the end of its time, or SIGTERM, and SIGKILL after the grace",
    ),
    Rule(
        ev.CallStarted,
        (_S.STARTING, _S.IDLE, _S.STOPPING),
        "same",
        "workers.ignore",
        "the task that was asked about is over",
    ),
    Rule(ev.MemoryMeasured, (_S.BUSY,), "same", "limits.on_memory_measured", "SIGKILL if it is above the limit"),
    Rule(
        ev.MemoryMeasured,
        (_S.STARTING, _S.IDLE, _S.STOPPING),
        "same",
        "workers.ignore",
        "the task that was asked about is over",
    ),
    Rule(
        ev.Died,
        (_S.BUSY,),
        "DEAD",
        "workers.on_died",
        "fail its task or try it again; tasks that never began go back into the queue; start another worker",
    ),
    Rule(
        ev.Died,
        (_S.STARTING, _S.IDLE),
        "DEAD",
        "workers.on_died",
        "start another worker, after a pause if this one died young",
    ),
    Rule(
        ev.Died,
        (_S.STOPPING,),
        "DEAD",
        "workers.on_died",
        "it was expected; start another worker if that was not done before",
    ),
)


def render_rules() -> str:
    """Return the table as the documentation shows it (Markdown)."""
    lines = ["| event | in state | then | why |", "|---|---|---|---|"]
    for rule in RULES:
        states = ", ".join(state.value for state in rule.states)
        lines.append(f"| {rule.event.__name__} | {states} | {rule.then} | {rule.why} |")
    return "\n".join(lines)
