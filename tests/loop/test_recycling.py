"""Workers that are replaced, and pools that grow and shrink."""

from __future__ import annotations

import os
import signal
import time

import pytest

from pidfdpool import PidfdPoolExecutor, unhealthy
from pidfdpool.deaths import Cause
from pidfdpool.errors import MemoryExceeded, WorkerCrashed
from pidfdpool.loop.task import Task
from pidfdpool.scheduler.workforce import MAX_GENERATION
from pidfdpool.transport import frame_rules, framing
from tests import calls
from tests.conditions import eventually, is_alive

MB = 1_000_000


def causes(deaths):
    return [death.cause for death in deaths]


def test_a_worker_that_grew_over_its_limit_is_replaced_after_the_task(way):
    deaths = []
    with PidfdPoolExecutor(1, mp_context=way) as pool:  # a forked worker inherits much, late in a long test run
        limit = pool.submit(calls.resident).result(timeout=20) + 130 * MB
    with PidfdPoolExecutor(1, mp_context=way, max_memory_per_child=limit) as pool:
        pool.subscribe(deaths.append)
        pids = [pool.submit(calls.leak, 40 * MB).result(timeout=20) for _ in range(20)]
        # One more task may begin in a worker that waits for its replacement. The last worker may not be full.
        replaced = len(set(pids)) - 1
        assert replaced >= 2, "each holds a few"
        eventually(lambda: len(deaths) >= replaced, "they left")
        told = list(deaths)
        assert all(death.cause is Cause.RETIRED and death.expected and death.task is None for death in told)
        assert all(limit < death.peak_rss < limit + 200 * MB for death in told)


def test_a_worker_below_its_limit_stays(way):
    with PidfdPoolExecutor(1, mp_context=way, max_memory_per_child=4000 * MB) as pool:
        assert len({pool.submit(calls.leak, 1 * MB).result() for _ in range(20)}) == 1


def limit():
    """Return more bytes than a worker takes that is forked from this process, and fewer than it soon leaks."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") + 150 * MB


def leak_without_end():
    while True:
        calls.leak(10 * MB)
        time.sleep(0.01)


def test_a_worker_that_grows_over_the_hard_limit_is_killed_with_its_task(way):
    deaths, most = [], limit()
    with PidfdPoolExecutor(1, mp_context=way, hard_memory_per_child=most, memory_interval=0.02) as pool:
        pool.subscribe(deaths.append)
        assert pool.submit(calls.double, 2).result() == 4
        error = pool.submit(leak_without_end).exception(timeout=20)
        assert type(error) is MemoryExceeded
        assert isinstance(error, WorkerCrashed)
        assert f"hard_memory_per_child={most}" in str(error)
        assert pool.submit(calls.double, 2).result() == 4
    # A process with much memory takes long to end on a busy machine. The task's error does not wait for that, and the
    # next worker may end before it.
    killed, other = sorted(deaths, key=lambda death: death.generation)
    assert causes([killed, other]) == [Cause.MEMORY, Cause.SHUTDOWN]
    assert killed.peak_rss > most
    assert error.death in (killed, None)


def take_memory_where_nobody_reports():
    os.kill(os.getppid(), signal.SIGSTOP)  # the template, which would tell how this worker ended
    leak_without_end()


def test_it_is_memory_that_was_exceeded_though_the_worker_takes_long_to_end(way):
    """Giving back much memory takes long; whoever waits is told before the kernel is done."""
    with PidfdPoolExecutor(1, mp_context=way, hard_memory_per_child=limit(), memory_interval=0.02) as pool:
        template = pool.submit(os.getppid).result()
        error = pool.submit(take_memory_where_nobody_reports).exception(timeout=20)
        os.kill(template, signal.SIGCONT)
        assert type(error) is MemoryExceeded
        assert error.death is None


def test_a_memory_error_is_tried_again_as_the_crash_that_it_is(way, tmp_path):
    path = str(tmp_path / "attempts")

    def leak_once():
        calls.append(path, "x")
        if open(path).read().count("x") == 1:
            leak_without_end()
        return "well"

    with PidfdPoolExecutor(
        1, mp_context=way, hard_memory_per_child=limit(), memory_interval=0.02, retries=1, retry_backoff=0.0
    ) as pool:
        assert pool.submit(leak_once).result(timeout=20) == "well"


def test_a_worker_is_replaced_when_it_is_old(way):
    deaths = []
    with PidfdPoolExecutor(1, mp_context=way, max_age=0.15) as pool:
        pool.subscribe(deaths.append)
        pids = set()
        eventually(lambda: pids.add(pool.submit(os.getpid).result()) or len(pids) >= 3, "there were three")
        eventually(lambda: Cause.AGE in causes(deaths), "the first one left")
    assert set(causes(deaths)) == {Cause.AGE, Cause.SHUTDOWN}


def test_a_worker_that_gets_old_finishes_its_task(way, tmp_path):
    path = str(tmp_path / "started")
    with PidfdPoolExecutor(1, mp_context=way, max_age=0.1) as pool:
        future = pool.submit(calls.run_until, path, path + ".release", "whole")
        eventually(lambda: pool.workers() and pool.workers()[0].retiring, "it is too old")
        eventually(lambda: os.path.exists(path), "it runs")
        calls.note(path + ".release")
        assert future.result(timeout=20) == "whole"


def test_a_pool_shrinks_to_nothing_and_grows_again(way, tmp_path):
    with PidfdPoolExecutor(3, mp_context=way, idle_timeout=0.1) as pool:
        for _ in range(2):
            held = [pool.submit(calls.touch_and, str(tmp_path / "pids"), "sleep", 0.2) for _ in range(3)]
            eventually(lambda: len(pool.workers()) == 3, "all are there")
            for future in held:
                future.result()
            eventually(lambda: not pool.workers(), "all have left")
            assert not any(is_alive(int(pid)) for pid in open(tmp_path / "pids"))
            assert pool.stats().level == 0
        assert pool.submit(calls.double, 2).result() == 4


def test_a_pool_shrinks_to_what_is_to_be_kept(way):
    with PidfdPoolExecutor(3, mp_context=way, min_workers=2, idle_timeout=0.1) as pool:
        pool.submit(calls.double, 2).result()
        eventually(lambda: pool.stats().idle == 2, "two are started, though one would do")
        for future in [pool.submit(calls.sleep, 0.2) for _ in range(3)]:
            future.result()
        assert eventually(lambda: len(pool.workers()) == 3 or pool.stats().deaths, "there were three")
        eventually(lambda: len(pool.workers()) == 2, "one has left")
        kept = {worker.pid for worker in pool.workers()}
        time.sleep(0.3)
        assert {worker.pid for worker in pool.workers()} == kept


def test_a_pool_is_resized_upwards_and_downwards(way, tmp_path):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert max(pool.map(calls.most_at_a_time, [str(tmp_path)] * 10)) == 1
        pool.resize(3)
        assert pool.stats().size == 3
        futures = [pool.submit(calls.most_at_a_time, str(tmp_path), 0.3) for _ in range(6)]
        assert max(future.result() for future in futures) == 3
        pool.resize(2)
        eventually(lambda: len(pool.workers()) == 2, "one has left")
        assert max(pool.map(calls.most_at_a_time, [str(tmp_path)] * 30)) <= 2
        pool.resize(1)
        eventually(lambda: len(pool.workers()) == 1, "another has left")
        assert max(pool.map(calls.most_at_a_time, [str(tmp_path)] * 30)) == 1


def test_a_pool_that_becomes_smaller_finishes_what_runs(way, tmp_path):
    paths = [str(tmp_path / name) for name in "abc"]
    with PidfdPoolExecutor(3, mp_context=way) as pool:
        futures = [pool.submit(calls.run_until, path, str(tmp_path / "release"), path) for path in paths]
        eventually(lambda: all(map(os.path.exists, paths)), "all run")
        pool.resize(1)
        last = pool.submit(calls.double, 2)
        assert not last.done()
        calls.note(str(tmp_path / "release"))
        assert [future.result(timeout=20) for future in futures] == paths
        assert last.result(timeout=20) == 4
        eventually(lambda: len(pool.workers()) == 1, "two have left")


def test_a_pool_can_be_resized_before_it_starts(way, tmp_path):
    with PidfdPoolExecutor(4, mp_context=way) as pool:
        pool.resize(1)
        assert max(pool.map(calls.most_at_a_time, [str(tmp_path)] * 20)) == 1
    for size, error in ((0, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="max_workers"):
            pool.resize(size)
    with pytest.raises(ValueError, match="min_workers"):
        PidfdPoolExecutor(4, min_workers=2).resize(1)


@pytest.mark.parametrize("size", [1, 2])
def test_no_more_tasks_run_than_the_pool_is_large_though_each_has_a_worker_of_its_own(way, size, tmp_path):
    with PidfdPoolExecutor(size, mp_context=way, max_tasks_per_child=1) as pool:
        assert max(pool.map(calls.most_at_a_time, [str(tmp_path)] * 40)) <= size
        assert len(set(pool.map(calls.identify, range(10)))) == 10


def test_no_more_tasks_run_than_the_pool_is_large_while_workers_age(way, tmp_path):
    with PidfdPoolExecutor(2, mp_context=way, max_age=0.02) as pool:
        assert max(pool.map(calls.most_at_a_time, [str(tmp_path)] * 60)) <= 2
        assert pool.stats().restarts > 3


@pytest.mark.parametrize("say", [calls.say_unhealthy, calls.say_unhealthy_from_a_thread, calls.say_unhealthy_later])
def test_a_worker_that_says_it_is_unhealthy_finishes_its_task_and_is_replaced(way, say):
    deaths = []
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.subscribe(deaths.append)
        pid = pool.submit(say, "the database is gone: ä").result(timeout=20)
        eventually(lambda: deaths, "it left")
        assert (deaths[0].pid, deaths[0].cause, deaths[0].tasks_done) == (pid, Cause.UNHEALTHY, 1)
        assert deaths[0].detail == "the database is gone: ä"
        assert deaths[0].task is None
        assert deaths[0].exit_status.code == 0
        assert pool.submit(os.getpid).result(timeout=20) != pid


def test_an_unhealthy_worker_runs_no_other_task(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pids = [
            future.result(timeout=20) for future in [pool.submit(calls.say_unhealthy, "always") for _ in range(10)]
        ]
        assert len(set(pids)) == 10
        with pytest.raises(TypeError, match="reason"):
            pool.submit(unhealthy, 3).result()


def test_a_pool_goes_on_when_its_workers_cannot_be_counted_any_further(way):
    with PidfdPoolExecutor(1, mp_context=way, max_tasks_per_child=1) as pool:
        first = pool.submit(os.getpid)
        first.result(timeout=20)
        pool._pool.machine.workforce._last_generation = MAX_GENERATION - 2
        futures = [pool.submit(os.getpid) for _ in range(6)]
        assert len({future.result(timeout=20) for future in futures}) == 6
        generations = [future.worker.generation for future in futures]
        assert max(generations) == MAX_GENERATION
        assert min(generations) < 5
        assert len(set(generations)) >= 5, "2 was there before, and came again"
        # A task's attempts are counted without end; a frame has room for fewer.
        task = Task(1, first, [b"N."], None, pool._policy)
        (frame,) = framing.Decoder(frame_rules.ANY).feed_data(b"".join(task.frame(2**40, None)))
        assert frame.generation == 2**32 - 1
