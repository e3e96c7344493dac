"""Many tasks wait, and are cancelled: one by one, or all of them, in slices, when the pool shuts down."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
import threading

import pytest

from pidfdpool import InheritedFutureError, PidfdPoolExecutor, PoolBroken, WorkerCrashed
from pidfdpool.executor import futures as futures_module
from pidfdpool.loop import decisions, template_starter
from pidfdpool.scheduler import events, tasks
from tests import calls
from tests.conditions import eventually, in_forked_child, run_python

SLICE = 4
MANY = 10 * SLICE


class Busy:
    """A pool of one worker that runs a task until `release`. MANY others wait; each notes in a file that it runs.

    When the first of these is cancelled, its callback holds the thread up that does it, until `go_on`.
    """

    def __init__(self, folder, **options) -> None:
        self.pool = PidfdPoolExecutor(1, **options)
        self.ran, self._release = folder / "ran", folder / "release"
        self.running = self.pool.submit(calls.run_until, str(folder / "runs"), str(self._release), "done")
        eventually((folder / "runs").exists, "the task runs")
        self.waiting = [self.pool.submit(calls.append, str(self.ran), number) for number in range(MANY)]
        self.order: list[int] = []
        self.threads: set[str] = set()
        self.is_held, self.go_on = threading.Event(), threading.Event()
        for number, future in enumerate(self.waiting):
            future.add_done_callback(lambda _, number=number: self._note(number))
        self.waiting[0].add_done_callback(lambda _: self._hold_up())

    def _note(self, number: int) -> None:
        self.order.append(number)
        self.threads.add(threading.current_thread().name.partition("-")[0])

    def _hold_up(self) -> None:
        self.is_held.set()
        assert self.go_on.wait(60)

    def release(self) -> None:
        self._release.touch()

    def cancel_all(self, how: str = "shutdown") -> None:
        """Shut down without waiting, and cancel what waits. The pool's thread is held up in the first slice then."""
        if how == "shutdown":
            self.pool.shutdown(wait=False, cancel_futures=True)
        else:
            getattr(self.pool, how)()
        assert self.is_held.wait(60)

    def check_all_cancelled(self) -> None:
        """Let the thread go on, and see that every future is cancelled, that it is told, and that no task runs."""
        self.go_on.set()
        self.pool.shutdown()
        assert all(future.cancelled() for future in self.waiting)
        assert concurrent.futures.wait(self.waiting, timeout=0).done == set(self.waiting)
        assert sorted(self.order) == list(range(MANY))
        assert not self.ran.exists()


@pytest.fixture
def busy(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "SLICE", SLICE)
    busy = Busy(tmp_path)
    yield busy
    busy.release()
    busy.go_on.set()
    busy.pool.shutdown(cancel_futures=True)


# ---- all of them, when the pool shuts down ---------------------------------------------------------------------


@pytest.mark.parametrize("how", ["shutdown", "kill_workers", "terminate_workers"])
def test_many_tasks_are_cancelled_by_the_pools_thread_and_the_caller_does_not_wait(busy, how):
    busy.cancel_all(how)
    assert sum(future.done() for future in busy.waiting) == SLICE
    busy.release()
    busy.check_all_cancelled()
    assert (busy.order, busy.threads) == (list(range(MANY)), {"pidfdpool"})


def test_few_tasks_are_cancelled_before_shutdown_returns(busy, monkeypatch):
    monkeypatch.setattr(tasks, "SLICE", MANY)
    busy.go_on.set()
    busy.pool.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in busy.waiting)
    assert busy.threads == {threading.current_thread().name.partition("-")[0]}


def test_between_two_slices_others_use_the_pool(busy):
    counts = [(busy.pool.stats().queued, busy.pool.stats().cancelled)]
    busy.waiting[2 * SLICE].add_done_callback(
        lambda _: counts.append((busy.pool.stats().queued, busy.pool.stats().cancelled))
    )
    busy.cancel_all()
    counts.append((busy.pool.stats().queued, busy.pool.stats().cancelled))
    assert busy.pool.stats().pending == MANY - SLICE + 1
    busy.go_on.set()
    eventually(lambda: busy.pool.stats().pending == 1, "the last slice")
    counts.append((busy.pool.stats().queued, busy.pool.stats().cancelled))
    cancelled = (0, SLICE, 3 * SLICE, MANY)
    assert counts == [(MANY - count, count) for count in cancelled]


def test_no_worker_begins_what_is_to_be_cancelled_though_it_has_nothing_else_to_do(busy):
    busy.cancel_all()
    busy.release()
    assert busy.running.result() == "done"  # this thread took the answer, and decided what follows
    assert busy.pool.stats().idle == 1
    busy.check_all_cancelled()


def test_a_task_that_is_to_be_cancelled_can_still_be_cancelled_or_killed_itself(busy):
    busy.cancel_all()
    last, killed = busy.waiting[-1], busy.waiting[-2]
    assert last.cancel()
    assert last.cancelled()
    assert killed.kill()
    assert busy.order[-2:] == [MANY - 1, MANY - 2]
    busy.release()
    busy.check_all_cancelled()
    assert busy.pool.stats().cancelled == MANY


def test_who_waits_for_a_future_is_told_when_its_slice_is_cancelled(busy):
    last = busy.waiting[-1]

    async def wait_in_a_loop():
        await asyncio.wrap_future(last)

    waits = (
        last.result,
        lambda: concurrent.futures.wait([last], timeout=60).not_done or last.result(),
        lambda: next(concurrent.futures.as_completed([last], timeout=60)).result(),
        lambda: asyncio.run(wait_in_a_loop()),
    )
    with concurrent.futures.ThreadPoolExecutor(len(waits)) as threads:
        told = [threads.submit(wait) for wait in waits]
        eventually(lambda: len(last._waiters) == 2 and len(last._done_callbacks) == 2, "all wait")
        busy.cancel_all()
        busy.go_on.set()
        for each in told:
            assert type(each.exception(timeout=60)) in (concurrent.futures.CancelledError, asyncio.CancelledError)


def test_a_callback_may_shut_the_pool_down(busy):
    other = busy.pool.submit(abs, 1)
    other.add_done_callback(lambda _: busy.pool.shutdown(wait=True, cancel_futures=True))
    busy.pool._pool.core.defer(events.TaskKillRequested(other._number))  # so the pool's thread resolves it
    assert busy.is_held.wait(60)
    busy.release()
    busy.check_all_cancelled()
    assert busy.threads == {"pidfdpool"}


def test_what_waits_while_the_first_submit_starts_the_pool_is_cancelled(monkeypatch, tmp_path):
    monkeypatch.setattr(tasks, "SLICE", SLICE)
    starts, go_on = threading.Event(), threading.Event()
    start = template_starter.client.start

    def start_late(*arguments, **keywords):
        starts.set()
        assert go_on.wait(60)
        return start(*arguments, **keywords)

    monkeypatch.setattr(template_starter.client, "start", start_late)
    pool = PidfdPoolExecutor(1)
    waiting = []
    first = threading.Thread(target=lambda: waiting.append(pool.submit(calls.append, str(tmp_path / "ran"), 0)))
    first.start()
    assert starts.wait(60)
    waiting += [pool.submit(calls.append, str(tmp_path / "ran"), number) for number in range(1, MANY)]
    pool.shutdown(wait=False, cancel_futures=True)
    assert not any(future.done() for future in waiting)
    go_on.set()
    first.join()
    pool.shutdown()
    assert len(waiting) == MANY
    assert all(future.cancelled() for future in waiting)
    assert not (tmp_path / "ran").exists()


def test_what_is_to_be_cancelled_is_cancelled_though_the_pool_breaks_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "SLICE", SLICE)
    busy = Busy(tmp_path, on_crash="break")
    busy.cancel_all()
    os.kill(busy.running.worker.pid, signal.SIGKILL)
    busy.go_on.set()
    assert type(busy.running.exception(timeout=60)) is WorkerCrashed
    eventually(lambda: busy.pool.stats().broken, "the pool breaks")
    busy.check_all_cancelled()


def test_nothing_hangs_if_the_pools_own_machinery_fails_between_two_slices(busy):
    busy.cancel_all()
    busy.pool._pool.core.fail(ValueError("of no sort"))
    busy.go_on.set()
    busy.pool.shutdown()
    assert all(future.cancelled() for future in busy.waiting[:SLICE])
    for future in (busy.running, *busy.waiting[SLICE:]):
        assert type(future.exception(timeout=0)) is PoolBroken
    assert sorted(busy.order) == list(range(MANY))


def test_a_process_that_is_forked_meanwhile_finds_the_others_failed(busy):
    busy.cancel_all()

    def child():
        for future in busy.waiting[SLICE:]:
            assert type(future.exception(timeout=10)) is InheritedFutureError
        for future in busy.waiting[:SLICE]:
            with pytest.raises(concurrent.futures.CancelledError):
                future.result(timeout=10)
        assert concurrent.futures.wait(busy.waiting, timeout=10).not_done == set()

    assert in_forked_child(child) == "ok"
    busy.release()
    busy.check_all_cancelled()


@pytest.mark.parametrize("end", ["end", "Ctrl-C"])
def test_the_interpreter_does_not_exit_before_all_is_cancelled(end, tmp_path):
    done = run_python(
        """
        import atexit, os, sys, time
        from pidfdpool import PidfdPoolExecutor
        called = 0
        end, path = sys.argv[1:]
        def wait_for_it():
            while not os.path.exists(path):
                time.sleep(0.01)
        def callback(future):
            global called
            called += future.cancelled()
        atexit.register(lambda: print(called))
        pool = PidfdPoolExecutor(1)
        running = pool.submit(wait_for_it)
        while not running.running():
            time.sleep(0.001)
        for number in range(3000):
            pool.submit(abs, number).add_done_callback(callback)
        if end == "Ctrl-C":
            with pool:
                raise KeyboardInterrupt
        pool.shutdown(wait=False, cancel_futures=True)
        open(path, "w").close()
        """,
        end,
        str(tmp_path / "release"),
    )
    assert done.stdout == "3000\n"
    assert ("KeyboardInterrupt" in done.stderr) == (end == "Ctrl-C")


def test_callers_that_wait_for_room_are_refused_in_slices(tmp_path, monkeypatch):
    monkeypatch.setattr(decisions, "SLICE", SLICE)
    pool = PidfdPoolExecutor(1, max_pending=1)
    running = pool.submit(calls.run_until, str(tmp_path / "runs"), str(tmp_path / "release"))
    eventually(running.running, "the task runs")

    async def main():
        waiting = [asyncio.ensure_future(pool.run(abs, number)) for number in range(MANY)]
        await asyncio.sleep(0)
        held_up, go_on = threading.Event(), threading.Event()

        def hold_the_pools_thread_up():
            with pool._pool.core.poller.serving:
                held_up.set()
                assert go_on.wait(60)

        holder = threading.Thread(target=hold_the_pools_thread_up)
        holder.start()
        assert held_up.wait(60)
        pool.shutdown(wait=False)
        left = len(pool._pool.core.admission.waiting)
        go_on.set()
        holder.join()
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        return left, {str(error) for error in errors}

    left, texts = asyncio.run(main())
    assert left > 0
    assert texts == {"cannot schedule new futures after shutdown"}
    (tmp_path / "release").touch()
    pool.shutdown()


# ---- one by one --------------------------------------------------------------------------------------------


def test_a_future_that_nobody_waits_for_is_cancelled_without_making_a_lock_for_it(busy):
    plain = [busy.pool.submit(abs, number) for number in range(3)]
    assert plain[1].cancel()
    assert {"_waiters", "_done_callbacks"}.isdisjoint(vars(plain[1]))
    assert vars(plain[1])["_own_condition"] is futures_module._NO_WAITERS
    assert plain[1].cancelled()
    assert concurrent.futures.wait(plain[1:2], timeout=0).done == {plain[1]}


def test_each_cancelled_task_is_counted_and_its_callbacks_are_called_without_the_lock(busy):
    free = []
    core = busy.pool._pool.core
    busy.go_on.set()
    for future in busy.waiting:
        future.add_done_callback(lambda _: free.append(not core.lock._is_owned()))
        assert future.cancel()
        assert future.cancel()
    assert (busy.order, free) == (list(range(MANY)), [True] * MANY)
    stats = busy.pool.stats()
    assert (stats.cancelled, stats.queued, stats.pending, stats.running) == (MANY, 0, 1, 1)
    assert core.undelivered == {}
    busy.release()
    assert busy.running.result() == "done"
    busy.pool.shutdown()
    assert not busy.ran.exists()


def test_a_cancelled_task_makes_room_though_others_wait_as_well(tmp_path):
    pool = PidfdPoolExecutor(1, max_pending=3)
    release = tmp_path / "release"
    pool.submit(calls.run_until, str(tmp_path / "runs"), str(release))
    eventually((tmp_path / "runs").exists, "the task runs")
    first, second = (pool.submit(abs, number) for number in (-1, -2))
    got = []
    third = threading.Thread(target=lambda: got.append(pool.submit(abs, -3)))
    third.start()
    eventually(lambda: pool._pool.core.admission.waiting, "a thread waits for room")
    assert first.cancel()
    third.join(60)
    release.touch()
    assert (second.result(), got[0].result(), first.cancelled()) == (2, 3, True)
    pool.shutdown()


def test_what_a_cancelled_task_held_is_let_go_of_at_once(busy):
    class Observed:
        def __reduce__(self):
            return int, ()

        def __del__(self):
            let_go.append(busy.pool._pool.core.lock._is_owned())

    let_go = []
    future = busy.pool.submit(repr, Observed())
    busy.pool.submit(abs, 1)
    assert not let_go
    assert future.cancel()
    assert let_go == [False]


def test_a_cancel_that_is_interrupted_by_a_finalizer_that_cancels_is_done_as_well(busy):
    class Canceller:
        def __reduce__(self):
            return int, ()

        def __del__(self):
            outcomes.append(busy.waiting[1].cancel())

    outcomes = []
    future = busy.pool.submit(repr, Canceller())
    busy.pool.submit(abs, 1)
    assert future.cancel()
    assert outcomes == [True]
    assert busy.waiting[1].cancelled()


def test_threads_that_begin_to_wait_while_futures_are_cancelled_are_told_of_each(busy):
    waited = []

    def wait_for_all(futures):
        waited.append(len(concurrent.futures.wait(futures, timeout=60).done))

    for _ in range(10):
        futures = [busy.pool.submit(abs, 1) for _ in range(50)]
        threads = [threading.Thread(target=wait_for_all, args=(futures,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert all(future.cancel() for future in futures)
        for thread in threads:
            thread.join()
    assert waited == [50] * 30


def test_who_finds_a_cancellation_half_done_completes_it():
    """Guards against a signal handler that waits for the very thread that it has interrupted."""
    future = futures_module.Future()
    assert future._mark_cancelled()
    vars(future)["_own_condition"] = futures_module._NO_WAITERS
    assert concurrent.futures.wait([future], timeout=0).done == {future}
    future._resolve_cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(timeout=0)
