"""What the consumer of one map is to take: its chunks and results, in the order of the calls or as they come.

`AdaptiveMap` and `BoundedMap` add what they submit, one thread at a time (`map_turns`). The one consumer claims it.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from typing import TYPE_CHECKING

from pidfdpool.process import interruptible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pidfdpool.executor.map_pieces import Entry


class Entries:
    """The entries of one map that are not claimed yet.

    How many were added is counted in turns, and how many the consumer has claimed by the consumer. One counter that
    both change would lose changes.

    Attributes:
        in_order: those to be claimed in the order of the calls. Empty if that order does not matter.
        is_ordered: whether it matters.
        told: called when an entry can be claimed, if order does not matter and somebody wants to know. Any thread.
    """

    def __init__(self, *, ordered: bool) -> None:
        self.is_ordered: bool = ordered
        self.in_order: deque[Entry] = deque()
        self.told: Callable[[], None] | None = None
        self._completed: queue.SimpleQueue[Entry] = queue.SimpleQueue()  # those to be claimed as they come
        self._added = self._claimed = 0

    @property
    def were_added(self) -> bool:
        """Whether there ever were any."""
        return self._added > 0

    @property
    def are_claimed(self) -> bool:
        """Whether there are no more, as far as entries were added. For the consumer."""
        return self._claimed == self._added

    @property
    def is_first_done(self) -> bool:
        """Whether the consumer would not have to wait for the next entry."""
        if not self.is_ordered:
            return not self._completed.empty()
        future = self.in_order[0].future if self.in_order else None
        return bool(self.in_order) and (future is None or future.done())

    def add(self, entries: Sequence[Entry]) -> None:
        """Add entries behind all others. Those that are chunks have to be completed, if order does not matter."""
        if self.is_ordered:
            self.in_order.extend(entries)
        self._added += len(entries)  # not before: the consumer looks at it without a turn
        if not self.is_ordered:
            for entry in entries:
                if entry.future is None:
                    self.complete(entry)

    def complete(self, entry: Entry) -> None:
        """Note that a chunk has ended, and has its followers. Any thread, once for each."""
        if not self.is_ordered:
            self._completed.put(entry)
            if self.told is not None:
                self.told()

    def claim(self, deadline: float | None) -> Entry:
        """Return the next entry, and wait until it is completed, if order does not matter. There must be one.

        Raises:
            TimeoutError: the deadline, in time.monotonic()'s seconds, has passed.
        """
        self._claimed += 1
        if self.is_ordered:
            return self.in_order.popleft()
        try:
            return interruptible.get(self._completed, None if deadline is None else deadline - time.monotonic())
        except queue.Empty:
            raise TimeoutError from None

    def put_back(self, followers: Sequence[Entry]) -> None:
        """Add what comes behind the results of the entry that was claimed last, before all others. In order only."""
        self._claimed -= len(followers)  # to be claimed in their turn
        self.in_order.extendleft(reversed(followers))
