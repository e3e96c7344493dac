"""When each of a worker's tasks began and ended: a part of its black box that is written while the pool is observed.

This file owns the layout of that part. The worker writes an entry for each answer, before it writes the answer
(`recording`). The host reads it when it has taken the answer (`RunTimesReader`), in whichever thread did, under the
pool's lock.

    an entry    native 64 bits, the number of the task; two native doubles, time.monotonic() when it began and ended

The entries form a ring in the order of the answers. It has room for what two full pipes hold, and for the answers
that the host has taken and set aside. So what the host has not read is not overwritten. A task can write there, too.
So the host believes only an entry with the number of the task, and who uses the times has to see whether they are
possible.

The host maps the ring, because to read it by system calls takes twice as long. A file that a task can cut short is
not mapped: that would end the host with SIGBUS.
"""

from __future__ import annotations

import fcntl
import math
import os
import struct
import sys
from contextlib import suppress
from itertools import chain, repeat

from pidfdpool.transport import framing
from pidfdpool.transport.black_box import RUN_TIMES_OFFSET, RUN_TIMES_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Sequence
    from mmap import mmap
    from typing import Any, TypeAlias

    from pidfdpool.transport.framing import Buffer

    Write: TypeAlias = Callable[[int, float, float, int, int, list[Buffer]], None]

ENTRY = struct.Struct("@qdd")
CAPACITY = RUN_TIMES_SIZE // ENTRY.size  # entries
_SIZE = ENTRY.size
_END = CAPACITY * _SIZE


def recording(write: Write, fd: int, on: int = 1) -> Write:
    """Return what writes an answer, and adds an entry before that: the worker's end.

    If on is 0, or there is no room or memory for that part of the black box, it is `write` itself.

    write: writes an answer: its kind, when the task began and ended, flags, the task's number, and buffers.
    """
    if not on:
        return write
    from mmap import mmap

    options: Any = {"trackfd": False} if sys.version_info >= (3, 13) else {}
    try:
        os.posix_fallocate(fd, RUN_TIMES_OFFSET, RUN_TIMES_SIZE)  # a page that cannot be had later would be a SIGBUS
        memory = mmap(fd, RUN_TIMES_OFFSET + RUN_TIMES_SIZE, **options)  # from the start: pages may be of 64 KB
    except (OSError, ValueError):
        return write
    pack_into, outdated = ENTRY.pack_into, framing.OUTDATED
    # From the first entry to the last, again and again. To count here would take as long as to write an entry.
    place = chain.from_iterable(repeat(range(RUN_TIMES_OFFSET, RUN_TIMES_OFFSET + _END, _SIZE))).__next__

    def record_and_write(
        kind: int, began: float, ended: float, flags: int, number: int, buffers: list[Buffer]
    ) -> None:
        if kind != outdated:  # which is no answer: the task has not begun
            pack_into(memory, place(), number, began, ended)
        write(kind, began, ended, flags, number, buffers)

    return record_and_write


class RunTimesReader:
    """The host's end, for one worker. The caller holds the pool's lock."""

    __slots__ = ("_aligned", "_has_looked", "_memory", "_next")

    def __init__(self) -> None:
        self._has_looked = False  # whether the file can be mapped
        self._memory: mmap | None = None
        self._next = 0  # the entry of the next answer
        self._aligned = False  # an entry was found: from now on each answer has one

    def read(self, fd: int | None, numbers: array[int]) -> tuple[Sequence[float], Sequence[float]]:
        """Return when these tasks began and ended; NaN: it is not known.

        numbers: of tasks of which the answers were read, in their order; an array of type "q".
        fd: the worker's black box; None: there is none.
        """
        count = len(numbers)
        data = b"" if fd is None or count > CAPACITY else self._read(fd, self._next, count)
        if len(data) < count * _SIZE:
            return (math.nan,) * count, (math.nan,) * count
        words: Any = memoryview(data).cast("q")
        times: Any = memoryview(data).cast("d")
        if self._aligned and words[::3] == numbers:
            self._next = (self._next + count) % CAPACITY
            return times[1::3], times[2::3]  # not converted here, where every task has to wait for it
        if self._aligned and fd is not None and self._is_at_start(fd, numbers):
            return self.read(fd, numbers)
        return self._matched(numbers, words[::3].tolist(), times[1::3].tolist(), times[2::3].tolist())

    def _is_at_start(self, fd: int, numbers: array[int]) -> bool:
        """Go to the first entry if these tasks are there; return whether they are.

        A task may have begun while an earlier recording was at its first entry. Its answer then looks like the first
        one of this recording, which has its own first entry still to write.
        """
        data = self._read(fd, 0, len(numbers)) if self._next else b""
        found = len(data) == len(numbers) * _SIZE and memoryview(data).cast("q")[::3] == numbers
        if found:
            self._next = 0
        return found

    def _matched(
        self, numbers: array[int], found: list[int], began: list[float], ended: list[float]
    ) -> tuple[list[float], list[float]]:
        """Return the times where the numbers are right. The first answers may come from before the recording."""
        skipped = 0
        if not self._aligned:
            skipped = numbers.index(found[0]) if found[0] in numbers else len(numbers)
            self._aligned = skipped < len(numbers)
        used = len(numbers) - skipped
        self._next = (self._next + used) % CAPACITY
        entries = dict(zip(found[:used], zip(began, ended, strict=True), strict=False))
        times = [entries.get(number, (math.nan, math.nan)) for number in numbers]
        return [began for began, _ in times], [ended for _, ended in times]

    def _read(self, fd: int, entry: int, count: int) -> bytes:
        first, size = entry * _SIZE, count * _SIZE
        if self._aligned and not self._has_looked:  # its worker has allocated all of it: no page is missing
            self._has_looked, self._memory = True, _mapped(fd)
        with suppress(OSError):
            data = self._part(fd, first, min(size, _END - first))
            if first + size > _END:
                data += self._part(fd, 0, first + size - _END)
            return data
        return b""

    def _part(self, fd: int, first: int, size: int) -> bytes:
        at = RUN_TIMES_OFFSET + first
        return os.pread(fd, size, at) if self._memory is None else self._memory[at : at + size]


def _mapped(fd: int) -> mmap | None:
    """Return a mapping of the box up to the ring's end; None: a task can cut it short, or it cannot be mapped."""
    from pidfdpool.transport.segments import memory

    end = RUN_TIMES_OFFSET + RUN_TIMES_SIZE
    with suppress(OSError, ValueError):  # a file on a disk has no seals
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK and os.fstat(fd).st_size >= end:
            return memory.map_file(fd, end, memory.SHARED)
    return None
