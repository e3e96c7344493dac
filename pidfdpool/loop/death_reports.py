"""Collects what is known of each worker's death, and reports it: to the log, to subscribers, in errors.

`Evidence` is what the pool thread found when the worker had ended. `record` adds what the machine knows; it is called
under the pool's lock. `publish` is called without it, because it runs code of the user's.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from pidfdpool.deaths import Cause, Death
from pidfdpool.loop.cgroup import MemoryEvents
from pidfdpool.process import describe, safe_logging
from pidfdpool.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.scheduler import actions as do
    from pidfdpool.transport.published import Published

MOST_IN_ERRORS = 1000  # deaths that an error lists, before the one that broke the pool

_log = logging.getLogger("pidfdpool.deaths")
# Errors report deaths, too. So a program that has not set up logging does not find them on standard error as well.
_log.addHandler(logging.NullHandler())

# In errors, beside those that nobody asked for.
_IN_ERRORS = (Cause.START, Cause.TEMPLATE, Cause.BABBLE, Cause.HUNG_UP)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a dead worker and its template left behind."""

    peak_rss: int | None = None
    cpu_time: float | None = None
    stderr: tuple[str, ...] = ()
    stack: str | None = None
    marks: int = 0  # of the calls of a chunk that were begun, see `worker.chunk`
    published: Published | None = None  # of such a chunk, see `worker.chunk_publishing`


class DeathReports:
    """The deaths of one pool's workers."""

    def __init__(self, subscribers: list[Callable[[Death], object]], remembered: int) -> None:
        self.recent: deque[Death] = deque(maxlen=remembered)
        self._subscribers = subscribers
        self._memory = MemoryEvents()
        self._events: dict[str, int] | None = None  # what the memory's counters said, for the next record

    def read_memory_events(self) -> None:
        """Read the memory's counters for the next record, if that was not done yet. The caller holds the lock."""
        if self._events is None:
            self._events = self._memory.risen()

    def record(self, report: do.ReportDeath, evidence: Evidence, task: str | None) -> Death:
        """Return the record of a death. The caller holds the pool's lock."""
        self.read_memory_events()
        events, self._events = self._events or {}, None
        death = Death(
            slot=report.slot,
            generation=report.generation,
            pid=report.pid,
            cause=report.cause,
            exit_status=report.status,
            uptime=report.uptime,
            tasks_done=report.tasks_done,
            task=task,
            task_id=report.task,
            attempt=report.attempt,
            peak_rss=evidence.peak_rss,
            cpu_time=evidence.cpu_time,
            oom_kills=events.get("oom_kill", 0) if self._memory.readable else None,
            memory_events=events,
            stderr=evidence.stderr,
            stack=evidence.stack,
            detail=report.detail,
            ended_at=time.time(),
        )
        if death.cause.unasked or death.cause in _IN_ERRORS:
            self.recent.append(death)
        return death

    def publish(self, death: Death) -> None:
        """Log a death and call the subscribers. In whichever thread noticed it, without the lock."""
        level = logging.DEBUG if death.expected else logging.WARNING
        safe_logging.log(_log, level, "%s", death, extra={"death": death})
        for callback in list(self._subscribers):
            try:
                callback(death)
            except BaseException:
                message = "exception calling %r for the death of worker %d"
                safe_logging.log(_log, logging.ERROR, message, callback, death.slot, exc_info=True)


def subscribe(subscribers: list[Callable[[Any], object]], callback: Callable[[Any], object]) -> Callable[[], None]:
    """Add a subscriber; return what removes it again."""
    if not callable(callback):
        raise TypeError(f"callback must be a callable, not {describe.repr_of(callback)}")
    subscription = partial(callback)  # an object of our own, so that no `__eq__` of the callback's is asked
    subscribers.append(subscription)

    def unsubscribe() -> None:
        with suppress(ValueError):
            subscribers.remove(subscription)

    return unsubscribe
