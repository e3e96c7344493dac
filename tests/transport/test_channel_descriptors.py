"""Channels: which descriptor belongs to which frame, and who closes those that nobody has asked for."""

from __future__ import annotations

import os

import pytest

from pidfdpool.transport import channel, framing
from tests.conditions import run_python


def test_descriptors_that_nobody_has_asked_for_are_closed_with_the_channel():
    ours, theirs = channel.pair()
    receiver, sender = channel.Channel(ours, descriptors=True), channel.Channel(theirs)
    read_end, write_end = os.pipe()
    sender.send(framing.encode(framing.BLACK_BOX), write_end)
    os.close(write_end)
    assert len(receiver.receive()) == 1
    os.set_blocking(read_end, False)
    with pytest.raises(BlockingIOError):
        os.read(read_end, 1)  # the receiver has the other end
    receiver.close()
    assert os.read(read_end, 1) == b""
    sender.close()
    os.close(read_end)


def test_a_descriptor_that_only_a_number_of_a_standard_stream_is_left_for_is_lost_and_its_frame_is_not():
    ran = run_python(
        """
        import os, resource
        from pidfdpool.transport import channel, framing

        ours, theirs = channel.pair()
        receiver, sender = channel.Channel(ours, descriptors=True), channel.Channel(theirs)
        read_end, write_end = os.pipe()
        sender.send(framing.encode(framing.BLACK_BOX, 1), write_end)
        os.close(0)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        assert [frame.slot for frame in receiver.receive()] == [1]
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert receiver.next_descriptor() is None
        assert os.open(os.devnull, os.O_RDONLY) == 0, "it was closed"
        """
    )
    assert (ran.stderr, ran.returncode) == ("", 0)


def test_a_descriptor_that_found_no_number_does_not_give_its_frame_that_of_the_next():
    ran = run_python(
        """
        import os, resource
        from pidfdpool.transport import channel, framing

        ours, theirs = channel.pair()
        receiver, sender = channel.Channel(ours, descriptors=True), channel.Channel(theirs)
        read_end, write_end = os.pipe()
        os.write(write_end, b"data")
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))  # no number is left
        sender.send(framing.encode(framing.BLACK_BOX, 1), write_end)
        assert [frame.slot for frame in receiver.receive()] == [1]
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        sender.send(framing.encode(framing.BLACK_BOX, 2), read_end)
        assert [frame.slot for frame in receiver.receive()] == [2]
        assert receiver.next_descriptor() is None
        assert os.read(receiver.next_descriptor(), 4) == b"data"
        assert receiver.next_descriptor() is None
        """
    )
    assert (ran.stderr, ran.returncode) == ("", 0)


class SlowSocket:
    """Takes one byte of each call, and notes with how many descriptors."""

    def __init__(self):
        self.sent = []

    def sendmsg(self, parts, ancillary, _flags):
        self.sent.append(len(ancillary))
        return 1

    def close(self):
        pass


def test_a_descriptor_is_sent_once_and_closed_however_little_the_socket_takes():
    read_end, write_end = os.pipe()
    sender = channel.Channel(SlowSocket())
    sender.send_nowait(framing.encode(framing.BLACK_BOX), write_end)
    assert sender.has_unsent
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(write_end)
    while not sender.flush():
        pass
    assert sender._sock.sent == [1] + [0] * (framing.HEADER.size - 1)
    os.close(read_end)


class InterruptedSocket:
    """Takes so many bytes of the first call, as if a signal had come, and everything of the others."""

    def __init__(self, takes):
        self.takes, self.stream, self.descriptors = takes, b"", 0

    def sendmsg(self, parts, ancillary, _flags):
        self.descriptors += len(ancillary)
        self.stream += b"".join(map(bytes, parts))[: self.takes]
        return self.takes

    def sendall(self, part, _flags):
        self.stream += bytes(part)


@pytest.mark.parametrize("descriptor", [None, 0])
def test_a_frame_of_which_a_signal_lets_only_a_part_through_is_sent_whole_and_once(descriptor):
    buffers = [b"one", bytearray(b"the second"), memoryview(b"3")]
    pieces = framing.encode(framing.TASK, value=7, buffers=buffers)
    cookie = framing.cookie_bytes(5)
    whole = cookie + b"".join(map(bytes, pieces))
    for takes in range(1, len(whole) + 1):
        sock = InterruptedSocket(takes)
        channel.Channel(sock, send_cookie=cookie).send(pieces, descriptor)
        assert sock.stream == whole, takes
        assert sock.descriptors == (descriptor is not None)


def test_descriptors_that_were_not_yet_sent_are_closed_with_the_channel():
    ours, theirs = channel.pair()
    sender = channel.Channel(ours)
    read_end, write_end = os.pipe()
    sender.send_nowait([bytes(1 << 20)], large=True)  # more than the socket takes
    sender.send_nowait(framing.encode(framing.BLACK_BOX), write_end)
    sender.close()
    assert os.read(read_end, 1) == b"", "nobody has the other end"
    os.close(read_end)
    theirs.close()


def test_descriptors_come_from_the_frame_on_that_announces_them():
    """A read that does not ask for descriptors drops those that come with what it reads, and reads no further."""
    ours, theirs = channel.pair()
    receiver, sender = channel.Channel(ours), channel.Channel(theirs)
    read_end, write_end = os.pipe()
    for slot in (1, 2):
        sender.send(framing.encode(framing.EXPECT_DESCRIPTORS, slot), read_end)
    assert [frame.slot for frame in receiver.receive()] == [1]
    assert receiver.next_descriptor() is None
    receiver.accept_descriptors()
    assert [frame.slot for frame in receiver.receive()] == [2]
    copy = receiver.next_descriptor()
    assert os.fstat(copy).st_ino == os.fstat(read_end).st_ino
    for fd in (copy, read_end, write_end):
        os.close(fd)
    receiver.close()
    sender.close()


def test_to_close_a_channel_again_closes_no_descriptor_that_has_such_a_number_now():
    ours, theirs = channel.pair()
    receiver, sender = channel.Channel(ours, descriptors=True), channel.Channel(theirs)
    read_end, write_end = os.pipe()
    sender.send(framing.encode(framing.BLACK_BOX), read_end)
    receiver.receive()
    receiver.send_nowait([bytes(1 << 20)], large=True)
    receiver.send_nowait(framing.encode(framing.BLACK_BOX), read_end)
    before = [write_end]
    receiver.close()
    others = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]
    receiver.close()
    for fd in (*others, *before):
        os.close(fd)  # each is still open
    sender.close()


@pytest.mark.parametrize("count", [9_999, 10_000, 10_001, 25_000])
def test_what_is_sent_at_once_is_sent_in_full_whatever_its_size(count, monkeypatch):
    monkeypatch.setattr(channel, "_AT_ONCE", 10_000)
    ours, theirs = channel.pair()
    sender, receiver = channel.Channel(ours), channel.Channel(theirs)
    pieces = framing.encode(framing.TASK, value=1, buffers=[bytes(count)])
    sender.send_nowait(pieces, large=True)
    sender.send_nowait(framing.encode(framing.TASK, value=2, buffers=[b"next"]))
    calls = 1
    while not sender.flush():
        calls += 1
    assert calls <= 1 + (count + 200) // 10_000 + 1
    received = []
    while len(received) < 2:
        received += receiver.receive()
    assert [len(frame.buffers[0]) for frame in received] == [count, 4]
    sender.close()
    receiver.close()
