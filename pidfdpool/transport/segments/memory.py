"""One piece of shared memory: an unnamed, sealed memory file, and the mappings of it.

Used in the host and in workers. No function here takes a lock, so any thread may call any of them.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import sys
from contextlib import suppress

from pidfdpool.process import native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PAGE = mmap.PAGESIZE
# a write copies the page, and other processes do not see it
PRIVATE = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)
SHARED = mmap.MAP_SHARED

# <linux/memfd.h>, Linux 6.3, and <asm-generic/mman-common.h>; Python has no names for these.
_NOEXEC_SEAL = 8
_MAP_FIXED = 0x10
_POPULATE_WRITE = 23

_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_never_unmapped: list[Any] = []


def create(size: int) -> int:
    """Return the descriptor of a new memory file of this size, with all pages allocated: close-on-exec, above 2.

    It is sealed (fcntl(2), F_ADD_SEALS; Linux 3.17), so that nobody can shrink it: that would kill its readers with
    SIGBUS. A writer would be killed in the same way if no page could be allocated later, so all are allocated now.

    Raises:
        OSError: no memory (ENOMEM, ENOSPC) or descriptor (EMFILE, ENFILE) is left; it is not allowed or not known
            here (EPERM, ENOSYS); it is larger than RLIMIT_FSIZE allows (EFBIG).
    """
    import fcntl
    import resource

    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if most != resource.RLIM_INFINITY and size > most:  # the kernel would answer with SIGXFSZ
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    fd = native.above_stdio(_create_unsealed())
    try:
        os.ftruncate(fd, size)
        os.posix_fallocate(fd, 0, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        native.close(fd)
        raise
    return fd


def _create_unsealed() -> int:
    try:
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        try:
            # vm.memfd_noexec=2 refuses files that could be executed.
            return os.memfd_create("pidfdpool-segment", flags | _NOEXEC_SEAL)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return os.memfd_create("pidfdpool-segment", flags)
    except AttributeError:  # this Python was built with a C library that did not know it
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None


class Mapping(mmap.mmap):
    """A mapping of a memory file that keeps no descriptor, and reports when the last reference to it is gone.

    It lives as long as any view of it, whatever happens to the file's descriptors. So an array in it is valid like
    any other array.
    """

    when_unmapped: Callable[[], object] | None = None

    def __del__(self) -> None:
        if self.when_unmapped is not None:
            self.when_unmapped()


def map_file(fd: int, size: int, flags: int) -> Mapping:
    """Map a memory file; the caller still owns the descriptor and may close it.

    Raises:
        OSError: there is no memory, or no further mapping is allowed (ENOMEM).
    """
    if sys.version_info >= (3, 13):
        return Mapping(fd, size, flags, _READ_WRITE, trackfd=False)
    # Before Python 3.13 a mmap object keeps a duplicate of the descriptor, and results may live long. So the file is
    # mapped over anonymous memory of the object.
    mapping = Mapping(-1, size, PRIVATE | mmap.MAP_ANONYMOUS)
    address = address_of(mapping)
    if not address:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    try:
        _map_over(address, size, flags, fd)
    except OSError:
        # It is not known whether anything is still mapped there. By the time of unmapping it may belong to somebody
        # else, so it is never unmapped.
        _never_unmapped.append(mapping)
        raise
    return mapping


def address_of(mapping: mmap.mmap) -> int:
    """Return the address of a mapping."""
    native.load_ctypes()
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))


_mmap: Any = None


def _map_over(address: int, size: int, flags: int, fd: int) -> None:
    global _mmap  # noqa: PLW0603  loading it takes milliseconds
    native.load_ctypes()
    import ctypes

    if _mmap is None:
        found = ctypes.CDLL(None, use_errno=True).mmap
        found.restype = ctypes.c_void_p
        found.argtypes = (
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_long,  # off_t, on platforms where the C library's off_t is a long
        )
        _mmap = found
    if _mmap(address, size, _READ_WRITE, flags | _MAP_FIXED, fd, 0) != address:
        number = ctypes.get_errno()
        raise OSError(number, f"mmap: {os.strerror(number)}")


def has_views(mapping: mmap.mmap) -> bool:
    """Return whether a view of the mapping exists: a memoryview, or an array over one."""
    try:
        # The resize is always refused: with BufferError if there is a view, otherwise because this mapping cannot
        # grow.
        mapping.resize(sys.maxsize)
    except BufferError:
        return True
    except (TypeError, ValueError, OSError, OverflowError, SystemError):
        pass
    return False


def discard_private_pages(mapping: mmap.mmap, size: int) -> None:
    """Make a private mapping that has no views show the file's contents again, also where it was written to."""
    if _may_have_private_pages(mapping, size):
        mapping.madvise(mmap.MADV_DONTNEED, 0, size)


def _may_have_private_pages(mapping: mmap.mmap, size: int) -> bool:
    """Return whether a page of a private mapping may be a private copy.

    The kernel's page map says of each present page whether it belongs to the file (pagemap.rst; Linux 3.5). To read
    it takes 11 us per MB; to drop the pages and have them mapped again takes 70.
    """
    count = -(-size // PAGE)
    try:
        fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(fd, 8 * count, address_of(mapping) // PAGE * 8)
        finally:
            native.close(fd)
    except OSError:  # no /proc, or no descriptor left
        return True
    if len(data) < 8 * count:
        return True
    notes = int.from_bytes(data, sys.byteorder)
    of_file = int.from_bytes(struct.pack("=Q", 1 << 61) * count, sys.byteorder)
    there = (notes >> 2) | (notes >> 1)  # bits 63, present, and 62, swapped out
    return bool(there & ~notes & of_file)


def populate(mapping: mmap.mmap) -> None:
    """Map the pages that will be written to, all at once, which takes half the time (Linux 5.14)."""
    with suppress(OSError, ValueError):  # an older kernel maps them one by one at the first write
        mapping.madvise(_POPULATE_WRITE)


def drop_pages(mapping: mmap.mmap) -> None:
    """Free the memory behind a shared mapping, even if others have it mapped (MADV_REMOVE, madvise(2))."""
    with suppress(OSError, ValueError):
        mapping.madvise(mmap.MADV_REMOVE)
