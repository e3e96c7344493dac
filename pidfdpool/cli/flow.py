"""Sends blocks through the pool and writes the output, in bounded memory.

Called by `map`, in the host: `Flow.run` on the main thread, `Flow._read` on a reader thread.

    reader thread                  main thread                                   pool
      waits for a permit
      reads a block       --->     submits it                          --->      transforms it
                                   stores the outcome                  <---
                                   writes the next blocks in order
      gets a permit back  <---     returns the block's permit

Each block holds a permit from before it is read until it is written. The number of permits is fixed, and nothing else
limits the memory. If the reader of the output stops, the main thread blocks in a write, no permit is returned, and
reading stops. The main thread waits for one queue only. The reader thread and the futures' callbacks put their events
there. So finished blocks are written while the input is idle, and Ctrl-C is handled at any time.

A task may have to be done again, as one or several tasks that then stand in its place: see `attempts`.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from pidfdpool import TaskTimeout
from pidfdpool.cli import transform
from pidfdpool.cli.attempts import ERRORS, Attempts, Task
from pidfdpool.cli.pacing import TARGET_SECONDS, Pace
from pidfdpool.process import interruptible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor, Future

    from pidfdpool.cli.source import Source
    from pidfdpool.cli.transform import Block, Failure, Job, Outcome


class DocumentError(Exception):
    """A document failed, and the run has to stop then (--on-error fail)."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Sink(Protocol):
    """Takes the output."""

    def write(self, outcome: Outcome, size: int) -> None:
        """Write what a task has given. size: the bytes of input that it comes from."""


@dataclass(slots=True)
class Tally:
    """The totals of a run."""

    documents: int = 0
    failed: int = 0
    first: Failure | None = None


@dataclass(slots=True, eq=False)
class _Entry:
    """A block's place in the output, with the tasks that make it."""

    size: int
    tasks: list[Task] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return all(task.outcome is not None for task in self.tasks)


@dataclass(frozen=True, slots=True)
class _Done:
    entry: _Entry
    task: Task
    future: Future[Outcome]


@dataclass(frozen=True, slots=True)
class _End:
    """There is no more input. error: why it broke off, or None."""

    error: BaseException | None


class Flow:
    """One run. Make it, call `run` once."""

    def __init__(
        self,
        pool: Executor,
        job: Job,
        source: Source,
        sink: Sink,
        *,
        ordered: bool,
        permits: int,
        attempts: Attempts | None = None,
        again: Executor | None = None,
        block_seconds: float = TARGET_SECONDS,
    ) -> None:
        """Prepare the run.

        again: takes lines that are tried again. block_seconds: the work that a block should have.
        """
        self._pool = pool
        self._again = again or pool
        self._job = job
        self._sink = sink
        self._ordered = ordered
        self._attempts = attempts or Attempts(job)
        self._pace = Pace(block_seconds)
        self._blocks: Iterator[Block] = source.blocks(lambda: self._pace.lines)
        # No semaphore, in whose Python methods Ctrl-C may leave a lock held.
        self._permits: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(permits):
            self._permits.put(None)
        self._events: queue.SimpleQueue[Block | _Done | _End] = queue.SimpleQueue()
        self._entries: deque[_Entry] = deque()
        self._tally = Tally()
        self._ended = False

    def run(self) -> Tally:
        """Transform everything.

        Raises:
            DocumentError: on_error is "fail" and a document failed; the output of those before it was written.
            ReadError: the input broke off; the output of what came before was written.
            BrokenExecutor, WriteError, BrokenPipeError: the pool or an output cannot be used any more.
        """
        # A daemon thread, because it may wait for input that never comes, and the exit must not wait for it.
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        try:
            return self._serve()
        finally:
            self._ended = True
            self._permits.put(None)  # the reader thread may be waiting for one

    def _read(self) -> None:
        error = None
        try:
            self._permits.get()
            for block in self._blocks:
                self._events.put(block)
                self._permits.get()
                if self._ended:
                    return
        except BaseException as raised:
            error = raised
        self._events.put(_End(error))

    def _serve(self) -> Tally:
        end: _End | None = None
        while end is None or self._entries:
            event = interruptible.get(self._events)
            if isinstance(event, _End):
                end = event
            elif isinstance(event, _Done):
                self._handle_result(event)
            else:
                entry = _Entry(event.size)
                self._entries.append(entry)
                entry.tasks = [Task(event)]
                self._submit(entry, *entry.tasks)
        if end.error is not None:
            raise end.error
        return self._tally

    def _submit(self, entry: _Entry, *tasks: Task) -> None:
        for task in tasks:
            pool, call = (self._again, transform.run_again) if task.again else (self._pool, transform.run)
            future = pool.submit(call, self._job, task.block)
            future.add_done_callback(partial(self._on_done, entry, task))

    def _on_done(self, entry: _Entry, task: Task, future: Future[Outcome]) -> None:
        """Store that a task is done. Called on the thread that resolves the future."""
        self._events.put(_Done(entry, task, future))

    def _handle_result(self, done: _Done) -> None:
        """Store a task's outcome, and write the blocks that can be written now."""
        entry, task = done.entry, done.task
        try:
            outcome = done.future.result()
        except ERRORS as error:
            if isinstance(error, TaskTimeout) and not task.again:
                self._pace.learn_from_timeout()
            following = self._attempts.after_error(task, error)
        else:
            self._pace.learn(outcome.documents, outcome.seconds)
            following = self._attempts.after_outcome(task, outcome)
        place = entry.tasks.index(task)
        entry.tasks[place : place + 1] = following
        self._submit(entry, *(each for each in following if each.outcome is None))
        if not entry.done:
            return
        if self._ordered:
            while self._entries and self._entries[0].done:
                self._write(self._entries.popleft())
        else:
            self._entries.remove(entry)
            self._write(entry)

    def _write(self, entry: _Entry) -> None:
        size = entry.size
        for task in entry.tasks:
            outcome = task.outcome
            assert outcome is not None
            self._tally.documents += outcome.documents
            self._tally.failed += outcome.failed
            self._tally.first = self._tally.first or outcome.failure
            self._sink.write(outcome, size)
            size = 0
            if outcome.failure is not None and self._job.on_error == "fail":
                raise DocumentError(outcome.failure)
        self._permits.put(None)
