"""How the records of attempts are made of answers that were set aside. No process: the tests write the times."""

from __future__ import annotations

import math
import os
import weakref
from array import array
from types import SimpleNamespace

import pytest

from pidfdpool.loop import attempts
from pidfdpool.loop.attempts import TOGETHER, AttemptRecords
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.loop.observation import MANY_ANSWERS
from pidfdpool.loop.task import Task
from pidfdpool.scheduler.policy import Policy
from pidfdpool.serialization import payload
from pidfdpool.transport import black_box, framing
from pidfdpool.transport.run_times import CAPACITY, ring

POLICY = Policy(2)


class Worker:
    """The two ends of a worker: what its link is to the host, and what it records."""

    def __init__(self, slot: int) -> None:
        self.black_box = black_box.create()
        self.generation, self.name = slot + 1, (slot, slot + 1, 1000 + slot)
        self.ring = ring(self.black_box)

    def answer(self, *numbers):
        put, place = self.ring
        for number in numbers:
            put(place(), number, float(number), number + 0.5, 10 * number, 100 + number)


@pytest.fixture
def workers():
    both = Worker(0), Worker(1)
    yield both
    for worker in both:
        del worker.ring  # up to 3.12 what it maps keeps a descriptor of its own
        os.close(worker.black_box)


def task(number, what=abs, size=40, attempt=1, queued_at=0.5):
    made = Task(number, SimpleNamespace(), [b"x" * size], what, POLICY)
    made.attempt = attempt
    if queued_at is not None:
        made.queued_at = queued_at
    return made


def lean(number, size=4):
    return number, 0, 0, b"r" * size


def set_aside(records, worker, tasks, now, frames=None):
    worker.answer(*(each.number for each in tasks))
    numbers = tuple(each.number for each in tasks)
    return records.set_aside(worker, numbers, tasks, frames or [lean(number) for number in numbers], now)


def test_answers_of_a_worker_within_a_millisecond_are_one_record(workers):
    first, second = workers
    records = AttemptRecords()
    set_aside(records, first, [task(1), task(2)], 10.0)
    set_aside(records, second, [task(3)], 10.0)
    set_aside(records, first, [task(4, queued_at=0.75)], 10.0 + TOGETHER / 2)
    assert records.pending == 4
    one, other = records.gather()
    assert records.pending == 0
    assert records.gather() == []
    assert one.worker == first.name
    assert list(one.tasks) == [1, 2, 4]
    assert list(one.began_at) == [1.0, 2.0, 4.0]
    assert list(one.ended_at) == [1.5, 2.5, 4.5]
    assert list(one.queued_at) == [0.5, 0.5, 0.75]
    assert list(one.request_bytes) == [10, 20, 40]
    assert list(one.result_bytes) == [101, 102, 104]
    assert list(one.functions) == ["builtins.abs"] * 3
    assert list(one.outcomes) == ["done"] * 3
    assert list(one.errors) == [None] * 3
    assert list(one.calls) == [1] * 3
    assert one.taken_at == 10.0 + TOGETHER / 2
    assert one.attempt == 1
    assert (other.worker, list(other.tasks), other.taken_at) == (second.name, [3], 10.0)


def test_what_is_further_apart_is_told_apart_so_that_no_time_is_wrong_by_more(workers):
    records = AttemptRecords()
    for number, now in ((1, 10.0), (2, 10.0 + TOGETHER / 2), (3, 10.0 + TOGETHER * 1.5), (4, 11.0)):
        set_aside(records, workers[0], [task(number)], now)
    assert [(list(each.tasks), each.taken_at) for each in records.gather()] == [
        ([1, 2], 10.0 + TOGETHER / 2), ([3], 10.0 + TOGETHER * 1.5), ([4], 11.0)
    ]  # fmt: skip


def test_a_second_attempt_begins_a_record_because_that_names_one_number_only(workers):
    records = AttemptRecords()
    set_aside(records, workers[0], [task(1)], 10.0)
    set_aside(records, workers[0], [task(2, attempt=3), task(3)], 10.0)
    assert [(list(each.tasks), each.attempt) for each in records.gather()] == [([1], 1), ([2, 3], 3)]


def test_functions_and_chunks_are_named_each_where_they_differ(workers):
    chunk = Chunk(print, "module.called", 0, [1, 2, 3])
    records = AttemptRecords()
    set_aside(records, workers[0], [task(1)], 10.0)
    set_aside(records, workers[0], [task(2, what="module.named"), task(3, what=chunk)], 10.0)
    (record,) = records.gather()
    assert list(record.functions) == ["builtins.abs", "module.named", "module.called"]
    assert list(record.calls) == [1, 1, 3]


def test_chunks_of_one_map_have_their_number_of_calls(workers):
    records = AttemptRecords()
    set_aside(records, workers[0], [task(1, what=Chunk(print, "module.called", 0, [1, 2]))], 10.0)
    (record,) = records.gather()
    assert (list(record.functions), list(record.calls)) == (["module.called"], [2])


def test_answers_that_are_not_lean_are_told_apart_and_none_joins_them(workers):
    """Guards: an exception's text is in its buffers, which are not kept."""
    records = AttemptRecords()
    set_aside(records, workers[0], [task(1)], 10.0)
    buffers = [b"pickle", b"Traceback ...\nValueError: no\n"]
    failed = framing.Frame(framing.ERROR, 0, 0, 2, buffers)
    workers[0].answer(2, 3)
    frames = [failed, lean(3), lean(4)]  # the last one goes the long way
    several = task(2)
    several.buffers = [b"123", b"4567"]
    records.set_aside(workers[0], [2, 3], [several, task(3, size=9)], frames, 10.0)
    buffers.clear()
    several.buffers = []
    set_aside(records, workers[0], [task(5)], 10.0)
    plain, other, last = records.gather()
    assert (list(plain.tasks), list(last.tasks)) == ([1], [5])
    assert (list(other.tasks), list(other.outcomes)) == ([2, 3], ["failed", "done"])
    assert list(other.errors) == ["ValueError: no", None]
    assert (list(other.request_bytes), list(other.result_bytes)) == ([7, 9], [35, 4])
    assert list(other.began_at) == [2.0, 3.0]


def test_neither_calls_nor_results_are_kept_while_they_are_set_aside(workers):
    """Guards: a segment that is held for a moment is missing for the calls that are sent in that moment."""
    records = AttemptRecords()
    large, result = task(1), array("b", b"result")
    large.buffers = (array("b", b"a reference"), b"to a segment")
    held = [weakref.ref(large.buffers[0]), weakref.ref(result)]
    set_aside(records, workers[0], [large], 10.0, [(1, 0, 0, result)])
    large.buffers = result = ()
    assert [reference() for reference in held] == [None, None]
    (record,) = records.gather()
    assert (list(record.request_bytes), list(record.result_bytes)) == ([10], [101])


def test_sizes_of_which_the_worker_says_nothing_are_not_known(workers):
    records = AttemptRecords()
    records.set_aside(workers[0], (1,), [task(1)], [lean(1)], 10.0)
    (record,) = records.gather()
    assert (list(record.request_bytes), list(record.result_bytes)) == ([-1], [-1])


def test_when_a_task_was_queued_is_not_known_if_that_was_before_anybody_observed(workers):
    records = AttemptRecords()
    set_aside(records, workers[0], [task(1, queued_at=None), task(2, queued_at=7.0)], 10.0)
    (record,) = records.gather()
    assert math.isnan(record.queued_at[0])
    assert record.queued_at[1] == 7.0
    assert math.isnan(attempts.single(task(3, queued_at=None), None, "cancelled", None).queued_at[0])


def test_a_worker_that_has_ended_is_forgotten_and_the_next_begins_at_its_own_first_entry(workers):
    records = AttemptRecords()
    set_aside(records, workers[0], [task(1), task(2)], 10.0)
    records.gather()
    records.forget(workers[0].generation)
    workers[1].generation = workers[0].generation
    set_aside(records, workers[1], [task(3)], 10.0)
    assert list(records.gather()[0].began_at) == [3.0]


def test_an_answer_to_a_task_that_is_over_does_not_shift_the_times_of_the_next(workers):
    records = AttemptRecords()
    set_aside(records, workers[0], [task(1)], 10.0)
    records.gather()
    workers[0].answer(2)
    records.skip(workers[0], 2)
    set_aside(records, workers[0], [task(3)], 10.0)
    assert list(records.gather()[0].began_at) == [3.0]


def test_the_ring_of_times_holds_what_may_be_unread():
    """Guards: times would be overwritten by a worker that goes on while the host takes a full pipe of its answers."""
    pipe = 1 << 16
    shortest = len(framing.cookie_bytes(1)) + sum(map(len, framing.encode(framing.RESULT, buffers=[payload.NONE])))
    assert 2 * (pipe // shortest) + MANY_ANSWERS <= CAPACITY
