"""What is noted of attempts that did not end by a plain answer, and of workers: with a machine and links of fakes."""

from __future__ import annotations

import math
import os
import threading
from types import SimpleNamespace

import pytest

from pidfdpool import TaskTimeout
from pidfdpool.deaths import Cause
from pidfdpool.loop.observation import Observation
from pidfdpool.loop.observed import Attempts, TaskRetry, WorkerChange
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import State
from pidfdpool.transport import framing
from tests.loop.test_attempts import Worker, lean, task
from tests.loop.test_observation_wakeups import NOTHING
from tests.loop.test_task_errors import death

LATE = TaskTimeout("it took too long", task="abs", task_id=1, attempt=1)


@pytest.fixture
def slot():
    return SimpleNamespace(busy_since=5.0, cause=None, retire_cause=None, generation=7, pid=70)


@pytest.fixture
def one(slot):
    machine = SimpleNamespace(slots=[slot], queue=[], prefetched={}, counts={State.BUSY: 0})
    return Observation(machine, {}, threading.RLock(), lambda at: None)


@pytest.fixture
def worker():
    worker = Worker(0)
    yield worker
    os.close(worker.black_box)


def given(one, worker, number=1, **options):
    """Return a task that the worker was given."""
    made = one._tasks[number] = task(number, **options)
    made.begun, made.worker = True, worker.name
    return made


def answer(one, worker, number, kind=framing.RESULT):
    """Have the worker answer a task, in a way that needs a decision."""
    worker.answer(number)
    one.note_answer(worker, framing.Frame(kind, 0, 0, number, [b"answer"]))


def times(record):
    return [*record.began_at, *record.ended_at]


# ---- attempts ----------------------------------------------------------------------------------------------------


def test_a_task_that_is_tried_again_is_queued_anew_when_that_is_decided(one, worker):
    """Guards: the time of the first attempt would count as waiting, in traces and metrics, for the second."""
    again = given(one, worker, queued_at=0.5)
    one.note_retry(again, 2, 0.25)
    lost, retry = one.noted
    assert list(lost.queued_at) == [0.5]
    assert lost.retried
    assert type(retry) is TaskRetry
    assert (retry.task, retry.attempt, retry.pause) == (1, 2, 0.25)
    again.attempt = 2
    answer(one, worker, 1)
    one.note_end(again, None)
    assert list(one.noted[-1].queued_at) == [retry.at]
    assert times(one.noted[-1]) == [1.0, 1.5]


@pytest.mark.parametrize(
    ("cause", "outcome"), [(None, "crashed"), (Cause.TIMEOUT, "timed out"), (Cause.KILL, "killed")]
)
def test_an_attempt_whose_worker_has_not_ended_yet_is_not_told_with_the_death_before_it(
    one, worker, slot, cause, outcome
):
    slot.cause = cause
    again = given(one, worker, attempt=2)
    again.deaths = (death(attempt=1, cause=Cause.HEARTBEAT if cause is None else Cause.CRASH),)
    one.note_retry(again, 3, 0.0)
    lost, retry = one.noted
    assert (list(lost.outcomes), retry.why) == ([outcome], outcome)
    assert list(lost.errors) == ["its worker had not ended by then"]
    assert lost.death is None


def test_an_attempt_that_was_lost_with_its_worker_is_told_with_that_death(one, worker, slot):
    slot.cause = Cause.KILL  # of the slot's next worker
    again, last = given(one, worker, attempt=2), death(attempt=2, cause=Cause.TIMEOUT)
    again.deaths = (death(attempt=1), last)
    one.note_retry(again, 3, 0.0)
    lost, retry = one.noted
    assert (list(lost.outcomes), retry.why, list(lost.errors)) == (["timed out"], "timed out", [str(last)])
    assert lost.death is last


def test_a_task_that_answered_after_it_was_told_to_end_has_the_times_of_its_worker(one, worker):
    late = given(one, worker)
    answer(one, worker, 1, framing.ERROR)
    one.note_end(late, LATE)
    (record,) = one.noted
    assert list(record.outcomes) == ["timed out"]
    assert times(record) == [1.0, 1.5]


@pytest.mark.parametrize(
    ("queued", "began"),
    [(None, 5.0), (0.5, 5.0), (6.0, 6.0)],
    ids=["before the pool was observed", "before the worker was free", "when the worker was busy"],
)
def test_a_lost_task_began_when_its_worker_was_to_begin_it_as_far_as_is_known(one, worker, queued, began):
    one.note_end(given(one, worker, queued_at=queued), LATE)
    (record,) = one.noted
    assert list(record.began_at) == [began]
    assert record.ended_at[0] > began
    assert math.isnan(record.queued_at[0]) == (queued is None)


def test_an_answer_to_a_task_that_is_over_leaves_the_times_of_the_next_ones_right(one, worker):
    """Guards: the entries are read in their order, so each later task would have the times of another, or none."""
    for number in (1, 3):
        answer(one, worker, number)
        assert not one.noted, "nobody knows such a task any more"
        next_one = given(one, worker, number + 1)
        answer(one, worker, next_one.number)
        one.note_end(next_one, None)
        assert times(one.noted.pop()) == [number + 1.0, number + 1.5]


def test_what_was_set_aside_comes_before_an_answer_that_needs_a_decision(one, worker):
    """Guards: the times of a worker are read in the order of its answers, or not found."""
    plain, other = given(one, worker, 1), given(one, worker, 2)
    one.note_decision(ev.Tick(read_until=0.0), [])  # the level of the pool is noted, and not again for a while
    worker.answer(1)
    one.note_answers(worker, (1,), [plain], [lean(1)], 0.0)
    assert not any(type(record) is Attempts for record in one.noted), "it is set aside"
    answer(one, worker, 2)
    one.note_end(other, None)
    noted = [record for record in one.noted if type(record) is Attempts]
    assert [list(record.tasks) for record in noted] == [[1], [2]]
    assert [times(record) for record in noted] == [[1.0, 1.5], [2.0, 2.5]]


# ---- workers, and the end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("generation", "pid"), [(7, 70), (6, None)], ids=["the slot's", "the one before"])
@pytest.mark.parametrize("acts", [False, True], ids=["event", "action"])
def test_a_worker_is_told_with_its_own_pid_and_not_with_that_of_the_slots_next_one(one, generation, pid, acts):
    if acts:
        one.note_decision(ev.Tick(read_until=0.0), [do.Signal(0, generation, 9)])
    else:
        one.note_decision(ev.SpawnFailed(0, generation, "no room"), [])
    (change,) = [record for record in one.noted if type(record) is WorkerChange]
    assert (change.slot, change.generation, change.pid) == (0, generation, pid)


def test_at_the_end_the_thread_that_is_telling_is_waited_for_and_the_last_is_told_before_the_end(one):
    told, telling, go = [], threading.Event(), threading.Event()

    def take(records):
        telling.set()
        assert go.wait(30)
        told.extend(records)

    one.add(SimpleNamespace(**{**NOTHING, "take": take, "pool_ended": lambda: told.append("the end")}))
    one.noted.append("the first")
    threads = [threading.Thread(target=one.tell), threading.Thread(target=one.end)]
    try:
        threads[0].start()
        assert telling.wait(30)
        one.noted.append("the last")
        threads[1].start()
        threads[1].join(0.02)
        assert told == []
    finally:
        go.set()
        for thread in threads:
            thread.join()
    assert told == ["the first", "the last", "the end"]
