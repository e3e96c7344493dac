"""Frames <-> bytes. Pure: no socket, no process; `channel` moves the bytes.

A channel is a stream, so each message is framed: a fixed header, the length of each buffer, the buffers.

    kind u8 | buffers u8 | slot u16 | generation u32 | value i64 | length u64 x buffers | the buffers

`value` is a task's id, a pid, an errno or a wait status, as the kind says. A buffer is opaque here: `payload`
makes and reads it. Numbers are little-endian; both ends run on one machine and come from one version.

On a worker's own channel nobody needs to be told which worker it is, so slot and generation mean something else
there: of a TASK its flags and its attempt; of a RESULT or an ERROR flags and how long the task took (`took`), and the
worker's memory in KiB.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    Buffer: TypeAlias = bytes | bytearray | memoryview

HEADER = struct.Struct("<BBHIq")
_OF_ONE = struct.Struct("<BBHIqQ")  # the header and the length of a frame with one buffer, as nearly all are
_LENGTHS = [struct.Struct(f"<{count}Q") for count in range(256)]

# host -> worker; the first two are done in the order in which they come
TASK = 1  # value: the task's id; slot: flags, see below; generation: the attempt; buffers: the pickled call
EXIT = 2
MAP_SEGMENT = 3  # with a descriptor: a segment; value: its number; slot: its role; generation: its pages
UNMAP_SEGMENT = 4  # value: the number of a segment that is used no more
EXPECT_DESCRIPTORS = 5  # descriptors are coming; with one that nobody needs, see Channel.take_descriptors

# flags of TASK
HAS_DEADLINE = 1  # the last buffer is not the call's: it is the deadline, DEADLINE.pack(time.monotonic() value)
SPARE_DESCENDANTS = 2  # what the task starts, and what leaves the process group, outlives the worker
CALL_IN_SEGMENT = 4  # the call lies in a segment; its one buffer is the reference
HAS_LEASE = 8  # one buffer more, before the deadline: LOAN, a segment that the result may be written into
USES_SEGMENTS = CALL_IN_SEGMENT | HAS_LEASE
NEEDS_SCRIPT = 16  # only for workers that were forked after the script had been run again

LEASE = struct.Struct("<Q")  # a segment's number

# flags of RESULT and ERROR, in slot: 0 where the TASK said nothing of segments
HAS_SEGMENT_FLAGS = 1  # it did
RESULT_IN_SEGMENT = 2  # the result lies in the segment that was lent; its one buffer is the reference
CALL_SEGMENT_FREE = 4  # nobody looks at the call's segment any more
LEASE_NOT_RECEIVED = 8  # the segment that was lent did not reach the worker
SEGMENT_FLAGS = 15  # all of them
_TICK = 16e-6  # seconds: what the rest of slot counts
_MAX_TICKS = 2**12 - 1

DEADLINE = struct.Struct("<d")
MAX_ATTEMPTS = 2**32 - 1  # what the frame has room for; a task is told no higher number of its own
_SEAL = struct.Struct("<I")

# worker -> host
READY = 10
RESULT = 11  # value: the task's id; slot and generation: see above; buffers: the pickled result
ERROR = 12  # as RESULT; buffers: the pickled exception, its traceback as UTF-8 text
INITIALIZER_FAILED = 13  # buffers: as ERROR
DROPPED = 15  # value: so many of the tasks that were taken back came up, and were passed over
UNHEALTHY = 14  # buffers: the reason as UTF-8 text; the worker wants to be replaced
CALL_NOT_RECEIVED = 16  # value: the task's id; its segment did not reach the worker, which waits for the call itself
OUTDATED = 17  # the next task needs the script, which this worker does not have: it begins none any more, and leaves;
# value 1: that has turned out when the task was rebuilt, and the template may not know it yet

# host -> template
BOOT = 20  # buffers: what the template must know, see template.boot
SPAWN = 21  # with a descriptor: the worker's end of its channel; value: what it seals its frames with, see `seal_of`
SIGNAL = 22  # value: signal number; only where there are no pidfds
STOP = 23
INHERITED = 24  # with a descriptor: one that the initializer's arguments need; comes before BOOT
TOKENS = 25  # with a descriptor: the tokens of the worker that the next SPAWN asks for
RUN_SCRIPT = 26  # run the script again, for the workers that are asked for from now on

# template -> host
LAUNCHED = 30  # with a descriptor: the launcher's pidfd
HELLO = 31  # value: the template's pid; with a descriptor: its pidfd
BOOTED = 32  # the preload is done: from now on requests are answered at once
PRELOAD_FAILED = 33  # buffers: as ERROR
SPAWNED = 34  # value: the worker's pid; with a descriptor: its pidfd
SPAWN_FAILED = 35  # value: the errno; from the launcher: there is no template
DIED = 36  # value: the wait status; buffers: USAGE.pack(peak RSS in bytes, seconds of CPU time)
BLACK_BOX = 37  # with a descriptor: the worker's black box; comes before its SPAWNED
STDERR = 38  # with a descriptor: the read end of the worker's standard error, if it is captured; before its SPAWNED

USAGE = struct.Struct("<qd")

_KINDS = frozenset({TASK, EXIT, *range(3, 6), *range(10, 18), *range(20, 27), *range(30, 39)})

MAX_LENGTH = 1 << 46  # bytes; no process has room for a buffer that is longer
_GROWTH = 1 << 20  # bytes: so much memory is had at a time for a buffer whose bytes are still to come
_ZEROS = memoryview(bytes(_GROWTH))
_DISCARDED = bytearray(1 << 14)  # for bytes that nobody wants; what is in there means nothing


def seal_of(number: int) -> bytes:
    """Return what stands before each frame of a worker. number: what SPAWN said; 0: nothing."""
    return _SEAL.pack(number) if number else b""


def encode_duration(seconds: float) -> int:
    """Return how long a task took in the form in which its answer says so, in slot, beside the flags."""
    return min(int(seconds / _TICK) + 1, _MAX_TICKS) << 4


def decode_duration(slot: int) -> float:
    """Return the seconds that a task took: rounded up, and not more than 66 ms."""
    return (slot >> 4) * _TICK


class WireError(Exception):
    """The bytes are not a frame that can come from there: somebody else wrote into the channel. It says what came."""


class Frame:
    """One message as it came in."""

    __slots__ = ("buffers", "generation", "kind", "slot", "value")

    def __init__(self, kind: int, slot: int, generation: int, value: int, buffers: list[Buffer]) -> None:
        self.kind = kind
        self.slot = slot
        self.generation = generation
        self.value = value
        self.buffers = buffers

    def __repr__(self) -> str:
        sizes = [len(buffer) for buffer in self.buffers]
        return f"<Frame {self.kind} slot={self.slot}/{self.generation} value={self.value} buffers={sizes}>"


def encode(
    kind: int, slot: int = 0, generation: int = 0, value: int = 0, buffers: Sequence[Buffer] = ()
) -> list[Buffer]:
    """Return the pieces of one frame, ready for a gathering write; the buffers are not copied."""
    count = len(buffers)
    if count == 1:
        return [_OF_ONE.pack(kind, 1, slot, generation, value, len(buffers[0])), buffers[0]]
    head = HEADER.pack(kind, count, slot, generation, value)
    if not count:
        return [head]
    return [head + _LENGTHS[count].pack(*map(len, buffers)), *buffers]


class MissingBuffers(list["Buffer"]):
    """What a frame has in the place of its buffers if there was no memory for them: nothing."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size  # bytes of all of them


class Rule:
    """What the frames of one kind have to be like; see `frame_rules`."""

    __slots__ = ("check", "fewest", "longest", "most")

    def __init__(
        self,
        fewest: int = 0,
        most: int | None = None,
        longest: int = MAX_LENGTH,
        check: Callable[[int, int, Sequence[int]], str] | None = None,
    ) -> None:
        """Set what is allowed.

        fewest, most: buffers. Default: as many as `fewest`. longest: bytes of a buffer.
        check: returns what is wrong with slot, value and the buffers' lengths; "": nothing.
        """
        self.fewest = fewest
        self.most = fewest if most is None else most
        self.longest = longest
        self.check = check


class Grammar:
    """The kinds of frames that may come from one side, and what they have to be like.

    Nearly all frames are of one kind, and have one buffer. That kind is `usual`: such a frame needs no other look
    unless one of the flags `special` is set in its slot.
    """

    __slots__ = ("_rules", "special", "usual")

    def __init__(self, rules: dict[int, Rule], usual: int = 0, special: int = 0) -> None:
        self._rules = rules
        self.usual = usual
        self.special = special

    def check_kind(self, kind: int, count: int | None = None) -> None:
        """Check what the first bytes of a frame say. count: of buffers; None: it has not come yet.

        Raises:
            WireError: no such frame can come from there.
        """
        rule = self._rules.get(kind)
        if rule is None:
            raise WireError(f"a frame of unknown kind {kind}")
        if count is not None and not rule.fewest <= count <= rule.most:
            wanted = rule.fewest if rule.fewest == rule.most else f"{rule.fewest} to {rule.most}"
            raise WireError(f"a frame of kind {kind} with {count} buffers instead of {wanted}")

    def check(self, kind: int, slot: int, value: int, lengths: Sequence[int]) -> None:
        """Check the head of a frame.

        Raises:
            WireError: no such frame can come from there.
        """
        rule = self._rules[kind]
        if lengths and (max(lengths) > rule.longest or sum(lengths) > MAX_LENGTH):
            raise WireError(f"a frame of kind {kind} with a buffer of {max(lengths)} bytes")
        told = "" if rule.check is None else rule.check(slot, value, lengths)
        if told:
            raise WireError(f"a frame of kind {kind} with {told}")


ANY = Grammar({kind: Rule(0, 255) for kind in _KINDS})


class Decoder:
    """Bytes in, frames out, in whatever pieces the stream delivers them. Not thread-safe.

    Small frames are cut from what `feed` is given. For a buffer that did not arrive whole `wanted` asks the reader to
    receive straight into its memory, so that a large payload is copied once, by the kernel. That memory grows as the
    bytes come: who writes a length has not got the bytes yet. If there is no memory, the buffers of this one frame
    are `Lost`, and the rest of its bytes is read past.

    What does not follow the grammar is a fault. Frames that were complete before it count.
    """

    def __init__(self, grammar: Grammar = ANY, seal: bytes = b"") -> None:
        """seal: stands before each frame, so that nobody who does not know it can write one."""
        self._grammar = grammar
        self._seal = seal
        self._of_one = struct.Struct(f"<{len(seal)}s{_OF_ONE.format[1:]}")
        self._header = struct.Struct(f"<{len(seal)}s{HEADER.format[1:]}")
        self._rest = b""
        self._frame: Frame | None = None
        self._lengths: list[int] = []  # of the buffers still to come, the next one last
        self._size = 0  # bytes of all its buffers
        self._body: bytearray | None = None  # of the buffer that is being filled; _SINK: it is read past
        self._length = self._filled = 0
        self._view: memoryview | None = None
        self.fault: WireError | None = None  # the stream cannot be used any more

    def wanted(self) -> memoryview | None:
        """Return the memory to receive into next, then call `filled`; or None: then call `feed`."""
        if self._body is None:
            return None
        if self._body is not _DISCARDED and self._filled == len(self._body):
            self._grow(self._body)
        if self._body is _DISCARDED:
            self._view = memoryview(_DISCARDED)[: self._length - self._filled]
        else:
            self._view = memoryview(self._body)[self._filled :]
        return self._view

    def filled(self, count: int) -> list[Frame]:
        """Take note of `count` bytes received into `wanted()`; return the frames now complete.

        Raises:
            WireError: as `feed`.
        """
        assert self._view is not None
        assert self._body is not None
        assert self._frame is not None
        self._view.release()  # or the memory could not grow
        self._filled += count
        if self._filled < self._length:
            return []
        if self._body is not _DISCARDED:
            self._frame.buffers.append(self._body)
        self._body = None
        return self.feed(b"")

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes of the stream; return the frames now complete.

        Raises:
            WireError: these bytes are no frame; the stream cannot be used any more. Where frames were complete before
                them, these are returned, and `fault` is set.
        """
        if self.fault is not None:
            raise self.fault
        frames: list[Frame] = []
        if self._rest:
            data, self._rest = self._rest + data, b""
        grammar, seal, unpack = self._grammar, self._seal, self._of_one.unpack_from
        usual, special, least = grammar.usual, grammar.special, self._of_one.size
        position, end = 0, len(data)
        while True:
            if self._frame is None:
                while end - position >= least:
                    mark, kind, count, slot, generation, value, length = unpack(data, position)
                    body = position + least
                    after = body + length
                    if kind != usual or count != 1 or mark != seal or slot & special or after > end:
                        break
                    frames.append(Frame(kind, slot, generation, value, [data[body:after]]))
                    position = after
                if position == end:
                    return frames
            try:
                frame, position = self._cut(data, position)
            except WireError as error:
                self.fault = error
                if not frames:
                    raise
                return frames
            if frame is None:
                return frames
            frames.append(frame)

    def _cut(self, data: bytes, position: int) -> tuple[Frame | None, int]:
        """Return the frame at this place, or the one that was begun, and its end. None: it has not come whole yet.

        Raises:
            WireError: as `feed`.
        """
        if self._frame is None:
            body = self._begin(data, position)
            if not body:
                self._rest = data[position:]
                return None, position
            position = body
        frame = self._frame
        assert frame is not None
        while self._lengths:
            length = self._lengths.pop()
            if len(data) - position < length:
                self._length, self._filled = length, len(data) - position
                self._body = self._memory(frame, data[position:])
                return None, position
            if type(frame.buffers) is list:
                frame.buffers.append(data[position : position + length])
            position += length
        self._frame = None
        return frame, position

    def _begin(self, data: bytes, position: int) -> int:
        """Begin a frame and return where its buffers begin; 0 if too little has come for that.

        Raises:
            WireError: it is none. As little as has come is looked at: nobody may ever write the rest.
        """
        there = len(data) - position
        if not there:
            return 0
        seal, grammar = self._seal, self._grammar
        if not data.startswith(seal[:there], position):
            raise WireError(f"the bytes {data[position : position + 16]!r}, which its loop has not written")
        if there <= len(seal):
            return 0
        count = data[position + len(seal) + 1] if there > len(seal) + 1 else None
        grammar.check_kind(data[position + len(seal)], count)
        if there < self._header.size:
            return 0
        _, kind, count, slot, generation, value = self._header.unpack_from(data, position)
        body = position + self._header.size
        lengths = _LENGTHS[count]
        if len(data) - body < lengths.size:
            return 0
        sizes = lengths.unpack_from(data, body)
        grammar.check(kind, slot, value, sizes)
        self._frame = Frame(kind, slot, generation, value, [])
        self._lengths = list(sizes)[::-1]
        self._size = sum(sizes)
        return body + int(lengths.size)

    # ---- memory for a buffer that did not arrive whole -------------------------------------------------------

    def _memory(self, frame: Frame, begun: bytes) -> bytearray:
        """Return memory that holds what has come of a buffer, and has room for what may come soon."""
        if type(frame.buffers) is list:
            try:
                body = bytearray(min(self._length, max(len(begun), _GROWTH)))
                body[: len(begun)] = begun
                return body
            except MemoryError:
                self._lose(frame)
        return _DISCARDED

    def _grow(self, body: bytearray) -> None:
        try:
            body += _ZEROS[: self._length - len(body)]
        except MemoryError:
            assert self._frame is not None
            self._lose(self._frame)
            self._body = _DISCARDED

    def _lose(self, frame: Frame) -> None:
        """Let go of the buffers of a frame for which there is no memory."""
        frame.buffers = MissingBuffers(self._size)
