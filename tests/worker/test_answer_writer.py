"""A worker's end of its answers, where nobody reads them any more, or a task has its own way with SIGPIPE."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest

from pidfdpool.transport import framing
from pidfdpool.worker import answers
from pidfdpool.worker.answers import LARGEST, AnswerWriter
from tests.conditions import in_forked_child

COOKIE = b"abcd"


@pytest.fixture
def ends():
    """Give the read end of the pipe, the writer, and what went through the channel."""
    reader, pipe = os.pipe()
    sent = []
    channel = SimpleNamespace(send=lambda pieces: sent.append(b"".join(pieces)), fileno=lambda: reader)
    writer = AnswerWriter(pipe, channel, COOKIE)
    yield reader, writer, sent
    writer.close()
    writer.close()
    os.close(reader)


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_host_that_is_gone_ends_no_worker_by_a_signal(handler, blocked):
    """Guards: the signal stayed pending, and ended the worker before its exit functions ran."""

    def worker():
        reader, pipe = os.pipe()
        writer = AnswerWriter(pipe, None, COOKIE)
        signal.signal(signal.SIGPIPE, handler)
        before = {signal.SIGPIPE} if blocked else set()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(reader)
        for send in (lambda: writer.send([b"x"]), lambda: writer.send_answer(framing.RESULT, 0, 0, 1, b"x")):
            with pytest.raises(BrokenPipeError):
                send()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
        if not blocked:
            assert signal.SIGPIPE not in signal.sigpending()

    assert in_forked_child(worker) == "ok"


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_an_answer_is_the_same_whatever_a_task_does_with_the_signal(ends, handler):
    reader, writer, _ = ends
    before = signal.signal(signal.SIGPIPE, handler)
    try:
        writer.send_answer(framing.RESULT, 16, 2, 7, b"result")
        assert os.read(reader, 1 << 16) == COOKIE + b"".join(framing.encode(framing.RESULT, 16, 2, 7, [b"result"]))
        writer.send(framing.encode(framing.READY))
        assert os.read(reader, 1 << 16) == COOKIE + b"".join(framing.encode(framing.READY))
    finally:
        signal.signal(signal.SIGPIPE, before)


@pytest.mark.parametrize("as_answer", [True, False])
@pytest.mark.parametrize("size", [LARGEST - 100, LARGEST + 1])
def test_what_is_large_goes_through_the_channel_and_the_pipe_has_its_place(ends, size, as_answer):
    reader, writer, sent = ends
    frame = framing.encode(framing.RESULT, 16, 2, 7, [bytes(size)])
    if as_answer:
        writer.send_answer(framing.RESULT, 16, 2, 7, bytes(size))
    else:
        writer.send(frame)
    in_pipe = os.read(reader, 1 << 16)
    if size > LARGEST:
        assert in_pipe == COOKIE + framing.encode(framing.ON_CHANNEL)[0]
        assert sent == [b"".join(frame)]
    else:
        assert (in_pipe, sent) == (COOKIE + b"".join(frame), [])


def test_what_the_pipe_takes_in_pieces_is_written_to_the_end(ends, monkeypatch):
    reader, writer, _ = ends
    monkeypatch.setattr(answers, "_write", lambda fd, data: os.write(fd, data[:3]))
    writer.send_answer(framing.RESULT, 16, 2, 7, b"result")
    assert os.read(reader, 1 << 16) == COOKIE + b"".join(framing.encode(framing.RESULT, 16, 2, 7, [b"result"]))


def test_a_pipe_that_has_not_come_is_an_error_and_a_low_limit_is_none(monkeypatch):
    monkeypatch.setattr(answers.channels, "take_over", lambda _end: None)
    with pytest.raises(OSError, match="Too many open files"):
        answers.take_pipe(None)
    reader, pipe = os.pipe()
    monkeypatch.setattr(answers.channels, "take_over", lambda _end: pipe)
    asked = []

    def refuse(fd, _command, least):
        asked.append(least)
        if least > 63:
            raise OSError("above the limit")
        return os.dup(fd)

    monkeypatch.setattr(answers.fcntl, "fcntl", refuse)
    moved = answers.take_pipe(None)
    assert asked == [255, 127, 63]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pipe)
    os.close(moved)
    os.close(reader)
