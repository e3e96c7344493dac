"""Runs the tasks that `map` submits. Each of them is a chunk: one function, and many calls of it.

Called in workers, as the function of a task, on the worker's thread. The host imports the functions to submit them,
and `calls_under_way` to read a black box.

During a chunk, marks in the worker's black box tell which call is under way. If a chunk has more calls than there are
marks, one mark stands for several calls.
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

    _Outcome: TypeAlias = tuple[Sequence[Buffer | PickleBuffer] | tuple[list[Any]], list[Buffer] | None, float]

_MARKS_OF_MANY = 64  # marks of a chunk that has more calls than `black_box.MAX_MARKS`
_MARK = b"\1"

shared_main: payload.SharedMain | None = None  # the names of `__main__` that host and worker share; set by the loop
black_box_fd: int | None = None  # of this worker; set by the loop
_marks: mmap | None = None  # the part of the black box that holds them
_run: _Run | None = None


class _Run:
    """The calls of the chunk that is under way."""

    def __init__(self, calls: Sequence[Any]) -> None:
        """Begin the calls: a list, or a range."""
        self._calls = calls
        self._current: Any = iter(())  # over the calls up to the next mark
        self.stopped = False  # this is a forked copy, which must begin no further call

    def calls(self) -> Iterator[Any]:
        """Return an iterator over the calls. It writes a mark for each call, or each few, when they are taken."""
        calls, marks = self._calls, _clear_marks()
        if marks is None:
            return chain.from_iterable(self._slices(lambda _mark: 0))
        if len(calls) > black_box.MAX_MARKS:
            return chain.from_iterable(self._slices(marks.write))
        self._current = iter(calls)
        return compress(self._current, map(marks.write, repeat(_MARK)))  # in C: 20 to 50 ns for each

    def _slices(self, write: Callable[[bytes], int]) -> Iterator[Iterator[Any]]:
        calls = self._calls
        step = _calls_per_mark(len(calls))
        for first in range(0, len(calls), step):
            if self.stopped:
                return
            write(_MARK)
            self._current = iter(calls[first : first + step])
            yield self._current

    def stop(self) -> None:
        """Begin no further call."""
        self.stopped = True
        self._current.__setstate__(len(self._calls))  # the iterator of a list or range can be set to its end


def forget_in_forked_child() -> None:
    """Begin no further call in this process, which a call has forked. The remaining calls are the worker's."""
    global _marks, black_box_fd  # noqa: PLW0603  they are the worker's
    _marks = black_box_fd = None
    if _run is not None:
        _run.stop()


def _clear_marks() -> mmap | None:
    """Remove all marks, and return the mapping that they are written to; None: there is none."""
    global _marks  # noqa: PLW0603  once per worker
    if _marks is None and black_box_fd is not None:
        with suppress(OSError, ValueError):
            _marks = black_box.map_marks(black_box_fd)
    if _marks is not None:
        black_box.clear_marks(_marks)
    return _marks


def _calls_per_mark(count: int) -> int:
    """Return the number of calls from one mark to the next. count: the calls of the chunk."""
    return 1 if count <= black_box.MAX_MARKS else -(-count // _MARKS_OF_MANY)


def calls_under_way(marks: int, count: int) -> tuple[int, int] | None:
    """Return the first of the calls that were under way, and the end of them, counted from 0; None: it is not known.

    marks: the number of marks in the worker's black box. count: the calls of the chunk.
    """
    step = _calls_per_mark(count)
    first = (marks - 1) * step
    return (first, min(first + step, count)) if 0 <= first < count else None


def call_each(function: Callable[..., Any], chunk: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Return the results in order; the first exception ends the chunk, as in the standard library."""
    global _run  # noqa: PLW0603  a worker does one thing at a time
    _run = _Run(chunk)
    try:
        return [function(*arguments) for arguments in _run.calls()]
    finally:
        _run = None
        _clear_marks()


def call_all(function: Buffer, calls: Sequence[Buffer], starred: bool) -> _Outcome:
    """Make every call of a chunk that the pool has formed. The caller of `map` must not notice that there are chunks.

    function, calls: payloads of the function, pickled once for the whole map, and of the calls of this chunk.
    starred: each call is a tuple of arguments; otherwise it is the one argument.

    Returns:
        The payload of the results before the first failure, or a tuple with their list, if they share resources with
        the host; the payload of that failure, or None; and the seconds that the calls took. The calls after a failure
        are made as well, as they would be if each call were a task.
    """
    with rebuild_guard.during(rebuild_guard.CALL):
        function_ = payload.loads([function])
        _clear_marks()
        calls_, starred = load_calls(calls, starred)
    results: list[Any] = []
    began = time.perf_counter()
    failure = _make_calls(function_, calls_, starred, results)
    took = time.perf_counter() - began
    pickled: OutOfBandPickle | None = None
    try:
        pickled = OutOfBandPickle(results, shared_main)
    except Exception as error:
        exception_chains.drop_tracebacks(error)
    if pickled is None:  # outside of the except block, so that the traceback is only about the result that fails
        return *_dump_up_to_failure(results, failure), took
    if picklers.shared_resources:
        # The shared resources exist as long as this worker, and the caller of `map` may be slow to take the results.
        # So the host rebuilds these as soon as they arrive.
        picklers.close_unfetched(picklers.pop_shared_resources())
        return (results,), failure, took
    buffers: list[Any] = pickled.buffers()
    if pickled.mentions(payload.CLASS_BY_VALUE):
        buffers[0] = bytes(buffers[0])  # the search for classes of the host's takes bytes only
    return buffers, failure, took


def load_calls(calls: Sequence[Buffer], starred: bool) -> tuple[Sequence[Any], bool]:
    """Return the calls of a chunk, and whether each is a tuple. One that cannot be unpickled raises its error later.

    Raises:
        BaseException: none of them can be unpickled.
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


def _make_calls(function: Any, calls: Sequence[Any], starred: bool, results: list[Any]) -> list[Buffer] | None:
    """Make all calls, append the results before the first failure, and return the payload of that failure."""
    global _run  # noqa: PLW0603  a worker does one thing at a time
    run = _run = _Run(calls)
    failure: list[Buffer] | None = None
    pending = starmap(function, run.calls()) if starred else map(function, run.calls())
    made, count = 0, len(calls)
    while made < count:
        new: list[Any] = [] if made else results
        try:
            new.extend(pending)  # which appends result by result, so those before a failure are there
            if made + len(new) < count or run.stopped:
                raise StopIteration  # the function has raised it, and `extend` took it for the end
        except BaseException as error:
            if run.stopped:
                raise  # up to the loop, where this process exits: it is a forked copy, and not the worker
            if failure is None:
                failure = tracebacks.dump_error(error, shared_main)
            else:
                exception_chains.drop_tracebacks(error)
        made += len(new) + 1  # with the call that failed; if none has, this was the last round
    _run = None
    _clear_marks()
    return failure


def _dump_up_to_failure(results: list[Any], failure: list[Buffer] | None) -> tuple[list[Buffer], list[Buffer] | None]:
    """Return the payload of the results before the first that cannot be pickled, and the payload of its error.

    failure: what to return as the second if all results turn out to be picklable this time.
    """
    for index, result in enumerate(results):
        try:
            payload.dumps(result, shared_main)
        except Exception as error:
            return payload.dumps(results[:index], shared_main), tracebacks.dump_error(error, shared_main)
    try:
        return payload.dumps(results, shared_main), failure
    except Exception as error:  # each of them can be pickled, but not all of them together
        return payload.dumps([], shared_main), tracebacks.dump_error(error, shared_main)
