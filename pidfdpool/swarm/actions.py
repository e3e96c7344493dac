"""What the machine wants to be done, in this order. Pure data; the supervisor carries it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from pidfdpool.records import dataclass

if TYPE_CHECKING:
    from pidfdpool.swarm.records import EventKind, NodeDeath, Reason


@dataclass(frozen=True, slots=True)
class StartTemplate:
    """Start a template; TemplateUp, TemplateLost or TemplateUnusable follows."""


@dataclass(frozen=True, slots=True)
class StopTemplate:
    """Have the template end; TemplateLost follows."""


@dataclass(frozen=True, slots=True)
class KillTemplate:
    """Kill a template that does not answer; TemplateLost follows."""


@dataclass(frozen=True, slots=True)
class Fork:
    """Ask the template for a process; Forked or ForkFailed follows."""

    node: int
    number: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Request:
    """Set `node.stopping` in the process."""

    node: int
    number: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """Send SIGTERM to the process, and SIGCONT."""

    node: int
    number: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Send SIGKILL to the process and to its process group; as soon as it exists, if it was not forked yet."""

    node: int
    number: int


@dataclass(frozen=True, slots=True)
class Quiet:
    """Set `node.quiet` in the process."""

    node: int
    number: int


@dataclass(frozen=True, slots=True)
class DumpStack:
    """Have the process write its Python stack, for the record of its death."""

    node: int
    number: int


@dataclass(frozen=True, slots=True)
class LookAtReport:
    """Read when its last report was; LastReport follows at once."""

    node: int
    number: int


@dataclass(frozen=True, slots=True)
class MeasureMemory:
    """Measure its memory; MemoryMeasured follows at once."""

    node: int
    number: int


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell users what has happened, as a `NodeEvent` with these fields."""

    kind: EventKind
    node: int
    attempt: int
    pid: int | None
    detail: str = ""
    reason: Reason | None = None
    death: NodeDeath | None = None
    history: tuple[NodeDeath, ...] = ()


Action: TypeAlias = (
    StartTemplate
    | StopTemplate
    | KillTemplate
    | Fork
    | Request
    | Terminate
    | Kill
    | Quiet
    | DumpStack
    | LookAtReport
    | MeasureMemory
    | Tell
)
