"""Which requests for the stack of a node's process are answered by the stack that is being written already.

A stack of a hundred frames takes a node a quarter of a millisecond of processor time, and each request that waits
takes as much again. A caller that asked in a loop would keep a node on a busy machine from ever doing anything else.
This file only decides, for one process. `NodeLink` has one of these, and sends the signal; it has the swarm's lock.
"""

from __future__ import annotations

APART = 0.05  # seconds from one signal to the next, at least


class StackRequests:
    """Remembers the last request that was sent to one process."""

    def __init__(self) -> None:
        """Begin with none."""
        self._at = float("-inf")
        self._start = 0

    def begun(self, now: float, *, is_pending: bool) -> int | None:
        """Return where the stack begins that answers a request made now; None: the process has to be asked.

        now: as time.monotonic() tells it.
        is_pending: whether the process has not yet received the last request.
        """
        return self._start if is_pending or now < self._at + APART else None

    def begin(self, now: float, start: int) -> None:
        """Remember that the process is asked now, and that what it will write begins at this place of its box."""
        self._at, self._start = now, start
