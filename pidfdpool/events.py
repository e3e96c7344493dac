"""What can happen to a pool (events) and what is to be done about it (actions). Pure data.

Shared by `machine`, which turns the first into the second, and `loop`, which observes the first and carries out the
second.

A worker is named by its slot and its generation. A slot is reused, a generation never is, so news of a worker
that is already buried cannot be taken for news of its successor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from pidfdpool.pidfd import ExitStatus

# ---- events about one worker -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spawned:
    """The template forked the worker."""

    slot: int
    generation: int
    pid: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The worker could not be forked; reason is for people, such as "fork: [Errno 11] ..."."""

    slot: int
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker ran its initializer and waits for a task."""

    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The worker wrote the outcome of the task, a result or an exception, completely."""

    slot: int
    generation: int
    task: int


@dataclass(frozen=True, slots=True)
class SendRefused:
    """The channel refused the task's first byte: the worker is gone or going and never saw the task."""

    slot: int
    generation: int
    task: int


@dataclass(frozen=True, slots=True)
class Declined:
    """The task was not sent: its future turned out to be cancelled, or resolved by somebody else."""

    slot: int
    generation: int
    task: int


@dataclass(frozen=True, slots=True)
class InitializerFailed:
    """The initializer raised; reason is for people, the exception itself travels beside the event."""

    slot: int
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Died:
    """The process ended and all that it wrote has been read.

    unread: the kernel said that the worker never took the whole task from its channel, so it did not run.
    """

    slot: int
    generation: int
    status: ExitStatus
    unread: bool = False


# ---- events about the pool ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submitted:
    """A task was accepted."""

    task: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The caller cancelled a task that may still be queued."""

    task: int


@dataclass(frozen=True, slots=True)
class TemplateUp:
    """A template is there and takes requests."""


@dataclass(frozen=True, slots=True)
class TemplateLost:
    """The template is gone, asked or unasked, or could not be started."""

    reason: str


@dataclass(frozen=True, slots=True)
class TemplateHopeless:
    """The template cannot do its work, and another one could not either (a preload that fails)."""

    reason: str


@dataclass(frozen=True, slots=True)
class ShutdownAsked:
    """No task is accepted from now on; cancel: and those not yet handed to a worker are cancelled."""

    cancel: bool = False


@dataclass(frozen=True, slots=True)
class KillAsked:
    """Shut down, cancel what is queued, and send the signal to every worker."""

    signal: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed: `Machine.deadline` was reached, or may have been."""


WorkerEvent: TypeAlias = Spawned | SpawnFailed | Ready | Finished | SendRefused | Declined | InitializerFailed | Died
PoolEvent: TypeAlias = (
    Submitted | Cancelled | TemplateUp | TemplateLost | TemplateHopeless | ShutdownAsked | KillAsked | Tick
)
Event: TypeAlias = WorkerEvent | PoolEvent


# ---- actions -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spawn:
    """Ask the template for a worker."""

    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class Send:
    """Hand the task to the worker."""

    slot: int
    generation: int
    task: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell the worker to leave when it is done with what it has."""

    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class Signal:
    """Send the signal to the worker and its process group."""

    slot: int
    generation: int
    signal: int


@dataclass(frozen=True, slots=True)
class Deliver:
    """Resolve the task's future with the outcome that came with `Finished`."""

    task: int


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Resolve the task's future as cancelled."""

    task: int


@dataclass(frozen=True, slots=True)
class FailCrashed:
    """Fail the task's future: the worker that ran it died."""

    task: int
    slot: int
    generation: int
    pid: int | None
    status: ExitStatus
    uptime: float
    tasks_done: int


@dataclass(frozen=True, slots=True)
class FailBroken:
    """Fail the task's future: the pool is broken."""

    task: int
    reason: str


@dataclass(frozen=True, slots=True)
class StartTemplate:
    """Start a template; answer with TemplateUp, TemplateLost or TemplateHopeless."""


@dataclass(frozen=True, slots=True)
class StopTemplate:
    """Tell the template to kill whatever worker is left and to leave; TemplateLost follows."""


@dataclass(frozen=True, slots=True)
class Close:
    """Nothing is left to do, and no process: the pool thread may end."""


Action: TypeAlias = (
    Spawn
    | Send
    | Stop
    | Signal
    | Deliver
    | Withdraw
    | FailCrashed
    | FailBroken
    | StartTemplate
    | StopTemplate
    | Close
)
