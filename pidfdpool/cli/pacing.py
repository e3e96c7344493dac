"""Decides how many lines a block has.

Used in the host: the main thread calls `Pace.learn`, and the reader thread reads `Pace.lines`.

With too few lines, most of the time goes into the pool's own work. With too many, one worker has all the work of a
short input while the others are idle, or a reader waits long for the first line. The right number depends on the
function, so it is learned: the first block has one line, and then the number approaches a fixed amount of work.
"""

from __future__ import annotations

TARGET_SECONDS = 0.05  # of work in one block: a hundred times the cost of sending it to the worker and back
MAX_LINES = 1024  # of one task; if its worker dies, all of them may be run again, one by one
_MAX_CHANGE = 4  # the largest factor of one step, because one measurement may include a page fault or an import


class Pace:
    """The number of lines for the next block. Written by one thread, read by another.

    seconds: of work that a block should have.
    """

    def __init__(self, seconds: float = TARGET_SECONDS) -> None:
        self.lines: int = 1
        self._seconds = seconds

    def learn(self, lines: int, seconds: float) -> None:
        """Learn from a block: its lines, and the seconds of work that they took."""
        if lines <= 0:
            return
        ideal = lines * self._seconds / max(seconds, 1e-9)
        near = min(max(ideal, self.lines / _MAX_CHANGE), self.lines * _MAX_CHANGE)
        self.lines = min(max(int(near), 1), MAX_LINES)

    def learn_from_timeout(self) -> None:
        """Learn from a block that took too long: how long it would have taken is not known."""
        self.lines = max(1, self.lines // _MAX_CHANGE)
