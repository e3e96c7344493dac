"""The moments that a machine waits for. Pure; see the room's docstring."""

from __future__ import annotations

import enum
import heapq
from typing import TypeAlias


class Timer(enum.IntEnum):
    """What is waited for. A timer belongs to a worker (by generation), to a task (by number), or to the pool (0)."""

    STOP = 1  # worker: it was told to stop, and should have left
    TIMEOUT = 2  # worker: its task has run for too long
    HEARTBEAT = 3  # worker: its task should have given a heartbeat
    STACK = 4  # worker: SIGTERM did not end it; have its Python stack written
    KILL = 5  # worker: its grace is over
    GIVE_UP = 6  # worker: SIGKILL has not ended it yet; the future gets its error now
    AGE = 7  # worker: it is too old
    IDLE = 8  # worker: it was idle for too long
    FORK = 9  # worker: the template should have forked it
    START = 10  # worker: it should be ready
    EXIT = 11  # worker: its channel is closed, so it should have ended
    DEADLINE = 12  # task: it has waited for too long
    RETRY = 13  # task: the pause before its next attempt is over
    MEMORY = 14  # pool: measure the memory of busy workers
    TEMPLATE = 15  # pool: the template was told to leave, and should have left
    BALANCE = 16  # pool: a worker is idle; look whether others are still at the tasks that they were at
    CANCEL = 17  # pool: cancel the next of many tasks


Key: TypeAlias = tuple[Timer, int]

_OF_WORKERS = [timer for timer in Timer if timer < Timer.DEADLINE]


class Timers:
    """Moments by key, in a heap. An entry that was set again or cancelled stays in it, and is skipped at its turn."""

    def __init__(self) -> None:
        self._at: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []

    def set(self, key: Key, at: float) -> None:
        """Wait for this moment under this key, instead of the one that was set before."""
        self._at[key] = at
        heapq.heappush(self._heap, (at, key))
        if len(self._heap) > 64 + 2 * len(self._at):
            self._heap = [(moment, other) for other, moment in self._at.items()]
            heapq.heapify(self._heap)

    def cancel(self, *keys: Key) -> None:
        """Stop waiting under these keys; some may not be set."""
        for key in keys:
            self._at.pop(key, None)

    def cancel_task_limits(self, generation: int) -> None:
        """Stop limiting the time of a worker's task."""
        self._at.pop((Timer.TIMEOUT, generation), None)
        self._at.pop((Timer.HEARTBEAT, generation), None)

    def cancel_worker(self, generation: int) -> None:
        """Stop waiting for anything that concerns a worker."""
        for timer in _OF_WORKERS:
            self._at.pop((timer, generation), None)

    def __contains__(self, key: Key) -> bool:
        return key in self._at

    def pop_due(self, now: float) -> Key | None:
        """Remove and return the key whose moment came first; None if none has come."""
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
