"""What workers are to inherit: locks, queues, events, shared values and pipe ends of `multiprocessing`.

Such objects refuse to be pickled except while a process is being started, because they need descriptors to be
handed over with the bytes. `capture` plays that moment in the host, `release` undoes it in a worker. In between the
bytes are opaque, and the descriptors are kept open by host and template, for the workers that are yet to come.

Where the template is forked from the host nothing of this is needed: objects are inherited as they are.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from pidfdpool.process import native
from pidfdpool.serialization import payload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from pidfdpool.transport.framing import Buffer


class NeedsFork(Exception):
    """An object can be shared by forking from the process that made it, and in no other way."""


class _Descriptor:
    """Stands for a descriptor inside the bytes; multiprocessing's rebuilders call `detach`."""

    received: Sequence[int] = ()

    def __init__(self, index: int) -> None:
        self.index = index

    def detach(self) -> int:
        """Return the descriptor's number in this worker, whose property it now is."""
        return _Descriptor.received[self.index]


class _CapturingPopen:
    """Looks to multiprocessing like a process that is being started, and collects descriptors."""

    DupFd = _Descriptor

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def duplicate_for_child(self, fd: int) -> int:
        """Keep a copy of the descriptor and return its place in the list."""
        self.descriptors.append(os.dup(fd))
        return len(self.descriptors) - 1


def capture(value: object) -> tuple[list[Buffer], list[int]]:
    """Return the payload of value and the descriptors it needs, which the caller owns.

    Raises:
        NeedsFork: it holds a multiprocessing object that was made for the "fork" start method.
        Exception: it cannot be pickled.
    """
    context = sys.modules.get("multiprocessing.context")
    if context is None:
        return payload.dumps(value), []
    capturing = _CapturingPopen()
    before = context.get_spawning_popen()
    context.set_spawning_popen(capturing)
    try:
        return payload.dumps(value), capturing.descriptors
    except BaseException as error:
        for fd in capturing.descriptors:
            native.close(fd)
        # CPython's own words; it has no type of its own for this (multiprocessing/synchronize.py, SemLock).
        if isinstance(error, RuntimeError) and "fork context" in str(error):
            raise NeedsFork(str(error)) from error
        raise
    finally:
        context.set_spawning_popen(before)


def descriptors_of(values: Iterable[object]) -> set[int]:
    """Return the descriptors of those values that have one: sockets, files, pipe ends."""
    found = set()
    for value in values:
        with suppress(Exception):  # it is closed, or what it calls `fileno` is something else
            fd: Any = value.fileno()  # type: ignore[attr-defined]
            if isinstance(fd, int):
                found.add(fd)
    return found


def restore(buffers: Sequence[Buffer], descriptors: Sequence[int]) -> Any:
    """Rebuild the value in a worker. Once per process: it gives the descriptors away."""
    _Descriptor.received = descriptors
    return payload.loads(buffers)
