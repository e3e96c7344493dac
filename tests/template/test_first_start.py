"""The first submit, which starts the pool: what other threads and signal handlers do meanwhile."""

from __future__ import annotations

import threading

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.loop import template_starter
from tests import calls
from tests.conditions import eventually
from tests.executor.test_backpressure import Caller


def test_shutdown_waits_for_a_start_that_is_under_way_in_another_thread(monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    start = template_starter.client.start

    def slow_start(*arguments, **options):
        begun.set()
        go_on.wait(20)
        return start(*arguments, **options)

    monkeypatch.setattr(template_starter.client, "start", slow_start)
    pool = PidfdPoolExecutor(1)
    first = Caller(pool.submit, calls.double, 2)
    assert begun.wait(20)
    end = Caller(pool.shutdown)
    end.join(0.2)
    assert end.is_alive()
    go_on.set()
    end.join(20)
    assert not end.is_alive()
    first.join(20)
    assert first.result.result(0) == 4  # it was finished before shutdown returned


def test_a_first_submit_that_is_interrupted_runs_nothing(monkeypatch, tmp_path):
    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    with PidfdPoolExecutor(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(template_starter.client, "start", interrupted)
            with pytest.raises(KeyboardInterrupt):
                pool.submit(calls.note, str(tmp_path / "ran"))
        assert pool.submit(calls.double, 2).result(20) == 4
        eventually(lambda: not pool.stats().pending, "nothing is left to do")
    assert not (tmp_path / "ran").exists()


def test_a_pool_that_could_have_no_thread_is_begun_anew(monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    with PidfdPoolExecutor(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                pool.submit(calls.double, 1)
        assert pool.submit(calls.double, 2).result(20) == 4
