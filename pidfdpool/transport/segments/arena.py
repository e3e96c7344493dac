"""All shared memory that a host has for one pool: its segments are allocated, reused, released and freed here.

Any thread takes segments; the pool thread frees idle ones. A segment may be released on any thread at any point, also
in finalizers and signal handlers, so `release` takes no lock: it puts the segment into a queue, which is emptied when
somebody takes a segment or looks for idle ones.

A segment is free, in use, or *held*: it contains a result, and the user's program has views of it. If the limit would
be exceeded, free and held segments make room. A held one is then only forgotten: its memory belongs to the holder,
and is freed when the holder drops it.

A segment that is in use while the process forks is not used again (`note_fork`): the child has it mapped, too, and
may be reading it.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from contextlib import suppress

from pidfdpool.process import native
from pidfdpool.transport.segments import memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CALL, RESULT = 0, 1  # what a segment is for; this decides who writes and who reads it, and never changes

MAX_SEGMENTS = 64  # segments at a time, because each one costs the host a descriptor
REUSE_WINDOW = 0.1  # seconds; a segment that was used so recently will soon be used again, and does not make room
IDLE_TIME = 5.0  # seconds; a segment that was not used for so long is freed; a burst that repeats sooner finds it

_numbers = itertools.count(1)  # a number is never used twice in a process


class Segment:
    """One memory file of the host's. The host writes and reads it through `shared`."""

    __slots__ = (
        "_fd",
        "forks_before",
        "free_since",
        "held",
        "not_reusable",
        "number",
        "readers",
        "role",
        "shared",
        "size",
    )

    def __init__(self, role: int, size: int) -> None:
        """Create it.

        Raises:
            OSError: see `memory.create` and `memory.map_file`.
        """
        self._fd = -1
        self.role: int = role
        self.size: int = size
        self.number: int = next(_numbers)
        self.readers: int = 0  # workers that were told to read it and have not answered
        self.not_reusable: bool = False  # somebody may be reading it, and will not report the end
        self.held: bool = False
        self.forks_before: int = 0  # how often the host had forked when it was first held
        self.free_since: float = 0.0
        self._fd = memory.create(size)
        self.shared: memory.Mapping | None = memory.map_file(self._fd, size, memory.SHARED)
        if role == CALL:
            memory.populate(self.shared)

    def fileno(self) -> int:
        """Return the descriptor; -1 once closed."""
        return self._fd

    def duplicate(self) -> int:
        """Return another descriptor of it, close-on-exec and above 2, which the caller owns.

        Raises:
            OSError: no descriptor is left.
        """
        return native.duplicate(self._fd)

    def close(self) -> None:
        """Close and unmap it. Its memory is free when nobody has it mapped any more. Idempotent."""
        fd, self._fd = self._fd, -1
        self.shared = None
        if fd >= 0:
            native.close(fd)

    __del__ = close


class Arena:
    """The segments of one pool. Thread-safe; for forks and interruptions see the module."""

    def __init__(self, limit: int, wake: Callable[[], object] = lambda: None) -> None:
        """limit: bytes, of all segments together. wake: ends the pool thread's sleep; called on any thread."""
        self.limit = limit
        self.used: int = 0  # bytes
        # numbers of freed segments that workers may still have mapped; guarded by the pool's lock
        self.to_unmap: set[int] = set()
        self._wake = wake
        self._lock = native.reentrant_lock()
        self.segments: dict[int, Segment] = {}  # by number
        self._free: tuple[list[Segment], list[Segment]] = [], []  # by role; the one used last is at the end
        self._released: deque[Segment] = deque()
        self._wake_on_release = True  # nobody will look at what is released unless the pool thread is woken
        self._fork_count = 0
        self._closed = False

    def __len__(self) -> int:
        return len(self.segments)

    def take_free(self, role: int, size: int) -> Segment | None:
        """Return a free segment of at least `size` bytes, whose memory has been used before; None: there is none."""
        if self._lock._is_owned():
            return None  # a signal handler or a finalizer, while this thread holds the lock
        with self._lock:
            self._collect_released()
            return _taken_from(self._free[role], size)

    def allocate(self, role: int, size: int) -> Segment | None:
        """Return a new segment for `size` bytes; None: the limit or the system does not allow it."""
        size = rounded_size(size)
        if self._lock._is_owned():
            return None
        with self._lock:
            self._collect_released()
            if self._closed or not self._make_room(size):
                return None
            self.used += size  # the memory itself is allocated without the lock, because this takes long
        segment: Segment | None = None
        try:
            with suppress(OSError):
                segment = Segment(role, size)
        finally:
            with self._lock:
                if segment is None or self._closed:
                    self.used -= size
                else:
                    self.segments[segment.number] = segment
        return segment if segment is not None and segment.number in self.segments else None

    def prepare(self, role: int, size: int) -> None:
        """Make sure that a segment for `size` bytes can be taken."""
        segment = self.take_free(role, size) or self.allocate(role, size)
        if segment is not None:
            self.release(segment)

    def release(self, segment: Segment) -> None:
        """Give a segment back for reuse; if that is not safe it is freed. Any thread, at any point; takes no lock."""
        if self._closed:
            segment.close()
            return
        self._released.append(segment)
        if self._wake_on_release:
            self._wake_on_release = False
            self._wake()

    def hold(self, segment: Segment, held: set[int]) -> Callable[[], None]:
        """Record that a result in it is in the user's hands; return a function to call when this ends.

        held: a set that contains the segment's number for that time.
        """
        segment.held = True
        segment.forks_before = self._fork_count
        held.add(segment.number)

        def release() -> None:
            segment.held = False
            held.discard(segment.number)
            if segment.forks_before != self._fork_count:
                segment.not_reusable = True
            self.release(segment)

        return release

    # ---- for the pool thread -------------------------------------------------------------------------------

    def free_idle(self, now: float) -> float | None:
        """Free what is idle; return when to come again, or None: when `wake` was called."""
        with self._lock:
            self._wake_on_release = True  # first, so that whatever is released from now on wakes the caller
            self._collect_released()
            earliest: float | None = None
            for free in self._free:
                for segment in [segment for segment in free if segment.free_since + IDLE_TIME <= now]:
                    self._free_memory(segment)
                for segment in free:
                    due = segment.free_since + IDLE_TIME
                    earliest = due if earliest is None else min(due, earliest)
            if earliest is not None:
                self._wake_on_release = False
            return earliest

    def close(self) -> None:
        """Free everything. What somebody has a view of lives as long as the view."""
        with self._lock:
            self._closed = True
            self._collect_released()
            for segment in list(self.segments.values()):
                self._forget(segment)
            for free in self._free:
                free.clear()

    # ---- forks ---------------------------------------------------------------------------------------------

    def note_fork(self) -> None:
        """Never reuse what is in use now. Called in a process that has forked, possibly at any point."""
        self._fork_count += 1

    def abandon_in_forked_child(self) -> None:
        """Close the copies in a forked child. Locks may have been copied while held."""
        self._closed = True
        self._lock = native.reentrant_lock()
        self._wake = lambda: None
        for segment in list(self.segments.values()):
            segment.close()
        self.segments.clear()

    # ---- with the lock -------------------------------------------------------------------------------------

    def _collect_released(self) -> None:
        while self._released:
            segment = self._released.popleft()
            if self.segments.get(segment.number) is not segment:
                segment.close()  # it was forgotten while it was in use
            elif segment.not_reusable or segment.readers or self._closed:
                self._forget(segment)
            else:
                segment.free_since = time.monotonic()
                self._free[segment.role].append(segment)

    def _make_room(self, size: int) -> bool:
        """Free free and held segments until a new one has room; return whether it has."""
        if size > self.limit:
            return False
        while self.used + size > self.limit or len(self.segments) >= MAX_SEGMENTS:
            free = min((free[0] for free in self._free if free), key=lambda one: one.free_since, default=None)
            if free is not None and free.free_since + REUSE_WINDOW <= time.monotonic():
                self._free_memory(free)
                continue
            held = next((segment for segment in self.segments.values() if segment.held), None)
            if held is None:
                return False
            self._forget(held)
        return True

    def _free_memory(self, segment: Segment) -> None:
        """Free the memory of a segment that nobody reads, although workers have it mapped."""
        self._free[segment.role].remove(segment)
        if segment.shared is not None:
            memory.drop_pages(segment.shared)
        self._forget(segment)

    def _forget(self, segment: Segment) -> None:
        """Remove a segment. Its memory is freed when nobody has it mapped any more."""
        del self.segments[segment.number]
        self.used -= segment.size
        segment.close()
        self.to_unmap.add(segment.number)


def _taken_from(free: list[Segment], size: int) -> Segment | None:
    """Remove the last of these segments that has room for `size` bytes and is not far too large, and return it."""
    for index in range(len(free) - 1, -1, -1):
        if size <= free[index].size <= 2 * size + memory.PAGE:
            return free.pop(index)
    return None


def rounded_size(size: int) -> int:
    """Return the size of a segment for `size` bytes: whole pages, in steps of an eighth of the power of two below.

    So payloads of about the same size share segments, and at most an eighth of the memory is wasted.
    """
    step = max(memory.PAGE, 1 << max(0, size.bit_length() - 4))
    return -(-size // step) * step
