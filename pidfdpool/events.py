"""What can happen to a pool (events) and what is to be done about it (actions). Pure data, shared by
`machine`, which turns the first into the second, and `loop`, which observes the first and carries out the second.

A worker is named by its slot and its generation. A slot is reused, a generation never is, so news of a worker
that is already buried cannot be taken for news of its successor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from pidfdpool.pidfd import ExitStatus

_value = dataclass(frozen=True, slots=True)


# ---- events about one worker -------------------------------------------------------------------------------


@_value
class Spawned:
    """The template forked the worker."""

    slot: int
    generation: int
    pid: int


@_value
class SpawnFailed:
    """The worker could not be forked; reason is for people, such as "fork: [Errno 11] ..."."""

    slot: int
    generation: int
    reason: str


@_value
class Ready:
    """The worker ran its initializer and waits for a task."""

    slot: int
    generation: int


@_value
class Finished:
    """The worker wrote the outcome of the task, a result or an exception, completely."""

    slot: int
    generation: int
    task: int


@_value
class SendRefused:
    """The channel refused the task's first byte: the worker is gone or going and never saw the task."""

    slot: int
    generation: int
    task: int


@_value
class Declined:
    """The task was not sent: its future turned out to be cancelled, or resolved by somebody else."""

    slot: int
    generation: int
    task: int


@_value
class InitializerFailed:
    """The initializer raised; reason is for people, the exception itself travels beside the event."""

    slot: int
    generation: int
    reason: str


@_value
class Died:
    """The process ended and all that it wrote has been read.

    unread: the kernel said that the worker never took the whole task from its channel, so it did not run.
    """

    slot: int
    generation: int
    status: ExitStatus
    unread: bool = False


# ---- events about the pool ---------------------------------------------------------------------------------


@_value
class Submitted:
    """A task was accepted."""

    task: int


@_value
class Cancelled:
    """The caller cancelled a task that may still be queued."""

    task: int


@_value
class TemplateUp:
    """A template is there and takes requests."""


@_value
class TemplateLost:
    """The template is gone, asked or unasked, or could not be started."""

    reason: str


@_value
class TemplateHopeless:
    """The template cannot do its work, and another one could not either (a preload that fails)."""

    reason: str


@_value
class ShutdownAsked:
    """No task is accepted from now on; cancel: and those not yet handed to a worker are cancelled."""

    cancel: bool = False


@_value
class KillAsked:
    """Shut down, cancel what is queued, and send the signal to every worker."""

    signal: int


@_value
class Tick:
    """Time passed: `Machine.deadline` was reached, or may have been."""


WorkerEvent: TypeAlias = (
    Spawned | SpawnFailed | Ready | Finished | SendRefused | Declined | InitializerFailed | Died
)
PoolEvent: TypeAlias = (
    Submitted | Cancelled | TemplateUp | TemplateLost | TemplateHopeless | ShutdownAsked | KillAsked | Tick
)
Event: TypeAlias = WorkerEvent | PoolEvent


# ---- actions -----------------------------------------------------------------------------------------------


@_value
class Spawn:
    """Ask the template for a worker."""

    slot: int
    generation: int


@_value
class Send:
    """Hand the task to the worker."""

    slot: int
    generation: int
    task: int


@_value
class Stop:
    """Tell the worker to leave when it is done with what it has."""

    slot: int
    generation: int


@_value
class Signal:
    """Send the signal to the worker and its process group."""

    slot: int
    generation: int
    signal: int


@_value
class Deliver:
    """Resolve the task's future with the outcome that came with `Finished`."""

    task: int


@_value
class Withdraw:
    """Resolve the task's future as cancelled."""

    task: int


@_value
class FailCrashed:
    """Fail the task's future: the worker that ran it died."""

    task: int
    slot: int
    generation: int
    pid: int | None
    status: ExitStatus
    uptime: float
    tasks_done: int


@_value
class FailBroken:
    """Fail the task's future: the pool is broken."""

    task: int
    reason: str


@_value
class StartTemplate:
    """Start a template; answer with TemplateUp, TemplateLost or TemplateHopeless."""


@_value
class StopTemplate:
    """Tell the template to kill whatever worker is left and to leave; TemplateLost follows."""


@_value
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
