"""The mark by which a worker's descendants are known, wherever they went.

A descendant may leave its worker's process group and session, and outlive its parents; what it cannot help inheriting
is its resource limits. RLIMIT_LOCKS limits nothing since Linux 2.4.25 (getrlimit(2)), but is still kept, inherited by
fork and exec, and readable from outside with prlimit(2). So each worker makes its soft limit a number of its own. The
hard limit stays, and with it whatever right there was to change either.

The worker puts the mark on, and takes it off while a task runs whose descendants are to be spared. The template reads
it on its children. Where limits cannot be set or read there are no marks, and only process groups are killed.

A mark says of itself that it is one. A template that was nested in a task may be killed, and then what its workers
left comes to the outer template, which never knew those workers: but whatever carries a mark and comes to a template
without being of a living worker of its own has lost its worker.
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress

_LIMIT = 10  # RLIMIT_LOCKS; the number is the same on every architecture, and `resource` has no name for it
_SIGN = 0x2B1D  # 14 bits
_RANDOM_BITS, _GENERATION_BITS = 24, 24  # 62 in all, so that no interface takes it for a negative number


def random_prefix() -> int:
    """Return the random part of one template's marks, so that those of nested pools differ."""
    return int.from_bytes(os.urandom(_RANDOM_BITS // 8))


def make(prefix: int, generation: int) -> int:
    """Return the mark of one worker of a template."""
    number = (_SIGN << _RANDOM_BITS | prefix) << _GENERATION_BITS
    return number | generation & (1 << _GENERATION_BITS) - 1


def of(pid: int) -> int | None:
    """Return the mark that a process carries; None if it has none, or is out of reach; 0 is the caller."""
    with suppress(OSError, ValueError):
        soft, _ = resource.prlimit(pid, _LIMIT)
        return soft if soft >> (_RANDOM_BITS + _GENERATION_BITS) == _SIGN else None
    return None


class Mark:
    """The calling process's own."""

    __slots__ = ("_before", "_mark")

    def __init__(self, mark: int) -> None:
        self._mark = mark
        self._before: int | None = None
        with suppress(OSError, ValueError):
            self._before = resource.getrlimit(_LIMIT)[0]

    def put_on(self) -> None:
        """Mark this process, and all that it starts from now on. Nothing happens where that is not possible."""
        self._set(self._mark)

    def take_off(self) -> None:
        """Go back to what was before: a nested worker then carries the mark of the worker around it."""
        self._set(self._before)

    def _set(self, soft: int | None) -> None:
        if soft is not None:
            with suppress(OSError, ValueError):  # refused, or above the hard limit
                resource.setrlimit(_LIMIT, (soft, resource.getrlimit(_LIMIT)[1]))
