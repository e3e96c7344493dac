"""The first submit, which starts the pool: what other threads and signal handlers do meanwhile."""

from __future__ import annotations

import os
import threading

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.loop import template_starter
from pidfdpool.template import client, handshake
from tests import calls
from tests.conditions import children, eventually
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


def interrupted_in_this_thread(function):
    """Return a function that raises as Ctrl-C does; in other threads, such as the pool's, it is the given one."""
    this = threading.get_ident()

    def call(*arguments, **options):
        if threading.get_ident() == this:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    return call


def test_a_first_submit_that_is_interrupted_runs_nothing(monkeypatch, tmp_path):
    with PidfdPoolExecutor(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(client, "start", interrupted_in_this_thread(client.start))
            with pytest.raises(KeyboardInterrupt):
                pool.submit(calls.note, str(tmp_path / "ran"))
        assert pool.submit(calls.double, 2).result(20) == 4
        eventually(lambda: not pool.stats().pending, "nothing is left to do")
    assert not (tmp_path / "ran").exists()


def test_a_first_submit_that_is_interrupted_while_the_launcher_exits_runs_nothing(way, monkeypatch, tmp_path):
    """By then the first worker was asked for."""
    started = []
    start = client.start

    def noted(*arguments, **options):
        started.append(start(*arguments, **options))
        return started[-1]

    with PidfdPoolExecutor(1, mp_context=way) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(client, "start", noted)
            patch.setattr(handshake, "_await_exit", interrupted_in_this_thread(handshake._await_exit))
            with pytest.raises(KeyboardInterrupt):
                pool.submit(calls.note, str(tmp_path / "ran"))
        assert started[0].channel.fileno() == -1
        assert not children(os.getpid())
        assert pool.submit(calls.double, 2).result(20) == 4
        eventually(lambda: not pool.stats().pending, "nothing is left to do")
        assert not pool.stats().deaths
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
