"""How the chunks of one map are submitted: with which function, under which rules, by which way into the pool.

Used by an `AdaptiveMap`, with its lock. A chunk's calls are made in one of three ways (`map_pieces.Kind`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pidfdpool import records
from pidfdpool.executor.futures import Future
from pidfdpool.executor.map_pieces import Kind, Piece, UnsentCall
from pidfdpool.executor.unsendable import describe_pickling_error
from pidfdpool.loop import held_arguments
from pidfdpool.loop.chunk_calls import Chunk, Terms
from pidfdpool.process import describe
from pidfdpool.serialization import payload
from pidfdpool.serialization.out_of_band import OutOfBandPickle
from pidfdpool.transport.published import MAX_CALLS
from pidfdpool.typed import Protocol
from pidfdpool.worker.chunk import call_all
from pidfdpool.worker.chunk_publishing import call_alone, call_published

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Iterator, Sequence

    from pidfdpool.executor.map_pieces import Entry
    from pidfdpool.executor.open_maps import Map
    from pidfdpool.loop.pool import Pool
    from pidfdpool.loop.task import Recipient
    from pidfdpool.scheduler.policy import Policy
    from pidfdpool.transport.framing import Buffer


class Submitter(Protocol):
    """What submits calls: an executor, or a view of one with options."""

    _policy: Policy

    @property
    def _pool(self) -> Pool | None:
        """The pool; None: nothing was submitted yet."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """Submit a call."""

    def _submit_for(
        self, recipient: Recipient, policy: Policy, fn: Any, args: Any, kwargs: Any, *, wait: bool
    ) -> None:
        """Submit a call with other options."""

    def _register_map(self, adaptive_map: Map) -> tuple[int, payload.SharedMain | None]:
        """Register a map with calls to submit. Return the number of workers, and what host and workers share."""


_MAKE: dict[Kind, Callable[..., Any]] = {
    Kind.TOGETHER: call_all,
    Kind.EACH: call_published,
    Kind.ALONE: call_alone,
}


class Submission:
    """The function and the rules of one map, and the way to submit calls.

    Attributes:
        policy: the rules.
        rest: the terms of calls that are submitted again, because they never began.
    """

    def __init__(
        self,
        submitter: Submitter,
        pool: Pool | None,
        function: Callable[..., Any],
        shared: payload.SharedMain | None,
        *,
        starred: bool,
    ) -> None:
        """Note what there is. starred: each call is a tuple of arguments; otherwise it is the one argument."""
        # Until all is submitted, so that a map runs to its end though nobody else holds the executor.
        self._submitter: Submitter | None = submitter
        self._pool = pool
        self._function = function
        self._name = describe.name_of(function)
        self._shared = shared
        self._starred = starred
        self._pickled_function: Buffer = b""
        self.policy: Policy = submitter._policy
        self._counts_calls = self.policy.counts_calls
        self._most = min(MAX_CALLS, self.policy.max_tasks_per_child or MAX_CALLS)  # calls, if they count
        # A chunk as a whole is never tried again.
        self._chunk_policy = records.replace(self.policy, retries=0) if self.policy.retries else self.policy
        since = time.monotonic()
        self._until = None if self.policy.deadline is None else since + self.policy.deadline
        self._terms = Terms(since)
        self.rest: Terms = Terms(since, follows=True)

    def pickle_function(self) -> None:
        """Pickle the function, once for all calls.

        Raises:
            Exception: whatever prevents that.
        """
        self._pickled_function = payload.dumps(self._function, self._shared)[0]

    def pickling_error(self, error: Exception, arguments: tuple[Any, ...]) -> Exception:
        """Return what to say of a call that does not pickle."""
        return describe_pickling_error(error, self._function, arguments, {}, self._shared)

    def at_most(self, calls: int) -> int:
        """Return how many of so many calls may share a chunk."""
        return min(calls, self._most) if self._counts_calls else calls

    def end(self) -> None:
        """Keep the executor alive no more: whatever is still submitted follows from what it has accepted."""
        self._submitter = None

    def submit(self, first: int, calls: Sequence[Any], terms: Terms | None, *, publishes: bool) -> Iterator[Entry]:
        """Submit some calls as one task, and yield what takes their place in the map.

        Args:
            first: the index in the map of the first of them.
            calls: the calls.
            terms: if they follow from another task.
            publishes: whether each result is to be published at once, though no rule asks for it.

        Raises:
            PoolBroken, RuntimeError: as `submit` of the executor.
        """
        try:
            buffers = OutOfBandPickle(calls, self._shared).buffers()
        except Exception as error:
            if len(calls) == 1:
                yield UnsentCall(self.pickling_error(error, calls[0] if self._starred else (calls[0],)))
                return
            buffers = None
        if buffers is None:  # one by one, because those before the one that does not pickle are to run
            for index in range(len(calls)):
                yield from self.submit(first + index, calls[index : index + 1], terms, publishes=publishes)
            return
        if terms is not None and terms.attempts:
            kind = Kind.ALONE
        elif self._counts_calls or terms is not None or (publishes and len(calls) <= MAX_CALLS):
            kind, terms = Kind.EACH, terms or self._terms
        else:
            kind = Kind.TOGETHER
        of_script = payload.needs_script([self._pickled_function]) or payload.needs_script([buffers[0].raw()])
        chunk = Chunk(_MAKE[kind], self._name, first, calls, starred=self._starred, of_script=of_script, terms=terms)
        future = self._submit(kind, chunk, buffers, len(calls))
        yield Piece(kind, future, first, calls, sum(buffer.raw().nbytes for buffer in buffers))

    def _submit(self, kind: Kind, chunk: Chunk, buffers: Any, count: int) -> concurrent.futures.Future[Any]:
        arguments: tuple[Any, ...] = self._pickled_function, buffers, self._starred
        if kind is Kind.TOGETHER:
            assert self._submitter is not None
            return self._submitter.submit(chunk, *arguments)
        policy = self.policy
        if kind is Kind.EACH:
            policy = self._chunk_policy
            arguments = self._pickled_function, buffers, count, self._starred, policy.timeout, self._until
        future: Future[Any] = Future()
        if chunk.terms is None or not chunk.terms.follows:
            assert self._submitter is not None
            self._submitter._submit_for(future, policy, chunk, arguments, {}, wait=True)
            return future
        # The executor may be shut down by now, and has accepted these calls before.
        assert self._pool is not None
        call: tuple[Any, ...] = chunk.call, arguments, {}
        pickled = self._pool.leases.pickled(call, self._shared)
        self._pool.submit(future, pickled, chunk, policy, held_arguments.held(call, pickled), wait=True)
        return future
