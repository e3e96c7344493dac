"""How fast processes are started again when they keep dying, and when the pool stops trying. Pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pidfdpool.scheduler.policy import Policy


class RestartLimiter:
    """Counts young deaths, of workers and templates alike, and failed starts. Any finished task resets the counts.

    A process died young if it died unasked before it finished a task, and soon after its start. The methods that
    count return why the pool has to be broken (text for people), or None while it may go on.

    Attributes:
        not_before: no process is started before this moment.
        streak: the number of young deaths in a row.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.not_before: float = 0.0
        self.streak: int = 0
        self._rounds = 0  # the same, but those that come during one pause count once
        self._recent: deque[float] = deque()  # when the young deaths of the last `period` seconds were
        self._nothing_starts_since: float | None = None  # since when every start fails, and no process is there

    def young_death(self, reason: str, now: float, *, fatal: bool = True) -> str | None:
        """Count a young death, and have the next start wait. Not fatal: only have it wait."""
        self.streak += 1
        same_round = now < self.not_before  # whatever dies during a pause was started before it
        self.not_before = now + self._policy.pause(self.streak)
        if not fatal:
            return None
        self._rounds += not same_round
        most = self._policy.young_rounds_allowed
        if most is not None and self._rounds > most:
            # The pauses grow: these alone, one at a time, would never be as many within the period.
            return (
                f"processes died {self._rounds} times in a row, after growing pauses, before any of them finished a "
                f"task; the last: {reason}"
            )
        self._recent.append(now)
        while now - self._recent[0] > self._policy.period:
            self._recent.popleft()
        if len(self._recent) > self._policy.young_deaths_allowed:
            return (
                f"{len(self._recent)} processes died within {self._policy.period:g} s before any of them finished "
                f"a task; the last: {reason}"
            )
        return None

    def failed_start(self, reason: str, now: float, *, fatal: bool, any_running: bool) -> str | None:
        """Count a worker or a template that could not be started; any_running: there are workers to go on with.

        How many failed would say nothing: all workers of a round fail together, and the pauses between rounds grow.
        So the pool breaks when nothing could be started for a whole period.
        """
        if any_running:
            self._nothing_starts_since = None
        elif self._nothing_starts_since is None:
            self._nothing_starts_since = now
        elif now - self._nothing_starts_since >= self._policy.period:
            return f"no process could be started for {now - self._nothing_starts_since:.3g} s; the last: {reason}"
        return self.young_death(reason, now, fatal=fatal)

    def worker_started(self) -> None:
        """Note that a worker was forked."""
        self._nothing_starts_since = None

    def task_finished(self) -> None:
        """Forget the young deaths."""
        if self.streak:
            self.streak = self._rounds = 0
            self._recent.clear()
