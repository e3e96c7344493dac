"""Runs a chunk of calls of `map` so that each of them counts for itself: at a kill, a death, a failure, a deadline.

Called in workers, as the function of a task, on the worker's thread. When a call begins, and when it has a result,
that is written where the host can read it whatever becomes of this process (`transport.published`). So the host can
limit the time of each call, and a death costs the call that ran and no other.

A chunk may end early, and the host has the remaining calls made by others. It does so when results find no room any
more, when one of them is large or shares a resource with the host, when the host says so, when the deadline has
passed, and when this worker is to be replaced.
"""

from __future__ import annotations

import _pickle as pickle
import os
from itertools import islice
from time import monotonic_ns

from pidfdpool.serialization import payload, picklers
from pidfdpool.transport.published import ALLOWED, BEGUN, DATA, HALTED, STARTED, Ledger
from pidfdpool.worker import chunk, context, rebuild_guard, tracebacks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    from pidfdpool.transport.framing import Buffer

    # the ends and the data of the results that were published, the last result if it is not among them, which of the
    # calls raised, and the seconds that the calls took
    Outcome: TypeAlias = tuple[bytes, bytes, "Unpublished | Rebuilt | None", tuple[int, ...], float]

LARGE = 1 << 16  # bytes of a result, which is sooner sent than published
_SCALARS = frozenset({int, float, str, bytes, bool, type(None)})  # pickled in one way, whatever is registered
_NEVER = 1 << 63

_ledger: Ledger | None = None


class FailedCall:
    """Takes the place of a result: the payload of what the call raised."""

    def __init__(self, error: list[Buffer]) -> None:
        self.error: list[Buffer] = error


class Unpublished:
    """The payload of the last call's result, which is sent with the outcome.

    Resources that a result shares with the host exist as long as this worker does, and the caller of `map` may be
    slow to take results. So the host rebuilds such a result as soon as it arrives.
    """

    def __init__(self, data: pickle.PickleBuffer, *, shares: bool = False) -> None:
        self.data: Any = data
        self._shares = shares

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        return Rebuilt if self._shares else Unpublished, (self.data,)


class Rebuilt:
    """A last result that shares resources, in the host: itself, or why it cannot be rebuilt."""

    def __init__(self, data: Buffer) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        try:
            self.value = payload.load_result([data])
        except BaseException as error:
            self.error = error


def call_published(
    function: Buffer,
    calls: Sequence[Buffer],
    count: int,
    starred: bool,
    timeout: float | None = None,
    deadline: float | None = None,
) -> Outcome:
    """Make calls of a chunk, as many as can be published, and publish what each of them returns or raises.

    Args:
        function, calls, starred: as for `chunk.call_all`.
        count: the number of the calls.
        timeout: seconds that each of them may take, for `current_task`.
        deadline: the time.monotonic() from which on none is to begin.

    Raises:
        BaseException: the function or all calls cannot be unpickled; or the call under way was interrupted because it
            ran for too long.
    """
    task = context.running_task()
    ledger = _begin(task, count)
    with rebuild_guard.during(rebuild_guard.CALL):
        function_ = payload.loads([function])
        calls_, starred = chunk.load_calls(calls, starred)
    words = ledger.words
    until: Callable[[], float] | None = None
    if timeout is not None:
        seconds = timeout

        def until() -> float:
            return float(words[STARTED] / 1e9 + seconds)

    late_at = _NEVER if deadline is None else int(min(deadline * 1e9, _NEVER))  # which may be infinite before
    allowed = words[ALLOWED]
    if not 0 < allowed < count:  # 0 is any number, and so is what cannot be true
        allowed = count
    began = monotonic_ns()
    context.enter_chunk(until, ledger.end_early)
    try:
        made, last, failed = _make_calls(function_, islice(calls_, allowed), starred, ledger, task, late_at)
    finally:
        context.leave_chunk()
    took = (monotonic_ns() - began) / 1e9
    return *ledger.results(made), last, tuple(failed), took


def call_alone(function: Buffer, calls: Sequence[Buffer], starred: bool) -> tuple[Any, float]:
    """Make the only call of a chunk, which is a task like any other; return its result, and the seconds that it took.

    function, calls, starred: as for `chunk.call_all`.

    Raises:
        BaseException: what the call raises.
    """
    with rebuild_guard.during(rebuild_guard.CALL):
        function_ = payload.loads([function])
        calls_, starred = chunk.load_calls(calls, starred)
    began = monotonic_ns()
    result = function_(*calls_[0]) if starred else function_(calls_[0])
    return result, (monotonic_ns() - began) / 1e9


def _begin(task: int, count: int) -> Ledger:
    """Return the ledger for a chunk. If it cannot be shared, there is room in it for no result."""
    global _ledger  # noqa: PLW0603  one per worker
    if _ledger is None:
        _ledger = _shared()
        os.register_at_fork(after_in_child=_ledger.close)
    return _ledger if _ledger.begin(task, count) else Ledger(None)


def _shared() -> Ledger:
    try:
        return Ledger(chunk.black_box_fd)
    except (OSError, ValueError):
        return Ledger(None)


def _make_calls(
    function: Callable[..., Any], calls: Any, starred: bool, ledger: Ledger, task: int, late_at: int
) -> tuple[int, Unpublished | None, list[int]]:
    """Make calls until the chunk ends.

    Returns:
        How many results were published, the last result if it was not, and which calls raised.

    This is the hot path of a map under rules. It takes half a microsecond for each call, most of it for the pickle
    and the clock.
    """
    words, ends, memory, shared = ledger.words, ledger.ends, ledger.memory, chunk.shared_main
    dumps, clock, scalars = pickle.dumps, monotonic_ns, _SCALARS
    failed: list[int] = []
    data: Buffer
    at, made = DATA, 0
    for call in calls:
        now = clock()
        if now >= late_at:
            break
        words[STARTED] = now
        words[BEGUN] = made + 1
        # Read after BEGUN is written. The host writes this first, and then reads BEGUN.
        if words[HALTED] == task:
            words[BEGUN] = made
            break
        try:
            result = function(*call) if starred else function(call)
            if type(result) in scalars:
                data = dumps(result, 5)
            else:
                (data,) = payload.dumps(result, shared)
                if picklers.shared_resources:
                    return made, Unpublished(pickle.PickleBuffer(data), shares=True), failed
        except BaseException as error:
            if words[HALTED] == task:  # raises as well in a forked copy, where the ledger is closed
                raise
            failed.append(made)
            data = picklers.dumps(FailedCall(tracebacks.dump_error(error, shared)))
        result = None
        end = at + len(data)
        if len(data) > LARGE or (end > ledger.limit and not ledger.has_room(end)):
            return made, Unpublished(pickle.PickleBuffer(data)), failed
        memory[at:end] = data
        ends[made] = end - DATA
        at = end
        made += 1
    return made, None, failed
