"""A host that was held up judges nobody by the time it lost: what was written in time is read first.

It is held up in a callback, in the rebuilding of a result, or because it was stopped and continued.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from concurrent.futures import wait
from termios import FIONREAD

import pytest

from pidfdpool import HeartbeatLost, PidfdPoolExecutor, TaskTimeout
from tests import calling_back, calls
from tests.conditions import eventually, start_python

LIMIT = 2.5  # seconds, which the task takes only a small part of, on a busy machine, too

_holds = []  # what holds up who rebuilds a `Holding`


class Holding:
    def __reduce__(self):
        return _hold_up, ()


def _hold_up():
    _holds[0]()


def give_holding():
    return Holding()


def note_and_raise(path):
    with open(path, "a") as file:
        file.write("ran\n")
    raise ValueError("the task's own")


def has_unread(link):
    """Return whether something of a worker's has come that the pool thread, which is held up, has not read."""
    return link.source.fileno() >= 0 and link.source.unread_bytes(FIONREAD) > 0


@pytest.fixture(params=["callback", "rebuilding"])
def hold_up(request, monkeypatch):
    """Give what has the pool thread held up by a function; it returns when that runs."""

    def hold_up(pool, function):
        held = []

        def hold(_future=None):
            held.append(True)
            function()

        if request.param == "callback":
            calling_back.submit(pool, hold)
        else:
            monkeypatch.setattr(f"{__name__}._holds", [hold])
            pool.submit(give_holding)
        eventually(lambda: held, "the pool thread is held up")

    return hold_up


OPTIONS = {
    "timeout": {"timeout": LIMIT, "retry_on": (TaskTimeout,)},
    "heartbeat": {"heartbeat_timeout": LIMIT, "retry_on": (HeartbeatLost,)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_task_that_ended_in_time_is_not_late(hold_up, tmp_path, options):
    path = tmp_path / "ran"
    until = []

    def hold():
        eventually(lambda: until and time.monotonic() > until[0] + LIMIT, "its time is over", seconds=60)
        eventually(lambda: any(has_unread(link) for link in pool._pool.core.workers.values()), "it has answered", 60)

    with PidfdPoolExecutor(2) as pool:
        pool.prestart()
        hold_up(pool, hold)
        future = pool.options(retries=1, retry_backoff=0, **options).submit(note_and_raise, str(path))
        until.append(time.monotonic())
        wait([future], 60)  # unlike result(), this does not read
        assert str(future.exception(0)) == "the task's own"
        assert path.read_text() == "ran\n"
        assert pool.stats().deaths == 0


def test_a_template_that_has_forked_in_time_does_answer(hold_up, caplog):
    caplog.set_level(logging.WARNING)
    until = []

    def hold():
        eventually(lambda: until and time.monotonic() > until[0] + LIMIT, "its time is over", seconds=60)
        eventually(lambda: has_unread(pool._pool.core.template), "it has answered", seconds=60)

    with PidfdPoolExecutor(3, spawn_timeout=LIMIT, memory_interval=0.1) as pool:
        pool.prestart(1)
        template = pool._pool.core.template.end.pid
        hold_up(pool, hold)
        futures = [pool.submit(calls.sleep, 0.05, number) for number in range(6)]
        until.append(time.monotonic())
        assert [future.result(60) for future in futures] == list(range(6))
        assert pool._pool.core.template.end.pid == template
        assert not caplog.records


STOPPED = """
import sys, time
from concurrent.futures import wait
from pidfdpool import PidfdPoolExecutor, TaskTimeout
from tests.loop.test_held_up import LIMIT, note_and_raise

with PidfdPoolExecutor(1) as pool:
    pool.prestart()
    future = pool.options(timeout=LIMIT, retries=1, retry_on=TaskTimeout).submit(note_and_raise, sys.argv[1])
    print("submitted", flush=True)
    if sys.argv[2] == "wait":
        wait([future], 60)
    print(future.exception(60))
"""


@pytest.mark.parametrize("how", ["lead", "wait"])
def test_a_host_that_was_stopped_reads_before_it_judges(tmp_path, how):
    path = tmp_path / "ran"
    host = start_python(STOPPED, str(path), how)
    with host:
        assert host.stdout.readline() == "submitted\n"
        os.kill(host.pid, signal.SIGSTOP)  # it is our child, and not reaped
        try:
            eventually(path.exists, "the task runs", seconds=60)
            time.sleep(LIMIT + 1.0)  # nothing tells when the answer lies in the channel of a host that is stopped
        finally:
            os.kill(host.pid, signal.SIGCONT)
        out, err = host.communicate(timeout=60)
    assert out == "the task's own\n", err
    assert path.read_text() == "ran\n"
