"""Records when a worker's tasks ran, while somebody observes the pool. On the worker's only thread.

The worker's loop has `recording` called when the host says so, and then writes each answer by what that returns. So
this costs nothing when nobody observes the pool.
"""

from __future__ import annotations

import time

from pidfdpool.transport import framing
from pidfdpool.transport.run_times import recorder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from pidfdpool.transport.framing import Buffer

    Write: TypeAlias = Callable[[int, float, int, int, list[Buffer]], None]


def recording(write: Write, fd: int, on: int) -> Write:
    """Return what writes an answer and records before that when its task ran; with on=0, `write` itself.

    fd: the black box. If there is no room for that, nothing is recorded, and the host knows less.
    """
    if not on:
        return write
    try:
        add = recorder(fd)
    except (OSError, ValueError):
        return write
    clock, outdated = time.monotonic, framing.OUTDATED

    def record_and_write(kind: int, began: float, flags: int, number: int, buffers: list[Buffer]) -> None:
        if kind != outdated:
            add(number, began, clock())
        write(kind, began, flags, number, buffers)

    return record_and_write
