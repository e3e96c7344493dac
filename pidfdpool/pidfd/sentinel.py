"""The fallback behind the same interface, where the kernel has no pidfd_open or a filter refuses it.

The descriptor is the read end of a pipe whose write end the process alone holds, so it becomes readable when the
process is gone. What a pipe cannot do, the process's parent does: only a parent may use a number safely, because no
number is reused before the parent has reaped. `ChildHandle` is the parent's handle, `SentinelHandle` everybody
else's, whose signals and exit statuses have to be carried to and from the parent.

Weaker than a pidfd in three ways. A process that the watched one started, and that kept the write end, postpones the
news. An ending process closes its descriptors a moment before it can be reaped, so right after `wait` even the parent
may still be told that there is no exit status. And nobody but the parent knows the status until the parent tells it.
"""

from __future__ import annotations

import errno
import os
import select

from pidfdpool.pidfd.base import BaseHandle
from pidfdpool.pidfd.errors import PidfdMisused, ProcessGone, checked_signal, failure
from pidfdpool.pidfd.status import ExitStatus
from pidfdpool.process import native
from pidfdpool.process.counters import REFUSALS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def sentinel_pipe() -> tuple[int, int]:
    """Return the read end, for who watches, and the write end, for the watched process alone.

    Both are close-on-exec, with numbers above those of the standard streams. Raises OSError (EMFILE, ENFILE).
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    return native.above_stdio(read_end), native.above_stdio(write_end)


def reap(pid: int) -> ExitStatus | None:
    """Reap a child by its number, if it has ended. Only for a number that nobody but the caller reaps.

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
    """A process that is somebody else's child, named by a pipe. Otherwise as `Pidfd`."""

    # What is written into the pipe is no sign of an end: only that its write end is gone is.
    _watched = 0
    _ending = select.POLLHUP | select.POLLERR

    def __init__(self, fd: int, pid: int, send_signal: Callable[[int, bool], None]) -> None:
        """Take over the read end. send_signal(sig, group) has the parent send a signal, or raises OSError."""
        super().__init__(fd, pid)
        self._deliver = send_signal

    def send_signal(self, sig: int, value: int | None = None, *, group: bool = False) -> None:
        """Have the parent send a signal. As `Pidfd.send_signal`, but a value cannot be sent (EINVAL)."""
        operation = _checked(self, sig, value, group)
        with self._borrowed(operation):
            try:
                self._deliver(sig, group)
            except OSError as error:
                raise failure(error, operation, self._pid) from error

    def set_exit_status(self, status: ExitStatus) -> None:
        """Take note of what the parent reported; who waits returns. An unknown status never replaces a known one."""
        if self._status is None or not status.unknown:
            self._settle(status)

    def exit_status(self) -> ExitStatus | None:
        """Return what the parent reported; None while the process runs; UNKNOWN when it has ended unreported.

        Raises:
            PidfdMisused: the handle is closed, and nothing was reported (EBADF).
        """
        return self._status or (None if self.alive() else ExitStatus.UNKNOWN)


class ChildHandle(BaseHandle):
    """A child of the calling process, named by a pipe and by its number, which stays its own until it is reaped.

    Only for a process that reaps this child through this handle and nowhere else. Thread-safe. In a forked copy of
    that process, whose child it is not, signals are refused and the status is unknown.
    """

    _watched = 0
    _ending = select.POLLHUP | select.POLLERR

    def alive(self) -> bool:
        """Return whether the child runs; its parent need not go by the pipe. As `Pidfd.alive`."""
        with self._borrowed("alive") as fd, self._use().lock:
            if self._status is not None:
                return False
            try:
                return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
            except OSError:  # not a child of ours, or waitid is refused: the pipe is all there is
                return not self._ended(fd)

    def send_signal(self, sig: int, value: int | None = None, *, group: bool = False) -> None:
        """Send a signal to the child, or to the process group that it leads. As `Pidfd.send_signal`.

        Raises:
            ProcessGone: the child was reaped: its number may be somebody else's by now (ESRCH).
        """
        operation = _checked(self, sig, value, group)
        with self._borrowed(operation), self._use().lock:
            if self._status is not None or not self._is_unreaped():
                hint = "It was reaped, or is not a child of this process."
                raise ProcessGone(errno.ESRCH, operation, self._pid, hint)
            try:
                try:
                    os.killpg(self._pid, sig) if group else os.kill(self._pid, sig)
                except ProcessLookupError:
                    if not group or not self.alive():
                        raise
                    os.kill(self._pid, sig)  # as `Pidfd.send_signal` does for who leads no group
            except OSError as error:
                raise failure(error, operation, self._pid) from error

    def exit_status(self) -> ExitStatus | None:
        """Reap the child if it has ended, and return how; None while it runs.

        Works on a closed handle, too. Right after `wait` it may be None for a moment still: ask again.
        """
        with self._use().lock:
            if self._status is None:
                try:
                    status = reap(self._pid)
                except ChildProcessError:  # somebody else has reaped it, against the rules
                    status = ExitStatus.UNKNOWN
                if status is not None:
                    self._settle(status)
            return self._status

    def _is_unreaped(self) -> bool:
        """Look whether this is a child that nobody has reaped. Where waitid is refused, nobody else would have."""
        try:
            os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
        return True


def _checked(handle: BaseHandle, sig: int, value: int | None, group: bool) -> str:
    operation = checked_signal(sig, group, handle.pid)
    if value is not None:
        raise PidfdMisused(errno.EINVAL, operation, handle.pid, "A value can be sent through a pidfd only.")
    return operation
