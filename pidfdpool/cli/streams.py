"""The standard streams of a filter, and the signals that end one.

A filter's output holds documents and nothing else. But a function may print, and so may a module that is
imported, here or in a worker. So `private_stdout` moves the real standard output to a descriptor that
nobody else knows and no child inherits, and points descriptor 1 at standard error. Two more things follow
from it: the reader of our output sees its end as soon as *we* are gone, and Python has nothing of ours in a
buffer that it could fail to flush.
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


def say(message: str) -> None:
    """Write a line to standard error; if that is closed there is nobody to tell."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(message, file=sys.stderr, flush=True)


@contextmanager
def private_stdout() -> Iterator[Output]:
    """Give the caller standard output for itself; everybody else's prints go to standard error meanwhile.

    Raises:
        UsageError: standard output is closed.
    """
    if sys.stdout is None:
        raise UsageError("standard output is closed: there is nowhere to write the documents to")
    sys.stdout.flush()
    mine = os.dup(1)
    try:
        elsewhere = os.dup(2) if sys.stderr is not None else os.open(os.devnull, os.O_WRONLY)
        os.dup2(elsewhere, 1)
        os.close(elsewhere)
        yield Output(mine)
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os.dup2(mine, 1)
        os.close(mine)


class Output:
    """A descriptor to write to. Nothing is buffered: what was written is on its way to the reader."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def isatty(self) -> bool:
        """Return whether a person is looking at it."""
        return os.isatty(self._fd)

    def write(self, data: bytes) -> None:
        """Write all of it, however long the reader takes. Raises OSError, BrokenPipeError among them."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                # Whoever shares our terminal or pipe has made it non-blocking for all of us.
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()


def flush_stdout() -> None:
    """Flush what was printed. Raises BrokenPipeError if nobody wants it, and does so only once."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        # The interpreter flushes once more at its end, and would complain of the same thing.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        if error.errno == errno.EPIPE:
            raise
        say(f"cannot write to standard output: {error.strerror}")


def die_of(number: signal.Signals) -> int:
    """End this process by the signal, as if it were not caught; return an exit code if that is impossible."""
    signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.raise_signal(number)
    return 128 + number
