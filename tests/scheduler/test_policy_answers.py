"""What a policy answers when it is asked, at the bounds; and what is suggested for options that do not exist."""

from __future__ import annotations

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.errors import HeartbeatLost, MemoryExceeded, TaskTimeout, WorkerCrashed
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.policy import Policy
from pidfdpool.scheduler.suggestions import hint, suggestions
from tests.scheduler.driving import KILLED


def made(**options):
    return Policy(**{"max_workers": 4, **options})


# ---- young deaths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("intensity", "workers", "deaths", "rounds"),
    [(None, 1, 7, 7), (None, 4, 13, 7), (0, 4, 0, None), (3, 4, 3, None)],
)
def test_as_many_young_deaths_are_survived_as_is_documented(intensity, workers, deaths, rounds):
    policy = made(max_workers=workers, intensity=intensity)
    assert (policy.young_deaths_allowed, policy.young_rounds_allowed) == (deaths, rounds)


@pytest.mark.parametrize("ask", [Policy.pause, Policy.retry_pause])
def test_pauses_double_from_the_first_to_the_longest_and_never_overflow(ask):
    policy = made(backoff=0.5, backoff_limit=3.0, retry_backoff=0.5, retry_backoff_limit=3.0)
    assert [ask(policy, count) for count in (-1, 0, 1, 2, 3, 4, 5, 100_000)] == [0, 0, 0.5, 1.0, 2.0, 3.0, 3.0, 3.0]


def test_pauses_have_limits_of_their_own():
    policy = made(backoff=0.5, backoff_limit=0.75, retry_backoff=0.25, retry_backoff_limit=0.375)
    assert (policy.pause(1), policy.pause(2)) == (0.5, 0.75)
    assert (policy.retry_pause(1), policy.retry_pause(2)) == (0.25, 0.375)


# ---- chunks, and what is sent ahead ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({}, False),
        ({"retries": 1}, True),
        ({"timeout": 1.0}, True),
        ({"deadline": 1.0}, True),
        ({"heartbeat_timeout": 1.0}, True),
        ({"max_tasks_per_child": 1}, True),
        ({"max_memory_per_child": 1, "hard_memory_per_child": 2}, False),
    ],
)
def test_each_call_counts_for_itself_where_a_rule_is_about_it(options, counts):
    assert made(**options).counts_calls == counts


@pytest.mark.parametrize(
    ("options", "sends"),
    [
        ({}, True),
        ({"prefetch": 0.0}, False),
        ({"prefetch": 1e-9}, True),
        ({"timeout": 1.0}, False),
        ({"deadline": 1.0}, False),
        ({"heartbeat_timeout": 1.0}, False),
        ({"max_tasks_per_child": 5}, False),
        ({"max_memory_per_child": 5}, False),
        ({"hard_memory_per_child": 5}, False),
        ({"retries": 3, "priority": 2, "max_age": 1.0, "idle_timeout": 1.0}, True),
    ],
)
def test_tasks_are_sent_ahead_where_nothing_is_about_each_of_them(options, sends):
    assert made(**options).sends_ahead == sends


def test_a_task_with_a_limit_of_its_own_is_not_sent_ahead():
    assert not made().refined({"timeout": 1.0}).sends_ahead
    assert made(timeout=1.0).refined({"timeout": None}).sends_ahead


def test_calls_share_tasks_unasked_where_the_number_of_tasks_that_wait_is_not_limited():
    assert made().sizes_chunks
    assert not made(max_pending=5).sizes_chunks


def test_workers_are_told_what_they_have_to_know():
    assert made().of_workers == {
        "watch_memory": False,
        "capture_stderr": False,
        "spin": 0.0002,
        "forward_logs": None,
        "threads": None,
        "pool_size": 4,
    }
    told = made(max_memory_per_child=5, capture_stderr=True, spin=0.0, threads_per_worker=2).of_workers
    assert (told["watch_memory"], told["capture_stderr"], told["spin"], told["threads"]) == (True, True, 0.0, 2)
    assert made(hard_memory_per_child=5).of_workers["watch_memory"] is False


# ---- further attempts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "again"),
    [
        ({"retries": 1}, WorkerCrashed, True),
        ({"retries": 0}, WorkerCrashed, False),
        ({"retries": 1, "poison_after": 1}, WorkerCrashed, False),
        ({"retries": 1, "poison_after": 2}, WorkerCrashed, True),
        ({"retries": 1}, MemoryExceeded, True),
        ({"retries": 1}, TaskTimeout, False),
        ({"retries": 1, "retry_on": TaskTimeout}, TaskTimeout, True),
        ({"retries": 1, "retry_on": (HeartbeatLost,)}, HeartbeatLost, True),
        ({"retries": 1, "retry_on": ValueError}, ValueError, False),
    ],
)
def test_what_was_lost_with_an_error_of_the_pool_is_tried_again_as_its_task_would_be(options, error, again):
    assert made(**options).retries_lost(error.__new__(error)) == again


def test_the_end_of_a_pool_or_of_a_worker_alone_is_no_reason_to_try_again():
    policy = made(retries=1, retry_on=BaseException)
    assert {cause for cause in Cause if policy.retries_after(cause)} == {
        Cause.CRASH, Cause.MEMORY, Cause.TIMEOUT, Cause.HEARTBEAT,
    }  # fmt: skip


# ---- refining --------------------------------------------------------------------------------------------------


def test_no_options_make_no_other_policy():
    policy = made()
    assert policy.refined({}) is policy
    other = policy.refined({"priority": 3})
    assert (other.priority, policy.priority, other.max_workers) == (3, 0, 4)


@pytest.mark.parametrize(
    ("grace", "options", "refined"),
    [
        (5.0, {"timeout": 9.0}, 5.0),
        (5.0, {"timeout": None}, 5.0),
        (None, {"timeout": 1.0}, None),
        (5.0, {"timeout": 1.0}, 1.0),
        (5.0, {"timeout": 9.0, "grace": 7.0}, 7.0),
    ],
)
def test_a_grace_for_all_is_cut_by_a_shorter_timeout_only(grace, options, refined):
    assert made(grace=grace).refined(options).grace == refined


def test_an_option_of_the_pool_under_another_name_is_said_to_be_one():
    with pytest.raises(TypeError, match="'min_workers' is one of the whole pool, for the constructor$"):
        made().refined({"min_worker": 1})


# ---- suggestions -----------------------------------------------------------------------------------------------

KNOWN = ("max_workers", "retries", "retry_on", "timeout", "deadline", "grace", "max_age")


@pytest.mark.parametrize(
    ("name", "likely"),
    [
        ("processes", ["max_workers"]),
        ("maxWorkers", ["max_workers"]),
        ("Max_Retries", ["retries"]),
        ("time_limit", ["timeout"]),
        ("timeot", ["timeout"]),
        ("ttl", ["max_age"]),
        ("xyzzy", []),
    ],
)
def test_names_of_other_pools_and_misspelled_ones_are_understood(name, likely):
    found = suggestions(name, KNOWN)
    assert found[: len(likely) or 1] == likely
    assert len(found) == len(set(found)) <= 4


def test_a_name_of_another_pool_is_suggested_only_if_the_option_is_known_there():
    assert suggestions("ttl", ("timeout", "grace")) == []


def test_names_that_are_much_less_similar_than_the_best_are_not_suggested():
    assert suggestions("timeouts", ("timeout", "time")) == ["timeout"]
    assert suggestions("retris", ("retries", "retry_on")) == ["retries"]


def test_a_hint_names_what_may_have_been_meant_or_all_there_is():
    assert hint("timeot", KNOWN) == "did you mean 'timeout'?"
    assert hint("min_worker", ("min_workers", "max_workers")) == "did you mean 'min_workers'?"
    assert hint("m_workers", ("min_workers", "max_workers")) in (
        "did you mean 'min_workers' or 'max_workers'?",
        "did you mean 'max_workers' or 'min_workers'?",
    )
    assert hint("xyzzy", ("timeout", "grace")) == "there are timeout, grace"


# ---- events and actions ----------------------------------------------------------------------------------------


def test_what_is_not_said_of_an_event_is_the_usual():
    submitted = ev.Submitted(1)
    assert (submitted.policy, submitted.heavy, submitted.calls, submitted.since) == (None, False, 0, None)
    assert (submitted.attempts, submitted.deaths, submitted.follows) == (0, 0, False)
    finished = ev.Finished(0, 1, 2)
    assert (finished.failed, finished.retryable, finished.memory, finished.seconds, finished.calls) == (
        False, False, 0, None, 1,
    )  # fmt: skip
    assert ev.Died(0, 1, KILLED).unbegun == 0
    assert ev.TemplateLost("killed").starts_otherwise is False
    assert ev.ShutdownRequested().cancel is False
    assert ev.Tick().read_until == float("inf")


def test_what_is_not_said_of_an_action_is_the_usual():
    send = do.Send(0, 1, 2)
    assert (send.attempt, send.deadline, send.allowed) == (1, None, 0)
    check = do.CheckHeartbeat(0, 1)
    assert (check.chunk, check.before) == (None, 0.0)
    report = do.ReportDeath(0, 1, None, Cause.CRASH, KILLED, 1.0, 0)
    assert (report.task, report.attempt, report.detail) == (None, 0, "")


@pytest.mark.parametrize("made", [do.Send(0, 1, 2), ev.Submitted(1), do.Close()], ids=["action", "event", "empty"])
def test_events_and_actions_are_values_that_nobody_changes(made):
    assert made == type(made)(*(getattr(made, name) for name in type(made).__slots__))
    assert hash(made) == hash(type(made)(*(getattr(made, name) for name in type(made).__slots__)))
    with pytest.raises(AttributeError):
        made.task = 5
