"""Which error a task's future gets from the pool itself, and what that tells."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pidfdpool import HeartbeatLost, MemoryExceeded, PoisonTask, TaskKilled, TaskTimeout, WorkerCrashed
from pidfdpool.deaths import Cause, Death
from pidfdpool.loop import task_errors
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.loop.task import Task
from pidfdpool.pidfd import ExitStatus
from pidfdpool.scheduler.policy import Policy
from pidfdpool.serialization import payload


def death(attempt=1, cause=Cause.CRASH):
    return Death(
        slot=0, generation=7, pid=4711, cause=cause, exit_status=ExitStatus(signal=9), uptime=1.0, tasks_done=0,
        task="function", task_id=1, attempt=attempt,
    )  # fmt: skip


def task(attempt=1, deaths=(), what="function", **options):
    policy = Policy(1, **{"timeout": 5, "heartbeat_timeout": 6, "hard_memory_per_child": 7, "deadline": 8} | options)
    made = Task(1, SimpleNamespace(), payload.dumps(None), what, policy)
    made.attempt, made.deaths, made.begun = attempt, tuple(deaths), True
    return made


@pytest.mark.parametrize(
    ("cause", "kind", "told"),
    [
        (Cause.CRASH, WorkerCrashed, "pid 4711"),
        (Cause.TIMEOUT, TaskTimeout, "timeout of 5 s"),
        (Cause.HEARTBEAT, HeartbeatLost, "longer than 6 s"),
        (Cause.KILL, TaskKilled, "killed by Future.kill"),
        (Cause.SHUTDOWN, TaskKilled, "waiting for attempt 2"),
        (Cause.MEMORY, MemoryExceeded, "hard_memory_per_child=7"),
    ],
)
def test_each_cause_has_an_error_of_its_own_that_carries_the_deaths(cause, kind, told):
    deaths = (death(cause=cause),)
    error = task_errors.attempt_error(task(deaths=deaths), cause)
    assert type(error) is kind
    assert told in str(error)
    assert (error.task, error.task_id, error.attempt, error.deaths) == ("function", 1, 1, deaths)


def test_a_worker_that_had_not_ended_by_then_is_told_of():
    error = task_errors.attempt_error(task(), Cause.TIMEOUT)
    assert "had not ended by then" in str(error)
    assert "lost with its worker" in str(task_errors.attempt_error(task(), Cause.CRASH))


def test_only_the_death_of_this_attempt_is_how_it_ended():
    error = task_errors.attempt_error(task(attempt=2, deaths=[death(1)]), Cause.TIMEOUT)
    assert "had not ended by then" in str(error)
    error = task_errors.attempt_error(task(attempt=2, deaths=[death(1), death(2)]), Cause.TIMEOUT)
    assert "had not ended by then" not in str(error)


def test_a_task_that_kills_more_than_one_worker_is_poison_with_its_history():
    error = task_errors.attempt_error(task(attempt=2, deaths=[death(1), death(2)]), Cause.CRASH)
    assert type(error) is PoisonTask
    assert "after 2 deaths" in str(error)
    one_before_it_was_sent = task_errors.attempt_error(task(attempt=1, deaths=[death(0), death(1)]), Cause.CRASH)
    assert type(one_before_it_was_sent) is WorkerCrashed
    assert type(task_errors.attempt_error(task(attempt=2, deaths=[death(1), death(2)]), Cause.KILL)) is TaskKilled


def test_a_task_that_was_killed_before_it_began_names_no_death():
    waiting = task(deaths=[death()])
    waiting.begun = False
    assert "4711" not in str(task_errors.attempt_error(waiting, Cause.KILL))


def test_of_a_chunk_the_error_names_the_calls_and_carries_the_chunk():
    chunk = Chunk(print, "work", 10, range(4), starred=False)
    error = task_errors.attempt_error(task(what=chunk, deaths=[death()]), Cause.TIMEOUT)
    assert "work, items 10 to 13 of map" in str(error)
    assert error.chunk is chunk
    assert "work, item 10 of map" in str(task_errors.deadline_error(task(what=chunk)))
    assert "chunk" not in vars(task_errors.attempt_error(task(), Cause.CRASH))


def test_a_deadline_and_a_full_queue_tell_their_numbers():
    assert "within its deadline of 8 s" in str(task_errors.deadline_error(task()))
    assert "3 tasks are pending and max_pending is 2" in str(task_errors.queue_full_error(3, 2))
