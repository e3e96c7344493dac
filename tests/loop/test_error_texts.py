"""What the errors of the pool's own tell in full: what happened, to which task, and what to try."""

from __future__ import annotations

import pytest

from pidfdpool.deaths import Cause, Death
from pidfdpool.errors import advice
from pidfdpool.loop import task_errors
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.pidfd import ExitStatus
from tests.loop.test_task_errors import death, task

UNASKED = [cause for cause in Cause if cause.unasked]
ASKED = [Cause.START, Cause.TEMPLATE, Cause.BABBLE, Cause.HUNG_UP]
KILLED = ExitStatus(signal=9)


@pytest.mark.parametrize("cause", UNASKED)
def test_who_did_not_end_the_worker_says_what_to_look_at_next(cause):
    each = death(cause=cause)
    assert str(task_errors.attempt_error(task(deaths=[each]), cause)) == f"{each}. {advice(KILLED)}"


@pytest.mark.parametrize("cause", ASKED)
def test_who_ended_the_worker_has_no_advice_on_who_may_have(cause):
    each = death(cause=cause)
    assert str(task_errors.attempt_error(task(deaths=[each]), cause)) == f"{each}."


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        (Cause.TIMEOUT, "task 1 (function) ran for longer than its timeout of 5 s."),
        (Cause.HEARTBEAT, "task 1 (function) gave no heartbeat for longer than 6 s."),
        (Cause.MEMORY, "task 1 (function) took more memory than hard_memory_per_child=7 allows."),
        (Cause.KILL, "task 1 (function) was killed by Future.kill()."),
    ],
)
def test_the_pools_own_reason_comes_first_and_then_how_the_worker_ended(cause, told):
    each = death(cause=cause)
    assert str(task_errors.attempt_error(task(deaths=[each]), cause)) == f"{told} Its {each}."
    waits = " Its worker had not ended by then." if cause is not Cause.KILL else ""
    assert str(task_errors.attempt_error(task(), cause)) == told + waits


def test_a_task_that_was_to_be_tried_again_when_the_pool_was_shut_down_had_that_attempt_before_it():
    error = task_errors.attempt_error(task(attempt=3, deaths=[death(3)]), Cause.SHUTDOWN)
    assert str(error) == "task 1 (function) was waiting for attempt 4 when the pool was shut down."


def test_what_was_lost_without_a_death_says_so():
    error = task_errors.attempt_error(task(), Cause.CRASH)
    assert str(error) == "task 1 (function) was lost with its worker."
    assert error.deaths == ()


@pytest.mark.parametrize(("cause", "options"), [(Cause.TIMEOUT, {"timeout": 0.25}), (Cause.HEARTBEAT, {})])
def test_each_cause_tells_of_more_deaths_than_one(cause, options):
    deaths = death(1), death(2, cause)
    text = str(task_errors.attempt_error(task(attempt=2, deaths=deaths, **options), cause))
    first, *lines = text.splitlines()
    assert first.endswith(" It is not tried again after 2 deaths:")
    assert lines == [f"  {each.as_line()}" for each in deaths]
    if options:
        assert "timeout of 0.25 s" in first


def test_deaths_before_the_task_was_sent_are_in_the_history_and_are_not_counted():
    deaths = death(0), death(1), death(2)
    error = task_errors.attempt_error(task(attempt=2, deaths=deaths), Cause.CRASH)
    text = str(error)
    assert "after 2 deaths" in text
    assert text.count("\n") == 3
    assert (error.attempt, error.deaths) == (2, deaths)


def test_the_label_of_a_chunk_is_that_of_the_moment_in_the_text_and_beside_it():
    chunk = Chunk(print, "work", 10, range(4), starred=False)
    chunk.narrow(2)
    error = task_errors.attempt_error(task(what=chunk), Cause.TIMEOUT)
    assert error.task == "work, item 11 of map"
    assert str(error).startswith("task 1 (work, item 11 of map) ran")


def test_a_deadline_names_the_task_and_what_to_do():
    assert str(task_errors.deadline_error(task(deadline=0.5))) == (
        "task 1 (function) was given to no worker within its deadline of 0.5 s and did not run. "
        "Use more workers, a longer deadline, or a higher priority."
    )


def test_what_a_copied_future_tells_is_an_error_of_its_own_each_time():
    first, second = task_errors.inherited_error(), task_errors.inherited_error()
    assert first is not second
    assert "Submit again in the child" in str(first)


def test_a_death_of_another_attempt_gives_no_advice():
    last = Death(
        slot=0, generation=7, pid=4711, cause=Cause.CRASH, exit_status=KILLED, uptime=1.0, tasks_done=0,
        task="function", task_id=1, attempt=1,
    )  # fmt: skip
    text = str(task_errors.attempt_error(task(attempt=2, deaths=[last]), Cause.CRASH))
    assert text == "task 1 (function) was lost with its worker."
