"""Waits in locks without missing a signal, and locks that are not left held when a signal handler raises.

Used in the host, on any thread, by the executor, the loop and the command line.

A signal handler that is written in Python runs in the main thread, between two bytecode instructions. The C handler
that the kernel calls only sets a flag, and interrupts the main thread's wait if it is in one. Suppose that a signal
comes after the main thread has read the flag, and before it sleeps in a lock. Then the handler runs only when the
lock wakes the main thread, which may be never. Between the two the main thread releases the interpreter's lock. That
takes long if another thread waits for it, as the pool thread does when it has just been given work. If the kernel
delivers the signal to another thread of the host, which runs late, the flag is set even later.

There is no other way to wait for a lock. So the main thread's first waits are short, and it reads the flag after
each. When it has waited for long, no signal can be between the two any more. An idle thread does not wake.
"""

from __future__ import annotations

import threading
import time
from _queue import Empty  # `queue` loads modules that are not needed here
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from pidfdpool.process import locks, native

if TYPE_CHECKING:
    from _queue import SimpleQueue
    from collections import deque
    from collections.abc import Callable

T = TypeVar("T")

# The types of what `signal.getsignal` returns where no Python function is called: SIG_DFL and SIG_IGN, None for a
# handler that Python has not set, and a C function, such as the one that raises KeyboardInterrupt. Types are
# compared, because the comparison of objects may run code of the host's.
NON_PYTHON_HANDLERS: set[type[Any]] = {int, type(None), type(len)}
_handler_of, _SIGALRM = native.get_signal, native.signal.SIGALRM  # used for each task
_SIGINT = native.signal.SIGINT
_traceback_of = vars(BaseException)["__traceback__"].__get__  # a subclass may define an attribute of this name
_CO_OPTIMIZED = 1  # a flag of code objects: that of a function
_OTHERS = tuple(native.signal.valid_signals() - {_SIGINT, native.signal.SIGKILL, native.signal.SIGSTOP})
FIRST_WAITS = (0.01, 0.05, 0.25, 1.25)  # seconds; each wait after these is as long as it takes


def in_signal_thread() -> bool:
    """Return whether signal handlers written in Python run in the calling thread."""
    return threading.get_ident() == threading.main_thread().ident


def is_exit_request(error: BaseException) -> bool:
    """Return whether an exception in this thread asks the program to exit: KeyboardInterrupt, SystemExit.

    A signal handler may raise one anywhere. It has to propagate to the code that handles it.
    """
    return not issubclass(type(error), Exception) and in_signal_thread()


def is_exit_request_of_handler(error: BaseException) -> bool:
    """Return whether a signal handler, and not the code that it has interrupted, raised such an exception.

    For code that may raise anything by itself, such as a `__repr__` of the user's.
    """
    return is_exit_request(error) and _has_frame_of_handler(error)


def is_of_handler(error: BaseException) -> bool:
    """Return whether a signal handler, and not the code that it has interrupted, raised any exception.

    For code that may raise anything by itself, such as a call of the user's.
    """
    if not issubclass(type(error), Exception):
        return is_exit_request_of_handler(error)
    return in_signal_thread() and handlers_are_called() and _has_frame_of_handler(error)


def _has_frame_of_handler(error: BaseException) -> bool:
    if issubclass(type(error), KeyboardInterrupt) and _handler_of(_SIGINT) is native.signal.default_int_handler:
        return True  # that handler is a C function and has no frame
    step = _traceback_of(error)
    while step is not None:
        frame = step.tb_frame
        if frame.f_code.co_flags & _CO_OPTIMIZED:  # a function: its variables are no object of the user's
            # A handler is called with the frame that it interrupts.
            for value in frame.f_locals.values():
                if value is frame.f_back or (type(value) is tuple and any(each is frame.f_back for each in value)):
                    return True
        step = step.tb_next
    return False


def handlers_are_called() -> bool:
    """Return whether a signal calls a function of the host's, or SIGALRM calls any function."""
    if type(_handler_of(_SIGINT)) not in NON_PYTHON_HANDLERS:
        return True
    # Called for each wait for a result. Mostly there is no handler, and this takes 1.2 us; to look at all types, 1.7.
    if next(filter(callable, map(_handler_of, _OTHERS)), None) is None:
        return False
    return callable(_handler_of(_SIGALRM)) or not NON_PYTHON_HANDLERS.issuperset(map(type, map(_handler_of, _OTHERS)))


def handlers_may_raise() -> bool:
    """Return whether signal handlers may raise and the program continues: at a prompt, or where it uses timers."""
    # Asked for each task, so `native.is_interactive` is written out.
    return "ps1" in native.names_in_sys or native.is_told_to_be_interactive or callable(_handler_of(_SIGALRM))


def handlers_may_raise_here() -> bool:
    """Return whether a signal handler may raise anywhere in this thread, and the program continues.

    Handlers run in the main thread. A program mostly exits with its KeyboardInterrupt. At a prompt or in a notebook
    it is a way to work: a user who has submitted too much presses Ctrl-C, and submits again. The same holds where the
    handler of a timer ends what has taken too long.
    """
    return handlers_may_raise() and native.in_main_thread()


class WaitSteps:
    """The lengths of the short waits of which one long wait consists. Make one object for each long wait."""

    __slots__ = ("_deadline", "_left")

    def __init__(self, timeout: float | None, handles_signals: bool | None = None) -> None:
        """Begin the long wait.

        timeout: seconds for the whole wait; None: without limit. handles_signals: `in_signal_thread()`, if the caller
            knows it.
        """
        self._deadline = None if timeout is None else time.monotonic() + timeout
        if handles_signals is None:
            handles_signals = in_signal_thread()
        self._left = iter(FIRST_WAITS if handles_signals else ())

    def next(self) -> float | None:
        """Return the seconds of the next short wait: 0 or less when the timeout is over, None: without limit."""
        step = next(self._left, None)
        if self._deadline is None:
            return step
        left = self._deadline - time.monotonic()
        return min(left, native.LONGEST_WAIT if step is None else step)


def wait(done: Callable[[], bool], condition: threading.Condition, timeout: float | None = None) -> bool:
    """Wait until done() is true, or until the timeout is over; return done(). Called without the condition's lock.

    The thread that makes it true calls notify_all afterwards. This does not wait as `Condition.wait` does. That
    acquires the lock when it wakes, and if a signal handler raises just before, it releases a lock that it does not
    hold.
    """
    waiters = condition._waiters  # type: ignore[attr-defined]
    sleeper = threading.Lock()
    sleeper.acquire()
    try:
        waiters.append(sleeper)
        return _sleep_until(done, sleeper, waiters, WaitSteps(timeout))
    finally:
        try:  # noqa: SIM105 - `suppress` has methods of Python's, in which a handler may raise
            waiters.remove(sleeper)
        except ValueError:
            pass


def _sleep_until(
    done: Callable[[], bool], sleeper: threading.Lock, waiters: deque[threading.Lock], steps: WaitSteps
) -> bool:
    """Return True when done() is true, False when the steps are over."""
    while not done():  # called after the sleeper was added, so that no notification is missed
        seconds = steps.next()
        if seconds is not None and seconds <= 0:
            return False
        if sleeper.acquire(timeout=-1 if seconds is None else seconds):
            waiters.append(sleeper)
    return True


class Condition(threading.Condition):
    """A condition whose lock is not left held when a signal handler raises.

    threading.Condition acquires and releases its lock in Python methods. If a handler raises there, after the lock
    was acquired or before it is released, the lock stays locked for ever. The pool thread, which resolves all
    futures, would wait for it. Here `with` calls the lock's own methods, which are C functions, and in these no
    handler runs.
    """

    def __init__(self, lock: Any = None) -> None:
        super().__init__(locks.reentrant() if lock is None else lock)

    if not TYPE_CHECKING:  # type checkers see the base class's methods, which have the same signatures
        __enter__ = property(attrgetter("_lock.__enter__"))
        __exit__ = property(attrgetter("_lock.__exit__"))


# Where gevent has patched the standard modules, an event has no condition, and its waits miss no signal.
_HAS_CONDITION = hasattr(threading.Event(), "_cond")


class Event(threading.Event):
    """An event whose wait misses no signal, and whose lock no handler leaves held: see `wait` and `Condition`."""

    def __init__(self) -> None:
        super().__init__()
        if _HAS_CONDITION:
            self._cond = Condition(locks.plain())

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, or for `timeout` seconds at most; return whether it is."""
        return wait(self.is_set, self._cond, timeout) if _HAS_CONDITION else super().wait(timeout)


class Waiters(list[Any]):
    """The waiters that `concurrent.futures.wait` and `as_completed` add to each future that they wait for."""

    told: list[Any] | None = None  # those that know that the future is done

    def append(self, waiter: Any) -> None:
        """Add the waiter, and give it our `Event`. Called with the locks of all its futures, before it waits."""
        if _HAS_CONDITION and type(getattr(waiter, "event", None)) is Event.__base__:
            waiter.event = Event()
        super().append(waiter)

    def tell(self, future: Any, how: str, *, again: bool = False) -> None:
        """Tell the waiters that their future is done. The caller holds the future's condition, and has set `told`.

        how: the method of waiters that tells them: "add_result" or "add_exception".
        again: a signal handler may have interrupted it before; those are told that do not know yet. If `told` was not
            set, somebody else has told them.
        """
        told = self.told
        if told is None:
            return
        for waiter in self:
            if not again or not any(waiter is one for one in told):
                if again and any(future is one for one in waiter.finished_futures):
                    waiter.event.set()  # it was interrupted before that
                else:
                    getattr(waiter, how)(future)
                told.append(waiter)


def acquire(lock: threading.Lock | threading.RLock) -> bool:
    """Acquire a lock that may be held for long; return True."""
    steps = WaitSteps(None)
    while True:
        seconds = steps.next()
        if lock.acquire(timeout=-1 if seconds is None else seconds):
            return True


def get(queue: SimpleQueue[T], timeout: float | None = None) -> T:
    """Return the next item of the queue.

    Raises:
        queue.Empty: none came in time.
    """
    steps = WaitSteps(timeout)
    while True:
        seconds = steps.next()
        if seconds is None or seconds <= 0:
            return queue.get(timeout=seconds and 0.0)
        try:
            return queue.get(timeout=seconds)
        except Empty:
            pass
