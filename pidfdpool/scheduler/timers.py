"""The moments that a machine waits for. Pure."""

from __future__ import annotations

import enum
import heapq
from typing import TypeAlias


class Timer(enum.IntEnum):
    """What for. Each belongs to a worker (by generation), to a task, or to the pool (0)."""

    STOP = 1  # worker: it was told to stop and should have left
    TIMEOUT = 2  # worker: its task has run for long enough
    HEARTBEAT = 3  # worker: its task should have given a heartbeat
    STACK = 4  # worker: SIGTERM did nothing; have the stack written
    KILL = 5  # worker: its grace is over
    GIVE_UP = 6  # worker: even SIGKILL did nothing yet; whoever waits for its task is told now
    AGE = 7  # worker: it is too old
    IDLE = 8  # worker: it was idle for too long
    FORK = 9  # worker: the template should have forked it
    START = 10  # worker: it should be ready
    EXIT = 11  # worker: its channel is closed, so it should have ended
    DEADLINE = 12  # task: it has waited for too long
    RETRY = 13  # task: its pause is over
    MEMORY = 14  # pool: look at the workers' memory
    TEMPLATE = 15  # pool: the template was told to leave and should have left
    BALANCE = 16  # pool: a worker has nothing to do; see whether others are still at what they were at


Key: TypeAlias = tuple[Timer, int]

_OF_WORKERS = [timer for timer in Timer if timer < Timer.DEADLINE]


class Timers:
    """Moments by key. What was set anew or cancelled stays in the heap until it comes up, and is passed over."""

    def __init__(self) -> None:
        self._at: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []

    def set(self, key: Key, at: float) -> None:
        """Wait for this moment under this key, and no longer for an earlier one."""
        self._at[key] = at
        heapq.heappush(self._heap, (at, key))
        if len(self._heap) > 64 + 2 * len(self._at):
            self._heap = [(moment, other) for other, moment in self._at.items()]
            heapq.heapify(self._heap)

    def cancel(self, *keys: Key) -> None:
        """Wait no longer under these keys; some may not be set."""
        for key in keys:
            self._at.pop(key, None)

    def cancel_task_limits(self, generation: int) -> None:
        """Limit the time of a worker's task no longer."""
        self._at.pop((Timer.TIMEOUT, generation), None)
        self._at.pop((Timer.HEARTBEAT, generation), None)

    def cancel_worker(self, generation: int) -> None:
        """Wait no longer for anything of a worker."""
        for timer in _OF_WORKERS:
            self._at.pop((timer, generation), None)

    def __contains__(self, key: Key) -> bool:
        return key in self._at

    def pop_due(self, now: float) -> Key | None:
        """Return the key whose moment came first and forget it; None if none has come."""
        at = self.next()
        if at is None or at > now:
            return None
        key = heapq.heappop(self._heap)[1]
        del self._at[key]
        return key

    def next(self) -> float | None:
        """Return the next moment, if there is one."""
        while self._heap:
            at, key = self._heap[0]
            if self._at.get(key) == at:
                return at
            heapq.heappop(self._heap)
        return None
