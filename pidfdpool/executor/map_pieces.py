"""What a map waits for and takes in turn: chunks that were submitted, and results that are there already.

When a chunk whose calls count each for itself has not come to its end, because its worker has died for instance, it
is *settled*: the map submits what is left of it, and notes in the chunk what follows its results. The consumer takes
the chunk's results, and then those of its followers.
"""

from __future__ import annotations

import enum
import time
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from pidfdpool.executor import chunk_outcomes
from pidfdpool.loop import outcomes
from pidfdpool.loop.chunk_calls import Terms
from pidfdpool.typed import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from pidfdpool.executor.chunk_outcomes import ChunkOutcome
    from pidfdpool.scheduler.policy import Policy

    Taken: TypeAlias = tuple[list[Any], BaseException | None]  # results, and the failure that has ended them


class Kind(enum.Enum):
    """How the calls of a chunk are made, and so what its future is resolved with."""

    TOGETHER = "together"  # `chunk.call_all`
    EACH = "each"  # `chunk_publishing.call_published`
    ALONE = "alone"  # `chunk_publishing.call_alone`


class UnsentCall:
    """Takes the place of a chunk for calls that were not submitted.

    error: why. index: of the only one, if that is a reason of its own; None: the pool accepts no more.
    """

    future: Future[Any] | None = None

    def __init__(self, error: BaseException, index: int | None = None) -> None:
        self.error = error
        self._index = index

    def take(self) -> Taken:
        """Return the error, behind no results."""
        return [], self.error

    def take_outcomes(self) -> Taken:
        """Return the outcome of the call, or the error that ends the map."""
        from pidfdpool.executor.outcome import Outcome

        return ([], self.error) if self._index is None else ([Outcome(self._index, None, self.error)], None)


class Given:
    """Some of the results of a chunk, which are taken behind a call of it that is still to be made."""

    future: Future[Any] | None = None

    def __init__(self, outcome: ChunkOutcome, begin: int, end: int, first: int) -> None:
        """first: the index in the map of the chunk's first call."""
        self._outcome, self._begin, self._end, self._first = outcome, begin, end, first

    def take(self) -> Taken:
        """Return them."""
        return self._outcome.results(self._begin, self._end)

    def take_outcomes(self) -> Taken:
        """Return the outcomes of these calls, and the error that ends the map, if one does."""
        return self._outcome.outcomes(self._first, self._begin, self._end)


class Piece:
    """A chunk that was submitted. Settled once, with the map's lock; taken by the consumer."""

    __slots__ = (
        "_outcome", "_since", "calls", "count", "first", "followers", "future", "kind", "settled", "size", "taken",
    )  # fmt: skip

    def __init__(
        self,
        kind: Kind,
        future: Future[Any],
        first: int,
        calls: Sequence[Any],
        size: int,
        since: float | None = None,
    ) -> None:
        """Note what was submitted.

        first: the index in the map of the first call. size: the bytes of the arguments. since: from when on the
        deadline of its calls counts, as time.monotonic() tells it.
        """
        self.kind: Kind = kind
        self.future: Future[Any] = future
        self.first: int = first
        self.calls: Sequence[Any] = calls  # until nothing of it can be submitted again
        self.count: int = len(calls)
        self.size: int = size
        self.settled: bool = False
        self.followers: list[Entry] = []  # what comes behind it, and was a part of it
        self.taken: list[tuple[int, int]] = []  # the results of which calls it gives, once it is settled
        self._outcome: ChunkOutcome | None = None
        self._since = since

    @property
    def rest(self) -> Terms:
        """The terms of calls that are submitted again, because they never began."""
        return Terms(self._since, follows=True)

    @property
    def outcome(self) -> ChunkOutcome:
        """What came of a chunk that is done and not cancelled. Only of Kind.EACH."""
        if self._outcome is None:
            self._outcome = chunk_outcomes.of_future(self.future, self.count)
        return self._outcome

    def is_complete(self, policy: Policy) -> bool:
        """Return whether each call has come to its end, so that nothing need be settled. It must be done."""
        outcome = self.outcome
        return outcome.made == self.count and outcome.lost is None and not (outcome.raised and policy.retries_errors)

    def take(self) -> Taken:
        """Return its results; those before a gap, if it was settled."""
        return self._of_each_range(self.outcome.results)

    def take_outcomes(self) -> Taken:
        """As `take`, but return outcomes, and the error that ends the map, if one does."""
        return self._of_each_range(partial(self.outcome.outcomes, self.first))

    def _of_each_range(self, of_range: Callable[[int, int], Taken]) -> Taken:
        results: list[Any] = []
        for begin, end in self.taken if self.settled else [(0, self.count)]:
            more, error = of_range(begin, end)
            results += more
            if error is not None:
                return results, error
        return results, None

    def gaps(self, again: Sequence[int]) -> list[tuple[int, int]]:
        """Return the ranges of calls with outcomes between those that are made again, as many as those and one."""
        bounds = [-1, *again, self.outcome.made]
        return [(begin + 1, end) for begin, end in pairwise(bounds)]


def attempts_left(outcome: ChunkOutcome, policy: Policy) -> dict[int, Terms]:
    """Return which calls of a chunk are to have another attempt, by index, and its terms. Runs code of the user's."""
    again: dict[int, Terms] = {}
    if outcome.raised and policy.retries_errors:
        for index in outcome.raised:
            if outcomes.matches(outcome.error_of(index), policy):
                again[index] = Terms(attempts=1, follows=True)
    lost, at = outcome.lost, outcome.lost_at
    if lost is not None and at is not None and policy.retries_lost(lost):
        again[at] = Terms(attempts=1, deaths=lost.deaths, follows=True)  # type: ignore[attr-defined]
    return again


Entry: TypeAlias = "Piece | Given | UnsentCall"


class Pieces(Protocol):
    """A map, as its one consumer sees it."""

    def next_entry(self, deadline: float | None = None) -> Entry | None:
        """Return what has the next results. None: there are no more."""

    def take(self, entry: Entry) -> Taken:
        """Return the results of what `next_entry` gave, once its future is done, if it has one."""


def next_results(pieces: Pieces, deadline: float | None) -> Taken | None:
    """Wait for the next results of a map; return them, and the error that ended them. None: there are no more.

    deadline: in time.monotonic()'s seconds. If waiting fails, the piece that was waited for is cancelled.
    """
    entry = pieces.next_entry(deadline)
    if entry is None:
        return None
    future = entry.future
    try:
        if future is not None:
            future.exception(None if deadline is None else deadline - time.monotonic())
        return pieces.take(entry)
    finally:
        if future is not None:
            future.cancel()  # does something only if waiting for it has failed
        del entry, future  # an exception's traceback holds this frame, and the future holds the exception
