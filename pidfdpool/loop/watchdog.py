"""Lets others read the workers' channels while the pool thread only looks, now and then, whether they do.

An answer that the pool thread reads costs a wake-up of that thread and two transfers of the interpreter's lock. Where
answers come one close upon the other, somebody else can take them as they come:

* an event loop whose coroutines await the results (`LoopReader`), in its own thread;
* threads that wait for one result after the other. Each of them leads (see `leader`) until its result is there. An
  answer that comes between two such waits would wake the pool thread, which then takes the channels just when the
  next wait begins. So these answers lie there until that wait, but only if nobody else could be waiting for them.

The pool thread decides on both, in a turn in which it is awake anyway. From then on the channels are *guarded*: the
pool thread does not watch them, waits for `TICK` at most, and looks whether anybody has read since its last look. If
nobody has, it takes the channels back. So nobody waits for long if the event loop is busy or blocked, if its loop has
stopped, or if the thread does not wait again; and an idle pool wakes once or twice, and then sleeps for good.

Who may sleep, while what is unread: at any time one of three is true. The pool thread watches the channels; or there
is a leader, who gives them back when it leaves, unless they are guarded then; or the pool thread's wait is one of
`TICK`. The last ends only when the pool thread itself has watched the channels again, after they were no longer
guarded. Whatever other threads do to end this earlier, such as `take_back`, only saves time. So it does no harm if
they are interrupted, or if two of them do it at once. It does no harm either, except to the speed, if the pool thread
and others watch at the same time.

Methods are for the pool thread, except where they say something else. Nothing here takes a lock.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from pidfdpool.loop import loop_reader
from pidfdpool.typed import Protocol

if TYPE_CHECKING:
    from pidfdpool.loop.loop_reader import LoopReader
    from pidfdpool.loop.outbox import Outbox
    from pidfdpool.loop.poller import Poller
    from pidfdpool.loop.task import Task

TICK = 0.003  # seconds between two looks
LOOKS = 2  # without a read between them, after which the pool thread takes the channels back
CLOSE = 0.005  # seconds: an event loop whose answers come as close as that may read them
GAP = 0.0003  # seconds between two waits of a thread that lets answers lie until the second
AGAIN = 0.005  # seconds within which the pool thread has to meet a leader twice before it lets answers lie
FEW = 32  # tasks; where there are more, answers do not lie
FEW_AWAITED = 8  # tasks; where there are more, event loops do not read: they would not be quicker, but held up
MANY_WAITING = 128  # tasks; where more wait for workers, event loops do not read
NEVER = float("-inf")  # a time
PAUSES = 0.1, 2.0  # seconds, first and longest, for which an event loop does not read after it was busy or blocked
MANY = 100  # reads after which an event loop is no longer believed to be busy or blocked


class _Pool(Protocol):
    """What the watchdog needs of its pool."""

    poller: Poller
    outbox: Outbox
    closed: bool
    tasks: dict[int, Task]

    @property
    def has_waiting(self) -> bool:
        """Whether tasks wait for a worker, or for room; or somebody for the pool's end."""


class Watchdog:
    """Who reads the channels of one pool while its thread only looks."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._poller = pool.poller
        self._ticks = False  # the pool thread's waits are short
        self._look_at = 0.0  # as all times here, in time.monotonic()'s seconds
        self._reads_seen = 0
        self._reads_before = 0
        self._in_vain = 0
        self._met_at = NEVER
        self.offered: LoopReader | None = None  # that of the event loop which has got a result in this turn
        self._offered_at = NEVER
        self._not_before = 0.0
        self._pause = PAUSES[0]

    # ---- the pool thread's turns ---------------------------------------------------------------------------

    def limit(self, seconds: float | None) -> float | None:
        """Return how long the pool thread may wait, if it had to wait so many seconds."""
        if not self._ticks:
            return seconds
        return TICK if seconds is None else min(seconds, TICK)

    def look(self) -> None:
        """After each wait of the pool thread: see whether others read, or whether they should."""
        reader, self.offered = self.offered, None
        if self._ticks:
            self._check()
        elif reader is not None:
            self._offer(reader)

    def _check(self) -> None:
        poller = self._poller
        if poller.guarded:
            now = time.monotonic()
            if now < self._look_at:
                return
            self._look_at = now + TICK
            reads = poller.reads
            crowded = poller.reader is not None and len(self._pool.tasks) > FEW_AWAITED
            if reads != self._reads_seen and not crowded:
                self._reads_seen, self._in_vain = reads, 0
                return
            self._in_vain += 1
            if self._in_vain < LOOKS and not crowded:
                return
            if crowded or (poller.reader is not None and poller.wait_for_answers(0)):
                self.postpone()
        self._unguard()
        poller.follow()  # beside a leader, too: it may be about to leave, and have seen that they were guarded
        self._ticks = False

    def _offer(self, reader: LoopReader) -> None:
        now = time.monotonic()
        close, self._offered_at = now - self._offered_at < CLOSE, now
        pool, poller = self._pool, self._poller
        if not close or now < self._not_before or poller.leader or pool.outbox.left or pool.closed:
            return
        if pool.has_waiting or len(pool.tasks) > FEW_AWAITED:
            return  # a loop that submits many calls at once is busy with that
        if reader.watch(poller):
            poller.reader = reader
            self._guard(now)

    def _guard(self, now: float) -> None:
        poller = self._poller
        self._ticks = True
        self._look_at = now + TICK
        self._reads_seen = self._reads_before = poller.reads
        self._in_vain = 0
        poller.guarded = True
        poller.lead()

    def stands_back(self) -> bool:
        """Return whether the pool thread, woken by the channels, is to leave them to others."""
        poller = self._poller
        if poller.guarded and self._ticks:
            poller.lead()  # a leader who was late has given them back
            return True
        now = time.monotonic()
        if not poller.leader and now - poller.left_at > GAP:
            return False
        again, self._met_at = now - self._met_at < AGAIN, now
        if not again or self._is_observed():
            return False
        self._guard(now)
        if self._is_observed():  # who begins to observe does that first, and looks at `guarded` then
            self.take_back()
        return True

    def _is_observed(self) -> bool:
        """Return whether anybody could notice that an answer lies there until somebody waits for it."""
        pool = self._pool
        if pool.has_waiting or len(pool.tasks) > FEW:
            return True
        return any(task.future._is_observed() for task in list(pool.tasks.values()))

    # ---- any thread ----------------------------------------------------------------------------------------

    def take_back(self) -> None:
        """Have the pool thread read the channels again. In any thread."""
        self._unguard()
        with suppress(ValueError):  # it is closed
            if not self._poller.leader:
                self._poller.follow()

    def _unguard(self) -> None:
        self._poller.guarded = False
        self._poller.reader = None
        self._met_at = NEVER  # what lies there is read now

    def note_observer(self) -> None:
        """Take note that somebody waits for answers in another way than by reading them. In any thread."""
        if self._poller.guarded and self._poller.reader is None:
            self.take_back()

    def note_waiting(self, count: int) -> None:
        """Take note that so many tasks wait for workers, whose answers may lie there. In any thread.

        An event loop that submits many calls at once does not read meanwhile.
        """
        if self._poller.reader is None or count > MANY_WAITING:
            self.take_back()

    def postpone(self) -> None:
        """Have event loops not read for a while: this one was busy, or its answers are not for it. Any thread."""
        longer = min(2 * self._pause, PAUSES[1])
        self._pause = PAUSES[0] if self._poller.reads - self._reads_before > MANY else longer
        self._not_before = time.monotonic() + self._pause

    # ---- the pool's end ------------------------------------------------------------------------------------

    def end(self) -> None:
        """Have no event loop read any more. Without the lock, before the poller is closed."""
        poller = self._poller
        with poller.serving:  # an event loop that reads at this moment ends that first
            self.take_back()
        for reader in list(poller.readers):
            reader.detach(poller)
        loop_reader.close_after_loops()

    def release(self) -> None:
        """Have the calling thread's event loop watch nothing for this pool, which has ended. In any thread."""
        loop_reader.release_here()
