"""What can happen to a pool. Pure data: `loop` observes it, and `Machine.decide` says what is to be done (`actions`).

A worker is named by its slot and its generation. A slot is used again at once, a generation only after billions of
others. So news of a worker whose slot is free already cannot be taken for news of its successor.
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
    """The worker could not be forked. reason: for people, such as "fork: [Errno 11] ..."."""

    slot: int
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has run its initializer and waits for a task."""

    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The worker has written the outcome of the task completely.

    failed: the outcome is an exception. retryable: one of those after which the task is to be tried again.
    memory: the worker's resident memory in bytes, if the pool limits it; 0 otherwise.
    seconds: how long the task took, as measured by the worker; None: it is not known.
    calls: what it counts for; more than one only for a chunk, and only if the pool limits the tasks of a worker.
    """

    slot: int
    generation: int
    task: int
    failed: bool = False
    retryable: bool = False
    memory: int = 0
    seconds: float | None = None
    calls: int = 1


@dataclass(frozen=True, slots=True)
class Answered:
    """`Machine.take_answers` has taken outcomes of the worker, which now runs a task that was ahead."""

    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class TakenBack:
    """The answer to TakeBack: the last `count` tasks ahead of the worker have not begun, and never will there."""

    slot: int
    generation: int
    count: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """The worker has read `count` more of the tasks that were taken back, and dropped them."""

    slot: int
    generation: int
    count: int


@dataclass(frozen=True, slots=True)
class SendRefused:
    """The channel refused the first byte of the task: the worker has ended or is ending, and never saw the task."""

    slot: int
    generation: int
    task: int


@dataclass(frozen=True, slots=True)
class SendSkipped:
    """The task was not sent, because its future turned out to be cancelled, or to be resolved by somebody else."""

    slot: int
    generation: int
    task: int


@dataclass(frozen=True, slots=True)
class ProtocolViolated:
    """The worker wrote what no worker's loop writes, and nothing more of it is read. detail: for people."""

    slot: int
    generation: int
    detail: str


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    """The worker's end of the channel is closed. Usually the worker has ended, and Died follows."""

    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class Unhealthy:
    """The worker asked to be replaced. reason: for people."""

    slot: int
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Outdated:
    """The worker lacks what its next task needs of the script. It has not begun that task, and leaves."""

    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class LastHeartbeat:
    """The answer to CheckHeartbeat. at: the worker's last heartbeat, on the machine's clock; None: there was none.

    late: the last sign of life was not after the time that was asked for. Of a chunk no further call begins then.
    """

    slot: int
    generation: int
    at: float | None
    late: bool = True


@dataclass(frozen=True, slots=True)
class CallStarted:
    """The answer to CheckCall. at: when the last call of the chunk began, on the machine's clock; None: none did.

    late: that was not after the time that was asked for. Then no further call begins.
    """

    slot: int
    generation: int
    at: float | None
    late: bool = True


@dataclass(frozen=True, slots=True)
class MemoryMeasured:
    """The answer to CheckMemory. memory: the worker's resident memory in bytes; 0: it is not known."""

    slot: int
    generation: int
    memory: int


@dataclass(frozen=True, slots=True)
class InitializerFailed:
    """The initializer raised. reason: for people; `loop` keeps the exception itself."""

    slot: int
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Died:
    """The process has ended, and all that it wrote has been read.

    unbegun: how many of its tasks, the last ones, have not begun: their tokens were not taken.
    """

    slot: int
    generation: int
    status: ExitStatus
    unbegun: int = 0


# ---- events about the pool ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submitted:
    """A task was accepted.

    policy: its own, if it was submitted with options. heavy: its call is large.
    calls: how many calls of a map it makes, each of which its limits of time are about; 0: it is one task by itself.
    since: from when on its deadline counts, on the machine's clock; None: from now on.
    attempts: the number of its attempts that were lost already, as a part of another task. It is tried again.
    deaths: how many workers have died in them.
    follows: it goes on with what an accepted task has left, so a pool that finishes what it has accepts it.
    """

    task: int
    policy: Policy | None = None
    heavy: bool = False
    calls: int = 0
    since: float | None = None
    attempts: int = 0
    deaths: int = 0
    follows: bool = False


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The caller has cancelled a task, which may have begun."""

    task: int


@dataclass(frozen=True, slots=True)
class TaskKillRequested:
    """The caller wants the task to be killed, wherever it is."""

    task: int


@dataclass(frozen=True, slots=True)
class ResizeRequested:
    """The pool is to have this many workers at most."""

    size: int


@dataclass(frozen=True, slots=True)
class PrestartRequested:
    """This many workers are to be started, though there may be no tasks for them yet."""

    count: int


@dataclass(frozen=True, slots=True)
class TemplateUp:
    """A template is there and takes requests."""


@dataclass(frozen=True, slots=True)
class TemplateBooted:
    """The template has finished its preload. From now on it answers at once."""


@dataclass(frozen=True, slots=True)
class TemplateLost:
    """The template has ended, whether it was told to or not, or it could not be started.

    reason: for people. starts_otherwise: there is another way to start one, which may work.
    """

    reason: str
    starts_otherwise: bool = False


@dataclass(frozen=True, slots=True)
class TemplateUnusable:
    """The template cannot do its work, and another one could not either (its preload fails). reason: for people."""

    reason: str


@dataclass(frozen=True, slots=True)
class ShutdownRequested:
    """No task is to be accepted from now on. cancel: those that no worker has begun are to be cancelled."""

    cancel: bool = False


@dataclass(frozen=True, slots=True)
class KillRequested:
    """The pool is to shut down, cancel what no worker has begun, and send the signal to every worker."""

    signal: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: `Machine.deadline` was reached, or may have been.

    read_until: everything that workers and the template had written by then has been read. Timers of a later moment
    are left alone, because what was written in time may not have been read yet.
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
    | CallStarted
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
