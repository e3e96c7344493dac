"""stats() and workers(): a pool at one moment."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.loop.snapshots import Stats
from pidfdpool.pidfd import Pidfd
from tests import calls
from tests.conditions import eventually


def add_up(stats):
    """Return what does not add up."""
    wrong = []
    if stats.submitted != stats.pending + stats.finished + stats.failed + stats.cancelled:
        wrong.append("tasks")
    if stats.pending != stats.running + stats.queued + stats.delayed:
        wrong.append("pending tasks")
    if stats.running > stats.busy:
        wrong.append("running")
    if stats.busy > stats.size:
        wrong.append("busy")
    if min(dataclasses.astuple(stats)[2:]) < 0:
        wrong.append("negative")
    return [(what, stats) for what in wrong]


def test_before_the_first_submit_there_is_nothing(way):
    with PidfdPoolExecutor(3, mp_context=way) as pool:
        assert pool.stats() == Stats(size=3)
        assert pool.stats().state == "IDLE"
        assert pool.workers() == ()
        pool.resize(2)
        assert pool.stats().size == 2
    assert pool.stats().state == "IDLE"


def test_a_pool_at_work_can_be_seen(way, tmp_path):
    paths = [str(tmp_path / name) for name in "ab"]
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        futures = [pool.submit(calls.run_until, path, str(tmp_path / "release")) for path in paths]
        eventually(lambda: all(map(os.path.exists, paths)), "both run")
        queued = [pool.submit(calls.double, number) for number in range(3)]
        queued[0].cancel()
        stats = pool.stats()
        assert (stats.state, stats.broken, stats.size, stats.level) == ("OPEN", None, 2, 2)
        assert (stats.starting, stats.idle, stats.busy, stats.stopping) == (0, 0, 2, 0)
        assert (stats.submitted, stats.pending, stats.running, stats.queued) == (5, 4, 2, 2)
        assert (stats.finished, stats.failed, stats.cancelled, stats.deaths) == (0, 0, 1, 0)
        assert not add_up(stats)

        workers = pool.workers()
        assert [worker.slot for worker in workers] == [0, 1]
        assert {worker.pid for worker in workers} == {int(open(path).read()) for path in paths}
        assert {worker.task_id for worker in workers} == {1, 2}
        for worker in workers:
            assert (worker.state, worker.task, worker.attempt) == ("BUSY", "tests.calls.run_until", 1)
            assert (worker.tasks_done, worker.retiring) == (0, None)
            assert 0 <= worker.task_age <= worker.age < 60
            assert worker.rss > 1_000_000
            assert worker.cpu_time >= 0
        calls.note(str(tmp_path / "release"))
        for future in [*futures, *queued[1:]]:
            future.result(timeout=20)
        stats = pool.stats()
        assert (stats.pending, stats.finished, stats.cancelled) == (0, 4, 1)
        # A worker from which a task was taken back is idle once it has passed over what is in its channel of it.
        eventually(lambda: {worker.state for worker in pool.workers()} == {"IDLE"}, "they are still there, and idle")
        workers = pool.workers()
        assert {(worker.task, worker.task_id, worker.attempt, worker.task_age) for worker in workers} == {
            (None, None, 0, None)
        }
        assert sum(worker.tasks_done for worker in workers) == 4
    stats = pool.stats()
    assert (stats.state, stats.pending, stats.finished, stats.deaths, stats.crashes) == ("CLOSED", 0, 4, 2, 0)
    assert pool.workers() == ()
    assert not add_up(stats)


def test_what_is_seen_does_not_change(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.submit(calls.double, 2).result()
        stats, (worker,) = pool.stats(), pool.workers()
        pool.submit(calls.double, 2).result()
        assert stats.finished == 1
        assert worker.tasks_done <= 1
        for seen, name in ((stats, "finished"), (worker, "tasks_done")):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(seen, name, 3)


def test_crashes_restarts_and_retries_are_counted(way, tmp_path):
    with PidfdPoolExecutor(1, mp_context=way, retry_backoff=0.0) as pool:
        pool.submit(calls.die).exception(timeout=20)
        pool.options(retries=2).submit(calls.fail_until, str(tmp_path / "path"), 3, "crash").result(timeout=20)
        stats = pool.stats()
        assert (stats.submitted, stats.finished, stats.failed, stats.retries) == (2, 1, 1, 2)
        assert (stats.deaths, stats.crashes, stats.restarts) == (3, 3, 3)


def test_templates_that_took_the_place_of_another_are_counted():
    with PidfdPoolExecutor(1) as pool:
        template = pool.submit(os.getppid).result(timeout=20)
        assert pool.stats().template_restarts == 0
        with Pidfd.open(template) as handle:
            handle.send_signal(signal.SIGKILL)
        eventually(lambda: pool.stats().deaths, "the worker has died with its template")
        pool.submit(calls.double, 1).result(timeout=20)
        assert pool.stats().template_restarts == 1


def test_segments_are_counted(way):
    size = 1 << 20
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.submit(len, b"").result()
        assert (pool.stats().segments, pool.stats().segment_bytes) == (0, 0)
        pool.submit(len, bytes(size)).result()
        stats = pool.stats()
        assert (stats.segments, stats.segment_bytes >= size) == (1, True)
    assert (pool.stats().segments, pool.stats().segment_bytes) == (0, 0)


def test_a_broken_pool_tells_why(way):
    with PidfdPoolExecutor(1, mp_context=way, on_crash="break") as pool:
        pool.submit(calls.die).exception(timeout=20)
        assert "on_crash='break'" in pool.stats().broken
        assert pool.stats().state in ("CLOSING", "CLOSED")
    assert pool.stats().state == "CLOSED"


@pytest.mark.many_times
def test_looking_all_the_time_disturbs_nobody(way, tmp_path):
    errors, looks = [], [0]
    stop = threading.Event()

    def look():
        try:
            while not stop.is_set():
                errors.extend(add_up(pool.stats()))
                for worker in pool.workers():
                    assert worker.state in ("STARTING", "IDLE", "BUSY", "STOPPING")
                    assert worker.rss is None or worker.rss > 0
                    assert (worker.task_id is None) == (worker.task is None)
                looks[0] += 1
        except BaseException as error:
            errors.append(error)

    with PidfdPoolExecutor(2, mp_context=way, max_tasks_per_child=7, retries=1, retry_backoff=0.001) as pool:
        thread = threading.Thread(target=look)
        thread.start()
        for round_ in range(6):
            futures = [pool.submit(calls.double, number) for number in range(40)]
            futures.append(pool.submit(calls.die))
            futures.append(pool.submit(calls.sleep, 60))
            futures.append(pool.submit(calls.fail_until, str(tmp_path / str(round_)), 2, "crash"))
            futures[20].cancel()
            futures[-2].kill()
            for future in futures:
                if not future.cancelled():
                    future.exception(timeout=30)
        stop.set()
        thread.join()
    assert not errors
    assert looks[0] > 10
    assert not add_up(pool.stats())
