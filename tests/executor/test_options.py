"""options(): views of a pool for tasks under other rules."""

from __future__ import annotations

import gc
import os
import weakref

import pytest

from pidfdpool import PidfdPoolExecutor, WorkerCrashed
from pidfdpool.errors import DeadlineExceeded, TaskTimeout
from tests import calls
from tests.conditions import eventually


def test_a_view_has_its_own_rules_and_leaves_the_pools_alone(way, tmp_path):
    with PidfdPoolExecutor(1, mp_context=way, retry_backoff=0.0) as pool:
        view = pool.options(retries=1)
        assert view.submit(calls.fail_until, str(tmp_path / "one"), 2, "crash").result(timeout=20) == 2
        crashed = pool.submit(calls.fail_until, str(tmp_path / "two"), 2, "crash")
        assert isinstance(crashed.exception(timeout=20), WorkerCrashed)
        assert list(view.map(calls.double, [1, 2])) == [2, 4]
        assert sorted(view.map_unordered(calls.double, [1, 2])) == [2, 4]


def test_a_view_is_refined_without_being_changed(way, tmp_path):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        first = pool.options(timeout=1.0, grace=0.1)
        second = first.options(retries=1, retry_on=(TaskTimeout,), retry_backoff=0.0)
        third = second.options(timeout=None)
        path = str(tmp_path / "one")
        assert second.submit(calls.fail_until, path, 2, "hang").result(timeout=20) == 2, "it has both rules"
        assert isinstance(first.submit(calls.hang_in_sleep).exception(timeout=20), TaskTimeout)
        assert third.submit(calls.sleep, 1.2, "done").result(timeout=20) == "done"
        assert "timeout=1.0" in repr(first)
        assert "retries" not in repr(first)
        assert "retries=1" in repr(third)
        with pytest.raises(AttributeError):
            first.timeout = 3


def test_all_keywords_of_submit_are_the_functions(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        for submitter in (pool, pool.options(timeout=20)):
            future = submitter.submit(calls.options_as_arguments, timeout="a", retries="b", priority="c")
            assert future.result() == ("a", "b", "c")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("timout", "did you mean 'timeout'"),
        ("retry", "did you mean"),
        ("max_workers", "it is one of the whole pool, for the constructor"),
        ("max_pending", "it is one of the whole pool, for the constructor"),
        ("xyz", "there are timeout, grace"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_with_a_hint(name, hint):
    with pytest.raises(TypeError, match=rf"{name}.*7.*{hint}"):
        PidfdPoolExecutor(1).options(**{name: 7})
    with pytest.raises(TypeError, match=rf"{name}.*7.*{hint}"):
        PidfdPoolExecutor(1).options(timeout=3).options(**{name: 7})


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"timeout": 0}, ValueError, "timeout must be a number of seconds, more than 0, or None, not 0"),
        ({"timeout": -1.5}, ValueError, "not -1.5"),
        ({"timeout": float("nan")}, ValueError, "not nan"),
        ({"timeout": float("inf")}, ValueError, "not inf"),
        ({"timeout": "5"}, TypeError, "not '5'"),
        ({"timeout": True}, TypeError, "not True"),
        ({"grace": -1}, ValueError, "grace"),
        ({"timeout": 1, "grace": 2}, ValueError, "grace must not exceed timeout: 2 > 1"),
        ({"deadline": 0}, ValueError, "deadline"),
        ({"heartbeat_timeout": 0}, ValueError, "heartbeat_timeout"),
        ({"retries": -1}, ValueError, "retries must be >= 0, not -1"),
        ({"retries": 1.0}, TypeError, "retries must be an integer, not 1.0"),
        ({"retries": None}, TypeError, "retries"),
        ({"retry_on": "ValueError"}, TypeError, "retry_on"),
        ({"retry_on": [ValueError]}, TypeError, "retry_on"),
        ({"retry_backoff": 5, "retry_backoff_limit": 1}, ValueError, "retry_backoff must not exceed"),
        ({"poison_after": 0}, ValueError, "poison_after"),
        ({"priority": "high"}, TypeError, "priority"),
        ({"cancel_kills": 1}, TypeError, "cancel_kills must be True or False, not 1"),
        ({"kill_descendants": None}, TypeError, "kill_descendants"),
        ({"block": "no"}, TypeError, "block"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_with_its_name(options, error, told):
    with pytest.raises(error, match=told.replace("(", r"\(")):
        PidfdPoolExecutor(1).options(**options)
    with pytest.raises(error, match=told.replace("(", r"\(")):
        PidfdPoolExecutor(1, **options)


def test_who_shortens_the_timeout_need_not_know_of_the_pools_grace(way):
    with PidfdPoolExecutor(1, mp_context=way, timeout=20, grace=15) as pool:
        view = pool.options(timeout=0.2)
        error = view.submit(calls.hang_and_ignore_sigterm).exception(timeout=10)
        assert isinstance(error, TaskTimeout)
        with pytest.raises(ValueError, match="grace must not exceed timeout"):
            pool.options(timeout=0.2, grace=0.3)


def test_priorities_decide_who_is_next(way, tmp_path):
    started, order = str(tmp_path / "started"), str(tmp_path / "order")
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.submit(calls.run_until, started, started + ".release")
        eventually(lambda: os.path.exists(started), "the worker is taken")
        for name, priority in (("a", 0), ("b", 5), ("c", -1), ("d", 5), ("e", 0)):
            pool.options(priority=priority).submit(calls.append, order, name)
        calls.note(started + ".release")
    assert open(order).read().split() == ["b", "d", "a", "e", "c"]


def test_map_through_a_view_that_nobody_holds_goes_on_to_its_end(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        for mapped in ("map", "map_unordered"):
            results = getattr(pool.options(timeout=20), mapped)(calls.double, range(20), buffersize=2)
            gc.collect()
            assert list(results) == [2 * number for number in range(20)]
            results = getattr(pool.options(timeout=20), mapped)(calls.double, range(20), buffersize=2, chunksize=3)
            assert list(results) == [2 * number for number in range(20)]


def test_every_task_of_a_map_has_the_rules_of_its_view(way, tmp_path):
    with PidfdPoolExecutor(1, mp_context=way, retry_backoff=0.0) as pool:
        paths = [str(tmp_path / str(number)) for number in range(6)]
        results = pool.options(retries=1, retry_on=ValueError).map(
            calls.fail_until, paths, [2] * 6, ["ValueError"] * 6, buffersize=1
        )
        assert list(results) == [2] * 6


def test_a_view_keeps_the_executor_and_a_map_does_not(way):
    pool = PidfdPoolExecutor(1, mp_context=way)
    reference = weakref.ref(pool)
    view = pool.options(timeout=20)
    del pool
    gc.collect()
    assert view.submit(calls.double, 2).result(timeout=20) == 4
    results = view.map(calls.double, range(5), buffersize=2)
    assert next(results) == 0
    del view
    eventually(lambda: (gc.collect(), reference() is None)[1], "the executor is gone")
    assert next(results) == 2, "what was submitted is finished"


def test_a_view_in_a_forked_child_uses_a_pool_of_the_childs_own(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        view = pool.options(timeout=1.5, grace=0.1)
        pid = view.submit(os.getpid).result()
        read, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                told = view.submit(os.getpid).result(timeout=20)
                error = view.submit(calls.hang_in_sleep).exception(timeout=20)
                os.write(write, f"{told} {type(error).__name__} {pool.stats().submitted}".encode())
                pool.shutdown()
            finally:
                os._exit(0)
        os.close(write)
        os.waitpid(child, 0)
        with open(read) as pipe:
            other, name, submitted = pipe.read().split()
        assert int(other) != pid
        assert (name, submitted) == ("TaskTimeout", "2")
        assert view.submit(os.getpid).result() == pid


def test_rules_of_the_pool_are_defaults_for_its_tasks(way, tmp_path):
    path = str(tmp_path / "started")
    with PidfdPoolExecutor(1, mp_context=way, deadline=0.1) as pool:
        first = pool.options(deadline=None).submit(calls.run_until, path, path + ".release", "first")
        assert isinstance(pool.submit(calls.double, 2).exception(timeout=20), DeadlineExceeded)
        calls.note(path + ".release")
        assert first.result(timeout=20) == "first"
