"""What can be imported from the package: its own names, and the standard's, so that one import is to be changed."""

from __future__ import annotations

import concurrent.futures
import importlib
from concurrent.futures.process import BrokenProcessPool

import pytest

import pidfdpool

STANDARD = [name for name in concurrent.futures.__all__ if hasattr(concurrent.futures, name)]
OWN = {"Future", "ProcessPoolExecutor"}
OF_OTHER_POOLS = {"InterpreterPoolExecutor"}


@pytest.mark.parametrize("name", sorted(set(STANDARD) - OWN - OF_OTHER_POOLS))
def test_the_standards_names_are_the_standards(name):
    assert getattr(pidfdpool, name) is getattr(concurrent.futures, name)
    assert name in dir(pidfdpool)


def test_what_stands_for_the_standards_is_of_its_kind():
    assert issubclass(pidfdpool.ProcessPoolExecutor, concurrent.futures.Executor)
    assert issubclass(pidfdpool.Future, concurrent.futures.Future)
    assert pidfdpool.BrokenProcessPool is BrokenProcessPool


@pytest.mark.parametrize("name", pidfdpool.__all__)
def test_each_own_name_is_there(name):
    assert getattr(pidfdpool, name) is not None
    assert name in dir(pidfdpool)


def test_another_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'ProcessPool'"):
        pidfdpool.ProcessPool  # noqa: B018


FORMER = {
    "actions": ["Cause"],
    "context": ["CurrentTask", "current_task", "heartbeat", "unhealthy"],
    "deaths": ["Death"],
    "errors": ["PoolBroken", "WorkerCrashed"],
    "executor": ["PidfdPoolExecutor", "ProcessPoolExecutor"],
    "futures": ["Future", "WorkerName"],
    "loop.snapshots": ["Stats", "WorkerInfo"],
    "options": ["Options"],
    "policy": ["Policy"],
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in FORMER.items() for name in names])
def test_each_path_that_public_names_have_had_still_works(module, name):
    found = importlib.import_module(f"pidfdpool.{module}")
    assert getattr(found, name) is getattr(pidfdpool, name)
