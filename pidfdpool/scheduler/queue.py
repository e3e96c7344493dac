"""The tasks that wait for a worker, in the order in which they get one. Pure."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class TaskQueue:
    """Tasks by priority, the highest first; within one, first come, first served. Removing is as cheap as adding."""

    def __init__(self) -> None:
        self._lines: dict[int, OrderedDict[int, None]] = {}
        self._priorities: list[int] = []  # of the lines that exist, ascending
        self.priority_of: dict[int, int] = {}  # by task; to be looked at where the length is asked for each task

    def add(self, task: int, priority: int, *, first: bool = False) -> None:
        """Put a task at the end of its line; first: at the beginning, because it had its turn already."""
        line = self._lines.get(priority)
        if line is None:
            line = self._lines[priority] = OrderedDict()
            bisect.insort(self._priorities, priority)
        line[task] = None
        self.priority_of[task] = priority
        if first:
            line.move_to_end(task, last=False)

    def next(self) -> int:
        """Return the task that is next."""
        return next(iter(self._lines[self._priorities[-1]]))

    def pop(self) -> int:
        """Take out the task that is next."""
        priority = self._priorities[-1]
        line = self._lines[priority]
        task, _ = line.popitem(last=False)
        del self.priority_of[task]
        if not line:
            self._close(priority)
        return task

    def remove(self, task: int) -> None:
        """Take out a task, wherever it stands."""
        priority = self.priority_of.pop(task)
        line = self._lines[priority]
        del line[task]
        if not line:
            self._close(priority)

    def _close(self, priority: int) -> None:
        del self._lines[priority]
        self._priorities.remove(priority)

    def clear(self) -> None:
        """Take out all."""
        self.__init__()  # type: ignore[misc]

    def __contains__(self, task: int) -> bool:
        return task in self.priority_of

    def __len__(self) -> int:
        return len(self.priority_of)

    def __iter__(self) -> Iterator[int]:
        for priority in reversed(self._priorities):
            yield from self._lines[priority]
