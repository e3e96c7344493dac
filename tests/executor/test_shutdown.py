"""Every way in which a pool, its executor, its host's interpreter or its caller's patience ends."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import signal
import threading

import pytest

from pidfdpool import CallNotSendable, PidfdPoolExecutor, WorkerCrashed
from pidfdpool.executor import lifecycle
from tests import calls
from tests.conditions import eventually, is_alive, open_descriptors, run_python


def test_shutdown_finishes_what_was_submitted(way):
    pool = PidfdPoolExecutor(2, mp_context=way)
    futures = [pool.submit(calls.sleep, 0.01, number) for number in range(20)]
    pool.shutdown(wait=True)
    assert [future.result(timeout=0) for future in futures] == list(range(20))


def test_shutdown_without_waiting_finishes_too(way):
    pool = PidfdPoolExecutor(1, mp_context=way)
    futures = [pool.submit(calls.sleep, 0.01, number) for number in range(10)]
    pool.shutdown(wait=False)
    assert [future.result(timeout=20) for future in futures] == list(range(10))


def test_shutdown_with_cancel_futures_cancels_what_no_worker_has(way, tmp_path):
    pool = PidfdPoolExecutor(1, mp_context=way)
    release = tmp_path / "release"
    running = pool.submit(calls.run_until, str(tmp_path / "runs"), str(release), "done")
    eventually(running.running, "the task runs")
    queued = [pool.submit(calls.sleep, 0.3) for _ in range(10)]
    queued[-1].add_done_callback(lambda _: release.touch())
    pool.shutdown(cancel_futures=True)
    assert running.result(timeout=0) == "done"
    assert all(future.cancelled() for future in queued)
    assert concurrent.futures.wait(queued, timeout=0).done == set(queued)


def test_shutdown_twice_and_of_an_unused_pool_is_nothing():
    pool = PidfdPoolExecutor(1)
    pool.shutdown()
    pool.shutdown(wait=False, cancel_futures=True)
    with PidfdPoolExecutor(1) as pool:
        pool.submit(calls.double, 1).result()
        pool.shutdown()
        pool.shutdown()


@pytest.mark.parametrize("end", ["shutdown", "shutdown without waiting", "kill_workers"])
def test_a_pool_whose_only_call_is_refused_leaves_no_descriptors_though_it_is_kept(end):
    before = open_descriptors()
    pool = PidfdPoolExecutor(1)
    assert isinstance(pool.submit(calls.double, threading.Lock()).exception(5), CallNotSendable)
    if end == "kill_workers":
        pool.kill_workers()
    else:
        pool.shutdown(wait=end == "shutdown")
    assert open_descriptors() == before


def test_submit_after_shutdown_is_refused_in_the_standards_words(way):
    pool = PidfdPoolExecutor(1, mp_context=way)
    pool.submit(calls.double, 1)
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="^cannot schedule new futures after shutdown$"):
        pool.submit(calls.double, 1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.map(calls.double, [1])
    pool.shutdown()


@pytest.mark.usefixtures("sure_of_deaths")
@pytest.mark.parametrize(
    ("method", "number"), [("terminate_workers", signal.SIGTERM), ("kill_workers", signal.SIGKILL)]
)
def test_workers_can_be_ended_at_once(way, method, number):
    pool = PidfdPoolExecutor(2, mp_context=way)
    running = [pool.submit(calls.sleep, 60) for _ in range(2)]
    queued = [pool.submit(calls.sleep, 60) for _ in range(5)]
    eventually(lambda: all(future.running() for future in running), "the tasks run")
    getattr(pool, method)()
    for future in running:
        error = future.exception(timeout=20)
        assert isinstance(error, WorkerCrashed)
        assert error.exit_status.signal == number
    assert all(future.cancelled() for future in queued)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(calls.double, 1)
    pool.shutdown()
    getattr(pool, method)()


def test_workers_that_are_still_starting_can_be_killed(way):
    pool = PidfdPoolExecutor(2, mp_context=way)
    futures = [pool.submit(calls.sleep, 60) for _ in range(3)]
    pool.kill_workers()
    concurrent.futures.wait(futures, timeout=20)
    assert all(future.done() for future in futures)
    pool.shutdown()


def test_a_queued_task_can_be_cancelled_until_a_worker_has_it(way, tmp_path):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        release = tmp_path / "release"
        running = pool.submit(calls.run_until, str(tmp_path / "runs"), str(release), "done")
        eventually(running.running, "the task runs")
        queued = [pool.submit(calls.double, number) for number in range(10)]
        assert not running.cancel()
        assert all(future.cancel() for future in queued[::2])
        assert concurrent.futures.wait(queued[::2], timeout=0).done == set(queued[::2])
        release.touch()
        assert [future.result() for future in queued[1::2]] == [2, 6, 10, 14, 18]
        assert running.result() == "done"


def test_cancelling_racing_with_dispatch_loses_nothing(way):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        futures = [pool.submit(calls.double, number) for number in range(500)]
        threads = [
            threading.Thread(target=lambda part=part: [f.cancel() for f in part])
            for part in (futures[::2], futures[::-3])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        concurrent.futures.wait(futures, timeout=30)
        for number, future in enumerate(futures):
            assert future.cancelled() or future.result(timeout=0) == 2 * number
        assert pool.submit(calls.double, 2).result() == 4


def test_an_executor_that_is_collected_finishes_its_tasks_and_ends(way):
    pool = PidfdPoolExecutor(2, mp_context=way)
    futures = [pool.submit(calls.sleep, 0.02, number) for number in range(10)]
    template = pool.submit(os.getppid).result()
    thread = pool._pool.core.thread._thread
    del pool
    gc.collect()
    assert [future.result(timeout=20) for future in futures] == list(range(10))
    thread.join(20)
    assert not thread.is_alive()
    eventually(lambda: not is_alive(template), "the template is gone")


def test_an_executor_in_a_cycle_is_collected_too():
    pool = PidfdPoolExecutor(1)
    pool.cycle = pool
    assert pool.submit(calls.double, 2).result() == 4
    thread = pool._pool.core.thread._thread
    del pool
    eventually(lambda: gc.collect() is not None and not thread.is_alive(), "the thread ends")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_shutdown_from_a_done_callback_works(count):
    pool = PidfdPoolExecutor(1)
    done = threading.Event()

    def callback(_):
        pool.shutdown(wait=bool(count))
        done.set()

    futures = [pool.submit(calls.sleep, 0.05) for _ in range(count)]
    pool.submit(calls.double, 1).add_done_callback(callback)
    assert done.wait(20)
    pool.shutdown()
    assert all(future.done() for future in futures)


SCRIPT = """
    import os, sys, time, atexit, threading
    from pidfdpool import PidfdPoolExecutor
    way, folder, end = sys.argv[1:]

    def work(number):
        time.sleep(0.05)
        open(f"{folder}/{number}", "w").close()

    pool = PidfdPoolExecutor(2, mp_context=way)
    for number in range(8):
        pool.submit(work, number)
    if end == "sys.exit":
        sys.exit(3)
    elif end == "raise":
        raise ValueError("the script's own error")
    elif end == "del":
        del pool
    elif end == "thread":
        threading.Thread(target=lambda: (time.sleep(0.1), pool.submit)).start()
    elif end == "atexit":
        def late():
            try:
                pool.submit(work, 100)
            except RuntimeError as error:
                print(error)
        atexit.register(late)
    elif end == "cycle":
        pool.cycle = pool
        del pool
"""


@pytest.mark.parametrize("end", ["end", "sys.exit", "raise", "del", "thread", "atexit", "cycle"])
def test_the_interpreter_finishes_what_was_submitted_before_it_exits(way, end, tmp_path):
    done = run_python(SCRIPT, way, str(tmp_path), end)
    assert sorted(os.listdir(tmp_path)) == [str(number) for number in range(8)]
    assert done.returncode == {"sys.exit": 3, "raise": 1}.get(end, 0)
    if end == "raise":
        assert done.stderr.count("Traceback") == 1
    else:
        assert done.stderr == ""
    if end == "atexit":
        assert done.stdout == "cannot schedule new futures after interpreter shutdown\n"


def test_a_worker_runs_exit_functions_and_joins_threads_when_it_leaves(tmp_path, way):
    def register():
        import atexit
        import threading
        import time

        atexit.register(lambda: open(f"{folder}/atexit", "w").close())

        def late():
            time.sleep(0.05)
            open(f"{folder}/thread", "w").close()

        threading.Thread(target=late).start()

    folder = str(tmp_path)
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.submit(register).result()
    assert sorted(os.listdir(tmp_path)) == ["atexit", "thread"]


def test_what_the_host_wants_done_at_its_exit_is_not_done_by_workers(tmp_path):
    done = run_python(
        """
        import atexit, os, sys
        from pidfdpool import PidfdPoolExecutor
        atexit.register(lambda: print("bye", flush=True))
        print("not flushed yet", end=" ")
        with PidfdPoolExecutor(2, mp_context="fork") as pool:
            list(pool.map(abs, range(10)))
        """
    )
    assert (done.stdout, done.stderr) == ("not flushed yet bye\n", "")


def test_a_pool_that_is_made_while_the_interpreter_begins_to_exit_is_refused(monkeypatch):
    """Guards against a pool that nobody waits for: the list of those is made a moment before."""
    pool = PidfdPoolExecutor(1)
    make = pool._own._make_recipe

    def make_while_exiting():
        monkeypatch.setattr(lifecycle, "_exiting", True)
        return make()

    monkeypatch.setattr(pool._own, "_make_recipe", make_while_exiting)
    with pytest.raises(RuntimeError, match="after interpreter shutdown"):
        pool.submit(calls.double, 1)
