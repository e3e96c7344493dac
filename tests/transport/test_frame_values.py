"""Numbers in frames: which are taken for what, the last that are valid, and how a duration is carried."""

from __future__ import annotations

import struct

import pytest

from pidfdpool.transport import frame_rules, framing
from pidfdpool.transport.framing import Decoder, Frame, ProtocolError

FLAGS = {
    "TASK": (
        framing.HAS_DEADLINE,
        framing.SPARE_DESCENDANTS,
        framing.CALL_IN_SEGMENT,
        framing.HAS_LEASE,
        framing.NEEDS_SCRIPT,
    ),
    "RESULT": (
        framing.HAS_SEGMENT_FLAGS,
        framing.RESULT_IN_SEGMENT,
        framing.CALL_SEGMENT_FREE,
        framing.LEASE_NOT_RECEIVED,
    ),
}
GRAMMARS = {
    "worker": frame_rules.FROM_WORKER,
    "answers": frame_rules.ANSWERS,
    "template": frame_rules.FROM_TEMPLATE,
    "node": frame_rules.FROM_NODE,
    "to worker": frame_rules.TO_WORKER,
    "to template": frame_rules.TO_TEMPLATE,
    "to node": frame_rules.TO_NODE,
}
COUNT, TEXT, RECORD, NUMBER = 1 << 31, 1 << 16, 1 << 18, (1 << 63) - 1


def header(kind, lengths=(), slot=0, value=0):
    return struct.pack(f"<BBHIq{len(lengths)}Q", kind, len(lengths), slot, 0, value, *lengths)


def is_valid(side, data):
    try:
        Decoder(GRAMMARS[side]).feed_data(data)
    except ProtocolError:
        return False
    return True


# ---- kinds and flags -------------------------------------------------------------------------------------------


def test_no_two_kinds_have_the_same_number():
    kinds = [
        kind
        for side in ("answers", "template", "to worker", "to template", "to node")
        for kind in GRAMMARS[side]._rules
    ] + [framing.HEALTHY, framing.ENDING]
    assert len(kinds) == len(set(kinds)) == 40
    assert set(kinds) == framing.KINDS == set(frame_rules.ANY._rules)
    assert set(GRAMMARS["answers"]._rules) - set(GRAMMARS["worker"]._rules) == {framing.ON_CHANNEL}


@pytest.mark.parametrize("frame", FLAGS)
def test_flags_are_single_bits_that_fit_beside_each_other(frame):
    flags = FLAGS[frame]
    assert sum(flags) == 2 ** len(flags) - 1
    assert all(flag & (flag - 1) == 0 for flag in flags)
    assert sum(FLAGS["RESULT"]) == framing.SEGMENT_FLAGS


def test_flags_that_say_something_of_the_buffers_need_a_look_and_others_do_not():
    """A frame of the usual kind without such a flag is not looked at any further."""
    usual, special = frame_rules.TO_WORKER.usual, frame_rules.TO_WORKER.special
    assert (usual, special) == (framing.TASK, framing.HAS_DEADLINE | framing.HAS_LEASE | framing.CALL_IN_SEGMENT)
    for grammar in (frame_rules.ANSWERS, frame_rules.FROM_WORKER):
        assert grammar.usual == framing.RESULT
        assert grammar.special & framing.RESULT_IN_SEGMENT
        assert not grammar.special & ~framing.SEGMENT_FLAGS, "a duration is no flag"
    for side in ("template", "node", "to template", "to node"):
        assert (GRAMMARS[side].usual, GRAMMARS[side].special) == (None, 0)


def test_the_number_that_stands_for_no_segment_is_that_of_none():
    assert not is_valid("to worker", header(framing.MAP_SEGMENT, value=framing.NO_SEGMENT))


@pytest.mark.parametrize("most", [framing.MAX_ATTEMPTS, framing.COUNT_MASK])
def test_attempts_and_items_are_counted_as_far_as_a_frame_can_hold(most):
    [head] = framing.encode(framing.STREAM, generation=most)
    assert head[4:8] == b"\xff" * 4
    with pytest.raises(struct.error):
        framing.encode(framing.STREAM, generation=most + 1)


def test_a_reader_that_goes_on_is_not_one_that_has_gone():
    assert (framing.STREAM_ROOM, framing.STREAM_END) == (0, 1)
    assert [is_valid("to worker", header(framing.STREAM, slot=slot, value=1)) for slot in range(3)] == [
        True,
        True,
        False,
    ]


# ---- bounds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "kind", "lengths", "least", "most"),
    [
        ("worker", framing.RESULT, [1, 1], 1, NUMBER),
        ("worker", framing.ERROR, [1, 1], 1, NUMBER),
        ("worker", framing.DROPPED, [], 1, COUNT),
        ("worker", framing.CALL_NOT_RECEIVED, [], 1, NUMBER),
        ("worker", framing.OUTDATED, [], 0, 1),
        ("worker", framing.ITEMS, [1], 1, NUMBER),
        ("worker", framing.LOG, [1], 0, NUMBER),
        ("node", framing.ENDING, [1], 0, 1),
        ("node", framing.LOG, [1], 0, 0),
        ("to node", framing.ATTEMPT, [], 1, COUNT),
        ("to worker", framing.TASK, [1, 1], 1, NUMBER),
        ("to worker", framing.MAP_SEGMENT, [], 1, NUMBER),
        ("to worker", framing.STREAM, [], 1, NUMBER),
        ("to template", framing.SIGNAL, [], 1, 64),
        ("template", framing.LAUNCHED, [], 1, COUNT),
        ("template", framing.HELLO, [], 1, COUNT),
        ("template", framing.SPAWNED, [], 1, COUNT),
        ("template", framing.SPAWN_FAILED, [], 0, 4095),
    ],
)
def test_the_first_and_the_last_number_are_valid_and_no_other(side, kind, lengths, least, most):
    for value, valid in ((least - 1, False), (least, True), (most, True), (min(most + 1, NUMBER), most == NUMBER)):
        assert is_valid(side, header(kind, lengths, value=value)) == valid, value


@pytest.mark.parametrize(
    ("side", "kind", "value", "most"),
    [("to worker", framing.MAP_SEGMENT, 1, 1), ("to worker", framing.STREAM, 1, 1),
     ("to worker", framing.RECORD_TIMES, 0, 1)],
)  # fmt: skip
def test_a_slot_that_says_which_of_two_is_no_third(side, kind, value, most):
    assert [is_valid(side, header(kind, slot=slot, value=value)) for slot in (0, most, most + 1)] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("side", "kind", "most"),
    [
        ("worker", framing.UNHEALTHY, TEXT),
        ("worker", framing.LOG, RECORD),
        ("node", framing.UNHEALTHY, TEXT),
        ("node", framing.ENDING, TEXT),
        ("node", framing.LOG, RECORD),
        ("to worker", framing.LOG_LEVELS, framing.MAX_LENGTH),
    ],
)
def test_what_is_short_by_nature_is_not_taken_when_it_is_longer(side, kind, most):
    assert is_valid(side, header(kind, [most]))
    assert not is_valid(side, header(kind, [most + 1]))


def test_all_buffers_together_are_no_longer_than_one_may_be():
    most = framing.MAX_LENGTH
    assert is_valid("worker", header(framing.ERROR, [most - 5, 5], value=1))
    with pytest.raises(ProtocolError, match=f"kind 12 with a buffer of {most - 5} bytes"):
        Decoder(frame_rules.FROM_WORKER).feed_data(header(framing.ERROR, [most - 5, 6], value=1))


@pytest.mark.parametrize(
    ("status", "valid"),
    [(0, True), (0xFF00, True), (9, True), (0x8B, True), (126, True), (0x7F, False), (0xFF, False), (0x80, False),
     (0x137F, False), (-1, False), (0x10000, False), (0x10009, False), (0x101, True)],
)  # fmt: skip
def test_a_wait_status_is_that_of_an_exit_or_of_a_signal(status, valid):
    assert is_valid("template", header(framing.DIED, [16], value=status)) == valid
    assert not is_valid("template", header(framing.DIED, [17], value=9))


@pytest.mark.parametrize("kind", [framing.TASK, framing.RESULT])
@pytest.mark.parametrize(
    ("length", "valid"), [(8, False), (16, True), (20, False), (8 * 257, True), (8 * 258, False)]
)
def test_a_reference_has_a_number_and_one_length_at_least_and_256_at_most(kind, length, valid):
    side, flag = ("to worker", framing.CALL_IN_SEGMENT) if kind == framing.TASK else ("worker", 2)
    assert is_valid(side, header(kind, [length], slot=flag, value=1)) == valid
    assert not is_valid(side, header(kind, [16, 1], slot=flag, value=1))


@pytest.mark.parametrize(
    ("flags", "lengths", "valid"),
    [
        (framing.HAS_DEADLINE, [1, 8], True),
        (framing.HAS_LEASE, [1, 8], True),
        (framing.HAS_LEASE, [1, 9], False),
        (framing.HAS_LEASE, [8], False),
        (framing.HAS_DEADLINE | framing.HAS_LEASE, [1, 8, 8], True),
        (framing.HAS_DEADLINE | framing.HAS_LEASE, [8, 8], False),
        (framing.HAS_DEADLINE | framing.HAS_LEASE, [1, 7, 8], False),
        (framing.HAS_DEADLINE | framing.HAS_LEASE, [1, 8, 7], False),
        (framing.NEEDS_SCRIPT | framing.SPARE_DESCENDANTS, [1, 9], True),
    ],
)
def test_a_call_is_there_besides_what_its_flags_add(flags, lengths, valid):
    assert is_valid("to worker", header(framing.TASK, lengths, slot=flags, value=1)) == valid


def test_a_list_of_items_is_one_buffer():
    assert is_valid("worker", header(framing.ITEMS, [3], slot=1, value=1))
    assert is_valid("worker", header(framing.ITEMS, [3, 3], slot=0, value=1))
    assert not is_valid("worker", header(framing.ITEMS, [3, 3], slot=1, value=1))
    assert not is_valid("worker", header(framing.ITEMS, [3], slot=2, value=1))


def test_a_number_of_buffers_is_said_with_what_is_wanted():
    with pytest.raises(ProtocolError, match="kind 12 with 1 buffers instead of 2$"):
        Decoder(frame_rules.FROM_WORKER).feed_data(header(framing.ERROR, [1], value=1))
    with pytest.raises(ProtocolError, match="kind 20 with 4 buffers instead of 1 to 3$"):
        Decoder(frame_rules.TO_TEMPLATE).feed_data(header(framing.BOOT, [1] * 4))
    with pytest.raises(ProtocolError, match="kind 11 with 0 buffers instead of 1 to 255$"):
        Decoder(frame_rules.FROM_WORKER).feed_data(header(framing.RESULT, value=1))


# ---- the form of a frame ---------------------------------------------------------------------------------------


def test_a_header_lies_as_the_module_says():
    one, two = b"a", bytearray(b"bc")
    assert framing.encode(30) == [bytes([30, 0]) + bytes(14)]
    assert framing.encode(11, 1, 2, -3, [one]) == [struct.pack("<BBHIqQ", 11, 1, 1, 2, -3, 1), one]
    [head, *buffers] = framing.encode(11, 1, 2, 3, [one, two, one])
    assert head == struct.pack("<BBHIq3Q", 11, 3, 1, 2, 3, 1 | 1 << 63, 2, 1 | 1 << 63)
    assert (buffers[0] is one, buffers[1] is two) == (True, True), "they are not copied"


def test_a_frame_tells_what_it_is_without_its_contents():
    assert repr(Frame(11, 1, 2, 3, [b"secret", b""])) == "<Frame 11 slot=1/2 value=3 buffers=[6, 0]>"


def test_a_lean_frame_stands_for_a_whole_one():
    frame = framing.made((7, 16, 5, b"x"))
    assert (frame.kind, frame.value, frame.slot, frame.generation) == (framing.RESULT, 7, 16, 5)
    assert frame.buffers == [b"x"]
    assert framing.made((7, 16, 5, b"x"), framing.TASK).kind == framing.TASK
    assert framing.made(frame) is frame


def test_what_is_behind_a_frame_that_points_to_the_channel_waits_for_the_next_call():
    decoder = Decoder(frame_rules.ANSWERS)
    answer = b"".join(framing.encode(framing.RESULT, value=1, buffers=[b"x"]))
    [pointer] = framing.encode(framing.ON_CHANNEL)
    assert [frame.kind for frame in decoder.feed_data(answer + pointer + answer + answer[:5])] == [11, 18]
    assert [frame.kind for frame in decoder.feed_data(answer[5:])] == [11, 11]


def test_a_stream_with_an_error_is_not_read_on():
    decoder = Decoder(frame_rules.FROM_WORKER)
    with pytest.raises(ProtocolError) as first:
        decoder.feed_data(b"\xff")
    with pytest.raises(ProtocolError) as second:
        decoder.feed_data(header(framing.READY))
    assert decoder.error is first.value is second.value


@pytest.mark.parametrize("buffer", [b"x" * 70_000, bytearray(b"x" * 70_000), b"x" * 2_000_000])
def test_a_buffer_that_comes_later_is_received_in_its_place(buffer):
    decoder = Decoder(frame_rules.ANY)
    stream = b"".join(framing.encode(framing.RESULT, value=1, buffers=[b"a", buffer, b"end"]))
    frames, at = decoder.feed_data(stream[:100]), 100
    while (memory := decoder.get_buffer()) is not None:
        with memory:
            count = min(len(memory), 30_000)
            memory[:count] = stream[at : at + count]
        frames += decoder.buffer_updated(count)
        at += count
    assert at == len(stream)
    assert [bytes(part) for part in frames[0].buffers] == [b"a", buffer, b"end"]
    assert type(frames[0].buffers[1]) is (bytes if type(buffer) is bytes else memoryview)


def test_what_is_missing_of_a_frame_is_its_own_size_and_not_that_of_those_before():
    decoder = Decoder(frame_rules.FROM_WORKER)
    assert len(decoder.feed_data(header(framing.ERROR, [3, 3], value=1) + b"onetwo")) == 1
    assert decoder.feed_data(header(framing.RESULT, [framing.MAX_LENGTH], value=1) + b"x") == []
    assert decoder._frame.buffers.size == framing.MAX_LENGTH
    assert decoder._frame.buffers == []


# ---- durations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 15.9e-6, 16.1e-6, 0.001, 0.0655])
def test_a_duration_is_rounded_up_by_less_than_a_tick(seconds):
    slot = framing.encode_duration(seconds)
    assert 0 < slot < 1 << 16
    assert not slot & framing.SEGMENT_FLAGS, "the flags are beside it"
    assert 0 < framing.decode_duration(slot) - seconds <= 16e-6 + 1e-12
    assert framing.decode_duration(slot | framing.SEGMENT_FLAGS) == framing.decode_duration(slot)


def test_a_long_duration_is_the_longest_that_there_is_room_for():
    assert framing.encode_duration(1e6) == framing.encode_duration(0.0656) == (2**12 - 1) << 4
    assert framing.decode_duration(framing.encode_duration(1e6)) == pytest.approx(0.06552)
