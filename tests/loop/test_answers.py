"""The pipe and the channel by which a worker answers: the host's end and the worker's, without processes."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from termios import FIONREAD

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pidfdpool.loop import answers
from pidfdpool.loop.answers import Answers
from pidfdpool.process import native
from pidfdpool.transport import channel as channels
from pidfdpool.transport import frame_rules, framing
from pidfdpool.transport.channel import Channel
from pidfdpool.transport.framing import ProtocolError
from pidfdpool.worker.answers import LARGEST, AnswerWriter, take_pipe

COOKIE = b"abcd"


def plain(frames: list[framing.Frame | framing.Lean]) -> list[framing.Frame]:
    """Return frames, all of them made."""
    return [framing.made(frame) if type(frame) is tuple else frame for frame in frames]


class Ends:
    """Both ends of a worker's answers."""

    def __init__(self):
        self.ours, self.theirs = channels.pair()
        self.reader = answers.attach(self.ours)
        self.pipe = take_pipe(self.theirs)
        self.host = Answers(self.reader, Channel(self.ours, frame_rules.FROM_WORKER, receive_cookie=COOKIE), COOKIE)
        self.worker = AnswerWriter(self.pipe, Channel(self.theirs, send_cookie=COOKIE), COOKIE)

    def close(self):
        self.host.close()
        self.worker.close()
        self.ours.close()
        self.theirs.close()

    def receive(self, count: int) -> list[framing.Frame]:
        """Return so many frames, as a thread would that waits for pipe and channel."""
        poll, frames = native.poll(), []
        ways = {
            self.reader: self.host.receive_when_pipe_is_ready,
            self.ours.fileno(): self.host.receive_when_channel_is_ready,
        }
        for fd in ways:
            poll.register(fd, 1)
        while len(frames) < count:
            ready = poll.poll(20_000)
            assert ready, f"the rest of {count} frames comes, behind {len(frames)}"
            for fd, _ in ready:
                try:
                    frames += plain(ways[fd]())
                except BlockingIOError:
                    continue
        return frames


@pytest.fixture
def ends():
    made = Ends()
    yield made
    made.close()


def result(number: int, size: int) -> list[bytes]:
    return framing.encode(framing.RESULT, value=number, buffers=[bytes(size)])


SIZES = st.sampled_from([0, 10, 4000, LARGEST - 100, LARGEST, LARGEST + 1, 200_000, 1_000_000])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(SIZES, st.booleans()), min_size=1, max_size=12))
def test_frames_of_every_size_come_in_the_order_in_which_they_were_written(sizes):
    ends = Ends()
    try:

        def write():
            for number, (size, as_answer) in enumerate(sizes, 1):
                if as_answer:
                    ends.worker.send_answer(framing.RESULT, 0, 0, number, bytes(size))
                else:
                    ends.worker.send(result(number, size))

        writing = threading.Thread(target=write)
        writing.start()
        frames = ends.receive(len(sizes))
        writing.join()
        assert [(frame.value, len(frame.buffers[0])) for frame in frames] == [
            (number, size) for number, (size, _) in enumerate(sizes, 1)
        ]
        assert ends.host.error is None
        assert ends.host.unread_bytes(FIONREAD) == 0
    finally:
        ends.close()


def test_large_frames_that_were_written_before_anybody_reads_have_their_places(ends):
    for number in range(1, 6):
        ends.worker.send(result(number, LARGEST + 1 if number % 2 else 5))
    assert [frame.value for frame in ends.receive(5)] == [1, 2, 3, 4, 5]


def test_the_channel_may_be_looked_at_first(ends):
    """Both are ready, and the thread that serves them comes to the channel first."""
    ends.worker.send(result(1, 5))
    ends.worker.send(result(2, LARGEST + 1))
    ends.worker.send(result(3, 5))
    frames = []
    while len(frames) < 3:
        try:
            frames += plain(ends.host.receive_when_channel_is_ready())
        except BlockingIOError:
            frames += plain(ends.host.receive_when_pipe_is_ready())
    assert [frame.value for frame in frames] == [1, 2, 3]


@pytest.mark.parametrize("data", [b"nonsense", COOKIE + b"".join(result(1, 5)), COOKIE[:2]])
def test_what_is_on_the_channel_without_a_place_in_the_pipe_is_an_error(ends, data):
    ends.theirs.sendall(data)
    with pytest.raises(ProtocolError):
        ends.host.receive_when_channel_is_ready()


def test_what_follows_a_large_frame_and_is_none_is_an_error_that_costs_nothing_before_it(ends):
    ends.worker.send(result(1, LARGEST + 1))
    os.write(ends.pipe, b"nonsense")
    assert [frame.value for frame in ends.receive(1)] == [1]
    assert "nonsense" in str(ends.host.error)


def test_a_pipe_that_goes_on_in_the_middle_of_a_large_frame_is_at_its_end(ends):
    """Otherwise the thread that serves it would look again and again."""
    os.write(ends.pipe, COOKIE + framing.encode(framing.ON_CHANNEL)[0])
    assert ends.host.receive_when_pipe_is_ready() == []
    with pytest.raises(BlockingIOError):
        ends.host.receive_when_channel_is_ready()
    os.write(ends.pipe, b"x")
    with pytest.raises(EOFError):
        ends.host.receive_when_pipe_is_ready()


def test_who_was_told_of_a_pipe_that_another_thread_has_read_meanwhile_waits(ends):
    """Leader and pool thread take turns; one may be told that the pipe is ready, and the other reads it."""
    os.write(ends.pipe, COOKIE + framing.encode(framing.ON_CHANNEL)[0])
    assert ends.host.receive_when_pipe_is_ready() == []
    with pytest.raises(BlockingIOError):
        ends.host.receive_when_pipe_is_ready()


@pytest.mark.parametrize("ready", ["pipe", "channel"])
def test_what_comes_while_it_is_looked_whether_a_rule_is_broken_breaks_none(ends, monkeypatch, ready):
    if ready == "pipe":
        os.write(ends.pipe, COOKIE + framing.encode(framing.ON_CHANNEL)[0])
        assert ends.host.receive_when_pipe_is_ready() == []
        frame = result(1, LARGEST + 1)
        late = [lambda: ends.theirs.sendall(COOKIE + b"".join(frame)), lambda: ends.worker.send(result(2, 5))]
    else:
        late = [lambda: ends.worker.send(result(1, LARGEST + 1))]
    receive_nowait = ends.host.receive_nowait

    def receive_and_go_on():
        try:
            return receive_nowait()
        finally:
            while late:
                late.pop(0)()

    monkeypatch.setattr(ends.host, "receive_nowait", receive_and_go_on)
    receive = getattr(ends.host, f"receive_when_{ready}_is_ready")
    frames = receive()
    monkeypatch.undo()
    assert [frame.value for frame in plain(frames) or ends.receive(1)] == [1]


def test_the_end_of_either_is_an_end(ends):
    ends.worker.send(result(1, 5))
    ends.theirs.close()
    assert [frame.value for frame in plain(ends.host.receive_when_channel_is_ready())] == [1]
    with pytest.raises(EOFError):
        ends.host.receive_when_channel_is_ready()
    ends.worker.close()
    with pytest.raises(EOFError):
        ends.host.receive_when_pipe_is_ready()


def test_a_frame_that_a_full_pipe_takes_in_pieces_arrives_whole(ends):
    fcntl.fcntl(ends.pipe, fcntl.F_SETPIPE_SZ, 4096)
    writing = threading.Thread(target=ends.worker.send, args=(result(1, 30_000),))
    writing.start()
    [frame] = ends.receive(1)
    writing.join()
    assert len(frame.buffers[0]) == 30_000


def test_the_pipe_has_a_high_number_and_is_close_on_exec(ends):
    assert ends.pipe >= 255
    assert fcntl.fcntl(ends.pipe, fcntl.F_GETFD) == fcntl.FD_CLOEXEC
    assert fcntl.fcntl(ends.reader, fcntl.F_GETFD) == fcntl.FD_CLOEXEC


def test_where_no_descriptor_is_left_nothing_stays_open(monkeypatch):
    ours, theirs = channels.pair()
    before = set(os.listdir("/proc/self/fd"))

    def refuse(*_):
        raise OSError(109, "too many references")

    monkeypatch.setattr(channels, "hand_over", refuse)
    with pytest.raises(OSError, match="too many"):
        answers.attach(ours)
    assert set(os.listdir("/proc/self/fd")) == before
    ours.close()
    theirs.close()


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL, lambda *_: None])
def test_a_host_that_is_gone_is_an_error_and_no_signal(ends, handler):
    """A task may have set what SIGPIPE does. Through a socket it is not sent."""
    before = signal.signal(signal.SIGPIPE, handler)
    try:
        ends.worker.send(result(1, 20_000))
        ends.host.close()
        with pytest.raises(BrokenPipeError):
            ends.worker.send(result(2, 5))
        assert signal.SIGPIPE not in signal.sigpending()
        assert signal.SIGPIPE not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGPIPE, before)
