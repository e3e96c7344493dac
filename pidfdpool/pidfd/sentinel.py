"""The fallback behind the same interface, where the kernel has no pidfd_open or a filter refuses it.

The descriptor is the read end of a pipe whose write end the process alone holds, so it becomes readable when the
process is gone. What a pipe cannot do, the process's parent does: only a parent may use a number safely, because no
number is reused before the parent has reaped. `ChildHandle` is the parent's handle, `SentinelHandle` everybody
else's, whose signals and exit statuses have to be carried to and from the parent.

Weaker than a pidfd in two ways: a process that the watched one started, and that kept the write end, postpones the
news; and the exit status is known only once the parent has told it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from typing import TYPE_CHECKING

from pidfdpool.pidfd.errors import PidfdMisused, ProcessGone, failure
from pidfdpool.pidfd.handle import _Handle
from pidfdpool.pidfd.status import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Callable


def sentinel_pipe() -> tuple[int, int]:
    """Return the read end, for who watches, and the write end, for the watched process alone.

    Both are close-on-exec, with numbers above those of the standard streams. Raises OSError (EMFILE, ENFILE).
    """
    ends = list(os.pipe2(os.O_CLOEXEC))
    for index, fd in enumerate(ends):
        if fd <= 2:
            ends[index] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
            os.close(fd)
    return ends[0], ends[1]


class SentinelHandle(_Handle):
    """A process that is somebody else's child, named by a pipe."""

    def __init__(self, fd: int, pid: int, send_signal: Callable[[int, bool], None]) -> None:
        """Take over the read end. send_signal(sig, group) has the parent send a signal, or raises OSError."""
        super().__init__(fd, pid)
        self._deliver = send_signal

    def send_signal(self, sig: int, value: int | None = None, *, group: bool = False) -> None:
        """Have the parent send a signal. As `Pidfd.send_signal`, but a value cannot be sent (EINVAL)."""
        with self._borrowed(_checked(self, sig, value)):
            try:
                self._deliver(sig, group)
            except OSError as error:
                raise failure(error, f"send_signal({sig!r})", self._pid) from error

    def set_exit_status(self, status: ExitStatus) -> None:
        """Take note of what the parent reported."""
        self._status = status

    def exit_status(self) -> ExitStatus | None:
        """Return what the parent reported; None while the process runs; UNKNOWN when it has ended unreported."""
        if self._status is not None:
            return self._status
        return None if self.alive() else ExitStatus.UNKNOWN


class ChildHandle(_Handle):
    """A child of the calling process, named by a pipe and by its number, which stays its own until it is reaped.

    Only for a process that reaps this child through this handle and nowhere else.
    """

    def send_signal(self, sig: int, value: int | None = None, *, group: bool = False) -> None:
        """Send a signal to the child, or to the process group that it leads. As `Pidfd.send_signal`.

        Raises:
            ProcessGone: the child was reaped: its number may be somebody else's by now (ESRCH).
        """
        operation = _checked(self, sig, value)
        with self._borrowed(operation), self._lock:
            if self._status is not None:
                raise ProcessGone(errno.ESRCH, operation, self._pid)
            try:
                os.killpg(self._pid, sig) if group else os.kill(self._pid, sig)
            except OSError as error:
                raise failure(error, operation, self._pid) from error

    def exit_status(self) -> ExitStatus | None:
        """Reap the child if it has ended, and return how; None while it runs."""
        with self._lock:
            if self._status is None:
                try:
                    result = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG)
                except ChildProcessError:  # somebody else has reaped it, against the rules
                    self._status = ExitStatus.UNKNOWN
                else:
                    self._status = None if result is None else ExitStatus.from_waitid(result)
            return self._status


def _checked(handle: _Handle, sig: int, value: int | None) -> str:
    operation = f"send_signal({sig!r})"
    if not isinstance(sig, int) or not 0 <= sig < signal.NSIG:
        raise PidfdMisused(errno.EINVAL, operation, handle.pid, "There is no such signal.")
    if value is not None:
        raise PidfdMisused(errno.EINVAL, operation, handle.pid, "A value can be sent through a pidfd only.")
    return operation
