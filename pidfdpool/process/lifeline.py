"""The kernel's word that the host is gone, for processes that cannot look: a stopped one, one that is stuck in C.

The lifeline is a pipe into which nobody writes, and whose write end the host alone holds. When that is closed,
because the host is gone or has given the pool up, the kernel sends a signal to each process that has asked for it
(O_ASYNC and F_SETSIG, fcntl(2)). No code runs for this, in whatever state the process is.

It is beside what the template does, which has a pidfd of the host: a child that the host has forked in C, without a
word to Python, may keep a copy of the write end.
"""

from __future__ import annotations

import fcntl
import os
import select
from contextlib import suppress

from pidfdpool.process import native


def signal_me_at_end(fd: int, number: int) -> None:
    """Have this process sent a signal when the lifeline ends. Nothing happens where the kernel refuses it.

    fd: its read end; no other process may have asked for a signal through the same open file description.
    """
    with suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETSIG, number)
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)


def kill_me_at_end(fd: int) -> int | None:
    """Have this process killed when the lifeline ends, or at once if it has ended.

    Return a read end of this process's own, which is readable then; None: no such can be had.
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
