"""The tokens of a worker: who has a task's token decides what becomes of it.

The host sends a worker tasks ahead, and may want some of them back. So for each task that it sends it puts down a
token first; the worker takes one before it begins a task, and the host takes one for each task that it wants back,
the last ones first. As many tasks are begun and taken back as there were tokens, and none is both.

Tokens are the count of a semaphore (`counters`): whoever takes one does so in one step, or fails, and what was not
taken is still there when the worker has died. Both ends have a descriptor of the same counter; the host's
calls are made under the pool's lock, the worker's by its only thread. No call waits.
"""

from __future__ import annotations

from pidfdpool.process import counters, native

put = counters.add
take = counters.take


def pair() -> tuple[int, int]:
    """Return two descriptors of a new counter without tokens; close-on-exec, with numbers above 2.

    Raises:
        OSError: no descriptor or memory left; nothing stays open.
    """
    ours = counters.make(semaphore=True)
    try:
        return ours, native.duplicate(ours)
    except OSError:
        native.close(ours)
        raise


def take_many(fd: int, most: int) -> int:
    """Take up to so many tokens; return how many there were."""
    taken = 0
    while taken < most and take(fd):
        taken += 1
    return taken
