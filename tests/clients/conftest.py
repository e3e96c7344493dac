"""A cluster of Dask for the tests of its door: two dask workers with one thread each, in processes with a nanny."""

from __future__ import annotations

import logging
import threading

import pytest

from tests.clients.dask_work import pool_processes
from tests.conditions import describe, eventually


@pytest.fixture
def no_pool_is_left():
    """Fail a test that leaves a process of a pool. The cluster itself stays, with its threads and connections."""
    before = pool_processes()
    yield
    try:
        eventually(lambda: not pool_processes() - before, "no process of a pool is left")
    except AssertionError:
        pytest.fail(f"left by the test: {[describe(pid) for pid in pool_processes() - before]}")


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    pytest.importorskip("pidfdpool.dask")
    threads = set(threading.enumerate())
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
    ) as made:
        yield made
    names = ("Dask-", "asyncio_", "pytest_timeout")  # dask keeps some executors until the interpreter ends

    def left():
        return [thread.name for thread in set(threading.enumerate()) - threads if not thread.name.startswith(names)]

    try:
        eventually(lambda: not left(), "the cluster's threads have ended")
    except AssertionError:
        pytest.fail(f"threads are left: {left()}")


@pytest.fixture
def client(cluster):
    import distributed

    with distributed.Client(cluster, set_as_default=False) as made:
        made.wait_for_workers(2, timeout=60)
        yield made


@pytest.fixture
def executor(client):
    from pidfdpool.dask import DaskExecutor

    with DaskExecutor(client) as made:
        yield made
