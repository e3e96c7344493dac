"""The tasks that `map` submits: one function over a run of calls. Run in workers; the host asks for their names.

While they are made, the worker's black box tells which call is under way: exactly, where there are few, and nearly
where there are so many that to note each of them would take as long as to make it.
"""

from __future__ import annotations

import time
from contextlib import suppress
from itertools import chain, compress, repeat, starmap

from pidfdpool.serialization import exception_chains, payload, picklers, scripts
from pidfdpool.serialization.out_of_band import OutOfBandPickle
from pidfdpool.transport import black_box
from pidfdpool.worker import rebuild_guard, tracebacks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _pickle import PickleBuffer
    from collections.abc import Callable, Iterator, Sequence
    from mmap import mmap
    from typing import Any, TypeAlias

    from pidfdpool.transport.framing import Buffer

    _Told: TypeAlias = tuple[Sequence[Buffer | PickleBuffer] | tuple[list[Any]], list[Buffer] | None, float]

_NOTES = 64  # that are made of more calls than `blackbox.MARKS`
_NOTE = b"\1"

shared: payload.SharedMain | None = None  # what this worker has in common with the host; set by its loop
box: int | None = None  # its black box; the same
_marks: mmap | None = None  # in there
_run: _Run | None = None


class _Run:
    """A run of calls that is under way."""

    def __init__(self, calls: Sequence[Any]) -> None:
        """Begin a run of calls: a list, or a range."""
        self._calls = calls
        self._current: Any = iter(())  # over those that are made next
        self.over = False  # this is a forked copy, in which no call is to be made any more

    def calls(self) -> Iterator[Any]:
        """Return an iterator over the calls, which notes each, or each few, when they are taken."""
        calls, marks = self._calls, _cleared()
        if marks is None:
            return chain.from_iterable(self._slices(lambda _note: 0))
        if len(calls) > black_box.MAX_MARKS:
            return chain.from_iterable(self._slices(marks.write))
        self._current = iter(calls)
        return compress(self._current, map(marks.write, repeat(_NOTE)))  # in C: 20 to 50 ns for each

    def _slices(self, write: Callable[[bytes], int]) -> Iterator[Iterator[Any]]:
        calls = self._calls
        step = _step(len(calls))
        for at in range(0, len(calls), step):
            if self.over:
                return
            write(_NOTE)
            self._current = iter(calls[at : at + step])
            yield self._current

    def end(self) -> None:
        """Make no more calls than that which is under way."""
        self.over = True
        self._current.__setstate__(len(self._calls))  # such iterators can be set to any place, also to the end


def forget_in_forked_child() -> None:
    """Leave the calls that are still to be made to the worker. This process, which one of them forked, is none."""
    global _marks, box  # noqa: PLW0603  they are the worker's
    _marks = box = None
    if _run is not None:
        _run.end()


def _cleared() -> mmap | None:
    """Return what notes are written to, none being there; None: nothing."""
    global _marks  # noqa: PLW0603  once per worker
    if _marks is None and box is not None:
        with suppress(OSError, ValueError):
            _marks = black_box.map_marks(box)
    if _marks is not None:
        black_box.clear_marks(_marks)
    return _marks


def _step(count: int) -> int:
    """Return how many of so many calls are made from one note to the next."""
    return 1 if count <= black_box.MAX_MARKS else -(-count // _NOTES)


def calls_at(notes: int, count: int) -> tuple[int, int] | None:
    """Return the first of the calls that were under way, and the end of them, counted from 0; None: nobody knows.

    notes: how many a worker's black box holds. count: of the calls in the run.
    """
    step = _step(count)
    first = (notes - 1) * step
    return (first, min(first + step, count)) if 0 <= first < count else None


def call_each(function: Callable[..., Any], chunk: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Return the results in order; the first exception ends the chunk, as in the standard library."""
    global _run  # noqa: PLW0603  a worker does one thing at a time
    _run = _Run(chunk)
    try:
        return [function(*arguments) for arguments in _run.calls()]
    finally:
        _run = None
        _cleared()


def call_all(function: Buffer, calls: Sequence[Buffer], starred: bool) -> _Told:
    """Make every call of a chunk whose size the pool has chosen, and so one that nobody must notice.

    function, calls: payloads: the function, pickled once for the whole map, and the calls of this chunk.
    starred: each call is a tuple of arguments; otherwise it is the one argument.

    Returns:
        The payload of the results up to the first failure, or a tuple with their list, if they share something with
        the host; that failure, if there is one; and the seconds that the calls took. Those after a failure are made
        all the same, as they would be one by one.
    """
    with rebuild_guard.during(rebuild_guard.CALL):
        function_ = payload.loads([function])
        _cleared()
        calls_, starred = _rebuilt(calls, starred)
    results: list[Any] = []
    began = time.perf_counter()
    failure = _make(function_, calls_, starred, results)
    took = time.perf_counter() - began
    pickled: OutOfBandPickle | None = None
    try:
        pickled = OutOfBandPickle(results, shared)
    except Exception as error:
        exception_chains.drop_tracebacks(error)
    if pickled is None:  # not in a handler: the traceback is to tell of the one result that does not pickle
        return *_what_pickles(results, failure), took
    if picklers.shared_resources:
        # What is shared is there for as long as this worker is, and who made the map may take its time. So these
        # are rebuilt when they come.
        picklers.close_unfetched(picklers.pop_shared_resources())
        return (results,), failure, took
    buffers: list[Any] = pickled.buffers()
    if pickled.mentions(payload.CLASS_BY_VALUE):
        buffers[0] = bytes(buffers[0])  # what spares the host's classes looks at bytes only
    return buffers, failure, took


def _rebuilt(calls: Sequence[Buffer], starred: bool) -> tuple[Sequence[Any], bool]:
    """Return the calls of a chunk, and whether each is a tuple. What cannot be rebuilt raises why when it is called.

    Raises:
        BaseException: none of them can be.
    """
    try:
        return payload.loads(calls), starred
    except scripts.NeedsScript:
        raise
    except BaseException:
        from pidfdpool.serialization import salvage

        rest = salvage.load_items(calls, in_host=False)
        if rest is None:
            raise
        return rest if starred else [call if type(call) is salvage.FailedItem else (call,) for call in rest], True


def _make(function: Any, calls: Sequence[Any], starred: bool, results: list[Any]) -> list[Buffer] | None:
    """Append results up to the first failure, make the remaining calls, and return that failure."""
    global _run  # noqa: PLW0603  a worker does one thing at a time
    run = _run = _Run(calls)
    failure: list[Buffer] | None = None
    pending = starmap(function, run.calls()) if starred else map(function, run.calls())
    made, count = 0, len(calls)
    while made < count:
        came: list[Any] = [] if made else results
        try:
            came.extend(pending)  # which appends each as it comes, so those before a failure are there
            if made + len(came) < count or run.over:
                raise StopIteration  # as the function did, which looks like the end to everybody in between
        except BaseException as error:
            if run.over:
                raise  # to where this process ends: it is none of the worker's
            if failure is None:
                failure = tracebacks.told(error, shared)
            else:
                exception_chains.drop_tracebacks(error)
        made += len(came) + 1  # with the one that failed; if none has, this was the last round
    _run = None
    _cleared()
    return failure


def _what_pickles(results: list[Any], failure: list[Buffer] | None) -> tuple[list[Buffer], list[Buffer] | None]:
    """Return the payload of the results before the first that does not pickle, and why that one does not.

    failure: what comes after the results, if all of them turn out to pickle this time.
    """
    for index, result in enumerate(results):
        try:
            payload.dumps(result, shared)
        except Exception as error:
            return payload.dumps(results[:index], shared), tracebacks.told(error, shared)
    try:
        return payload.dumps(results, shared), failure
    except Exception as error:  # each of them pickles, and all of them together do not
        return payload.dumps([], shared), tracebacks.told(error, shared)
