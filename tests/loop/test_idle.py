"""What might keep the pool thread awake: descriptors that stay ready though nobody has anything to do with them."""

from __future__ import annotations

import os
import time

from pidfdpool import PidfdPoolExecutor
from tests import calls
from tests.conditions import eventually


def close_standard_error():
    os.close(2)


def serves_nothing(pool, monkeypatch):
    """Return whether the pool thread has nothing to serve for a while."""
    served = []
    serve = pool._pool.core.poller.serve
    monkeypatch.setattr(pool._pool.core.poller, "serve", lambda ready: (served.append(ready), serve(ready)))

    def rests():
        served.clear()
        time.sleep(0.1)
        return len(served) < 5

    return eventually(rests, "the pool thread sleeps")


def test_a_call_that_did_not_fit_into_the_channel_leaves_nothing_to_be_written(monkeypatch):
    with PidfdPoolExecutor(1, segment_memory=0) as pool:
        assert len(pool.submit(calls.double, b"x" * (4 << 20)).result()) == 8 << 20
        assert serves_nothing(pool, monkeypatch)


def test_a_worker_that_closes_its_standard_error_is_listened_to_no_more(monkeypatch, capfd):
    with PidfdPoolExecutor(1, capture_stderr=True) as pool:
        pool.submit(close_standard_error).result()
        assert serves_nothing(pool, monkeypatch)
        assert pool.submit(calls.double, 2).result() == 4
    capfd.readouterr()
