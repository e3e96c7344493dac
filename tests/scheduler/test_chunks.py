"""Tasks that make many calls, each of which counts for itself: their time, and what follows from what they leave."""

from __future__ import annotations

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import Phase
from tests.scheduler.driving import KILLED, TERM, get_ready, only, started


def given(calls: int = 10, now: float = 1.0, **policy):
    """Return a machine whose one worker was given a chunk as task 1 at `now`."""
    machine = started(1, **policy)
    machine.decide(ev.Submitted(1, calls=calls), now)
    assert machine.running == {1: 0}
    return machine


# ---- time --------------------------------------------------------------------------------------------------


def test_a_timeout_is_about_the_call_under_way():
    machine = given(timeout=5.0)
    assert machine.deadline() == 6.0
    assert machine.decide(ev.Tick(), 6.0) == [do.CheckCall(0, 1, 1, 1.0)]
    assert machine.decide(ev.CallStarted(0, 1, 4.0), 6.0) == []
    assert machine.deadline() == 9.0, "its time begins with it"
    assert machine.decide(ev.Tick(), 9.0) == [do.CheckCall(0, 1, 1, 4.0)]
    assert machine.decide(ev.CallStarted(0, 1, 4.0), 9.0)[0] == do.Signal(0, 1, TERM)
    assert machine.slots[0].cause is Cause.TIMEOUT


def test_time_that_passes_between_a_look_and_its_answer_ends_no_worker_that_may_have_begun_another_call():
    """Only a worker that was late when it was looked at begins no further call: SIGTERM would hit the next one."""
    machine = given(timeout=5.0)
    machine.decide(ev.Tick(), 6.0)
    assert machine.decide(ev.CallStarted(0, 1, 1.001, late=False), 6.5) == []
    assert machine.slots[0].cause is None
    assert machine.decide(ev.Tick(), 6.5) == [do.CheckCall(0, 1, 1, 1.5)], "it is looked at again, at once"
    assert machine.decide(ev.CallStarted(0, 1, 1.001), 6.6)[0] == do.Signal(0, 1, TERM)


@pytest.mark.parametrize("at", [None, 0.5])
def test_a_chunk_that_begins_no_call_has_as_much_time_as_a_call(at):
    machine = given(timeout=5.0)
    machine.decide(ev.Tick(), 6.0)
    assert machine.decide(ev.CallStarted(0, 1, at), 6.0)[0] == do.Signal(0, 1, TERM)


def test_the_answer_about_a_chunk_that_has_ended_meanwhile_does_nothing():
    machine = given(timeout=5.0)
    machine.decide(ev.Tick(), 6.0)
    machine.decide(ev.Finished(0, 1, 1), 6.0)
    assert machine.decide(ev.CallStarted(0, 1, 1.0), 6.0) == []
    assert machine.deadline() is None


def test_a_heartbeat_is_due_after_the_beginning_of_the_call_under_way():
    machine = given(heartbeat_timeout=3.0)
    assert machine.decide(ev.Tick(), 4.0) == [do.CheckHeartbeat(0, 1, 1, 1.0)]
    assert machine.decide(ev.LastHeartbeat(0, 1, 2.5), 4.0) == []
    assert machine.deadline() == 5.5
    machine.decide(ev.Tick(), 5.5)
    assert machine.decide(ev.LastHeartbeat(0, 1, 2.5), 5.5)[0] == do.Signal(0, 1, TERM)
    assert machine.slots[0].cause is Cause.HEARTBEAT


def test_time_that_passes_between_a_look_for_a_heartbeat_and_its_answer_ends_no_worker_either():
    machine = given(heartbeat_timeout=3.0)
    machine.decide(ev.Tick(), 4.0)
    assert machine.decide(ev.LastHeartbeat(0, 1, 1.001, late=False), 4.5) == []
    assert machine.decide(ev.Tick(), 4.5) == [do.CheckHeartbeat(0, 1, 1, 1.5)]
    assert machine.decide(ev.LastHeartbeat(0, 1, 1.001), 4.6)[0] == do.Signal(0, 1, TERM)


def test_a_chunks_deadline_counts_from_when_its_map_was_submitted():
    machine = given(deadline=5.0)
    machine.decide(ev.Submitted(2, calls=10, since=0.5), 4.0)
    assert machine.decide(ev.Tick(), 5.5) == [do.Expire(2)]
    machine.decide(ev.Submitted(3, calls=10, since=0.5, follows=True), 6.0)
    assert machine.decide(ev.Tick(), 6.0) == [do.Expire(3)], "what follows is too late as well"


# ---- what was published is read before the task fails -------------------------------------------------------


def test_a_chunk_whose_killed_worker_does_not_end_is_read_before_it_fails():
    machine = given(timeout=5.0, grace=0.0)
    machine.decide(ev.Tick(), 6.0)
    machine.decide(ev.CallStarted(0, 1, 1.0), 6.0)
    for _ in range(3):
        actions = machine.decide(ev.Tick(), machine.deadline())
        if only(actions, do.Fail):
            break
    assert actions[:2] == [do.ReadPublished(0, 1, 1), do.Fail(1, Cause.TIMEOUT)]


def test_a_chunk_whose_call_sigterm_made_raise_is_read_before_it_fails():
    machine = given(timeout=5.0)
    machine.decide(ev.Tick(), 6.0)
    machine.decide(ev.CallStarted(0, 1, 1.0), 6.0)
    actions = machine.decide(ev.Finished(0, 1, 1, failed=True), 6.1)
    assert actions[:2] == [do.ReadPublished(0, 1, 1), do.Fail(1, Cause.TIMEOUT)]


# ---- what follows ------------------------------------------------------------------------------------------


def test_a_call_that_was_lost_in_a_chunk_has_its_further_attempts():
    machine = started(1, retries=2, retry_backoff=2.0)
    assert machine.decide(ev.Submitted(1, attempts=1, deaths=1, follows=True), 1.0) == [do.Retry(1, 2, 2.0)]
    assert [(send.task, send.attempt) for send in machine.decide(ev.Tick(), 3.0)] == [(1, 2)]
    actions = machine.decide(ev.Died(0, 1, KILLED), 4.0)
    assert only(actions, do.Retry) == [do.Retry(1, 3, 4.0)]
    machine.decide(ev.Tick(), 8.0)
    assert [send.attempt for send in only(get_ready(machine, 0, 2, 8.0), do.Send)] == [3]
    assert only(machine.decide(ev.Died(0, 2, KILLED), 9.0), do.Fail) == [do.Fail(1, Cause.CRASH)]


def test_the_deaths_before_count_for_poison():
    machine = started(1, retries=9, retry_backoff=0.0, poison_after=2)
    machine.decide(ev.Submitted(1, attempts=1, deaths=1, follows=True), 1.0)
    assert only(machine.decide(ev.Died(0, 1, KILLED), 4.0), do.Fail) == [do.Fail(1, Cause.CRASH)]


def test_a_pool_that_drains_accepts_what_follows_and_nothing_else():
    machine = given()
    machine.decide(ev.Submitted(2, calls=3), 1.0)
    machine.decide(ev.ShutdownRequested(), 1.0)
    assert only(machine.decide(ev.Submitted(3), 1.0), do.FailBroken)
    assert not only(machine.decide(ev.Submitted(4, calls=2, follows=True), 1.0), do.FailBroken)
    machine.decide(ev.Finished(0, 1, 1), 2.0)
    machine.decide(ev.Finished(0, 1, 2), 2.0)
    assert machine.running == {4: 0}


def test_a_pool_does_not_end_while_something_may_follow():
    machine = given()
    machine.state.holds.add("a map")
    machine.decide(ev.ShutdownRequested(), 1.0)
    machine.decide(ev.Finished(0, 1, 1), 2.0)
    assert machine.phase is Phase.DRAINING
    machine.state.holds.discard("a map")
    machine.decide(ev.Tick(read_until=0.0), 2.0)
    assert machine.phase is Phase.CLOSING


def test_a_pool_that_cancels_what_waits_ends_though_something_might_follow():
    machine = given()
    machine.state.holds.add("a map")
    machine.decide(ev.ShutdownRequested(cancel=True), 1.0)
    machine.decide(ev.Finished(0, 1, 1), 2.0)
    assert machine.phase is Phase.CLOSING


def test_what_follows_in_a_pool_that_cancels_what_waits_is_cancelled():
    machine = given(retries=1)
    machine.decide(ev.ShutdownRequested(cancel=True), 1.0)
    assert do.Cancel(2) in machine.decide(ev.Submitted(2, calls=2, follows=True), 1.0)
    assert do.Fail(3, Cause.SHUTDOWN) in machine.decide(ev.Submitted(3, attempts=1, follows=True), 1.0)


# ---- tasks of a worker -------------------------------------------------------------------------------------


def test_a_worker_is_allowed_the_calls_that_it_has_left():
    machine = started(1, max_tasks_per_child=10)  # it has done one task
    (send,) = only(machine.decide(ev.Submitted(1, calls=4), 1.0), do.Send)
    assert (send.allowed, machine.slots[0].leaving) == (9, False)
    machine.decide(ev.Finished(0, 1, 1, calls=4), 2.0)
    assert machine.slots[0].tasks_done == 5
    actions = machine.decide(ev.Submitted(2, calls=8), 3.0)
    assert [send.allowed for send in only(actions, do.Send)] == [5]
    assert only(actions, do.Spawn), "its replacement is started along with its last calls"
    actions = machine.decide(ev.Finished(0, 1, 2, calls=5), 4.0)
    assert only(actions, do.Stop) == [do.Stop(0, 1)]


def test_a_task_by_itself_has_no_number_of_calls():
    machine = started(1, max_tasks_per_child=10)
    assert [send.allowed for send in only(machine.decide(ev.Submitted(1), 1.0), do.Send)] == [0]
