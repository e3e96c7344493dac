"""What a pool was asked to do, as data. Pure: no clock, no process, no I/O.

One frozen `Policy` belongs to each pool. `machine` reads it, nobody writes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OnCrash = Literal["isolate", "break"]


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules that a pool's decisions follow. Times are seconds.

    Attributes:
        max_workers: workers at most, one per slot; at least 1.
        max_tasks_per_child: a worker is replaced after so many tasks; None, the default, means never.
        on_crash: "isolate", the default: a worker's death fails only the task that ran in it. "break": it breaks
            the pool, as it does in the standard library.
        young_age: a worker that dies unasked before it finished a task, and within 1 s of being ready (or before
            it was), died young. So does a template that dies before any task was finished.
        intensity: more than so many young deaths within `period` break the pool; None, the default, means
            5 plus twice max_workers, so that one blow to all of them at once does not.
        period: see intensity; 30 s.
        backoff: the pause before a refill after the first young death in a row, 0.05 s; it doubles with each.
        backoff_limit: the longest such pause, 5 s.
        stop_grace: a worker that was told to stop has 10 s to leave before it is killed.
    """

    max_workers: int
    max_tasks_per_child: int | None = None
    on_crash: OnCrash = "isolate"
    young_age: float = 1.0
    intensity: int | None = None
    period: float = 30.0
    backoff: float = 0.05
    backoff_limit: float = 5.0
    stop_grace: float = 10.0

    @property
    def young_deaths_allowed(self) -> int:
        """The number of young deaths within `period` that the pool survives."""
        return self.intensity if self.intensity is not None else 5 + 2 * self.max_workers

    def pause(self, streak: int) -> float:
        """Return the seconds to wait after the streak-th young death in a row; 0.0 for none."""
        if streak <= 0:
            return 0.0
        # The exponent is capped: a float overflows after a thousand doublings.
        return min(self.backoff_limit, self.backoff * 2.0 ** min(streak - 1, 60))
