"""How many calls of a `map` go into its next chunk, judged by those that were measured. Pure.

A chunk costs the host and the worker a fixed amount of work, however small its calls are, so small calls travel
together; but whoever gets the last chunk must not keep all the others waiting, and a chunk that was made too large
cannot be divided any more. So chunks are sized by time: at first each is a single call; then as many as take
`TARGET` seconds at the pace of the calls before, growing by a bounded factor, because one measurement may mislead;
and where the end is known, never more than an even share of what is left (guided self-scheduling). A share that is
not worth a chunk is rounded up, but to no more calls than some chunk has had so far.
"""

from __future__ import annotations

TARGET = 0.004  # seconds of work in a chunk: about twenty times what a chunk costs by itself
GROWTH = 16  # times the size that was measured, at most
LEAST = 0.0005  # seconds of work in a chunk, towards the end: nobody waits for the last one for longer than that
SHARES = 2  # chunks for each worker out of what is left
LARGEST = 1 << 16  # calls
HEAVIEST = 1 << 20  # bytes of arguments: more of them travel no faster for being together


class Pace:
    """What was measured of the chunks of one map. Not thread-safe."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._seconds: float | None = None  # for one call
        self._bytes = 0.0  # of the arguments of one call
        self._measured = 0  # calls in the largest chunk so far

    def note(self, calls: int, seconds: float, size: int) -> None:
        """Take note of a chunk that was run: how long its calls took, and how large its arguments were."""
        each = seconds / calls
        # The latest chunk counts as much as all before it: items that come together are often alike.
        self._seconds = each if self._seconds is None else (self._seconds + each) / 2
        self._bytes = max(size / calls, self._bytes / 2)
        self._measured = max(self._measured, calls)

    def next(self, left: int | None) -> int:
        """Return the number of calls for the next chunk, at least 1. left: how many there are, if that is known."""
        if self._seconds is None:
            return 1
        size = min(self._measured * GROWTH, LARGEST)
        if self._seconds * size > TARGET:
            size = int(TARGET / self._seconds)
        if self._bytes * size > HEAVIEST:
            size = int(HEAVIEST / self._bytes)
        if left is not None:
            # Of calls that were measured alone no more than one: who knows how long those are that are left.
            least = int(min(LEAST / self._seconds, self._measured)) if self._seconds > 0.0 else 0
            size = min(size, left, max(left // (SHARES * self._workers), least))
        return max(1, size)
