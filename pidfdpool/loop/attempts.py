"""Makes the records of attempts for a pool's observers. Part of `observation`: on its threads, under the pool's lock.

Most tasks end by a plain answer. Many such answers come within a millisecond, but only a few in each read. To make a
record of each read would cost as much as to take the answers. So what is to be told of them is set aside for a moment
(`set_aside`). What one worker gave within `TOGETHER` becomes one record later (`gather`). Other ends of tasks are
rare, and get a record each (`single`).
"""

from __future__ import annotations

import math
import time
from array import array
from itertools import chain
from typing import TYPE_CHECKING

from pidfdpool.loop import observed
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.loop.observed import Attempts, Same
from pidfdpool.loop.task import name_of
from pidfdpool.transport import framing
from pidfdpool.transport.run_times import RunTimesReader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pidfdpool.loop.links import WorkerLink
    from pidfdpool.loop.task import Task, WorkerName
    from pidfdpool.transport.framing import Buffer, Frame, Lean

TOGETHER = 0.001  # seconds; all attempts of a record count as taken when the last one was
_LONGEST_ERROR = 200  # characters of the text of an error


class _Answers:
    """What is to be told of answers of one worker that become one record.

    It keeps no task, call or result: what would be kept for a moment takes memory, and a segment that is kept is
    missing for the calls that are sent meanwhile.

    Attributes:
        attempt: of the first task; all others have their first.
        reads: for each read its columns: numbers, functions, when they were queued. They are added in one step,
            because a signal handler may raise between two.
        since, until: when the first and the last were taken.
        outcomes, errors: None: all are done.
        sizes: of calls and of results; None: what the worker says of them is right.
    """

    __slots__ = ("attempt", "errors", "link", "outcomes", "reads", "since", "sizes", "until")

    def __init__(self, link: WorkerLink, attempt: int, read: Sequence[Sequence[Any]], now: float) -> None:
        self.link, self.attempt, self.reads, self.since, self.until = link, attempt, [read], now, now
        self.outcomes: Sequence[str] | None = None
        self.errors: Sequence[str | None] | None = None
        self.sizes: tuple[Sequence[int], Sequence[int]] | None = None

    def columns(self) -> Sequence[Sequence[Any]]:
        """Return the columns of all reads."""
        if len(self.reads) == 1:
            return self.reads[0]
        return [list(chain.from_iterable(parts)) for parts in zip(*self.reads, strict=True)]


class AttemptRecords:
    """Makes the records of attempts of one pool's tasks.

    Attributes:
        pending: how many answers are set aside. What is noted next must not overtake them.
    """

    def __init__(self) -> None:
        self._times: dict[int, RunTimesReader] = {}  # by the worker's generation
        self._set_aside: list[_Answers] = []
        self._growing: dict[int, _Answers] = {}  # those that may get more, by the worker's generation
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
    ) -> None:
        """Keep what is to be told of consecutive answers of a worker, while the tasks have their calls.

        numbers: of the tasks; a tuple if all answers are lean.
        frames: the answers, and perhaps others behind them.
        now: when they were taken.
        """
        count = len(tasks)
        whats = [task.what for task in tasks]
        try:
            queued = [task.queued_at for task in tasks]
        except AttributeError:
            queued = list(map(queued_at, tasks))
        read = numbers, whats, queued
        attempt = tasks[0].attempt
        if type(numbers) is tuple:
            growing = self._growing.get(link.generation)
            # A record tells of one retried attempt at most, the first.
            if growing is not None and now - growing.since <= TOGETHER and attempt <= 1:
                growing.reads.append(read)
                growing.until = now
            else:
                growing = _Answers(link, attempt or 1, read, now)
                self._set_aside.append(growing)
                self._growing[link.generation] = growing
        else:
            made = list(map(framing.made, frames[:count]))
            answers = _Answers(link, attempt or 1, read, now)
            # Some answers have come through segments, or in several buffers.
            answers.sizes = [_size_of(task.buffers) for task in tasks], [sum(map(len, each.buffers)) for each in made]
            answers.outcomes = [observed.FAILED if frame.kind == framing.ERROR else observed.DONE for frame in made]
            answers.errors = [last_line(frame) if frame.kind == framing.ERROR else None for frame in made]
            self._growing.pop(link.generation, None)
            self._set_aside.append(answers)
        self.pending += count

    def gather(self) -> list[Attempts]:
        """Return the records of what was set aside, in the order in which each worker has answered."""
        self._growing.clear()
        self.pending = 0
        answers, self._set_aside = self._set_aside, []
        return list(map(self._record_of, answers))

    def _record_of(self, answers: _Answers) -> Attempts:
        numbers, whats, queued = answers.columns()
        count = len(numbers)
        kept = array("q", numbers)
        began, ended, requests, sizes = self._run_times(answers.link).read(answers.link.black_box, kept)
        if answers.sizes is not None:
            requests, sizes = answers.sizes
        functions: Sequence[str] = Same(name_of(whats[0]), count)
        calls: Sequence[int] = Same(1, count)
        if type(whats[0]) is Chunk or whats.count(whats[0]) != count:
            functions = list(map(name_of, whats))
            calls = list(map(_calls_of, whats))
        return Attempts(
            answers.link.name, kept, functions, calls, answers.attempt, queued, began, ended, requests, sizes,
            answers.outcomes or Same(observed.DONE, count), answers.errors or Same(None, count), answers.until,
        )  # fmt: skip

    # ---- other ends ----------------------------------------------------------------------------------------

    def answered(self, link: WorkerLink, task: Task, frame: Frame) -> Attempts:
        """Return the record of an answer that is not plain. Nothing of its worker's is set aside."""
        began, ended, _, _ = self._run_times(link).read(link.black_box, array("q", (frame.value,)))
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
        worker, (task.number,), (task.name,), (_calls_of(task.what),), task.attempt, (queued_at(task),),
        (began,), (ended,), (_size_of(task.buffers),), (size,), (outcome,), (error,), time.monotonic(),
    )  # fmt: skip


def queued_at(task: Task) -> float:
    """Return when a task was accepted; NaN: before the pool was observed."""
    return getattr(task, "queued_at", math.nan)


def _calls_of(what: Any) -> int:
    return what.size if type(what) is Chunk else 1


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
