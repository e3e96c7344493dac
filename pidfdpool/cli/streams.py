"""The standard streams of a filter, and its exit by a signal.

Called by the commands, in the host, on its main thread.

A filter's output consists of documents and nothing else. But a function may print, and so may a module that is
imported, here or in a worker. So `private_stdout` moves the real standard output to a descriptor that no other code
knows and no child inherits, and makes descriptor 1 a copy of standard error. This has two more effects. The reader of
the output sees its end as soon as *this* process is gone. And Python has no output in a buffer that it could fail to
flush.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pidfdpool.cli.usage import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


class OutputLost(Exception):
    """Standard output cannot be written. The message tells why."""


def show(text: str, *, end: str = "\n") -> None:
    """Print to standard output, at once. What its encoding does not have is escaped. Does nothing if it is closed.

    Raises:
        OutputLost: it cannot be written.
        BrokenPipeError: its reader is gone.
    """
    if sys.stdout is None:
        return
    encoding = sys.stdout.encoding or "utf-8"
    shown = text.encode(encoding, "backslashreplace").decode(encoding)
    with _given_up_when_lost():
        print(shown, end=end, flush=True)


def print_error(message: str) -> None:
    """Write a line to standard error. Does nothing if that is closed."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(message, file=sys.stderr, flush=True)


@contextmanager
def private_stdout(*, needed: bool = True) -> Iterator[Output]:
    """Give the caller standard output for itself. Within the block all other prints go to standard error.

    needed: whether the caller writes to it. If not, it may be closed.

    Raises:
        UsageError: standard output is closed.
    """
    if sys.stdout is None:
        if needed:
            raise UsageError("standard output is closed: there is nowhere to write the documents to")
        with _stderr_in_place_of_stdout():
            yield Output(-1)
        return
    sys.stdout.flush()
    mine = os.dup(1)
    try:
        elsewhere = _elsewhere()
        os.dup2(elsewhere, 1)
        os.close(elsewhere)
        yield Output(mine)
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os.dup2(mine, 1)
        os.close(mine)


@contextmanager
def _stderr_in_place_of_stdout() -> Iterator[None]:
    """Have descriptor 1, which is closed, be a copy of standard error: no file that is opened may get that number."""
    taken: list[int] = []
    while not taken or taken[-1] < 1:  # a new descriptor gets the lowest number that is free
        taken.append(_elsewhere())
    if taken[-1] == 1:
        os.set_inheritable(1, True)
    try:
        yield
    finally:
        for fd in taken:
            os.close(fd)


def _elsewhere() -> int:
    return os.dup(2) if sys.stderr is not None else os.open(os.devnull, os.O_WRONLY)


class Output:
    """A descriptor to write to, without a buffer."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self._fd)

    def write(self, data: bytes) -> None:
        """Write all data, however long the reader takes. Raises OSError, such as BrokenPipeError."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                # Another process that shares the terminal or pipe has made it non-blocking for all.
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()


def flush_stdout() -> None:
    """Flush what was printed. Raises as `show`, but not a second time."""
    if sys.stdout is not None:
        with _given_up_when_lost():
            sys.stdout.flush()


@contextmanager
def _given_up_when_lost() -> Iterator[None]:
    """Have standard output lead nowhere after an error: the interpreter flushes it at exit, and would fail again."""
    try:
        yield
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        if error.errno == errno.EPIPE:
            raise
        raise OutputLost(f"cannot write to standard output: {error.strerror}") from None


def exit_by_signal(number: signal.Signals) -> int:
    """Exit by the signal, as if it were not caught; return an exit code if that is impossible."""
    signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.raise_signal(number)
    return 128 + number
