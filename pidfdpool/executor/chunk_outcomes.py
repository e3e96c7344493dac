"""What came of one chunk of calls that count each for itself: from its worker, or from what a dead worker published.

The consumer of a map reads it. If a chunk has not come to its end, the map reads it, too, and submits what is left.
Results are rebuilt when they are taken, not before. See `worker.chunk_publishing`.
"""

from __future__ import annotations

import _pickle as pickle
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

from pidfdpool.errors import PayloadError
from pidfdpool.loop import outcomes
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.serialization import payload, picklers
from pidfdpool.worker.chunk_publishing import FailedCall, Rebuilt

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

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
        whole = min(end, len(ends))
        starts = chain((ends[begin - 1] if begin else 0,), ends[begin : whole - 1]) if begin < whole else ()
        pieces = zip(starts, ends[begin:whole], strict=True)
        if picklers.STACK_GLOBAL not in data:
            results = [pickle.loads(data[start:stop]) for start, stop in pieces]
        else:
            results = []
            for start, stop in pieces:
                failure = _load_into(results, data[start:stop])
                if failure is not None:
                    return results, failure
        if begin <= len(ends) < end:
            return results, self._load_last(results)
        return results, None

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
