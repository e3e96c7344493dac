"""Locks beside signals: waiting in one without missing a signal, and leaving none held when a handler raises.

A signal's handler that is written in Python runs in the main thread, between two steps of Python's. What the kernel
calls only sets a flag, and interrupts the wait if the main thread is in one. So a signal that comes after the main
thread has looked at the flag and before it sleeps in a lock is handled only when the lock wakes it, which may be
never. Giving up the interpreter's lock lies in between. So that takes long where another thread wants this lock, as
the pool's thread does at the moment at which it has just been given work; and if the kernel gives the signal to
another thread of the host's, whose turn comes late, the flag is set later still.

No lock can be waited for in any other way. So the main thread's first waits are short, and it looks again after each;
when it has slept for long, there is nothing left that could be under way. No thread wakes when idle.
"""

from __future__ import annotations

import threading
import time
from _queue import Empty  # `queue` loads what nobody needs here
from contextlib import suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from pidfdpool.process import native

if TYPE_CHECKING:
    from _queue import SimpleQueue
    from collections.abc import Callable

T = TypeVar("T")

# What `signal.getsignal` returns where no function of the host's is called: the default, nothing, not Python's, and
# a function of C's, as the one that raises KeyboardInterrupt. Told by types: objects may compare as they like.
NO_FUNCTION = {int, type(None), type(len)}
_handler_of, _SIGALRM = native.get_signal, native.signal.SIGALRM  # asked with each task
_SIGINT = native.signal.SIGINT
_OTHERS = tuple(native.signal.valid_signals() - {_SIGINT, native.signal.SIGKILL, native.signal.SIGSTOP})
STEPS = (0.01, 0.05, 0.25, 1.25)  # seconds


def in_handlers_thread() -> bool:
    """Return whether handlers written in Python run in the calling thread."""
    return threading.get_ident() == threading.main_thread().ident


def ends_the_program(error: BaseException) -> bool:
    """Return whether an exception in this thread is what a signal's handler asks the program to end with.

    Such a one is on its way to whom it concerns, wherever it comes up: KeyboardInterrupt, SystemExit.
    """
    return not issubclass(type(error), Exception) and in_handlers_thread()


def handlers_are_called() -> bool:
    """Return whether functions of the host's are called when signals come, or any when a timer's does."""
    if type(_handler_of(_SIGINT)) not in NO_FUNCTION:
        return True
    # Asked with each wait for a result. Mostly there is none, which takes 1.2 us to find out; all types take 1.7.
    if next(filter(callable, map(_handler_of, _OTHERS)), None) is None:
        return False
    return callable(_handler_of(_SIGALRM)) or not NO_FUNCTION.issuperset(map(type, map(_handler_of, _OTHERS)))


def by_raising() -> bool:
    """Return whether handlers of this process may raise and it go on: at a prompt, or where it sets itself timers."""
    return native.is_interactive() or callable(_handler_of(_SIGALRM))


def is_usual_here() -> bool:
    """Return whether a signal's handler may raise in this thread, between any two steps, and the session goes on.

    Handlers run in the main thread. A program mostly ends with its KeyboardInterrupt. At a prompt or in a notebook it
    is a way to work: who has submitted too much presses Ctrl-C, and submits again. So it is where a timer's handler
    ends what has taken too long.
    """
    return by_raising() and native.in_main_thread()


class Steps:
    """The lengths of the waits of which one long wait is made. One object for each."""

    __slots__ = ("_deadline", "_left")

    def __init__(self, timeout: float | None, in_handlers: bool | None = None) -> None:
        """Begin with it.

        timeout: seconds for all of it; None: for ever. in_handlers: `in_handlers_thread()`, if that is known.
        """
        self._deadline = None if timeout is None else time.monotonic() + timeout
        if in_handlers is None:
            in_handlers = in_handlers_thread()
        self._left = iter(STEPS if in_handlers else ())

    def next(self) -> float | None:
        """Return for how long to wait now: 0 or less when the timeout is over, None for ever."""
        step = next(self._left, None)
        if self._deadline is None:
            return step
        left = self._deadline - time.monotonic()
        return min(left, native.LONGEST_WAIT if step is None else step)


def wait(done: Callable[[], bool], condition: threading.Condition, timeout: float | None = None) -> bool:
    """Wait until done() is true, or for so many seconds; return what it is. Without the condition's lock.

    Whoever makes it true notifies all that wait for the condition, afterwards. This does not wait as they do: they
    have the lock when they wake, and if a handler raises just before, they release what is not theirs.
    """
    waiters = condition._waiters  # type: ignore[attr-defined]
    sleeper = threading.Lock()
    sleeper.acquire()
    steps = Steps(timeout)
    try:
        waiters.append(sleeper)
        while not done():  # looked at after that
            seconds = steps.next()
            if seconds is not None and seconds <= 0:
                return False
            if sleeper.acquire(timeout=-1 if seconds is None else seconds):
                waiters.append(sleeper)
        return True
    finally:
        with suppress(ValueError):
            waiters.remove(sleeper)


class Event(threading.Event):
    """An event that is waited for in that way."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; return whether it is."""
        return wait(self.is_set, self._cond, timeout)  # type: ignore[attr-defined]


# Where gevent has patched the standard modules, an event is something else, and its waits miss no signal.
_HAS_CONDITION = hasattr(threading.Event(), "_cond")


class Waiters(list[Any]):
    """Who waits for several futures: what `concurrent.futures.wait` and `as_completed` leave with each of them."""

    def append(self, waiter: Any) -> None:
        """Have the waiter told, and wait in that way. Called with the locks of all its futures, before it waits."""
        if _HAS_CONDITION and type(getattr(waiter, "event", None)) is Event.__base__:
            waiter.event = Event()
        super().append(waiter)


def acquire(lock: threading.Lock | threading.RLock) -> bool:
    """Acquire a lock that may be held for long; return True."""
    steps = Steps(None)
    while True:
        seconds = steps.next()
        if lock.acquire(timeout=-1 if seconds is None else seconds):
            return True


def get(queue: SimpleQueue[T], timeout: float | None = None) -> T:
    """Return the next item of the queue.

    Raises:
        queue.Empty: none came in time.
    """
    steps = Steps(timeout)
    while True:
        seconds = steps.next()
        if seconds is None or seconds <= 0:
            return queue.get(timeout=seconds and 0.0)
        try:
            return queue.get(timeout=seconds)
        except Empty:
            pass


class Condition(threading.Condition):
    """A condition whose lock cannot be left held by a signal handler that raises.

    Condition enters and leaves its lock in methods of its own. An exception that comes there, out of a handler, after
    the lock was taken or before it was given back, leaves it locked for good; and the pool thread, which resolves all
    futures, would wait for it. What `with` gets here are the lock's own methods, and in those no handler runs.
    """

    __enter__ = property(attrgetter("_lock.__enter__"))
    __exit__ = property(attrgetter("_lock.__exit__"))
