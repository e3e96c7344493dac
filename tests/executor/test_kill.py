"""Future.kill, cancel_kills, and what a future knows of its task."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import pickle
import sys
import threading
import time

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.deaths import Cause
from pidfdpool.errors import TaskKilled
from tests import calls
from tests.conditions import eventually, is_alive


def begin(pool, tmp_path, name="task"):
    """Submit a task that goes on until the file `name`.release is made; return its future and its pid."""
    path = str(tmp_path / name)
    future = pool.submit(calls.run_until, path, f"{path}.release", name)
    eventually(lambda: os.path.exists(path), "the task runs")
    return future, int(open(path).read())


@pytest.mark.usefixtures("sure_of_deaths")
def test_killing_a_running_task_ends_its_worker(way, tmp_path):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        future, pid = begin(pool, tmp_path)
        assert future.worker == (0, future.worker.generation, pid)
        assert future.attempt == 1
        assert 0 <= time.time() - future.started_at < 30
        assert future.kill() is True
        error = future.exception(timeout=20)
        assert type(error) is TaskKilled
        assert not isinstance(error, concurrent.futures.BrokenExecutor)
        assert (error.pid, error.task_id, error.attempt) == (pid, 1, 1)
        assert error.death.cause is Cause.KILL
        assert "Future.kill()" in str(error)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        assert not is_alive(pid)
        assert future.kill() is False
        assert pool.submit(calls.double, 2).result() == 4


@pytest.mark.parametrize("how", ["hang_in_native_code", "hang_in_sleep", "hang_and_ignore_sigterm"])
def test_whatever_a_task_does_it_is_killed_with_what_it_started(way, how, tmp_path):
    path = str(tmp_path / "pids")
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        future = pool.submit(calls.hang_with_a_child, how, path)
        pids = [int(pid) for pid in eventually(lambda: os.path.exists(path) and open(path).read(), "it runs").split()]
        assert future.kill()
        assert isinstance(future.exception(timeout=20), TaskKilled)
        eventually(lambda: not any(map(is_alive, pids)), "both are gone")


def test_killing_a_queued_task_cancels_it(way, tmp_path):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        first, pid = begin(pool, tmp_path)
        second = pool.submit(calls.note, str(tmp_path / "marker"))
        assert (second.worker, second.attempt, second.started_at) == (None, 0, None)
        assert second.kill() is True
        assert second.cancelled()
        assert second.kill() is False, "there is nothing left to end"
        assert is_alive(pid)
        calls.note(str(tmp_path / "task.release"))
        assert first.result() == "task"
    assert not (tmp_path / "marker").exists()


def test_killing_what_is_done_does_nothing(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        done, failed = pool.submit(os.getpid), pool.submit(calls.raise_it, ValueError())
        pid = done.result()
        assert isinstance(failed.exception(), ValueError)
        assert done.kill() is False
        assert failed.kill() is False
        assert pool.submit(os.getpid).result() == pid
    assert done.kill() is False


@pytest.mark.usefixtures("sure_of_deaths")
def test_any_thread_may_kill_and_several_may_at_once(way, tmp_path):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        future, _ = begin(pool, tmp_path)
        threads = [threading.Thread(target=future.kill) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert isinstance(future.exception(timeout=20), TaskKilled)
        for thread in threads:
            thread.join()
        assert pool.submit(calls.double, 2).result() == 4
        assert pool.stats().deaths == 1


def test_kills_that_race_with_results_cost_nobody_else_anything(way):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        for number in range(60):
            future, other = pool.submit(calls.double, number), pool.submit(calls.double, -number)
            if number % 3:
                time.sleep(0.0002 * (number % 7))
            future.kill()
            if not future.cancelled():
                error = future.exception(timeout=20)
                assert isinstance(error, TaskKilled) or future.result() == 2 * number
            assert other.result(timeout=20) == -2 * number


def test_those_who_wait_are_told_of_killed_tasks(way, tmp_path):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        first, _ = begin(pool, tmp_path, "first")
        second, _ = begin(pool, tmp_path, "second")
        third = pool.submit(calls.double, 2)
        called = []
        first.add_done_callback(called.append)
        killer = threading.Timer(0.05, first.kill)
        killer.start()
        done, _pending = concurrent.futures.wait([first, second], 20, concurrent.futures.FIRST_COMPLETED)
        assert done == {first}
        done, _pending = concurrent.futures.wait([first, second], 20, concurrent.futures.FIRST_EXCEPTION)
        assert done == {first}
        assert third.result(timeout=20) == 4
        second.kill()
        assert set(concurrent.futures.as_completed([first, second, third], 20)) == {first, second, third}
        assert called == [first]
        killer.join()


def test_asyncio_is_told_of_a_killed_task(way, tmp_path):
    async def kill():
        future, _ = begin(pool, tmp_path)
        asyncio.get_running_loop().call_later(0.05, future.kill)
        with pytest.raises(TaskKilled):
            await asyncio.wait_for(asyncio.wrap_future(future), 20)

    with PidfdPoolExecutor(1, mp_context=way) as pool:
        asyncio.run(kill())


def test_cancelling_in_asyncio_ends_the_work_where_cancel_kills(way, tmp_path):
    async def cancel(view, name):
        future, pid = begin(view, tmp_path, name)
        task = asyncio.ensure_future(asyncio.wrap_future(future))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return future, pid

    with PidfdPoolExecutor(1, mp_context=way) as pool:
        future, pid = asyncio.run(cancel(pool.options(cancel_kills=True), "killed"))
        assert future.cancelled()
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(timeout=20)
        eventually(lambda: not is_alive(pid), "the work has ended")
        assert pool.submit(calls.double, 2).result(timeout=20) == 4

        future, pid = asyncio.run(cancel(pool, "spared"))
        assert is_alive(pid)
        calls.note(str(tmp_path / "spared.release"))
        assert future.result(timeout=20) == "spared", "without the option the task goes on, as in the standard"


def test_a_timeout_of_asyncio_ends_the_work_where_cancel_kills(way, tmp_path):
    async def wait():
        future, pid = begin(pool, tmp_path)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(future), 0.05)
        return future, pid

    with PidfdPoolExecutor(1, mp_context=way, cancel_kills=True) as pool:
        future, pid = asyncio.run(wait())
        assert future.cancelled()
        eventually(lambda: not is_alive(pid), "the work has ended")


def test_cancel_tells_all_who_wait_where_it_kills(way, tmp_path):
    with PidfdPoolExecutor(1, mp_context=way, cancel_kills=True, retries=5, retry_on=BaseException) as pool:
        future, pid = begin(pool, tmp_path)
        called = []
        future.add_done_callback(called.append)
        canceller = threading.Timer(0.05, future.cancel)
        canceller.start()
        assert concurrent.futures.wait([future], 20).done == {future}
        canceller.join()
        assert future.cancelled()
        assert not future.running()
        assert future.cancel() is True
        assert called == [future]
        eventually(lambda: not is_alive(pid), "the work has ended")
        assert pool.submit(calls.double, 2).result(timeout=20) == 4
        eventually(lambda: pool.stats().deaths == 1, "one worker ended")
        assert pool.stats().retries == 0


def test_cancels_that_race_with_results_cost_nobody_else_anything(way):
    with PidfdPoolExecutor(2, mp_context=way, cancel_kills=True) as pool:
        for number in range(60):
            future, other = pool.submit(calls.double, number), pool.submit(calls.double, -number)
            if number % 3:
                time.sleep(0.0002 * (number % 7))
            if future.cancel():
                assert future.cancelled()
            else:
                assert future.result(timeout=20) == 2 * number
            assert concurrent.futures.wait([future], 20).done
            # `other` may have been handed to nobody yet, and is certainly not what was cancelled.
            assert other.result(timeout=20) == -2 * number


def test_a_map_that_is_left_ends_its_work_where_cancel_kills(way, tmp_path):
    paths = [str(tmp_path / name) for name in ("one", "two")]
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        results = pool.options(cancel_kills=True).map(calls.run_until, paths, [path + ".release" for path in paths])
        eventually(lambda: all(map(os.path.exists, paths)), "both run")
        pids = [int(open(path).read()) for path in paths]
        calls.note(paths[0] + ".release")
        assert next(results) is None
        results.close()
        eventually(lambda: not is_alive(pids[1]), "the second one has ended")
        assert is_alive(pids[0])


def is_in(thread, name):
    """Return whether a thread is in a function of this name, or in what that has called."""
    frame = sys._current_frames().get(thread.ident)
    while frame is not None and frame.f_code.co_name != name:
        frame = frame.f_back
    return frame is not None


@pytest.mark.parametrize("begun", [True, False])
def test_a_cancel_wakes_all_who_wait(begun, tmp_path):
    """Several threads wait for one future; whether its task runs, and is killed, or not."""
    with PidfdPoolExecutor(1) as pool:
        running, _ = begin(pool.options(cancel_kills=True), tmp_path)
        future = running if begun else pool.submit(calls.double, 1)
        told = []

        def wait():
            try:
                future.result()
            except concurrent.futures.CancelledError as error:
                told.append(error)

        threads = [threading.Thread(target=wait, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        eventually(lambda: all(is_in(thread, "wait") and is_in(thread, "result") for thread in threads), "all wait")
        time.sleep(0.02)
        assert future.cancel()
        (tmp_path / "task.release").touch()
        eventually(lambda: len(told) == 4, "all are told")
        for thread in threads:
            thread.join(20)
