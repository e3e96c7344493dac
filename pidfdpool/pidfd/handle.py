"""The handle: a name for one process that no other process can ever take.

    base        `_Handle`: owning a descriptor that becomes readable when the process ends; waiting on it; closing it
                while other threads use it. Shared with the fallback.
    `Pidfd`     a real pidfd: signals and exit statuses go through the kernel, never through a number.

Closing against use. A descriptor's number may be taken by another file as soon as it is closed, so an operation that
is under way in another thread would act on a stranger. Each operation therefore borrows the descriptor, `close`
marks the handle closed and wakes who waits, and whoever gives the last loan back closes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import struct
import threading
import time
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from pidfdpool.pidfd.errors import PidfdMisused, failure
from pidfdpool.pidfd.status import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

SIGNAL_PROCESS_GROUP = 4  # PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9, pidfd_send_signal(2)
GET_INFO = (3 << 30) | (64 << 16) | (0xFF << 8) | 11  # PIDFD_GET_INFO with its first size, Linux 6.13
INFO_PID = 1
INFO_EXIT = 8  # Linux 6.15; granted only after the process was reaped, by whomever
_INFO = struct.Struct("<QQ11Ii")  # mask, cgroupid, pid and credentials, exit_code


class ProcessHandle(Protocol):
    """What can be done with a process, with pidfds or without."""

    @property
    def pid(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    def fileno(self) -> int: ...
    def alive(self) -> bool: ...
    def send_signal(self, sig: int, value: int | None = None, *, group: bool = False) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...
    def exit_status(self) -> ExitStatus | None: ...
    def close(self) -> None: ...
    def close_in_forked_child(self) -> None: ...


class _Handle:
    """A descriptor that becomes readable when the process ends. Thread-safe, `close` included.

    Forks: a forked child has a copy of the descriptor; closing it there does nothing to the parent's. Because another
    thread may have been inside an operation at the fork, the child must use `close_in_forked_child`, and nothing else.
    """

    def __init__(self, fd: int, pid: int) -> None:
        self._fd = fd
        self._pid = pid
        self._lock = threading.Lock()  # guards the four below
        self._closed = False
        self._loans = 0
        self._wakeup = -1  # made when somebody waits: readable once the handle is closed
        self._status: ExitStatus | None = None

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

        Raises:
            PidfdMisused: the handle is closed (EBADF).
        """
        if self._closed:
            raise self._misused("fileno")
        return self._fd

    def alive(self) -> bool:
        """Return whether the process runs. A zombie does not. Asks by poll(2); signal 0 would succeed on a zombie.

        Raises:
            PidfdMisused: the handle is closed (EBADF).
        """
        with self._borrowed("alive") as fd:
            return not _readable(fd, 0.0)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the process has ended; return whether it has.

        timeout: seconds; 0 asks only, None waits for as long as it takes.

        Raises:
            PidfdMisused: the handle is closed, or was closed meanwhile (EBADF); the timeout is negative or NaN
                (EINVAL).
        """
        if timeout is not None and not timeout >= 0:
            raise PidfdMisused(errno.EINVAL, f"wait with timeout {timeout!r}", self._pid)
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._borrowed("wait") as fd:
            if _readable(fd, 0.0):
                return True
            wakeup = self._wakeup_for_waiters()
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            poller.register(wakeup, select.POLLIN)
            while True:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                # Rounded up to milliseconds by Python; a wait too short by a fraction is taken up by the loop.
                ready = [fd for fd, _ in poller.poll(None if left is None else left * 1000)]
                if wakeup in ready:
                    raise self._misused("wait")
                if ready:
                    return True

    def close(self) -> None:
        """Give the process's name up. Waiting threads get PidfdMisused. Idempotent; the process is not affected."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._wakeup >= 0:
                os.eventfd_write(self._wakeup, 1)
            last = not self._loans
        if last:
            self._close_descriptors()

    def close_in_forked_child(self) -> None:
        """Close the copies that a forked child has, without the lock, which may have been copied while held."""
        self._closed = True
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        # Noted down as closed first: the copy in a process that is forked in between must not close a stranger's.
        fd, self._fd = self._fd, -1
        wakeup, self._wakeup = self._wakeup, -1
        for each in (fd, wakeup):
            if each >= 0:
                os.close(each)

    @contextmanager
    def _borrowed(self, operation: str) -> Iterator[int]:
        with self._lock:
            if self._closed:
                raise self._misused(operation)
            self._loans += 1
        try:
            yield self._fd
        finally:
            with self._lock:
                self._loans -= 1
                last = self._closed and not self._loans
            if last:
                self._close_descriptors()

    def _wakeup_for_waiters(self) -> int:
        with self._lock:
            if self._wakeup < 0:
                self._wakeup = os.eventfd(int(self._closed), os.EFD_CLOEXEC)
            return self._wakeup

    def _misused(self, operation: str) -> PidfdMisused:
        return PidfdMisused(errno.EBADF, operation, self._pid, "The handle is closed.")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Nobody else can be using it any more, so no lock is needed; a forked child's copy may hold a locked one.
        if getattr(self, "_fd", -1) >= 0:
            if not self._closed:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self._close_descriptors()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "alive" if not _readable(self._fd, 0.0) else "ended"
        return f"<{type(self).__name__} pid={self._pid} fd={self._fd} {state}>"


class Pidfd(_Handle):
    """A process, named by a pidfd: no other process can be meant, whatever becomes of the number.

    Made by `open`, `self` or `from_fd`. Close it, or use it in a `with` statement.
    """

    @classmethod
    def open(cls, pid: int) -> Self:
        """Name a process by its number, now. The number must be known to belong to it: a child of the caller's
        that is not reaped yet, or the caller itself.

        Raises:
            ProcessGone: there is no such process (ESRCH).
            PidfdDenied: a filter forbids pidfd_open (EPERM).
            PidfdMisused: pid is no pid, or that of a thread (EINVAL).
            PidfdError: ENOSYS before Linux 5.3; EMFILE, ENFILE, ENOMEM.
        """
        if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
            known = pid if isinstance(pid, int) else None
            raise PidfdMisused(errno.EINVAL, f"pidfd_open of {pid!r}", known, "A pid is a positive integer.")
        try:
            return cls(os.pidfd_open(pid), pid)
        except OverflowError:
            raise PidfdMisused(errno.EINVAL, f"pidfd_open of {pid!r}", pid, "No pid is that large.") from None
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                # ENOENT since Linux 6.17; also what a process in the middle of dying may get.
                hint = "It is a thread, or is just ending."
                raise PidfdMisused(errno.EINVAL, "pidfd_open", pid, hint) from error
            raise failure(error, "pidfd_open", pid) from error

    @classmethod
    def self(cls) -> Self:
        """Name the calling process."""
        return cls.open(os.getpid())

    @classmethod
    def from_fd(cls, fd: int, pid: int | None = None) -> Self:
        """Take over a pidfd that was received or made elsewhere. If this raises, the descriptor stays the caller's.

        pid: the process's number, if it is known; otherwise the kernel is asked.

        Raises:
            PidfdMisused: fd is not open, or not a pidfd (EBADF).
        """
        if not isinstance(fd, int) or isinstance(fd, bool):
            raise PidfdMisused(errno.EBADF, f"from_fd of {fd!r}", pid, "A descriptor is an integer.")
        found = _pid_behind(fd)
        if found is None:
            raise PidfdMisused(errno.EBADF, f"from_fd of {fd}", pid, "The descriptor is not an open pidfd.")
        return cls(fd, pid if pid is not None else found)

    def send_signal(self, sig: int, value: int | None = None, *, group: bool = False) -> None:
        """Send a signal to this process and no other.

        value: an integer to go with it, as sigqueue(3) does; its low 32 bits reach `signal.sigwaitinfo`'s si_status.
        group: signal the process group that this process leads, even if the leader itself has ended (Linux 6.9).

        Raises:
            ProcessGone: it was reaped; or nobody is left in the group (ESRCH).
            PidfdDenied: it belongs to another user (EPERM).
            PidfdMisused: the handle is closed (EBADF); there is no such signal (EINVAL).
            PidfdError: EINVAL, group: the kernel is older than Linux 6.9.
        """
        operation = f"send_signal({sig!r}{', group=True' if group else ''})"
        if not isinstance(sig, int) or not 0 <= sig < signal.NSIG:
            raise PidfdMisused(errno.EINVAL, operation, self._pid, "There is no such signal.")
        flags = SIGNAL_PROCESS_GROUP if group else 0
        with self._borrowed(operation) as fd:
            try:
                if value is None:
                    signal.pidfd_send_signal(fd, sig, None, flags)
                else:
                    from pidfdpool.pidfd.siginfo import send_with_value

                    send_with_value(fd, sig, value, flags)
            except OSError as error:
                hint = "Signalling a group needs Linux 6.9." if group and error.errno == errno.EINVAL else ""
                raise failure(error, operation, self._pid, hint) from error

    def exit_status(self) -> ExitStatus | None:
        """Return how the process ended; None while it runs.

        Asked are, in this order: waitid(P_PIDFD), which reaps the process if it is a child of the caller's;
        PIDFD_GET_INFO, which tells after anybody has reaped it (Linux 6.15). If neither knows, the answer is
        `ExitStatus.UNKNOWN`, and may be better next time. A known answer is kept, beyond `close`.

        Raises:
            PidfdMisused: the handle is closed, and the answer was not known before (EBADF).
        """
        if self._status is not None:
            return self._status
        with self._borrowed("exit_status") as fd:
            if not _readable(fd, 0.0):
                return None
            status = _waited(fd) or _told(fd)
        if status is None:
            return ExitStatus.UNKNOWN
        self._status = status
        return status


def _readable(fd: int, timeout: float) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(timeout * 1000))


def _waited(fd: int) -> ExitStatus | None:
    """Ask by reaping. Readable is not always waitable: a tracer may come first (ptrace(2)), so never wait here."""
    try:
        result = os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG)
    except OSError:  # ECHILD: not a child of ours, or reaped; EINVAL: before Linux 5.4
        return None
    return None if result is None else ExitStatus.from_waitid(result)


def _told(fd: int) -> ExitStatus | None:
    """Ask the pidfd itself."""
    try:
        fields = get_info(fd, INFO_EXIT)
    except OSError:  # ENOTTY: before Linux 6.13; ESRCH: reaped, and before 6.15
        return None
    return ExitStatus.from_wait_status(fields[13]) if fields[0] & INFO_EXIT else None


def get_info(fd: int, mask: int) -> tuple[int, ...]:
    """Return the fields of struct pidfd_info; the first one tells which of them the kernel filled in."""
    buffer = bytearray(_INFO.size)
    struct.pack_into("<Q", buffer, 0, mask)
    fcntl.ioctl(fd, GET_INFO, buffer)
    return _INFO.unpack_from(buffer)


def _pid_behind(fd: int) -> int | None:
    """Return the pid that a pidfd names, 0 if it is past naming, None if fd is no pidfd."""
    try:
        return get_info(fd, INFO_PID)[2]
    except OSError as error:
        if error.errno == errno.ESRCH:
            return 0
        if error.errno == errno.EBADF:
            return None
    except (OverflowError, ValueError):
        return None
    try:
        with open(f"/proc/self/fdinfo/{fd}") as info:  # proc(5): pidfds have a line "Pid:", -1 once reaped
            lines = dict(line.split(":", 1) for line in info if ":" in line)
    except OSError:
        return None
    return max(0, int(lines["Pid"])) if "Pid" in lines else None
