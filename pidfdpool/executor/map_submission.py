"""How the chunks of one map are submitted: with which function, under which rules, by which way into the pool.

`adaptive_map` and `bounded_map` decide when a chunk is submitted, and which calls it has. A chunk's calls are made in
one of three ways (`map_pieces.Kind`).
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pidfdpool import records
from pidfdpool.executor import pool_submission
from pidfdpool.executor.chunk_outcomes import copy_of
from pidfdpool.executor.futures import Future
from pidfdpool.executor.map_pieces import Kind, Piece, UnsentCall
from pidfdpool.executor.unsendable import describe_pickling_error
from pidfdpool.loop import held_arguments
from pidfdpool.loop.chunk_calls import Chunk, Terms
from pidfdpool.loop.pool import Pool
from pidfdpool.process import describe, interruptible
from pidfdpool.serialization import kept_definitions, payload
from pidfdpool.serialization.out_of_band import OutOfBandPickle
from pidfdpool.transport.published import MAX_CALLS
from pidfdpool.typed import Protocol
from pidfdpool.worker.chunk import call_all
from pidfdpool.worker.chunk_publishing import call_alone, call_published

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Iterator, Sequence

    from pidfdpool.executor.open_maps import Map
    from pidfdpool.loop.task import Recipient
    from pidfdpool.scheduler.policy import Policy
    from pidfdpool.transport.framing import Buffer


class Submitter(Protocol):
    """What submits calls: an executor, or a view of one with options."""

    _policy: Policy

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """Submit a call."""

    def _submit_for(
        self, recipient: Recipient, policy: Policy, fn: Any, args: Any, kwargs: Any, *, wait: bool
    ) -> None:
        """Submit a call with other options."""

    def _register_map(self, adaptive_map: Map) -> tuple[int, Pool]:
        """Register a map with calls to submit. Return the number of workers, and the pool."""

    def _submitter_ref(self, lost: Callable[[Any], object] | None = None) -> Callable[[], Submitter | None]:
        """Return a weak reference: what it returns is None when nobody else holds the executor any more.

        lost: called then, in any thread, at any point.
        """


_MAKE: dict[Kind, Callable[..., Any]] = {
    Kind.TOGETHER: call_all,
    Kind.EACH: call_published,
    Kind.ALONE: call_alone,
}


class Submission:
    """The function and the rules of one map, and the way to submit calls. Used in turns.

    Attributes:
        policy: the rules.
        counts_calls: each call counts for itself, because a rule is about it or outcomes are wanted.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        policy: Policy,
        shared: payload.SharedMain | None,
        *,
        starred: bool,
        outcomes: bool = False,
        lazy: bool = False,
    ) -> None:
        """Note what there is.

        Args:
            function: what is called.
            policy: the rules.
            shared: what host and workers share.
            starred: each call is a tuple of arguments; otherwise it is the one argument.
            outcomes: the map goes on behind a call that fails. So each call counts for itself.
            lazy: the map takes its inputs while it is under way. So the deadline of a call counts from when it is
                submitted, and not from now on. And a single call to which a rule applies is a task like any other.
        """
        if policy.context_vars:
            from pidfdpool.executor.context_vars import in_context

            function = in_context(function, policy.context_vars)
        self._function = function
        self._name = describe.name_of(function)
        self._shared = shared
        self._starred = starred
        self._pickled_function: Buffer = b""
        self._definitions: list[Any] = []  # definitions of the script that its calls may use
        self.policy: Policy = policy
        self.counts_calls: bool = policy.counts_calls or outcomes
        self._most = min(MAX_CALLS, policy.max_tasks_per_child or MAX_CALLS)  # calls, if they count
        # A chunk as a whole is never tried again.
        self._chunk_policy = records.replace(policy, retries=0) if policy.retries else policy
        self._outcomes = outcomes
        self._unsendable: Exception | None = None  # why the function does not pickle, if each call is to fail of it
        self._lazy = lazy
        self._terms = Terms(time.monotonic())

    def pickle_function(self) -> UnsentCall | None:
        """Pickle the function, once for all calls. Return what takes the place of the calls if it does not pickle.

        With `outcomes` each call gets that error when it is submitted.
        """
        try:
            self._pickled_function = payload.dumps(self._function, self._shared)[0]
            self._definitions = kept_definitions.definitions_for_task()
        except Exception as error:
            if interruptible.is_of_handler(error):
                raise
            described = self._pickling_error(error, ())
            if not self._outcomes:
                return UnsentCall(described)
            self._unsendable = described
        return None

    def _pickling_error(self, error: Exception, arguments: tuple[Any, ...]) -> Exception:
        return describe_pickling_error(error, self._function, arguments, {}, self._shared)

    def at_most(self, calls: int) -> int:
        """Return how many of so many calls may share a chunk."""
        return min(calls, self._most) if self.counts_calls else calls

    def submit(
        self,
        way: Submitter | Pool,
        first: int,
        calls: Sequence[Any],
        terms: Terms | None = None,
        *,
        publishes: bool = False,
    ) -> Iterator[Piece | UnsentCall]:
        """Submit some calls as one task, and yield what takes their place in the map.

        If one of them does not pickle, the others are to run: those between two of that kind are a task.

        Args:
            way: the executor; or the pool itself, for calls of an executor that may be shut down or gone by now.
            first: the index in the map of the first of them.
            calls: the calls.
            terms: if they follow from another task.
            publishes: whether each result is to be published at once, though no rule asks for it.

        Raises:
            PoolBroken, RuntimeError: as `submit` of the executor.
            Exception: a signal handler has raised it while the calls were pickled.
        """
        if self._unsendable is not None:
            yield from (UnsentCall(copy_of(self._unsendable), first + index) for index in range(len(calls)))
            return
        try:
            buffers = OutOfBandPickle(calls, self._shared).buffers()
        except Exception as error:
            if interruptible.is_of_handler(error):
                raise
            if len(calls) == 1:
                yield UnsentCall(self._pickling_error(error, calls[0] if self._starred else (calls[0],)), first)
                return
            buffers = None
        if buffers is None:
            for begin, end in self._parts(calls):
                yield from self.submit(way, first + begin, calls[begin:end], terms, publishes=publishes)
            return
        is_single = self._lazy and self.policy.counts_calls and len(calls) == 1 and not self._outcomes
        if terms.attempts if terms is not None else is_single:
            kind = Kind.ALONE
        elif self.counts_calls or terms is not None or (publishes and len(calls) <= MAX_CALLS):
            kind, terms = Kind.EACH, terms or (Terms(time.monotonic()) if self._lazy else self._terms)
        else:
            kind = Kind.TOGETHER
        of_script = payload.needs_script([self._pickled_function]) or payload.needs_script([buffers[0].raw()])
        chunk = Chunk(_MAKE[kind], self._name, first, calls, starred=self._starred, of_script=of_script, terms=terms)
        future = self._submit(way, kind, chunk, buffers, len(calls))
        since = None if terms is None else terms.since
        yield Piece(kind, future, first, calls, sum(buffer.raw().nbytes for buffer in buffers), since)

    def _parts(self, calls: Sequence[Any]) -> list[tuple[int, int]]:
        """Return the parts in which calls are submitted that do not pickle together. Runs code of the user's.

        Each that does not pickle is a part, and those between two of that kind are one.
        """
        bounds = [0]
        for index in range(len(calls)):
            try:
                OutOfBandPickle(calls[index], self._shared)
            except Exception as error:
                if interruptible.is_of_handler(error):
                    raise
                bounds += index, index + 1
            finally:
                held_arguments.let_go()
        if len(bounds) == 1:  # only all of them together do not pickle
            return [(index, index + 1) for index in range(len(calls))]
        bounds.append(len(calls))
        return [(begin, end) for begin, end in pairwise(bounds) if begin < end]

    def _submit(
        self, way: Submitter | Pool, kind: Kind, chunk: Chunk, buffers: Any, count: int
    ) -> concurrent.futures.Future[Any]:
        policy, terms = self.policy, chunk.terms
        arguments: tuple[Any, ...] = self._pickled_function, buffers, self._starred
        if kind is Kind.EACH:
            policy = self._chunk_policy
            since = None if terms is None else terms.since
            until = None if policy.deadline is None or since is None else since + policy.deadline
            arguments = self._pickled_function, buffers, count, self._starred, policy.timeout, until
        if kind is Kind.TOGETHER and not isinstance(way, Pool):
            return way.submit(chunk, *arguments)
        future: Future[Any] = Future()
        if not isinstance(way, Pool):
            way._submit_for(future, policy, chunk, arguments, {}, wait=True)
            return future
        if terms is None or not terms.follows:
            way.check_open()
        pool_submission.submit(way, future, policy, (chunk, arguments, {}), wait=True)
        return future
