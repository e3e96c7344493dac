"""Looking again for a moment before going to sleep, where what is waited for comes at once.

To fall asleep and be woken takes longer than a small task: an idle processor has to be brought back. So a worker that
has answered looks a few times before it waits in the kernel. Whether that pays is learned from the last wait: if that
was longer than a spin, there is none before the next. So of two waits one at most is preceded by a spin in vain: a
worker whose tasks come at longer intervals spends nothing on it, and nor does one that is idle.

A spin of 0.2 ms is longer than the round trip of a small task without spinning, or it would never begin to pay.

A thread of the host's that waits for a result may hold up the very worker that it waits for. Where two processors
were the halves of one, spinning made round trips slower by a fifth; where they were not, quicker by a quarter (Linux
6.18, 2 virtual CPUs, which do not tell). So such a thread tries both ways, and goes on with the quicker one
(`LearnedSpin`).

Where processes wait for a processor, one that spins takes it from them. Therefore nobody spins where there is one
processor only, or where more is running than there are (proc(5), /proc/loadavg), which is looked at ten times a
second at most.

One object per worker, for its only thread, and one per pool, for whoever leads. Holds no descriptor.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

LOOK_EVERY = 0.1  # seconds
LEADERS = 0.0001  # seconds that a thread of the host's spins at most: for what takes longer a wake-up is nothing
TRY_EVERY = 16  # waits, of which one is spent in the way that was slower until now
CLEARLY = 0.9  # times as long as without spinning, at most, is what makes that worth the processor's time


class Spin:
    """Decides before each wait whether to look again, for at most so many seconds; 0: never."""

    __slots__ = ("_crowded", "_look_at", "_most", "_pays", "_processors")

    def __init__(self, most: float) -> None:
        self._processors = _processors() if most else 0
        self._most = most if self._processors > 1 else 0.0
        self._pays = False
        self._crowded = False
        self._look_at = 0.0

    def wait(self, look: Callable[[], T], sleep: Callable[[], T]) -> T:
        """Return the first true value of look(), or what sleep() returns after that found none for long enough."""
        most = self._most
        if not most:
            return sleep()
        began = time.monotonic()
        if self._pays and self._may_spin() and not self._is_crowded(began):
            until = began + most
            while time.monotonic() < until:
                found = look()
                if found:
                    self._note(time.monotonic() - began, spun=True)
                    return found
            self._pays = False
            return sleep()
        found = sleep()
        took = time.monotonic() - began
        self._pays = took < most
        self._note(took, spun=False)
        return found

    def _may_spin(self) -> bool:
        return True

    def _note(self, took: float, *, spun: bool) -> None:
        """Take note of how long a wait took."""

    def _is_crowded(self, now: float) -> bool:
        """Return whether more processes and threads want to run than there are processors."""
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY
            try:
                with open("/proc/loadavg", "rb") as file:
                    running = int(file.read().split()[3].partition(b"/")[0])
            except (OSError, ValueError, IndexError):
                running = self._processors + 1
            self._crowded = running > self._processors
        return self._crowded


class LearnedSpin(Spin):
    """One that spins only where waits have turned out to be shorter with it. Some are spent to find that out."""

    __slots__ = ("_slept", "_spun", "_waits")

    def __init__(self, most: float) -> None:
        super().__init__(min(most, LEADERS))
        self._waits = 0
        self._spun: float | None = None  # seconds of short waits, on average, in either way
        self._slept: float | None = None

    def _may_spin(self) -> bool:
        self._waits += 1
        tries = self._waits % TRY_EVERY == 0
        if self._spun is None or self._slept is None:
            return tries
        return (self._spun < CLEARLY * self._slept) is not tries

    def _note(self, took: float, *, spun: bool) -> None:
        if spun:
            self._spun = _average(self._spun, took)
        elif self._pays:
            self._slept = _average(self._slept, took)


def _processors() -> int:
    """Return how many processors this process may use. Where a sandbox does not tell, there is no spinning."""
    try:
        return len(os.sched_getaffinity(0))
    except OSError:
        return 1


def _average(before: float | None, latest: float) -> float:
    return latest if before is None else before + (latest - before) / 4
