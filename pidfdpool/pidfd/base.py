"""The base class of all handles: a descriptor that is readable when a process has ended, shared by several threads.

It owns the descriptor, and the wakeup of threads that wait. Called from any thread, and from signal handlers. Signals
and exit statuses are the subclasses' part.

Closing while in use. As soon as a descriptor is closed, another file may get its number, and an operation that is
under way in another thread would act on that file. So each operation counts itself as a user of the descriptor.
`close` marks the handle as closed and wakes the threads that wait. The last user closes the descriptor.

Forks. A forked child has copies of the descriptors, but not the threads that held a lock or used the handle at that
moment. So locks and users are kept per process, and the child begins with new ones.
"""

from __future__ import annotations

import _warnings
import errno
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from pidfdpool.pidfd.errors import PidfdMisused, to_pidfd_error
from pidfdpool.pidfd.status import ExitStatus
from pidfdpool.process import counters, describe, locks, native
from pidfdpool.typed import typing

_NEVER = float("inf")


class _Use:
    """The use of a handle by one process. The lock guards this, and the handle's `_fd`, `_closed` and `_status`.

    The lock is reentrant, because a signal handler may use the handle whose method it has interrupted.
    """

    __slots__ = ("lock", "users", "wakeup")

    def __init__(self) -> None:
        self.lock = locks.reentrant()
        self.users = 0
        self.wakeup = -1  # an eventfd, made by the first wait; readable once the waiting threads have to look again


class BaseHandle:
    """A descriptor that is readable when the process has ended. Thread-safe, `close` included.

    Forks: a forked child may use its copy and should close it. The parent's handle is not affected.
    """

    _watched: typing.ClassVar[int] = select.POLLIN  # the events to poll for
    _ending: typing.ClassVar[int] = select.POLLIN | select.POLLHUP  # the events that mean that the process has ended

    def __init__(self, fd: int, pid: int) -> None:
        self._fd = fd
        self._pid = pid
        self._closed = False
        self._status: ExitStatus | None = None
        self._uses: dict[int, _Use] = {}  # by process; dict.setdefault makes one only once

    @property
    def pid(self) -> int:
        """The process's number, for messages. Once this process was reaped, another process may get the number."""
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
        """Return whether the process runs. A zombie does not run.

        Uses poll(2), because signal 0 would succeed for a zombie.

        Raises:
            PidfdMisused: the handle is closed (EBADF).
        """
        with self._in_use("alive") as fd:
            return self._status is None and not self._ended(fd)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the process has ended; return whether it has.

        timeout: seconds, rounded up to the milliseconds that poll(2) counts. 0 does not wait, None waits without
            limit.

        Raises:
            PidfdMisused: the handle is closed, or was closed meanwhile (EBADF); the timeout is no number, negative or
                NaN (EINVAL).
            PidfdError: EMFILE, ENFILE, ENOMEM: no descriptor is left for the wakeup.
        """
        deadline = self._deadline(timeout)
        with self._in_use("wait") as fd:
            if self._status is not None or self._ended(fd):
                return True
            if timeout == 0:
                return False
            poller = select.poll()
            poller.register(fd, self._watched)
            poller.register(self._wakeup(), select.POLLIN)
            return self._wait_until_ended(poller, fd, deadline)

    def _wait_until_ended(self, poller: select.poll, fd: int, deadline: float) -> bool:
        while self._status is None:
            if self._closed:
                raise self._misused("wait")
            left = min(deadline - time.monotonic(), native.LONGEST_WAIT)
            if left <= 0:
                return False
            if self._polls_end(poller, fd, left):
                return True
        return True

    def _deadline(self, timeout: float | None) -> float:
        if timeout is None:
            return _NEVER
        number: float | None = timeout
        if type(timeout) is not float:
            from pidfdpool import checks  # loaded here, because a template does not need it

            number = checks.to_number(timeout)
        if number is None or not number >= 0:
            hint = "A timeout is a number of seconds, 0 or more, or None."
            raise PidfdMisused(errno.EINVAL, f"wait with timeout {describe.repr_of(timeout)}", self._pid, hint)
        return time.monotonic() + number

    def close(self) -> None:
        """Close the descriptor. Waiting threads get PidfdMisused. Idempotent; the process is not affected."""
        use = self._use()
        with use.lock:
            if not self._closed:
                self._closed = True
                self._wake(use)
        self._close_if_unused(use)

    def close_in_forked_child(self) -> None:
        """Close the copies that a forked child has. The same as `close`; the name tells the reader the intention."""
        self.close()

    def _use(self) -> _Use:
        return self._uses.setdefault(os.getpid(), _Use())

    @contextmanager
    def _in_use(self, operation: str) -> Iterator[int]:
        use = self._use()
        with use.lock:
            use.users += 1  # before `_closed` is read: a signal handler that closes in between has to find this user
        try:
            if self._closed:
                raise self._misused(operation)
            yield self._fd
        finally:
            with use.lock:
                use.users -= 1
            self._close_if_unused(use)

    def _close_if_unused(self, use: _Use) -> None:
        with use.lock:
            if self._closed and not use.users:
                self._close_descriptors()

    def _close_descriptors(self) -> None:
        # `_fd` is set to -1 first. A process that is forked in between would otherwise close another file's number.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            native.close(fd)
        for use in list(self._uses.values()):  # also those of the processes that this one was forked from
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
                    raise to_pidfd_error(error, "wait", self._pid) from error
            return use.wakeup

    def _wake(self, use: _Use) -> None:
        """Have every waiting thread look again. Never reset, because a handle stays closed, and a status known."""
        if use.wakeup >= 0:
            counters.add(use.wakeup)

    def _set_status(self, status: ExitStatus) -> None:
        """Store how the process ended, and have waiting threads return."""
        use = self._use()
        with use.lock:
            self._status = status
            self._wake(use)

    def _ended(self, fd: int) -> bool:
        poller = native.poll()
        poller.register(fd, self._watched)
        return self._polls_end(poller, fd, 0)

    def _polls_end(self, poller: select.poll, fd: int, seconds: float) -> bool:
        try:
            events = dict(poller.poll(seconds * 1000)).get(fd, 0)
        except OSError as error:
            raise to_pidfd_error(error, "poll", self._pid) from error
        if events & select.POLLNVAL:
            raise self._misused("poll", "Other code closed the descriptor without the handle.")
        return bool(events & self._ending)

    def _misused(self, operation: str, hint: str = "The handle is closed.") -> PidfdMisused:
        return PidfdMisused(errno.EBADF, operation, self._pid, hint)

    def __enter__(self) -> typing.Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce_ex__(self, _protocol: object) -> typing.NoReturn:
        """Raise TypeError: a copy would close the descriptor, and the next file would get its number."""
        raise TypeError(f"cannot copy or pickle {type(self).__name__!r} object: its descriptor belongs to it alone")

    def __del__(self) -> None:
        # No other thread can use it any more, so the users are not looked at.
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
