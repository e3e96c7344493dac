"""Polls for a moment before it sleeps, where what is waited for mostly comes at once.

One `Spin` per worker, for the loop on its thread, and one `LearningSpin` per pool, in the host, for the leader. They
hold no descriptor.

To sleep in the kernel and be woken takes longer than a small task, because an idle processor has to wake up. So a
worker that has answered polls for the next task before it sleeps. Whether that pays is learned from the last wait: if
that was longer than a spin, there is no spin before the next. So at most every second wait begins with a useless
spin. A worker whose tasks come at longer intervals spends no time on spins, and neither does an idle one.

A spin of 0.2 ms is longer than the round trip of a small task without spinning. If it were shorter, it would never
begin to pay.

A leader that spins may slow down the worker that it waits for. Where two virtual CPUs were the halves of one
processor, spinning made round trips slower by a fifth; where they were not, quicker by a quarter (Linux 6.18, 2
virtual CPUs, which do not tell which of them they are). So a leader tries both ways, and continues with the quicker
one.

Where processes wait for a processor, one that spins takes it from them. Therefore nobody spins where there is only
one processor, or where more threads want to run than there are processors (proc(5), /proc/loadavg). That is read ten
times a second at most.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

LOAD_CHECK_INTERVAL = 0.1  # seconds
LEADER_LIMIT = 0.0001  # seconds that a leader spins at most: beside a longer wait, the time of a wake-up is nothing
TRIAL_INTERVAL = 16  # one wait in 16 is made in the way that was slower until now
WORTHWHILE_RATIO = 0.9  # spinning pays if waits take at most this share of the time that they take without it


class Spin:
    """Decides before each wait whether to spin. limit: seconds that a spin lasts at most; 0: never spin."""

    __slots__ = ("_crowded", "_limit", "_next_load_check", "_pays", "_processors")

    def __init__(self, limit: float) -> None:
        self._processors = _processors() if limit else 0
        self._limit = limit if self._processors > 1 else 0.0
        self._pays = False  # the last wait was shorter than a spin
        self._crowded = False
        self._next_load_check = 0.0

    def wait(self, look: Callable[[], T], sleep: Callable[[], T]) -> T:
        """Return the first true value of look(), or sleep() if a spin found none or there is no spin."""
        limit = self._limit
        if not limit:
            return sleep()
        began = time.monotonic()
        if self._pays and self._may_spin() and not self._is_crowded(began):
            until = began + limit
            while time.monotonic() < until:
                found = look()
                if found:
                    self._record(time.monotonic() - began, spun=True)
                    return found
            self._pays = False
            return sleep()
        found = sleep()
        took = time.monotonic() - began
        self._pays = took < limit
        self._record(took, spun=False)
        return found

    def _may_spin(self) -> bool:
        return True

    def _record(self, took: float, *, spun: bool) -> None:
        """Learn from a wait. took: its length in seconds."""

    def _is_crowded(self, now: float) -> bool:
        """Return whether more threads of all processes want to run than there are processors."""
        if now >= self._next_load_check:
            self._next_load_check = now + LOAD_CHECK_INTERVAL
            try:
                with open("/proc/loadavg", "rb") as file:
                    running = int(file.read().split()[3].partition(b"/")[0])
            except (OSError, ValueError, IndexError):
                running = self._processors + 1
            self._crowded = running > self._processors
        return self._crowded


class LearningSpin(Spin):
    """Spins only where waits have turned out to be shorter with spinning. It tries the other way now and then."""

    __slots__ = ("_slept", "_spun", "_waits")

    def __init__(self, limit: float) -> None:
        super().__init__(min(limit, LEADER_LIMIT))
        self._waits = 0
        self._spun: float | None = None  # average length of short waits with a spin, in seconds
        self._slept: float | None = None  # the same without

    def _may_spin(self) -> bool:
        self._waits += 1
        is_trial = self._waits % TRIAL_INTERVAL == 0
        if self._spun is None or self._slept is None:
            return is_trial
        return (self._spun < WORTHWHILE_RATIO * self._slept) is not is_trial

    def _record(self, took: float, *, spun: bool) -> None:
        if spun:
            self._spun = _average(self._spun, took)
        elif self._pays:
            self._slept = _average(self._slept, took)


def _processors() -> int:
    """Return how many processors this process may use; 1, so that nobody spins, if a sandbox refuses the call."""
    try:
        return len(os.sched_getaffinity(0))
    except OSError:
        return 1


def _average(before: float | None, latest: float) -> float:
    return latest if before is None else before + (latest - before) / 4
