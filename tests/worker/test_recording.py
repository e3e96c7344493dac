"""What a worker notes of each task while its pool is observed. No process: the steps of its loop are the tests'."""

from __future__ import annotations

import os
from array import array

import pytest

from pidfdpool.transport import black_box, framing
from pidfdpool.transport.run_times import RunTimesReader
from pidfdpool.worker import context, recording

RESULT, ERROR, OUTDATED = framing.RESULT, framing.ERROR, framing.OUTDATED


class Loop:
    """The steps of a worker's loop. Each call is answered by `answer`."""

    def __init__(self, box):
        self.box, self.reader = box, RunTimesReader()
        self.answer = RESULT, [b"result"]
        self.written, self.seen = [], []  # the answers, and what was noted when each was written

    def _answer_usual(self, number, attempt, buffers):
        self.as_answer(number, buffers)

    def _run_call(self, call):
        assert call
        call.clear()
        return self.answer

    def _write(self, kind, began, ended, flags, number, buffers):
        self.written.append((kind, flags, number, buffers))
        self.seen.append((began, ended, self.noted(number)))

    def noted(self, number):
        began, ended, calls, answers = self.reader.read(self.box, array("q", [number]))
        return began[0], ended[0], calls[0], answers[0]

    def as_answer(self, number, call, flags=0):
        """Do what the loop does with a task that has flags."""
        kind, buffers = self._run_call(call)
        self._write(kind, 1.5, 1.75, flags, number, buffers)


@pytest.fixture
def loop(box):
    loop = Loop(box)
    recording.switch(loop, box, on=True)
    return loop


def test_a_usual_task_is_noted_before_its_answer_is_written(loop):
    """The host reads it as soon as it has the answer."""
    loop._answer_usual(7, 1, [b"a call"])
    ((began, ended, noted),) = loop.seen
    assert noted == (began, ended, 6, 6)
    assert 0 < began <= ended
    assert loop.written == [(RESULT, 0, 7, [b"result"])]


def test_a_task_with_flags_is_noted_with_the_size_of_all_its_buffers(loop):
    loop.answer = ERROR, [b"error", b"traceback"]
    loop.as_answer(7, [b"a", b"call"], flags=4)
    assert loop.seen == [(1.5, 1.75, (1.5, 1.75, 5, 14))]
    assert loop.written == [(ERROR, 4, 7, [b"error", b"traceback"])]


def test_an_exception_of_a_usual_task_has_the_size_of_all_its_buffers(loop):
    loop.answer = ERROR, [b"error", b"traceback"]
    loop._answer_usual(7, 1, [b"a call"])
    assert loop.seen[0][2][2:] == (6, 14)


def test_a_task_that_was_not_run_has_no_size_of_the_one_before(loop):
    loop.as_answer(7, [b"a call"])
    loop._write(ERROR, 1.5, 1.75, 0, 8, [b"no memory"])
    assert loop.seen[1][2] == (1.5, 1.75, -1, 9)


def test_what_is_no_answer_is_not_noted(loop):
    loop.answer = OUTDATED, []
    loop._answer_usual(7, 1, [b"a call"])
    loop.as_answer(7, [b"a call"])
    assert [written[0] for written in loop.written] == [OUTDATED, OUTDATED]
    assert not any(os.pread(loop.box, black_box.RUN_TIMES_SIZE, black_box.RUN_TIMES_OFFSET))
    loop.answer = RESULT, [b"result"]
    loop._answer_usual(7, 1, [b"a call"])
    assert loop.seen[-1][2][2:] == (6, 6)


def test_a_usual_task_knows_its_number_and_attempt_while_it_runs(box):
    seen = []

    def run(call):
        seen.append(context._task)
        raise SystemExit(3)

    steps = recording.steps(run, Loop(box)._write, box)
    with pytest.raises(SystemExit):
        steps["_answer_usual"](7, 2, [b"a call"])
    assert seen == [(7, 2, None)]
    assert context._task is None


def test_it_ends_and_begins_again_at_the_first_entry(loop):
    loop._answer_usual(1, 1, [b"a call"])
    recording.switch(loop, loop.box, on=False)
    assert not {"_answer_usual", "_run_call", "_write"} & set(vars(loop))
    recording.switch(loop, loop.box, on=True)
    recording.switch(loop, loop.box, on=True)
    loop._answer_usual(2, 1, [b"a call"])
    assert [written[2] for written in loop.written] == [1, 2]
    assert loop.seen[1][2][2:] == (6, 6)


def test_where_nothing_can_be_noted_the_loop_does_as_it_always_does(box):
    loop = Loop(box)
    recording.switch(loop, -1, on=True)
    loop._answer_usual(7, 1, [b"a call"])
    assert loop.written == [(RESULT, 0, 7, [b"result"])]
    assert loop.noted(7)[2:] == (-1, -1)
