"""Compressed files, known by the suffix of their names: .gz, .bz2, .xz and .zst, for input and output alike.

Called by `source` and `outputs`, in the host, on the main thread and on the reader thread of `flow`. A module is
loaded when a file needs it, because some Pythons are built without it, and most runs need none.
"""

from __future__ import annotations

import os
import select
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from pidfdpool.cli.usage import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

# suffix -> the program that prints such a file
SUFFIXES = {".gz": "zcat", ".bz2": "bzcat", ".xz": "xzcat", ".zst": "zstdcat"}
_MODULES = {".gz": "gzip", ".bz2": "bz2", ".xz": "lzma"}
_GZIP = 31  # for zlib: with the header of gzip
_GZIP_LEVEL = 6  # that of the program gzip; the module's own default is 9, which takes several times as long
_ZSTD_INPUT = 1024  # bytes that zstandard gets at a time; it may make a hundred thousand times as many of them


class Codec(NamedTuple):
    """How to read and write one kind of file."""

    open: Callable[[File], Any]  # returns an object whose read1(size) returns at most so many bytes
    compressor: Callable[[], Any]  # returns an object with compress(data) and flush()
    error: type[Exception]  # what is raised for broken data, beside OSError and EOFError


def suffix_of(name: str) -> str:
    """Return the suffix that tells how the file is compressed; empty if it is not."""
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def codec_of(name: str) -> Codec | None:
    """Return what reads and writes the file; None if it is not compressed.

    Raises:
        UsageError: it is missing here; the message tells what to install.
    """
    suffix = suffix_of(name)
    if not suffix:
        return None
    if suffix == ".zst":
        return _zstd(name)
    try:
        module = import_module(_MODULES[suffix])
        if suffix == ".gz":
            zlib = import_module("zlib")
            return Codec(
                lambda file: module.GzipFile(fileobj=file, mode="rb"),
                lambda: zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP),
                zlib.error,
            )
        if suffix == ".bz2":
            return Codec(module.BZ2File, module.BZ2Compressor, EOFError)
        return Codec(module.LZMAFile, module.LZMACompressor, module.LZMAError)
    except ImportError as error:
        raise UsageError(
            f"{name}: this Python was built without the module {_MODULES[suffix]!r}, which {suffix} needs ({error}): "
            f"install a Python that has it, or use {SUFFIXES[suffix]} and a pipe"
        ) from None


def _zstd(name: str) -> Codec:
    try:
        standard = import_module("compression.zstd")  # since Python 3.14, if it was built with it
    except ImportError:
        pass
    else:
        return Codec(standard.ZstdFile, standard.ZstdCompressor, standard.ZstdError)
    try:
        package = import_module("zstandard")
    except ImportError:
        raise UsageError(
            f"{name}: files in .zst need Python 3.14 or newer, or the package zstandard: "
            "python -m pip install zstandard"
        ) from None
    return Codec(
        lambda file: _ZstandardReader(file, package),
        lambda: package.ZstdCompressor().compressobj(),
        package.ZstdError,
    )


class File:
    """A file for the modules that decompress: they call read. It counts the bytes, for which a pipe has no tell()."""

    def __init__(self, fd: int) -> None:
        self.position: int = 0
        self._fd = fd

    def read(self, size: int) -> bytes:
        """Return at most so many bytes, as soon as there are any; none at the end."""
        while True:
            try:
                data = os.read(self._fd, size)
            except BlockingIOError:
                # Another process that shares the pipe has made it non-blocking for all.
                poll = select.poll()
                poll.register(self._fd, select.POLLIN)
                poll.poll()
                continue
            self.position += len(data)
            return data


class _ZstandardReader:
    """Reads frames by the package zstandard, whose own reader takes a file that was cut for a complete one."""

    def __init__(self, file: File, package: Any) -> None:
        self._file = file
        self._package = package
        self._frame: Any = None  # the one that is being read
        self._input = b""

    def read1(self, _size: int) -> bytes:
        """Return the next data; no bytes at the end.

        Raises:
            EOFError: the file ends within a frame.
        """
        while True:
            if not self._input:
                self._input = self._file.read(_ZSTD_INPUT)
            if not self._input:
                if self._frame is None:
                    return b""
                raise EOFError("Compressed file ended before the end-of-stream marker was reached")
            if self._frame is None:
                self._frame = self._package.ZstdDecompressor().decompressobj()
            data: bytes = self._frame.decompress(self._input)
            self._input = b""
            if self._frame.eof:
                self._input, self._frame = self._frame.unused_data, None
            if data:
                return data
