"""What can be asked of a pool: defaults as documented, and what makes no sense refused with name and value."""

from __future__ import annotations

import dataclasses
import inspect
import re

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.deaths import Cause
from pidfdpool.errors import HeartbeatLost, MemoryExceeded, TaskTimeout, WorkerCrashed
from pidfdpool.scheduler.policy import STACK_TIME, Policy, PoolOptions, TaskOptions

FIELDS = {field.name: field for field in dataclasses.fields(Policy)}
OPTIONS = [name for name in FIELDS if name != "max_workers"]
NAN, INF = float("nan"), float("inf")

POSITIVE = ["timeout", "deadline", "heartbeat_timeout", "max_age", "start_timeout"]
POSITIVE += ["memory_interval", "period", "spawn_timeout"]
FROM_ZERO = ["grace", "idle_timeout", "retry_backoff", "retry_backoff_limit", "young_age"]
FROM_ZERO += ["backoff", "backoff_limit", "stop_grace", "prefetch", "spin"]
COUNTS_FROM_ONE = ["poison_after", "max_tasks_per_child", "max_memory_per_child", "hard_memory_per_child"]
COUNTS_FROM_ONE += ["max_pending", "max_workers", "threads_per_worker"]
COUNTS_FROM_ZERO = ["intensity", "retries", "min_workers", "segment_memory"]
FLAGS = ["cancel_kills", "kill_descendants", "block", "capture_stderr"]
REQUIRED = {"memory_interval", "period", "spawn_timeout", "retry_backoff", "retry_backoff_limit", "young_age"}
REQUIRED |= {
    "backoff",
    "backoff_limit",
    "stop_grace",
    "prefetch",
    "spin",
    "max_workers",
    "retries",
    "min_workers",
    "priority",
    "on_crash",
    "segment_memory",
}


def made(**options) -> Policy:
    return Policy(**{"max_workers": 4, **options})


def documented() -> dict[str, str]:
    """Return what the docstring says of each attribute."""
    parts = re.split(r"^ {4}(\w[\w, ]*): ", inspect.getdoc(Policy), flags=re.MULTILINE)
    texts = dict(zip(parts[1::2], parts[2::2], strict=True))
    return {name: " ".join(text.split()) for name, text in texts.items()}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_default_is_the_documented_one(name):
    told = re.search(r"Default: (.+?)(?:, which|\.(?: |$))", documented()[name])
    assert told, f"no default is documented for {name}"
    names = {"WorkerCrashed": WorkerCrashed}
    assert eval(told[1], names) == FIELDS[name].default


def test_every_attribute_is_documented_and_no_other():
    assert sorted(documented()) == sorted(FIELDS)


def test_the_options_of_tasks_and_pools_are_exactly_the_fields():
    assert set(TaskOptions.__annotations__) < set(PoolOptions.__annotations__)
    assert list(PoolOptions.__annotations__) == OPTIONS
    for name, kind in PoolOptions.__annotations__.items():
        told = kind.__forward_arg__ if hasattr(kind, "__forward_arg__") else kind
        assert told == FIELDS[name].type, name


def test_the_lists_of_this_file_cover_every_field():
    listed = POSITIVE + FROM_ZERO + COUNTS_FROM_ONE + COUNTS_FROM_ZERO + FLAGS + ["priority", "on_crash", "retry_on"]
    assert sorted(listed) == sorted(FIELDS)


def refused(error: type[Exception], name: str, value: object) -> None:
    with pytest.raises(error, match=rf"^{name} must ") as raised:
        made(**{name: value})
    assert str(raised.value).endswith(f"not {value!r}")


@pytest.mark.parametrize("name", POSITIVE + FROM_ZERO)
def test_a_duration_that_is_negative_or_no_number_is_refused(name):
    for value in (-1, -0.001, NAN, INF, -INF):
        refused(ValueError, name, value)


@pytest.mark.parametrize("name", POSITIVE)
def test_a_duration_of_zero_is_refused_where_it_makes_no_sense(name):
    for value in (0, 0.0):
        refused(ValueError, name, value)


@pytest.mark.parametrize("name", FROM_ZERO)
def test_a_duration_of_zero_is_taken_where_it_makes_sense(name):
    pair = {"retry_backoff_limit": "retry_backoff", "backoff_limit": "backoff"}.get(name, name)
    assert getattr(made(**{name: 0, pair: 0}), name) == 0


@pytest.mark.parametrize("name", POSITIVE + FROM_ZERO)
def test_a_duration_of_another_type_is_refused(name):
    for value in ("1", True, False, [1], 1j):
        refused(TypeError, name, value)


@pytest.mark.parametrize("name", [*COUNTS_FROM_ONE, *COUNTS_FROM_ZERO, "priority"])
def test_a_count_of_another_type_is_refused(name):
    for value in ("1", True, False, 1.0, NAN, (1,)):
        refused(TypeError, name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in COUNTS_FROM_ONE for value in (0, -3)] + [(name, -1) for name in COUNTS_FROM_ZERO],
)
def test_a_count_that_is_too_small_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be >= [01], not {value}$"):
        made(**{name: value})


@pytest.mark.parametrize("name", COUNTS_FROM_ZERO)
def test_a_count_of_zero_is_taken_where_it_makes_sense(name):
    assert getattr(made(**{name: 0}), name) == 0


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_that_is_no_truth_value_is_refused(name):
    for value in (0, 1, "yes", None):
        refused(TypeError, name, value)


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_none_is_refused_where_there_is_always_a_limit(name):
    with pytest.raises((TypeError, ValueError), match=rf"^{name} must .*not None$"):
        made(**{name: None})


@pytest.mark.parametrize("name", sorted(set(FIELDS) - REQUIRED - set(FLAGS) - {"retry_on"}))
def test_none_means_no_limit_elsewhere(name):
    assert getattr(made(**{name: None}), name) is None


@pytest.mark.parametrize("value", ["ignore", "Isolate", 1])
def test_on_crash_is_one_of_two_words(value):
    refused(ValueError, "on_crash", value)


@pytest.mark.parametrize("value", [None, "WorkerCrashed", 5, (WorkerCrashed, int), [WorkerCrashed], ValueError("x")])
def test_retry_on_is_an_exception_class_or_a_tuple_of_them(value):
    refused(TypeError, "retry_on", value)


def test_a_single_class_in_retry_on_is_as_good_as_a_tuple():
    assert made(retry_on=ValueError).retry_on == (ValueError,)


@pytest.mark.parametrize(
    ("low", "one", "high", "other"),
    [
        ("grace", 2.0, "timeout", 1.0),
        ("min_workers", 5, "max_workers", 4),
        ("max_memory_per_child", 200, "hard_memory_per_child", 100),
        ("retry_backoff", 2.0, "retry_backoff_limit", 1.0),
        ("backoff", 2.0, "backoff_limit", 1.0),
    ],
)
def test_two_values_that_contradict_each_other_are_refused(low, one, high, other):
    with pytest.raises(ValueError, match=rf"^{low} must not exceed {high}: {one} > {other}"):
        made(**{low: one, high: other})
    made(**{low: other, high: other})


# ---- options() -------------------------------------------------------------------------------------------------


def test_refining_changes_what_is_given_and_nothing_else():
    policy = made(timeout=5.0, retries=2, on_crash="break")
    refined = policy.refined({"retries": 0, "priority": 3})
    assert dataclasses.asdict(refined) == dataclasses.asdict(policy) | {"retries": 0, "priority": 3}
    assert policy.refined({}) is policy


@pytest.mark.parametrize("name", sorted(set(PoolOptions.__annotations__) - set(TaskOptions.__annotations__)))
def test_an_option_of_the_pool_is_refused_for_tasks(name):
    default = FIELDS[name].default
    with pytest.raises(TypeError) as raised:
        made().refined({name: default})
    assert f"'{name}' (its value is {default!r}); it is one of the whole pool" in str(raised.value)


def test_an_unknown_option_is_refused_with_a_hint():
    with pytest.raises(TypeError) as raised:
        made().refined({"timeot": 3})
    assert str(raised.value) == (
        "options() got an unexpected keyword argument 'timeot' (its value is 3); did you mean 'timeout'?"
    )
    with pytest.raises(TypeError, match="there are timeout, grace, "):
        made().refined({"zzz": 3})


def test_a_refined_value_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match=r"^timeout must be .* not -1$"):
        made().refined({"timeout": -1})
    with pytest.raises(ValueError, match="grace must not exceed timeout"):
        made().refined({"timeout": 1.0, "grace": 2.0})


def test_a_shorter_timeout_cuts_the_grace_that_was_meant_for_all():
    refined = made(timeout=60.0, grace=5.0).refined({"timeout": 1.0})
    assert (refined.timeout, refined.grace) == (1.0, 1.0)


@pytest.mark.parametrize("value", [NAN, -1.0, True])
def test_a_timeout_that_makes_no_sense_is_refused_with_a_grace_for_all_too(value):
    with pytest.raises((ValueError, TypeError), match=r"^timeout must"):
        made(grace=5.0).refined({"timeout": value})


# ---- the executor, of which nothing is started -----------------------------------------------------------------


def test_the_constructor_refuses_what_a_policy_does():
    with pytest.raises(ValueError, match=r"^retries must be >= 0, not -1$"):
        PidfdPoolExecutor(1, retries=-1)
    with pytest.raises(ValueError, match="min_workers must not exceed max_workers: 3 > 2"):
        PidfdPoolExecutor(2, min_workers=3)


def test_the_constructor_names_an_option_that_does_not_exist():
    with pytest.raises(TypeError) as raised:
        PidfdPoolExecutor(1, max_task_per_child=7)
    assert "PidfdPoolExecutor() got an unexpected keyword argument 'max_task_per_child'" in str(raised.value)
    assert "(its value is 7); did you mean 'max_tasks_per_child'?" in str(raised.value)


def test_a_view_refuses_what_a_policy_does():
    pool = PidfdPoolExecutor(1)
    with pytest.raises(ValueError, match=r"^timeout must be .* not 0$"):
        pool.options(timeout=0)
    with pytest.raises(TypeError, match="'min_workers'.* it is one of the whole pool"):
        pool.options(retries=1).options(min_workers=1)
    with pytest.raises(TypeError, match=r"'retrys' \(its value is 1\); did you mean 'retries'"):
        pool.options(retrys=1)
    pool.shutdown()


# ---- what follows from a policy --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({}, 1.0),
        ({"timeout": 60.0}, 1.0),
        ({"timeout": 0.3}, 0.3),
        ({"timeout": 0.001}, STACK_TIME),
        ({"grace": 0.0}, STACK_TIME),
        ({"grace": 7.0, "timeout": 9.0}, 7.0),
    ],
)
def test_the_time_to_die_is_the_grace_or_what_is_documented_for_none(options, seconds):
    assert made(**options).time_to_die == seconds


def test_retry_on_names_the_errors_of_the_pool_by_their_classes():
    def causes(*kinds):
        return {cause for cause in Cause if made(retry_on=kinds).retries_after(cause)}

    assert causes(WorkerCrashed) == {Cause.CRASH, Cause.MEMORY}
    assert causes(MemoryExceeded) == {Cause.MEMORY}
    assert causes(TaskTimeout) == {Cause.TIMEOUT}
    assert causes(HeartbeatLost) == {Cause.HEARTBEAT}
    assert causes(ValueError) == causes() == set()
    assert causes(Exception) == {Cause.CRASH, Cause.MEMORY, Cause.TIMEOUT, Cause.HEARTBEAT}


def test_exceptions_of_tasks_are_looked_at_only_if_they_are_asked_for():
    assert not made(retry_on=ValueError).retries_errors
    assert not made(retries=1).retries_errors
    assert not made(retries=1, retry_on=(WorkerCrashed, TaskTimeout, HeartbeatLost)).retries_errors
    assert made(retries=1, retry_on=(WorkerCrashed, ValueError)).retries_errors
    assert made(retries=1, retry_on=Exception).retries_errors
