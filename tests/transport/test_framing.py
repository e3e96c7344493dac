"""Frames are decoded from a stream unchanged, in whatever pieces it delivers them."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pidfdpool.process import native
from pidfdpool.transport import channel, frame_rules, framing
from tests.conditions import run_python

frames = st.lists(
    st.tuples(
        st.sampled_from([framing.TASK, framing.RESULT, framing.ERROR, framing.READY, framing.DIED]),
        st.integers(0, 65535),
        st.integers(0, 2**32 - 1),
        st.integers(-(2**63), 2**63 - 1),
        st.lists(st.binary(max_size=200), max_size=4),
    ),
    max_size=6,
)


def as_tuples(decoded):
    return [(f.kind, f.slot, f.generation, f.value, [bytes(b) for b in f.buffers]) for f in decoded]


@given(frames, st.lists(st.integers(1, 50), min_size=1))
def test_frames_in_any_pieces_are_decoded_unchanged(frames, sizes):
    stream = b"".join(bytes(piece) for frame in frames for piece in framing.encode(*frame))
    decoder, decoded, position, turn = framing.Decoder(frame_rules.ANY), [], 0, 0
    while position < len(stream):
        size = sizes[turn % len(sizes)]
        turn += 1
        memory = decoder.get_buffer()
        if memory is not None:
            piece = stream[position : position + min(size, len(memory))]
            with memory:
                memory[: len(piece)] = piece
            decoded += decoder.buffer_updated(len(piece))
        else:
            piece = stream[position : position + size]
            decoded += decoder.feed_data(piece)
        position += len(piece)
    assert as_tuples(decoded) == frames


@given(st.binary(min_size=16))
def test_garbage_is_refused_or_decoded_without_other_errors(data):
    decoder = framing.Decoder(frame_rules.ANY)
    if data[0] in framing.KINDS:
        data = b"\xff" + data[1:]
    with pytest.raises(framing.ProtocolError):
        decoder.feed_data(data)


@pytest.fixture
def ends():
    ours, theirs = channel.pair()
    pair = channel.Channel(ours, descriptors=True), channel.Channel(theirs, descriptors=True)
    yield pair
    for end in pair:
        end.close()


def test_descriptors_come_out_in_the_order_of_their_frames(ends, tmp_path):
    ours, theirs = ends
    for number in range(20):
        fd = os.open(tmp_path / str(number), os.O_CREAT | os.O_WRONLY)
        ours.send_nowait(framing.encode(framing.SPAWN, value=number), fd)
        ours.send_nowait(framing.encode(framing.STOP))
    got = []
    while len(got) < 20:
        for frame in theirs.receive():
            if frame.kind == framing.SPAWN:
                fd = theirs.next_descriptor()
                got.append((frame.value, os.readlink(f"/proc/self/fd/{fd}"), os.get_inheritable(fd)))
                os.close(fd)
    assert got == [(number, str(tmp_path / str(number)), False) for number in range(20)]


def test_a_descriptor_that_was_dropped_keeps_its_place(ends, tmp_path):
    import resource

    ours, theirs = ends
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    for number in range(2):
        ours.send_nowait(
            framing.encode(framing.SPAWN, value=number), os.open(tmp_path / str(number), os.O_CREAT | os.O_WRONLY)
        )
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    free = [fd for fd in range(highest) if not os.path.exists(f"/proc/self/fd/{fd}")]
    hold = [os.open(os.devnull, os.O_RDONLY) for _ in free]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(n) for n in os.listdir("/proc/self/fd")), limits[1]))
    try:
        first = theirs.receive()
        lost = theirs.next_descriptor()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in hold:
            os.close(fd)
    frames = first + (theirs.receive() if len(first) < 2 else [])
    kept = theirs.next_descriptor()
    assert [frame.value for frame in frames] == [0, 1]
    assert lost is None
    assert kept is not None
    assert os.readlink(f"/proc/self/fd/{kept}").endswith("/1")
    os.close(kept)


def test_send_nowait_never_waits_and_flush_finishes(ends):
    ours, theirs = ends
    payload = os.urandom(3_000_000)
    ours.send_nowait(framing.encode(framing.TASK, value=1, buffers=[payload, b"", b"end"]))
    assert ours.has_unsent
    received = []
    while not received:
        ours.flush()
        received = theirs.receive()
    assert [bytes(buffer) for buffer in received[0].buffers] == [payload, b"", b"end"]
    assert not ours.has_unsent


def test_the_end_of_a_channel_shows_whether_all_was_read(ends):
    ours, theirs = ends
    ours.send_nowait(framing.encode(framing.STOP))
    theirs.receive()
    theirs.close()
    with pytest.raises(EOFError):
        ours.receive()
    ours, theirs = (channel.Channel(end) for end in channel.pair())
    ours.send_nowait(framing.encode(framing.STOP))
    theirs.close()
    with pytest.raises(ConnectionResetError):
        ours.receive()
    ours.close()


@pytest.mark.parametrize("closed", [(0,), (1, 2), (0, 1, 2)])
def test_a_descriptor_that_is_received_never_becomes_a_standard_stream(closed):
    """It would be read, or printed into."""
    done = run_python(
        f"""
        import os
        from pidfdpool.transport import channel, framing
        (ours, theirs), others = channel.pair(), channel.pair()
        handed = os.dup(others[0].fileno())
        read_end, write_end = os.pipe()
        told = os.dup(1)
        for fd in {closed!r}:
            os.close(fd)
        channel.hand_over(theirs, handed)
        taken = channel.take_over(ours)
        receiver, sender = channel.Channel(ours, descriptors=True), channel.Channel(theirs)
        sender.send(framing.encode(framing.BLACK_BOX), write_end)
        receiver.receive()
        received = receiver.next_descriptor()
        free = []
        for fd in {closed!r}:
            try:
                os.fstat(fd)
            except OSError:
                free.append(fd)
        os.write(told, repr((taken > 2, received > 2, tuple(free) == {closed!r})).encode())
        os._exit(0)
        """
    )
    assert (done.stdout, done.stderr) == ("(True, True, True)", "")


def test_ends_are_never_standard_streams():
    saved = os.dup(0)
    os.close(0)
    try:
        ends = channel.pair()
        assert all(end.fileno() > 2 for end in ends)
        assert all(isinstance(end, native.Socket) for end in ends)
        for end in ends:
            end.close()
    finally:
        os.dup2(saved, 0)
        os.close(saved)
