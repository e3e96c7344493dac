"""The errors of handles: each of them is an OSError that has the errno and the pid.

Raised in any process, on any thread. Where a program would expect it, the error is also a ProcessLookupError, a
PermissionError or a ValueError.
"""

from __future__ import annotations

import errno
import os

from pidfdpool.process import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # as in `process.native`, which no other system than Linux can load


class PidfdError(OSError):
    """A wrong use of a handle, or a refusal by the kernel.

    Attributes:
        errno: the kernel's number, or the one that fits the wrong use.
        pid: the process that the operation was about; None if it is not known.
        operation: the operation that failed.
    """

    def __init__(self, number: int, operation: str, pid: int | None, hint: str = "") -> None:
        self.pid = pid
        self.operation = operation
        self._hint = hint
        about = "" if pid is None else f" for pid {pid}"
        name = errno.errorcode.get(number, str(number))
        super().__init__(
            number, f"{operation}{about}: {os.strerror(number)} ({name})" + (f". {hint}" if hint else "")
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the arguments of `__init__`. OSError's own way would pass the finished message."""
        return type(self), (self.errno, self.operation, self.pid, self._hint)

    def __str__(self) -> str:
        return str(self.strerror)


class ProcessGone(PidfdError, ProcessLookupError):
    """The process does not exist any more (ESRCH)."""


class PidfdDenied(PidfdError, PermissionError):
    """The kernel, or a seccomp filter, refused (EPERM, EACCES)."""


class PidfdMisused(PidfdError, ValueError):
    """The call is wrong, whatever the process: a closed handle, a pid that is no pid, no such signal."""


def to_pidfd_error(error: OSError, operation: str, pid: int | None, hint: str = "") -> PidfdError:
    """Return the PidfdError for an error of the kernel's."""
    number = error.errno or errno.EIO
    kind = {errno.ESRCH: ProcessGone, errno.EPERM: PidfdDenied, errno.EACCES: PidfdDenied}.get(number, PidfdError)
    return kind(number, operation, pid, hint)


_names: dict[int, str] = {}  # filled at the first use


def signal_name(number: int) -> str:
    """Return "SIGKILL" and the like, or "signal 50" for a number that has no name."""
    if not _names:
        # Of two names for one number the first in the alphabet counts, as in signal.Signals.
        names = sorted((name for name in dir(signal) if name.startswith("SIG") and name[3:].isalnum()), reverse=True)
        _names.update((getattr(signal, name), name) for name in names)
    return _names.get(number, f"signal {number}")


def checked_signal(sig: int, group: bool, pid: int) -> str:
    """Return the text for an operation that sends this signal.

    Raises:
        PidfdMisused: there is no such signal (EINVAL).
    """
    if not isinstance(sig, int) or isinstance(sig, bool) or not 0 <= sig < signal.NSIG:
        raise PidfdMisused(errno.EINVAL, f"send_signal({describe.repr_of(sig)})", pid, "There is no such signal.")
    return f"send_signal({signal_name(sig)}{', group=True' if group else ''})"
