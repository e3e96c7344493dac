"""Runs the generator of a `stream` and sends what it yields, no more than the reader has room for.

Called in workers, as the function of a task, on the worker's thread; no worker loads it before. `loop.streams` is the
host's end. What is yielded is pickled at once, because the generator may go on to change it. Items that come quickly
share a frame: one is sent when the first of its items was made 1 ms ago. If the generator pauses then, a thread sends
what is held after 5 ms. It exists only while a task streams items that quickly.

The worker's loop keeps what the host says (`Loop.stream_orders`): that there is room for more items, or that nobody
reads any more. It may say so before the task begins.
"""

from __future__ import annotations

import _pickle
import _thread
import os
import time
from collections import deque
from contextlib import suppress

from pidfdpool import checks
from pidfdpool.process import hygiene, native
from pidfdpool.serialization import payload
from pidfdpool.transport import framing
from pidfdpool.typed import Protocol
from pidfdpool.worker import chunk, context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from pidfdpool.transport.framing import Buffer, Frame

TOGETHER = 0.001  # seconds; items made within this time share a frame
HELD = 0.005  # seconds after which a thread sends what is held
LARGE = 1 << 16  # bytes of a frame that waits for no further item
MOST_BYTES = 1 << 24  # that the reader may still have to take


class Loop(Protocol):
    """What a stream needs of the worker's loop."""

    stream_orders: deque[Frame]

    def send_items(self, pieces: list[Buffer]) -> None:
        """Send a frame. From any thread."""

    def read_orders(self, *, wait: bool) -> None:
        """Read the channel. wait: until there is something."""


def run(function: Callable[..., Iterable[Any]], arguments: tuple[Any, ...], room: int) -> None:
    """Send each item of function(*arguments), until the reader wants no more. room: items, before the first order.

    Raises:
        TypeError: the function returns something that is not iterable.
        RuntimeError: this is no worker.
    """
    loop: Any = context.loop()
    if loop is None:
        raise RuntimeError("a stream runs in a worker only")
    items = checks.iterator(function, function(*arguments))
    sender = Sender(loop, context.running_task(), room)
    try:
        while not sender.unwanted:
            try:
                item = next(items)
            except StopIteration:
                break
            sender.put(item)
            del item
    finally:
        sender.end()
        close = getattr(items, "close", None)
        if close is not None:
            close()


class Sender:
    """Sends the items of one stream. The worker's thread calls the methods without an underscore.

    Attributes:
        unwanted: nobody reads any more.
    """

    def __init__(self, loop: Loop, task: int, room: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.unwanted = False
        self._loop = loop
        self._task = task
        self._clock = clock
        self._room = room  # items that may be sent before the next order
        self._taken = 0  # items that the reader has taken, as far as it has told
        self._sizes: deque[int] = deque()  # of the items that were sent, and that the reader has not taken
        self._size = 0  # bytes of all these
        self._pid = os.getpid()
        self._lock = native.lock()  # guards what follows
        self._held: list[bytes] = []
        self._held_size = 0
        self._held_since = 0.0
        self._last = float("-inf")  # when the last item was made
        self._thread: _FlushThread | None = None

    def put(self, item: object) -> None:
        """Send an item, soon. If the reader has no room for another one, wait until it has.

        Raises:
            Exception: the item cannot be pickled.
            EOFError, BrokenPipeError, ConnectionResetError: the host is gone.
        """
        buffers = payload.dumps(item, chunk.shared_main)
        if os.getpid() != self._pid:  # the generator has forked and yields in both; the worker's thread has the lock
            os._exit(0)
        size = sum(map(len, buffers))
        with self._lock:
            now = self._clock()
            pauses, self._last = now - self._last >= TOGETHER, now
            if len(buffers) > 1 or size >= LARGE:
                self._send_held()
                self._send(buffers, together=False)
                held = False
            else:
                if not self._held:
                    self._held_since = now
                self._held.append(bytes(buffers[0]))
                self._held_size += size
                held = not (pauses or self._held_size >= LARGE or now - self._held_since >= TOGETHER)
                if held:
                    self._thread = self._thread or _FlushThread(self._flush)
                    self._thread.wake()
                else:
                    self._send_held()
        self._room -= 1
        self._sizes.append(size)
        self._size += size
        if held and self._room > 0 and self._size < MOST_BYTES:
            return
        self._loop.read_orders(wait=False)
        self._obey()
        while not self.unwanted and (self._room <= 0 or self._size >= MOST_BYTES):
            with self._lock:
                self._send_held()
            self._loop.read_orders(wait=True)
            self._obey()

    def end(self) -> None:
        """Send what is held, and end the thread. If the host is gone, the loop will notice."""
        with self._lock, suppress(OSError):
            if not self.unwanted:
                self._send_held()
            self._held = []
        if self._thread is not None:
            self._thread.end()

    def _obey(self) -> None:
        """Take note of what the host has said."""
        while self._loop.stream_orders:
            order = self._loop.stream_orders.popleft()
            if order.value != self._task:
                continue  # it came too late for an earlier stream
            if order.slot == framing.STREAM_END:
                self.unwanted = True
            else:
                self._note_taken(order.generation)

    def _note_taken(self, total: int) -> None:
        """Make room for what the reader has taken. It may tell the same twice, and an earlier number late."""
        more = (total - self._taken) & framing.COUNT_MASK
        if more <= framing.COUNT_MASK >> 1:  # otherwise it is an earlier one
            more = min(more, len(self._sizes))  # a reader that was interrupted may have counted an item twice
            self._taken += more
            self._room += more
            self._size -= sum(self._sizes.popleft() for _ in range(more))

    def _send_held(self) -> None:
        """Send what is held in one frame. The caller has the lock."""
        held, self._held, self._held_size = self._held, [], 0
        if held:
            self._send([_pickle.dumps(held, 5)], together=True)

    def _send(self, buffers: list[Buffer], *, together: bool) -> None:
        self._loop.send_items(framing.encode(framing.ITEMS, int(together), 0, self._task, buffers))

    def _flush(self) -> bool:
        """Send what is held for long; return whether something may be held the next time. In the thread."""
        with self._lock, suppress(OSError):  # the host is gone; the worker's thread will notice
            if not self._held:
                assert self._thread is not None
                self._thread.sleeps = True
                return False
            if self._clock() - self._held_since >= TOGETHER:
                self._send_held()
        return True


class _FlushThread:
    """Calls a function every few milliseconds, as long as it says that it will be needed again.

    The thread blocks all signals, so that they interrupt what the worker's thread waits for.

    Attributes:
        sleeps: until `wake`. It is read and written under a lock of the owner's.
    """

    def __init__(self, flush: Callable[[], bool]) -> None:
        """flush: returns whether to call it again. If not, it has set `sleeps`."""
        self.sleeps = True
        self._flush = flush
        self._ended = False
        self._awake, self._stop, self._over = (_thread.allocate_lock() for _ in range(3))
        for each in (self._awake, self._stop, self._over):
            each.acquire()
        with hygiene.signals_blocked():
            _thread.start_new_thread(self._run, ())

    def wake(self) -> None:
        """Have the function called after a few milliseconds. With the owner's lock."""
        if self.sleeps:
            self.sleeps = False
            self._awake.release()

    def end(self) -> None:
        """End the thread, and wait for that. Without the owner's lock, and not beside `wake`."""
        self._ended = True
        self._stop.release()
        self.wake()
        self._over.acquire()

    def _run(self) -> None:
        try:
            self._awake.acquire()
            while not self._stop.acquire(timeout=HELD):
                if not self._flush() and not self._ended:  # `end` sets that before it looks whether this sleeps
                    self._awake.acquire()
        finally:
            self._over.release()
