"""Counters that can be waited for: eventfd(2), or what comes near to it where a sandbox refuses that.

A counter is one descriptor, which may be duplicated and sent to other processes. Adding to it makes it readable; no
call waits. Where there is no eventfd it is a pipe whose two ends are one descriptor, with eight bytes for each unit:
they are what a read of an eventfd takes as well, so whoever only takes need not know which of them it is.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from pidfdpool.process import native

# What a sandbox that refuses a call has it fail with.
REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS)

# Looked up before any host replaces functions of `os` by what may wait.
_read, _write = os.eventfd_read, os.eventfd_write

_pipes = False  # some of this process's counters may be pipes


def make(*, semaphore: bool = False) -> int:
    """Return the descriptor of a new counter that is 0; close-on-exec, with a number above 2.

    semaphore: `take` takes one, and not all.

    Raises:
        OSError: no descriptor or memory left; or eventfd2 is refused, and there is no /proc for the other way.
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
    """Add to a counter. One that is full stays as it is: nobody is told less by that."""
    if not _pipes:
        _write(fd, count)  # fails at 2**64 only
        return
    with suppress(BlockingIOError):
        for _ in range(count):
            _write(fd, 1)


def take(fd: int) -> bool:
    """Take what there is, or one, if it is a semaphore; False: there is nothing."""
    try:
        _read(fd)
    except BlockingIOError:
        return False
    return True


def clear(fd: int) -> None:
    """Take all that there is from a counter that is no semaphore."""
    while take(fd) and _pipes:
        pass
