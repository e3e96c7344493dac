"""A worker's black box: a little memory that tells, after its death too, what it had begun and where it was.

Owns the layout of an unnamed memory file, and the two signals that have a Python stack written into it. The template
makes one before each fork (`create`), the worker writes (`share`, `beat`, `record_stacks`), the host has a descriptor
of the same file and reads (`last_beat`, `last_begun`, `stack`). Knows nothing of pools.

    bytes 0..7    native double: time.monotonic() of the last heartbeat, 0.0: there was none
    bytes 8..15   native 64 bits: 1 once the worker notes what it begins
    bytes 16..23  the same: the number of the task that it has begun last
    bytes 24..31  the same, written by the host: the number of the first task that was taken back; -1: some are being
    bytes 32..39  the same: 1 once the host has the box, so that it can note this
    bytes 40..47  the same, written by the worker: the number of the task that it has taken a token for
    bytes 1024..  marks: one byte of 1 for each call of a chunk of map that was begun, or for each few
    bytes 2048..  the stacks that faulthandler wrote, one after the other

What the host reads may be anything: a task can write there. So it takes nothing for true that cannot be.

Which signal writes the stack. One would ask with a signal of one's own and then terminate with SIGTERM. But signals
that are pending together are delivered in the order of their numbers, and a fatal one ends the process before the
handler of any other has run: a worker that was stopped, or that its CPU was taken from, would die without a word. So
SIGTERM writes the stack itself, and then has the effect that it would have had. Only a task that replaces SIGTERM's
handler must be asked by STACK_SIGNAL. faulthandler's handlers are C code which needs no GIL, so they also run while
native code holds it.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
import time
from contextlib import suppress

from pidfdpool.process.native import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mmap import mmap
    from typing import Any

MAX_MARKS = 1024  # at most
STACKS_OFFSET = 2048
STACK_SIGNAL = int(signal.SIGRTMAX) - 1  # asks for a stack and does nothing else; the last one is valgrind's

RECORDS_BEGUN, LAST_BEGUN, TAKEN_BACK_FROM, ANNOUNCED, CLAIMED = 1, 2, 3, 4, 5  # places in what `share` returns
UNDECIDED = -1  # of TAKEN_BACK: which ones is about to be told
_HEARTBEAT = struct.Struct("@d")
_MARKS_OFFSET = 1024
_NO_MARKS = bytes(MAX_MARKS)
_WORD = struct.Struct("@q")
_NO_MEMORY_FILES = (errno.ENOSYS, errno.EPERM, errno.EACCES)  # an old kernel, a filter, vm.memfd_noexec=2
_DIRECTORIES = ("/dev/shm", "/tmp", "/var/tmp")  # for the room they have: an O_TMPFILE file has no name in there


def create() -> int:
    """Return a new, empty black box: a descriptor, close-on-exec.

    Raises:
        OSError: no descriptor or memory left, or there is no place for such a file.
    """
    fd = _create()
    with suppress(OSError):  # the disk is full; then nobody shares the first bytes
        os.pwrite(fd, bytes(STACKS_OFFSET), 0)
    return fd


def _create() -> int:
    try:
        return os.memfd_create("pidfdpool-blackbox", os.MFD_CLOEXEC)
    except AttributeError:  # this Python was built where the C library did not know it
        failure = OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    except OSError as error:
        if error.errno not in _NO_MEMORY_FILES:
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
    """Return the first bytes of the box as 64-bit numbers: memory that the host sees, too, without a system call.

    Where there is no room or memory left, nobody but the caller sees them.
    """
    try:
        words = memoryview(_mapped(fd)).cast("q")
    except (OSError, ValueError):  # ValueError: there are no such bytes
        return memoryview(bytearray(STACKS_OFFSET)).cast("q")
    words[RECORDS_BEGUN] = 1
    return words


def record_heartbeat(fd: int, now: float) -> None:
    """Note a heartbeat. From any thread; writes by position, so it does not move where stacks are written."""
    os.pwrite(fd, _HEARTBEAT.pack(now), 0)


def map_marks(fd: int) -> mmap:
    """Return the box as a mapping, for `clear_marks`. Each mark is one byte of 1, written behind the one before.

    Raises:
        OSError, ValueError: it cannot be mapped.
    """
    os.pwrite(fd, bytes(MAX_MARKS), _MARKS_OFFSET)
    return _mapped(fd)


def _mapped(fd: int) -> mmap:
    """Return what lies before the stacks as a mapping that the host sees, too."""
    from mmap import mmap

    # Older ones keep a duplicate of the descriptor.
    options: Any = {"trackfd": False} if sys.version_info >= (3, 13) else {}
    return mmap(fd, STACKS_OFFSET, **options)


def clear_marks(mapping: mmap) -> None:
    """Remove all marks; the next one is the first."""
    mapping[_MARKS_OFFSET:] = _NO_MARKS
    mapping.seek(_MARKS_OFFSET)


def record_stacks(fd: int) -> None:
    """Have SIGTERM and STACK_SIGNAL write the Python stack of every thread into the box.

    SIGTERM then takes its previous effect (chain): it ends the process, and its parent sees that it did.
    """
    import faulthandler

    os.lseek(fd, STACKS_OFFSET, os.SEEK_SET)
    faulthandler.register(signal.SIGTERM, file=fd, all_threads=True, chain=True)
    faulthandler.register(STACK_SIGNAL, file=fd, all_threads=True, chain=False)


def stop_recording_stacks() -> None:
    """Undo `record_stacks`, in a forked child: its stacks are not the worker's.

    A handler that a task has put in place since then is left alone; unregistering would overwrite it.
    """
    import faulthandler

    for number in (signal.SIGTERM, STACK_SIGNAL):
        if signal.getsignal(number) == signal.SIG_DFL:
            faulthandler.unregister(number)


# ---- in the host -----------------------------------------------------------------------------------------------


def last_heartbeat(fd: int) -> float | None:
    """Return the time.monotonic() of the last heartbeat; None if there was none, or the box cannot be read."""
    with suppress(OSError):
        data = os.pread(fd, _HEARTBEAT.size, 0)
        if len(data) == _HEARTBEAT.size:
            at = float(_HEARTBEAT.unpack(data)[0])
            return at if 0.0 < at <= time.monotonic() else None
    return None


def count_marks(fd: int) -> int:
    """Return how many marks there are; 0 if the box cannot be read, too."""
    with suppress(OSError):
        return os.pread(fd, MAX_MARKS, _MARKS_OFFSET).count(1)
    return 0


def last_begun(fd: int) -> int | None:
    """Return the number of the task that the worker has begun last, 0: none; None if the box does not tell."""
    with suppress(OSError):
        data = os.pread(fd, 2 * _WORD.size, RECORDS_BEGUN * _WORD.size)
        if len(data) == 2 * _WORD.size and _WORD.unpack_from(data)[0] == 1:
            return int(_WORD.unpack_from(data, _WORD.size)[0])
    return None


def claimed_tasks(fd: int) -> tuple[int, ...]:
    """Return the numbers of the tasks that the worker has begun last, and is going to begin or has begun."""
    begun = last_begun(fd)
    with suppress(OSError):
        data = os.pread(fd, _WORD.size, CLAIMED * _WORD.size)
        if begun is not None and len(data) == _WORD.size:
            return begun, int(_WORD.unpack(data)[0])
    return ()


def announce_take_backs(fd: int) -> None:
    """Have the worker know that `note_taken_back` will be called."""
    with suppress(OSError):
        os.pwrite(fd, _WORD.pack(1), ANNOUNCED * _WORD.size)


def clear_last_begun(fd: int) -> None:
    """Forget what the worker has begun last, because it may be given the same again. It has nothing to do now."""
    with suppress(OSError):
        os.pwrite(fd, _WORD.pack(0), LAST_BEGUN * _WORD.size)


def record_taken_back(fd: int, number: int) -> None:
    """Say from which task on the worker's tasks were taken back; 0: none. Before it is known: SOME."""
    with suppress(OSError):
        os.pwrite(fd, _WORD.pack(number), TAKEN_BACK_FROM * _WORD.size)


def read_stack(fd: int, limit: int = 16384) -> str | None:
    """Return what was written of stacks, its last `limit` bytes; None if nothing was, or the box cannot be read."""
    with suppress(OSError):
        size = os.fstat(fd).st_size
        start = max(STACKS_OFFSET, size - limit)
        if size > start:
            return os.pread(fd, size - start, start).decode("utf-8", "replace") or None
    return None
