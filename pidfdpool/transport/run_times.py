"""When a worker's tasks ran, and their sizes: a part of its black box that is written while the pool is observed.

This file owns the layout of that part. The worker writes an entry for each answer, before it writes the answer
(`ring`). The host reads it when it has taken the answer (`RunTimesReader`), in whichever thread did, under the pool's
lock.

    an entry    native 64 bits, the number of the task; two native doubles, time.monotonic() when it began and ended;
                two times native 64 bits, the bytes of its pickled call and of its answer as it is sent, -1: not known

The entries form a ring in the order of the answers. It has room for what two full pipes hold, and for the answers
that the host has taken and set aside. So what the host has not read is not overwritten. A task can write there, too.
So the host believes only an entry with the number of the task, and who uses the figures has to see whether they are
possible.

The worker measures the sizes, because it has less to do than the host. The host maps the ring, because to read it by
system calls takes twice as long. A file that a task can cut short is not mapped: that would end the host with SIGBUS.
"""

from __future__ import annotations

import fcntl
import math
import os
import struct
import sys
from contextlib import suppress
from functools import partial
from itertools import chain, repeat

from pidfdpool.transport.black_box import RUN_TIMES_OFFSET, RUN_TIMES_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Iterable, Sequence
    from mmap import mmap
    from typing import Any, TypeAlias

    # When each task began and ended, and the bytes of its call and of its answer.
    Columns: TypeAlias = tuple[Sequence[float], Sequence[float], Sequence[int], Sequence[int]]

ENTRY = struct.Struct("@qddqq")
CAPACITY = RUN_TIMES_SIZE // ENTRY.size  # entries
_SIZE = ENTRY.size
_WORDS = _SIZE // 8
_END = CAPACITY * _SIZE


def ring(fd: int) -> tuple[Callable[..., None], Callable[[], int]] | None:
    """Return what writes an entry, and what tells where: the worker's end. None: there is no room or memory for it.

    The first is called with a place and the five fields. The second returns the places, from the first to the last
    again and again: to count them in Python would take as long as to write an entry.
    """
    from mmap import mmap

    options: Any = {"trackfd": False} if sys.version_info >= (3, 13) else {}
    try:
        os.posix_fallocate(fd, RUN_TIMES_OFFSET, RUN_TIMES_SIZE)  # a page that cannot be had later would be a SIGBUS
        memory = mmap(fd, RUN_TIMES_OFFSET + RUN_TIMES_SIZE, **options)  # from the start: pages may be of 64 KB
    except (OSError, ValueError):
        return None
    places = chain.from_iterable(repeat(range(RUN_TIMES_OFFSET, RUN_TIMES_OFFSET + _END, _SIZE)))
    return partial(ENTRY.pack_into, memory), places.__next__


class RunTimesReader:
    """The host's end, for one worker. The caller holds the pool's lock."""

    __slots__ = ("_aligned", "_has_looked", "_memory", "_next")

    def __init__(self) -> None:
        self._has_looked = False  # whether the file can be mapped
        self._memory: mmap | None = None
        self._next = 0  # the entry of the next answer
        self._aligned = False  # an entry was found: from now on each answer has one

    def read(self, fd: int | None, numbers: array[int]) -> Columns:
        """Return when these tasks began and ended (NaN: it is not known), and their sizes (-1: not known).

        numbers: of tasks of which the answers were read, in their order; an array of type "q".
        fd: the worker's black box; None: there is none.
        """
        count = len(numbers)
        data = b"" if fd is None or count > CAPACITY else self._read(fd, self._next, count)
        if len(data) < count * _SIZE:
            return (math.nan,) * count, (math.nan,) * count, (-1,) * count, (-1,) * count
        words: Any = memoryview(data).cast("q")
        times: Any = memoryview(data).cast("d")
        if self._aligned and words[::_WORDS] == numbers:
            self._next = (self._next + count) % CAPACITY
            # Not converted here, where every task has to wait for it.
            return times[1::_WORDS], times[2::_WORDS], words[3::_WORDS], words[4::_WORDS]
        if self._aligned and fd is not None and self._is_at_start(fd, numbers):
            return self.read(fd, numbers)
        return self._matched(numbers, ENTRY.iter_unpack(data))

    def _is_at_start(self, fd: int, numbers: array[int]) -> bool:
        """Go to the first entry if these tasks are there; return whether they are.

        A task may have begun while an earlier recording was at its first entry. Its answer then looks like the first
        one of this recording, which has its own first entry still to write.
        """
        data = self._read(fd, 0, len(numbers)) if self._next else b""
        found = len(data) == len(numbers) * _SIZE and memoryview(data).cast("q")[::_WORDS] == numbers
        if found:
            self._next = 0
        return found

    def _matched(self, numbers: array[int], found: Iterable[tuple[int, float, float, int, int]]) -> Columns:
        """Return what is told where the numbers are right. The first answers may come from before the recording."""
        entries = list(found)
        skipped, first = 0, entries[0][0]
        if not self._aligned:
            skipped = numbers.index(first) if first in numbers else len(numbers)
            self._aligned = skipped < len(numbers)
        used = len(numbers) - skipped
        self._next = (self._next + used) % CAPACITY
        told = {entry[0]: entry for entry in entries[:used]}
        rows = [told.get(number, (number, math.nan, math.nan, -1, -1)) for number in numbers]
        _, began, ended, calls, answers = zip(*rows, strict=True)
        return began, ended, calls, answers

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
