"""How many lines make a block.

Too few, and the pool is busy with its own bookkeeping; too many, and one worker has all the work of a short
input while the others watch, or a reader waits long for the first line. What is right depends on the
function, so it is learned: blocks begin at one line and move towards a fixed amount of work.
"""

from __future__ import annotations

TARGET = 0.05  # seconds of work in one block: a hundred times what its way to the worker and back costs
MOST = 1024  # lines; when a worker dies, so many may have to be run again, one by one
_STEP = 4  # one measurement, which may be of a page fault or of an import, is believed only so far


class Pace:
    """The number of lines for the next block. Written by one thread, read by another."""

    def __init__(self) -> None:
        self.lines = 1

    def learn(self, lines: int, seconds: float) -> None:
        """Take note of how long the work on a block took."""
        if lines <= 0:
            return
        ideal = lines * TARGET / max(seconds, 1e-9)
        near = min(max(ideal, self.lines / _STEP), self.lines * _STEP)
        self.lines = min(max(int(near), 1), MOST)
