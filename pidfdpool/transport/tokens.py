"""The tokens of a worker decide whether a task that was sent ahead runs there or goes back to the host.

The host sends a worker tasks ahead, and may want some of them back. So it adds one token for each task before it
sends the task. The worker takes a token before it begins a task, and the host takes one for each task that it wants
back, the last task first. So exactly as many tasks are begun or taken back as there were tokens, and no task is both.

Tokens are the count of a semaphore (`process.counters`): to take one is a single step that succeeds or fails, and a
token that was not taken is still there when the worker has died. Both ends have a descriptor of the same counter. The
host calls under the pool's lock, the worker on its only thread. No call waits.
"""

from __future__ import annotations

from pidfdpool.process import counters, native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

put: Final = counters.add
take: Final = counters.take


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
    taken = 0
    while taken < most and take(fd):
        taken += 1
    return taken
