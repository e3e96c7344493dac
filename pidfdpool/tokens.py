"""The tokens of a worker: who has a task's token decides what becomes of it.

The host sends a worker tasks ahead, and may want some of them back. So for each task that it sends it puts down a
token first; the worker takes one before it begins a task, and the host takes one for each task that it wants back,
the last ones first. As many tasks are begun and taken back as there were tokens, and none is both.

Tokens are the count of an eventfd in semaphore mode (eventfd(2)): a read takes one or fails, in one step, and what
was not taken is still there when the worker has died. Both ends have a descriptor of the same eventfd; the host's
calls are made under the pool's lock, the worker's by its only thread. No call waits.
"""

from __future__ import annotations

import os

from pidfdpool import native

# Looked up before any host replaces functions of `os` by what may wait.
_read, _write = os.eventfd_read, os.eventfd_write


def pair() -> tuple[int, int]:
    """Return two descriptors of a new eventfd without tokens; close-on-exec, with numbers above 2.

    Raises:
        OSError: no descriptor or memory left; nothing stays open.
    """
    ours = native.above_stdio(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE))
    try:
        return ours, native.duplicate(ours)
    except OSError:
        native.close(ours)
        raise


def put(fd: int, count: int) -> None:
    """Put down so many tokens."""
    _write(fd, count)  # fails at 2**64 only


def take(fd: int) -> bool:
    """Take a token; False: there is none."""
    try:
        _read(fd)
    except BlockingIOError:
        return False
    return True


def take_many(fd: int, most: int) -> int:
    """Take up to so many tokens; return how many there were."""
    taken = 0
    while taken < most and take(fd):
        taken += 1
    return taken
