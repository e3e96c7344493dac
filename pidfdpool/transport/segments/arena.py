"""All shared memory that a host has for one pool: segments that are found, made, given back and let go of.

Any thread takes, the pool thread lets go. Giving back is for any thread at any point, finalizers and signal handlers
included, so it takes no lock: what comes back waits in a queue until somebody takes, or looks for what is idle.

A segment is free, in use, or *held*: a result lies in it whose views somebody keeps. Free and held ones make room
where the bound would be passed. A held one is then only forgotten: its memory has become the holder's, and goes with
it.

What a process is forked with is not used again (`forked`): the child has it mapped, too, and may be looking at it.
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

CALL, RESULT = 0, 1  # what a segment is for: who writes and who reads it is settled when it is made

MOST = 64  # segments at a time, because each costs the host a descriptor
RECENT = 0.1  # seconds within which a segment that was used is about to be used again, and makes no room for others
IDLE = 5.0  # seconds after which a segment that nobody used is let go of: a burst that comes again finds it there

_numbers = itertools.count(1)  # never used twice in a process


class Segment:
    """One memory file of the host's. What the host writes to it, or reads of it, it does through `shared`."""

    __slots__ = ("_fd", "forks", "free_since", "held", "number", "readers", "role", "shared", "size", "spoilt")

    def __init__(self, role: int, size: int) -> None:
        """Make it.

        Raises:
            OSError: see `memory.create` and `memory.map_file`.
        """
        self._fd = -1
        self.role = role
        self.size = size
        self.number = next(_numbers)
        self.readers = 0  # workers that were told of what is in it and have not answered
        self.spoilt = False  # somebody may be looking at it who will not say when that is over
        self.held = False
        self.forks = 0  # how often the host had forked by then
        self.free_since = 0.0
        self._fd = memory.create(size)
        self.shared: memory.Mapping | None = memory.map_file(self._fd, size, memory.SHARED)
        if role == CALL:
            memory.populate(self.shared)

    def fileno(self) -> int:
        """Return the descriptor; -1 once closed."""
        return self._fd

    def duplicate(self) -> int:
        """Return another descriptor of it, close-on-exec and above 2, which is the caller's.

        Raises:
            OSError: no descriptor is left.
        """
        return native.duplicate(self._fd)

    def close(self) -> None:
        """Let go of it. The memory is free when nobody has it mapped any more. Idempotent."""
        fd, self._fd = self._fd, -1
        self.shared = None
        if fd >= 0:
            native.close(fd)

    __del__ = close


class Arena:
    """The segments of one pool. Thread-safe; see the module about forks and interruptions."""

    def __init__(self, limit: int, wake: Callable[[], object] = lambda: None) -> None:
        """limit: bytes at most, all segments together. wake: ends the pool thread's sleep; from any thread."""
        self.limit = limit
        self.used = 0  # bytes
        self.let_go: set[int] = set()  # numbers of those that workers may still have mapped; with the pool's lock
        self._wake = wake
        self._lock = native.reentrant_lock()
        self.segments: dict[int, Segment] = {}  # by number
        self._free: tuple[list[Segment], list[Segment]] = [], []  # by role; the last one used is the last one
        self._returned: deque[Segment] = deque()
        self._unattended = True  # nobody will look for what comes back, unless the pool thread is woken
        self._forks = 0
        self._closed = False

    def __len__(self) -> int:
        return len(self.segments)

    def take(self, role: int, size: int) -> Segment | None:
        """Return a free segment for so many bytes, whose memory has been used before; None: there is none."""
        if self._lock._is_owned():
            return None  # a signal handler or a finalizer, in the middle of this
        with self._lock:
            self._take_back()
            free = self._free[role]
            for index in range(len(free) - 1, -1, -1):
                if size <= free[index].size <= 2 * size + memory.PAGE:
                    return free.pop(index)
            return None

    def make(self, role: int, size: int) -> Segment | None:
        """Return a new segment for so many bytes; None: the bound, or what the system has, does not allow it."""
        size = rounded(size)
        if self._lock._is_owned():
            return None
        with self._lock:
            self._take_back()
            if self._closed or not self._make_room(size):
                return None
            self.used += size  # the memory is had without the lock, because that takes long
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

    def provide(self, role: int, size: int) -> None:
        """Have a segment for so many bytes ready to be taken."""
        segment = self.take(role, size) or self.make(role, size)
        if segment is not None:
            self.give_back(segment)

    def give_back(self, segment: Segment) -> None:
        """Have a segment used again, or let go of if that is not safe. Any thread, at any point; takes no lock."""
        if self._closed:
            segment.close()
            return
        self._returned.append(segment)
        if self._unattended:
            self._unattended = False
            self._wake()

    def hold(self, segment: Segment, held: set[int]) -> Callable[[], None]:
        """Note that a result in it is in the user's hands; return what to call when it is not any more.

        held: its number is in there for as long.
        """
        segment.held = True
        segment.forks = self._forks
        held.add(segment.number)

        def release() -> None:
            segment.held = False
            held.discard(segment.number)
            if segment.forks != self._forks:
                segment.spoilt = True
            self.give_back(segment)

        return release

    # ---- for the pool thread -------------------------------------------------------------------------------

    def rest(self, now: float) -> float | None:
        """Let go of what is idle; return when to come again, or None: when `wake` was called."""
        with self._lock:
            self._unattended = True  # first: what comes back from now on wakes the caller
            self._take_back()
            earliest: float | None = None
            for free in self._free:
                for segment in [segment for segment in free if segment.free_since + IDLE <= now]:
                    self._drop(segment)
                for segment in free:
                    due = segment.free_since + IDLE
                    earliest = due if earliest is None else min(due, earliest)
            if earliest is not None:
                self._unattended = False
            return earliest

    def close(self) -> None:
        """Let go of everything. What is looked at stays as it is for as long as it is."""
        with self._lock:
            self._closed = True
            self._take_back()
            for segment in list(self.segments.values()):
                self._forget(segment)
            for free in self._free:
                free.clear()

    # ---- forks ---------------------------------------------------------------------------------------------

    def forked(self) -> None:
        """Use nothing again that is looked at now. In a process that has forked, which may be at any point."""
        self._forks += 1

    def abandon_in_forked_child(self) -> None:
        """Let go of the copies in a forked child. Locks may have been copied while held."""
        self._closed = True
        self._lock = native.reentrant_lock()
        self._wake = lambda: None
        for segment in list(self.segments.values()):
            segment.close()
        self.segments.clear()

    # ---- with the lock -------------------------------------------------------------------------------------

    def _take_back(self) -> None:
        while self._returned:
            segment = self._returned.popleft()
            if self.segments.get(segment.number) is not segment:
                segment.close()  # it was forgotten while it was in use
            elif segment.spoilt or segment.readers or self._closed:
                self._forget(segment)
            else:
                segment.free_since = time.monotonic()
                self._free[segment.role].append(segment)

    def _make_room(self, size: int) -> bool:
        """Let go of free and held segments until there is room for a new one; return whether there is."""
        if size > self.limit:
            return False
        while self.used + size > self.limit or len(self.segments) >= MOST:
            free = min((free[0] for free in self._free if free), key=lambda one: one.free_since, default=None)
            if free is not None and free.free_since + RECENT <= time.monotonic():
                self._drop(free)
                continue
            held = next((segment for segment in self.segments.values() if segment.held), None)
            if held is None:
                return False
            self._forget(held)
        return True

    def _drop(self, segment: Segment) -> None:
        """Free the memory of a segment that nobody looks at, though workers have it mapped."""
        self._free[segment.role].remove(segment)
        if segment.shared is not None:
            memory.drop_pages(segment.shared)
        self._forget(segment)

    def _forget(self, segment: Segment) -> None:
        """Let go of a segment. Its memory is free when nobody has it mapped any more."""
        del self.segments[segment.number]
        self.used -= segment.size
        segment.close()
        self.let_go.add(segment.number)


def rounded(size: int) -> int:
    """Return the size of a segment for so many bytes: whole pages, and an eighth of the power of two below it.

    So payloads of about the same size share segments, and no more than an eighth of the memory is wasted.
    """
    step = max(memory.PAGE, 1 << max(0, size.bit_length() - 4))
    return -(-size // step) * step
