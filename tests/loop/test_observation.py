"""What observers of a pool are told, on every way that tasks go."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import signal
import threading
import time
import weakref

import pytest

import pidfdpool
from pidfdpool import Attempts, PidfdPoolExecutor, PoolLevel, TaskRetry, TemplateChange, WorkerChange
from tests import calls, observed_calls
from tests.conditions import eventually


class Kept:
    """An observer that keeps everything."""

    def __init__(self, *, follows: bool = False) -> None:
        self.records: list[object] = []
        self.ended, self.follows = 0, follows

    def take(self, records):
        self.records += records

    def work(self, now, *, idle):
        return now + 0.01

    def pool_ended(self):
        self.ended += 1

    def follows_into_forked_child(self):
        self.records = []
        return self.follows

    def of(self, kind):
        return [record for record in list(self.records) if type(record) is kind]

    def tasks(self):
        """Return number, function, outcome, queued, begin and end of each attempt."""
        return [
            (number, *others)
            for record in self.of(Attempts)
            for number, *others in zip(
                record.tasks, record.functions, record.outcomes, record.queued_at, record.began_at, record.ended_at,
                strict=True,
            )
        ]  # fmt: skip

    def outcomes(self):
        return {number: outcome for number, _, outcome, *_ in self.tasks()}


def observation_of(pool):
    return pool._pool.core.resolver.observation


def check_times(kept: Kept, before: float) -> None:
    """Hold that each task ran after it was queued, and that the tasks of a worker did not run at the same time."""
    after = time.monotonic()
    ends: dict[int, float] = {}
    for record in kept.of(Attempts):
        assert before <= record.taken_at <= after
        for queued, began, ended in zip(record.queued_at, record.began_at, record.ended_at, strict=True):
            assert queued <= began <= ended <= record.taken_at
            generation = record.worker[1]
            assert ends.get(generation, 0.0) <= began
            ends[generation] = ended


def test_each_task_is_told_once_on_every_way(way):
    """Before the first submit: many at once, one at a time, with a time limit, chunks, by asyncio, a stream."""

    async def awaited(pool):
        some = [await pool.run(calls.double, 1) for _ in range(3)]
        return some + [result async for result in pool.amap(calls.double, range(5))]

    before, kept = time.monotonic(), Kept()
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        stop = pool.observe(kept)
        futures = [pool.submit(abs, -index) for index in range(2000)]
        assert [future.result() for future in futures] == list(range(2000))
        for _ in range(20):
            pool.submit(abs, 1).result()
        for future in [pool.options(timeout=30).submit(abs, 1) for _ in range(10)]:
            future.result()
        mapped = list(pool.map(calls.double, range(100), chunksize=10))
        assert mapped == list(map(calls.double, range(100)))
        assert asyncio.run(awaited(pool)) == [2, 2, 2, 0, 2, 4, 6, 8]
        assert list(pool.stream(range, 5)) == list(range(5))
        stop()
        submitted = pool.stats().submitted
        assert observation_of(pool) is None
        pool.submit(abs, 1).result()
    tasks = kept.tasks()
    assert sorted(number for number, *_ in tasks) == list(range(1, submitted + 1))
    assert {outcome for _, _, outcome, *_ in tasks} == {"done"}
    functions = [function for _, function, *_ in tasks]
    assert functions.count("builtins.abs") == 2030
    assert functions.count("tests.calls.double") == submitted - 2031
    made = {
        record.tasks[0]: record.calls[0] for record in kept.of(Attempts) if record.functions[0].endswith("double")
    }
    assert 10 in made.values(), "a chunk"
    check_times(kept, before)
    sizes = [size for record in kept.of(Attempts) for size in (*record.request_bytes, *record.result_bytes)]
    assert min(sizes) > 0
    kinds = [change.kind for change in kept.of(WorkerChange)]
    assert kinds.count("requested") == kinds.count("forked") == kinds.count("ready") == 2
    assert [change.kind for change in kept.of(TemplateChange)][:2] == ["wanted", "up"]
    assert kept.of(PoolLevel)
    assert kept.ended == 0, "it was not observed then"


def test_how_tasks_end_is_told(way, tmp_path, sure_of_deaths):
    before, kept = time.monotonic(), Kept()
    held = str(tmp_path / "held")
    with PidfdPoolExecutor(1, mp_context=way, retry_backoff=0.0) as pool:
        pool.observe(kept)
        futures = {
            "failed": pool.submit(int, "no number"),
            "failed too": pool.options(retries=1).submit(int, "no number"),
            "crashed": pool.submit(calls.die),
            "timed out": pool.options(timeout=0.1, grace=0.1).submit(time.sleep, 60),
            "tried again": pool.options(retries=1).submit(calls.fail_until, str(tmp_path / "path"), 2, "crash"),
            "raised": pool.options(retries=1, retry_on=ValueError).submit(
                calls.fail_until, str(tmp_path / "other"), 2, "ValueError"
            ),
            "killed": pool.submit(calls.run_until, held, f"{held}.release", 1),
            "cancelled": pool.submit(abs, 1),
            "late": pool.options(deadline=0.01).submit(abs, 1),
            "last": pool.submit(abs, 1),
        }
        eventually(lambda: os.path.exists(held), "the task to be killed runs")
        assert futures["cancelled"].cancel()
        assert isinstance(futures["late"].exception(), pidfdpool.DeadlineExceeded)
        futures["killed"].kill()
        assert futures["last"].result() == 1
        pool.stats()
    told = {}
    for record in kept.of(Attempts):
        for number, outcome, error in zip(record.tasks, record.outcomes, record.errors, strict=True):
            told.setdefault(number, []).append((outcome, record.attempt, record.retried))
            assert (error is None) == (outcome == "done")
    assert told == {
        1: [("failed", 1, False)],
        2: [("failed", 1, False)],
        3: [("crashed", 1, False)],
        4: [("timed out", 1, False)],
        5: [("crashed", 1, True), ("done", 2, False)],
        6: [("failed", 1, True), ("done", 2, False)],
        7: [("killed", 1, False)],
        8: [("cancelled", 0, False)],
        9: [("timed out", 0, False)],
        10: [("done", 1, False)],
    }
    crash = next(record for record in kept.of(Attempts) if 3 in record.tasks)
    assert crash.death.exit_status.signal == signal.SIGKILL
    assert "killed by SIGKILL" in crash.errors[0]
    failed = next(record for record in kept.of(Attempts) if 1 in record.tasks)
    assert failed.errors[0] == "ValueError: invalid literal for int() with base 10: 'no number'"
    assert [(retry.task, retry.attempt, retry.why) for retry in kept.of(TaskRetry)] == [
        (5, 2, "crashed"),
        (6, 2, "failed"),
    ]
    cancelled = next(record for record in kept.of(Attempts) if 8 in record.tasks)
    assert cancelled.worker is None
    assert math.isnan(cancelled.began_at[0])
    deaths = [change.death for change in kept.of(WorkerChange) if change.kind == "ended"]
    assert len(deaths) == len([change for change in kept.of(WorkerChange) if change.kind == "requested"])
    kept.records = [record for record in kept.records if type(record) is not Attempts or record.worker is not None]
    check_times(kept, before)
    assert kept.ended == 1


def test_workers_are_recycled_and_told(way):
    kept = Kept()
    with PidfdPoolExecutor(1, mp_context=way, max_tasks_per_child=2) as pool:
        pool.observe(kept)
        for _ in range(5):
            pool.submit(abs, 1).result()
    assert [outcome for _, _, outcome, *_ in kept.tasks()] == ["done"] * 5
    left = [change.detail for change in kept.of(WorkerChange) if change.kind == "told to leave"]
    assert left.count("it had run its share of tasks") == 2


def test_observation_may_begin_and_end_while_tasks_run(pool):
    """A worker begins to record between two tasks, so not before the one that runs has ended."""
    stops, all_kept = [], []
    last_before = pool.stats().submitted + 5000
    futures = [pool.submit(abs, -index) for index in range(5000)]
    for _ in range(3):
        kept = Kept()
        all_kept.append(kept)
        stops.append(pool.observe(kept))
        futures += [pool.submit(abs, -index) for index in range(5000)]
    for stop in stops:
        stop()
        stop()
        futures += [pool.submit(abs, -index) for index in range(1000)]
    for future in futures:
        future.result()
    assert observation_of(pool) is None
    for kept in all_kept:
        for number, _, outcome, queued, began, ended in kept.tasks():
            assert outcome == "done"
            assert number <= last_before or not math.isnan(queued), "only before it may be unknown"
            assert math.isnan(began) or math.isnan(queued) or queued <= began
            assert math.isnan(began) or began <= ended
        count = len(kept.records)
        pool.submit(abs, 1).result()
        pool.stats()
        assert len(kept.records) == count, "nothing is told any more"


def test_times_of_long_tasks_are_the_workers(pool):
    """An answer's own duration ends at 66 ms, and the host may read it late."""
    kept = Kept()
    stop = pool.observe(kept)
    future = pool.submit(observed_calls.timed_sleep, 0.15)
    began, ended = future.result()
    stop()
    ((_, _, _, _, told_begin, told_end),) = kept.tasks()
    assert told_begin <= began <= ended <= told_end


def test_an_observer_that_raises_is_told_nothing_more_and_the_pool_goes_on(pool, caplog):
    class Raises(Kept):
        def take(self, records):
            raise ZeroDivisionError("the observer's own")

    raises, kept = Raises(), Kept()
    pool.observe(raises)
    stop = pool.observe(kept)
    with caplog.at_level(logging.ERROR, logger="pidfdpool"):
        assert [pool.submit(abs, -1).result() for _ in range(10)] == [1] * 10
        stop()
    assert len(kept.tasks()) == 10
    (record,) = [record for record in caplog.records if "is told nothing more" in record.message]
    assert record.exc_info[0] is ZeroDivisionError


def test_an_observer_may_end_its_observation_itself(pool):
    stops = []

    class Leaves(Kept):
        def take(self, records):
            super().take(records)
            stops.pop()()

    leaves = Leaves()
    stops.append(pool.observe(leaves))
    eventually(lambda: pool.submit(abs, 1).result() and not stops, "it was told something")
    eventually(lambda: observation_of(pool) is None, "the observation has ended")
    assert pool.submit(abs, -2).result() == 2


def test_what_is_noted_holds_no_arguments_and_no_results(pool):
    kept = Kept()
    stop = pool.observe(kept)
    argument = observed_calls.Referable()
    result = pool.submit(observed_calls.same, argument).result()
    references = weakref.ref(argument), weakref.ref(result)
    del argument, result
    function = eval("lambda: 1")
    futures = [pool.submit(function) for _ in range(3)]
    assert [future.result() for future in futures] == [1, 1, 1]
    references += weakref.ref(function), *map(weakref.ref, futures)
    del function, futures
    eventually(
        lambda: gc.collect() is not None and not any(reference() for reference in references),
        "all is let go when the thread that has read the answers is done with them",
    )
    stop()
    assert len(kept.tasks()) == 4


def test_a_collected_executor_ends_its_pool_though_it_is_observed():
    kept = Kept()
    pool = PidfdPoolExecutor(1)
    pool.observe(kept)
    pool.submit(abs, 1).result()
    threads = [thread for thread in threading.enumerate() if "pidfdpool" in thread.name.lower()]
    del pool
    gc.collect()
    eventually(lambda: kept.ended, "the pool has ended")
    for thread in threads:
        thread.join(20)
    assert len(kept.tasks()) == 1


@pytest.mark.parametrize("follows", [True, False])
def test_a_forked_child_observes_its_own_pool_if_the_observer_follows(pool, follows):
    kept = Kept(follows=follows)
    stop = pool.observe(kept)
    pool.submit(abs, 1).result()
    pool.stats()
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            pool.submit(abs, 1).result()
            pool.shutdown()
            os.write(write, str(len(kept.tasks())).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    told = os.read(read, 100)
    os.close(read)
    assert os.waitpid(pid, 0)[1] == 0
    assert told == (b"1" if follows else b"0")
    pool.submit(abs, 1).result()
    stop()
    assert len(kept.tasks()) == 2, "the parent's goes on"


def test_a_worker_that_cannot_record_says_nothing_of_times(way):
    kept = Kept()
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.submit(observed_calls.close_black_box).result()
        stop = pool.observe(kept)
        futures = [pool.submit(abs, -index) for index in range(100)]
        assert [future.result() for future in futures] == list(range(100))
        stop()
    assert len(kept.tasks()) == 100
    assert all(math.isnan(began) and math.isnan(ended) for *_, began, ended in kept.tasks())


def test_times_that_a_task_has_falsified_do_no_harm(pool):
    kept = Kept()
    stop = pool.observe(kept)
    for future in [pool.submit(observed_calls.falsify_times) for _ in range(4)]:
        future.result()
    assert [pool.submit(abs, -1).result() for _ in range(10)] == [1] * 10
    stop()
    assert {outcome for _, _, outcome, *_ in kept.tasks()} == {"done"}


def test_a_task_that_the_end_of_the_pool_took_along_did_not_crash():
    """WorkerCrashed is what its future raises, but nobody is to look for a crash."""
    with PidfdPoolExecutor(1) as pool:
        kept = Kept()
        pool.observe(kept)
        lost = pool.submit(time.sleep, 60)
        eventually(lambda: pool.stats().busy == 1, "the task is begun")
        pool.kill_workers()
        assert isinstance(lost.exception(), pidfdpool.WorkerCrashed)
        pool.shutdown()
    assert list(kept.outcomes().values()) == ["killed"]
