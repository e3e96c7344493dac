"""The files that `map` writes: --output and --errors. A regular file is written completely or not at all.

Called by `map`, in the host, on its main thread.

The data goes to a new file without a name in the same folder. When the run is complete, that file takes the place of
the old one, in one step. So a reader never sees a part of the output, a run that fails leaves the old file, and the
output may have the name of an input. If the process is killed, the kernel removes the file, because it has no name.
Some file systems have no files without a name. There it has a hidden one meanwhile, which stays if the process is
killed.

What is no regular file (a pipe, a terminal, /dev/null) is opened and written to as it is, and so is standard output.
So is a file in a folder where no file may be made.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from pidfdpool.cli import compression
from pidfdpool.cli.streams import Output
from pidfdpool.cli.usage import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_STDOUT_NAMES = {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_COPY_SIZE = 1 << 20


class WriteError(Exception):
    """An output cannot be written; the message tells which, and why."""


class Place(Protocol):
    """Where bytes go."""

    def isatty(self) -> bool:
        """Return whether it is a terminal."""

    def write(self, data: bytes) -> None:
        """Write all data."""

    def finish(self) -> None:
        """Make it complete: nothing is written any more."""

    def close(self) -> None:
        """Close it. If it is not finished, and can be without effect, it is."""


class Destination:
    """An output of a run, with its name in messages."""

    def __init__(self, label: str, place: Place, compressor: Any = None) -> None:
        self._label = label
        self._place = place
        self._compressor = compressor

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._place.isatty()

    def write(self, data: bytes) -> None:
        """Write all data, compressed if the name says so.

        Raises:
            WriteError: it cannot be written, but for the next case.
            BrokenPipeError: the reader of a pipe has gone away.
        """
        with self._explained():
            self._write(data if self._compressor is None else self._compressor.compress(data))

    def finish(self) -> None:
        """Complete it, and have it take its name. Raises as `write` does."""
        with self._explained():
            if self._compressor is not None:
                self._write(self._compressor.flush())
            self._place.finish()

    def _write(self, data: bytes) -> None:
        if data:
            self._place.write(data)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise WriteError(f"cannot write {self._label}: {error.strerror}") from error


@contextmanager
def opened(option: str, name: str, stdout: Output, inputs: Sequence[str]) -> Iterator[Destination]:
    """Open an output for the block; at its end what is not finished is dropped.

    option: the option that names it, for messages. stdout: standard output, as `private_stdout` gives it.

    Raises:
        UsageError: it cannot be written, or what compresses it is missing.
    """
    codec = compression.codec_of(name)
    compressor = None if codec is None else codec.compressor()
    try:
        place = _OpenAnyway(stdout) if is_stdout(name) else _open(name, inputs)
    except (OSError, ValueError) as error:
        raise UsageError(f"argument {option}: {name!r}: {getattr(error, 'strerror', None) or error}") from None
    try:
        yield Destination("the output" if is_stdout(name) else name, place, compressor)
    finally:
        place.close()


def is_stdout(name: str) -> bool:
    """Return whether the name means standard output."""
    return name in _STDOUT_NAMES


def are_same(name: str, other: str) -> bool:
    """Return whether two outputs would be written over each other: two names of one file, or of standard output."""
    if is_stdout(name) or is_stdout(other):
        return is_stdout(name) and is_stdout(other)
    with suppress(OSError, ValueError):
        if os.path.exists(name) and not os.path.isfile(name):
            return False  # a device or a pipe, where both may go
        return os.path.realpath(name) == os.path.realpath(other)
    return False


def _open(name: str, inputs: Sequence[str]) -> Place:
    if descriptor := re.fullmatch(r"/dev/fd/(\d{1,9})|/proc/self/fd/(\d{1,9})|/dev/std(err)", name):
        number = 2 if descriptor[3] else int(descriptor[1] or descriptor[2])
        return _OpenHere(os.dup(number))  # to open it anew would begin at the start of a file
    path = os.path.realpath(name)
    try:
        before = os.stat(path if name else name)
    except FileNotFoundError:
        if not name or name.endswith("/"):
            raise
        return _NewFile(path, None)
    if stat.S_ISDIR(before.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory, not a file")
    if not stat.S_ISREG(before.st_mode):
        return _OpenHere(os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY))
    if not os.access(path, os.W_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    try:
        return _NewFile(path, before)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
    if any(_is_file(path, other) for other in inputs):
        raise PermissionError(errno.EACCES, "it is an input, too, and its folder takes no new file")
    return _OpenHere(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC))


def _is_file(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):
        return False


class _OpenAnyway:
    """Standard output, which was open before and stays open."""

    def __init__(self, output: Output) -> None:
        self.isatty = output.isatty
        self.write = output.write

    def finish(self) -> None:
        """Do nothing: what was written is written."""

    def close(self) -> None:
        """Do nothing."""


class _OpenHere(_OpenAnyway):
    """A descriptor of what is written as it is."""

    def __init__(self, fd: int) -> None:
        super().__init__(Output(fd))
        self._fd = fd

    def close(self) -> None:
        os.close(self._fd)


class _NewFile:
    """A regular file that takes its name when it is complete."""

    def __init__(self, path: str, before: os.stat_result | None) -> None:
        self._path = path
        self._folder = os.path.dirname(path)
        self._hidden = ""  # its name meanwhile, if it has one
        self._fd = self._make()
        self._output = Output(self._fd)
        if before is not None:
            with suppress(OSError):
                if before.st_uid != os.geteuid() or before.st_gid != os.getegid():
                    os.fchown(self._fd, before.st_uid, before.st_gid)
            with suppress(OSError):
                os.fchmod(self._fd, stat.S_IMODE(before.st_mode))

    def _make(self) -> int:
        if os.path.isdir("/proc/self/fd"):  # by which the file gets its name
            try:
                return os.open(self._folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
            except OSError as error:
                if error.errno in (*_REFUSED, errno.ENOENT, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT):
                    raise
        hidden = self._new_name()
        fd = os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
        self._hidden = hidden
        return fd

    def _new_name(self) -> str:
        return os.path.join(self._folder, f".pidfdpool-{os.urandom(8).hex()}.part")

    def isatty(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self._output.write(data)

    def finish(self) -> None:
        _sync(self._fd)
        if not self._hidden:
            self._hidden = self._new_name()
            try:
                self._link(self._hidden)
            except OSError:  # there are file systems that make such files, and cannot give them a name
                self._copy(self._hidden, os.O_CREAT | os.O_EXCL)
        try:
            os.replace(self._hidden, self._path)
        except OSError as error:
            if error.errno != errno.EBUSY:  # a single file that is mounted, as in containers
                raise
            self._copy(self._path, os.O_TRUNC)
        else:
            self._hidden = ""

    def _link(self, name: str) -> None:
        # With a descriptor of a folder, though the path needs none, Python follows the link to the file.
        folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.link(f"/proc/self/fd/{self._fd}", name, src_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)

    def _copy(self, name: str, flags: int) -> None:
        mode = stat.S_IMODE(os.fstat(self._fd).st_mode)
        target = os.open(name, os.O_WRONLY | os.O_CLOEXEC | flags, mode)
        try:
            copy, at = Output(target), 0
            while data := os.pread(self._fd, _COPY_SIZE, at):
                copy.write(data)
                at += len(data)
            _sync(target)
        finally:
            os.close(target)

    def close(self) -> None:
        os.close(self._fd)
        if self._hidden:
            with suppress(OSError):
                os.unlink(self._hidden)


def _sync(fd: int) -> None:
    """Have the disk take all data: its errors are told now, and a crash of the machine leaves no half of a file."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (
            errno.EINVAL,
            errno.ENOSYS,
            errno.EOPNOTSUPP,
        ):  # it knows no such thing
            raise
