"""What every handle is made of: one descriptor that tells when a process ends, and its use by several threads.

Owns the descriptor and the wakeup of who waits on it. Called from any thread, and from signal handlers; knows
nothing of signals and exit statuses, which are the subclasses'.

Closing against use. A descriptor's number may be taken by another file as soon as it is closed, so an operation that
is under way in another thread would act on a stranger. Each operation therefore borrows the descriptor, `close`
marks the handle closed and wakes who waits, and whoever gives the last loan back closes.

Forks. A forked child has copies of the descriptors, but not the threads that held a lock or a loan at that moment, so
locks and loans are kept per process: the child's begin fresh.
"""

from __future__ import annotations

import _warnings
import errno
import os
import select
import time
from contextlib import contextmanager

from pidfdpool.pidfd.errors import PidfdMisused, failure
from pidfdpool.process import counters, describe, native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import ClassVar, Self

    from pidfdpool.pidfd.status import ExitStatus


_NEVER = float("inf")


class _Use:
    """What one process does with a handle: the lock guards this and the handle's `_fd`, `_closed` and `_status`.

    Reentrant, because a signal handler may use the handle whose method it has interrupted.
    """

    __slots__ = ("loans", "lock", "wakeup")

    def __init__(self) -> None:
        self.lock = native.host_lock()
        self.loans = 0
        self.wakeup = -1  # an eventfd, made when somebody waits: readable once there is news for who waits


class BaseHandle:
    """A descriptor that tells when the process ends. Thread-safe, `close` included.

    Forks: a forked child may use its copy and should close it; nothing that it does so reaches its parent's.
    """

    _watched: ClassVar[int] = select.POLLIN  # the events to ask for, and those which say that the process ended
    _ending: ClassVar[int] = select.POLLIN | select.POLLHUP

    def __init__(self, fd: int, pid: int) -> None:
        self._fd = fd
        self._pid = pid
        self._closed = False
        self._status: ExitStatus | None = None
        self._uses: dict[int, _Use] = {}  # by process; dict.setdefault makes one only once

    @property
    def pid(self) -> int:
        """The process's number, for people; it may name another process once this one was reaped."""
        return self._pid

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def fileno(self) -> int:
        """Return the descriptor, for polling: it is readable once the process has ended.

        The number is the handle's: stop polling it before the handle is closed.

        Raises:
            PidfdMisused: the handle is closed (EBADF).
        """
        fd = self._fd
        if self._closed or fd < 0:
            raise self._misused("fileno")
        return fd

    def alive(self) -> bool:
        """Return whether the process runs. A zombie does not. Asks by poll(2); signal 0 would succeed on a zombie.

        Raises:
            PidfdMisused: the handle is closed (EBADF).
        """
        with self._borrowed("alive") as fd:
            return self._status is None and not self._ended(fd)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the process has ended; return whether it has.

        timeout: seconds, rounded up to the milliseconds that poll(2) counts; 0 asks only, None waits for as long as
            it takes.

        Raises:
            PidfdMisused: the handle is closed, or was closed meanwhile (EBADF); the timeout is no number, negative or
                NaN (EINVAL).
            PidfdError: EMFILE, ENFILE, ENOMEM: no descriptor is left to be woken by.
        """
        deadline = self._deadline(timeout)
        with self._borrowed("wait") as fd:
            if self._status is not None or self._ended(fd):
                return True
            if timeout == 0:
                return False
            poller = select.poll()
            poller.register(fd, self._watched)
            poller.register(self._wakeup(), select.POLLIN)
            while self._status is None:
                if self._closed:
                    raise self._misused("wait")
                left = min(deadline - time.monotonic(), native.LONGEST_WAIT)
                if left <= 0:
                    return False
                if self._tells_end(poller, fd, left):
                    return True
            return True

    def _deadline(self, timeout: float | None) -> float:
        if timeout is None:
            return _NEVER
        number: float | None = timeout
        if type(timeout) is not float:
            from pidfdpool import checks  # not needed in a template

            number = checks.to_number(timeout)
        if number is None or not number >= 0:
            hint = "A timeout is a number of seconds, 0 or more, or None."
            raise PidfdMisused(errno.EINVAL, f"wait with timeout {describe.repr_of(timeout)}", self._pid, hint)
        return time.monotonic() + number

    def close(self) -> None:
        """Give the process's name up. Waiting threads get PidfdMisused. Idempotent; the process is not affected."""
        use = self._use()
        with use.lock:
            if not self._closed:
                self._closed = True
                self._wake(use)
        self._close_if_unused(use)

    def close_in_forked_child(self) -> None:
        """Close the copies that a forked child has. What `close` does, under a name that says it is meant."""
        self.close()

    def _use(self) -> _Use:
        return self._uses.setdefault(os.getpid(), _Use())

    @contextmanager
    def _borrowed(self, operation: str) -> Iterator[int]:
        use = self._use()
        with use.lock:
            use.loans += 1  # before looking: a signal handler that closes in between has to find the loan
        try:
            if self._closed:
                raise self._misused(operation)
            yield self._fd
        finally:
            with use.lock:
                use.loans -= 1
            self._close_if_unused(use)

    def _close_if_unused(self, use: _Use) -> None:
        with use.lock:
            if self._closed and not use.loans:
                self._close_descriptors()

    def _close_descriptors(self) -> None:
        # Noted down as closed first: the copy in a process that is forked in between must not close a stranger's.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            native.close(fd)
        for use in list(self._uses.values()):  # with those of the processes that this one was forked from
            fd, use.wakeup = use.wakeup, -1
            if fd >= 0:
                native.close(fd)

    def _wakeup(self) -> int:
        use = self._use()
        with use.lock:
            if use.wakeup < 0:
                try:
                    use.wakeup = counters.make()
                except OSError as error:
                    raise failure(error, "wait", self._pid) from error
            return use.wakeup

    def _wake(self, use: _Use) -> None:
        """Have every waiting thread look again. Never read back: `closed` and a known status are for good."""
        if use.wakeup >= 0:
            counters.add(use.wakeup)

    def _settle(self, status: ExitStatus) -> None:
        """Keep how the process ended; waiting threads return."""
        use = self._use()
        with use.lock:
            self._status = status
            self._wake(use)

    def _ended(self, fd: int) -> bool:
        poller = native.poll()
        poller.register(fd, self._watched)
        return self._tells_end(poller, fd, 0)

    def _tells_end(self, poller: select.poll, fd: int, seconds: float) -> bool:
        try:
            events = dict(poller.poll(seconds * 1000)).get(fd, 0)
        except OSError as error:
            raise failure(error, "poll", self._pid) from error
        if events & select.POLLNVAL:
            raise self._misused("poll", "Somebody closed the descriptor without the handle.")
        return bool(events & self._ending)

    def _misused(self, operation: str, hint: str = "The handle is closed.") -> PidfdMisused:
        return PidfdMisused(errno.EBADF, operation, self._pid, hint)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Nobody else can be using it any more, so no loan is looked at.
        if getattr(self, "_fd", -1) >= 0:
            if not self._closed:
                _warnings.warn(f"unclosed {self!r}", ResourceWarning, 2, self)
            self._close_descriptors()

    def __repr__(self) -> str:
        name, status = type(self).__name__, self._status
        try:
            state = f"fd={self.fileno()} {'alive' if self.alive() else status or 'ended'}"
        except OSError:
            state = f"closed, {status}" if status else "closed"
        return f"<{name} pid={self._pid} {state}>"
