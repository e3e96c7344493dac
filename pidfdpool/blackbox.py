"""A worker's black box: a little memory that tells, after its death too, when it was last alive and where it was.

Owns the layout of an unnamed memory file, and the two signals that have a Python stack written into it. The template
makes one before each fork (`create`), the worker writes (`beat`, `record_stacks`), the host reads its own descriptor
of the same file (`last_beat`, `stack`). Knows nothing of pools.

    bytes 0..7    native double: time.monotonic() of the last heartbeat, 0.0: there was none
    bytes 1024..  marks: one byte of 1 for each call of a chunk of map that was begun, or for each few
    bytes 2048..  the stacks that faulthandler wrote, one after the other

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
from contextlib import suppress

from pidfdpool.native import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mmap import mmap

MARKS = 1024  # at most
STACK_AT = 2048
STACK_SIGNAL = int(signal.SIGRTMAX) - 1  # asks for a stack and does nothing else; the last one is valgrind's

_BEAT = struct.Struct("@d")
_MARKS_AT = 1024
_NO_MARKS = bytes(MARKS)
_NO_MEMORY_FILES = (errno.ENOSYS, errno.EPERM, errno.EACCES)  # an old kernel, a filter, vm.memfd_noexec=2
_DIRECTORIES = ("/dev/shm", "/tmp", "/var/tmp")  # for the room they have: an O_TMPFILE file has no name in there


def create() -> int:
    """Return a new, empty black box: a descriptor, close-on-exec.

    Raises:
        OSError: no descriptor or memory left, or there is no place for such a file.
    """
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


def beat(fd: int, now: float) -> None:
    """Note a heartbeat. From any thread; writes by position, so it does not move where stacks are written."""
    os.pwrite(fd, _BEAT.pack(now), 0)


def map_marks(fd: int) -> mmap:
    """Return the box as a mapping, for `clear_marks`. Each mark is one byte of 1, written behind the one before.

    Raises:
        OSError, ValueError: it cannot be mapped.
    """
    import sys
    from mmap import MAP_SHARED, mmap

    os.pwrite(fd, bytes(MARKS), _MARKS_AT)
    # Older ones keep a duplicate of the descriptor.
    options: dict[str, bool] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
    return mmap(fd, _MARKS_AT + MARKS, MAP_SHARED, **options)


def clear_marks(mapping: mmap) -> None:
    """Remove all marks; the next one is the first."""
    mapping[_MARKS_AT:] = _NO_MARKS
    mapping.seek(_MARKS_AT)


def record_stacks(fd: int) -> None:
    """Have SIGTERM and STACK_SIGNAL write the Python stack of every thread into the box.

    SIGTERM then takes its previous effect (chain): it ends the process, and its parent sees that it did.
    """
    import faulthandler

    os.lseek(fd, STACK_AT, os.SEEK_SET)
    faulthandler.register(signal.SIGTERM, file=fd, all_threads=True, chain=True)
    faulthandler.register(STACK_SIGNAL, file=fd, all_threads=True, chain=False)


def forget_stacks() -> None:
    """Undo `record_stacks`, in a forked child: its stacks are not the worker's.

    A handler that a task has put in place since then is left alone; unregistering would overwrite it.
    """
    import faulthandler

    for number in (signal.SIGTERM, STACK_SIGNAL):
        if signal.getsignal(number) == signal.SIG_DFL:
            faulthandler.unregister(number)


# ---- in the host -----------------------------------------------------------------------------------------------


def last_beat(fd: int) -> float | None:
    """Return the time.monotonic() of the last heartbeat; None if there was none, or the box cannot be read."""
    with suppress(OSError):
        data = os.pread(fd, _BEAT.size, 0)
        if len(data) == _BEAT.size:
            return float(_BEAT.unpack(data)[0]) or None
    return None


def marks(fd: int) -> int:
    """Return how many marks there are; 0 if the box cannot be read, too."""
    with suppress(OSError):
        return os.pread(fd, MARKS, _MARKS_AT).count(1)
    return 0


def stack(fd: int, limit: int = 16384) -> str | None:
    """Return what was written of stacks, its last `limit` bytes; None if nothing was, or the box cannot be read."""
    with suppress(OSError):
        size = os.fstat(fd).st_size
        start = max(STACK_AT, size - limit)
        if size > start:
            return os.pread(fd, size - start, start).decode("utf-8", "replace") or None
    return None
