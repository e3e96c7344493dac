"""What is to be done. Pure data: `Machine.decide` returns it, and `loop` carries it out in order.

A worker is named by its slot and its generation, as in `events`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from pidfdpool.records import dataclass

if TYPE_CHECKING:
    from pidfdpool.deaths import Cause
    from pidfdpool.pidfd import ExitStatus


# ---- on processes --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spawn:
    """Ask the template for a worker."""

    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class Send:
    """Send the task to the worker.

    deadline: of this attempt, on the machine's clock, for the task to ask for.
    allowed: of a chunk, how many of its calls the worker may make at most; 0: all of them.
    """

    slot: int
    generation: int
    task: int
    attempt: int = 1
    deadline: float | None = None
    allowed: int = 0


@dataclass(frozen=True, slots=True)
class Prefetch:
    """Send the busy worker these tasks ahead, in this order. It is the first attempt of each."""

    slot: int
    generation: int
    tasks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Take back the last `count` tasks ahead of the worker, or as many as have not begun. The answer is TakenBack."""

    slot: int
    generation: int
    count: int


@dataclass(frozen=True, slots=True)
class MarkBegun:
    """Mark the task, which was sent ahead, as running: the worker has begun it."""

    slot: int
    generation: int
    task: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell the worker to leave when it has done the tasks that it has."""

    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class Signal:
    """Send the signal to the worker and its process group."""

    slot: int
    generation: int
    signal: int


@dataclass(frozen=True, slots=True)
class DumpStack:
    """Have the worker write its Python stack, because it is about to be killed and SIGTERM did not end it."""

    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class CheckHeartbeat:
    """Read when the worker gave its last heartbeat. The answer is LastHeartbeat.

    before: if there was none after this, the answer says that it is late.
    chunk: the task, if it makes many calls. Then the beginning of a call counts as a heartbeat. And before it is said
    to be late, the worker begins no further call, so that what follows hits no other one.
    """

    slot: int
    generation: int
    chunk: int | None = None
    before: float = 0.0


@dataclass(frozen=True, slots=True)
class CheckCall:
    """Read when the last call of a worker's chunk began. The answer is CallStarted.

    If that was not after `before`, first have the worker begin no further call.
    """

    slot: int
    generation: int
    chunk: int
    before: float


@dataclass(frozen=True, slots=True)
class ReadPublished:
    """Take what the worker has published of its chunk, because the task is about to fail while the worker lives."""

    slot: int
    generation: int
    task: int


@dataclass(frozen=True, slots=True)
class CheckMemory:
    """Measure the memory of the worker. The answer is MemoryMeasured."""

    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class ReportDeath:
    """Report the death of a worker to the log and to subscribers.

    attempt: of the task that was lost with it, if one was. uptime: seconds since the worker was asked for.
    """

    slot: int
    generation: int
    pid: int | None
    cause: Cause
    status: ExitStatus
    uptime: float
    tasks_done: int
    task: int | None = None
    attempt: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Deliver:
    """Resolve the task's future with the outcome that came with `Finished`."""

    task: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Resolve the task's future as cancelled."""

    task: int


@dataclass(frozen=True, slots=True)
class Fail:
    """Fail the task's future: an attempt has ended for this cause, and there is no other."""

    task: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Expire:
    """Fail the task's future: no worker was free for it within its deadline."""

    task: int


@dataclass(frozen=True, slots=True)
class Retry:
    """Note that the task is tried again, after a pause in seconds. A Send follows then."""

    task: int
    attempt: int
    pause: float


@dataclass(frozen=True, slots=True)
class FailBroken:
    """Fail the task's future: the pool is broken."""

    task: int
    reason: str


@dataclass(frozen=True, slots=True)
class StartTemplate:
    """Start a template. The answer is TemplateUp, TemplateLost or TemplateUnusable."""


@dataclass(frozen=True, slots=True)
class KillTemplate:
    """Kill the template, which does not answer. TemplateLost follows."""


@dataclass(frozen=True, slots=True)
class StopTemplate:
    """Tell the template to kill the workers that are left, and to leave. TemplateLost follows."""


@dataclass(frozen=True, slots=True)
class Close:
    """End the pool thread: no process is left, and nothing to do."""


Action: TypeAlias = (
    Spawn
    | Send
    | Prefetch
    | TakeBack
    | MarkBegun
    | Stop
    | Signal
    | DumpStack
    | CheckHeartbeat
    | CheckCall
    | ReadPublished
    | CheckMemory
    | ReportDeath
    | Deliver
    | Cancel
    | Fail
    | Expire
    | Retry
    | FailBroken
    | StartTemplate
    | KillTemplate
    | StopTemplate
    | Close
)
