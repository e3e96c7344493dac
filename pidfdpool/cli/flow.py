"""From blocks to output, through the pool, in bounded memory.

    reader thread                  main thread                                   pool
      waits for a permit
      reads a block       --->     submits it                          --->      transforms it
                                   keeps the outcomes in order         <---
                                   writes what is next in line
      gets a permit back  <---     and gives back its permit

A permit is one block somewhere between "being read" and "written". There is a fixed number of them, and
nothing else bounds anything: if the reader of our output stops, writing blocks, no permit comes back, and
reading stops. The main thread waits at one queue only, to which the reader thread and the futures'
callbacks put what happened, so finished blocks are written while the input is idle, and Ctrl-C is noticed
at any time.

A worker that dies takes a whole block with it, and nobody knows which line it was. So the lines are submitted
again, one by one, in the block's place; a line whose worker dies in this second try failed.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from pidfdpool import WorkerCrashed
from pidfdpool.cli import transform
from pidfdpool.cli.pacing import Pace
from pidfdpool.process import interruptible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor, Future

    from pidfdpool.cli.source import Source
    from pidfdpool.cli.transform import Block, Failure, Job, Outcome


class DocumentError(Exception):
    """A document failed, and the run was to stop at that."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Sink(Protocol):
    """Where the output goes."""

    def write(self, data: bytes, size: int, documents: int) -> None:
        """Write the output for so many bytes and documents of input."""


@dataclass(slots=True)
class Tally:
    """What a run came to."""

    documents: int = 0
    failed: int = 0
    first: Failure | None = None


@dataclass(slots=True, eq=False)
class _Piece:
    """One task: a block, or in the second try one line of it."""

    block: Block
    last_try: bool = False
    outcome: Outcome | None = None


@dataclass(slots=True, eq=False)
class _Slot:
    """A block's place in the output."""

    size: int
    pieces: list[_Piece] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return all(piece.outcome is not None for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class _Done:
    slot: _Slot
    piece: _Piece
    future: Future[Outcome]


@dataclass(frozen=True, slots=True)
class _End:
    """There is no more input; error: because it broke off."""

    error: BaseException | None


class Flow:
    """One run. Make it, call `run` once."""

    def __init__(self, pool: Executor, job: Job, source: Source, sink: Sink, *, ordered: bool, permits: int) -> None:
        self._pool = pool
        self._job = job
        self._sink = sink
        self._ordered = ordered
        self._pace = Pace()
        self._blocks: Iterator[Block] = source.blocks(lambda: self._pace.lines)
        self._permits = threading.Semaphore(permits)
        self._events: queue.SimpleQueue[Block | _Done | _End] = queue.SimpleQueue()
        self._slots: deque[_Slot] = deque()
        self._tally = Tally()
        self._ended = False

    def run(self) -> Tally:
        """Transform everything.

        Raises:
            DocumentError: on_error is "fail" and a document did; what belongs before it was written.
            ReadError: the input broke off; what came before was written.
            BrokenExecutor, OSError: the pool or the output cannot be used any more.
        """
        # A daemon: it may be waiting for input that never comes, and nobody should wait for it.
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        try:
            return self._serve()
        finally:
            self._ended = True
            self._permits.release()  # should the reader be waiting for one

    def _read(self) -> None:
        error = None
        try:
            self._permits.acquire()
            for block in self._blocks:
                self._events.put(block)
                self._permits.acquire()
                if self._ended:
                    return
        except BaseException as raised:
            error = raised
        self._events.put(_End(error))

    def _serve(self) -> Tally:
        end: _End | None = None
        while end is None or self._slots:
            event = interruptible.get(self._events)
            if isinstance(event, _End):
                end = event
            elif isinstance(event, _Done):
                self._take(event)
            else:
                slot = _Slot(event.size)
                self._slots.append(slot)
                self._submit(slot, _Piece(event))
        if end.error is not None:
            raise end.error
        return self._tally

    def _submit(self, slot: _Slot, *pieces: _Piece) -> None:
        slot.pieces = list(pieces)
        for piece in pieces:
            future = self._pool.submit(transform.run, self._job, piece.block)
            future.add_done_callback(partial(self._tell, slot, piece))

    def _tell(self, slot: _Slot, piece: _Piece, future: Future[Outcome]) -> None:
        """Be called by whichever thread resolves the future."""
        self._events.put(_Done(slot, piece, future))

    def _take(self, done: _Done) -> None:
        """Note a task's outcome, and write what has become writable."""
        slot, piece = done.slot, done.piece
        try:
            piece.outcome = done.future.result()
        except WorkerCrashed as crash:
            if not piece.last_try:
                lines = transform.split(piece.block)
                self._submit(slot, *(_Piece(line, last_try=True) for line in lines))
                return
            piece.outcome = transform.crashed(self._job, piece.block, str(crash))
        else:
            self._pace.learn(piece.outcome.documents, piece.outcome.seconds)
        if not slot.done:
            return
        if self._ordered:
            while self._slots and self._slots[0].done:
                self._write(self._slots.popleft())
        else:
            self._slots.remove(slot)
            self._write(slot)

    def _write(self, slot: _Slot) -> None:
        size = slot.size
        for piece in slot.pieces:
            outcome = piece.outcome
            assert outcome is not None
            self._tally.documents += outcome.documents
            self._tally.failed += outcome.failed
            self._tally.first = self._tally.first or outcome.failure
            self._sink.write(outcome.output, size, outcome.documents)
            size = 0
            if outcome.failure is not None and self._job.on_error == "fail":
                raise DocumentError(outcome.failure)
        self._permits.release()
