"""Finds out what this kernel, under this sandbox, lets a process do with pidfds.

Called in any process, on any thread, mostly before the first template is started.

Each call is tried on the calling process itself. Version numbers are not reliable (distributions backport, sandboxes
forbid), and one call may work where a similar one does not. Nothing is forked. A capability is tried when it is first
asked for, and the answer is kept for the process. If there was no descriptor or memory left, nothing was learned, and
the error is raised.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import threading

from pidfdpool.pidfd.errors import to_pidfd_error
from pidfdpool.pidfd.handle import INFO_EXIT, INFO_PID, SIGNAL_PROCESS_GROUP, get_info
from pidfdpool.process import native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FORCE_FALLBACK = "PIDFDPOOL_NO_PIDFD"  # an environment variable: set and not empty, nothing is granted

_TRANSIENT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN)
_known: dict[str, bool] = {}


class Capabilities:
    """What is granted. Each field is tried when it is first read; `usable` sums up what a pool needs.

    Raises, from any field:
        PidfdError: EMFILE, ENFILE, ENOMEM: it could not be tried now.
    """

    __slots__ = ()

    @property
    def open(self) -> bool:
        """A pidfd can be opened (pidfd_open(2), Linux 5.3), and poll(2) reports the end of its process.

        On some 4.18 kernels with backports poll(2) reports at once that a living process has ended.
        """
        return _is_granted("open", lambda fd: not _poll(fd))

    @property
    def send_signal(self) -> bool:
        """pidfd_send_signal(2) works (Linux 5.1). Tried with signal 0, which has no effect."""
        return _is_granted("send_signal", lambda fd: _succeeds(lambda: signal.pidfd_send_signal(fd, 0)))

    @property
    def group_signal(self) -> bool:
        """A process group can be signalled through its leader's pidfd (Linux 6.9).

        ESRCH means that it works: the kernel knows the flag, and this process leads no group.
        """
        return _is_granted(
            "group_signal",
            lambda fd: _succeeds(lambda: signal.pidfd_send_signal(fd, 0, None, SIGNAL_PROCESS_GROUP), errno.ESRCH),
        )

    @property
    def waitid(self) -> bool:
        """A process can be reaped by its pidfd (P_PIDFD, Linux 5.4).

        ECHILD means that it works: a process is not its own child.
        """
        return _is_granted(
            "waitid",
            lambda fd: _succeeds(lambda: os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG), errno.ECHILD),
        )

    @property
    def info(self) -> bool:
        """PIDFD_GET_INFO answers (Linux 6.13)."""
        return _is_granted("info", lambda fd: _succeeds(lambda: get_info(fd, INFO_PID)))

    @property
    def info_exit(self) -> bool:
        """PIDFD_GET_INFO tells the exit status of a process that was reaped (Linux 6.15).

        To try it, a thread of this process is started, and ends.
        """
        return self.info and _is_granted("info_exit", lambda _fd: _info_has_exit_of_thread())

    @property
    def queue_value(self) -> bool:
        """A signal can carry a value. Tried with signal 0, which has no effect. The first try loads ctypes."""

        def queue(fd: int) -> bool:
            from pidfdpool.pidfd.siginfo import send_with_value

            return _succeeds(lambda: send_with_value(fd, 0, 1, 0))

        return self.send_signal and _is_granted("queue_value", queue)

    @property
    def usable(self) -> bool:
        """Whether a pool can name, signal and reap its processes by pidfd."""
        return self.open and self.send_signal and self.waitid

    def __repr__(self) -> str:
        names = ("open", "send_signal", "group_signal", "waitid", "info", "info_exit", "queue_value")
        return f"<Capabilities {' '.join(f'{name}={getattr(self, name)}' for name in names)}>"


_capabilities = Capabilities()


def capabilities() -> Capabilities:
    """Return what can be done with pidfds here. Thread-safe; a forked child keeps the answers."""
    return _capabilities


def _is_granted(name: str, probe: Callable[[int], bool]) -> bool:
    if os.environ.get(FORCE_FALLBACK):
        return False
    if name not in _known:
        _known[name] = _run_probe(probe)
    return _known[name]


def _run_probe(probe: Callable[[int], bool]) -> bool:
    try:
        fd = os.pidfd_open(os.getpid())
    except AttributeError:  # this Python was built where the C library's headers did not know it
        return False
    except OSError as error:
        _raise_if_transient(error)
        return False
    try:
        return probe(fd)
    finally:
        native.close(fd)


def _poll(fd: int, milliseconds: int = 0) -> bool:
    poller = native.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(milliseconds))


def _succeeds(call: Callable[[], object], *fine: int) -> bool:
    try:
        call()
    except OSError as error:
        _raise_if_transient(error)
        return error.errno in fine
    return True


def _raise_if_transient(error: OSError) -> None:
    if error.errno in _TRANSIENT:
        raise to_pidfd_error(error, "probe of pidfds", os.getpid()) from error


def _info_has_exit_of_thread() -> bool:
    try:
        # PIDFD_THREAD, Linux 6.9: a pidfd for a single thread; its flag is O_EXCL.
        fd = native.run_in_fresh_thread(lambda: os.pidfd_open(threading.get_native_id(), os.O_EXCL))
    except OSError as error:
        _raise_if_transient(error)
        return False
    try:
        _poll(fd, 1000)  # the thread ends a moment after its function has returned
        return bool(get_info(fd, INFO_EXIT)[0] & INFO_EXIT)
    except OSError as error:
        _raise_if_transient(error)
        return False
    finally:
        native.close(fd)
