"""The host's end of a worker's answers: a pipe for nearly all frames, and the channel for large ones.

The thread that serves the worker reads: the pool thread or the leader. The thread that asks for the worker calls
`attach`, under the pool's lock.

To hand over a small message takes a third of the time in a pipe that it takes in a socket. Bytes that are large come
through the socket in half the time (see docs/design.md). So the pipe has the order of all frames. In the place of a
large one it has the frame ON_CHANNEL, and the large one is the next frame on the channel. The worker writes
ON_CHANNEL first, then the large frame, and only then the next into the pipe. From this two rules follow:

* When the channel is ready and no frame is expected there, the pipe is read to its end first: perhaps ON_CHANNEL is
  in it. If not, the channel is at its end, or somebody else has written into it.
* While a frame of the channel's is expected and has not arrived, nothing may be in the pipe.

A caller may know less than that: it was told that one of the two is ready, and another thread has read it meanwhile.
So whatever breaks a rule is looked at again.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from pidfdpool.process import native
from pidfdpool.transport import channel as channels
from pidfdpool.transport import frame_rules, framing
from pidfdpool.transport.framing import ProtocolError

if TYPE_CHECKING:
    from pidfdpool.process.native import Socket
    from pidfdpool.transport.channel import Channel
    from pidfdpool.transport.framing import Frame, Lean

_READ_SIZE = 1 << 16  # bytes; as many as a pipe holds
_MAX_UNREAD = 1 << 16


def attach(end: Socket) -> int:
    """Return the read end of a new pipe, whose write end waits in the worker's end of this new channel.

    So neither the template nor another worker ever has it, nor is there anything to send to the template. Both ends
    are close-on-exec. The read end does not block, and has a number above 2.

    Raises:
        OSError: no descriptor is left; nothing stays open.
    """
    reader, writer = new_pipe()
    try:
        reader = native.above_stdio(reader)
        try:
            fcntl.fcntl(reader, fcntl.F_SETFL, os.O_NONBLOCK)
            channels.hand_over(end, writer)
        except BaseException:
            native.close(reader)
            raise
    finally:
        native.close(writer)
    return reader


def new_pipe() -> tuple[int, int]:
    """Return the read end and the write end of a pipe, close-on-exec."""
    return os.pipe2(os.O_CLOEXEC)


class Answers:
    """All that one worker writes, in its order. Owns the pipe's read end; the channel is the caller's.

    Not thread-safe. It has the methods of a channel that read.
    """

    def __init__(self, pipe: int, channel: Channel, cookie: bytes) -> None:
        self._pipe = pipe
        self._channel = channel
        self._decoder = framing.Decoder(frame_rules.ANSWERS, cookie)
        self._awaits_channel = False  # the next frame is the channel's
        self._large: deque[Frame] = deque()  # frames of the channel's, of which the pipe has not told yet
        self._received = 0

    def fileno(self) -> int:
        """Return the pipe's descriptor; -1 once closed."""
        return self._pipe

    @property
    def received(self) -> int:
        """The bytes that were read since the start, in both."""
        return self._received + self._channel.received

    @property
    def error(self) -> ProtocolError | None:
        """The error that follows the frames received last; None: there is none so far."""
        return self._decoder.error or self._channel.error

    def unread_bytes(self, request: int) -> int:
        """Return how many bytes can be read now; see `Channel.unread_bytes`."""
        try:
            in_pipe = int.from_bytes(fcntl.ioctl(self._pipe, request, bytes(4)), sys.byteorder)
        except OSError:  # a sandbox does not allow it
            in_pipe = _MAX_UNREAD
        return in_pipe + self._channel.unread_bytes(request)

    def receive_nowait(self) -> list[Frame | Lean]:
        """Read once, without waiting, and return the frames that are now complete, perhaps none.

        Raises:
            EOFError: the worker has closed its end, and everything it wrote there was read.
            BlockingIOError: nothing has come.
            ProtocolError: it is not a frame; see also `error`.
        """
        if self._awaits_channel:
            self._large += self._channel.receive_nowait()
            return self._with_large([])
        memory = self._decoder.get_buffer()
        if memory is None:
            data = native.read(self._pipe, _READ_SIZE)
            count = len(data)
            if not count:
                raise EOFError
            frames = self._decoder.feed_lean(data)
        else:
            with memory:
                count = os.readv(self._pipe, [memory])
            if not count:
                raise EOFError
            frames = [*self._decoder.buffer_updated(count)]
        self._received += count
        return self._with_large(frames) if frames and _is_place(frames[-1]) else frames

    def receive_when_pipe_is_ready(self) -> list[Frame | Lean]:
        """As `receive_nowait`, for a caller that was told that there is something in the pipe, or its end.

        By now another thread may have read that (the leader, or the pool thread).
        """
        if not self._awaits_channel:
            return self.receive_nowait()
        try:
            return self.receive_nowait()
        except BlockingIOError:
            if not _is_ready(self._pipe):
                raise
        try:
            return self.receive_nowait()  # the worker may have ended the large frame, and gone on in the pipe
        except BlockingIOError:
            raise EOFError from None  # whatever it is: the rest of the frame will not come

    def receive_when_channel_is_ready(self) -> list[Frame | Lean]:
        """As `receive_nowait`, for a caller that was told that there is something on the channel, or its end."""
        try:
            return self.receive_nowait()
        except BlockingIOError:
            if self._awaits_channel or not _is_ready(self._channel.fileno()):
                raise
        try:
            return self.receive_nowait()  # the place of a frame that has come meanwhile
        except BlockingIOError:
            self._channel.receive_nowait()
        raise ProtocolError("a frame on its channel, of which its pipe does not tell")

    def _with_large(self, frames: list[Frame | Lean]) -> list[Frame | Lean]:
        """Put large frames into their places, as far as they have come. The last frame of `frames` may be a place."""
        if frames:
            frames.pop()
        while self._large:
            frames.append(self._large.popleft())
            with suppress(ProtocolError):  # it is in `error`, and what came before counts
                frames += self._decoder.feed_lean(b"")
            if not _is_place(frames[-1]):
                self._awaits_channel = False
                return frames
            frames.pop()
        self._awaits_channel = True
        return frames

    def close(self) -> None:
        """Close the pipe. Idempotent."""
        fd, self._pipe = self._pipe, -1
        if fd >= 0:
            native.close(fd)


def _is_place(frame: Frame | Lean) -> bool:
    """Return whether this is not a frame but the place of one that comes on the channel."""
    return type(frame) is framing.Frame and frame.kind == framing.ON_CHANNEL


def _is_ready(descriptor: int) -> bool:
    """Return whether there is something to read, or the end."""
    poll = native.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
