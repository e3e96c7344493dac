"""How many calls of a `map` go into its next chunk, computed from the chunks that were measured. Pure.

A chunk costs the host and the worker a fixed amount of work, however short its calls are. So short calls are sent
together. But the worker with the last chunk must not keep all others waiting, and a chunk cannot be divided later. So
chunks are sized by time. The first ones are a single call each. Later ones have as many calls as take `TARGET`
seconds at the measured pace, and at most `GROWTH` times as many as were measured, because one measurement may
mislead. When the number of remaining calls is known, a chunk is never more than an even share of them (guided
self-scheduling). A share that is too small for a chunk is rounded up, but not above the largest chunk so far.
"""

from __future__ import annotations

CHUNKS_PER_WORKER = 2  # one that runs, one that waits
TARGET = 0.004  # seconds of work in a chunk: about twenty times the fixed cost of a chunk
GROWTH = 16  # a chunk has at most this many times the largest size that was measured
LEAST = 0.0005  # seconds of work in a chunk at least: near the end, workers may wait so long for the last one
SHARES = 2  # chunks for each worker into which the remaining calls are divided
LARGEST = 1 << 16  # calls
PUBLISHED_FROM = 20e-6  # seconds for one call: to publish each result costs at most a twentieth of that
HEAVIEST = 1 << 20  # bytes of arguments: beyond that, sending them together saves nothing


class FixedSize:
    """Takes the place of `Pace` where the size of each chunk is given."""

    seconds: float | None = None
    grows = False
    is_worth_publishing = True

    def __init__(self, size: int) -> None:
        self.size = size

    def note(self, calls: int, seconds: float, size: int) -> None:
        """Do nothing: nothing depends on how long calls take."""

    def note_rest(self, size: int) -> None:
        """Do nothing."""

    def next(self, left: int | None) -> int:
        """Return the number of calls for the next chunk."""
        return self.size if left is None else min(self.size, left)


class Pace:
    """The measurements of one map's chunks. Not thread-safe."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self.seconds: float | None = None  # for one call; None: nothing was measured
        self._bytes = 0.0  # of the arguments of one call
        self._measured = 0  # calls in the largest chunk so far

    def note(self, calls: int, seconds: float, size: int) -> None:
        """Note an ended chunk: the number of its calls, the seconds that they took, the bytes of their arguments."""
        each = seconds / calls
        # The latest chunk counts as much as all before it: neighbouring items often take equally long.
        self.seconds = each if self.seconds is None else (self.seconds + each) / 2
        self._bytes = max(size / calls, self._bytes / 2)
        self._measured = max(self._measured, calls)

    @property
    def grows(self) -> bool:
        """Whether the next chunk is small only because few calls were measured."""
        return self.seconds is not None and self.seconds * self._measured * GROWTH < TARGET

    def note_rest(self, size: int) -> None:
        """Note that a chunk did not come to its end, and what is left is made in chunks of that size."""
        self._measured = min(self._measured, size)

    @property
    def is_worth_publishing(self) -> bool:
        """Whether calls take so long that each result may be published at once, though no rule asks for it."""
        return self.seconds is not None and self.seconds >= PUBLISHED_FROM

    def next(self, left: int | None) -> int:
        """Return the number of calls for the next chunk, at least 1. left: the remaining calls; None: unknown."""
        if self.seconds is None:
            return 1
        size = min(self._measured * GROWTH, LARGEST)
        if self.seconds * size > TARGET:
            size = int(TARGET / self.seconds)
        if self._bytes * size > HEAVIEST:
            size = int(HEAVIEST / self._bytes)
        if left is not None:
            # If only single calls were measured, at most one: the remaining ones may take much longer.
            least = int(min(LEAST / self.seconds, self._measured)) if self.seconds > 0.0 else 0
            size = min(size, left, max(left // (SHARES * self._workers), least))
        return max(1, size)
