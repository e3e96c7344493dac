"""Signals a process when the host is gone, even a process that is stopped or stuck in native code.

Called in the template and in workers, at their start, on their only thread.

The lifeline is a pipe. Nobody writes to it, and only the host holds its write end. When that is closed, because the
host is gone or has given up the pool, the kernel sends a signal to each process that has asked for it (O_ASYNC and
F_SETSIG, fcntl(2)). The process needs to run no code for this, whatever its state is.

The template watches the host's pidfd as well. That is needed because a child that the host has forked in C, without
Python's fork hooks, may keep a copy of the write end.
"""

from __future__ import annotations

import fcntl
import os
import select
from contextlib import suppress

from pidfdpool.process import native


def signal_me_at_end(fd: int, number: int) -> None:
    """Have the kernel send this process a signal when the pipe's write end is closed. Does nothing if it refuses.

    fd: the read end. No other process may have asked for a signal through the same open file description.
    """
    with suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETSIG, number)
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)


def kill_me_at_end(fd: int) -> int | None:
    """Have the kernel kill this process when the write end is closed, or exit at once if it is closed already.

    Return a read end of this process's own, which is readable once the host is gone; None: it cannot be opened.
    """
    try:
        own = native.above_stdio(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:  # no /proc, or no descriptor left
        return None
    signal_me_at_end(own, native.signal.SIGKILL)
    poller = native.poll()
    poller.register(own, select.POLLIN)
    if poller.poll(0):
        os._exit(1)
    return own
