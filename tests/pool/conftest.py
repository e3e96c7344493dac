"""What tests of the pool share."""

from __future__ import annotations

import os

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.machine import workers
from tests.conditions import eventually
from tests.pool import calls


@pytest.fixture
def pool(way):
    """Give a pool of two workers that has been used."""
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        pool.submit(calls.double, 1).result()
        yield pool


@pytest.fixture
def sure_of_deaths(monkeypatch):
    """Have futures wait for the end of a worker that was killed; else they are told after 0.2 s without its death."""
    monkeypatch.setattr(workers, "GIVE_UP_AFTER", 30.0)


@pytest.fixture
def held(pool, tmp_path):
    """Give a task that goes on until the file is touched."""
    path = str(tmp_path / "held")
    future = pool.submit(calls.run_until, path, f"{path}.release", "value")
    future.release = tmp_path / "held.release"
    eventually(lambda: os.path.exists(path), "it runs")
    yield future
    future.release.touch()
