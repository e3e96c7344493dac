"""What a worker says beside its answers, even if it comes to say so in the middle of one."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace

import pytest

from pidfdpool.process import native
from pidfdpool.transport import framing
from pidfdpool.worker.answers import AnswerWriter
from pidfdpool.worker.process import Worker


@pytest.mark.parametrize("buffers", [[b"one"], [b"one", b"two"]], ids=["one buffer", "two buffers"])
def test_a_reason_that_is_given_in_the_middle_of_an_answer_follows_it(buffers):
    """By a signal handler, or another thread. It must neither split the answer nor wait for it."""
    worker, sent = object.__new__(Worker), []

    def send(pieces):
        kind = pieces[0][0]
        if kind == framing.RESULT:
            worker._report("tired")
        sent.append(kind)

    worker._answers = answers = AnswerWriter.__new__(AnswerWriter)
    answers.send, answers.lock, answers.unsent = send, native.lock(), deque()
    worker._send_answer = lambda kind, *_: send(framing.encode(kind, value=1, buffers=[b""]))
    worker._send_lock, worker._unsent, worker._statm = answers.lock, answers.unsent, None
    worker._segments, worker._outdated, worker._is_unhealthy = SimpleNamespace(active=False), False, False
    worker._run_call = lambda _frame: (framing.RESULT, buffers)
    worker._answer(framing.Frame(framing.TASK, 0, 1, 1, [b"call"]))
    assert sent == [framing.RESULT, framing.UNHEALTHY]
    assert worker._is_unhealthy
    assert not worker._unsent
    assert worker._send_lock.acquire(blocking=False), "for the next answer"
