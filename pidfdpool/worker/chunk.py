"""The tasks that `map` submits: one function over a run of calls. Run in workers; the host asks for their names."""

from __future__ import annotations

import time
from itertools import starmap
from operator import length_hint

from pidfdpool import chains, payload, rebuilding
from pidfdpool.segments.apart import Apart
from pidfdpool.worker import tracebacks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _pickle import PickleBuffer
    from collections.abc import Callable, Sequence
    from typing import Any

    from pidfdpool.wire import Buffer

shared: payload.SharedMain | None = None  # what this worker has in common with the host; set by its loop


def call_each(function: Callable[..., Any], chunk: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Return the results in order; the first exception ends the chunk, as in the standard library."""
    return [function(*arguments) for arguments in chunk]


def call_all(
    function: Buffer, calls: Sequence[Buffer], starred: bool
) -> tuple[Sequence[Buffer | PickleBuffer], list[Buffer] | None, float]:
    """Make every call of a chunk whose size the pool has chosen, and so one that nobody must notice.

    function, calls: payloads: the function, pickled once for the whole map, and the calls of this chunk.
    starred: each call is a tuple of arguments; otherwise it is the one argument.

    Returns:
        The payload of the results up to the first failure; that failure, if there is one; and the seconds that the
        calls took. Those after a failure are made all the same, as they would be one by one.
    """
    with rebuilding.during(rebuilding.CALL):
        function_, calls_ = payload.loads([function]), payload.loads(calls)
    results: list[Any] = []
    began = time.perf_counter()
    failure = _make(function_, calls_, starred, results)
    took = time.perf_counter() - began
    apart: Apart | None = None
    try:
        apart = Apart(results, shared)
    except Exception as error:
        chains.drop_tracebacks(error)
    if apart is None:  # not in a handler: the traceback is to tell of the one result that does not pickle
        return *_what_pickles(results), took
    buffers: list[Any] = apart.buffers()
    if apart.mentions(payload.MADE_BY_VALUE):
        buffers[0] = bytes(buffers[0])  # what spares the host's classes looks at bytes only
    return buffers, failure, took


def call_all_of_script(
    function: Buffer, calls: Sequence[Buffer], starred: bool
) -> tuple[Sequence[Buffer | PickleBuffer], list[Buffer] | None, float]:
    """Do as `call_all`; such a chunk needs what running the host's script again makes."""
    return call_all(function, calls, starred)


def _make(function: Any, calls: Sequence[Any], starred: bool, results: list[Any]) -> list[Buffer] | None:
    """Append results up to the first failure, make the remaining calls, and return that failure."""
    failure: list[Buffer] | None = None
    waiting = iter(calls)
    pending = starmap(function, waiting) if starred else map(function, waiting)
    while True:
        try:
            # `extend` appends each result as it comes, so those before a failure are there.
            (results if failure is None else []).extend(pending)
            if failure is None and len(results) < len(calls):
                raise StopIteration  # as the function did, which looks like the end to everybody in between
        except BaseException as error:
            if failure is None:
                failure = tracebacks.told(error, shared)
            else:
                chains.drop_tracebacks(error)
        if not length_hint(waiting):
            return failure


def _what_pickles(results: list[Any]) -> tuple[list[Buffer], list[Buffer]]:
    """Return the payload of the results before the first that does not pickle, and why that one does not."""
    for index, result in enumerate(results):
        try:
            payload.dumps(result, shared)
        except Exception as error:
            return payload.dumps(results[:index], shared), tracebacks.told(error, shared)
    raise AssertionError("each result pickles and all of them together do not")
