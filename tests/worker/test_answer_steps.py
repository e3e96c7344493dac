"""How a worker writes its frames: in which pieces, under which lock, and into which descriptor."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import threading
from types import SimpleNamespace

import pytest

from pidfdpool.transport import channel as channels
from pidfdpool.transport import framing
from pidfdpool.worker import answers
from pidfdpool.worker.answers import LARGEST, AnswerWriter
from tests.conditions import in_forked_child

COOKIE = b"abcd"


class Pipe:
    """A writer whose pipe this process reads. `events` are the writes into the channel."""

    def __init__(self):
        self.reader, self.writer = os.pipe()
        self.events = []
        self.answers = AnswerWriter(
            self.writer, SimpleNamespace(send=self.events.append, fileno=lambda: self.reader), COOKIE
        )

    def read(self):
        os.set_blocking(self.reader, False)
        try:
            return os.read(self.reader, 1 << 17)
        except BlockingIOError:
            return b""

    def close(self):
        self.answers.close()
        os.close(self.reader)


@pytest.fixture
def pipe():
    pipe = Pipe()
    yield pipe
    pipe.close()


def frame(kind, *arguments, **keywords):
    return b"".join(framing.encode(kind, *arguments, **keywords))


@pytest.mark.parametrize("size", [LARGEST - 1, LARGEST, LARGEST + 1])
def test_a_frame_goes_through_the_pipe_up_to_a_size(pipe, size):
    pipe.answers.send([bytes(10), bytes(size - 10)])
    if size <= LARGEST:
        assert (pipe.read(), pipe.events) == (COOKIE + bytes(size), [])
    else:
        assert pipe.read() == COOKIE + frame(framing.ON_CHANNEL)
        assert pipe.events == [[bytes(10), bytes(size - 10)]]


@pytest.mark.parametrize("size", [0, LARGEST, LARGEST + 1])
def test_an_answer_goes_through_the_pipe_up_to_a_size_of_its_data(pipe, size):
    pipe.answers.send_answer(framing.ERROR, 3, 4, 5, bytes(size))
    whole = frame(framing.ERROR, 3, 4, 5, [bytes(size)])
    if size <= LARGEST:
        assert (pipe.read(), pipe.events) == (COOKIE + whole, [])
    else:
        assert pipe.read() == COOKIE + frame(framing.ON_CHANNEL)
        assert b"".join(pipe.events[0]) == whole


def test_a_large_frame_is_told_of_in_the_pipe_before_it_is_on_the_channel(pipe):
    seen = []
    pipe.answers._channel = SimpleNamespace(send=lambda _pieces: seen.append(pipe.read()), fileno=lambda: pipe.reader)
    pipe.answers.send([bytes(LARGEST + 1)])
    assert seen == [COOKIE + frame(framing.ON_CHANNEL)]


@pytest.mark.parametrize("first", [1, 30, 1000])
@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_what_was_written_in_part_is_not_written_twice(pipe, monkeypatch, first, handler):
    sizes = iter([first, 2, 1 << 20, 1 << 20])
    monkeypatch.setattr(answers, "_write", lambda fd, data: os.write(fd, data[: next(sizes)]))
    before = signal.signal(signal.SIGPIPE, handler)
    try:
        pipe.answers.send_answer(framing.RESULT, 3, 4, 5, b"x" * 500)
        assert pipe.read() == COOKIE + frame(framing.RESULT, 3, 4, 5, [b"x" * 500])
        sizes = iter([first, 2, 1 << 20])
        pipe.answers.send([b"y" * 500])
        assert pipe.read() == COOKIE + b"y" * 500
    finally:
        signal.signal(signal.SIGPIPE, before)


def test_an_answer_is_written_by_one_system_call(pipe, monkeypatch):
    writes = []
    monkeypatch.setattr(answers, "_write", lambda fd, data: writes.append(fd) or os.write(fd, data))
    pipe.answers.send_answer(framing.RESULT, 3, 4, 5, b"x")
    pipe.answers.send([b"x"])
    assert writes == [pipe.writer] * 2


# ---- what is posted ----------------------------------------------------------------------------------------------


def test_what_is_posted_is_sent_at_once_and_in_its_order(pipe):
    pipe.answers.post([b"one"])
    pipe.answers.unsent.append([b"two"])
    pipe.answers.post([b"three"])
    assert pipe.read() == b"abcdoneabcdtwoabcdthree"
    assert not pipe.answers.unsent
    assert not pipe.answers.lock.locked()


def test_what_is_posted_while_a_frame_is_written_waits_for_its_end_and_not_the_other_way_round(pipe):
    with pipe.answers.lock:
        pipe.answers.post([b"posted"])
        thread = threading.Thread(target=pipe.answers.post, args=([b"by a thread"],))
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
        assert pipe.read() == b""
    pipe.answers.send_posted()
    assert pipe.read() == b"abcdpostedabcdby a thread"


def test_each_frame_that_is_posted_is_written_under_the_lock(pipe):
    held = []
    pipe.answers.send = lambda _pieces: held.append(pipe.answers.lock.locked())
    pipe.answers.post([b"x"])
    assert held == [True]


def test_another_thread_that_was_quicker_does_no_harm(pipe):
    class Quick:
        """Is not empty when it is looked at, but when something is taken."""

        looks = 0

        def __bool__(self):
            self.looks += 1
            return self.looks == 1

        def popleft(self):
            raise IndexError

    pipe.answers.unsent = Quick()
    pipe.answers.send_posted()
    assert not pipe.answers.lock.locked()


@pytest.mark.parametrize("error", [BrokenPipeError, ConnectionResetError])
def test_a_host_that_is_gone_is_told_to_the_loop_and_not_to_who_posts(pipe, error):
    def gone(_pieces):
        raise error

    pipe.answers.send = gone
    pipe.answers.post([b"x"])
    assert not pipe.answers.lock.locked()
    pipe.answers.unsent.append([b"x"])
    with pytest.raises(error):
        pipe.answers.send_posted()
    assert not pipe.answers.lock.locked()


# ---- the descriptor ------------------------------------------------------------------------------------------------


def handed_over():
    """Return the worker's end of a channel in which a pipe's write end waits, and the read end."""
    ours, theirs = channels.pair()
    reader, writer = os.pipe()
    channels.hand_over(ours, writer)
    ours.close()
    os.close(writer)
    return theirs, reader


@pytest.mark.parametrize(("limit", "least"), [(1000, 255), (250, 127), (120, 63), (50, 3)])
def test_the_pipe_has_a_high_number_that_nobody_gets_by_chance(limit, least):
    def worker():
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        end, reader = handed_over()
        before = os.listdir("/proc/self/fd")
        fd = answers.take_pipe(end)
        assert least <= fd < limit
        assert len(os.listdir("/proc/self/fd")) == len(before) + 1, "it has one number only"
        assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        os.write(fd, b"x")
        assert os.read(reader, 5) == b"x"

    assert in_forked_child(worker) == "ok"


def test_it_is_closed_once_even_if_a_task_has_closed_it(pipe):
    os.close(pipe.writer)
    pipe.answers.close()
    again = os.open("/dev/null", os.O_RDONLY)
    pipe.answers.close()
    os.fstat(again)
    os.close(again)
    other = AnswerWriter(0, None, COOKIE)
    stdin = os.dup(0)
    other.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(0)
    os.dup2(stdin, 0)
    os.close(stdin)
