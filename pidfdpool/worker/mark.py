"""The mark by which the template recognizes a worker's descendants, even if they left the worker's process group.

The worker sets and removes its own mark, on its thread (`Mark`). The template makes marks, and reads those of its
children (`make`, `of`).

A descendant may leave its worker's process group and session, and outlive its parents. But it always inherits the
resource limits. RLIMIT_LOCKS limits nothing since Linux 2.4.25 (getrlimit(2)), but the kernel still stores it, fork
and exec pass it on, and prlimit(2) reads it from outside. So each worker sets its soft limit to a number of its own.
The hard limit is not changed, nor is the right to change either of them.

The mark is removed while a task runs whose descendants are to be spared. Where limits cannot be set or read there are
no marks, and only process groups are killed.

A mark can be told from an ordinary limit. That matters where a template is nested in a task and is killed. Then the
outer template adopts what its workers left, although it never knew these workers. But a process that has a mark and
becomes a template's child, without belonging to a living worker of that template, has lost its worker.
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress

_LIMIT = 10  # RLIMIT_LOCKS; the number is the same on every architecture, and `resource` has no name for it
_SIGN = 0x2B1D  # 14 bits, which tell a mark from an ordinary limit
_RANDOM_BITS, _GENERATION_BITS = 24, 24  # 62 in all, so that no interface takes it for a negative number


def random_prefix() -> int:
    """Return the random part of one template's marks. It makes the marks of nested pools differ."""
    return int.from_bytes(os.urandom(_RANDOM_BITS // 8))


def make(prefix: int, generation: int) -> int:
    """Return the mark of one worker of a template."""
    number = (_SIGN << _RANDOM_BITS | prefix) << _GENERATION_BITS
    return number | generation & (1 << _GENERATION_BITS) - 1


def of(pid: int) -> int | None:
    """Return the mark of a process; None if it has none, or may not be read. pid: 0 means the caller."""
    with suppress(OSError, ValueError):
        soft, _ = resource.prlimit(pid, _LIMIT)
        return soft if soft >> (_RANDOM_BITS + _GENERATION_BITS) == _SIGN else None
    return None


class Mark:
    """The mark of the calling process."""

    __slots__ = ("_mark", "_original")

    def __init__(self, mark: int) -> None:
        self._mark = mark
        self._original: int | None = None
        with suppress(OSError, ValueError):
            self._original = resource.getrlimit(_LIMIT)[0]

    def set(self) -> None:
        """Mark this process, and all that it starts from now on. Does nothing where that is not possible."""
        self._set(self._mark)

    def remove(self) -> None:
        """Restore the original limit. That of a nested worker is the mark of the worker in which the pool runs."""
        self._set(self._original)

    def _set(self, soft: int | None) -> None:
        if soft is not None:
            with suppress(OSError, ValueError):  # refused, or above the hard limit
                resource.setrlimit(_LIMIT, (soft, resource.getrlimit(_LIMIT)[1]))
