"""When a node, or the template, is started again after it has died young, and when it is given up. Pure."""

from __future__ import annotations

from collections import deque


class YoungDeaths:
    """The young deaths of one node, or of a swarm's templates.

    Attributes:
        streak: how many there were in a row.
    """

    def __init__(self, intensity: int | None, period: float) -> None:
        """intensity: how many within `period` seconds are tolerated; None: any number."""
        self._intensity = intensity
        self._period = period
        self._recent: deque[float] = deque()  # when those of the last `period` seconds were
        self.streak = 0

    def add(self, now: float) -> bool:
        """Count one; return whether it is one too many."""
        self.streak += 1
        self._recent.append(now)
        while now - self._recent[0] > self._period:
            self._recent.popleft()
        return self._intensity is not None and len(self._recent) > self._intensity

    def end_streak(self) -> None:
        """Note that one has lived: pauses are short again. What was counted within the period stays counted."""
        self.streak = 0

    def forget(self) -> None:
        """Begin anew: a user has asked for that."""
        self.streak = 0
        self._recent.clear()

    @property
    def count(self) -> int:
        """How many were counted within the last period, as of the last one."""
        return len(self._recent)
