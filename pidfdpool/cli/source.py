"""Reads the documents from files and standard input, as blocks of whole lines.

Called in the host: `Source` is made on the main thread, and its blocks are read on the reader thread of `flow`.

A block has what can be read without waiting, up to a limit. So a line that a person types, or that is added to a log,
is processed at once, while a fast producer gets large blocks. Except for the rest of the data that a block comes
from, nothing is read before the next block is asked for. So the consumer decides how much of an endless input is in
memory. A line is never split, however long it is.
"""

from __future__ import annotations

import os
import select
import stat
import sys
from typing import TYPE_CHECKING, Protocol

from pidfdpool.cli import compression, hints
from pidfdpool.cli.transform import Block
from pidfdpool.cli.usage import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READ_SIZE = 256 * 1024  # bytes that are split into blocks at a time; a longer line is a block of its own
_STDIN_NAMES = {"-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"}


class ReadError(Exception):
    """The input cannot be read to its end; the message tells where it broke off."""


class Source:
    """The files of a run, in order. The constructor raises UsageError if one of them cannot be read.

    total: the number of bytes of all files, or None if it is not known.
    arrays: those that were read so far, and whose only line is an array of documents.
    """

    def __init__(self, names: list[str]) -> None:
        self._names = names or ["-"]
        self._codecs = {name: compression.codec_of(name) for name in self._names}
        self.arrays: list[str] = []
        sizes = [_checked_size(name) for name in self._names]
        self.total: int | None = None if None in sizes else sum(size for size in sizes if size is not None)

    def blocks(self, limit: Callable[[], int]) -> Iterator[Block]:
        """Yield the blocks of all files.

        limit: called for each block; it returns the largest number of lines of the block.

        Raises:
            ReadError: a file cannot be read to its end, or cannot be decompressed.
        """
        for name in self._names:
            if name in _STDIN_NAMES:
                yield from self._watched("<stdin>", DescriptorReader(0), limit)
                continue
            try:
                fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise ReadError(f"{name}: {error.strerror}") from error
            with open(fd, "rb", buffering=0):
                codec = self._codecs[name]
                reader = DescriptorReader(fd) if codec is None else CompressedReader(fd, codec)
                yield from self._watched(name, reader, limit)

    def _watched(self, name: str, reader: Reader, limit: Callable[[], int]) -> Iterator[Block]:
        """Yield the blocks of a file, and note whether all of it is one array."""
        number = 0
        is_array = False
        for number, block in enumerate(split_into_blocks(name, reader, limit), 1):
            if number == 1:
                is_array = block.data.count(b"\n") <= 1 and hints.is_array_of_documents(block.data)
            yield block
        if is_array and number == 1:
            self.arrays.append(name)


def _checked_size(name: str) -> int | None:
    """Return the size in bytes, or None if it is no regular file. Raise UsageError if it cannot be read.

    The file is not opened, because the process at the other end of a named pipe would notice.
    """
    if name in _STDIN_NAMES:
        if sys.stdin is None:
            raise UsageError("standard input is closed: name a FILE, or pipe something in")
        info = os.fstat(0)
        return info.st_size - os.lseek(0, 0, os.SEEK_CUR) if stat.S_ISREG(info.st_mode) else None
    try:
        info = os.stat(name)
    except (OSError, ValueError) as error:
        raise UsageError(f"{name}: {getattr(error, 'strerror', None) or error}") from None
    if stat.S_ISDIR(info.st_mode):
        raise UsageError(f"{name}: is a directory, not a file")
    if not os.access(name, os.R_OK, effective_ids=True):
        raise UsageError(f"{name}: Permission denied")
    return info.st_size if stat.S_ISREG(info.st_mode) else None


# ---- readers -----------------------------------------------------------------------------------------------


class Reader(Protocol):
    """Reads bytes."""

    position: int

    def read(self) -> bytes:
        """Wait for data and return it; no bytes at the end."""

    def ready(self) -> bool:
        """Return whether read() would return without waiting."""


class DescriptorReader:
    """Reads from a descriptor what is available."""

    def __init__(self, fd: int) -> None:
        self.position: int = 0
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def read(self) -> bytes:
        """Wait for data and return it; no bytes at the end."""
        while True:
            try:
                data = os.read(self._fd, READ_SIZE)
            except BlockingIOError:
                # Another process that shares the terminal or pipe has made it non-blocking for all.
                self._poll.poll()
                continue
            self.position += len(data)
            return data

    def ready(self) -> bool:
        """Return whether the kernel has data."""
        return bool(self._poll.poll(0))


class CompressedReader:
    """Reads a compressed file of one or more streams."""

    def __init__(self, fd: int, codec: compression.Codec) -> None:
        self.position: int = 0
        self._file = compression.File(fd)
        self._data = codec.open(self._file)
        self._error = codec.error

    def read(self) -> bytes:
        """Return the decompressed data of the next part of the file."""
        try:
            data: bytes = self._data.read1(READ_SIZE)
        except self._error as error:
            raise EOFError(str(error)) from error
        self.position = self._file.position
        return data

    def ready(self) -> bool:
        """Return False: the bytes that are available may not be enough to decompress any data."""
        return False


# ---- blocks ------------------------------------------------------------------------------------------------


def split_into_blocks(name: str, reader: Reader, limit: Callable[[], int]) -> Iterator[Block]:
    """Yield the reader's data as blocks of whole lines."""
    line = 1
    read = done = 0  # bytes that the reader has returned: all of them, and those in the blocks so far
    counted = 0  # the position in the file up to which the sizes of the blocks so far add up
    unfinished: list[bytes] = []  # parts of a line whose end was not read yet

    def blocks(lines: bytes) -> Iterator[Block]:
        nonlocal line, counted, done
        start = 0
        while start < len(lines):
            end, count = _end_of_lines(lines, start, max(1, limit()))
            done += end - start
            # The block's share of the bytes read from the file. A compressed file may be read further than the data
            # that the blocks have.
            before, counted = counted, max(counted, reader.position * done // read)
            yield Block(name, line, lines[start:end], counted - before)
            start, line = end, line + count

    try:
        for piece in _pieces(reader):
            read += len(piece)
            end = piece.rfind(b"\n") + 1
            if end:
                lines = b"".join((*unfinished, piece[:end]))
                unfinished = []
                yield from blocks(lines)
                del lines
            if end < len(piece):
                unfinished.append(piece[end:])
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ReadError(f"{name}: cannot be read beyond line {line - 1}: {reason}") from error
    yield from blocks(b"".join(unfinished))


def _pieces(reader: Reader) -> Iterator[bytes]:
    """Yield the data that is available, in pieces of about READ_SIZE bytes. Never wait to make a piece larger."""
    while data := reader.read():
        parts, size = [data], len(data)
        while size < READ_SIZE and reader.ready():
            more = reader.read()
            if not more:
                # The end. A terminal reports it only once: to read again would wait for a second Ctrl-D.
                yield b"".join(parts)
                return
            parts.append(more)
            size += len(more)
        yield b"".join(parts)


def _end_of_lines(data: bytes, start: int, limit: int) -> tuple[int, int]:
    """Return the end of at most `limit` lines that begin at start, and their number."""
    end = start
    for count in range(limit):
        newline = data.find(b"\n", end)
        if newline < 0:
            return (len(data), count + 1) if end < len(data) else (end, count)
        end = newline + 1
    return end, limit
