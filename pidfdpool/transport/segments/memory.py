"""One piece of shared memory: an unnamed memory file, sealed, and the mappings of it.

Used in the host and in workers. Nothing in here takes a lock, so any thread may call any of it.
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
PRIVATE = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)  # a write copies the page; the others never see it
SHARED = mmap.MAP_SHARED

# <linux/memfd.h>, Linux 6.3, and <asm-generic/mman-common.h>; Python has no names for them.
_NOEXEC_SEAL = 8
_MAP_FIXED = 0x10
_POPULATE_WRITE = 23

_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_FOREVER: list[Any] = []


def create(size: int) -> int:
    """Return the descriptor of a new memory file of this size, whose pages are there: close-on-exec, above 2.

    It is sealed (fcntl(2), F_ADD_SEALS; Linux 3.17), so that nobody can shrink it, which would kill with SIGBUS
    whoever reads it. The same would befall the writer where no page could be had; so they are taken here and now.

    Raises:
        OSError: no memory (ENOMEM, ENOSPC) or descriptor (EMFILE, ENFILE) left; not allowed or not known here (EPERM,
            ENOSYS); larger than RLIMIT_FSIZE allows (EFBIG).
    """
    import fcntl
    import resource

    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if most != resource.RLIM_INFINITY and size > most:  # asking the kernel would cost a SIGXFSZ
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    fd = _unsealed()
    try:
        fd = native.above_stdio(fd)
        os.ftruncate(fd, size)
        os.posix_fallocate(fd, 0, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        native.close(fd)
        raise
    return fd


def _unsealed() -> int:
    try:
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        try:
            # vm.memfd_noexec=2 refuses what could be executed.
            return os.memfd_create("pidfdpool-segment", flags | _NOEXEC_SEAL)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return os.memfd_create("pidfdpool-segment", flags)
    except AttributeError:  # this Python was built where the C library did not know it
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None


class Mapping(mmap.mmap):
    """A mapping of a memory file that keeps no descriptor, and tells when the last reference to it is gone.

    It lives as long as any view of it, whatever becomes of the file's descriptors: an array in here is an array.
    """

    when_gone: Callable[[], object] | None = None

    def __del__(self) -> None:
        if self.when_gone is not None:
            self.when_gone()


def map_file(fd: int, size: int, flags: int) -> Mapping:
    """Map a memory file; the descriptor stays the caller's and may be closed.

    Raises:
        OSError: no memory, or no further mapping is allowed (ENOMEM).
    """
    if sys.version_info >= (3, 13):
        return Mapping(fd, size, flags, _READ_WRITE, trackfd=False)
    # Older ones keep a duplicate of the descriptor for as long as they live, and results may live long. So the file
    # is mapped over memory of the object's own.
    mapping = Mapping(-1, size, PRIVATE | mmap.MAP_ANONYMOUS)
    address = address_of(mapping)
    if not address:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    try:
        _map_over(address, size, flags, fd)
    except OSError:
        # Whether anything is still mapped there is not known. By then it may be somebody else's, so it is never
        # unmapped.
        _FOREVER.append(mapping)
        raise
    return mapping


def address_of(mapping: mmap.mmap) -> int:
    """Return where a mapping lies."""
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
            ctypes.c_long,  # off_t, where the C library's is no longer than that
        )
        _mmap = found
    if _mmap(address, size, _READ_WRITE, flags | _MAP_FIXED, fd, 0) != address:
        number = ctypes.get_errno()
        raise OSError(number, f"mmap: {os.strerror(number)}")


def is_seen(mapping: mmap.mmap) -> bool:
    """Return whether a view of the mapping is alive: a memoryview, or an array over one."""
    try:
        # It is refused in any case: first for that reason, otherwise because this is no mapping that could grow.
        mapping.resize(sys.maxsize)
    except BufferError:
        return True
    except (TypeError, ValueError, OSError, OverflowError, SystemError):
        pass
    return False


def see_file(mapping: mmap.mmap, size: int) -> None:
    """Have a private mapping, which nobody looks at, show the file again, also where it was written to."""
    if _may_differ(mapping, size):
        mapping.madvise(mmap.MADV_DONTNEED, 0, size)


def _may_differ(mapping: mmap.mmap, size: int) -> bool:
    """Return whether a page of a private mapping may be a copy.

    The kernel's notes say of each page that is there whether it is the file's (pagemap.rst; Linux 3.5). To read them
    takes 11 us per MB; to drop the pages and have them mapped again takes 70.
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
    """Map the pages that are going to be written to, all at once, which takes half as long (Linux 5.14)."""
    with suppress(OSError, ValueError):  # an older kernel: page by page, then
        mapping.madvise(_POPULATE_WRITE)


def drop_pages(mapping: mmap.mmap) -> None:
    """Give back the memory behind a shared mapping, whoever else has it mapped (MADV_REMOVE, madvise(2))."""
    with suppress(OSError, ValueError):
        mapping.madvise(mmap.MADV_REMOVE)
