"""dask's own tests, computed by pools of ours: those of its scheduler of processes, and those of any scheduler."""

from __future__ import annotations

import os

import pytest

from tests.clients import suites
from tests.clients.suites import SECONDS
from tests.conditions import ROOT

pytest.importorskip("dask")

_NO_SCHEDULER = "expects that no scheduler is set, and this run sets one for all tests"
DIFFERS_AS_PROCESSES: dict[str, str] = {}
# What differs, and why. Each of these differs with the standard pool as the scheduler, too.
DIFFERS_AS_SCHEDULER = {
    "test_traverse_false": "expects the very object back that was given, and a process returns a copy",
    "test_compute_array_bag": _NO_SCHEDULER,
    "test_persist_array_bag": _NO_SCHEDULER,
    "test_get_scheduler": _NO_SCHEDULER,
    "test_to_delayed_optimize_graph": "counts calls in a variable of the host, and they are made in a worker",
}


def run(tmp_path, *modules: str, **environment: str) -> tuple[int, dict[str, list[str]]]:
    """Run tests of dask's, as `suites.run` does."""
    return suites.run(
        tmp_path, "tests.clients.dask_plugin", *modules, environment={**os.environ, "PYTHONPATH": ROOT, **environment}
    )


@pytest.mark.timeout(SECONDS)
def test_as_the_scheduler_of_processes_each_passes_or_is_listed(tmp_path):
    passed, failed = run(tmp_path, "dask.tests.test_multiprocessing")
    assert {name: failed[name] for name in failed.keys() - DIFFERS_AS_PROCESSES.keys()} == {}
    assert passed >= 15


@pytest.mark.timeout(SECONDS)
def test_as_the_scheduler_of_everything_each_passes_or_is_listed(tmp_path):
    modules = "dask.tests.test_delayed", "dask.tests.test_base", "dask.bag.tests.test_bag"
    passed, failed = run(tmp_path, *modules, PIDFDPOOL_AS_SCHEDULER="1")
    assert {name: failed[name] for name in failed.keys() - DIFFERS_AS_SCHEDULER.keys()} == {}
    assert failed.keys() == DIFFERS_AS_SCHEDULER.keys(), "it is listed, but passes"
    assert passed >= 150


def test_a_pool_can_be_the_scheduler_of_one_computation():
    import dask

    import pidfdpool
    from tests.clients import dask_work as work

    lazy = [dask.delayed(work.square)(value) for value in range(20)]
    with pidfdpool.PidfdPoolExecutor(2) as pool:
        assert dask.compute(*lazy, scheduler=pool) == tuple(value * value for value in range(20))
        with dask.config.set(pool=pool):
            assert dask.compute(*lazy, scheduler="processes") == tuple(value * value for value in range(20))
        with pytest.raises(pidfdpool.WorkerCrashed):
            dask.compute(dask.delayed(work.die_for_each_50th)(7), scheduler=pool)
        assert dask.compute(*lazy, scheduler=pool)[3] == 9
