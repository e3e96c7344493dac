"""`Pidfd`: a name for one process that no other process can ever get.

Called in any process, on any thread. Signals and exit statuses go through the kernel by the descriptor, never by a
number.
"""

from __future__ import annotations

import errno
import os
import struct

from pidfdpool.pidfd.base import BaseHandle
from pidfdpool.pidfd.errors import PidfdMisused, ProcessGone, checked_signal, to_pidfd_error
from pidfdpool.pidfd.status import ExitStatus
from pidfdpool.process import describe, native
from pidfdpool.process.native import signal
from pidfdpool.typed import typing

SIGNAL_PROCESS_GROUP = 4  # PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9, pidfd_send_signal(2)
GET_INFO = (3 << 30) | (64 << 16) | (0xFF << 8) | 11  # PIDFD_GET_INFO with its first size, Linux 6.13
INFO_PID = 1
INFO_EXIT = 8  # Linux 6.15; granted only after the process was reaped, by any process
_INFO = struct.Struct("=QQ11Ii")  # mask, cgroupid, pid and credentials, exit_code


class Pidfd(BaseHandle):
    """A process, named by a pidfd. It never means another process, even if another process gets the number.

    Made by `open`, `self` or `from_fd`. Close it, or use it in a `with` statement. Thread-safe, `close` included. The
    descriptor is close-on-exec. A forked child may use its copy, and should close it; the original is not affected.
    """

    @classmethod
    def open(cls, pid: int) -> typing.Self:
        """Open a pidfd of a process by its number.

        The caller must know that the number belongs to it: a child of the caller's that is not reaped yet, or the
        caller itself.

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
                # ENOENT since Linux 6.17; a process that is just ending may get it, too.
                hint = "It is a thread, or is just ending."
                raise PidfdMisused(errno.EINVAL, "pidfd_open", pid, hint) from error
            raise to_pidfd_error(error, "pidfd_open", pid) from error

    @classmethod
    def self(cls) -> typing.Self:
        """Open a pidfd of the calling process."""
        return cls.open(os.getpid())

    @classmethod
    def from_fd(cls, fd: int, pid: int | None = None) -> typing.Self:
        """Take over a pidfd that was received or made elsewhere. If this raises, the descriptor stays the caller's.

        It becomes close-on-exec, which a received one need not be.

        pid: the process's number, if the caller knows it; otherwise the kernel is asked.

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
        """Send a signal to this process and no other. For a zombie this does nothing and raises nothing: see `alive`.

        value: an integer that is sent along, as by sigqueue(3); its low 32 bits are `si_status` of
            `signal.sigwaitinfo`.
        group: signal the process group that this process leads, even if the leader itself has ended (Linux 6.9). If
            it runs and leads no group, this process alone is signalled.

        Raises:
            ProcessGone: it was reaped; or, group: it has ended, and nobody is left in the group (ESRCH).
            PidfdDenied: it belongs to another user (EPERM).
            PidfdMisused: the handle is closed (EBADF); there is no such signal, or value is no integer of 64 bits
                (EINVAL).
            PidfdError: EINVAL, group: the kernel is older than Linux 6.9. EAGAIN, value: as many signals
                wait for the processes of its user as its RLIMIT_SIGPENDING allows.
        """
        operation = checked_signal(sig, group, self._pid)
        if value is not None and not _fits(value):
            hint = f"value={describe.repr_of(value)} is no integer of 64 bits."
            raise PidfdMisused(errno.EINVAL, operation, self._pid, hint)
        flags = SIGNAL_PROCESS_GROUP if group else 0
        with self._in_use(operation) as fd:
            try:
                try:
                    _send(fd, sig, value, flags)
                except ProcessLookupError:
                    if not group or self._ended(fd):
                        raise
                    _send(fd, sig, value, 0)  # it is in a group that another process leads, as most children are
            except OSError as error:
                hint = ""
                if group and error.errno == errno.EINVAL:
                    hint = "Signalling a group needs Linux 6.9."
                elif error.errno == errno.EAGAIN:
                    hint = "As many signals wait as its RLIMIT_SIGPENDING allows. Does it receive them?"
                raise to_pidfd_error(error, operation, self._pid, hint) from error

    def exit_status(self) -> ExitStatus | None:
        """Return how the process ended; None while it runs.

        It asks waitid(P_PIDFD), which reaps the process if it is a child of the caller's, and then PIDFD_GET_INFO,
        which knows the status after any process has reaped it (Linux 6.15). If neither knows it, the answer is
        `ExitStatus.UNKNOWN`, and a later call may know more. A known status is kept, also after `close`.

        Raises:
            PidfdMisused: the handle is closed, and the answer was not known before (EBADF).
        """
        if self._status is None:
            # One thread at a time: a second one would get ECHILD, before the first one has stored the status.
            with self._in_use("exit_status") as fd, self._use().lock:
                if not self._ended(fd):
                    return None
                status = self._status or _status_from_waitid(fd) or _status_from_info(fd)
                if status is None:
                    return ExitStatus.UNKNOWN
                self._set_status(status)
        return self._status


def _fits(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 64


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


def _status_from_waitid(fd: int) -> ExitStatus | None:
    """Reap the process. Never waits, because a tracer may have to reap it first (ptrace(2))."""
    try:
        result = os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG)
    except OSError:  # ECHILD: not a child of ours, or reaped; EINVAL: before Linux 5.4
        return None
    return None if result is None else ExitStatus.from_waitid(result)


def _status_from_info(fd: int) -> ExitStatus | None:
    """Ask PIDFD_GET_INFO."""
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
    """Return whether fd is a pidfd. Changes nothing: WNOWAIT keeps the status, and only pidfds are accepted."""
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
    """Return the number in the line "Pid:" of proc(5), which only pidfds have.

    It is -1 once the process is reaped, and 0 if it is in a pid namespace that the caller does not see.
    """
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as info:
            return next((int(line.split()[1]) for line in info if line.startswith(b"Pid:")), None)
    except OSError:
        return None
