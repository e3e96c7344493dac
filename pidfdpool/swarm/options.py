"""What a swarm was asked to do, as data. Pure: no clock, no process, no I/O.

Values outside of their range, and values that contradict each other, are refused when the options are made, with the
name and the value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pidfdpool import checks
from pidfdpool.records import dataclass
from pidfdpool.scheduler.policy import MOST_WORKERS

Restart = Literal["on-failure", "always"]
StopStep = Literal["request", "SIGTERM"]
STOP_STEPS = ("request", "SIGTERM")
_MOST_DOUBLINGS = 60  # a float overflows after a thousand


@dataclass(frozen=True, slots=True)
class Options:
    """The rules that a swarm follows. `Swarm` describes them. Times are in seconds, sizes in bytes."""

    nodes: int
    report_timeout: float | None = 60.0
    start_timeout: float | None = None
    stop_timeout: float = 30.0
    stop_order: StopStep | tuple[StopStep, ...] = ("request", "SIGTERM")
    restart: Restart = "on-failure"
    restart_pause: float = 5.0
    restart_pause_limit: float = 60.0
    young_age: float = 10.0
    intensity: int | None = 5
    period: float = 600.0
    max_memory: int | None = None
    memory_interval: float = 1.0
    max_age: float | None = None
    overlap: bool = False

    def __post_init__(self) -> None:
        """Refuse values of a wrong type or outside of their range, with name and value.

        Raises:
            TypeError, ValueError: one value is wrong, or two contradict each other.
        """
        self._take("nodes", checks.integer, least=1, most=MOST_WORKERS)
        for name in ("report_timeout", "start_timeout", "max_age"):
            self._take(name, checks.seconds, optional=True, zero=False)
        for name in ("stop_timeout", "period", "memory_interval"):
            self._take(name, checks.seconds, zero=False)
        for name in ("restart_pause", "restart_pause_limit", "young_age"):
            self._take(name, checks.seconds)
        self._take("intensity", checks.integer, least=0, optional=True)
        self._take("max_memory", checks.integer, least=1, optional=True)
        checks.boolean("overlap", self.overlap)
        if self.restart not in ("on-failure", "always"):
            raise ValueError(f"restart must be 'on-failure' or 'always', not {checks.short_repr(self.restart)}")
        object.__setattr__(self, "stop_order", _checked_order(self.stop_order))
        if self.restart_pause > self.restart_pause_limit:  # the limit is for pauses that grow
            object.__setattr__(self, "restart_pause_limit", self.restart_pause)

    def _take(self, name: str, check: Callable[..., object], **kind: Any) -> None:
        """Check a field, and keep what the check returns."""
        object.__setattr__(self, name, check(name, getattr(self, name), **kind))

    def pause(self, streak: int) -> float:
        """Return the pause before the next start. streak: the number of young deaths in a row."""
        return min(self.restart_pause * 2.0 ** min(max(0, streak - 1), _MOST_DOUBLINGS), self.restart_pause_limit)

    @property
    def reports(self) -> bool:
        """Whether nodes have to report that they are healthy."""
        return self.report_timeout is not None or self.start_timeout is not None


def _checked_order(value: Any) -> tuple[Any, ...]:
    wanted = "stop_order must be 'request', 'SIGTERM', or a tuple of these in the order in which they are tried"
    steps = (value,) if isinstance(value, str) else value
    if not isinstance(steps, (tuple, list)) or not steps:
        raise TypeError(f"{wanted}, not {checks.short_repr(value)}")
    if len(set(map(repr, steps))) != len(steps) or any(step not in STOP_STEPS for step in steps):
        raise ValueError(f"{wanted}, not {checks.short_repr(value)}")
    return tuple(steps)
