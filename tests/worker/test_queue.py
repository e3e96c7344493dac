"""Which of the tasks that a worker was sent it begins: by tokens, by its black box, by what the host said."""

from __future__ import annotations

import os
from collections import deque
from types import SimpleNamespace

import pytest

from pidfdpool.process import native
from pidfdpool.serialization import scripts
from pidfdpool.transport import black_box, framing, tokens
from pidfdpool.transport.black_box import ANNOUNCED, CLAIMED, LAST_BEGUN, TAKEN_BACK_FROM
from pidfdpool.worker.process import Worker


class Loop(Worker):
    """A worker whose tasks only note that they have begun. `host` is what the host does at the next read."""

    def __init__(self):
        self._queue, self.begun, self.sent, self.reads = deque(), [], [], []
        self._is_unhealthy = self._outdated = False
        self._skip_from = 0
        self.host, self._tokens = tokens.pair()
        self.box = black_box.create()
        self._record = black_box.map_words(self.box)
        self._channel = SimpleNamespace(receive_lean=lambda: self.reads.pop(0)())
        self._segments = SimpleNamespace(active=False)

    def _answer_usual(self, number, attempt, buffers):
        assert self._record[CLAIMED] == self._record[LAST_BEGUN] == number
        assert (attempt, buffers) == (1, [b"call"])
        self.begun.append(number)

    def _answer(self, frame):
        assert (frame.kind, frame.buffers) == (framing.TASK, [b"call"])
        self.begun.append((frame.value, frame.slot))

    def _send(self, pieces):
        kind, _, _, _, value = framing.HEADER.unpack_from(pieces[0])
        self.sent.append((kind, value))

    def close(self):
        self._record.release()
        for fd in (self.host, self._tokens, self.box):
            native.close(fd)


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


def task(number, flags=0):
    return number, flags, 1, b"call"


EXIT = framing.Frame(framing.EXIT, 0, 0, 0, [])
DROPPED, OUTDATED = framing.DROPPED, framing.OUTDATED


def test_each_task_that_has_a_token_begins_and_exit_is_the_end(loop):
    tokens.put(loop.host, 2)
    loop._queue.extend([task(1), task(2)])
    assert loop._run_queued()
    loop._queue.append(EXIT)
    assert not loop._run_queued()
    assert (loop.begun, loop.sent) == ([1, 2], [])
    assert not tokens.take(loop._tokens)


@pytest.mark.parametrize("flags", [framing.HAS_DEADLINE, framing.SPARE_DESCENDANTS, framing.CALL_IN_SEGMENT])
def test_a_task_with_flags_is_run_as_these_say(loop, flags):
    tokens.put(loop.host, 2)
    loop._queue.extend([task(1, flags), framing.Frame(framing.TASK, flags, 1, 2, [b"call"])])
    assert loop._run_queued()
    assert loop.begun == [(1, flags), (2, flags)]


def test_tasks_without_tokens_were_taken_back_and_the_host_is_told_how_many(loop):
    loop._record[ANNOUNCED], loop._record[TAKEN_BACK_FROM] = 1, 2
    tokens.put(loop.host, 1)
    loop._queue.extend([task(1), task(2), task(3)])
    assert loop._run_queued()
    assert (loop.begun, loop.sent) == ([1], [(DROPPED, 2)])
    loop._record[TAKEN_BACK_FROM] = 0
    tokens.put(loop.host, 1)
    loop._queue.append(task(4))
    assert loop._run_queued()
    assert loop.begun == [1, 4]


def test_exit_behind_tasks_that_were_taken_back_is_not_dropped(loop):
    loop._record[ANNOUNCED], loop._record[TAKEN_BACK_FROM] = 1, 1
    loop._queue.extend([task(1), EXIT])
    assert not loop._run_queued()
    assert loop.sent == [(DROPPED, 1)]


def test_a_token_is_missing_though_nothing_was_taken_back_so_a_task_has_stolen_it(loop):
    loop._record[ANNOUNCED] = 1
    loop._queue.append(task(1))
    with pytest.raises(RuntimeError, match="taken tokens"):
        loop._run_queued()
    assert loop.begun == []


def test_a_host_that_does_not_say_what_it_takes_back_is_believed(loop):
    loop._queue.append(task(1))
    assert loop._run_queued()
    assert loop.sent == [(DROPPED, 1)]


@pytest.mark.parametrize(("first", "begun"), [(1, []), (2, [1]), (3, [1, 2])])
def test_tokens_that_a_task_has_added_begin_none_that_was_taken_back(loop, first, begun):
    loop._record[TAKEN_BACK_FROM] = first
    tokens.put(loop.host, 3)
    loop._queue.extend([task(1), task(2), task(3)])
    assert loop._run_queued()
    assert loop.begun == begun
    assert sum(count for _, count in loop.sent) == 3 - len(begun)


def test_those_behind_the_first_that_was_taken_back_are_skipped_though_they_come_later(loop):
    loop._record[TAKEN_BACK_FROM] = 1
    tokens.put(loop.host, 2)
    for number in (1, 2):
        loop._queue.append(task(number))
        assert loop._run_queued()
    assert (loop.begun, loop.sent) == ([], [(DROPPED, 1), (DROPPED, 1)])


def test_a_worker_that_is_not_well_begins_nothing_until_it_is_told_to_leave(loop):
    loop._is_unhealthy = True
    tokens.put(loop.host, 1)
    loop._queue.append(task(1))
    loop.reads = [list, lambda: tokens.take_many(loop.host, 1) and [EXIT]]
    assert not loop._run_queued()
    assert loop.begun == []
    assert loop.reads == []
    assert loop.sent == [(DROPPED, 1)]


@pytest.mark.parametrize("ran_again", [False, True])
def test_a_task_that_needs_the_script_is_not_begun_where_that_was_not_run(loop, monkeypatch, ran_again):
    monkeypatch.setattr(scripts, "ran_again", ran_again)
    tokens.put(loop.host, 1)
    loop._queue.append(task(1, framing.NEEDS_SCRIPT))
    assert loop._run_queued() is ran_again
    if ran_again:
        assert (loop.begun, loop.sent) == ([1], [])
    else:
        assert (loop.begun, loop.sent) == ([], [(OUTDATED, 0)])
        assert tokens.take(loop._tokens), "the host may take it back"


def test_after_a_task_that_turned_out_to_need_the_script_none_begins(loop):
    tokens.put(loop.host, 2)
    loop._queue.extend([task(1), task(2)])

    def turn_out(*_):
        loop.begun.append(1)
        loop._outdated = True

    loop._answer_usual = turn_out
    assert not loop._run_queued()
    assert loop.begun == [1]


# ---- answers -----------------------------------------------------------------------------------------------------


class Answering(Worker):
    """A worker of which only the way from a task to its answer is there."""

    def __init__(self, *outcomes):
        self.outcomes, self.sent, self.order = list(outcomes), [], []
        self._statm, self._outdated, self._unsent = None, False, deque()
        self._send_lock = native.lock()
        self._send_answer = lambda *answer: self.sent.append(answer)
        self._segments = SimpleNamespace(
            active=False,
            begin_task=lambda _frame: self.begins.pop(0),
            end_task=lambda: self.order.append("segments") or framing.CALL_SEGMENT_FREE,
        )
        self.begins = []
        self._mark = SimpleNamespace(
            remove=lambda: self.order.append("spared"), set=lambda: self.order.append("marked")
        )

    def _run_call(self, call):
        from pidfdpool.worker import context

        self.order.append((tuple(context.current_task()), call))
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _send(self, pieces):
        kind, count, slot, generation, value = framing.HEADER.unpack_from(pieces[0])
        self.sent.append((kind, slot, generation, value, count))

    def _receive_again(self, number):
        return frame(0, number)


def frame(flags, number=7, buffers=None):
    return framing.Frame(framing.TASK, flags, 3, number, [b"call"] if buffers is None else buffers)


RESULT = framing.RESULT, [b"result"]


def test_a_task_finds_its_number_attempt_and_deadline_and_its_call_has_no_deadline_in_it():
    worker = Answering(RESULT)
    worker._answer(frame(framing.HAS_DEADLINE, buffers=[b"call", framing.DEADLINE.pack(5.0)]))
    assert worker.order == [((7, 3, 5.0), [b"call"])]
    kind, slot, memory, number, data = worker.sent[0]
    assert (kind, memory, number, data) == (framing.RESULT, 0, 7, b"result")
    assert slot >> 4 >= 1
    assert not slot & framing.SEGMENT_FLAGS


@pytest.mark.parametrize("outcome", [RESULT, KeyboardInterrupt()])
def test_what_a_task_starts_is_spared_while_it_runs_and_only_then(outcome):
    from pidfdpool.worker import context

    worker = Answering(outcome)
    try:
        worker._answer(frame(framing.SPARE_DESCENDANTS))
    except KeyboardInterrupt:
        assert outcome is not RESULT
    assert worker.order == ["spared", ((7, 3, None), [b"call"]), "marked"]
    assert context.current_task() is None


def test_an_answer_tells_what_became_of_the_tasks_segments():
    worker = Answering(RESULT)
    worker.begins = [True]
    worker._segments.active = True
    worker._answer(frame(framing.CALL_IN_SEGMENT))
    assert worker.order[-1] == "segments"
    assert worker.sent[0][1] & framing.SEGMENT_FLAGS == framing.CALL_SEGMENT_FREE


def test_a_call_whose_segment_has_not_come_is_asked_for_and_run_when_it_comes():
    worker = Answering(RESULT)
    worker.begins = [False]
    worker._answer(frame(framing.CALL_IN_SEGMENT))
    assert worker.sent[0][0] == framing.CALL_NOT_RECEIVED
    assert worker.sent[0][3] == 7
    assert worker.sent[1][0] == framing.RESULT
    assert not worker.sent[1][1] & framing.SEGMENT_FLAGS, "the one that came has none"
    assert len(worker.order) == 1


def test_a_call_too_large_for_memory_is_an_error_that_tells_its_size(monkeypatch):
    from pidfdpool.serialization import payload

    worker = Answering()
    worker._pid, worker._shared = os.getpid(), payload.ReceivedMain()
    sent = []
    worker._write = lambda kind, _began, _ended, _flags, number, buffers: sent.append(
        (kind, number, payload.load_error(buffers))
    )
    worker._answer(frame(0, buffers=framing.MissingBuffers(12345)))
    [(kind, number, error)] = sent
    assert (kind, number, type(error)) == (framing.ERROR, 7, MemoryError)
    assert "12345 bytes" in str(error)


def test_a_task_that_needs_the_script_has_no_answer_but_the_worker_is_outdated():
    worker = Answering((framing.OUTDATED, []))
    worker._answer(frame(0))
    assert [(kind, value) for kind, *_, value, _ in worker.sent] == [(framing.OUTDATED, 1)]
    assert worker._outdated
