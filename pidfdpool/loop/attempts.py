"""Makes the records of attempts for a pool's observers. Part of `observation`: on its threads, under the pool's lock.

Most tasks end by a plain answer. Many such answers come within a millisecond, but only a few in each read. To make a
record of each read would cost as much as to take the answers. So for a moment answers are set aside as they came
(`set_aside`), and put together later: those that one worker gave within `TOGETHER` are one record (`gather`). Other
ends of tasks are rare, and get a record each (`single`).
"""

from __future__ import annotations

import math
import time
from array import array
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING

from pidfdpool.loop import observed
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.loop.observed import Attempts, Same
from pidfdpool.transport import framing
from pidfdpool.transport.run_times import RunTimesReader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from pidfdpool.loop.links import WorkerLink
    from pidfdpool.loop.task import Task, WorkerName
    from pidfdpool.transport.framing import Buffer, Frame, Lean

    # who has answered; the tasks' numbers, the tasks, their calls, the answers; when these were taken
    Answers: TypeAlias = tuple[
        WorkerLink, Sequence[int], Sequence[Task], Sequence[Sequence[Buffer]], Sequence[Frame | Lean], float
    ]

TOGETHER = 0.001  # seconds; all attempts of a record count as taken when the last one was
_LONGEST_ERROR = 200  # characters of the text of an error
_BUFFER = itemgetter(3)  # of a lean frame
_LISTS = frozenset((list,))


class AttemptRecords:
    """Makes the records of attempts of one pool's tasks.

    Attributes:
        pending: how many answers are set aside. What is noted next must not overtake them.
    """

    def __init__(self) -> None:
        self._times: dict[int, RunTimesReader] = {}  # by the worker's generation
        self._set_aside: list[Answers] = []
        self.pending = 0

    def forget(self, generation: int) -> None:
        """Forget a worker that has ended. Nothing of its is set aside."""
        self._times.pop(generation, None)

    # ---- plain answers -------------------------------------------------------------------------------------

    def set_aside(
        self,
        link: WorkerLink,
        numbers: Sequence[int],
        tasks: Sequence[Task],
        frames: Sequence[Frame | Lean],
        now: float,
    ) -> bool:
        """Keep outcomes that are delivered, of consecutive answers of a worker, while the tasks have their calls.

        Returns whether they may be kept for a moment. Otherwise `gather` has to follow at once.

        numbers: of the tasks; a tuple if all answers are lean.
        frames: the answers, and perhaps others behind them.
        now: when they were taken.
        """
        count = len(tasks)
        calls = [task.buffers for task in tasks]
        self._set_aside.append((link, numbers, tasks, calls, frames if len(frames) == count else frames[:count], now))
        self.pending += count
        # A call that is no list lies in a segment, which is wanted for other calls.
        return type(numbers) is tuple and _LISTS.issuperset(map(type, calls))

    def gather(self) -> list[Attempts]:
        """Return the records of what was set aside, in the order in which each worker has answered."""
        self.pending = 0
        answers, self._set_aside = self._set_aside, []
        groups: list[list[Answers]] = []
        of_worker: dict[int, list[Answers]] = {}
        for one in answers:
            link, numbers, tasks, _, _, now = one
            group = of_worker.get(link.generation)
            if (
                group is not None
                and now - group[0][5] <= TOGETHER
                and type(numbers) is type(group[0][1]) is tuple
                and tasks[0].attempt <= 1  # a record tells of one retried attempt at most, the first
            ):
                group.append(one)
            else:
                of_worker[link.generation] = [one]
                groups.append(of_worker[link.generation])
        return [self._together(group) for group in groups]

    def _together(self, group: Sequence[Answers]) -> Attempts:
        link, numbers, tasks, calls, frames, now = group[0]
        is_lean = type(numbers) is tuple
        if len(group) > 1:
            numbers = [number for one in group for number in one[1]]
            tasks = [task for one in group for task in one[2]]
            calls = [call for one in group for call in one[3]]
            frames = [frame for one in group for frame in one[4]]
            now = group[-1][5]
        count = len(tasks)
        # What is kept is to take little memory, because each new page of it takes time.
        kept = array("q", numbers)
        began, ended = self._run_times(link).read(link.black_box, kept)
        requests = list(map(len, chain.from_iterable(calls)))
        if len(requests) != count:  # some call has several buffers
            requests = list(map(_size_of, calls))
        whats = [task.what for task in tasks]
        functions: Sequence[str] = Same(tasks[0].name, count)
        numbers_of_calls: Sequence[int] = Same(1, count)
        if type(whats[0]) is Chunk or whats.count(whats[0]) != count:
            functions = [task.name for task in tasks]
            numbers_of_calls = list(map(_calls_of, tasks))
        outcomes: Sequence[str] = Same(observed.DONE, count)
        errors: Sequence[str | None] = Same(None, count)
        if is_lean:
            sizes = list(map(len, map(_BUFFER, frames)))  # type: ignore[arg-type]
        else:
            made = list(map(framing.made, frames))
            sizes = [sum(map(len, frame.buffers)) for frame in made]
            outcomes = [observed.FAILED if frame.kind == framing.ERROR else observed.DONE for frame in made]
            errors = [last_line(frame) if frame.kind == framing.ERROR else None for frame in made]
        return Attempts(
            link.name, kept, functions, numbers_of_calls, tasks[0].attempt or 1, _queued_at(tasks),
            began, ended, requests, sizes, outcomes, errors, now,
        )  # fmt: skip

    # ---- other ends ----------------------------------------------------------------------------------------

    def answered(self, link: WorkerLink, task: Task, frame: Frame) -> Attempts:
        """Return the record of an answer that is not plain. Nothing of its worker's is set aside."""
        began, ended = self._run_times(link).read(link.black_box, array("q", (frame.value,)))
        failed = frame.kind == framing.ERROR
        outcome, error = (observed.FAILED, last_line(frame)) if failed else (observed.DONE, None)
        return single(task, link.name, outcome, error, began[0], ended[0], sum(map(len, frame.buffers)))

    def skip(self, link: WorkerLink, number: int) -> None:
        """Pass over an answer to a task that is over already."""
        self._run_times(link).read(link.black_box, array("q", (number,)))

    def _run_times(self, link: WorkerLink) -> RunTimesReader:
        reader = self._times.get(link.generation)
        if reader is None:
            reader = self._times[link.generation] = RunTimesReader()
        return reader


def single(
    task: Task,
    worker: WorkerName | None,
    outcome: str,
    error: str | None,
    began: float = math.nan,
    ended: float = math.nan,
    size: int = -1,
) -> Attempts:
    """Return the record of one attempt, which has ended now.

    began, ended: when its worker began and ended it. size: of the pickled result or exception.
    """
    return Attempts(
        worker, (task.number,), (task.name,), (_calls_of(task),), task.attempt, (queued_at(task),),
        (began,), (ended,), (_size_of(task.buffers),), (size,), (outcome,), (error,), time.monotonic(),
    )  # fmt: skip


def queued_at(task: Task) -> float:
    """Return when a task was accepted; NaN: before the pool was observed."""
    return getattr(task, "queued_at", math.nan)


def _queued_at(tasks: Sequence[Task]) -> Sequence[float]:
    try:
        return array("d", [task.queued_at for task in tasks])
    except AttributeError:
        return array("d", map(queued_at, tasks))


def _calls_of(task: Task) -> int:
    return 1 if task.chunk is None else task.chunk.size


def _size_of(buffers: Sequence[Buffer]) -> int:
    if type(buffers) is list and len(buffers) == 1:
        return len(buffers[0])
    return sum(map(len, buffers)) if buffers else -1


def last_line(frame: Frame) -> str:
    """Return the last line of the traceback in an answer that is an exception."""
    if len(frame.buffers) < 2:
        return "an exception that was too large to receive"
    lines = bytes(frame.buffers[1][-4 * _LONGEST_ERROR :]).decode("utf-8", "replace").rstrip().rsplit("\n", 1)
    return shortened(lines[-1])


def shortened(text: str) -> str:
    """Return the first line, cut to what a record tells of an error."""
    line = text.split("\n", 1)[0]
    return line if len(line) <= _LONGEST_ERROR else line[: _LONGEST_ERROR - 3] + "..."
