"""What the host's end of a worker's answers reads, counts and closes, step by step."""

from __future__ import annotations

import fcntl
import os
from termios import FIONREAD

import pytest

from pidfdpool.loop import answers
from pidfdpool.process import native
from pidfdpool.transport import channel as channels
from pidfdpool.transport import framing
from pidfdpool.transport.framing import ProtocolError
from pidfdpool.worker.answers import take_pipe
from tests.conditions import open_descriptors
from tests.loop.test_answers import COOKIE, Ends, plain, result

PLACE = COOKIE + framing.encode(framing.ON_CHANNEL)[0]


def small(number):
    return COOKIE + b"".join(result(number, 5))


def large(number, size=1 << 18):
    return COOKIE + b"".join(result(number, size))


def numbers(frames):
    return [frame.value for frame in plain(frames)]


@pytest.fixture
def ends():
    made = Ends()
    yield made
    made.close()


# ---- the pipe ----------------------------------------------------------------------------------------------------


def test_the_hosts_end_does_not_block_and_ends_with_the_workers(ends):
    with pytest.raises(BlockingIOError):
        ends.host.receive_nowait()
    os.write(ends.pipe, small(1))
    ends.worker.close()
    assert numbers(ends.host.receive_nowait()) == [1]
    for _ in range(2):
        with pytest.raises(EOFError):
            ends.host.receive_nowait()


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_where_the_host_has_closed_a_standard_stream_the_pipe_does_not_become_one(closed):
    """Otherwise every print would be read from the pipe, or end it."""
    ours, theirs = channels.pair()
    kept = native.duplicate(closed)
    os.close(closed)
    try:
        reader = answers.attach(ours)
        left = fcntl.fcntl(reader, fcntl.F_GETFD), fcntl.fcntl(reader, fcntl.F_GETFL) & os.O_NONBLOCK
    finally:
        os.dup2(kept, closed)
        os.close(kept)
    assert reader > 2
    assert left == (fcntl.FD_CLOEXEC, os.O_NONBLOCK)
    pipe = take_pipe(theirs)
    native.write(pipe, b"data")
    assert os.read(reader, 10) == b"data"
    for fd in (reader, pipe):
        os.close(fd)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("refused", ["above_stdio", "F_SETFL"])
def test_neither_end_stays_open_where_the_pipe_cannot_be_made_ready(refused, monkeypatch):
    ours, theirs = channels.pair()
    before = open_descriptors()

    def refuse(*_):
        raise OSError("none left")

    def close_and_refuse(fd):
        os.close(fd)
        raise OSError("none left")

    if refused == "above_stdio":
        monkeypatch.setattr(answers.native, "above_stdio", close_and_refuse)
    else:
        monkeypatch.setattr(answers.fcntl, "fcntl", refuse)
    with pytest.raises(OSError, match="none left"):
        answers.attach(ours)
    monkeypatch.undo()
    assert open_descriptors() == before
    ours.close()
    theirs.close()


def test_a_closed_pipe_has_no_number_and_another_file_is_not_closed_in_its_place(ends):
    number = ends.host.fileno()
    assert number == ends.reader
    ends.host.close()
    assert ends.host.fileno() == -1
    others = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)]
    while others[-1] < number:
        others.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    ends.host.close()
    for other in others:
        os.close(other)  # which none of them was before


# ---- what is counted ---------------------------------------------------------------------------------------------


def test_what_was_read_and_what_can_be_read_is_counted_in_both(ends):
    assert (ends.host.received, ends.host.unread_bytes(FIONREAD)) == (0, 0)
    os.write(ends.pipe, small(1))
    ends.theirs.sendall(large(2, 100))
    there = len(small(1)), len(large(2, 100))
    assert ends.host.unread_bytes(FIONREAD) == sum(there)
    ends.host.receive_nowait()
    assert (ends.host.received, ends.host.unread_bytes(FIONREAD)) == there
    os.write(ends.pipe, PLACE)
    assert numbers(ends.host.receive_nowait()) == []
    assert numbers(ends.host.receive_nowait()) == [2]
    assert (ends.host.received, ends.host.unread_bytes(FIONREAD)) == (sum(there) + len(PLACE), 0)


def test_a_frame_that_comes_in_parts_through_the_pipe_is_counted_as_it_comes(ends):
    data, sent, frames = COOKIE + b"".join(result(1, 150_000)) + small(2), 0, []
    while not frames or frames[-1] != 2:
        sent += os.write(ends.pipe, data[sent : sent + 40_000])
        while ends.host.unread_bytes(FIONREAD):
            frames += numbers(ends.host.receive_nowait())
            assert ends.host.received <= sent
        assert ends.host.received == sent
    assert frames == [1, 2]
    assert sent == len(data)


def test_a_worker_that_ends_in_the_middle_of_a_frame_is_at_its_end(ends):
    data = COOKIE + b"".join(result(1, 150_000))
    for at in (0, 40_000):
        os.write(ends.pipe, data[at : at + 40_000])
        assert ends.host.receive_nowait() == []
    ends.worker.close()
    with pytest.raises(EOFError):
        ends.host.receive_nowait()
    assert ends.host.received == 80_000


def test_where_a_sandbox_does_not_tell_as_much_is_assumed_as_there_may_be(ends, monkeypatch):
    """All that is there is read before a deadline is judged."""

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(answers.fcntl, "ioctl", refuse)
    capacity = fcntl.fcntl(ends.pipe, fcntl.F_GETPIPE_SZ)
    assert ends.host.unread_bytes(FIONREAD) >= capacity + ends.host._channel.unread_bytes(FIONREAD)


# ---- large frames and their places -------------------------------------------------------------------------------


def test_large_frames_that_are_read_together_wait_for_their_places(ends):
    ends.theirs.sendall(b"".join(large(number, 100) for number in (1, 2, 3)))
    os.write(ends.pipe, PLACE)
    assert ends.host.receive_nowait() == []
    assert numbers(ends.host.receive_nowait()) == [1]
    os.write(ends.pipe, small(7) + PLACE + PLACE + small(8))
    assert numbers(ends.host.receive_nowait()) == [7, 2, 3, 8]
    with pytest.raises(BlockingIOError):
        ends.host.receive_nowait()


def test_a_place_whose_frame_has_not_come_holds_up_what_is_behind_it(ends):
    ends.theirs.sendall(large(1, 100))
    os.write(ends.pipe, PLACE + PLACE + small(3))
    assert ends.host.receive_nowait() == []
    assert numbers(ends.host.receive_nowait()) == [1]
    with pytest.raises(BlockingIOError):
        ends.host.receive_nowait()
    ends.theirs.sendall(large(2, 100))
    assert numbers(ends.host.receive_nowait()) == [2, 3]


def test_a_large_frame_that_comes_in_parts_is_waited_for(ends):
    data = large(1, 100)
    os.write(ends.pipe, PLACE)
    assert ends.host.receive_nowait() == []
    for at in range(0, len(data), 50):
        ends.theirs.sendall(data[at : at + 50])
        frames = ends.host.receive_when_channel_is_ready()
        assert numbers(frames) == ([1] if at + 50 >= len(data) else [])
    os.write(ends.pipe, small(2))
    assert numbers(ends.host.receive_when_pipe_is_ready()) == [2]


@pytest.mark.parametrize("where", ["pipe", "channel", "both"])
def test_a_fault_in_either_is_known_and_costs_nothing_that_came_before(ends, where):
    assert ends.host.error is None
    os.write(ends.pipe, PLACE)
    assert ends.host.receive_nowait() == []
    ends.theirs.sendall(large(1, 100) + (b"nonsense on it" if where != "pipe" else b""))
    os.write(ends.pipe, b"nonsense in it" if where != "channel" else b"")
    frames = ends.host.receive_nowait()
    if where == "pipe":
        with pytest.raises(ProtocolError):
            ends.host.receive_nowait()
    assert numbers(frames) == [1]
    assert isinstance(ends.host.error, ProtocolError)


def test_the_end_of_a_channel_on_which_a_frame_is_expected_is_the_end(ends):
    os.write(ends.pipe, PLACE)
    assert ends.host.receive_nowait() == []
    ends.theirs.close()
    with pytest.raises(EOFError):
        ends.host.receive_when_channel_is_ready()


def test_who_was_told_of_a_channel_that_has_nothing_waits(ends):
    with pytest.raises(BlockingIOError):
        ends.host.receive_when_channel_is_ready()
    os.write(ends.pipe, small(1))
    assert numbers(ends.host.receive_when_channel_is_ready()) == [1], "the pipe is read first"


def test_who_was_told_of_a_pipe_in_which_is_what_is_not_awaited_on_the_channel_reads_it(ends):
    os.write(ends.pipe, small(1))
    assert numbers(ends.host.receive_when_pipe_is_ready()) == [1]
    with pytest.raises(BlockingIOError):
        ends.host.receive_when_pipe_is_ready()


def test_to_look_whether_something_is_there_is_no_wait(ends, monkeypatch):
    """The thread that serves one worker would hold up all others."""
    waits, poll = [], native.poll

    class Poll:
        def __init__(self):
            self._own = poll()
            self.register = self._own.register

        def poll(self, timeout):
            waits.append(timeout)
            return self._own.poll(0)

    monkeypatch.setattr(answers.native, "poll", Poll)
    os.write(ends.pipe, PLACE)
    assert ends.host.receive_nowait() == []
    with pytest.raises(BlockingIOError):
        ends.host.receive_when_pipe_is_ready()
    assert waits == [0]
