"""Which frames may come from where: kinds, counts and lengths are checked before anything of a frame is kept."""

from __future__ import annotations

import resource
import struct

import pytest

from pidfdpool.transport import frame_rules, framing
from pidfdpool.transport.framing import Decoder, ProtocolError
from tests.fuzzing import inputs, targets
from tests.fuzzing.__main__ import run
from tests.hostile import frame

MB = 1 << 20
DEADLINE = framing.HAS_DEADLINE
SIDES = {
    "worker": frame_rules.ANSWERS,
    "template": frame_rules.FROM_TEMPLATE,
    "to worker": frame_rules.TO_WORKER,
    "to template": frame_rules.TO_TEMPLATE,
    "node": frame_rules.FROM_NODE,
    "to node": frame_rules.TO_NODE,
}
# The one valid form of each kind. With one buffer more or less, or another number, it is invalid.
RIGHT = [
    ("worker", framing.READY, [], {}),
    ("worker", framing.RESULT, [4], {"value": 1}),
    ("worker", framing.RESULT, [4] * 255, {"value": 1}),
    ("worker", framing.RESULT, [16], {"value": 1, "slot": framing.RESULT_IN_SEGMENT}),
    ("worker", framing.ERROR, [4, 4], {"value": 1}),
    ("worker", framing.INITIALIZER_FAILED, [4, 4], {}),
    ("worker", framing.UNHEALTHY, [4], {}),
    ("worker", framing.DROPPED, [], {"value": 1}),
    ("worker", framing.CALL_NOT_RECEIVED, [], {"value": 1}),
    ("worker", framing.OUTDATED, [], {"value": 1}),
    ("worker", framing.ON_CHANNEL, [], {}),
    ("worker", framing.LOG, [4], {"value": 1}),
    ("worker", framing.ITEMS, [4, 5], {"value": 1}),
    ("worker", framing.ITEMS, [4], {"value": 1, "slot": 1}),
    ("template", framing.LAUNCHED, [], {"value": 1}),
    ("template", framing.HELLO, [], {"value": 1}),
    ("template", framing.BOOTED, [], {}),
    ("template", framing.PRELOAD_FAILED, [4, 4], {}),
    ("template", framing.SPAWNED, [], {"value": 1}),
    ("template", framing.SPAWN_FAILED, [], {"value": 11}),
    ("template", framing.DIED, [16], {"value": 9}),
    ("template", framing.BLACK_BOX, [], {}),
    ("template", framing.STDERR, [], {}),
    ("to worker", framing.TASK, [4], {"value": 1}),
    ("to worker", framing.TASK, [4, 8], {"value": 1, "slot": DEADLINE}),
    (
        "to worker",
        framing.TASK,
        [16, 8, 8],
        {"value": 1, "slot": DEADLINE | framing.HAS_LEASE | framing.CALL_IN_SEGMENT},
    ),
    ("to worker", framing.EXIT, [], {}),
    ("to worker", framing.MAP_SEGMENT, [], {"value": 1, "slot": 1}),
    ("to worker", framing.UNMAP_SEGMENT, [], {"value": 1}),
    ("to worker", framing.EXPECT_DESCRIPTORS, [], {}),
    ("to worker", framing.LOG_LEVELS, [4], {}),
    ("to worker", framing.RECORD_TIMES, [], {"slot": 1}),
    ("to worker", framing.STREAM, [], {"value": 1, "slot": framing.STREAM_END}),
    ("to template", framing.BOOT, [4, 4, 4], {}),
    ("to template", framing.SPAWN, [], {"value": 1}),
    ("to template", framing.SIGNAL, [], {"value": 9}),
    ("to template", framing.STOP, [], {}),
    ("to template", framing.INHERITED, [], {}),
    ("to template", framing.TOKENS, [], {}),
    ("to template", framing.RUN_SCRIPT, [], {}),
    ("to template", framing.TRACKER_REQUESTS, [], {}),
    ("to template", framing.START_TRACKER, [], {}),
    ("node", framing.READY, [], {}),
    ("node", framing.HEALTHY, [], {}),
    ("node", framing.UNHEALTHY, [4], {}),
    ("node", framing.ENDING, [4], {"value": 1}),
    ("node", framing.LOG, [4], {}),
    ("to node", framing.ATTEMPT, [], {"value": 1}),
]


def decoded(side: str, kind: int, lengths, **numbers):
    data = frame(kind, lengths, bytes(sum(lengths)), **numbers)
    whole = Decoder(SIDES[side]).feed_data(data)
    pieces, by_pieces = Decoder(SIDES[side]), []
    for at in range(len(data)):
        by_pieces += (
            pieces.feed_data(data[at : at + 1]) if pieces.get_buffer() is None else fill(pieces, data[at : at + 1])
        )
    assert [one.buffers for one in whole] == [one.buffers for one in by_pieces]
    return whole


def fill(decoder, data):
    decoder.get_buffer()[: len(data)] = data
    return decoder.buffer_updated(len(data))


def test_valid_frames_are_accepted_from_their_own_side_only():
    assert {kind for _, kind, *_ in RIGHT} == {kind for side in SIDES.values() for kind in side._rules}
    for side, kind, lengths, numbers in RIGHT:
        [one] = decoded(side, kind, lengths, **numbers)
        assert (one.kind, [len(buffer) for buffer in one.buffers]) == (kind, lengths)
        for other in SIDES:
            if kind not in SIDES[other]._rules:
                with pytest.raises(ProtocolError, match=f"unknown kind {kind}"):
                    Decoder(SIDES[other]).feed_data(bytes([kind]))


def test_a_wrong_number_of_buffers_is_refused_as_soon_as_it_is_known():
    for side, kind, lengths, _ in RIGHT:
        rule = SIDES[side]._rules[kind]
        for count in {0, len(lengths) + 1, 255} - set(range(rule.fewest, rule.most + 1)):
            if count <= 255:
                with pytest.raises(ProtocolError, match=f"kind {kind} with {count} buffers"):
                    Decoder(SIDES[side]).feed_data(bytes([kind, count]))


@pytest.mark.parametrize(
    ("side", "kind", "lengths", "numbers"),
    [
        ("worker", framing.RESULT, [1 << 62], {"value": 1}),
        ("worker", framing.RESULT, [(1 << 64) - 1, 1], {"value": 1}),
        ("worker", framing.RESULT, [1 << 45, 1 << 45, 1 << 45], {"value": 1}),
        ("worker", framing.RESULT, [1], {"value": -1}),
        ("worker", framing.RESULT, [17], {"value": 1, "slot": framing.RESULT_IN_SEGMENT}),
        ("worker", framing.RESULT, [8], {"value": 1, "slot": framing.RESULT_IN_SEGMENT}),
        ("worker", framing.RESULT, [8 * 300], {"value": 1, "slot": framing.RESULT_IN_SEGMENT}),
        ("worker", framing.RESULT, [16, 16], {"value": 1, "slot": framing.RESULT_IN_SEGMENT}),
        ("worker", framing.ERROR, [16, 1], {"value": 1, "slot": framing.RESULT_IN_SEGMENT}),
        ("worker", framing.UNHEALTHY, [MB], {}),
        ("worker", framing.LOG, [MB], {}),
        ("worker", framing.ITEMS, [4], {"value": 0}),
        ("worker", framing.ITEMS, [4, 4], {"value": 1, "slot": 1}),
        ("worker", framing.ITEMS, [4], {"value": 1, "slot": 2}),
        ("to worker", framing.STREAM, [], {"value": 1, "slot": 2}),
        ("to worker", framing.STREAM, [], {"value": 0}),
        ("worker", framing.LOG, [4], {"value": -1}),
        ("worker", framing.DROPPED, [], {"value": 0}),
        ("worker", framing.DROPPED, [], {"value": -5}),
        ("worker", framing.OUTDATED, [], {"value": 2}),
        ("template", framing.SPAWNED, [], {"value": 0}),
        ("template", framing.DIED, [15], {"value": 9}),
        ("template", framing.DIED, [16], {"value": 0x7F}),
        ("template", framing.DIED, [16], {"value": 1 << 40}),
        ("to worker", framing.TASK, [1], {"value": 0}),
        ("to worker", framing.TASK, [8], {"value": 1, "slot": DEADLINE}),
        ("to worker", framing.TASK, [1, 7], {"value": 1, "slot": DEADLINE}),
        ("to worker", framing.TASK, [9], {"value": 1, "slot": framing.CALL_IN_SEGMENT}),
        ("to worker", framing.MAP_SEGMENT, [], {"value": 1, "slot": 2}),
        ("to template", framing.SIGNAL, [], {"value": 4000}),
    ],
)
def test_invalid_numbers_are_refused_before_any_buffer_has_come(side, kind, lengths, numbers):
    with pytest.raises(ProtocolError, match=f"kind {kind} with "):
        Decoder(SIDES[side]).feed_data(frame(kind, lengths, **numbers))


def test_frames_without_the_cookie_are_refused():
    for data in (b"\n", b"\x0b", frame(framing.RESULT, [3 << 30], value=1), frame(framing.READY), b"no cookie"):
        with pytest.raises(ProtocolError, match="which are no frame of its own"):
            Decoder(frame_rules.FROM_WORKER, b"cookie").feed_data(data)
    decoder = Decoder(frame_rules.FROM_WORKER, b"cookie")
    [one] = decoder.feed_data(b"cookie" + frame(framing.READY) + b"text")
    assert one.kind == framing.READY, "what was complete before it counts"
    with pytest.raises(ProtocolError, match="b'text'"):
        decoder.feed_data(b"cookie" + frame(framing.READY))


def without_memory(_length):
    raise MemoryError


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("flag", [0, framing._IS_BYTES], ids=["memory", "bytes"])
def test_memory_is_had_only_for_the_bytes_that_came(flag):
    decoder = Decoder(frame_rules.FROM_WORKER)
    before = resident()
    assert decoder.feed_data(frame(framing.RESULT, [1, flag | 3 << 30], b"a", value=1)) == []
    for came in range(MB // 2, 16 * MB, MB // 2):
        with decoder.get_buffer() as memory:
            memory[: MB // 2] = bytes(MB // 2)
        assert decoder.buffer_updated(MB // 2) == []
        assert resident() - before < came * 5 // 4 + 8 * MB
    assert resident() - before > 12 * MB, "it is written where it was measured"


@pytest.mark.parametrize("flag", [0, framing._IS_BYTES])
def test_a_flagged_length_is_checked_as_any_other(flag):
    with pytest.raises(ProtocolError, match="a buffer of"):
        Decoder(frame_rules.FROM_WORKER).feed_data(
            frame(framing.RESULT, [1, flag | (framing.MAX_LENGTH + 1)], value=1)
        )


def test_a_length_that_no_memory_is_enough_for_costs_the_buffers_of_its_frame():
    decoder = Decoder(frame_rules.FROM_WORKER)
    assert decoder.feed_data(frame(framing.RESULT, [framing.MAX_LENGTH], b"a", value=1)) == []
    assert type(decoder._frame.buffers) is framing.MissingBuffers
    assert len(decoder.get_buffer()) == len(framing._DISCARDED)


@pytest.mark.parametrize("size", [70_000, MB, 3 * MB + 5])
def test_a_buffer_without_memory_is_skipped(monkeypatch, size):
    monkeypatch.setattr(framing, "reserve_bytes", without_memory)
    monkeypatch.setattr(framing, "reserve", without_memory)
    decoder = Decoder(frame_rules.FROM_WORKER)
    data = frame(framing.ERROR, [size, 100], b"x" * (size + 100), value=7) + frame(framing.READY)
    frames, at = [], 0
    while at < len(data):
        into = decoder.get_buffer()
        piece = data[at : at + (len(into) if into is not None else 50_000)]
        if into is None:
            frames += decoder.feed_data(piece)
        else:
            into[: len(piece)] = piece
            into.release()
            frames += decoder.buffer_updated(len(piece))
        at += len(piece)
    assert [one.kind for one in frames] == [framing.ERROR, framing.READY]
    assert type(frames[0].buffers) is framing.MissingBuffers
    assert (frames[0].value, frames[0].buffers.size, list(frames[0].buffers)) == (7, size + 100, [])


def test_a_buffer_without_memory_drops_the_whole_frames_buffers(monkeypatch):
    monkeypatch.setattr(framing, "reserve", without_memory)
    decoder = Decoder(frame_rules.FROM_WORKER)
    [head, *_] = [frame(framing.RESULT, [100, 2 * MB, 100], value=1)]
    decoder.feed_data(head + b"a" * 90)
    decoder.get_buffer()[:10] = b"a" * 10
    assert decoder.buffer_updated(10) == []
    left = 2 * MB
    while left:
        count = len(decoder.get_buffer())
        assert decoder.buffer_updated(count) == []
        left -= count
    [one] = decoder.feed_data(b"c" * 100)
    assert one.buffers == []
    assert one.buffers.size == 2 * MB + 200


@pytest.mark.parametrize("target", targets.TARGETS)
def test_a_few_inputs_of_the_fuzzer(target):
    try:
        assert run(target, 1, 300) > 0
    finally:
        targets.close()


def test_the_fuzzer_finds_an_error_and_reports_its_seed(monkeypatch):
    monkeypatch.setattr(frame_rules.ANSWERS, "_rules", dict.fromkeys(range(256), frame_rules.Rule(0, 255)))
    with pytest.raises(AssertionError, match=r"frames, seed \d+: NotClean"):
        run("frames", 1, 3000)


def test_a_reference_of_the_largest_size_is_accepted():
    assert frame_rules._is_reference(len(struct.pack("<257Q", *range(257))))


@pytest.mark.parametrize("side", inputs.GRAMMARS)
def test_a_kind_that_does_not_exist_is_refused_on_every_side(side):
    for kind in set(range(256)) - framing.KINDS:
        data = b"".join(framing.encode(kind, value=1, buffers=[b"seven b"]))
        with pytest.raises(ProtocolError):
            Decoder(inputs.GRAMMARS[side]).feed_data(data)


@pytest.mark.parametrize("side", ["worker", "to worker"])
def test_the_usual_frame_without_the_right_cookie_is_refused_and_the_frames_before_it_count(side):
    """It arrives whole, as nearly all do. Code of a task's has written it into its worker's channel."""
    kind = SIDES[side].usual
    right, wrong = (cookie + frame(kind, [3], b"abc", value=1) for cookie in (b"good", b"evil"))
    with pytest.raises(ProtocolError, match="no frame of its own"):
        Decoder(SIDES[side], b"good").feed_data(wrong)
    decoder = Decoder(SIDES[side], b"good")
    assert len(decoder.feed_data(right + right + wrong + right)) == 2
    assert decoder.error is not None
