"""`Pidfd`: a name for one process that no other process can ever take.

Signals and exit statuses go through the kernel by the descriptor, never by a number. Called from any thread.
"""

from __future__ import annotations

import errno
import os
import struct

from pidfdpool.pidfd.base import BaseHandle
from pidfdpool.pidfd.errors import PidfdMisused, ProcessGone, checked_signal, failure
from pidfdpool.pidfd.status import ExitStatus
from pidfdpool.process import describe, native
from pidfdpool.process.native import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

SIGNAL_PROCESS_GROUP = 4  # PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9, pidfd_send_signal(2)
GET_INFO = (3 << 30) | (64 << 16) | (0xFF << 8) | 11  # PIDFD_GET_INFO with its first size, Linux 6.13
INFO_PID = 1
INFO_EXIT = 8  # Linux 6.15; granted only after the process was reaped, by whomever
_INFO = struct.Struct("=QQ11Ii")  # mask, cgroupid, pid and credentials, exit_code


class Pidfd(BaseHandle):
    """A process, named by a pidfd: no other process can be meant, whatever becomes of the number.

    Made by `open`, `self` or `from_fd`. Close it, or use it in a `with` statement. Thread-safe, `close` included. The
    descriptor is close-on-exec. A forked child may use its copy, and should close it; the original is not affected.
    """

    @classmethod
    def open(cls, pid: int) -> Self:
        """Name a process by its number, now.

        The number must be known to belong to it: a child of the caller's that is not reaped yet, or the caller.

        Raises:
            ProcessGone: there is no such process (ESRCH).
            PidfdDenied: a filter forbids pidfd_open (EPERM).
            PidfdMisused: pid is no pid, or that of a thread (EINVAL).
            PidfdError: ENOSYS before Linux 5.3, or if Python was built without it; EMFILE, ENFILE, ENOMEM.
        """
        if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
            known = pid if isinstance(pid, int) else None
            raise PidfdMisused(
                errno.EINVAL, f"pidfd_open of {describe.repr_of(pid)}", known, "A pid is a positive integer."
            )
        try:
            return cls(_pidfd_open(pid), pid)
        except OverflowError:
            raise PidfdMisused(errno.EINVAL, "pidfd_open", pid, "No pid is that large.") from None
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

        It becomes close-on-exec, which a received one need not be.

        pid: the process's number, if it is known; otherwise the kernel is asked.

        Raises:
            PidfdMisused: fd is not open, or not a pidfd (EBADF).
            ProcessGone: no pid was given, and none can be found: it was reaped, or lives in a pid namespace that the
                caller does not see (ESRCH).
        """
        if not isinstance(fd, int) or isinstance(fd, bool):
            raise PidfdMisused(errno.EBADF, f"from_fd of {describe.repr_of(fd)}", pid, "A descriptor is an integer.")
        if not _is_pidfd(fd):
            raise PidfdMisused(errno.EBADF, f"from_fd of {fd}", pid, "The descriptor is not an open pidfd.")
        if pid is None and (pid := _pid_behind(fd)) is None:
            raise ProcessGone(errno.ESRCH, f"from_fd of {fd}", None, "If its number is known, pass pid=.")
        native.set_close_on_exec(fd)
        return cls(fd, pid)

    def send_signal(self, sig: int, value: int | None = None, *, group: bool = False) -> None:
        """Send a signal to this process and no other. A zombie takes it without notice: see `alive`.

        value: an integer to go with it, as sigqueue(3) does; its low 32 bits reach `signal.sigwaitinfo`'s si_status.
        group: signal the process group that this process leads, even if the leader itself has ended (Linux 6.9); if
            it runs and leads none, this process alone.

        Raises:
            ProcessGone: it was reaped; or, group: it has ended, and nobody is left in the group (ESRCH).
            PidfdDenied: it belongs to another user (EPERM).
            PidfdMisused: the handle is closed (EBADF); there is no such signal, or value is no integer (EINVAL).
            PidfdError: EINVAL, group: the kernel is older than Linux 6.9. EAGAIN, value: its queue is full.
        """
        operation = checked_signal(sig, group, self._pid)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise PidfdMisused(errno.EINVAL, operation, self._pid, f"{describe.repr_of(value)} is no integer.")
        flags = SIGNAL_PROCESS_GROUP if group else 0
        with self._borrowed(operation) as fd:
            try:
                try:
                    _send(fd, sig, value, flags)
                except ProcessLookupError:
                    if not group or self._ended(fd):
                        raise
                    _send(fd, sig, value, 0)  # it shares the group of another process, as a child mostly does
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
        if self._status is None:
            # One at a time: whoever asked second would be told that there is no child, and not yet find it noted.
            with self._borrowed("exit_status") as fd, self._use().lock:
                if not self._ended(fd):
                    return None
                status = self._status or _waited(fd) or _told(fd)
                if status is None:
                    return ExitStatus.UNKNOWN
                self._settle(status)
        return self._status


def _send(fd: int, sig: int, value: int | None, flags: int) -> None:
    if value is None:
        signal.pidfd_send_signal(fd, sig, None, flags)
        return
    from pidfdpool.pidfd.siginfo import send_with_value

    send_with_value(fd, sig, value, flags)


def _pidfd_open(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except AttributeError:  # this Python was built where the C library's headers did not know it
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None


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
    import fcntl

    buffer = bytearray(_INFO.size)
    struct.pack_into("=Q", buffer, 0, mask)
    fcntl.ioctl(fd, GET_INFO, buffer)
    return _INFO.unpack_from(buffer)


def _is_pidfd(fd: int) -> bool:
    """Ask without touching anything: WNOWAIT leaves the status for who wants it, and only pidfds are accepted."""
    try:
        os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    except OverflowError:
        return False
    except OSError as error:
        if error.errno == errno.EBADF or fd < 0:
            return False
        return _fdinfo_pid(fd) is not None  # waitid knows no pidfds here, or is forbidden
    return True


def _pid_behind(fd: int) -> int | None:
    try:
        return get_info(fd, INFO_PID)[2]
    except OSError:  # before Linux 6.13; or it is reaped, or out of sight
        number = _fdinfo_pid(fd)
        return number if number is not None and number > 0 else None


def _fdinfo_pid(fd: int) -> int | None:
    """Return what proc(5) says in the line "Pid:", which only pidfds have: -1 once it is reaped, 0 out of sight."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as info:
            return next((int(line.split()[1]) for line in info if line.startswith(b"Pid:")), None)
    except OSError:
        return None
