"""A plugin of pytest that has dask's own tests compute with a pool of ours: `pytest -p THIS`.

dask's scheduler of processes makes pools of ours, and where a test names no scheduler, it is a pool of ours.
"""

from __future__ import annotations

import os

import dask
import dask.multiprocessing
import pytest

import pidfdpool

dask.multiprocessing.ProcessPoolExecutor = pidfdpool.ProcessPoolExecutor


@pytest.fixture(scope="session", autouse=os.environ.get("PIDFDPOOL_AS_SCHEDULER") == "1")
def scheduler_of_ours():
    with pidfdpool.PidfdPoolExecutor(2) as pool, dask.config.set(scheduler=pool):
        yield
