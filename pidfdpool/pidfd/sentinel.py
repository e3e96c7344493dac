"""Handles without pidfds, with the same interface: for kernels without pidfd_open, or where a filter refuses it.

Called in any process, on any thread.

The descriptor is the read end of a pipe. Only the watched process holds the write end, so the read end becomes
readable when the process is gone. What a pipe cannot do, the process's parent does. Only a parent can use a number
safely, because no number is reused before the parent has reaped the process. `ChildHandle` is the parent's handle.
`SentinelHandle` is that of other processes; its signals and exit statuses have to be sent to and from the parent.

This is weaker than a pidfd in three ways. A process that the watched one started, and that kept the write end, delays
the report of the end. An ending process closes its descriptors a moment before it can be reaped, so right after
`wait` even the parent may get no exit status yet. And no other process knows the status until the parent reports it.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable

from pidfdpool.pidfd.base import BaseHandle
from pidfdpool.pidfd.errors import PidfdMisused, ProcessGone, checked_signal, to_pidfd_error
from pidfdpool.pidfd.status import ExitStatus
from pidfdpool.process import native
from pidfdpool.process.counters import REFUSALS


def sentinel_pipe() -> tuple[int, int]:
    """Return the read end, for the process that watches, and the write end, for the watched process alone.

    Both are close-on-exec, with numbers above those of the standard streams. Raises OSError (EMFILE, ENFILE).
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        read_end = native.above_stdio(read_end)
    except OSError:
        native.close(write_end)
        raise
    try:
        return read_end, native.above_stdio(write_end)
    except OSError:
        native.close(read_end)
        raise


def reap(pid: int) -> ExitStatus | None:
    """Reap a child by its number, if it has ended. No other code may reap that child.

    Raises:
        ChildProcessError: it is no child of this process, or was reaped.
    """
    try:
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
        return None if result is None else ExitStatus.from_waitid(result)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
    reaped, status = os.waitpid(pid, os.WNOHANG)
    return ExitStatus.from_wait_status(status) if reaped else None


class SentinelHandle(BaseHandle):
    """A process that is another process's child, named by a pipe. Otherwise as `Pidfd`."""

    # Data in the pipe does not mean that the process has ended. Only a closed write end does.
    _watched = 0
    _ending = select.POLLHUP | select.POLLERR

    def __init__(self, fd: int, pid: int, send_signal: Callable[[int, bool], None]) -> None:
        """Take over the read end. send_signal(sig, group) has the parent send a signal, or raises OSError."""
        super().__init__(fd, pid)
        self._signal_by_parent = send_signal

    def send_signal(self, sig: int, value: int | None = None, *, group: bool = False) -> None:
        """Have the parent send a signal. As `Pidfd.send_signal`, but a value cannot be sent (EINVAL)."""
        operation = _checked_operation(self, sig, value, group)
        with self._in_use(operation):
            try:
                self._signal_by_parent(sig, group)
            except OSError as error:
                raise to_pidfd_error(error, operation, self._pid) from error

    def set_exit_status(self, status: ExitStatus) -> None:
        """Store the status that the parent reported, and end waits. UNKNOWN never replaces a known status."""
        if self._status is None or not status.unknown:
            self._set_status(status)

    def exit_status(self) -> ExitStatus | None:
        """Return the status that the parent reported.

        None while the process runs; UNKNOWN when it has ended and the parent has not reported its status.

        Raises:
            PidfdMisused: the handle is closed, and no status was reported (EBADF).
        """
        return self._status or (None if self.alive() else ExitStatus.UNKNOWN)


class ChildHandle(BaseHandle):
    """A child of the calling process, named by a pipe and by its number, which belongs to it until it is reaped.

    Only for a process that reaps this child through this handle and in no other way. Thread-safe. In a forked copy of
    that process, whose child it is not, signals are refused and the status is unknown.
    """

    _watched = 0
    _ending = select.POLLHUP | select.POLLERR

    def alive(self) -> bool:
        """Return whether the child runs. A parent asks waitid, and not the pipe. As `Pidfd.alive`."""
        with self._in_use("alive") as fd, self._use().lock:
            if self._status is not None:
                return False
            try:
                return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
            except OSError:  # not a child of ours, or waitid is refused: only the pipe is left
                return not self._ended(fd)

    def send_signal(self, sig: int, value: int | None = None, *, group: bool = False) -> None:
        """Send a signal to the child, or to the process group that it leads. As `Pidfd.send_signal`.

        Raises:
            ProcessGone: the child was reaped, and another process may have its number (ESRCH).
        """
        operation = _checked_operation(self, sig, value, group)
        with self._in_use(operation), self._use().lock:
            if self._status is not None or not self._is_unreaped():
                hint = "It was reaped, or is not a child of this process."
                raise ProcessGone(errno.ESRCH, operation, self._pid, hint)
            try:
                try:
                    os.killpg(self._pid, sig) if group else os.kill(self._pid, sig)
                except ProcessLookupError:
                    if not group or not self.alive():
                        raise
                    os.kill(self._pid, sig)  # it leads no group: as in `Pidfd.send_signal`
            except OSError as error:
                raise to_pidfd_error(error, operation, self._pid) from error

    def exit_status(self) -> ExitStatus | None:
        """Reap the child if it has ended, and return how; None while it runs.

        Works on a closed handle, too. Right after `wait` it may still be None for a moment; then ask again.
        """
        with self._use().lock:
            if self._status is None:
                try:
                    status = reap(self._pid)
                except ChildProcessError:  # other code has reaped it, against the rule
                    status = ExitStatus.UNKNOWN
                if status is not None:
                    self._set_status(status)
            return self._status

    def _is_unreaped(self) -> bool:
        """Return whether this is a child that is not yet reaped. Assume it where waitid is refused."""
        try:
            os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
        return True


def _checked_operation(handle: BaseHandle, sig: int, value: int | None, group: bool) -> str:
    operation = checked_signal(sig, group, handle.pid)
    if value is not None:
        raise PidfdMisused(errno.EINVAL, operation, handle.pid, "A value can be sent through a pidfd only.")
    return operation
