"""What can happen to a pool. Pure data: `loop` observes it, `machine` decides what is to be done (`actions`).

A worker is named by its slot and its generation. A slot is reused at once, a generation after billions of others, so
news of a worker that is already buried cannot be taken for news of its successor.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

from pidfdpool.records import dataclass

if TYPE_CHECKING:
    from pidfdpool.pidfd import ExitStatus
    from pidfdpool.scheduler.policy import Policy


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
    """The worker wrote the outcome of the task, a result or an exception, completely.

    failed: it is an exception; retryable: one of those after which the task is to be tried again.
    memory: the worker's resident memory in bytes, if it was asked to tell; 0 otherwise.
    seconds: how long the task took, as far as the worker can tell; None: it cannot.
    """

    slot: int
    generation: int
    task: int
    failed: bool = False
    retryable: bool = False
    memory: int = 0
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """Outcomes of the worker's were taken by `Machine.take_answers`, and no more are there at the moment."""

    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class TakenBack:
    """What TakeBack came to: the last `count` tasks ahead of the worker have not begun, and never will in there."""

    slot: int
    generation: int
    count: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """The worker has come upon `count` more of the tasks that were taken back, and passed over them."""

    slot: int
    generation: int
    count: int


@dataclass(frozen=True, slots=True)
class SendRefused:
    """The channel refused the task's first byte: the worker is gone or going and never saw the task."""

    slot: int
    generation: int
    task: int


@dataclass(frozen=True, slots=True)
class SendSkipped:
    """The task was not sent: its future turned out to be cancelled, or resolved by somebody else."""

    slot: int
    generation: int
    task: int


@dataclass(frozen=True, slots=True)
class ProtocolViolated:
    """The worker wrote what no worker's loop writes; detail: what that was, for people. It is read no further."""

    slot: int
    generation: int
    detail: str


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    """The worker's end of the channel is closed. Mostly it has ended, and its Died follows."""

    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class Unhealthy:
    """The worker asked to be replaced; reason is for people."""

    slot: int
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Outdated:
    """The worker lacks what its next task needs of the script. It has not begun that, and leaves."""

    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class LastHeartbeat:
    """What CheckHeartbeat found: when the worker gave its last heartbeat, on the machine's clock; None: never."""

    slot: int
    generation: int
    at: float | None


@dataclass(frozen=True, slots=True)
class MemoryMeasured:
    """What CheckMemory found: the worker's resident memory in bytes; 0: it cannot be told."""

    slot: int
    generation: int
    memory: int


@dataclass(frozen=True, slots=True)
class InitializerFailed:
    """The initializer raised; reason is for people, the exception itself travels beside the event."""

    slot: int
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Died:
    """The process ended and all that it wrote has been read.

    unbegun: so many of its tasks, the last ones, did not begin: it had not taken their tokens.
    """

    slot: int
    generation: int
    status: ExitStatus
    unbegun: int = 0


# ---- events about the pool ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submitted:
    """A task was accepted, with a policy of its own if it was submitted with options. heavy: its call is large."""

    task: int
    policy: Policy | None = None
    heavy: bool = False


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The caller cancelled a task that may still be queued."""

    task: int


@dataclass(frozen=True, slots=True)
class TaskKillRequested:
    """The caller wants the task to end at once, wherever it is."""

    task: int


@dataclass(frozen=True, slots=True)
class ResizeRequested:
    """There are to be so many workers at most."""

    size: int


@dataclass(frozen=True, slots=True)
class PrestartRequested:
    """So many workers are to be there before there are tasks for them."""

    count: int


@dataclass(frozen=True, slots=True)
class TemplateUp:
    """A template is there and takes requests."""


@dataclass(frozen=True, slots=True)
class TemplateBooted:
    """The template has done its preload: from now on it answers at once."""


@dataclass(frozen=True, slots=True)
class TemplateLost:
    """The template is gone, asked or unasked, or could not be started."""

    reason: str


@dataclass(frozen=True, slots=True)
class TemplateUnusable:
    """The template cannot do its work, and another one could not either (a preload that fails)."""

    reason: str


@dataclass(frozen=True, slots=True)
class ShutdownRequested:
    """No task is accepted from now on; cancel: and those not yet handed to a worker are cancelled."""

    cancel: bool = False


@dataclass(frozen=True, slots=True)
class KillRequested:
    """Shut down, cancel what is queued, and send the signal to every worker."""

    signal: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed: `Machine.deadline` was reached, or may have been.

    read_until: everything that workers and the template had written by then has been heard. What was to be done by
    a later moment is not judged yet.
    """

    read_until: float = math.inf


WorkerEvent: TypeAlias = (
    Spawned
    | SpawnFailed
    | Ready
    | Finished
    | Answered
    | TakenBack
    | Dropped
    | SendRefused
    | SendSkipped
    | ProtocolViolated
    | ChannelClosed
    | Unhealthy
    | Outdated
    | LastHeartbeat
    | MemoryMeasured
    | InitializerFailed
    | Died
)
PoolEvent: TypeAlias = (
    Submitted
    | Cancelled
    | TaskKillRequested
    | ResizeRequested
    | PrestartRequested
    | TemplateUp
    | TemplateBooted
    | TemplateLost
    | TemplateUnusable
    | ShutdownRequested
    | KillRequested
    | Tick
)
Event: TypeAlias = WorkerEvent | PoolEvent
