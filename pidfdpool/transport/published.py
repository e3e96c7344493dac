"""What a worker has made of a chunk of calls so far: a part of its black box, readable also after its death.

This file owns the layout of that part, and the checks of what is read there. The worker writes (`Ledger`): when each
call begins, and each result as soon as there is one. The host reads it (`read`, `call_started`) when a call has run
for too long, and when the worker has died; and it writes two words, under the pool's lock (`halt`, `allow`). Nothing
here knows what a result means.

    words, native 64 bits:
        0   the number of the chunk's task; 0: none
        1   time.monotonic_ns() at which the call under way began
        2   how many of the calls have begun
        3   written by the host: the number of the task of which no further call is to begin
        4   written by the host: how many calls the worker may still begin; 0: any number
    ends    32 bits for each call: where its result ends in the data. Written last, so what has an end is whole.
    data    the results, one after the other

A task can write there, and so can a bug in native code. So the host believes only what can be true: the ends grow,
and the calls that have begun are those with a result, and at most one more. What is wrong costs that chunk alone.

The calls that a worker has begun are few at a time, and it writes on from the start for each chunk. So few pages are
ever used. They are allocated before they are written to, because a page that cannot be had then would be a SIGBUS.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from contextlib import suppress

from pidfdpool.transport.black_box import PUBLISHED_OFFSET, PUBLISHED_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from mmap import mmap
    from typing import Any

OFFSET = PUBLISHED_OFFSET  # in the black box
MAX_CALLS = 1 << 14  # of a chunk
SIZE = PUBLISHED_SIZE  # of all of this
DATA = OFFSET + 4 * MAX_CALLS + (1 << 12)  # where the data begin in the black box
CAPACITY = OFFSET + SIZE - DATA  # bytes of data

# indexes into `Ledger.words`
TASK, STARTED, BEGUN, HALTED, ALLOWED = range(5)
_ENDS = OFFSET + 64
_WORDS = struct.Struct("@3q")
_WORD = struct.Struct("@q")
_STEP = 1 << 15  # bytes of data that are allocated at first


class Ledger:
    """The worker's end.

    Attributes:
        memory: everything up to the end of the data. The data begin at `DATA`.
        words, ends: see the module.
        limit: up to where data may be written without asking `has_room`.
    """

    def __init__(self, fd: int | None) -> None:
        """Map it. None: nobody sees what is written, and there is room for no data.

        Raises:
            OSError, ValueError: there is no room or memory, or the file is too short.
        """
        from mmap import mmap

        # Before Python 3.13 a mmap object keeps a duplicate of the descriptor.
        options: Any = {"trackfd": False} if sys.version_info >= (3, 13) else {}
        self._fd = fd
        self._most = OFFSET  # where the last byte of the data may be; there is room from the first chunk on
        self._allocated = DATA
        self._ends_allocated = _ENDS
        self.memory: mmap = mmap(-1, OFFSET + SIZE) if fd is None else mmap(fd, OFFSET + SIZE, **options)
        whole = memoryview(self.memory)
        self.words: memoryview = whole[OFFSET:_ENDS].cast("q")
        self.ends: memoryview = whole[_ENDS : _ENDS + 4 * MAX_CALLS].cast("I")
        whole.release()
        self.limit: int = DATA

    def begin(self, task: int, calls: int) -> bool:
        """Begin a chunk of so many calls, `MAX_CALLS` at most; return False if there is no memory for it."""
        end = _ENDS + 4 * calls
        if end > self._ends_allocated:
            if not self._allocate(OFFSET, end):
                return False
            self._ends_allocated = end
        words = self.words
        words[TASK] = words[STARTED] = words[BEGUN] = 0
        self.memory[_ENDS:end] = bytes(4 * calls)
        words[TASK] = task
        self._most = OFFSET + SIZE
        self.limit = self._allocated
        return True

    def has_room(self, end: int) -> bool:
        """Return whether data may be written up to there. Allocates what is missing."""
        if end > self._most:
            return False
        if end > self._allocated:
            limit = min(self._most, max(end, DATA + _STEP, 2 * self._allocated - DATA))
            if not self._allocate(self._allocated, limit):
                return False
            self._allocated = limit
        self.limit = self._allocated
        return True

    def _allocate(self, begin: int, end: int) -> bool:
        try:
            if self._fd is not None:
                os.posix_fallocate(self._fd, begin, end - begin)
        except OSError:
            return False
        return self._fd is not None

    def end_early(self) -> None:
        """Have no room for any further result of this chunk. From any thread, and from signal handlers."""
        self._most = OFFSET
        self.limit = DATA

    def results(self, calls: int) -> tuple[bytes, bytes]:
        """Return a copy of the ends and the data of the first calls."""
        if not calls:
            return b"", b""
        return bytes(self.ends[:calls]), self.memory[DATA : DATA + self.ends[calls - 1]]

    def close(self) -> None:
        """Unmap it. Its use raises ValueError from then on. In a forked child, which must not write here."""
        self.words.release()
        self.ends.release()
        self.memory.close()


class Published:
    """What a worker has published of a chunk, as far as it can be true.

    Attributes:
        task: the number of the chunk's task.
        begun: how many calls have begun.
        ends: where the results of the first calls end in `data`.
    """

    __slots__ = ("begun", "data", "ends", "task")

    def __init__(self, task: int, begun: int, ends: Sequence[int], data: bytes) -> None:
        self.task: int = task
        self.begun: int = begun
        self.ends: Sequence[int] = ends
        self.data: bytes = data


# ---- in the host -----------------------------------------------------------------------------------------------


def call_started(fd: int) -> float | None:
    """Return the time.monotonic() at which the last call of a chunk began; None: none did, or it cannot be known."""
    with suppress(OSError):
        data = os.pread(fd, _WORD.size, OFFSET + STARTED * _WORD.size)
        if len(data) == _WORD.size:
            at = float(_WORD.unpack(data)[0]) / 1e9
            return at if 0.0 < at <= time.monotonic() else None
    return None


def calls_begun(fd: int, task: int) -> int | None:
    """Return how many calls of the chunk of this task have begun; None: it cannot be known."""
    with suppress(OSError):
        chunk, _, begun = _WORDS.unpack(_exactly(fd, _WORDS.size, OFFSET))
        return int(begun) if chunk == task and 0 <= begun <= MAX_CALLS else None
    return None


def halt(fd: int, task: int) -> None:
    """Have the worker begin no further call of this task's chunk."""
    with suppress(OSError):
        os.pwrite(fd, _WORD.pack(task), OFFSET + HALTED * _WORD.size)


def allow(fd: int, calls: int) -> None:
    """Have the worker begin no more calls of its next chunk than that; 0: any number."""
    with suppress(OSError):
        os.pwrite(fd, _WORD.pack(calls), OFFSET + ALLOWED * _WORD.size)


def read(fd: int) -> Published | None:
    """Return what was published of the chunk that the worker had last; None: there was none, or it cannot be true."""
    with suppress(OSError):
        task, _, begun = _WORDS.unpack(_exactly(fd, _WORDS.size, OFFSET))
        if not task or not 0 <= begun <= MAX_CALLS:
            return None
        ends = memoryview(_exactly(fd, 4 * begun, _ENDS)).cast("I").tolist()
        at, whole = 0, 0
        for end in ends:
            if not at < end <= CAPACITY:
                break
            at = end
            whole += 1
        if begun - whole > 1 or any(ends[whole:]):
            return None
        return Published(task, begun, ends[:whole], _exactly(fd, at, DATA))
    return None


def _exactly(fd: int, size: int, offset: int) -> bytes:
    data = os.pread(fd, size, offset)
    if len(data) != size:
        raise OSError("the black box was cut off")
    return data
