"""The targets of the fuzzer: everything that one process decodes of what another one wrote.

A target gets a source of randomness, draws an input and decodes it. The outcome must be a value or a clean error, and
memory must be bounded by what was received; otherwise the target raises. It returns the bytes of its input.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import struct
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

from pidfdpool.loop import outcomes, segment_leases, stacks
from pidfdpool.loop.progress import Progress
from pidfdpool.loop.responses import OUTCOMES
from pidfdpool.loop.segment_account import ResultLease, SegmentAccount, TaskSegments
from pidfdpool.scheduler.machine import Machine
from pidfdpool.scheduler.policy import Policy
from pidfdpool.serialization import log_records as records
from pidfdpool.serialization import payload
from pidfdpool.transport import black_box, framing, published, tokens
from pidfdpool.transport.segments import layout, memory
from pidfdpool.transport.segments.arena import RESULT, Arena
from pidfdpool.worker.leased_segments import LeasedSegments
from tests.fuzzing import inputs

_KINDS = {name: sorted(of._rules) for name, of in inputs.GRAMMARS.items()}


class NotClean(Exception):
    """Something came out that must not."""


def check(right: object, what: str) -> None:
    if not right:
        raise NotClean(what)


# ---- frames -------------------------------------------------------------------------------------------------------


def decoded(draw: random.Random, side: str, cookie: bytes) -> tuple[list[framing.Frame], int]:
    """Decode a stream as a channel would, in pieces; return the frames and how many bytes came."""
    data = inputs.stream(draw, _KINDS[side], cookie)
    decoder = framing.Decoder(inputs.GRAMMARS[side], cookie)
    frames: list[framing.Frame] = []
    at = 0
    try:
        while at < len(data):
            into = decoder.get_buffer()
            if into is None:
                piece = data[at : at + draw.choice((1, 5, 64, 1 << 16))]
                frames += decoder.feed_data(piece)
            else:
                piece = data[at : at + min(len(into), draw.choice((1, 500, 1 << 16)))]
                with into:
                    into[: len(piece)] = piece
                frames += decoder.buffer_updated(len(piece))
            at += len(piece)
            check(decoder._filled <= at, f"{decoder._filled} bytes were written for {at} that had come")
            if decoder.error is not None:
                break
    except framing.ProtocolError as error:
        check(decoder.error is error, "a fault is not remembered")
        check(str(error), "a fault without words")
    check(sum(len(b) for f in frames for b in f.buffers) <= len(data), "more came out than went in")
    return frames, len(data)


def frames(draw: random.Random) -> int:
    """Decode frames of every side by its grammar: what is accepted has what its kind needs."""
    side = draw.choice(list(_KINDS))
    came, size = decoded(draw, side, draw.choice(inputs.COOKIES))
    for frame in came:
        counts = [len(buffer) for buffer in frame.buffers]
        check(frame.kind in inputs.GRAMMARS[side]._rules, "a kind from the wrong side")
        if frame.kind in (framing.ERROR, framing.INITIALIZER_FAILED, framing.PRELOAD_FAILED):
            check(len(counts) == 2, "an exception that is not two buffers")
        elif frame.kind == framing.DIED:
            check(counts == [framing.USAGE.size], "a death without usage")
            outcomes_status(frame.value)
        elif frame.kind in (framing.UNHEALTHY, framing.LOG):
            check(len(counts) == 1, "no reason, or no record")
        elif frame.kind == framing.DROPPED:
            check(frame.value > 0, "fewer than none")
        elif frame.kind == framing.ITEMS:
            check(frame.value > 0 and len(counts) >= 1, "items of no task, or none")
            check(frame.slot == 0 or (frame.slot == 1 and len(counts) == 1), "items that are no list")
    return size


def outcomes_status(value: int) -> None:
    from pidfdpool.pidfd import ExitStatus

    str(ExitStatus.from_wait_status(value))


# ---- the host: what it does with what a worker said -------------------------------------------------------------


class _Host:
    """The part of a pool that takes a worker's answers."""

    def __init__(self) -> None:
        self.lock = contextlib.nullcontext()
        self.tasks = {number: SimpleNamespace(name="task", number=number) for number in range(1, 4)}
        self.machine = Machine(Policy(max_workers=1))
        self.workers: dict[int, object] = {}
        self.leases = segment_leases.SegmentLeases.__new__(segment_leases.SegmentLeases)
        self.leases._pool = self
        self.leases.arena = Arena(4 << 20)
        self.leases._looked_at = set()
        self.leases.sizes = {}
        self.account = SegmentAccount()

    def lend(self) -> None:
        """Have each task lent a segment for its result."""
        for number in self.tasks:
            segment = self.leases.arena.take_free(RESULT, 100_000) or self.leases.arena.allocate(RESULT, 100_000)
            lease = None if segment is None else ResultLease(self.leases.arena, segment)
            self.account.leased[number] = TaskSegments(None, lease, None)


_host: list[_Host] = []


def be_told(frame: framing.Frame) -> None:
    """Take an outcome as a future is told it."""
    result, error = outcomes.load(frame)
    check(error is None or (result is None and isinstance(error, BaseException)), "neither a result nor an error")
    check(not frame.buffers, "its buffers are kept")
    str(error)


def answers(draw: random.Random) -> int:
    """Take a worker's answers, with segments or without, up to the futures: each is resolved."""
    if not _host:
        _host.append(_Host())
    host = _host[0]
    host.lend()
    numbers = {
        n: had.result.segment.number for n, had in host.account.leased.items() if had.result and had.result.segment
    }
    number = draw.randrange(1, 4)
    parts = [draw.choice((0, 10, 1000, 50_000, 99_000, inputs.number(draw, 64))) for _ in range(draw.randrange(1, 4))]
    reference = struct.pack(f"<Q{len(parts)}Q", numbers.get(number, 1) + (draw.random() < 0.1), *parts)
    if draw.random() < 0.3:
        reference = inputs.damaged(draw, reference)
    pickled = payload_of(draw)
    flags = draw.choice((0, 1, 3, 5, 7, 9, 11, inputs.number(draw, 16)))
    kind = draw.choice(OUTCOMES)
    buffers = draw.choice(([reference], [pickled], [pickled, b"text \xff"]))
    raw = b"".join(bytes(piece) for piece in framing.encode(kind, flags, 0, number, buffers))
    link = SimpleNamespace(account=host.account)
    try:
        for frame in framing.Decoder(inputs.GRAMMARS["a worker to the host"]).feed_data(raw):
            host.leases.settle(link, frame)
            be_told(frame)
    except framing.ProtocolError as error:
        check(str(error), "a fault without words")
    host.account.leased.clear()
    return len(raw)


# ---- the worker: what it does with what the host said -----------------------------------------------------------


def requests(draw: random.Random) -> int:
    """Take what a worker reads, up to the arguments of a call."""
    came, size = decoded(draw, "the host to a worker", b"")
    segments = LeasedSegments(SimpleNamespace(next_descriptor=lambda: None, accept_descriptors=lambda: None))
    segments._mapped[1] = memory.Mapping(-1, 1 << 16)
    for frame in came:
        if frame.kind in (framing.MAP_SEGMENT, framing.UNMAP_SEGMENT):
            segments.handle_frame(frame)
        elif frame.kind == framing.TASK:
            if frame.slot & framing.HAS_DEADLINE:
                framing.DEADLINE.unpack(frame.buffers.pop())
            with contextlib.suppress(ValueError):  # a reference beyond its segment
                if frame.slot & framing.USES_SEGMENTS and segments.begin_task(frame):
                    check(frame.buffers, "a call without buffers")
                    frame.buffers.clear()
                    segments.end_task()
    return size


# ---- the black box, tokens, layouts, payloads -------------------------------------------------------------------

_box: list[int] = []


def boxes(draw: random.Random) -> int:
    """Read a black box with any contents."""
    if not _box:
        _box.append(os.memfd_create("box", os.MFD_CLOEXEC))
    fd = _box[0]
    size = draw.choice(
        (0, 3, 8, 40, 64, 1500, black_box.STACKS_OFFSET, black_box.STACKS_OFFSET + 1, 2500, 20_000, 20_000)
    )
    head = b"".join(struct.pack("@q", inputs.number(draw, 63)) for _ in range(8))
    lines = [
        b"Thread 0x7 (most recent call first):",
        b'  File "<string>", line 99999999999 in f',
        b"  ...",
        b"\xff\n",
    ]
    lines += [b'  File "/dev/zero", line 3 in g', b'  File "\\U99999999", line 1 in h', b"Fatal Python error: x"]
    text = b"\n".join(draw.choice(lines) for _ in range(draw.randrange(40)))
    data = inputs.damaged(
        draw, (draw.choice((head, draw.randbytes(64))).ljust(black_box.STACKS_OFFSET, b"\1") + text)[:size]
    )
    os.ftruncate(fd, 0)
    os.pwrite(fd, data, 0)
    if draw.random() < 0.05:
        os.ftruncate(fd, 1 << 40)
    beat, now = black_box.last_heartbeat(fd), time.monotonic()
    check(beat is None or 0.0 < beat <= now, f"a heartbeat at {beat}")
    begun = black_box.last_begun(fd)
    check(begun is None or isinstance(begun, int), "no number")
    black_box.claimed_tasks(fd)
    check(0 <= black_box.count_marks(fd) <= black_box.MAX_MARKS, "more marks than there is room for")
    found = black_box.read_stack(fd)
    if found is not None:
        check(len(found) <= 16384, "more than the end of it")
        stacks.told(found)
        stacks.last_lines(found.split("\n"), 20)
    return len(data)


_ledger: list[int] = []


def ledgers(draw: random.Random) -> int:
    """Read what a worker has published of a chunk, with any contents: only what can be true is believed."""
    if not _ledger:
        _ledger.append(os.memfd_create("ledger", os.MFD_CLOEXEC))
    fd = _ledger[0]
    lengths = [draw.choice((1, 5, 300)) for _ in range(draw.randrange(30))]
    ends = [sum(lengths[: index + 1]) for index in range(len(lengths))]
    begun = draw.choice((len(ends), len(ends) + 1, 0, inputs.number(draw, 63)))
    task, started = draw.choice((0, 7, inputs.number(draw, 63))), inputs.number(draw, 63)
    head = struct.pack("@5q", task, started, begun, 0, 0).ljust(64, b"\0") + struct.pack(f"@{len(ends)}I", *ends)
    if draw.random() < 0.5:
        head = inputs.damaged(draw, head)
    os.ftruncate(fd, 0)
    os.pwrite(fd, head, published.OFFSET)
    os.ftruncate(fd, published.OFFSET + draw.choice((0, 24, published.SIZE, published.SIZE, published.SIZE)))
    found = published.read(fd)
    if found is not None:
        check(len(found.ends) <= found.begun <= len(found.ends) + 1, "more has begun than can be")
        check(all(map(int.__lt__, found.ends, found.ends[1:])), "a result that ends before it begins")
        check(len(found.data) == (found.ends[-1] if found.ends else 0), "results that are not there")
    at, now = published.call_started(fd), time.monotonic()
    check(at is None or 0.0 < at <= now, f"a call that began at {at}")
    count = published.calls_begun(fd, task)
    check(count is None or 0 <= count <= published.MAX_CALLS, "more calls than a chunk has")
    return len(head)


_progress: list[Progress] = []
_ends: list[int] = []  # of its tokens and its box


def counts(draw: random.Random) -> int:
    """Count tokens that nobody sent, beside records of what has begun: no more is believed than was sent."""
    if not _progress:
        ours, theirs = tokens.pair()
        _ends.extend((theirs, black_box.create()))
        _progress.append(Progress(ours))
        _progress[0].use_black_box(_ends[1])
    progress, theirs = _progress[0], _ends[0]
    while tokens.take(theirs):
        pass
    held = list(range(5, 5 + draw.randrange(6)))
    if held:
        progress.put_tokens(len(held))
    if draw.random() < 0.5:
        tokens.put(theirs, draw.randrange(1, 9))
    for _ in range(draw.randrange(4)):
        tokens.take(theirs)
    begun = draw.choice([*held, 0, inputs.number(draw, 62)])
    for place, value in (
        (black_box.RECORDS_BEGUN, draw.choice((1, 1, 0))),
        (black_box.LAST_BEGUN, begun),
        (black_box.CLAIMED, begun),
    ):
        os.pwrite(_ends[1], struct.pack("@q", value), 8 * place)
    last = held[1:]
    count = progress.take_back(last)
    check(0 <= count <= len(last), "more is taken back than was sent")
    check(begun not in last[len(last) - count :] or not progress.last_begun(), "what has begun is taken back")
    unbegun = progress.unbegun(held)
    check(0 <= unbegun <= len(held) + 1, "more is left than was sent")
    return 8


def layouts(draw: random.Random) -> int:
    """Open references to a segment: their parts lie in it, or they are refused."""
    room = memoryview(bytearray(4096))
    parts = [draw.choice((0, 1, 63, 64, 65, 1000, 5000, inputs.number(draw, 64))) for _ in range(draw.randrange(6))]
    reference = inputs.damaged(draw, struct.pack(f"<Q{len(parts)}Q", inputs.number(draw, 64), *parts))
    try:
        found = layout.parts(reference, room)
        check(sum(map(len, found)) <= len(room), "parts that overlap or lie outside")
        check(layout.size_of(reference) <= len(room), "a size beyond the segment")
        layout.number_of(reference)
    except (ValueError, IndexError, struct.error):
        pass
    return len(reference)


_PLAIN = [None, 1, "text", b"bytes", [1, 2.5, "x"] * 5, {"key": (1, 2)}, [b"z" * 3000], "\u20ac" * 100]
_SEEDS = [bytes(payload.dumps(value)[0]) for value in _PLAIN]


def payload_of(draw: random.Random) -> bytes:
    """Return a pickle, a damaged one, one with the trailer of calls by value, or bytes that are no pickle."""
    data = draw.choice(_SEEDS)
    if draw.random() < 0.6:
        data = inputs.damaged(draw, data)
    if draw.random() < 0.4:
        data += struct.pack("<QB", draw.choice((0, len(data), inputs.number(draw, 64))), draw.randrange(3))
    return data if draw.random() < 0.9 else draw.randbytes(draw.randrange(60))


def payloads(draw: random.Random) -> int:
    """Rebuild pickles as results and as exceptions: the outcome is a value, or an error that says so."""
    data, text = payload_of(draw), draw.randbytes(draw.randrange(20))
    for kind, buffers in ((framing.RESULT, [data]), (framing.RESULT, [data, text]), (framing.ERROR, [data, text])):
        be_told(framing.Frame(kind, 0, 0, 1, buffers))
    return len(data)


_RECORD = {
    "logger": "app", "name": "app", "levelno": 20, "levelname": "INFO", "msg": "hello", "exc_text": None,
    "stack_info": None, "pathname": "a.py", "lineno": 1, "funcName": "f", "created": 1.0, "thread": 1,
    "threadName": "T", "taskName": None, "process": 7, "extra": {"key": (1, b"2")},
}  # fmt: skip
_WARNING = {
    "text": "old", "category": [["builtins", "UserWarning"]], "filename": "a.py", "lineno": 1, "module": "a",
    "line": None, "created": 1.0, "process": 7,
}  # fmt: skip


def log_records(draw: random.Random) -> int:
    """Read what travels of a log record: it has its fields, or it is refused; nothing is imported or called."""
    odd = (None, -1, "x", b"x", [1], {"a": 1}, {1: 2}, draw.choice((_RECORD, records.dumps)))
    fields: dict[str, object] = dict(draw.choice((_RECORD, _WARNING)))
    for name in draw.sample(sorted(fields), draw.randrange(3)):
        fields[name] = draw.choice(odd)
    data = pickle.dumps(fields) if draw.random() < 0.5 else payload_of(draw)
    if draw.random() < 0.6:
        data = inputs.damaged(draw, data)
    modules = len(sys.modules)
    try:
        form, found = records.loads(data)
        check(found.keys() == form.keys(), "fields that no record has")
        check(all(isinstance(found[name], types) for name, types in form.items()), "a field of another type")
    except ValueError as error:
        check(str(error), "a fault without words")
    check(len(sys.modules) == modules, "something was imported")
    return len(data)


TARGETS: dict[str, Callable[[random.Random], int]] = {
    target.__name__: target
    for target in (frames, answers, requests, boxes, ledgers, counts, layouts, payloads, log_records)
}


def close() -> None:
    """Close what the targets have made for all of their inputs."""
    for host in _host:
        host.leases.close()
    for progress in _progress:
        progress.close()
    for fd in (*_box, *_ledger, *_ends):
        os.close(fd)
    for kept in (_host, _progress, _box, _ledger, _ends):
        kept.clear()
