"""The tokens of a worker decide whether a task that was sent ahead runs there or goes back to the host.

The host sends a worker tasks ahead, and may want some of them back. So it adds one token for each task before it
sends the task. The worker takes a token before it begins a task, and the host takes one for each task that it wants
back, the last task first. So exactly as many tasks are begun or taken back as there were tokens, and no task is both.

Tokens are the count of a semaphore (`process.counters`): to take one is a single step that succeeds or fails, and a
token that was not taken is still there when the worker has died. Both ends have a descriptor of the same counter. The
host calls under the pool's lock, the worker on its only thread. No call waits.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

from pidfdpool.process import counters, native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

put: Final = counters.add
take: Final = counters.take


def never_wait(fd: int) -> None:
    """Have no call wait for a token, at either end.

    Both descriptors share this setting (one open file description), and a task that makes all descriptors blocking,
    which it may not know, changes it. The host would then wait for ever for a token that it wants to take back, and
    the worker for one that the host has taken.
    """
    with suppress(OSError):  # a task has closed the descriptor, or a sandbox refuses this call
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)


def pair() -> tuple[int, int]:
    """Return two descriptors of a new counter without tokens; close-on-exec, with numbers above 2.

    Raises:
        OSError: no descriptor or memory is left; nothing stays open.
    """
    ours = counters.make(semaphore=True)
    try:
        return ours, native.duplicate(ours)
    except OSError:
        native.close(ours)
        raise


def take_many(fd: int, most: int) -> int:
    """Take up to `most` tokens; return how many were taken."""
    never_wait(fd)
    taken = 0
    while taken < most and take(fd):
        taken += 1
    return taken
