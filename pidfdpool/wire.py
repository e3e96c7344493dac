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
    from collections.abc import Sequence
    from typing import TypeAlias

    Buffer: TypeAlias = bytes | bytearray | memoryview

HEADER = struct.Struct("<BBHIq")
_OF_ONE = struct.Struct("<BBHIqQ")  # the header and the length of a frame with one buffer, as nearly all are
_LENGTHS = [struct.Struct(f"<{count}Q") for count in range(256)]

# host -> worker; the first two are done in the order in which they come
TASK = 1  # value: the task's id; slot: flags, see below; generation: the attempt; buffers: the pickled call
LEAVE = 2
SEGMENT = 3  # with a descriptor: a segment; value: its number; slot: its role; generation: its pages
FORGET = 4  # value: the number of a segment that is used no more
DESCRIPTORS = 5  # descriptors are coming; with one that nobody needs, see Channel.take_descriptors

# flags of TASK
HAS_DEADLINE = 1  # the last buffer is not the call's: it is the deadline, DEADLINE.pack(time.monotonic() value)
SPARE_DESCENDANTS = 2  # what the task starts, and what leaves the process group, outlives the worker
IN_SEGMENT = 4  # the call lies in a segment; its one buffer is the reference
WITH_LOAN = 8  # one buffer more, before the deadline: LOAN, a segment that the result may be written into
ABOUT_SEGMENTS = IN_SEGMENT | WITH_LOAN
NEEDS_SCRIPT = 16  # only for workers that were forked after the script had been run again

LOAN = struct.Struct("<Q")  # a segment's number

# flags of RESULT and ERROR, in slot: 0 where the TASK said nothing of segments
ANSWERED = 1  # it did
TAKEN = 2  # the result lies in the segment that was lent; its one buffer is the reference
RETURNED = 4  # nobody looks at the call's segment any more
MISSED = 8  # the segment that was lent did not reach the worker
ABOUT_BORROWED = 15  # all of them
_TICK = 16e-6  # seconds: what the rest of slot counts
_MOST_TICKS = 2**12 - 1

DEADLINE = struct.Struct("<d")
MOST_ATTEMPTS = 2**32 - 1  # what the frame has room for; a task is told no higher number of its own

# worker -> host
READY = 10
RESULT = 11  # value: the task's id; slot and generation: see above; buffers: the pickled result
ERROR = 12  # as RESULT; buffers: the pickled exception, its traceback as UTF-8 text
INITIALIZER_FAILED = 13  # buffers: as ERROR
DROPPED = 15  # value: so many of the tasks that were taken back came up, and were passed over
UNHEALTHY = 14  # buffers: the reason as UTF-8 text; the worker wants to be replaced
UNSEEN = 16  # value: the task's id; its segment did not reach the worker, which waits for the call itself
OUTDATED = 17  # the next task needs the script, which this worker does not have: it begins none any more, and leaves;
# value 1: that has turned out when the task was rebuilt, and the template may not know it yet

# host -> template
BOOT = 20  # buffers: what the template must know, see template.boot
SPAWN = 21  # with a descriptor: the worker's end of its channel
SIGNAL = 22  # value: signal number; only where there are no pidfds
STOP = 23
INHERIT = 24  # with a descriptor: one that the initializer's arguments need; comes before BOOT
TOKENS = 25  # with a descriptor: the tokens of the worker that the next SPAWN asks for
SCRIPT = 26  # run the script again, for the workers that are asked for from now on

# template -> host
LAUNCHED = 30  # with a descriptor: the launcher's pidfd
HELLO = 31  # value: the template's pid; with a descriptor: its pidfd
BOOTED = 32  # the preload is done: from now on requests are answered at once
PRELOAD_FAILED = 33  # buffers: as ERROR
SPAWNED = 34  # value: the worker's pid; with a descriptor: its pidfd
SPAWN_FAILED = 35  # value: the errno; from the launcher: there is no template
DIED = 36  # value: the wait status; buffers: USAGE.pack(peak RSS in bytes, seconds of CPU time)
BLACKBOX = 37  # with a descriptor: the worker's black box; comes before its SPAWNED
STDERR = 38  # with a descriptor: the read end of the worker's standard error, if it is captured; before its SPAWNED

USAGE = struct.Struct("<qd")

_KINDS = frozenset({TASK, LEAVE, *range(3, 6), *range(10, 18), *range(20, 27), *range(30, 39)})


def ticks(seconds: float) -> int:
    """Return how long a task took in the form in which its answer says so, in slot, beside the flags."""
    return min(int(seconds / _TICK) + 1, _MOST_TICKS) << 4


def took(slot: int) -> float:
    """Return the seconds that a task took: rounded up, and not more than 66 ms."""
    return (slot >> 4) * _TICK


class WireError(Exception):
    """The bytes are not a frame: somebody else wrote into the channel."""


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


class Decoder:
    """Bytes in, frames out, in whatever pieces the stream delivers them. Not thread-safe.

    Small frames are cut from what `feed` is given. A buffer that did not arrive whole gets memory of its exact
    size, and `wanted` asks the reader to receive straight into it: a large payload is copied once, by the kernel.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._frame: Frame | None = None
        self._lengths: list[int] = []  # of the buffers still to come, the next one last
        self._body: bytearray | None = None
        self._filled = 0

    def wanted(self) -> memoryview | None:
        """Return the memory to receive into next, then call `filled`; or None: then call `feed`."""
        if self._body is None:
            return None
        return memoryview(self._body)[self._filled :]

    def filled(self, count: int) -> list[Frame]:
        """Take note of `count` bytes received into `wanted()`; return the frames now complete."""
        assert self._body is not None
        assert self._frame is not None
        self._filled += count
        if self._filled < len(self._body):
            return []
        self._frame.buffers.append(self._body)
        self._body = None
        return self.feed(b"")

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes of the stream; return the frames now complete.

        Raises:
            WireError: these bytes are no frame; the stream cannot be used any more.
        """
        if self._rest:
            data = self._rest + data
        frames: list[Frame] = []
        position, end = 0, len(data)
        while True:
            frame = self._frame
            if frame is None:
                if end - position >= _OF_ONE.size and data[position + 1] == 1:
                    kind, _, slot, generation, value, length = _OF_ONE.unpack_from(data, position)
                    body = position + _OF_ONE.size
                    if end - body >= length and kind in _KINDS:
                        position = body + length
                        frames.append(Frame(kind, slot, generation, value, [data[body:position]]))
                        continue
                if end - position < HEADER.size:
                    break
                kind, count, slot, generation, value = HEADER.unpack_from(data, position)
                if kind not in _KINDS:
                    raise WireError(f"a frame of unknown kind {kind}")
                lengths = _LENGTHS[count]
                body = position + HEADER.size + lengths.size
                if end < body:
                    break
                self._frame = frame = Frame(kind, slot, generation, value, [])
                self._lengths = list(lengths.unpack_from(data, position + HEADER.size))[::-1]
                position = body
            while self._lengths:
                length = self._lengths.pop()
                if end - position < length:
                    self._body = bytearray(length)
                    self._filled = end - position
                    self._body[: self._filled] = data[position:]
                    self._rest = b""
                    return frames
                frame.buffers.append(data[position : position + length])
                position += length
            frames.append(frame)
            self._frame = None
        self._rest = data[position:]
        return frames
