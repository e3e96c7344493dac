"""When each of a worker's tasks began and ended: a part of its black box that is written while the pool is observed.

This file owns the layout of that part. The worker writes an entry for each answer, before it writes the answer
(`RunTimes`). The host reads it when it has taken the answer (`read`), in whichever thread did, under the pool's lock.

    an entry    native 64 bits, the number of the task; two native doubles, time.monotonic() when it began and ended

The entries form a ring in the order of the answers. It has room for more answers than a pipe holds, so what the host
has not read is not overwritten. A task can write there, too. So the host believes only an entry with the number of
the task, and times that are possible.
"""

from __future__ import annotations

import math
import os
import struct
import sys
from contextlib import suppress

from pidfdpool.transport.black_box import RUN_TIMES_OFFSET, RUN_TIMES_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENTRY = struct.Struct("@qdd")
CAPACITY = RUN_TIMES_SIZE // ENTRY.size  # entries
_SIZE = ENTRY.size
_END = CAPACITY * _SIZE


class RunTimes:
    """The worker's end."""

    def __init__(self, fd: int) -> None:
        """Map that part of the black box.

        Raises:
            OSError, ValueError: there is no room or memory, or the file is too short.
        """
        from mmap import mmap

        os.posix_fallocate(fd, RUN_TIMES_OFFSET, RUN_TIMES_SIZE)  # a page that cannot be had later would be a SIGBUS
        options: Any = {"trackfd": False} if sys.version_info >= (3, 13) else {}
        self._memory: mmap = mmap(fd, RUN_TIMES_SIZE, offset=RUN_TIMES_OFFSET, **options)
        self._at = 0

    def add(self, number: int, began: float, ended: float) -> None:
        """Add an entry."""
        at = self._at
        ENTRY.pack_into(self._memory, at, number, began, ended)
        at += _SIZE
        self._at = at if at < _END else 0


class RunTimesReader:
    """The host's end, for one worker. The caller holds the pool's lock."""

    __slots__ = ("_aligned", "_next")

    def __init__(self) -> None:
        self._next = 0  # the entry of the next answer
        self._aligned = False  # an entry was found: from now on each answer has one

    def read(self, fd: int | None, numbers: list[int]) -> tuple[list[float], list[float]]:
        """Return when these tasks began and ended, of which the worker's answers were read; NaN: it is not known.

        numbers: consecutive answers, in their order.
        fd: the worker's black box; None: there is none.
        """
        count = len(numbers)
        data = b"" if fd is None or count > CAPACITY else self._read(fd, count)
        if len(data) < count * _SIZE:
            return [math.nan] * count, [math.nan] * count
        words: Any = memoryview(data).cast("q")
        times: Any = memoryview(data).cast("d")
        found: list[int] = words[::3].tolist()
        began: list[float] = times[1::3].tolist()
        ended: list[float] = times[2::3].tolist()
        skipped = 0
        if not self._aligned:
            if found[0] not in numbers:
                return [math.nan] * count, [math.nan] * count
            # The first answers were written before the worker began to record.
            self._aligned = True
            skipped = numbers.index(found[0])
            unknown = [math.nan] * skipped
            found = [0] * skipped + found[: count - skipped]
            began, ended = unknown + began[: count - skipped], unknown + ended[: count - skipped]
        self._next = (self._next + count - skipped) % CAPACITY
        if found != numbers:
            for index, number in enumerate(found):
                if number != numbers[index]:
                    began[index] = ended[index] = math.nan
        return began, ended

    def _read(self, fd: int, count: int) -> bytes:
        first, size = self._next * _SIZE, count * _SIZE
        with suppress(OSError):
            data = os.pread(fd, min(size, _END - first), RUN_TIMES_OFFSET + first)
            if first + size > _END:
                data += os.pread(fd, first + size - _END, RUN_TIMES_OFFSET)
            return data
        return b""
