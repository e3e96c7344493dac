"""One end of a channel: a stream socket that carries frames and, with some of them, a file descriptor.

The host's ends never block: what the kernel does not take at once waits in `_unsent`, and the pool thread sends it
when the socket can take more. The template and the workers use the blocking calls, because they have nothing else to
do meanwhile. A Channel is not thread-safe: the host writes under the pool's lock, and reads on the thread that serves
(the pool thread, or a leader).

A descriptor travels with the first byte of its frame (SCM_RIGHTS, unix(7)). If two writes both carry descriptors, the
kernel never returns their bytes from one read, so descriptors arrive in the order of their frames.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import sys
from collections import deque
from struct import Struct

from pidfdpool.process import native
from pidfdpool.transport import frame_rules, framing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pidfdpool.process.native import Socket
    from pidfdpool.transport.frame_rules import Grammar
    from pidfdpool.transport.framing import Buffer, Frame, Lean

_READ_SIZE = 1 << 16
_MAX_UNREAD = 1 << 18  # bytes; a channel holds at most this many unread
_MAX_JOINED = 1 << 12  # bytes of a buffer; a smaller one is copied into one write with the header, which is quicker
_FD = Struct("@i")
_FD_SPACE = _socket.CMSG_SPACE(_FD.size)
_AT_ONCE = 1 << 22  # bytes of a large buffer in one call that does not wait; others wait for the caller, or its lock
_DONTWAIT = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL
_CLOEXEC = getattr(_socket, "MSG_CMSG_CLOEXEC", 0)


def pair(*, datagrams: bool = False) -> tuple[Socket, Socket]:
    """Return the two ends of a new channel, or of a pair of datagram sockets, close-on-exec and with numbers above 2.

    A host may have closed its standard streams. If an end had the number of one, every print would write to it.
    """
    ends = native.socketpair(_socket.SOCK_DGRAM if datagrams else _socket.SOCK_STREAM)
    if ends[0].fileno() > 2 and ends[1].fileno() > 2:
        return ends
    moved = tuple(native.socket_of(native.above_stdio(end.detach())) for end in ends)
    return moved[0], moved[1]


def hand_over(end: Socket, descriptor: int) -> None:
    """Put a descriptor into a new channel, for `take_over` at its other end, before anything else is sent.

    Raises:
        OSError: too many descriptors are on their way.
    """
    end.sendmsg((b"\0",), [scm_rights(descriptor)], _DONTWAIT)


def receive_descriptors(end: Socket) -> list[int]:
    """Read one datagram without waiting, and return the descriptors that came with it: one, or what else was sent.

    Raises:
        OSError: there is no datagram, or it cannot be read.
    """
    _, ancillary, _, _ = end.recvmsg(1, _FD_SPACE, _DONTWAIT | _CLOEXEC)
    return [
        native.above_stdio(fd)
        for _, _, content in ancillary
        for (fd,) in _FD.iter_unpack(content[: len(content) - len(content) % _FD.size])
    ]


def take_over(end: Socket) -> int | None:
    """Return the descriptor that was put into a new channel by `hand_over`; None: no number was left for it."""
    _, ancillary, _, _ = end.recvmsg(1, _FD_SPACE, _CLOEXEC)
    return native.above_stdio(_FD.unpack(ancillary[0][2])[0]) if ancillary else None


def new_cookie() -> int:
    """Return a random number for `framing.cookie_bytes`; never 0, which means that there is no cookie."""
    return int.from_bytes(os.urandom(4)) or 1


class Channel:
    """Frames over one stream socket, which it owns."""

    def __init__(
        self,
        sock: Socket,
        grammar: Grammar = frame_rules.ANY,
        *,
        descriptors: bool = False,
        waits: bool = False,
        send_cookie: bytes = b"",
        receive_cookie: bytes = b"",
    ) -> None:
        """Take over the socket.

        grammar: the frames that the other end may send. descriptors: whether descriptors may come with them.
        waits: whether `receive` waits for the whole of a large buffer, so that one call of the kernel does it.
        send_cookie: the bytes before each frame that `send` sends. receive_cookie: those before each frame received.
        """
        self._sock = sock
        self._decoder = framing.Decoder(grammar, receive_cookie)
        self._usual = grammar.usual
        self._cookie = send_cookie
        self._accepts_descriptors = descriptors
        self._wait_all = _socket.MSG_WAITALL if waits else 0
        self._descriptors: deque[int | None] = deque()
        self._unsent: deque[tuple[Buffer, int | None]] = deque()
        self.received: int = 0  # bytes since the start

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 once closed."""
        return self._sock.fileno()

    def unread_bytes(self, request: int) -> int:
        """Return how many bytes can be read now.

        request: termios.FIONREAD, from a caller that loaded that module early. Now it may no longer be importable.
        """
        try:
            return int.from_bytes(fcntl.ioctl(self._sock.fileno(), request, bytes(4)), sys.byteorder)
        except OSError:  # a sandbox does not allow it
            return _MAX_UNREAD

    def accept_descriptors(self) -> None:
        """Receive descriptors from now on. Until then reads do not ask for them, which saves half a microsecond each.

        No descriptor that is needed may come before this call. A read without room for descriptors drops those that
        come with what it reads. But it also ends there: everything that arrived later is left for the next read
        (net/unix/af_unix.c, unix_stream_read_generic). So the other end first sends one frame with a descriptor that
        nobody needs, and this end makes this call when it gets that frame.
        """
        self._accepts_descriptors = True

    # ---- receiving -----------------------------------------------------------------------------------------

    def receive(self, flags: int = 0) -> list[Frame]:
        """Read once and return the frames that are now complete, perhaps none.

        Raises:
            EOFError: the other end is closed, and everything it wrote has been read.
            ConnectionResetError: as EOFError, and it did not read all that was written to it (unix(7)).
            BlockingIOError: nothing has come, for a non-blocking read.
            ProtocolError: it is not a frame; see also `error`.
        """
        return [framing.made(frame, self._usual) for frame in self.receive_lean(flags)]

    def receive_lean(self, flags: int = 0) -> list[Frame | Lean]:
        """Do as `receive`, but return usual frames as `Lean`."""
        memory = self._decoder.get_buffer()
        try:
            if memory is not None:
                # A frame with a descriptor is small, so none can arrive while a large buffer is being filled.
                with memory:
                    size = min(len(memory), _AT_ONCE) if flags else 0  # 0: all
                    count = self._sock.recv_into(memory, size, flags or self._wait_all)
                if not count:
                    raise EOFError
                self.received += count
                return [*self._decoder.buffer_updated(count)]
            data = (
                self._receive_with_descriptors(flags)
                if self._accepts_descriptors
                else self._sock.recv(_READ_SIZE, flags)
            )
        except BlockingIOError:
            if flags:
                raise
            native.make_blocking(self._sock.fileno())  # a task has made all descriptors of its worker non-blocking
            return self.receive_lean()
        if not data:
            raise EOFError
        self.received += len(data)
        return self._decoder.feed_lean(data)

    @property
    def error(self) -> framing.ProtocolError | None:
        """The error that follows the frames received last; None: there is none so far."""
        return self._decoder.error

    def receive_nowait(self) -> list[Frame]:
        """Do the same as `receive`, without waiting."""
        return self.receive(_DONTWAIT)

    def receive_lean_nowait(self) -> list[Frame | Lean]:
        """Do the same as `receive_lean`, without waiting."""
        return self.receive_lean(_DONTWAIT)

    def _receive_with_descriptors(self, flags: int) -> bytes:
        data, ancillary, answered, _ = self._sock.recvmsg(_READ_SIZE, _FD_SPACE, flags | _CLOEXEC)
        for level, kind, content in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                for (fd,) in _FD.iter_unpack(content[: len(content) - len(content) % _FD.size]):
                    self._descriptors.append(_moved_up(fd))
        if answered & _socket.MSG_CTRUNC and not ancillary:
            # This process has no descriptor number left, and the kernel dropped the descriptor. Its place is kept;
            # otherwise every later frame would get the descriptor of its predecessor.
            self._descriptors.append(None)
        return data

    def next_descriptor(self) -> int | None:
        """Return the descriptor that came with the oldest frame not yet asked for; None: it was lost."""
        return self._descriptors.popleft() if self._descriptors else None

    # ---- sending -------------------------------------------------------------------------------------------

    @property
    def has_unsent(self) -> bool:
        """Whether something waits until the socket can take more."""
        return bool(self._unsent)

    def send_nowait(self, pieces: Sequence[Buffer], descriptor: int | None = None, *, large: bool = False) -> None:
        """Send without waiting, or keep what cannot be sent yet. The descriptor is owned and closed here.

        Nothing is copied here: the buffers must not change until they are sent. large: it may be more than should be
        sent at once, because the other end reads while this one writes.

        Raises:
            OSError: the other end is gone (EPIPE, ECONNRESET); nothing is kept.
        """
        if not self._unsent and descriptor is None and not large:
            try:
                sent = self._sock.sendmsg(pieces, (), _DONTWAIT)
            except BlockingIOError:
                sent = 0
            for piece in pieces:
                size = len(piece)
                if sent >= size:
                    sent -= size
                else:
                    self._unsent.append((memoryview(piece)[sent:] if sent else piece, None))
                    sent = 0
            return
        for index, piece in enumerate(pieces):
            self._unsent.append((piece, descriptor if index == 0 else None))
        self.flush()

    def flush(self) -> bool:
        """Send what the socket takes of the unsent bytes, at most `_AT_ONCE`; return whether all are sent."""
        left = _AT_ONCE
        while self._unsent and left > 0:
            piece, descriptor = self._unsent[0]
            ancillary = [] if descriptor is None else [scm_rights(descriptor)]
            part = piece if len(piece) <= left else memoryview(piece)[:left]
            try:
                sent = self._sock.sendmsg((part,), ancillary, _DONTWAIT)
            except BlockingIOError:
                return False
            left -= sent
            full = sent < len(part)
            if sent == len(piece):
                self._unsent.popleft()
            else:
                self._unsent[0] = (memoryview(piece)[sent:], None)
            # Only after its entry is removed: a process that is forked between the two must not close it again.
            if descriptor is not None:
                native.close(descriptor)
            if full:
                return False
        return not self._unsent

    def send(self, pieces: Sequence[Buffer], descriptor: int | None = None) -> None:
        """Send all of one frame, and wait as long as that takes. The caller still owns the descriptor."""
        if descriptor is None and len(pieces) == 2 and len(pieces[1]) <= _MAX_JOINED:
            self._sock.sendall(b"".join((self._cookie, pieces[0], pieces[1])), _socket.MSG_NOSIGNAL)
            return
        pieces = [self._cookie + bytes(pieces[0]), *pieces[1:]]
        ancillary = [] if descriptor is None else [scm_rights(descriptor)]
        sent = self._sock.sendmsg(pieces, ancillary, _socket.MSG_NOSIGNAL)
        for piece in pieces:
            if sent >= len(piece):
                sent -= len(piece)
            else:
                self._sock.sendall(memoryview(piece)[sent:], _socket.MSG_NOSIGNAL)
                sent = 0

    def shut_down(self) -> None:
        """Shut the connection down without closing the descriptor: both ends read an end of file."""
        self._sock.shutdown(_socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket, and every descriptor that was received or not yet sent. Idempotent."""
        self._sock.close()
        left = [descriptor for _, descriptor in self._unsent]
        self._unsent.clear()
        left += self._descriptors
        self._descriptors.clear()
        for descriptor in left:
            if descriptor is not None:
                native.close(descriptor)


def _moved_up(fd: int) -> int | None:
    """Return the descriptor with a number above 2; None: there is no such number left, and it is closed."""
    try:
        return native.above_stdio(fd)
    except OSError:
        return None


def scm_rights(descriptor: int) -> tuple[int, int, bytes]:
    """Return the ancillary data that sends a descriptor (unix(7))."""
    return _socket.SOL_SOCKET, _socket.SCM_RIGHTS, _FD.pack(descriptor)
