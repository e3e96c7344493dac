"""The standard error of a worker, if the pool captures it: the last lines are kept, and everything is passed on.

Owned by the worker's link, used by the pool thread only. That thread must never block, so what the host's own
standard error does not take at once is not passed on.
"""

from __future__ import annotations

import os
import select
from collections import deque

from pidfdpool.loop import stacks
from pidfdpool.process import native

LINES = 20  # told of each worker
_KEPT = 160  # more than that, for faulthandler writes up to 100 frames of Python and 32 of C when a worker crashes
_LONGEST = 500  # characters kept of a line
_MOST = 32  # chunks at a time: more than a pipe holds, and a worker that writes without end holds up nobody
_CHUNK = 4096  # PIPE_BUF: a pipe that poll(2) calls writable takes so much without blocking (pipe(7))


class Stderr:
    """The read end of one worker's pipe, which it owns."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd: int = fd
        self._rest = b""
        self._lines: deque[bytes] = deque(maxlen=_KEPT)

    def read(self) -> bool:
        """Read what the worker has written, and pass it on; return whether more may come."""
        for _ in range(_MOST):
            try:
                data = os.read(self.fd, _CHUNK)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            _pass_on(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._lines.extend(line[:_LONGEST] for line in lines)
            self._rest = self._rest[:_LONGEST]
        return True

    def last_lines(self) -> tuple[str, ...]:
        """Return the last lines, the latest last, and all that faulthandler wrote if that is among them."""
        lines = [*self._lines, self._rest] if self._rest else list(self._lines)
        return stacks.last_lines([line.decode("utf-8", "backslashreplace") for line in lines], LINES)

    def close(self) -> None:
        """Close the read end. Idempotent. A process that still writes there gets EPIPE."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            native.close(fd)


def _pass_on(data: bytes) -> None:
    poller = native.poll()
    poller.register(2, select.POLLOUT)
    try:
        if any(events & select.POLLOUT for _, events in poller.poll(0)):
            os.write(2, data)
    except OSError:
        return  # the host has no standard error
