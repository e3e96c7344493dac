"""Counters that can be waited for: eventfd(2), or a pipe where a sandbox refuses that.

Used in every process, on any thread, for wakeups and for tokens. No call waits.

A counter is one descriptor, which may be duplicated and sent to other processes. It is readable while it is above 0.
Where there is no eventfd it is a pipe whose two ends are one descriptor, and each unit is eight bytes in it. A read
of an eventfd takes eight bytes, too. So a caller that only takes need not know which kind it is.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from pidfdpool.process import native

# The errors with which system calls fail that a sandbox refuses.
REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS)

# Looked up here, before a host can replace functions of `os` by functions that may wait.
_read, _write = os.eventfd_read, os.eventfd_write

_pipes = False  # some of this process's counters may be pipes


def make(*, semaphore: bool = False) -> int:
    """Return the descriptor of a new counter that is 0. It is close-on-exec and has a number above 2.

    semaphore: `take` takes one unit, and not all.

    Raises:
        OSError: no descriptor or memory left; or eventfd2 is refused, and there is no /proc, which a pipe needs.
    """
    global _pipes  # noqa: PLW0603  once is enough
    try:
        fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | (os.EFD_SEMAPHORE if semaphore else 0))
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        fd = _pipe(error)
        _pipes = True
    return native.above_stdio(fd)


def _pipe(refused: OSError) -> int:
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.open(f"/proc/self/fd/{reader}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        raise OSError(refused.errno, f"eventfd2: {refused.strerror}") from refused
    finally:
        native.close(reader)
        native.close(writer)


def add(fd: int, count: int = 1) -> None:
    """Add to a counter. A full counter is not changed; it stays readable."""
    if not _pipes:
        try:  # noqa: SIM105  called for each task that is sent
            _write(fd, count)
        except BlockingIOError:  # at 2**64 - 1 only: a task has filled the tokens of its worker
            pass
        return
    with suppress(BlockingIOError):
        for _ in range(count):
            _write(fd, 1)


def take(fd: int) -> bool:
    """Take all units, or one unit of a semaphore; return False if the counter is 0."""
    try:
        _read(fd)
    except BlockingIOError:
        return False
    return True


def clear(fd: int) -> None:
    """Set a counter to 0 that is no semaphore."""
    while take(fd) and _pipes:
        pass
