"""The worker's end of its answers: it writes frames into a pipe, and large ones into the channel.

Made and used by the worker's loop (`process`). Other threads may `post` what a task says beside its answer: that the
worker is unhealthy, log records. They, or a signal handler that runs in the middle of a write, must neither split a
frame nor wait for it. `loop.answers` is the host's end, and says why there are two ways.

The pipe's write end comes through the channel, as the first that is in it. It gets a high number, which nobody gets
by chance. A task may close it. The host sees that, and kills the worker; but for a moment the loop may go on. If the
next file that is opened got the number, an answer would be written into that file.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections import deque
from contextlib import suppress

from pidfdpool.process import native
from pidfdpool.process.native import signal
from pidfdpool.transport import channel as channels
from pidfdpool.transport import framing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pidfdpool.process.native import Socket
    from pidfdpool.transport.channel import Channel
    from pidfdpool.transport.framing import Buffer

# Bytes of a frame that goes through the pipe at most. From 32 KB on the socket is quicker.
LARGEST = 1 << 15
# The least number that the pipe gets; the next one if there is a lower limit (RLIMIT_NOFILE). The kernel has a table
# up to the highest number, here of 2 KB.
_HIGH = (255, 127, 63)
_SIGPIPE, _SIG_IGN = signal.SIGPIPE, native.SIG_IGN
_get_signal, _write = native.get_signal, native.write


def take_pipe(end: Socket) -> int:
    """Return the pipe's write end, which waits in the new channel, under a high number. Close-on-exec.

    Raises:
        OSError: no descriptor is left.
    """
    fd = channels.take_over(end)
    if fd is None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    for least in _HIGH:
        with suppress(OSError):  # the limit is lower, or all numbers above are taken
            moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least)
            native.close(fd)
            return moved
    return fd


class AnswerWriter:
    """Writes the frames of one worker. Whoever calls `send` or `send_answer` holds `lock`.

    Attributes:
        lock: held while a frame is written.
        unsent: frames that came meanwhile. Who has released the lock calls `send_posted` if there are any.
    """

    def __init__(self, pipe: int, channel: Channel, cookie: bytes) -> None:
        """Take over the pipe's write end; the channel is the caller's. cookie: the bytes before each frame."""
        self._pipe = pipe
        self._channel = channel
        self._cookie = cookie
        self._pack = framing.struct_of(f"<{len(cookie)}s{framing.OF_ONE.format[1:]}").pack
        self.lock = native.lock()
        self.unsent: deque[list[Buffer]] = deque()

    def post(self, pieces: list[Buffer]) -> None:
        """Send a frame: now, or as soon as the frame that is being written is complete.

        From any thread, or from a signal handler. Nothing is raised if the host is gone: the loop will notice.
        """
        self.unsent.append(pieces)
        with suppress(OSError):
            self.send_posted()

    def send_posted(self) -> None:
        """Send what was posted. Raises as `send`."""
        # A caller that finds the lock held leaves it to its holder, which looks again after it has released the lock.
        while self.unsent and self.lock.acquire(blocking=False):
            try:
                with suppress(IndexError):  # another thread was quicker
                    self.send(self.unsent.popleft())
            finally:
                self.lock.release()

    def send(self, pieces: list[Buffer]) -> None:
        """Send one frame, and wait as long as that takes.

        Raises:
            BrokenPipeError, ConnectionResetError: the host is gone, or has given up this worker.
        """
        if sum(map(len, pieces)) <= LARGEST:
            self._write(b"".join((self._cookie, *pieces)))
            return
        self._write(self._cookie + framing.encode(framing.ON_CHANNEL)[0])
        # A task may have made all descriptors non-blocking, and nobody could tell how much was sent before an error.
        native.make_blocking(self._channel.fileno())
        self._channel.send(pieces)

    def send_answer(self, kind: int, slot: int, generation: int, value: int, data: Buffer) -> None:
        """Do as `send`, for a frame with one buffer. It packs once, where `encode` and `send` take three steps."""
        if len(data) > LARGEST:
            self.send(framing.encode(kind, slot, generation, value, [data]))
            return
        frame = self._pack(self._cookie, kind, 1, slot, generation, value, len(data)) + data
        try:
            sent = _write(self._pipe, frame) if _get_signal(_SIGPIPE) is _SIG_IGN else 0  # as `_write`
        except BlockingIOError:  # as `_written`
            sent = 0
        if sent < len(frame):
            self._write(frame[sent:])

    def _write(self, data: bytes) -> None:
        if _get_signal(_SIGPIPE) is not _SIG_IGN:
            self._write_without_signal(data)
            return
        while data:  # more than once, if a signal comes when a part is written
            data = data[self._written(data) :]

    def _written(self, data: bytes) -> int:
        """Write some of it; return how many bytes. A task may have made the pipe non-blocking."""
        try:
            return _write(self._pipe, data)
        except BlockingIOError:
            native.make_blocking(self._pipe)
            return _write(self._pipe, data)

    def _write_without_signal(self, data: bytes) -> None:
        """Write where a task has set what SIGPIPE does. A socket can be told not to send it; a pipe cannot."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (_SIGPIPE,))
        try:
            while data:
                data = data[self._written(data) :]
        except BrokenPipeError:
            if _SIGPIPE not in before:
                signal.sigtimedwait((_SIGPIPE,), 0)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def close(self) -> None:
        """Close the pipe: in a process that a task has forked. Idempotent."""
        fd, self._pipe = self._pipe, -1
        if fd >= 0:
            with suppress(OSError):  # the task has closed it
                native.close(fd)
