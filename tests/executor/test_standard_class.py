"""The executor is one of the standard's class, because libraries ask for that, and has nothing of it but the name."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process as standard

import pytest

from pidfdpool import PidfdPoolExecutor, ProcessPoolExecutor
from tests import calls


class Mine(PidfdPoolExecutor):
    pass


@pytest.mark.parametrize("kind", [PidfdPoolExecutor, ProcessPoolExecutor, Mine])
def test_who_asks_for_the_standards_executor_is_told_yes(kind):
    pool = kind(1)
    assert isinstance(pool, concurrent.futures.ProcessPoolExecutor)
    assert isinstance(pool, concurrent.futures.Executor)
    assert not isinstance(pool, concurrent.futures.ThreadPoolExecutor)
    assert issubclass(kind, concurrent.futures.ProcessPoolExecutor)


def test_nothing_of_the_standards_executor_is_inherited_that_a_user_may_call():
    """A method that some later Python gives it would look for what is not there."""
    special = {"__init__", "__enter__", "__exit__"}
    theirs = {name for name in vars(standard.ProcessPoolExecutor) if not name.startswith("_") or name in special}
    found = {name: next(kind for kind in PidfdPoolExecutor.__mro__ if name in vars(kind)) for name in theirs}
    assert {name for name, kind in found.items() if not kind.__module__.startswith("pidfdpool.")} == set()


def test_the_standards_machinery_is_not_started():
    before = len(standard._threads_wakeups)
    with PidfdPoolExecutor(2) as pool:
        assert list(pool.map(calls.double, range(10), timeout=20)) == [2 * number for number in range(10)]
        assert len(standard._threads_wakeups) == before
        assert not {"_executor_manager_thread", "_processes", "_call_queue", "_result_queue"} & set(vars(pool))


def test_what_libraries_read_of_it_is_there():
    """The size, to know how many calls to make at a time."""
    assert PidfdPoolExecutor(3)._max_workers == 3


def test_adaptive_runs_with_it():
    """It asks for the class, and refuses executors that it does not know."""
    adaptive = pytest.importorskip("adaptive")
    learner = adaptive.Learner1D(calls.double, bounds=(-1, 1))
    with PidfdPoolExecutor(2) as pool:
        adaptive.BlockingRunner(learner, npoints_goal=8, executor=pool, shutdown_executor=False)
    assert learner.npoints >= 8
