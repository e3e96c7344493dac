"""Memory for a buffer that is announced and still to come: the place in which it stays.

A length in a frame does not prove that so many bytes will follow. So what is reserved here costs address space at
most: the system provides the memory behind it only as it is written to. Called by `framing`, on any thread. No state.
"""

from __future__ import annotations

from _io import BytesIO

_MAPPED_FROM = 1 << 20  # bytes; smaller memory is zeroed as quickly as it is mapped


def reserve_bytes(length: int) -> BytesIO:
    """Return memory for a buffer that is to be a bytes object: write into `getbuffer()`, then call `getvalue()`.

    A zeroed bytes object comes from calloc. The C library takes large pieces (from 32 MB on at the latest) from the
    system as pages that are zero already. BytesIO works on that very object as long as nobody else has it, and gives
    it out at the end without a copy.

    Raises:
        MemoryError: there is not even so much address space.
    """
    return BytesIO(bytes(length))


def reserve(length: int) -> memoryview:
    """Return memory that may be written to for as long as somebody has it.

    Raises:
        MemoryError: as above.
    """
    if length < _MAPPED_FROM:
        return memoryview(bytearray(length))
    import mmap  # not before it is needed: every process loads this module

    try:
        return memoryview(mmap.mmap(-1, length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    except (OSError, OverflowError):
        raise MemoryError from None
