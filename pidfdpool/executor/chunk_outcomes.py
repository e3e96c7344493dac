"""What came of one chunk of calls that count each for itself: from its worker, or from what a dead worker published.

The consumer of a map reads it. If a chunk has not come to its end, the map reads it, too, and submits what is left.
Results are rebuilt when they are taken, not before. See `worker.chunk_publishing`.
"""

from __future__ import annotations

import _pickle as pickle
from contextlib import suppress
from itertools import chain, pairwise, repeat
from typing import TYPE_CHECKING, Any

from pidfdpool.errors import DeadlineExceeded, InheritedFutureError, PayloadError, PoolBroken
from pidfdpool.loop import chunk_calls, outcomes
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.serialization import payload, picklers
from pidfdpool.worker.chunk_publishing import FailedCall, Rebuilt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from pidfdpool.executor.outcome import Outcome
    from pidfdpool.transport.framing import Buffer
    from pidfdpool.worker import chunk_publishing

_NONE: Sequence[int] = ()
_FAILED = FailedCall.__name__.encode()  # in the pickle of what a call has raised


class ChunkOutcome:
    """The outcomes of the first calls of a chunk. Immutable; any thread.

    Attributes:
        made: how many calls have an outcome. The others have not begun.
        lost_at: which of them has none, because its worker has died, or was killed; None: each has one.
        lost: the error of that one. Of all from that one on, if it is not known what became of them.
        raised: which calls have raised an exception; if the worker has died, which may have.
        seconds: how long all of them took; None: it is not known.
        early: the worker itself has ended the chunk early.
    """

    __slots__ = ("_data", "_ends", "_last", "lost", "lost_at", "made", "raised", "seconds")

    def __init__(
        self,
        ends: Sequence[int],
        data: bytes,
        last: Any = None,
        raised: Sequence[int] = (),
        seconds: float | None = None,
        lost: BaseException | None = None,
        made: int = 0,
    ) -> None:
        """Note what is known. made: how many calls share the error `lost`, if it is about a whole chunk."""
        self._ends, self._data, self._last = ends, data, last
        self.raised: Sequence[int] = raised
        self.seconds: float | None = seconds
        self.lost: BaseException | None = lost
        self.made: int = made or len(ends) + (last is not None or lost is not None)
        self.lost_at: int | None = len(ends) if lost is not None and not made else None

    def results(self, begin: int, end: int) -> tuple[list[Any], BaseException | None]:
        """Return the results of these calls up to the first failure, and that failure. Runs code of the user's."""
        ends, data = self._ends, self._data
        pieces = list(self._pieces(begin, min(end, len(ends))))
        results = _load_quickly(data, pieces)
        if results is None:
            results = []
            for start, stop in pieces:
                failure = _load_into(results, data[start:stop])
                if failure is not None:
                    return results, failure
        if begin <= len(ends) < end:
            return results, self._load_last(results)
        return results, None

    def outcomes(self, first: int, begin: int, end: int) -> tuple[list[Outcome[Any]], BaseException | None]:
        """Return the outcomes of these calls, and the error that ends the map, if one does. Runs code of the user's.

        first: the index in the map of the chunk's first call.
        """
        from pidfdpool.executor import outcome  # only maps that are asked for outcomes need it

        ends, data = self._ends, self._data
        whole = min(end, len(ends))
        pieces = list(self._pieces(begin, whole))
        values = _load_quickly(data, pieces)
        if values is not None:
            indexes = range(first + begin, first + whole)
            made = list(map(outcome.from_tuple, zip(indexes, values, repeat(None), strict=False)))
        else:
            made = [
                outcome.from_tuple((first + at, *_load(data[start:stop])))
                for at, (start, stop) in zip(range(begin, whole), pieces, strict=True)
            ]
        at = max(begin, len(ends))
        if self._last is not None and at < end:
            values = []
            error = self._load_last(values)
            made.append(outcome.Outcome(first + at, values[0] if values else None, error))
        elif self.lost is not None and at < end:
            if ends_map(self.lost):
                return made, self.lost
            chunk_calls.describe(self.lost)
            errors = (self._own_error(each, first) for each in range(at, end))
            made += [outcome.Outcome(first + each, None, error) for each, error in enumerate(errors, at)]
        return made, None

    def _own_error(self, index: int, first: int) -> BaseException:
        """Return the error of a call whose worker has told nothing of it."""
        lost = self.lost
        assert lost is not None
        if index == self.lost_at or index == 0:
            return lost
        error = copy_of(lost)
        if isinstance(error, DeadlineExceeded):  # it names the first of the calls, and each has waited for too long
            error.args = (str(lost).replace(f"item {first} of map", f"item {first + index} of map", 1),)
        return error

    def _pieces(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield where the results of these calls begin in the data, and where they end. All were published."""
        ends = self._ends
        starts = chain((ends[begin - 1] if begin else 0,), ends[begin : end - 1]) if begin < end else ()
        return zip(starts, ends[begin:end], strict=True)

    def _load_last(self, results: list[Any]) -> BaseException | None:
        """Append the last result, or return why there is none."""
        last = self._last
        if last is None:
            return self.lost
        if type(last) is not Rebuilt:
            return _load_into(results, last.data)
        if last.error is not None:
            return outcomes.unreadable_result(last.error)
        results.append(last.value)
        return None

    def error_of(self, index: int) -> BaseException | None:
        """Return what a call raised, or why it was lost. Runs code of the user's."""
        return self.results(index, index + 1)[1]


def ends_map(error: BaseException) -> bool:
    """Return whether an error of the pool's own ends a map, because no further call can run."""
    return isinstance(error, PoolBroken | InheritedFutureError)


def copy_of(error: BaseException) -> BaseException:
    """Return a copy of an error that several calls share, so that each can be raised; the error if it has none."""
    import copy  # which few maps need

    try:
        made = copy.copy(error)
    except Exception:
        return error
    if type(made) is not type(error):
        return error
    made.__cause__ = error.__cause__
    return made


def _load_quickly(data: bytes, pieces: list[tuple[int, int]]) -> list[Any] | None:
    """Return the results of calls; None: each is to be loaded by itself, because one names something or is broken.

    A task can write where results are published, so they may be anything.
    """
    if picklers.STACK_GLOBAL not in data:
        with suppress(Exception):
            return [pickle.loads(data[start:stop]) for start, stop in pieces]
    return None


def _load(data: bytes) -> tuple[Any, BaseException | None]:
    """Return the result of a call, or the error that it has ended with. data: what the worker has published of it."""
    values: list[Any] = []
    error = _load_into(values, data)
    return (values[0] if values else None), error


def _load_into(results: list[Any], data: Any) -> BaseException | None:
    """Append a result to the others, or return the error that takes its place."""
    try:
        value = outcomes.load_result([data])
    except PayloadError as error:
        return error
    if type(value) is FailedCall:
        return payload.load_error(value.error)
    results.append(value)
    return None


def of_answer(answer: chunk_publishing.Outcome) -> ChunkOutcome:
    """Return what a worker answered."""
    ends, data, last, raised, seconds = answer
    return ChunkOutcome(memoryview(ends).cast("I").tolist(), data, last, raised, seconds)


def of_future(future: Future[Any], calls: int) -> ChunkOutcome:
    """Return what came of a chunk of so many calls whose future is done, and was not cancelled.

    If the worker is dead, the results that it had published are there, and `lost` is the error of the call that ran.
    """
    error = future.exception()
    if error is None:
        return of_answer(future.result())
    chunk = vars(error).get("chunk")
    published = chunk.published if type(chunk) is Chunk else None
    if published is None:
        return ChunkOutcome(_NONE, b"", lost=error, made=calls)
    ends, data = published.ends, published.data
    done = len(ends)
    raised = [at for at, (begin, end) in enumerate(pairwise(chain((0,), ends))) if _FAILED in data[begin:end]]
    # It died between two calls, or when all were made: that costs no call anything.
    between = done == published.begun and (done or calls > 1)
    return ChunkOutcome(ends, data, raised=raised, lost=None if between else error)


def unpack_results(outcome: tuple[Any, list[Buffer] | None, float]) -> tuple[list[Any], BaseException | None]:
    """Return the results of a chunk up to its first failure, and that failure.

    outcome: what the worker returned: the results, the failure as a pickle, and the seconds that the calls took.

    Raises:
        PayloadError: the results cannot be rebuilt.
    """
    results, failure, _ = outcome
    if type(results) is tuple:  # they were rebuilt when they arrived
        return results[0], None if failure is None else payload.load_error(failure)
    try:
        made = outcomes.load_result(results)
    except PayloadError:
        from pidfdpool.serialization import salvage

        rest = salvage.load_items(results, in_host=True)
        at = next((at for at, result in enumerate(rest or ()) if type(result) is salvage.FailedItem), None)
        if rest is None or at is None:
            raise
        return rest[:at], outcomes.unreadable_result(rest[at].error)
    return made, None if failure is None else payload.load_error(failure)
