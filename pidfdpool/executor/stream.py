"""`stream`: the items of a generator that runs in a worker, as they are made.

`Stream` is what users have, on the thread or in the event loop that reads. `Feed` is the recipient of the task: the
pool calls it, mostly in the pool thread. Payloads lie in the feed until the reader takes and unpickles them. They are
few, because the worker stops when the reader has not taken `buffersize` items (`worker.streaming`).
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from pidfdpool.errors import PayloadError
from pidfdpool.executor import lifecycle, stream_items
from pidfdpool.executor.arguments import checked_stream
from pidfdpool.executor.futures import Future
from pidfdpool.executor.stream_forms import StreamForms
from pidfdpool.executor.unsendable import describe_pickling_error
from pidfdpool.executor.wakeup import Wakeup
from pidfdpool.loop import held_arguments, streams
from pidfdpool.loop.task import nameable
from pidfdpool.process import locks
from pidfdpool.transport import framing
from pidfdpool.typed import Protocol
from pidfdpool.worker import streaming

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pidfdpool.executor.open_maps import Map
    from pidfdpool.loop.held_arguments import Call
    from pidfdpool.loop.pool import Pool
    from pidfdpool.loop.task import WorkerName
    from pidfdpool.scheduler.policy import Policy
    from pidfdpool.transport.framing import Buffer

T = TypeVar("T")

_MOST_BYTES = streaming.MOST_BYTES // 2  # taken, after which the worker is told
_ONE_READER = "a stream is for one reader, and somebody else reads it at this moment"


class Owner(Protocol):
    """The executor of a stream, or a view of one."""

    _policy: Policy

    def _register_map(self, adaptive_map: Map) -> tuple[int, Pool]:
        """Register what is to end before the executor does. Return the number of workers, and the pool."""


class Feed:
    """What has come of one stream, and its end. The recipient of its task (`loop.task.Recipient`). Thread-safe.

    Attributes:
        payloads: those that the reader has not taken, in order, each with whether it is a list of items. In the place
            of the first list there is a deque with the payloads of its items, while the reader takes these.
        ended: the task is over; nothing more comes.
        error: what it failed of; set before `ended`.
        reader: the thread that has made it, or has read last.
    """

    def __init__(self) -> None:
        self.payloads: deque[tuple[Sequence[Buffer], bool] | deque[tuple[bytes]]] = deque()
        self.ended = False
        self.error: BaseException | None = None
        self.reader = threading.get_ident()
        self.wakeup = Wakeup()  # for a reader in an event loop
        self._closed = False
        self._begun = False
        self._pool: Pool | None = None
        self._number = 0
        self._cancel_kills = False
        self._arrival: Future[None] | None = None  # what a reading thread waits for
        self._closing = locks.reentrant()

    def wait(self) -> None:
        """Wait until something has come, or nothing more will. In a thread that reads."""
        while not self.is_ready():
            pool = self._pool
            arrival: Future[None] = Future()
            if pool is not None:
                arrival._attach(pool, self._number, cancel_kills=False)
            self._arrival = arrival
            if self.is_ready():  # looked at after it was set: who adds something from now on finds it
                break
            arrival.result()

    def is_ready(self) -> bool:
        """Return whether `wait` would return at once."""
        return bool(self.payloads) or self.ended

    def tell_taken(self, total: int) -> None:
        """Tell the worker how many items the reader has taken so far. To tell it twice does no harm."""
        self._order(framing.STREAM_ROOM, total)

    def close(self, error: BaseException | None = None, *, keeps: bool = False) -> None:
        """Have the generator closed, or not begun. The reader gets nothing more, but for the error. Idempotent.

        keeps: the reader gets what has come, too.
        """
        lifecycle.detect_fork()
        with self._closing:
            if self._closed or self.ended:
                return
            self._closed = True
        self._end(error)
        if not keeps:
            self.payloads.clear()  # second: a thread that reads and finds nothing looks whether it is the end
        pool = self._pool
        if pool is None or pool.cancel(self._number, self):
            return
        if self._cancel_kills:
            pool.kill_task(self._number)
        else:
            self._order(framing.STREAM_END)

    def kill(self) -> bool:
        """Kill the worker, or cancel the task if no worker has begun it. False: it is over."""
        lifecycle.detect_fork()
        pool = self._pool
        if self.ended or pool is None:
            return False
        if not pool.cancel(self._number, self):
            pool.kill_task(self._number)
        return True

    def _order(self, kind: int, taken: int = 0) -> None:
        pool = self._pool
        if pool is not None:
            streams.order(pool.core, self._number, kind, taken)

    def _tell(self) -> None:
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival._resolve(None, None)
        self.wakeup.tell()

    def _end(self, error: BaseException | None) -> None:
        if not self.ended:
            self.error = error
            self.ended = True
        self._tell()

    # ---- for the pool: see `Recipient` and `loop.streams` --------------------------------------------------

    def take_payload(self, buffers: Sequence[Buffer], *, together: bool) -> None:
        """Take a pickled item, or a pickled list of pickled items."""
        if not self._closed:
            self.payloads.append((buffers, together))
            self._tell()

    def _attach(self, pool: Pool, number: int, cancel_kills: bool) -> None:
        self._pool, self._number, self._cancel_kills = pool, number, cancel_kills
        pool.note_observer()

    def _is_wanted(self) -> bool:
        return not self._closed

    def _begin(self) -> bool:
        self._begun = True
        return not self._closed

    def _note_attempt(self, _worker: WorkerName, _attempt: int, _at: float) -> None:
        """Do nothing: there is one attempt only."""

    def _has_callbacks(self) -> bool:
        return False

    def _is_observed(self) -> bool:
        return True

    def _mark_cancelled(self) -> bool:
        return not self._begun

    def _resolve(self, _result: object, error: BaseException | None) -> None:
        self._pool = None
        self._end(error)

    def _resolve_cancelled(self) -> None:
        self._resolve(None, CancelledError())

    def _fail_in_forked_child(self, error: BaseException) -> None:
        self._pool = self._arrival = None
        self._closing = locks.reentrant()
        self.wakeup = Wakeup()
        self.error, self.ended = error, True

    # ---- for the executor's end: see `open_maps.Map` -------------------------------------------------------

    def submit_rest(self, *, wait: bool = True) -> bool:  # noqa: ARG002
        """Do nothing: the generator runs already, as fast as it is read."""
        return True

    def stop_reading_here(self) -> None:
        """Close the stream if the thread that reads it is about to wait for the pool's end, or is gone."""
        reader = self.reader
        if reader == threading.get_ident() or reader not in {thread.ident for thread in threading.enumerate()}:
            error = RuntimeError("the executor was shut down before the generator of this stream had ended")
            self.close(error, keeps=True)

    def stop_submitting(self, failure: BaseException | None) -> None:
        """Close the stream. The reader gets `failure`."""
        self.close(failure)

    def forget_in_forked_child(self) -> None:
        """Do nothing: `_fail_in_forked_child` does it."""


class Stream(StreamForms[T]):
    """The items of a generator that runs in a worker. Made by `PidfdPoolExecutor.stream`.

    An iterator, and for asyncio an asynchronous iterator: `for item in stream`, or `async for item in stream`. It is
    for one reader. It ends when the generator does; what the generator raises is raised behind its last item, and so
    is what the pool has to tell (WorkerCrashed, TaskTimeout, TaskKilled).

    A reader that wants no more calls `close`, or leaves the `with` or `async with` block, or just forgets the stream
    (`break`). The generator is closed then, when it yields the next time. In a forked child the stream has ended.
    """

    def __init__(self, owner: Owner, feed: Feed, buffersize: int) -> None:
        self._owner: Owner | None = owner  # kept, because without its executor a pool ends
        self._feed = feed
        self._told_at = max(1, buffersize // 2)  # items taken
        self._taken = self._told = 0  # items, so far; and how many of them the worker was told of
        self._taken_bytes = 0  # since then
        self._is_read = False  # at this moment

    def __next__(self) -> T:
        """Return the next item, and wait for it if necessary.

        Raises:
            RuntimeError: somebody else reads at this moment.
        """
        if self._is_read:
            raise RuntimeError(_ONE_READER)
        try:  # no call comes before this and in `finally`, so no signal handler and no other thread does
            self._is_read = True
            if not self._prepare():
                self._feed.wait()
            return self._next(StopIteration)
        finally:
            self._is_read = False

    async def __anext__(self) -> T:
        """Return the next item, and wait for it without blocking the event loop. Raises as `__next__`."""
        if self._is_read:
            raise RuntimeError(_ONE_READER)
        try:
            self._is_read = True
            if not self._prepare():
                await self._feed.wakeup.wait(self._feed.is_ready)
            return self._next(StopAsyncIteration)
        finally:
            self._is_read = False

    def _prepare(self) -> bool:
        """Return whether there is something for `_next`. If not, tell the worker what was taken."""
        self._feed.reader = threading.get_ident()
        if self._feed.is_ready():
            return True
        self._tell_taken()
        return self._feed.is_ready()

    def _next(self, end: type[Exception]) -> T:
        """Return the item that has come, or raise what the stream ends with.

        A signal handler may raise anywhere in here, and the reader go on. So an item is taken away last, in one step,
        and counted before. If it is counted twice, there is a little more room than the reader has asked for.
        """
        payloads = self._feed.payloads
        try:
            first = payloads[0]
            if type(first) is tuple and first[1]:
                first = payloads[0] = deque(stream_items.split(first[0]))
            payload: Sequence[Buffer] | None = first[0]
        except PayloadError:
            payloads.popleft()
            raise
        except IndexError:  # there is nothing
            payload = None
        if payload is None:
            self._raise_end(end)
        try:
            item: T = stream_items.rebuilt(payload)
        except PayloadError:
            self._take(first, payload)
            raise
        self._take(first, payload)
        return item

    def _take(self, first: object, payload: Sequence[Buffer]) -> None:
        """Take an item away. first: what is in front of all that has come, and begins with the item's payload."""
        self._taken += 1
        self._taken_bytes += sum(map(len, payload))
        if self._taken - self._told >= self._told_at or self._taken_bytes >= _MOST_BYTES:
            self._tell_taken()
        with suppress(IndexError):  # the stream was closed meanwhile
            (first if type(first) is deque and len(first) > 1 else self._feed.payloads).popleft()

    def _raise_end(self, end: type[Exception]) -> NoReturn:
        """Raise what the stream ends with."""
        feed = self._feed
        self._owner = None
        error, feed.error = feed.error, None
        try:
            raise end if error is None else error
        finally:
            del error  # its traceback holds this frame

    def _tell_taken(self) -> None:
        taken = self._taken
        if taken != self._told and not self._feed.ended:
            self._feed.tell_taken(taken)
            self._told, self._taken_bytes = taken, 0  # afterwards: a handler that raises has it told again

    def close(self) -> None:
        """End the stream: drop what has come, and have the generator closed. Does not wait for that. Idempotent."""
        feed, self._owner = self._feed, None
        feed.close()
        feed.payloads.clear()  # the generator may have ended before
        feed.error = None

    def kill(self) -> bool:
        """Kill the worker that runs the generator. The reader gets TaskKilled. False: the stream has ended before."""
        return self._feed.kill()

    def __del__(self) -> None:
        feed = self.__dict__.get("_feed")  # there is none if the constructor has failed
        if feed is not None and not feed.ended:  # at the interpreter's end it has, and modules are gone
            feed.close()

    def __repr__(self) -> str:
        """Show whether it has ended, and how many payloads wait for the reader."""
        state = "ended" if self._feed.ended else "open"
        return f"<{type(self).__name__} {state}, {len(self._feed.payloads)} waiting>"


def open_stream(
    owner: Owner, function: Callable[..., Any], arguments: tuple[Any, ...], buffersize: int
) -> Stream[Any]:
    """Submit a call that streams, and return the `Stream`.

    Raises:
        TypeError, ValueError: the function is not callable, or buffersize is no number of items.
        PoolBroken, QueueFull, RuntimeError: as `PidfdPoolExecutor.submit`.
    """
    room = checked_stream(function, buffersize)
    feed = Feed()
    _, pool = owner._register_map(feed)
    run: Callable[..., None] = streaming.run
    named = function  # what runs, for messages
    if owner._policy.context_vars:
        from pidfdpool.executor.context_vars import in_context

        named = in_context(function, owner._policy.context_vars)
        run = in_context(run, owner._policy.context_vars)
    call: Call = (run, (function, arguments, room), {})
    refused: Exception | None = None
    try:
        buffers = pool.leases.pickled(call, pool.recipe.shared_main)
    except Exception as error:  # not BaseException: Ctrl-C does not concern the call
        refused = describe_pickling_error(error, named, arguments, {}, pool.recipe.shared_main)
    if refused is not None:
        try:
            raise refused  # here, where it keeps the cause that tells what was wrong
        finally:
            del refused  # its traceback holds this frame
    # What the reader has is gone, so a stream is not tried again.
    policy = owner._policy.refined({"retries": 0})
    held = held_arguments.held((function, arguments, {}), buffers)
    pool.submit(feed, buffers, nameable(function), policy, held, wait=not _in_event_loop())
    return Stream(owner, feed, room)


def _in_event_loop() -> bool:
    import asyncio

    return asyncio._get_running_loop() is not None
