"""Where a trace is written to: a file that it opens by its path, or a text file that the user has opened.

A regular file is written while the pool runs, without a buffer, so a host that is killed leaves all that was written.
Whatever else a path names (a pipe, a terminal), and a file object of the user's, may block or run code of the user's.
So these are written only when the trace is left, in the user's thread.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from pidfdpool import checks
from pidfdpool.process import locks

if TYPE_CHECKING:
    from collections.abc import Sequence

# What traces of this process write, by the device and inode of a file, or by the id of what is no file.
_open_files: WeakValueDictionary[tuple[int, int] | int, Sink] = WeakValueDictionary()
_lock = locks.plain()


class Sink:
    """An open place for events. Used by one thread at a time.

    Attributes:
        name: what to call it in messages.
        path: where it is, if it was given by its path.
        writes_early: it may be written while the pool runs, in the pool thread.
    """

    def __init__(self, target: Any) -> None:
        """Open it, and empty it if it is a file.

        Raises:
            TypeError: target is neither a path nor a text file.
            OSError: it cannot be opened; the error names the path.
            ValueError: another trace of this process is writing this file, or target is a closed file.
        """
        self._process = os.getpid()
        self.path: str | bytes | None = None
        self._fd: int | None = None
        self._file: Any = None
        self._key: tuple[int, int] | int | None = None
        self._is_empty = True
        self.writes_early = False
        if hasattr(target, "write"):
            self.name = checks.short_repr(getattr(target, "name", target))
            self._file = checked_file(target)
            self._claim(_key_of(target))
        else:
            path = checked_path(target)
            self.name, self.path = checks.short_repr(path), path
            self._open(path)

    def _open(self, path: str | bytes) -> None:
        try:
            self._fd = fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            found = os.fstat(fd)
            if stat.S_ISREG(found.st_mode):
                self._claim((found.st_dev, found.st_ino))
                self.writes_early = True
                os.ftruncate(fd, 0)
        except BaseException:
            self.close()
            raise

    def _claim(self, key: tuple[int, int] | int) -> None:
        with _lock:
            if key in _open_files:
                raise ValueError(f"path {self.name} is written by another trace of this process")
            self._key = key  # first, so that `close` finds it whenever this is interrupted
            _open_files[key] = self

    def write(self, events: Sequence[str]) -> None:
        """Append events.

        Raises:
            OSError, ValueError: it cannot be written: no room is left, or its owner has closed it.
        """
        if events:
            self._put(("[\n" if self._is_empty else ",\n") + ",\n".join(events))
            self._is_empty = False

    def finish(self) -> None:
        """Write the end. Raises as `write`."""
        self._put("\n]\n")

    def _put(self, text: str) -> None:
        if self._fd is None:
            self._file.write(text)
            if hasattr(self._file, "flush"):
                self._file.flush()  # a child that is forked meanwhile must find nothing in its buffer
            return
        data = memoryview(text.encode("utf-8", "backslashreplace"))
        while data:
            data = data[os.write(self._fd, data) :]

    def close(self) -> None:
        """Close what was opened here. Idempotent. In a forked child the file goes on being the parent's."""
        fd, self._fd = self._fd, None
        key, self._key = self._key, None
        if fd is not None:
            os.close(fd)
        if key is not None and (isinstance(key, int) or os.getpid() == self._process):
            _open_files.pop(key, None)


def _key_of(file: Any) -> tuple[int, int] | int:
    """Return what tells whether two files of the user's are the same: a file on a disk, or else the object."""
    with suppress(Exception):  # code of the user's
        found = os.fstat(file.fileno())
        if stat.S_ISREG(found.st_mode):
            return found.st_dev, found.st_ino
    return id(file)


def checked_path(target: Any) -> str | bytes:
    """Return the path that was given. Raises TypeError if it is none."""
    try:
        path: str | bytes = os.fspath(target)
    except TypeError:
        wanted = "a path or a text file that is open for writing"
        raise TypeError(f"path must be {wanted}, not {checks.short_repr(target)}") from None
    return path


def checked_file(target: Any) -> Any:
    """Return the file that was given. Raises TypeError or ValueError if text cannot be written to it."""
    try:
        target.write("")
    except TypeError:
        raise TypeError(f"path must be a file that takes text, not {checks.short_repr(target)}") from None
    except ValueError as error:  # as of a closed file; io.UnsupportedOperation is one, too
        raise ValueError(f"path {checks.short_repr(target)} cannot be written: {error}") from error
    return target
