"""What the machine is told: what was observed of nodes and of the template, and what users ask for. Pure data.

Made in the supervisor's thread. `node` is the number of the node. `number` is that of the process, which is unique in
its swarm: news of a process that was removed meanwhile is recognised by it, and ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from pidfdpool.records import dataclass

if TYPE_CHECKING:
    from pidfdpool.pidfd import ExitStatus


@dataclass(frozen=True, slots=True)
class Forked:
    """The template has forked the process."""

    node: int
    number: int
    pid: int


@dataclass(frozen=True, slots=True)
class ForkFailed:
    """There is no such process, and there will be none."""

    node: int
    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Begun:
    """Its target was loaded, and is called."""

    node: int
    number: int


@dataclass(frozen=True, slots=True)
class ReportedHealthy:
    """Its first report that it is healthy."""

    node: int
    number: int


@dataclass(frozen=True, slots=True)
class ReportedUnhealthy:
    """It says that it is not healthy."""

    node: int
    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ending:
    """It ends by an exception; loading: its target could not be loaded."""

    node: int
    number: int
    text: str
    loading: bool


@dataclass(frozen=True, slots=True)
class LastReport:
    """When its last report was, as it was asked for; None: there was none."""

    node: int
    number: int
    at: float | None


@dataclass(frozen=True, slots=True)
class MemoryMeasured:
    """Its resident memory in bytes, as it was asked for; 0: not known."""

    node: int
    number: int
    memory: int


@dataclass(frozen=True, slots=True)
class Died:
    """The process has ended, and is reaped. All but the status is only for the record (`NodeDeath`)."""

    node: int
    number: int
    status: ExitStatus
    ended_at: float = 0.0
    peak_rss: int | None = None
    cpu_time: float | None = None
    stack: str | None = None
    stderr: tuple[str, ...] = ()
    oom_kills: int | None = None


@dataclass(frozen=True, slots=True)
class TemplateUp:
    """There is a template, which takes requests. It may have to load its preload before it serves them."""


@dataclass(frozen=True, slots=True)
class TemplateBooted:
    """The template serves requests at once from now on."""


@dataclass(frozen=True, slots=True)
class TemplateLost:
    """The template has ended, or could not be started. Another one may work."""

    reason: str


@dataclass(frozen=True, slots=True)
class TemplateUnusable:
    """There is no template, and no other one would work."""

    reason: str


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The swarm is to end. now: by SIGKILL."""

    now: bool


@dataclass(frozen=True, slots=True)
class QuietAsked:
    """Nodes are to take no new work."""


@dataclass(frozen=True, slots=True)
class ResizeAsked:
    """There are to be so many nodes."""

    nodes: int


@dataclass(frozen=True, slots=True)
class RestartAsked:
    """Every node is to get a new process."""

    rolling: bool


@dataclass(frozen=True, slots=True)
class HeldUp:
    """The supervisor woke so many seconds too late: it was stopped, and perhaps the nodes were as well."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


OfProcess: TypeAlias = (
    Forked | ForkFailed | Begun | ReportedHealthy | ReportedUnhealthy | Ending | LastReport | MemoryMeasured | Died
)
OfTemplate: TypeAlias = TemplateUp | TemplateBooted | TemplateLost | TemplateUnusable
OfUser: TypeAlias = StopAsked | QuietAsked | ResizeAsked | RestartAsked
Input: TypeAlias = OfProcess | OfTemplate | OfUser | HeldUp | Tick
