"""The states of a pool, and the table of what can happen to a worker in each. Pure data.

`machine` looks events up in the table, the documentation renders it, and a test compares the two.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, NamedTuple

from pidfdpool import events as ev


class State(enum.Enum):
    """The states of a slot, which are those of its worker; DEAD is also that of a slot never filled."""

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
    STOPPING = "STOPPING"


@dataclass(slots=True)
class Slot:
    """One place for a worker, and what is known of the worker in it."""

    index: int
    state: State = State.DEAD
    generation: int = 0
    wanted: bool = False  # was filled once, so it is refilled without being asked
    doomed: bool = False  # its death was caused by the pool or by the template's
    pid: int | None = None
    task: int | None = None
    tasks_done: int = 0
    asked_at: float = 0.0
    ready_at: float | None = None
    stop_by: float | None = None


class Rule(NamedTuple):
    """One row of the table: in these states the event is taken by this method of Machine."""

    event: type[Any]
    states: tuple[State, ...]
    then: str
    method: str
    why: str


_S = State

RULES: tuple[Rule, ...] = (
    Rule(ev.Spawned, (_S.STARTING, _S.STOPPING), "same", "_spawned", "its pid is known"),
    Rule(ev.SpawnFailed, (_S.STARTING, _S.STOPPING), "DEAD", "_spawn_failed", "try again after a pause"),
    Rule(ev.Ready, (_S.STARTING,), "IDLE", "_ready", "it may be given a task"),
    Rule(ev.Ready, (_S.STOPPING,), "same", "_ignore", "it will read that it is to leave"),
    Rule(ev.InitializerFailed, (_S.STARTING,), "same", "_initializer_failed", "no worker would do better: break"),
    Rule(ev.InitializerFailed, (_S.STOPPING,), "same", "_ignore", "it is leaving anyway"),
    Rule(ev.Finished, (_S.BUSY,), "IDLE", "_finished", "deliver; STOPPING if it has done its share of tasks"),
    Rule(ev.SendRefused, (_S.BUSY,), "STOPPING", "_send_refused", "the task never ran: back to the queue's head"),
    Rule(ev.Declined, (_S.BUSY,), "IDLE", "_declined", "the task was cancelled at the last moment; it never ran"),
    Rule(ev.Died, (_S.BUSY,), "DEAD", "_died", "fail its task, or requeue it if it was never read; refill"),
    Rule(ev.Died, (_S.STARTING, _S.IDLE), "DEAD", "_died", "refill, after a pause if it died young"),
    Rule(ev.Died, (_S.STOPPING,), "DEAD", "_died", "as asked; refill"),
)


def render_rules() -> str:
    """Return the table as the documentation shows it (Markdown)."""
    lines = ["| event | in state | then | why |", "|---|---|---|---|"]
    for rule in RULES:
        states = ", ".join(state.value for state in rule.states)
        lines.append(f"| {rule.event.__name__} | {states} | {rule.then} | {rule.why} |")
    return "\n".join(lines)


TABLE: dict[tuple[type[Any], State], str] = {
    (rule.event, state): rule.method for rule in RULES for state in rule.states
}
