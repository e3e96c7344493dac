"""How many calls of a map go into its next chunk, by the time that calls took so far. Pure.

A chunk costs the client, the scheduler and a node a few milliseconds, and it takes ten or more until its answer is
there, however short its calls are. So a chunk is to have as many calls as take TARGET seconds. The first ones have a
single call each, since nothing is known yet. And a chunk is at most half of what each thread has left to do, so that
in the end no node waits for another's long chunk.
"""

from __future__ import annotations

AHEAD = 2  # chunks for each thread of the cluster: one that runs, one that waits there
TARGET = 0.05  # seconds of a chunk
GROWTH = 8  # a chunk has at most that many times the calls of the largest that was measured
LARGEST = 1000  # calls of a chunk; each of them is a task of the node's pool
HEAVIEST = 4_000_000  # bytes of the calls of a chunk


class Pace:
    """What was measured of the chunks of one map. Not thread-safe."""

    def __init__(self) -> None:
        self._seconds: float | None = None  # of a call
        self._bytes = 0.0  # of a call
        self._measured = 1  # calls of the largest chunk that was measured

    def note(self, calls: int, seconds: float, size: int) -> None:
        """Note a chunk: its calls, the seconds that they took together, and the bytes that they were sent as."""
        each = seconds / calls
        # Half by the latest: neighbouring calls often take equally long.
        self._seconds = each if self._seconds is None else (self._seconds + each) / 2
        self._bytes = max(size / calls, self._bytes / 2)
        self._measured = max(self._measured, calls)

    def next(self, left: int, threads: int) -> int:
        """Return the calls for the next chunk, at least 1.

        left: the calls that are there, or that may be in flight at a time. threads: of all nodes together.
        """
        if self._seconds is None:
            return 1
        size = min(self._measured * GROWTH, LARGEST)
        if self._seconds * size > TARGET:
            size = int(TARGET / self._seconds)
        if self._bytes * size > HEAVIEST:
            size = int(HEAVIEST / self._bytes)
        return max(1, min(size, left // (AHEAD * threads)))
