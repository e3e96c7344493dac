"""Sends workers what they can get only at their start: `multiprocessing` locks, queues, events, values, pipe ends.

Such objects refuse to be pickled, except while a process is being started, because their descriptors have to be
handed over together with the bytes. `capture` imitates that moment in the host, on the thread that submits; `restore`
rebuilds the objects in a worker. In between the bytes are not unpickled. Host and template keep the descriptors open
for workers that start later.

Where the template is forked from the host none of this is needed: such objects are inherited as they are.
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
    """An object can be shared only by a fork of the process that made it."""


class _Descriptor:
    """Stands for a descriptor in the pickle. multiprocessing's rebuilders call `detach`."""

    received: Sequence[int] = ()

    def __init__(self, index: int) -> None:
        self.index = index

    def detach(self) -> int:
        """Return the descriptor's number in this worker, which owns it from now on."""
        return _Descriptor.received[self.index]


class _CapturingPopen:
    """Imitates multiprocessing's object for a process that is being started, and collects descriptors."""

    DupFd = _Descriptor

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def duplicate_for_child(self, fd: int) -> int:
        """Keep a duplicate of the descriptor and return its index."""
        self.descriptors.append(os.dup(fd))
        return len(self.descriptors) - 1


def capture(value: object) -> tuple[list[Buffer], list[int]]:
    """Return the payload of value, and the descriptors that it needs, which the caller then owns.

    Raises:
        NeedsFork: the value holds a multiprocessing object that was made for the "fork" start method.
        Exception: the value cannot be pickled.
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
        # CPython raises a plain RuntimeError with this text (multiprocessing/synchronize.py, SemLock).
        if isinstance(error, RuntimeError) and "fork context" in str(error):
            raise NeedsFork(str(error)) from error
        raise
    finally:
        context.set_spawning_popen(before)


def descriptors_of(values: Iterable[object]) -> set[int]:
    """Return the descriptors of those values that have one: sockets, files, pipe ends."""
    found = set()
    for value in values:
        with suppress(Exception):  # it is closed, or its `fileno` is something else
            fd: Any = value.fileno()  # type: ignore[attr-defined]
            if isinstance(fd, int):
                found.add(fd)
    return found


def restore(buffers: Sequence[Buffer], descriptors: Sequence[int]) -> Any:
    """Rebuild the value in a worker. Only once per process, because the value takes over the descriptors."""
    _Descriptor.received = descriptors
    return payload.loads(buffers)
