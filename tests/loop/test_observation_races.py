"""Observers that come and go while tasks end: the pool must not notice, and their times must stay right."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time

import pytest

from pidfdpool import Attempts, PidfdPoolExecutor
from tests import calls
from tests.conditions import eventually


class Kept:
    """An observer that keeps the attempts."""

    def __init__(self) -> None:
        self.attempts: list[Attempts] = []

    def take(self, records):
        self.attempts += [record for record in records if isinstance(record, Attempts)]

    def work(self, now, *, idle):
        return None

    def pool_ended(self):
        pass

    def follows_into_forked_child(self):
        return False


@pytest.fixture
def eager_switches():
    """Have threads take turns as often as the interpreter allows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_the_last_observer_may_leave_at_any_moment(eager_switches):
    """The threads that take answers and cancel tasks look for observers without a lock."""
    over = threading.Event()

    def come_and_go():
        while not over.is_set():
            pool.observe(Kept())()

    def cancel():
        while not over.is_set():
            for future in reversed([pool.submit(abs, -1) for _ in range(20)]):
                future.cancel()

    with PidfdPoolExecutor(2) as pool:
        assert pool.submit(abs, -1).result() == 1
        threads = [threading.Thread(target=act) for act in (come_and_go, come_and_go, cancel)]
        for thread in threads:
            thread.start()
        try:
            patient = pool.options(retries=1)
            until = time.monotonic() + 1
            while time.monotonic() < until:
                futures = [patient.submit(abs, -1) for _ in range(20)] + [pool.submit(abs, -1) for _ in range(20)]
                assert [future.result() for future in futures] == [1] * 40
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert not pool.stats().broken


def test_an_observer_that_follows_another_at_once_gets_the_times_of_workers(tmp_path):
    """Its first answer is to a task that began for the observer before, and is where the next one's will be."""
    begun, go_on = str(tmp_path / "begun"), str(tmp_path / "go on")
    with PidfdPoolExecutor(1) as pool:
        assert pool.submit(abs, -1).result() == 1
        first = pool.observe(Kept())
        held = pool.submit(calls.run_until, begun, go_on)
        eventually(lambda: os.path.exists(begun), "the task has begun")
        first()
        kept = Kept()
        second = pool.observe(kept)
        open(go_on, "w").close()
        held.result()
        for number in range(20):
            assert pool.submit(abs, -number).result() == number
        second()
    begins = [began for record in kept.attempts for began in record.began_at]
    assert len(begins) == 21
    assert not any(map(math.isnan, begins))


class Interrupted(Exception):
    """Raised by a signal handler."""


def test_a_signal_handler_that_raises_leaves_no_lock_behind():
    """Nobody may wait for ever for a thread that was interrupted as soon as it was about to tell the observers."""
    with PidfdPoolExecutor(1) as pool:
        assert pool.submit(abs, -1).result() == 1
        stop = pool.observe(Kept())
        allowed, interruptions = False, 0

        def interrupt(_number, _frame):
            if allowed:
                raise Interrupted

        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            until = time.monotonic() + 1
            while time.monotonic() < until:
                try:
                    allowed = True
                    signal.setitimer(signal.ITIMER_REAL, 0.0001 + 0.0001 * (interruptions % 5))
                    while True:
                        pool.stats()
                except Interrupted:
                    interruptions += 1
                allowed = False
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        stopping = threading.Thread(target=stop, daemon=True)
        stopping.start()
        stopping.join(10)
        assert not stopping.is_alive()
    assert interruptions > 100
