"""What is to be done about what happened to a pool. Pure data: `machine` decides it, `loop` carries it out.

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
    """Hand the task to the worker: its attempt-th attempt, wanted by `deadline` on the machine's clock."""

    slot: int
    generation: int
    task: int
    attempt: int = 1
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Prefetch:
    """Send the worker these tasks ahead, in this order, though it is busy. The first attempt of each."""

    slot: int
    generation: int
    tasks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Take back the last `count` tasks ahead of the worker, or as many as have not begun; answer with TakenBack."""

    slot: int
    generation: int
    count: int


@dataclass(frozen=True, slots=True)
class MarkBegun:
    """The worker has come to a task that had been sent ahead: note that it runs."""

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
class DumpStack:
    """Have the worker write its Python stack, because its end is near and SIGTERM did nothing."""

    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class CheckHeartbeat:
    """Look when the worker gave its last heartbeat; answer with LastHeartbeat."""

    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class CheckMemory:
    """Look how much memory the worker has; answer with MemoryMeasured."""

    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class ReportDeath:
    """A worker ended: tell whoever wants to know.

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
    """Fail the task's future: an attempt ended for this cause, and there is to be no other."""

    task: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Expire:
    """Fail the task's future: no worker was free for it within its deadline."""

    task: int


@dataclass(frozen=True, slots=True)
class Retry:
    """Nothing to be done now, but worth telling: the task is tried again, after so many seconds."""

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
    """Start a template; answer with TemplateUp, TemplateLost or TemplateUnusable."""


@dataclass(frozen=True, slots=True)
class KillTemplate:
    """The template does not answer: kill it. TemplateLost follows."""


@dataclass(frozen=True, slots=True)
class StopTemplate:
    """Tell the template to kill whatever worker is left and to leave; TemplateLost follows."""


@dataclass(frozen=True, slots=True)
class Close:
    """Nothing is left to do, and no process: the pool thread may end."""


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
