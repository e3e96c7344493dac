"""Tasks that are sent to a worker ahead of the one that it runs: nothing is promised of them that does not hold.

Each test brings tasks ahead of a worker whose task goes on until it is released, and does something to them, to that
task or to the worker.
"""

from __future__ import annotations

import concurrent.futures
import os
import signal
import threading
from collections import Counter

import pytest

from pidfdpool import PidfdPoolExecutor, TaskKilled, WorkerCrashed
from tests import calls
from tests.conditions import eventually

AHEAD = 2


def machine_of(pool):
    return pool._pool.machine


def given(pool) -> int:
    return len(machine_of(pool).prefetched)


class Held:
    """A pool whose workers are each held by a task, with other tasks ahead of the first of them."""

    def __init__(self, pool, folder, workers=1):
        self.pool, self.folder = pool, folder
        eventually(self.is_known_to_be_quick, "the pool knows its tasks to be small")
        self.holding = [self.hold(f"held{number}") for number in range(workers)]
        self.log = str(folder / "log")

    def is_known_to_be_quick(self):
        for _ in range(20):
            self.pool.submit(calls.double, 1).result()
        return machine_of(self.pool).prefetcher.pace < 0.0004  # of which more than AHEAD are a millisecond

    def hold(self, name):
        path = str(self.folder / name)
        future = self.pool.submit(calls.run_until, path, f"{path}.release", name)
        eventually(lambda: os.path.exists(path), "the task runs")
        return future

    def release(self, name="held0"):
        (self.folder / f"{name}.release").touch()

    def submit_ahead(self):
        """Submit tasks until some are ahead, which small ones are when a few of them wait; then a few more."""
        futures = []
        while given(self.pool) < AHEAD:
            futures.append(self.pool.submit(calls.append, self.log, len(futures)))
            assert len(futures) < 1000, "none was sent ahead"
        return [*futures, *(self.pool.submit(calls.append, self.log, len(futures) + more) for more in range(3))]

    def ran(self):
        try:
            return [int(line) for line in open(self.log).read().split()]
        except FileNotFoundError:
            return []


@pytest.fixture
def held(way, tmp_path):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        held = Held(pool, tmp_path)
        yield held
        held.release()


def results_of(futures):
    return [future.result(timeout=30) for future in futures]


def test_what_is_ahead_waits_and_runs_in_order(held):
    futures = held.submit_ahead()
    assert not any(future.running() or future.done() for future in futures)
    assert all(future.attempt == 0 and future.worker is None for future in futures)
    stats = held.pool.stats()
    assert (stats.running, stats.queued, stats.delayed) == (1, len(futures), 0)
    held.release()
    results_of(futures)
    assert held.ran() == list(range(len(futures)))
    assert all(future.attempt == 1 and future.worker == futures[0].worker for future in futures)


@pytest.mark.parametrize("which", [0, 2, -1])
def test_what_is_ahead_can_be_cancelled(held, which):
    futures = held.submit_ahead()
    cancelled = futures.pop(which)
    assert cancelled.cancel() is True
    assert cancelled.cancelled()
    held.release()
    results_of(futures)
    number = which % (len(futures) + 1)
    assert held.ran() == [index for index in range(len(futures) + 1) if index != number]


def test_a_task_that_has_begun_behind_another_cannot_be_cancelled(held, tmp_path):
    """The host may not have heard yet that a task has begun: it is the worker's token that decides."""
    path = str(tmp_path / "second")
    second = held.pool.submit(calls.run_until, path, f"{path}.release", "second")
    held.submit_ahead()
    with held.pool._pool.core.poller.serving:  # nobody takes answers meanwhile
        held.release()
        eventually(lambda: os.path.exists(path), "it runs")
        assert second._number in machine_of(held.pool).prefetched, "for all that the host knows"
        assert second.cancel() is False
        assert not second.cancelled()
    (tmp_path / "second.release").touch()
    assert second.result(timeout=30) == "second"


def test_killing_the_running_task_spares_what_is_ahead(held):
    futures = held.submit_ahead()
    [holding] = held.holding
    assert holding.kill()
    assert isinstance(holding.exception(timeout=20), TaskKilled)
    results_of(futures)
    assert held.ran() == list(range(len(futures)))


def test_killing_a_task_that_has_ended_unnoticed_hits_none_behind_it(held, tmp_path):
    """Regression: the signal is for whatever the worker runs when it arrives."""
    path = str(tmp_path / "second")
    second = held.pool.submit(calls.run_until, path, f"{path}.release", "second")
    held.submit_ahead()
    [holding] = held.holding
    with held.pool._pool.core.poller.serving:  # nobody takes answers meanwhile
        held.release()
        eventually(lambda: os.path.exists(path), "the next one runs")
        assert holding.kill()
    assert holding.result(timeout=30) == "held0"
    (tmp_path / "second.release").touch()
    assert second.result(timeout=30) == "second"


def test_a_worker_that_dies_takes_only_its_running_task_along(held):
    futures = held.submit_ahead()
    [holding] = held.holding
    os.kill(holding.worker.pid, signal.SIGKILL)
    error = holding.exception(timeout=20)
    assert type(error) is WorkerCrashed
    results_of(futures)
    assert sorted(held.ran()) == list(range(len(futures))), "each ran once"
    assert {future.worker.pid for future in futures}.isdisjoint({error.pid})


def test_another_worker_that_has_nothing_to_do_gets_what_is_ahead(way, tmp_path):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        held = Held(pool, tmp_path, workers=2)
        futures = held.submit_ahead()
        held.release("held0")
        results_of(futures)
        assert not held.holding[1].done(), "though the other one goes on"
        assert sorted(held.ran()) == list(range(len(futures)))
        held.release("held1")
        assert results_of(held.holding) == ["held0", "held1"]


def test_a_task_of_a_higher_priority_goes_before_what_is_ahead(held):
    futures = held.submit_ahead()
    urgent = held.pool.options(priority=1).submit(calls.append, held.log, 1000)
    held.release()
    results_of([urgent, *futures])
    assert held.ran() == [1000, *range(len(futures))]


def test_what_is_limited_in_time_is_not_sent_ahead(held):
    before = len(held.submit_ahead())
    limited = [held.pool.options(timeout=60).submit(calls.append, held.log, before + index) for index in range(3)]
    others = [held.pool.submit(calls.append, held.log, before + 3 + index) for index in range(3)]
    assert not {future._number for future in limited} & set(machine_of(held.pool).prefetched)
    held.release()
    results_of([*limited, *others])
    assert held.ran() == list(range(before + 6))


@pytest.mark.parametrize("options", [{"prefetch": 0}, {"max_tasks_per_child": 1000}, {"timeout": 100.0}])
def test_a_pool_may_have_none(way, tmp_path, options):
    with PidfdPoolExecutor(1, mp_context=way, **options) as pool:
        held = Held(pool, tmp_path)
        futures = [pool.submit(calls.append, held.log, index) for index in range(200)]
        assert given(pool) == 0
        held.release()
        results_of(futures)
        assert held.ran() == list(range(200))


def test_shutdown_cancels_what_is_ahead(held):
    futures = held.submit_ahead()
    held.pool.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in futures)
    held.release()
    assert results_of(held.holding) == ["held0"]
    assert held.ran() == []


def test_shutdown_without_cancelling_finishes_what_is_ahead(held):
    futures = held.submit_ahead()
    held.pool.shutdown(wait=False)
    held.release()
    results_of(futures)
    assert held.ran() == list(range(len(futures)))


def test_killing_all_workers_cancels_what_is_ahead(held):
    futures = held.submit_ahead()
    held.pool.kill_workers()
    concurrent.futures.wait(futures, timeout=30)
    assert all(future.cancelled() for future in futures)
    assert held.ran() == []


def test_a_pool_made_smaller_runs_what_was_ahead_elsewhere(way, tmp_path):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        held = Held(pool, tmp_path, workers=2)
        futures = held.submit_ahead()
        pool.resize(1)
        held.release("held0")
        held.release("held1")
        results_of([*futures, *held.holding])
        assert sorted(held.ran()) == list(range(len(futures)))


@pytest.mark.timeout(120)
def test_cancelling_at_random_moments_never_cancels_what_ran_or_runs_what_was_cancelled(way, tmp_path):
    log = str(tmp_path / "log")
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        futures, cancelled = [], set()
        submitted = threading.Event()

        def cancel():
            at = 0
            while not submitted.is_set() or at < len(futures):
                if at < len(futures):
                    if futures[at].cancel():
                        cancelled.add(at)
                    at += 3

        canceller = threading.Thread(target=cancel)
        canceller.start()
        futures.extend(pool.submit(calls.append, log, index) for index in range(3000))
        submitted.set()
        canceller.join()
        _, pending = concurrent.futures.wait(futures, timeout=60)
        assert not pending
    ran = Counter(int(line) for line in open(log).read().split())
    assert set(ran.values()) == {1}, "none ran twice"
    assert set(ran) == set(range(3000)) - cancelled
    assert {index for index, future in enumerate(futures) if future.cancelled()} == cancelled
