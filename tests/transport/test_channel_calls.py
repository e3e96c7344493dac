"""What a channel asks of its socket: how often, for how much, without a signal; and what it does with the answers."""

from __future__ import annotations

import os
import signal
import socket
import termios

import pytest

from pidfdpool.transport import channel, frame_rules, framing
from pidfdpool.transport.channel import Channel

MB = 1 << 20


@pytest.fixture
def ends():
    ours, theirs = channel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


class ScriptedSocket:
    """Takes of each call as many bytes as the script says, or refuses; and notes what it was given."""

    def __init__(self, *takes):
        self.takes, self.stream, self.calls = list(takes), b"", []

    def sendmsg(self, parts, ancillary, flags):
        self.calls.append(("sendmsg", [*parts], len(ancillary), flags))
        take = self.takes.pop(0) if self.takes else MB
        if take is BlockingIOError:
            raise BlockingIOError
        data = b"".join(map(bytes, parts))[:take]
        self.stream += data
        return len(data)

    def sendall(self, part, flags):
        self.calls.append(("sendall", [part], 0, flags))
        self.stream += bytes(part)

    def close(self):
        pass


# ---- sending ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("large", [False, True])
def test_a_frame_of_which_a_part_is_taken_is_sent_on_from_there(large):
    pieces = framing.encode(framing.TASK, value=7, buffers=[b"one", bytearray(b"the second"), memoryview(b"3")])
    whole = b"".join(map(bytes, pieces))
    for takes in range(len(whole) + 1):
        sender = Channel(ScriptedSocket(takes))
        sender.send_nowait(pieces, large=large)
        while not sender.flush():
            pass
        assert sender._sock.stream == whole, takes
        assert not sender.has_unsent


def test_a_socket_that_takes_nothing_is_asked_once_and_all_of_it_waits():
    sender = Channel(ScriptedSocket(BlockingIOError, BlockingIOError, 5))
    pieces = framing.encode(framing.TASK, value=7, buffers=[b"one", b"two"])
    sender.send_nowait(pieces)
    assert (sender.has_unsent, len(sender._sock.calls)) == (True, 1)
    assert sender.flush() is False
    assert sender.flush() is False, "it took a part, so it is full"
    assert (sender._sock.stream, len(sender._sock.calls)) == (b"".join(pieces)[:5], 3)
    assert sender.flush() is True
    assert sender._sock.stream == b"".join(pieces)


def test_what_waits_is_asked_for_in_the_next_flush_only_if_something_does():
    sender = Channel(ScriptedSocket())
    assert sender.flush() is True
    assert sender._sock.calls == []


def test_a_small_frame_is_one_write_and_a_large_one_is_not_copied():
    """Either way one call of the kernel sends it."""
    for size, call in ((0, "sendall"), (4096, "sendall"), (4097, "sendmsg")):
        body = bytes(size)
        pieces = framing.encode(framing.RESULT, value=7, buffers=[body])
        sender = Channel(ScriptedSocket(), send_cookie=b"1234")
        sender.send(pieces)
        [(made, parts, descriptors, flags)] = sender._sock.calls
        assert (made, descriptors, flags) == (call, 0, socket.MSG_NOSIGNAL)
        assert (parts[-1] is body) == (call == "sendmsg")
        assert sender._sock.stream == b"1234" + b"".join(pieces)


def test_a_small_frame_takes_its_descriptor_along():
    sender = Channel(ScriptedSocket())
    sender.send(framing.encode(framing.TASK, value=7, buffers=[b"x"]), 0)
    assert [(made, descriptors) for made, _, descriptors, _ in sender._sock.calls] == [("sendmsg", 1)]


@pytest.fixture
def signalled():
    """Give the list of the SIGPIPEs that came."""
    came: list[int] = []
    previous = signal.signal(signal.SIGPIPE, lambda *_: came.append(1))
    yield came
    signal.signal(signal.SIGPIPE, previous)


FRAME = framing.encode(framing.RESULT, value=7, buffers=[b"x"])


@pytest.mark.parametrize(
    "send",
    [
        lambda end: Channel(end).send(FRAME),
        lambda end: Channel(end).send(FRAME, 0),
        lambda end: Channel(end).send([*FRAME, b"more"]),
        lambda end: Channel(end).send_nowait(FRAME),
        lambda end: Channel(end).send_nowait(FRAME, large=True),
        lambda end: channel.hand_over(end, 0),
    ],
    ids=["joined", "with a descriptor", "in pieces", "at once", "large", "handed over"],
)
def test_to_write_to_an_end_that_is_gone_is_an_error_and_no_signal(ends, signalled, send):
    """A program that left SIGPIPE at its default would be killed."""
    ours, theirs = ends
    theirs.close()
    with pytest.raises(BrokenPipeError):
        send(ours)
    assert signalled == []


def test_nothing_is_kept_of_what_could_not_be_written(ends):
    ours, theirs = ends
    theirs.close()
    sender = Channel(ours)
    with pytest.raises(BrokenPipeError):
        sender.send_nowait(FRAME)
    assert not sender.has_unsent


# ---- receiving -------------------------------------------------------------------------------------------------


def test_who_does_not_wait_is_told_that_nothing_has_come(ends):
    receiver = Channel(ends[0])
    for receive in (receiver.receive_nowait, receiver.receive_lean_nowait):
        with pytest.raises(BlockingIOError):
            receive()
    Channel(ends[1]).send(framing.encode(framing.TASK, value=1, buffers=[b"", bytes(100_000)])[:1])
    assert receiver.receive_nowait() == []
    with pytest.raises(BlockingIOError):
        receiver.receive_nowait()


def test_usual_frames_come_lean_or_whole_as_was_asked_for(ends):
    sender, receiver = Channel(ends[0]), Channel(ends[1], frame_rules.FROM_WORKER)
    sender.send(framing.encode(framing.RESULT, 16, 5, 7, [b"x"]))
    sender.send(framing.encode(framing.READY))
    lean, other = receiver.receive_lean_nowait()
    assert lean == (7, 16, 5, b"x")
    assert other.kind == framing.READY
    sender.send(framing.encode(framing.RESULT, 16, 5, 8, [b"y"]))
    assert receiver.receive_lean() == [(8, 16, 5, b"y")]
    sender.send(framing.encode(framing.RESULT, 16, 5, 7, [b"x"]))
    [frame] = receiver.receive()
    assert (frame.kind, frame.slot, frame.generation, frame.value, frame.buffers) == (11, 16, 5, 7, [b"x"])


def test_all_bytes_are_counted_also_those_of_large_buffers(ends):
    sender, receiver = Channel(ends[0]), Channel(ends[1])
    pieces = framing.encode(framing.TASK, value=1, buffers=[b"abc", bytes(150_000)])
    sender.send_nowait(pieces, large=True)
    while not receiver.receive_nowait():
        sender.flush()
    assert receiver.received == sum(map(len, pieces))


def test_who_does_not_wait_takes_a_part_of_a_large_buffer_at_a_time():
    """It holds a lock, for which others wait."""

    class Full:
        def __init__(self, data):
            self.data, self.asked = data, []

        def recv(self, size, _flags):
            data, self.data = self.data[:size], self.data[size:]
            return data

        def recv_into(self, memory, size, flags):
            self.asked.append((size, bool(flags & socket.MSG_DONTWAIT), bool(flags & socket.MSG_WAITALL)))
            count = min(size or len(memory), len(self.data))
            memory[:count] = self.data[:count]
            self.data = self.data[count:]
            return count

    stream = b"".join(framing.encode(framing.TASK, value=1, buffers=[b"", bytes(9 * MB)]))
    for waits, receive, asked in (
        (False, Channel.receive_nowait, [(4 * MB, True, False), (4 * MB, True, False)]),
        (True, Channel.receive_nowait, [(4 * MB, True, False), (4 * MB, True, False)]),
        (True, Channel.receive, [(0, False, True)]),
        (False, Channel.receive, [(0, False, False)]),
    ):
        receiver = Channel(Full(stream), waits=waits)
        while not (frames := receive(receiver)):
            pass
        assert receiver._sock.asked[: len(asked)] == asked
        assert len(receiver._sock.asked) == (3 if len(asked) == 2 else 1)
        assert len(frames[0].buffers[1]) == 9 * MB


def test_an_error_of_the_stream_is_told_with_the_frames_before_it(ends):
    receiver = Channel(ends[1], frame_rules.FROM_WORKER)
    assert receiver.error is None
    ends[0].sendall(b"".join([*framing.encode(framing.READY), b"\xff text"]))
    assert [frame.kind for frame in receiver.receive()] == [framing.READY]
    assert "unknown kind 255" in str(receiver.error)


def test_how_much_can_be_read_is_known_or_is_all_that_a_channel_holds(ends):
    receiver = Channel(ends[1])
    assert receiver.unread_bytes(termios.FIONREAD) == 0
    ends[0].sendall(bytes(700))
    assert receiver.unread_bytes(termios.FIONREAD) == 700
    assert receiver.unread_bytes(termios.TIOCGWINSZ) == 1 << 18, "the kernel refuses, as a sandbox does"


# ---- descriptors -----------------------------------------------------------------------------------------------


def test_a_descriptor_is_taken_over_as_the_first_thing_and_closed_at_exec(ends):
    ours, theirs = ends
    read_end, write_end = os.pipe()
    channel.hand_over(ours, write_end)
    ours.sendall(b"next")
    taken = channel.take_over(theirs)
    assert not os.get_inheritable(taken)
    assert os.fstat(taken).st_ino == os.fstat(write_end).st_ino
    assert theirs.recv(10) == b"next"
    for fd in (taken, read_end, write_end):
        os.close(fd)


def test_nothing_is_taken_over_if_the_descriptor_was_lost(ends):
    ends[0].sendall(b"\0")
    assert channel.take_over(ends[1]) is None


def test_several_descriptors_with_one_frame_are_all_owned_by_the_channel(ends):
    """No pool sends them. A task may, and would have this process run out of descriptors."""
    receiver = Channel(ends[1], descriptors=True)
    pipes = [os.pipe(), os.pipe()]
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"".join(fds[1].to_bytes(4, "little") for fds in pipes))]
    ends[0].sendmsg([*framing.encode(framing.STOP)], rights)
    [frame] = receiver.receive()
    assert frame.kind == framing.STOP
    for _, write_end in pipes:
        os.close(write_end)
    receiver.close()
    for read_end, _ in pipes:
        assert os.read(read_end, 1) == b"", "nobody has the other end"
        os.close(read_end)


def test_descriptors_for_which_there_was_no_room_leave_no_place_if_others_came_with_them(ends):
    receiver = Channel(ends[1], descriptors=True)
    pipes = [os.pipe() for _ in range(4)]
    three = b"".join(read_end.to_bytes(4, "little") for read_end, _ in pipes[:3])
    ends[0].sendmsg([*framing.encode(framing.STOP)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, three)])
    Channel(ends[0]).send(framing.encode(framing.STOP), pipes[3][0])
    while receiver.received < 2 * framing.HEADER.size:
        receiver.receive()
    got = []
    while (fd := receiver.next_descriptor()) is not None:
        got.append(fd)
    assert len(got) < 4
    assert os.fstat(got[-1]).st_ino == os.fstat(pipes[3][0]).st_ino
    for fd in (*got, *(end for pipe in pipes for end in pipe)):
        os.close(fd)


def test_only_descriptors_are_taken_from_what_comes_beside_the_bytes(ends):
    ends[1].setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    receiver = Channel(ends[1], descriptors=True)
    Channel(ends[0]).send(framing.encode(framing.STOP))
    assert len(receiver.receive()) == 1
    assert receiver.next_descriptor() is None


def test_a_channel_that_is_shut_down_ends_at_both_ends_and_keeps_its_number(ends):
    ours, theirs = Channel(ends[0]), Channel(ends[1])
    number = ours.fileno()
    ours.shut_down()
    for end in (ours, theirs):
        with pytest.raises(EOFError):
            end.receive()
    assert ours.fileno() == number
    ours.close()
    assert ours.fileno() == -1


def test_cookies_differ_and_have_four_bytes():
    cookies = {channel.new_cookie() for _ in range(50)}
    assert len(cookies) > 45
    assert max(cookies) > 1 << 24
    assert all(len(framing.cookie_bytes(cookie)) == 4 for cookie in cookies)
    assert framing.cookie_bytes(0) == b""
    assert framing.cookie_bytes(1) == b"\1\0\0\0"
