"""get_executor: which executor it returns, which options that gets, and which it refuses."""

from __future__ import annotations

import concurrent.futures
import gc
import os

import pytest

from pidfdpool import PidfdPoolExecutor, SerialExecutor, TaskTimeout, WorkerCrashed, get_executor
from pidfdpool.executor.choosing import HARMLESS
from pidfdpool.scheduler.policy import Policy, PoolOptions
from tests import calls


@pytest.fixture(autouse=True)
def of_multiprocessing():
    """End the processes that multiprocessing starts once and keeps."""
    from multiprocessing import forkserver, resource_tracker

    yield
    forkserver._forkserver._stop()
    gc.collect()
    resource_tracker._resource_tracker._stop()


KINDS = {
    "auto": PidfdPoolExecutor,
    "pidfdpool": PidfdPoolExecutor,
    "standard": concurrent.futures.ProcessPoolExecutor,
    "serial": SerialExecutor,
}
OTHER = {  # a value of each option that is not its default
    "timeout": 5.0, "grace": 0.5, "deadline": 5.0, "retries": 1, "retry_on": ValueError, "retry_backoff": 1.0,
    "retry_backoff_limit": 60.0, "poison_after": 2, "priority": 3, "heartbeat_timeout": 5.0, "cancel_kills": True,
    "kill_descendants": False, "block": False, "on_crash": "isolate", "max_tasks_per_child": 5,
    "max_memory_per_child": 10**9, "hard_memory_per_child": 10**9, "memory_interval": 1.0, "max_age": 60.0,
    "min_workers": 1, "idle_timeout": 60.0, "max_pending": 10, "capture_stderr": True, "threads_per_worker": 1,
    "segment_memory": 0, "young_age": 2.0, "intensity": 3, "period": 10.0, "backoff": 1.0, "backoff_limit": 60.0,
    "start_timeout": 10.0, "spawn_timeout": 10.0, "stop_grace": 1.0, "prefetch": 0.0, "spin": 0.0,
    "forward_logs": True, "context_vars": True,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_what_it_says_and_runs_calls(kind):
    with get_executor(kind, 2, mp_context="fork", initializer=os.getpid) as executor:
        assert type(executor) is KINDS[kind]
        assert executor._max_workers == 2
        assert executor.submit(calls.double, 2).result() == 4
        assert list(executor.map(calls.double, [1, 2])) == [2, 4]


def test_the_default_is_the_best_with_as_many_workers_as_there_are_cpus():
    assert get_executor()._max_workers == get_executor("serial")._max_workers == PidfdPoolExecutor()._max_workers


@pytest.mark.parametrize("kind", ["Standard", "", None, 3, ["auto"]])
def test_there_are_no_other_kinds(kind):
    with pytest.raises(ValueError, match="kind must be one of 'auto', 'pidfdpool', 'standard', 'serial', not "):
        get_executor(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_options_are_checked_whatever_is_chosen(kind):
    for options, told in (
        ({"max_workers": 0}, "max_workers"),
        ({"time_out": 3}, "time_out"),
        ({"timeout": -1}, "timeout"),
        ({"mp_context": "thread"}, "mp_context"),
        ({"initializer": 3}, "initializer"),
        ({"preload": 3}, "preload"),
        ({"check_pickling": 3}, "check_pickling"),
    ):
        with pytest.raises((TypeError, ValueError), match=told):
            get_executor(kind, **options)


def test_every_option_has_another_value_in_the_table_of_this_file():
    assert set(OTHER) == set(PoolOptions.__annotations__)
    plain = Policy(2)
    assert [name for name, value in OTHER.items() if name != "on_crash" and getattr(plain, name) == value] == []


@pytest.mark.parametrize("name", OTHER)
def test_the_standard_executor_is_refused_for_what_it_cannot_do(name):
    options = {name: OTHER[name], "mp_context": "spawn"}
    if name == "grace":
        options["timeout"] = 5.0
    if name in HARMLESS or name == "max_tasks_per_child":
        get_executor("standard", 2, **options).shutdown()
    else:
        with pytest.raises(TypeError, match=rf"^{name} is .*ProcessPoolExecutor, which kind='standard' asks for"):
            get_executor("standard", 2, **options)
    get_executor("serial", 2, **{**options, "mp_context": "fork"})


def test_the_standard_executor_takes_defaults_and_what_it_does_anyway():
    plain = Policy(2)
    rules = {name: getattr(plain, name) for name in PoolOptions.__annotations__}
    executor = get_executor("standard", 2, check_pickling=True, preload=["json"], **{**rules, "on_crash": "break"})
    with executor:
        assert executor.submit(calls.double, 1).result() == 2


def test_a_preload_that_is_to_be_called_is_refused_by_the_standard_executor():
    with pytest.raises(TypeError, match=r"^preload is .*getpid"):
        get_executor("standard", 1, preload=["json", os.getpid])


def test_the_standard_executor_gets_what_it_has():
    context, log = "spawn", []
    executor = get_executor(
        "standard", 3, mp_context=context, initializer=log.append, initargs=iter([1]), max_tasks_per_child=7
    )
    with executor:
        assert executor._mp_context.get_start_method() == "spawn"
        assert (executor._initializer, executor._initargs) == (log.append, (1,))
        assert executor._max_tasks_per_child == 7


def test_options_of_ours_have_their_effect():
    with get_executor("auto", 1, timeout=0.3, grace=0) as pool:
        with pytest.raises(TaskTimeout):
            pool.submit(calls.hang_in_python).result()
        with pytest.raises(WorkerCrashed):
            pool.submit(calls.die).result()
    with get_executor("serial", check_pickling=True) as serial:
        items: list = []
        serial.submit(items.append, 1)
        assert items == []
