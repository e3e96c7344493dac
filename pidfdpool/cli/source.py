"""Where the documents come from: files and standard input, cut into blocks of whole lines.

A block holds what there is to read without waiting, up to a limit: somebody who types lines, or a log that
is followed, sees each line go through at once, while a fast producer gets large blocks. Nothing is read
ahead of the block that was asked for, beyond the rest of the piece that it was cut from, so whoever takes
the blocks decides how much of an endless input is in memory. Only a line is never cut, however long it is.
"""

from __future__ import annotations

import gzip
import os
import select
import stat
import sys
import zlib
from typing import TYPE_CHECKING, Protocol

from pidfdpool.cli.transform import Block
from pidfdpool.cli.usage import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIECE = 256 * 1024  # bytes that one block is cut from; a longer line is a block of its own
_STDIN_NAMES = {"-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"}


class ReadError(Exception):
    """The input broke off; the message says where."""


class Source:
    """The files of a run, in order. Making it says at once if one of them cannot be read.

    total: how many bytes there are to read, or None if that cannot be known.
    """

    def __init__(self, names: list[str]) -> None:
        self._names = names or ["-"]
        sizes = [_checked_size(name) for name in self._names]
        self.total = None if None in sizes else sum(size for size in sizes if size is not None)

    def blocks(self, limit: Callable[[], int]) -> Iterator[Block]:
        """Yield the blocks of all files; limit() is asked for the number of lines each time.

        Raises:
            ReadError: a file cannot be read on, or not be decompressed.
        """
        for name in self._names:
            if name in _STDIN_NAMES:
                yield from cut("<stdin>", Descriptor(0), limit)
                continue
            try:
                fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise ReadError(f"{name}: {error.strerror}") from error
            with open(fd, "rb", buffering=0) as file:
                yield from cut(name, Compressed(file) if name.endswith(".gz") else Descriptor(fd), limit)


def _checked_size(name: str) -> int | None:
    """Return how many bytes there are, or None if it is no ordinary file. Raise if it cannot be read.

    It is not opened for that: at the other end of a pipe that would be felt.
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


# ---- ways to read ------------------------------------------------------------------------------------------


class Reader(Protocol):
    """Something to read bytes from."""

    position: int

    def read(self) -> bytes:
        """Return some bytes, as soon as there are any; none at the end."""

    def ready(self) -> bool:
        """Return whether read() would return without waiting."""


class Descriptor:
    """Reads a descriptor as it comes."""

    def __init__(self, fd: int) -> None:
        self.position = 0
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def read(self) -> bytes:
        """Return what is there."""
        while True:
            try:
                data = os.read(self._fd, PIECE)
            except BlockingIOError:
                # Whoever shares the terminal or pipe with us has made it non-blocking for all of us.
                self._poll.poll()
                continue
            self.position += len(data)
            return data

    def ready(self) -> bool:
        """Ask the kernel."""
        return bool(self._poll.poll(0))


class Compressed:
    """Reads gzip, of one member or many."""

    def __init__(self, file: object) -> None:
        self.position = 0
        self._file = file
        self._gzip = gzip.GzipFile(fileobj=file, mode="rb")  # type: ignore[call-overload]

    def read(self) -> bytes:
        """Return what one piece of the file decompresses to."""
        data: bytes = self._gzip.read1(PIECE)
        self.position = self._file.tell()  # type: ignore[attr-defined]
        return data

    def ready(self) -> bool:
        """Say no: bytes that are there may still not be enough to decompress anything."""
        return False


# ---- cutting -----------------------------------------------------------------------------------------------


def cut(name: str, reader: Reader, limit: Callable[[], int]) -> Iterator[Block]:
    """Yield what the reader has as blocks of whole lines."""
    line = 1
    read = done = 0  # bytes, as they come out of the reader: of all pieces, and of the blocks so far
    told = 0  # the position that the blocks so far account for
    unfinished: list[bytes] = []  # pieces of a line whose end was not read yet

    def blocks(lines: bytes) -> Iterator[Block]:
        nonlocal line, told, done
        start = 0
        while start < len(lines):
            end, count = _end_of_lines(lines, start, max(1, limit()))
            done += end - start
            # Its share of what was read. Of a compressed file that is more than what the blocks came of.
            before, told = told, max(told, reader.position * done // read)
            yield Block(name, line, lines[start:end], told - before)
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
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ReadError(f"{name}: cannot be read beyond line {line - 1}: {reason}") from error
    yield from blocks(b"".join(unfinished))


def _pieces(reader: Reader) -> Iterator[bytes]:
    """Yield what is there to read, in pieces of about PIECE bytes, but never wait in order to fill one."""
    while data := reader.read():
        parts, size = [data], len(data)
        while size < PIECE and reader.ready():
            more = reader.read()
            if not more:
                # The end. A terminal tells it only once: reading again would wait for a second Ctrl-D.
                yield b"".join(parts)
                return
            parts.append(more)
            size += len(more)
        yield b"".join(parts)


def _end_of_lines(data: bytes, start: int, limit: int) -> tuple[int, int]:
    """Return where the lines from start on end, `limit` of them at most, and how many they are."""
    end = start
    for count in range(limit):
        newline = data.find(b"\n", end)
        if newline < 0:
            return (len(data), count + 1) if end < len(data) else (end, count)
        end = newline + 1
    return end, limit
