"""Encodes and decodes frames, the messages on a channel. Pure: no socket, no process; `channel` moves the bytes.

Both ends of each channel use it, on the thread that reads or writes there. A channel is a stream, so each message is
framed: a fixed header, the length of each buffer, the buffers.

    kind u8 | buffers u8 | slot u16 | generation u32 | value i64 | length u64 x buffers | the buffers

The highest bit of a length says what a buffer behind the first is: set, it was a bytes object and arrives as one;
clear, it arrives as memory that may be written to. The first buffer always arrives as bytes.

`value` is a task's id, a pid, an errno or a wait status, depending on the kind. The contents of buffers mean nothing
here; `serialization.payload` makes and reads them. Numbers are little-endian; both ends run on one machine and have
the same version.

On a worker's own channel both ends know the worker, so slot and generation mean something else there. In a TASK they
are its flags and its attempt. In a RESULT or an ERROR they are flags together with the task's duration
(`decode_duration`), and the worker's memory in KiB.
"""

from __future__ import annotations

import struct
from _io import BytesIO

from pidfdpool.transport.reserved import reserve, reserve_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from pidfdpool.typed import Protocol

    Buffer: TypeAlias = bytes | bytearray | memoryview
    # value, slot, generation and the buffer of a frame of the usual kind: to make a Frame takes three times as long
    Lean: TypeAlias = tuple[int, int, int, bytes]

    class Grammar(Protocol):
        """Which frames may come, see `frame_rules.Grammar`."""

        usual: int | None
        special: int

        def check_kind(self, kind: int, count: int | None = None) -> None:
            """Raise ProtocolError if no such frame may come. count: of buffers; None: it has not come yet."""

        def check(self, kind: int, slot: int, value: int, lengths: Sequence[int]) -> None:
            """Raise ProtocolError if no frame with this header and these lengths may come."""


HEADER = struct.Struct("<BBHIq")
OF_ONE = struct.Struct("<BBHIqQ")  # the header and the length of a frame with one buffer, as most have

# host -> worker; the worker carries out the first two in the order in which they come
TASK = 1  # value: the task's id; slot: flags, see below; generation: the attempt; buffers: the pickled call
EXIT = 2
MAP_SEGMENT = 3  # with a descriptor: a segment; value: its number; slot: its role; generation: its pages
UNMAP_SEGMENT = 4  # value: the number of a segment that is no longer used
EXPECT_DESCRIPTORS = 5  # with a descriptor that nobody needs: others will follow, see Channel.accept_descriptors
STREAM = 7  # about a stream; value: the task's id; slot: see below; generation: the items that its reader took
LOG_LEVELS = 6  # buffers: the levels of the host's loggers, pickled, see `process.log_levels`
RECORD_TIMES = 8  # slot 1: record from now on when tasks run, see `run_times`; 0: no longer

# host -> node, the only one, and the first that the node reads
ATTEMPT = 9  # value: of which attempt of its node this process is

# flags of TASK
HAS_DEADLINE = 1  # the last buffer is not part of the call: it is DEADLINE.pack(a time of time.monotonic())
SPARE_DESCENDANTS = 2  # processes that the task starts and that leave the process group outlive the worker
CALL_IN_SEGMENT = 4  # the call is in a segment; its one buffer is the reference
HAS_LEASE = 8  # one more buffer, before the deadline: LEASE, a segment that the result may be written into
USES_SEGMENTS = CALL_IN_SEGMENT | HAS_LEASE
NEEDS_SCRIPT = 16  # only for workers that were forked after the script had been run again

LEASE = struct.Struct("<Q")  # a segment's number
NO_SEGMENT = 0  # in a lease: there is no segment, but the result is probably large

# flags of RESULT and ERROR, in slot: 0 if the TASK had no flag about segments
HAS_SEGMENT_FLAGS = 1  # the TASK had one
RESULT_IN_SEGMENT = 2  # the result is in the leased segment; its one buffer is the reference
CALL_SEGMENT_FREE = 4  # nobody reads the call's segment any more
LEASE_NOT_RECEIVED = 8  # the leased segment did not reach the worker
SEGMENT_FLAGS = 15  # the mask of these flags
STREAM_ROOM, STREAM_END = 0, 1  # slot of STREAM: the reader goes on, or nobody reads any more
COUNT_MASK = 2**32 - 1  # the items of STREAM are counted from the first one on, modulo 2**32

TICK = 16e-6  # seconds; the unit of the rest of slot
_MAX_TICKS = 2**12 - 1

DEADLINE = struct.Struct("<d")
MAX_ATTEMPTS = 2**32 - 1  # the largest that a frame can hold; later attempts are told this number
_COOKIE = struct.Struct("<I")

# worker -> host
READY = 10
RESULT = 11  # value: the task's id; slot and generation: see above; buffers: the pickled result
ERROR = 12  # as RESULT; buffers: the pickled exception, its traceback as UTF-8 text
INITIALIZER_FAILED = 13  # buffers: as ERROR
DROPPED = 15  # value: the number of taken-back tasks that the worker came to and skipped
UNHEALTHY = 14  # buffers: the reason as UTF-8 text; the worker wants to be replaced
CALL_NOT_RECEIVED = 16  # value: the task's id; its segment did not reach the worker, which waits for the call itself
OUTDATED = 17  # it exits, for the next task needs the script; value 1: which the template may not know of yet
ON_CHANNEL = 18  # only in the pipe of a worker's answers: the next frame is the next one on its channel
LOG = 19  # value: the task's id, or 0; buffers: a log record or a warning, see `serialization.log_records`
ITEMS = 27  # of a stream; value: the task's id; buffers: the pickled item; slot 1: a pickled list of pickled items

# node -> host; besides, READY: its target is called; UNHEALTHY; LOG
HEALTHY = 28  # the first report that it is healthy
ENDING = 29  # buffers: the exception that ends it, as UTF-8 text; value 1: its target could not be loaded

# host -> template
BOOT = 20  # buffers: what the template must know, see `worker.boot`
SPAWN = 21  # with a descriptor: the worker's end of its channel; value: its cookie
SIGNAL = 22  # value: the signal's number; only without pidfds
STOP = 23
INHERITED = 24  # with a descriptor that the initializer's arguments need; before BOOT
TOKENS = 25  # with a descriptor: the tokens of the worker that the next SPAWN requests
RUN_SCRIPT = 26  # run the script again, for the workers that are requested from now on
TRACKER_REQUESTS = 39  # with a descriptor: with which workers ask the host for its resource tracker; before BOOT
START_TRACKER = 40  # with a descriptor: what a new resource tracker of the host's reads

# template -> host
LAUNCHED = 30  # with a descriptor: the launcher's pidfd
HELLO = 31  # value: the template's pid; with a descriptor: its pidfd
BOOTED = 32  # the preload is done: from now on requests are answered at once
PRELOAD_FAILED = 33  # buffers: as ERROR
SPAWNED = 34  # value: the worker's pid; with a descriptor: its pidfd
SPAWN_FAILED = 35  # value: the errno; from the launcher: there is no template
DIED = 36  # value: the wait status; buffers: USAGE.pack(peak RSS in bytes, CPU time in seconds)
BLACK_BOX = 37  # with a descriptor: the worker's black box; before its SPAWNED
STDERR = 38  # with a descriptor: the read end of the worker's standard error, if it is captured; before its SPAWNED

USAGE = struct.Struct("<qd")

KINDS = frozenset(range(1, 41))

MAX_LENGTH = 1 << 46  # bytes; no process has room for a longer buffer
_IS_BYTES = 1 << 63  # in a length, see above
_LENGTH = _IS_BYTES - 1
_DISCARDED = memoryview(bytearray(1 << 14))  # memory for bytes that are discarded
_structs: dict[str, struct.Struct] = {}


def cookie_bytes(number: int) -> bytes:
    """Return the bytes before each frame of a worker or the template. number: its cookie; 0: there are none."""
    return _COOKIE.pack(number) if number else b""


def struct_of(form: str) -> struct.Struct:
    """Return a Struct of this format. It is made once, because each worker needs the same."""
    if form not in _structs:
        _structs[form] = struct.Struct(form)
    return _structs[form]


def encode_duration(seconds: float) -> int:
    """Return a task's duration in the form in which its answer carries it: in slot, beside the flags."""
    return min(int(seconds / TICK) + 1, _MAX_TICKS) << 4


def decode_duration(slot: int) -> float:
    """Return a task's duration in seconds: rounded up, and at most 66 ms."""
    return (slot >> 4) * TICK


class ProtocolError(Exception):
    """The bytes are not a frame that may come from there: something else wrote into the channel. Says what came."""


class Frame:
    """One message that was received."""

    __slots__ = ("buffers", "generation", "kind", "slot", "value")

    def __init__(self, kind: int, slot: int, generation: int, value: int, buffers: list[Buffer]) -> None:
        self.kind: int = kind
        self.slot: int = slot
        self.generation: int = generation
        self.value: int = value
        self.buffers: list[Buffer] = buffers

    def __repr__(self) -> str:
        sizes = [len(buffer) for buffer in self.buffers]
        return f"<Frame {self.kind} slot={self.slot}/{self.generation} value={self.value} buffers={sizes}>"


def encode(
    kind: int, slot: int = 0, generation: int = 0, value: int = 0, buffers: Sequence[Buffer] = ()
) -> list[Buffer]:
    """Return the pieces of one frame for a gathering write; the buffers are not copied."""
    count = len(buffers)
    if count == 1:
        return [OF_ONE.pack(kind, 1, slot, generation, value, len(buffers[0])), buffers[0]]
    head = HEADER.pack(kind, count, slot, generation, value)
    if not count:
        return [head]
    lengths = [len(buffer) | _IS_BYTES if type(buffer) is bytes else len(buffer) for buffer in buffers]
    return [head + struct.pack(f"<{count}Q", *lengths), *buffers]


def made(frame: Frame | Lean, kind: int | None = RESULT) -> Frame:
    """Return the frame itself, or the one of that kind that a `Lean` stands for."""
    if not isinstance(frame, tuple):
        return frame
    return Frame(kind or 0, frame[1], frame[2], frame[0], [frame[3]])


class MissingBuffers(list["Buffer"]):
    """Takes the place of a frame's buffers if there was no memory for them. It is empty."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size  # bytes of all buffers


class Decoder:
    """Takes bytes in whatever pieces the stream delivers them, and returns frames. Not thread-safe.

    Small frames are cut from what `feed_data` is given. If a buffer did not arrive whole, `get_buffer` asks the
    reader to receive straight into its memory, which is its final place: nothing is copied afterwards. A length in a
    header does not prove that the bytes will follow; see `reserved`. If there is no memory, the buffers of this one
    frame are `MissingBuffers`, and the rest of its bytes is discarded.

    A frame that does not follow the grammar is an error. Frames that were complete before it count.
    """

    def __init__(self, grammar: Grammar, cookie: bytes = b"") -> None:
        """cookie: the bytes before each frame. Code that does not know them cannot write a frame."""
        self._grammar, self._cookie = grammar, cookie
        self._usual = None if grammar.usual is None else cookie + bytes((grammar.usual, 1))
        self._of_one = struct_of(f"<{len(cookie) + 2}s{OF_ONE.format[3:]}")
        self._header = struct_of(f"<{len(cookie)}s{HEADER.format[1:]}")
        self._unparsed = b""
        self._frame: Frame | None = None
        self._lengths: list[int] = []  # of the buffers still to come, the next one last
        self._size = 0  # bytes of all buffers of the frame
        self._body: BytesIO | memoryview | None = None  # the buffer being filled; _DISCARDED: its bytes are dropped
        self._length = self._filled = 0
        self.error: ProtocolError | None = None  # if set, the stream cannot be used any more

    def get_buffer(self) -> memoryview | None:
        """Return the memory to receive into next; None: call `feed_data` next.

        The caller writes from its beginning, releases it, and calls `buffer_updated`.
        """
        body = self._body
        if isinstance(body, BytesIO):
            # Not kept: if the collector finds a BytesIO together with a view of it, it warns of that.
            return body.getbuffer()[self._filled :]
        if body is _DISCARDED:
            return _DISCARDED[: self._length - self._filled]
        return None if body is None else body[self._filled :]

    def buffer_updated(self, count: int) -> list[Frame]:
        """Take `count` bytes that were received into `get_buffer()`; return and raise as `feed_data`."""
        self._filled += count
        if self._filled < self._length:
            return []
        body, self._body = self._body, None
        assert self._frame is not None
        if body is not None and body is not _DISCARDED:
            # A BytesIO gives out its memory as bytes without a copy.
            self._frame.buffers.append(body.getvalue() if isinstance(body, BytesIO) else body)
        return self.feed_data(b"")

    def feed_data(self, data: bytes) -> list[Frame]:
        """Take the next bytes of the stream; return the frames that are now complete. As `feed_lean`."""
        return [made(frame, self._grammar.usual) for frame in self.feed_lean(data)]

    def feed_lean(self, data: bytes) -> list[Frame | Lean]:
        """Do as `feed_data`, but return usual frames as `Lean`. What is behind ON_CHANNEL waits for the next call.

        Raises ProtocolError if the bytes are not a frame; the stream cannot be used any more. If frames were complete
        before them, these are returned instead, and `error` is set.
        """
        if self.error is not None:
            raise self.error
        frames: list[Frame | Lean] = []
        if self._unparsed:
            data, self._unparsed = self._unparsed + data, b""
        usual, special = self._usual, self._grammar.special
        unpack, least, add = self._of_one.unpack_from, self._of_one.size, frames.append
        position, end = 0, len(data)
        while True:
            if self._frame is None:
                while end - position >= least:
                    prefix, slot, generation, value, length = unpack(data, position)
                    body = position + least
                    after = body + length
                    if prefix != usual or slot & special or after > end:
                        break
                    add((value, slot, generation, data[body:after]))
                    position = after
                if position == end:
                    return frames
            try:
                frame, position = self._next_frame(data, position)
            except ProtocolError as error:
                self.error = error
                if not frames:
                    raise
                return frames
            if frame is None:
                return frames
            frames.append(frame)
            if frame.kind == ON_CHANNEL:
                self._unparsed = data[position:]
                return frames

    def _next_frame(self, data: bytes, position: int) -> tuple[Frame | None, int]:
        """Return the frame that begins here, or that was begun before, and its end. None: it is not complete yet."""
        if self._frame is None:
            body = self._parse_header(data, position)
            if not body:
                self._unparsed = data[position:]
                return None, position
            position = body
        frame = self._frame
        assert frame is not None
        while self._lengths:
            length = self._lengths.pop()
            is_bytes = length > _LENGTH or not frame.buffers
            length &= _LENGTH
            if len(data) - position < length:
                self._length, self._filled = length, len(data) - position
                self._begin_buffer(frame, is_bytes, data[position:])
                return None, position
            if type(frame.buffers) is list:
                buffer = data[position : position + length]
                frame.buffers.append(buffer if is_bytes else bytearray(buffer))
            position += length
        self._frame = None
        return frame, position

    def _parse_header(self, data: bytes, position: int) -> int:
        """Begin a frame and return where its buffers begin; 0: too few bytes have come.

        Raises ProtocolError if it is not a frame. Even a few bytes are checked, because the rest may never come.
        """
        available = len(data) - position
        cookie, grammar = self._cookie, self._grammar
        if not data.startswith(cookie[:available], position):
            raise ProtocolError(f"the bytes {data[position : position + 16]!r}, which are no frame of its own")
        if available <= len(cookie):
            return 0
        count = data[position + len(cookie) + 1] if available > len(cookie) + 1 else None
        grammar.check_kind(data[position + len(cookie)], count)
        if available < self._header.size:
            return 0
        _, kind, count, slot, generation, value = self._header.unpack_from(data, position)
        body = position + self._header.size
        end = body + 8 * count
        if len(data) < end:
            return 0
        announced = struct.unpack_from(f"<{count}Q", data, body)  # struct keeps the formats that are used
        sizes = [length & _LENGTH for length in announced]
        grammar.check(kind, slot, value, sizes)
        self._frame = Frame(kind, slot, generation, value, [])
        self._lengths = list(announced)[::-1]
        self._size = sum(sizes)
        return int(end)

    def _begin_buffer(self, frame: Frame, is_bytes: bool, received: bytes) -> None:
        """Make room for a buffer that did not arrive whole, and put there what came of it."""
        if type(frame.buffers) is list:
            try:
                if is_bytes:
                    contents = self._body = reserve_bytes(self._length)
                    contents.write(received)
                else:
                    memory = self._body = reserve(self._length)
                    memory[: len(received)] = received
                return
            except MemoryError:
                frame.buffers = MissingBuffers(self._size)
        self._body = _DISCARDED
