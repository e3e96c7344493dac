"""Large buffers go through a channel without a copy, in whatever pieces the socket takes and delivers them."""

from __future__ import annotations

import signal
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pidfdpool.transport import channel, frame_rules, framing
from pidfdpool.transport.channel import Channel
from tests.conditions import eventually

MB = 1 << 20


@pytest.fixture
def ends():
    ours, theirs = channel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def contents(size: int, seed: int) -> bytes:
    return bytes((seed + at) % 251 for at in range(251)) * (size // 251 + 1)


buffers = st.tuples(st.integers(0, 200_000), st.integers(0, 250), st.sampled_from([bytes, bytearray])).map(
    lambda it: it[2](contents(it[0], it[1])[: it[0]])
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(buffers, min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.integers(1, 90_000), min_size=1, max_size=5),
    st.booleans(),
)
def test_frames_arrive_unchanged_wherever_their_bytes_are_split(frames, sizes, waits):
    ours, theirs = channel.pair()
    try:
        ours.setblocking(True)
        receiver = Channel(theirs, frame_rules.TO_WORKER, send_cookie=b"", waits=waits)
        stream = b"".join(
            bytes(piece)
            for number, buffers in enumerate(frames, 1)
            for piece in framing.encode(framing.TASK, value=number, buffers=buffers)
        )
        received, at, turn = [], 0, 0
        least = len(stream) // 1000  # a megabyte in single bytes would take minutes on a busy machine
        while at < len(stream):
            piece = stream[at : at + max(least, sizes[turn % len(sizes)])]
            ours.sendall(piece)
            at, turn = at + len(piece), turn + 1
            try:
                while True:
                    received += receiver.receive_nowait()
            except BlockingIOError:
                pass
    finally:
        ours.close()
        theirs.close()
    assert [frame.value for frame in received] == list(range(1, len(frames) + 1))
    for frame, sent in zip(received, frames, strict=True):
        assert [bytes(buffer) for buffer in frame.buffers] == [bytes(buffer) for buffer in sent]
        assert type(frame.buffers[0]) is bytes
        for buffer, original in zip(frame.buffers[1:], sent[1:], strict=True):
            assert (type(buffer) is bytes) == (type(original) is bytes)
            assert memoryview(buffer).readonly == (type(original) is bytes)


def test_an_end_that_waits_gets_a_large_buffer_in_one_read(ends):
    ours, theirs = ends
    receiver = Channel(theirs, waits=True)
    data = contents(5 * MB, 3)
    pieces = framing.encode(framing.TASK, value=1, buffers=[b"", data])
    sending = threading.Thread(target=Channel(ours).send, args=(pieces,))
    sending.start()
    reads, received = 0, []
    while not received:
        received = receiver.receive()
        reads += 1
    sending.join()
    assert received[0].buffers == [b"", data]
    # the header with what had come by then, and the rest
    assert reads <= 3


def test_a_signal_in_the_middle_of_a_large_buffer_changes_nothing(ends):
    ours, theirs = ends
    receiver = Channel(theirs, waits=True)
    data = contents(2 * MB, 5)
    stream = b"".join(framing.encode(framing.TASK, value=1, buffers=[b"", data]))
    handled = []
    main = threading.get_ident()

    def send() -> None:
        for at in range(0, len(stream), MB // 2):
            ours.sendall(stream[at : at + MB // 2])
            before = len(handled)
            signal.pthread_kill(main, signal.SIGUSR1)
            eventually(lambda before=before: len(handled) > before, "the handler has run")

    previous = signal.signal(signal.SIGUSR1, lambda *_: handled.append(receiver.received))
    sending = threading.Thread(target=send)
    try:
        sending.start()
        received = []
        while not received:
            received = receiver.receive()
        eventually(lambda: not sending.is_alive(), "all signals were handled")
    finally:
        signal.signal(signal.SIGUSR1, previous)
        sending.join()
    assert received[0].buffers == [b"", data]
    assert any(0 < at < len(stream) for at in handled), "there was one in the middle"


def test_what_is_large_is_sent_in_parts_so_that_nobody_waits_for_all_of_it(ends, monkeypatch):
    monkeypatch.setattr(channel, "_AT_ONCE", 10_000)
    sender, receiver = map(Channel, ends)
    data = contents(100_000, 7)[:100_000]
    sender.send_nowait(framing.encode(framing.TASK, value=1, buffers=[b"", data, bytearray(b"end")]), large=True)
    received, rounds = [], 0
    assert len(ends[1].recv(MB, socket.MSG_PEEK)) == 10_000
    while sender.has_unsent:
        received += receiver.receive_nowait()
        assert sender.flush() == (not sender.has_unsent)
        rounds += 1
    while not received:
        received += receiver.receive_nowait()
    assert rounds >= 10
    assert [bytes(buffer) for buffer in received[0].buffers] == [b"", data, b"end"]


def test_what_waits_to_be_sent_is_the_caller_s_own_object(ends):
    sender = Channel(ends[0])
    data = contents(3 * MB, 1)
    sender.send_nowait(framing.encode(framing.TASK, value=1, buffers=[b"", data]), large=True)
    [(piece, _)] = sender._unsent
    assert piece.obj is data


@pytest.mark.parametrize("waits", [False, True])
def test_an_end_in_the_middle_of_a_large_buffer_is_an_end(ends, waits):
    ours, theirs = ends
    receiver = Channel(theirs, waits=waits)
    stream = b"".join(framing.encode(framing.TASK, value=1, buffers=[b"", contents(MB, 1)]))
    ours.sendall(stream[:150_000])
    ours.close()
    while receiver.received < 150_000:
        assert receiver.receive() == []
    with pytest.raises(EOFError):
        receiver.receive()


def test_nothing_overtakes_what_waits_to_be_sent(ends):
    """The socket has room again before what waits is sent, which happens when the pool thread looks."""
    ends[0].setblocking(False)
    sender, receiver = map(Channel, ends)
    sender.send_nowait(framing.encode(framing.TASK, value=1, buffers=[contents(MB, 1)]))
    assert sender.has_unsent
    received = receiver.receive_nowait()
    sender.send_nowait(framing.encode(framing.TASK, value=2, buffers=[b"small"]))
    while len(received) < 2:
        received += receiver.receive_nowait()
        sender.flush()
    assert [frame.value for frame in received] == [1, 2]


def test_a_cookie_is_never_zero_which_means_that_there_is_none(monkeypatch):
    monkeypatch.setattr(channel.os, "urandom", bytes)
    assert framing.cookie_bytes(channel.new_cookie())
