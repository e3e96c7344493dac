"""The chunks of one map: calls that were taken from its input, sent in chunks, and what has become of them.

The thread that takes results adds calls; the client's thread brings answers, and sends what waits then. One lock
guards what both of them change. Results are opened when they are taken, in the thread that takes them.

A chunk that was lost with its node, or that could not be sent, is an error for each of its calls.
"""

from __future__ import annotations

import concurrent.futures
import copy
from collections import deque
from typing import TYPE_CHECKING, Any

import pidfdpool
from pidfdpool.integrations.dask_cluster import payloads
from pidfdpool.integrations.dask_cluster.futures import opened
from pidfdpool.integrations.dask_cluster.pace import AHEAD, Pace
from pidfdpool.process import locks

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.integrations.dask_cluster.calls import Made
    from pidfdpool.integrations.dask_cluster.options import Rules
    from pidfdpool.integrations.dask_cluster.requests import Answer, Key
    from pidfdpool.integrations.dask_cluster.submission import Submission


class Chunk:
    """Some calls of a map that follow each other, in one request."""

    def __init__(self, first: int, done: Callable[[Chunk], None]) -> None:
        """first: which call of the map its first is. done: called when it has its outcomes, in any thread."""
        self.first = first
        self.outcomes: deque[Made | BaseException] = deque()  # of each call, in order
        self.sizes = 0  # bytes that its calls were sent as
        self.key: Key | None = None
        self.sent: list[int] = []  # which of its calls are in the request: not those that do not pickle
        self.finished: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.has_begun = False  # as far as is known here
        self._done = done

    def take(self) -> tuple[Any, BaseException | None]:
        """Return the value and the error of its next call. It is kept no longer."""
        outcome = self.outcomes.popleft()
        return (None, outcome) if isinstance(outcome, BaseException) else opened(outcome)

    # ---- for what sends requests: see `Recipient` ------------------------------------------------------------

    def _sent(self, key: Key) -> None:
        self.key = key

    def _begun(self, told: dict[str, Any]) -> None:  # noqa: ARG002
        self.has_begun = True

    def _take(self, answer: Answer) -> None:
        for index, made in zip(self.sent, answer.made, strict=True):
            self.outcomes[index] = made
        self.finish()

    def _fail(self, error: BaseException) -> None:
        for index in self.sent:
            self.outcomes[index] = copy.copy(error)  # each call has an error of its own
        self.finish()

    def finish(self) -> None:
        """Tell that its outcomes are there."""
        self._done(self)
        if self.finished.set_running_or_notify_cancel():
            self.finished.set_result(None)


class Chunks:
    """The calls of one map on their way to the cluster and back. Thread-safe."""

    def __init__(
        self,
        submission: Submission,
        rules: Rules,
        function: Callable[..., Any],
        name: str,
        *,
        chunksize: int | None,
        share: int | None,
        done: Callable[[Chunk], None],
    ) -> None:
        """Prepare a map.

        chunksize: calls in each chunk; None: as many as take a good while, see `pace`.
        share: the calls that may be under way at a time; None: any number, all of them are added at once.
        done: called for each chunk that has its outcomes, in any thread.

        Raises:
            CallNotSendable: the function cannot be pickled.
        """
        self._submission = submission
        self._rules = rules
        self._name = name
        self._chunksize = chunksize
        self._share = share
        self._on_done = done
        self._pace = Pace()
        self._lock = locks.reentrant()
        self._waiting: deque[tuple[Any, ...]] = deque()  # calls that no chunk has yet
        self._next = 0  # the number of the first of these
        self._running = 0  # chunks
        self._is_complete = False  # no calls will be added
        self._is_sending = self._is_wanted = self._at_once = False
        self.failure: BaseException | None = None  # why no more could be sent
        self.sent: deque[Chunk] = deque()  # in order; the consumer takes them
        self._unfinished: set[Chunk] = set()
        self._function = dump(function, name, "the function")

    def add(self, call: tuple[Any, ...]) -> None:
        """Add a call. `send` has to follow."""
        with self._lock:
            self._waiting.append(call)

    def complete(self) -> None:
        """Take note that no calls will be added."""
        with self._lock:
            self._is_complete = True

    @property
    def added(self) -> int:
        """How many calls were added."""
        return self._next + len(self._waiting)

    @property
    def are_taken(self) -> bool:
        """Whether every call that was added is in a chunk, and the consumer has taken all of these."""
        with self._lock:
            return not self._waiting and not self.sent

    def send(self, *, at_once: bool = False) -> None:
        """Send as many chunks as may run. at_once: send all, since nothing can be sent later.

        One thread at a time sends, and the others wait for it. A chunk that ends at once, because nothing of it could
        be sent, comes here again: then the loop below goes on.
        """
        with self._lock:
            self._at_once = self._at_once or at_once
            self._is_wanted = True
            if self._is_sending:
                return
            self._is_sending = True
            try:
                while self._is_wanted:
                    self._is_wanted = False
                    while (size := self._next_size()) > 0:
                        self._send(size)
            finally:
                self._is_sending = False

    def _next_size(self) -> int:
        """Return how many calls the next chunk has; 0: there is none to be sent now."""
        threads, waiting = self._submission.threads, len(self._waiting)
        if not waiting or (self._running >= AHEAD * threads and not self._at_once):
            return 0
        size = self._chunksize or self._pace.next(self._share or waiting, threads)
        # More calls may come, and a chunk has as many as were asked for. Where no number was given, a part of one is
        # sent when too little is under way.
        may_wait = self._chunksize is not None or self._running >= threads
        if waiting < size and may_wait and not (self._is_complete or self._at_once):
            return 0
        return min(size, waiting)

    def _send(self, size: int) -> None:
        chunk = Chunk(self._next, self._note)
        calls = [self._waiting.popleft() for _ in range(size)]
        self._next += size
        self._running += 1
        self._unfinished.add(chunk)
        self.sent.append(chunk)
        pickled = []
        for index, call in enumerate(calls):
            try:
                pickled.append(dump(call, self._name, f"an argument of item {chunk.first + index} of map"))
            except pidfdpool.CallNotSendable as error:
                chunk.outcomes.append(error)
            else:
                chunk.sent.append(index)
                chunk.outcomes.append(concurrent.futures.CancelledError())  # until there is another
        chunk.sizes = sum(each.__sizeof__() for each in pickled)
        if not pickled:
            chunk.finish()
            return
        try:
            self._submission.send(chunk, self._rules, self._name, self._function, tuple(pickled), first=chunk.first)
        except Exception as error:
            self._waiting.clear()
            self.failure = error
            chunk._fail(error)

    def _note(self, chunk: Chunk) -> None:
        """Take note of a chunk that has its outcomes, and send what waits."""
        made = [each for each in chunk.outcomes if not isinstance(each, BaseException) and each.seconds]
        with self._lock:
            self._running -= 1
            self._unfinished.discard(chunk)
            if made and chunk.sent:
                share = chunk.sizes * len(made) // len(chunk.sent)
                self._pace.note(len(made), sum(each.seconds for each in made), share)
        self._on_done(chunk)
        self.send()

    def cancel(self) -> bool:
        """Send no more, and have chunks that have not begun not begin. Any thread.

        Return whether calls were dropped that no chunk had.
        """
        with self._lock:
            dropped = bool(self._waiting)
            self._waiting.clear()
            unfinished = list(self._unfinished)
        for chunk in unfinished:
            if chunk.key is not None and not chunk.has_begun and self._submission.cancel(chunk.key):
                chunk._fail(concurrent.futures.CancelledError())
        return dropped


def dump(value: Any, name: str, what: str) -> payloads.Payload:
    """Pickle a part of a call, as it is now.

    Raises:
        CallNotSendable: it cannot be pickled. name: of the function. what: which part it is.
    """
    try:
        return payloads.dumps(value, snapshot=True)
    except Exception as error:
        raise pidfdpool.CallNotSendable(
            f"{name} was not sent to the cluster: {what} cannot be pickled: {type(error).__name__}: {error}"
        ) from error
