"""A pool that takes notes of what a future asks of it, and what waits for futures."""

from __future__ import annotations

import threading
from types import SimpleNamespace

from pidfdpool.executor.futures import Future


class Pool:
    """Takes notes of what a future asks of its pool."""

    def __init__(self, *, cancels=False):
        self.cancels, self.asked = cancels, []
        self.core = SimpleNamespace(tasks={7: SimpleNamespace(label="tests.calls.double")})
        self.leadership = SimpleNamespace(wait=lambda future, timeout: None)

    def cancel(self, number, future):
        self.asked.append(("cancel", number))
        if self.cancels:
            future._mark_cancelled()
        return self.cancels

    def kill_task(self, number):
        self.asked.append(("kill", number))

    def note_observer(self):
        self.asked.append("observed")


def attached(pool=None, *, cancel_kills=False, running=False):
    """Return a future whose task a pool has."""
    future = Future()
    future._attach(Pool() if pool is None else pool, 7, cancel_kills)
    if running:
        future._begin()
        future._note_attempt((2, 1, 4711), 3, 100.5)
    return future


class Waiter:
    """What `wait` and `as_completed` add to a future."""

    def __init__(self):
        self.told, self.finished_futures, self.event = [], [], threading.Event()

    def add_result(self, _future):
        self.told.append("result")

    def add_exception(self, _future):
        self.told.append("exception")

    def add_cancelled(self, _future):
        self.told.append("cancelled")
