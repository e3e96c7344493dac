"""The tasks that wait for a worker, in the order in which they get one. Pure; see the room's docstring."""

from __future__ import annotations

import bisect
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class TaskQueue:
    """Tasks by priority, the highest first; within one priority, first come, first served.

    Adding and removing take the same time however many tasks wait. (The first and the last task of a priority take
    longer the more priorities there are.)

    Attributes:
        lines: priority -> its tasks, in order. From outside, only a line that exists may be added to, and one from
            which the last task was taken is to be closed.
        priority_of: task -> priority. To be read where the length is needed for each task: `len` of a dict takes
            less time than `__len__` of this class.
    """

    def __init__(self) -> None:
        self.lines: dict[int, OrderedDict[int, None]] = {}
        self._priorities: list[int] = []  # of the lines that exist, ascending
        self.priority_of: dict[int, int] = {}

    def add(self, task: int, priority: int, *, first: bool = False) -> None:
        """Add a task behind those of its priority; first: before them, because it had its turn already."""
        line = self.lines.get(priority)
        if line is None:
            line = self.lines[priority] = OrderedDict()
            bisect.insort(self._priorities, priority)
        line[task] = None
        self.priority_of[task] = priority
        if first:
            line.move_to_end(task, last=False)

    def next(self) -> int:
        """Return the first task. There must be one."""
        return next(iter(self.lines[self._priorities[-1]]))

    def pop(self) -> int:
        """Remove and return the first task. There must be one."""
        priority = self._priorities[-1]
        line = self.lines[priority]
        task, _ = line.popitem(last=False)
        del self.priority_of[task]
        if not line:
            self.close(priority)
        return task

    def remove(self, task: int) -> None:
        """Remove a task, wherever it is. KeyError: it is not in the queue."""
        priority = self.priority_of.pop(task)
        line = self.lines[priority]
        del line[task]
        if not line:
            self.close(priority)

    def remove_first(self, tasks: Sequence[int]) -> None:
        """Remove the first tasks, which are these, in their order."""
        left = len(tasks)
        while left:
            priority = self._priorities[-1]
            line = self.lines[priority]
            count = min(left, len(line))
            deque(map(line.__delitem__, tasks[len(tasks) - left : len(tasks) - left + count]), maxlen=0)
            left -= count
            if not line:
                self.close(priority)
        deque(map(self.priority_of.__delitem__, tasks), maxlen=0)

    def close(self, priority: int) -> None:
        """Forget the line of a priority, which is empty."""
        del self.lines[priority]
        self._priorities.remove(priority)

    def take_all(self, other: TaskQueue) -> None:
        """Move all tasks of another queue here, behind those of their priority.

        If this queue is empty, that takes the same time however many there are.
        """
        if self.priority_of:
            for task in other:
                self.add(task, other.priority_of[task])
        else:
            self.lines, self._priorities, self.priority_of = other.lines, other._priorities, other.priority_of
        other.clear()

    def clear(self) -> None:
        """Remove all tasks."""
        self.__init__()  # type: ignore[misc]

    def __contains__(self, task: int) -> bool:
        return task in self.priority_of

    def __len__(self) -> int:
        return len(self.priority_of)

    def __iter__(self) -> Iterator[int]:
        for priority in reversed(self._priorities):
            yield from self.lines[priority]
