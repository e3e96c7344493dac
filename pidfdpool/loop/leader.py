"""A thread that waits for a result reads the workers' channels itself: the leader.

Without a leader, an answer wakes the pool thread, which wakes the thread that waits. These are two wake-ups and two
transfers of the interpreter's lock, and each takes longer than a small task. There is one leader at a time. Other
threads wait for their futures as usual, and the leader resolves those futures, too. Deaths, deadlines and the
template stay with the pool thread. When the leader has its result, it gives the channels back to the pool thread.

The leader runs no callbacks. Its thread may hold locks of the user's that a callback needs, and an exception that a
signal handler raises would look like the callback's. When the leader finds a future with callbacks, it leaves that
future and all that follow to the pool thread, in their order, and waits like any other thread.

The main thread runs signal handlers between any two of its steps. While a handler runs that has interrupted the
leader's wait, nobody reads the channels. The handler, and all other threads, would wait for results in vain. So the
main thread leads only where no signal has a handler of the host's. The handler that raises KeyboardInterrupt is
allowed, because it ends at once. An exception while an answer is served would leave that half done, so SIGINT is
blocked meanwhile. A leader spends nearly all its time waiting, where an exception does no harm. If another thread of
the host takes the signal, its handler runs in the main thread all the same, and the pool breaks, as in `submit` (see
`Decisions.decide_guarded`). At a prompt, where this is likely and the session has to go on, there is no leader.
Outside of serving, every step that must not be lost is one call of a C function, the first of its block. Handlers run
after a call. They do not run within a call of a C function, nor between other instructions.
"""

from __future__ import annotations

import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from pidfdpool.process import interruptible, native
from pidfdpool.process.native import signal
from pidfdpool.process.spinning import LearningSpin
from pidfdpool.typed import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.loop.loop_reader import LoopReader
    from pidfdpool.loop.outbox import Outbox
    from pidfdpool.loop.poller import Poller
    from pidfdpool.loop.watchdog import Watchdog

_INTERRUPTS = (signal.SIGINT,)
# Those to which programs are likely to react by raising something, or by waiting for something.
_HANDLED = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
SHORT = interruptible.FIRST_WAITS[0]
LEAVING = 1.0  # seconds that a leader gets to leave when there is nothing left to wait for


class _Pool(Protocol):
    """What the leadership needs of its pool."""

    poller: Poller
    watchdog: Watchdog
    closed: bool

    @property
    def may_lead(self) -> bool:
        """Whether threads that wait for futures may read the channels meanwhile."""

    @property
    def is_at_work_here(self) -> bool:
        """Whether the caller has interrupted, or is doing, the work that brings results."""

    def fail(self, error: BaseException) -> None:
        """Break the pool, because something was left half done."""


class _Future(Protocol):
    """What the leader needs of the future that it waits for."""

    _leader: Poller | None

    def _is_done(self) -> bool:
        """Return whether there is nothing to wait for any more."""

    def _has_callbacks(self) -> bool:
        """Return whether resolving it calls something of the user's."""


class Leadership:
    """Who leads in one pool. Thread-safe."""

    def __init__(self, pool: _Pool, outbox: Outbox, spin: float) -> None:
        """spin: seconds that the leader may look for an answer before it sleeps; see `spinning`."""
        self._pool = pool
        self._outbox = outbox
        self._spin = LearningSpin(spin)
        self._over = False  # the pool thread has ended

    def wait(self, future: _Future, timeout: float | None) -> None:
        """Lead until the future is done, or for `timeout` seconds at most. Return at once if nobody may lead here.

        Raises:
            RuntimeError: without a timeout, the caller would wait for itself.
        """
        pool = self._pool
        if pool.is_at_work_here:
            if timeout is not None:
                return
            raise RuntimeError(
                "waiting for this result would never end: the caller (a callback, a signal handler, code that runs "
                "while a result is rebuilt) is in the middle of the work that brings it. Give a timeout, or wait in "
                "another thread."
            )
        if not pool.may_lead or future._has_callbacks():
            return
        poller, me = pool.poller, threading.get_ident()
        leader, handles = poller.leader, interruptible.in_signal_thread()
        if leader.get(None) == me:  # this thread's own wait was interrupted, for instance by a debugger
            try:
                self._lead(future, timeout, blocks=handles, alone=True)
            finally:
                poller.wake_leader()  # to look again: a wake-up that came meanwhile was used up here
            return
        if poller.is_served or _is_deep():
            return
        if handles and (native.is_interactive() or interruptible.handlers_are_called()):
            return
        if not handles and interruptible.handlers_may_raise_here():
            return
        give_back, leave = poller.follow, leader.pop
        try:
            if leader.setdefault(None, me) != me or pool.closed:
                return
            try:
                if poller.reader is not None:  # an event loop, which may be blocked
                    poller.guarded, poller.reader = False, None
                if not poller.guarded:
                    poller.lead()
                self._lead(future, timeout, blocks=handles)
            finally:
                if not poller.guarded:  # otherwise the pool thread looks at them, and takes them back by itself
                    give_back()
        finally:
            if None in leader and leader[None] == me:  # without a call, so that no handler runs in between
                leave(None)
            if self._over:
                poller.close()

    def _lead(self, future: _Future, timeout: float | None, *, blocks: bool, alone: bool = False) -> None:
        """Read channels until the future is done, time is over, or the pool thread has to take over.

        blocks: this thread runs signal handlers, so interrupts are blocked while it serves. alone: the caller keeps
        the channels when this returns.
        """
        pool, poller = self._pool, self._pool.poller
        steps = None if timeout is None else interruptible.WaitSteps(timeout, blocks)
        left = SHORT if blocks else None
        while True:
            future._leader = poller
            # The state is read after that: a thread that resolves the future from now on ends the wait.
            if future._is_done() or pool.closed:
                break
            if steps is not None:
                left = steps.next()
            over = left is not None and left <= 0
            ready = self._spin.wait(self._look, partial(poller.wait_for_answers, 0.0 if over else left))
            future._leader = None
            if ready:
                if poller.is_served and not alone:
                    break  # the pool thread serves, and may do so for long, in a callback for instance
                self._serve(ready) if blocks else self._serve_guarded(ready)
            if (self._outbox.left and not alone) or over:
                break  # at the deadline, what has arrived is read, and nothing is waited for
            if steps is None and not ready:  # most waits end before steps are needed
                steps = interruptible.WaitSteps(None, blocks)
        future._leader = None
        poller.left_at = time.monotonic()

    def _look(self) -> list[tuple[int, int]]:
        return self._pool.poller.wait_for_answers(0)

    def _serve(self, ready: list[tuple[int, int]]) -> None:
        self._with_blocked(_INTERRUPTS, partial(self._serve_guarded, ready))

    def _with_blocked(self, signals: tuple[int, ...], serve: Callable[[], None]) -> None:
        change_mask = signal.pthread_sigmask
        before: set[int] | None = None
        try:
            before = change_mask(signal.SIG_BLOCK, signals)
            serve()
        finally:
            if before is not None:
                change_mask(signal.SIG_SETMASK, before)
            else:  # interrupted before the mask was known, which blocked signals do not do
                change_mask(signal.SIG_UNBLOCK, signals)

    def _serve_guarded(self, ready: list[tuple[int, int]]) -> None:
        pool, outbox = self._pool, self._outbox
        pool.poller.reads += 1
        try:
            with pool.poller.serving:
                outbox.leader = threading.get_ident()
                try:
                    pool.poller.serve(ready)
                finally:
                    outbox.leader = None
        except BaseException as error:
            pool.fail(error)
            raise

    # ---- for an event loop that reads ----------------------------------------------------------------------

    def read_in_loop(self, reader: LoopReader) -> bool:
        """Serve what has come, in the thread of an event loop, without waiting; return whether it may go on so.

        If it may not, the channels are the pool thread's again.
        """
        pool, poller = self._pool, self._pool.poller
        if poller.reader is not reader:
            return False
        blocks = interruptible.in_signal_thread()
        if poller.leader or pool.closed or poller.is_served or (blocks and interruptible.handlers_may_raise()):
            pool.watchdog.take_back()
            return False
        serve = partial(self._serve_in_loop, reader)
        self._with_blocked(_HANDLED, serve) if blocks else serve()
        return poller.reader is reader

    def _serve_in_loop(self, reader: LoopReader) -> None:
        poller, outbox, watchdog = self._pool.poller, self._outbox, self._pool.watchdog
        serving = poller.serving
        try:
            # The pool thread may have begun to serve something, and to wait for that would hold up the event loop.
            if not serving.acquire(blocking=False):
                watchdog.take_back()
            elif poller.reader is reader:  # otherwise the pool may have ended
                ready = poller.wait_for_answers(0)
                if ready:
                    outbox.in_loop = True
                    self._serve_guarded(ready)
                    if outbox.left:
                        watchdog.postpone()
                        watchdog.take_back()
        finally:
            outbox.in_loop = False
            try:  # noqa: SIM105  it is the first thing that is called here, so that no handler runs before
                serving.release()
            except RuntimeError:  # another thread has it
                pass

    def end(self) -> None:
        """End the leader's wait when all futures are resolved. In the pool thread, at its end, without the lock."""
        deadline = time.monotonic() + LEAVING
        while self._pool.poller.leader and time.monotonic() < deadline:
            self._pool.poller.wake_leader()
            native.sleep(0.001)

    def close(self) -> None:
        """Close the poller; if there is still a leader, it closes the poller when it leaves.

        A thread that waits in an epoll that is closed is never woken, and could not give the channels back.
        """
        self._over = True
        if not self._pool.poller.leader:  # in this order: the leader reads `_over` after it has left
            self._pool.poller.close()


def _is_deep() -> bool:
    """Return whether more than half of the stack that Python allows is in use.

    Most results that a leader rebuilds are for others. They must not fail because the leader's stack is deep.
    """
    try:
        sys._getframe(sys.getrecursionlimit() // 2)
    except ValueError:
        return False
    return True
