"""A worker's black box: a small memory file that shows what the worker had begun and its stack, also after its death.

This file owns the layout of an unnamed memory file, and the two signals that write a Python stack into it. The
template makes a box before each fork (`create`). The worker writes (`map_words`, `record_heartbeat`,
`record_stacks`). The host has a descriptor of the same file and reads it (`last_heartbeat`, `last_begun`,
`read_stack`); it writes under the pool's lock. Nothing here knows pools.

    bytes 0..7    native double: time.monotonic() of the last heartbeat, 0.0: there was none
    bytes 8..15   native 64 bits: 1 once the worker records what it begins
    bytes 16..23  the same: the number of the task that it began last
    bytes 24..31  the same, written by the host: the number of the first task taken back; -1: not decided yet
    bytes 32..39  the same: 1 once the host has the box, so that it can record this
    bytes 40..47  the same, written by the worker: the number of the task for which it took a token
    bytes 1024..  marks: one byte of 1 for each call of a chunk of map that was begun, or for each few
    bytes 4096..  what was made of a chunk of map, see `published`
    after that    when tasks ran, see `run_times`; then the stacks that faulthandler wrote, one after the other

The host must not rely on what it reads, because a task can write there. So it ignores every impossible value.

Which signal writes the stack? The obvious way is a signal of its own, followed by SIGTERM. But pending signals are
delivered in the order of their numbers, and a fatal one ends the process before the handler of any other has run. A
worker that was stopped, or that got no CPU time, would then die without a stack. So SIGTERM itself writes the stack,
and then has its previous effect. Only a task that replaces SIGTERM's handler has to be asked by STACK_SIGNAL.
faulthandler's handlers are C code that needs no GIL, so they also run while native code holds it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
import time
from contextlib import suppress

from pidfdpool.process.counters import REFUSALS
from pidfdpool.process.native import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mmap import mmap
    from typing import Any

MAX_MARKS = 1024  # at most
PUBLISHED_OFFSET = 1 << 12
PUBLISHED_SIZE = 1 << 20
RUN_TIMES_OFFSET = PUBLISHED_OFFSET + PUBLISHED_SIZE
RUN_TIMES_SIZE = 50 << 12
STACKS_OFFSET = RUN_TIMES_OFFSET + RUN_TIMES_SIZE
# writes a stack and does nothing else; the last real-time signal is valgrind's
STACK_SIGNAL = int(signal.SIGRTMAX) - 1

# indexes into what `map_words` returns
RECORDS_BEGUN, LAST_BEGUN, TAKEN_BACK_FROM, ANNOUNCED, CLAIMED = 1, 2, 3, 4, 5
UNDECIDED = -1  # a value of TAKEN_BACK_FROM: the host is about to decide which tasks it takes back
_HEARTBEAT = struct.Struct("@d")
_MARKS_OFFSET = 1024
_MAPPED = 2048  # words and marks
_NO_MARKS = bytes(MAX_MARKS)
_WORD = struct.Struct("@q")
_DIRECTORIES = ("/dev/shm", "/tmp", "/var/tmp")  # chosen for their room; an O_TMPFILE file has no name in them


def create() -> int:
    """Return a new, empty black box: a descriptor, close-on-exec.

    It is sealed, where that is possible, so that no task can cut it short. The worker has mapped it, and would be
    killed by SIGBUS at the next task, which has done nothing.

    Raises:
        OSError: no descriptor or memory is left, or there is no place for such a file.
    """
    fd = _create()
    with suppress(OSError):  # the disk is full; then nobody shares the first bytes
        os.pwrite(fd, bytes(_MAPPED), 0)
        os.ftruncate(fd, STACKS_OFFSET)
    with suppress(OSError):  # a file on a disk has no seals
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return fd


def _create() -> int:
    try:
        return os.memfd_create("pidfdpool-blackbox", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except AttributeError:  # this Python was built with a C library that did not know it
        failure = OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        failure = error
    for directory in _DIRECTORIES:
        try:
            return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            failure = error
    raise failure


# ---- in the worker ---------------------------------------------------------------------------------------------


def map_words(fd: int) -> memoryview:
    """Return the first bytes of the box as 64-bit numbers: memory that the host also sees, without a system call.

    If there is no room or memory for this, only the caller sees the numbers.
    """
    try:
        words = memoryview(_mapped(fd)).cast("q")
    except (OSError, ValueError):  # ValueError: the file is too short
        return memoryview(bytearray(_MAPPED)).cast("q")
    words[RECORDS_BEGUN] = 1
    return words


def map_heartbeat(fd: int) -> memoryview[float]:
    """Return the heartbeat as memory: one double, that the host sees without a system call of this process.

    If there is no room or memory for this, only the caller sees it.
    """
    try:
        return memoryview(_mapped(fd)).cast("d")
    except (OSError, ValueError):  # ValueError: the file is too short
        return memoryview(bytearray(_MAPPED)).cast("d")


def record_heartbeat(fd: int, now: float) -> None:
    """Record a heartbeat. Any thread; it writes at a fixed position, so it does not move where stacks are written."""
    os.pwrite(fd, _HEARTBEAT.pack(now), 0)


def map_marks(fd: int) -> mmap:
    """Return a mapping of the box for `clear_marks`. Each mark is one byte of 1, written after the one before.

    Raises:
        OSError, ValueError: it cannot be mapped.
    """
    os.pwrite(fd, bytes(MAX_MARKS), _MARKS_OFFSET)
    return _mapped(fd)


def _mapped(fd: int) -> mmap:
    """Return a mapping of the words and the marks, which the host also sees."""
    from mmap import mmap

    # Before Python 3.13 a mmap object keeps a duplicate of the descriptor.
    options: Any = {"trackfd": False} if sys.version_info >= (3, 13) else {}
    return mmap(fd, _MAPPED, **options)


def clear_marks(mapping: mmap) -> None:
    """Remove all marks; the next mark is the first."""
    mapping[_MARKS_OFFSET:] = _NO_MARKS
    mapping.seek(_MARKS_OFFSET)


def record_stacks(fd: int, *, at_sigterm: bool = True) -> None:
    """Have SIGTERM and STACK_SIGNAL write the Python stack of every thread into the box.

    After that SIGTERM has its previous effect (chain): it ends the process, and the parent sees that it did.

    at_sigterm: False: only STACK_SIGNAL does.
    """
    import faulthandler

    os.lseek(fd, STACKS_OFFSET, os.SEEK_SET)
    if at_sigterm:
        faulthandler.register(signal.SIGTERM, file=fd, all_threads=True, chain=True)
    faulthandler.register(STACK_SIGNAL, file=fd, all_threads=True, chain=False)


def stop_recording_stacks() -> None:
    """Undo `record_stacks` in a forked child, because its stacks are not the worker's.

    A handler that a task has installed since then stays in place: to unregister would overwrite it.
    """
    import faulthandler

    for number in (signal.SIGTERM, STACK_SIGNAL):
        if signal.getsignal(number) == signal.SIG_DFL:
            faulthandler.unregister(number)


# ---- in the host -----------------------------------------------------------------------------------------------


def last_heartbeat(fd: int) -> float | None:
    """Return the time.monotonic() of the last heartbeat; None: there was none, or the box cannot be read."""
    with suppress(OSError):
        data = os.pread(fd, _HEARTBEAT.size, 0)
        if len(data) == _HEARTBEAT.size:
            at = float(_HEARTBEAT.unpack(data)[0])
            return at if 0.0 < at <= time.monotonic() else None
    return None


def count_marks(fd: int) -> int:
    """Return the number of marks; also 0 if the box cannot be read."""
    with suppress(OSError):
        return os.pread(fd, MAX_MARKS, _MARKS_OFFSET).count(1)
    return 0


def last_begun(fd: int) -> int | None:
    """Return the number of the task that the worker began last, 0: none; None: the box does not show it."""
    with suppress(OSError):
        data = os.pread(fd, 2 * _WORD.size, RECORDS_BEGUN * _WORD.size)
        if len(data) == 2 * _WORD.size and _WORD.unpack_from(data)[0] == 1:
            return int(_WORD.unpack_from(data, _WORD.size)[0])
    return None


def claimed_tasks(fd: int) -> tuple[int, ...]:
    """Return the numbers of the task that the worker began last, and of the one for which it took a token."""
    begun = last_begun(fd)
    with suppress(OSError):
        data = os.pread(fd, _WORD.size, CLAIMED * _WORD.size)
        if begun is not None and len(data) == _WORD.size:
            return begun, int(_WORD.unpack(data)[0])
    return ()


def announce_take_backs(fd: int) -> None:
    """Show the worker that the host will call `record_taken_back`."""
    with suppress(OSError):
        os.pwrite(fd, _WORD.pack(1), ANNOUNCED * _WORD.size)


def clear_last_begun(fd: int) -> None:
    """Clear what an idle worker began last, because it may be given the same task again."""
    with suppress(OSError):
        os.pwrite(fd, _WORD.pack(0), LAST_BEGUN * _WORD.size)


def record_taken_back(fd: int, number: int) -> None:
    """Record from which task on the worker's tasks were taken back; 0: none. Before that is decided: UNDECIDED."""
    with suppress(OSError):
        os.pwrite(fd, _WORD.pack(number), TAKEN_BACK_FROM * _WORD.size)


def read_stack(fd: int, limit: int = 16384) -> str | None:
    """Return the last `limit` bytes of the recorded stacks; None: there are none, or the box cannot be read."""
    with suppress(OSError):
        size = os.fstat(fd).st_size
        start = max(STACKS_OFFSET, size - limit)
        if size > start:
            return os.pread(fd, size - start, start).decode("utf-8", "replace") or None
    return None
