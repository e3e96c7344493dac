"""What calls and results share with whoever rebuilds them is there until they do, and not for longer."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import tempfile
import time

import pytest

from pidfdpool import DeadlineExceeded, PidfdPoolExecutor, PoolBroken, QueueFull
from pidfdpool.transport import tokens
from tests import calls
from tests.conditions import eventually


@pytest.fixture(autouse=True)
def sharer():
    """End multiprocessing's own thread, which hands descriptors over, and its tracker, when the test is over."""
    from multiprocessing import resource_sharer, resource_tracker

    yield
    resource_sharer.stop()
    gc.collect()
    resource_tracker._resource_tracker._stop()


@pytest.fixture
def end():
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        yield ours


def shared():
    """Return how many duplicates wait to be fetched from this process."""
    from multiprocessing import resource_sharer

    return len(resource_sharer._resource_sharer._cache)


def make_pipe(_=None):
    return multiprocessing.Pipe()


def use(end):
    return end.fileno() > 0


def use_first(end, _):
    return end.fileno() > 0


def check(ends):
    one, other = ends
    with one, other:
        one.send("said")
        assert other.recv() == "said"


@pytest.mark.parametrize("limit", [None, 1], ids=["shut down", "replaced"])
def test_results_are_there_though_their_worker_leaves(way, limit):
    """Guards against a worker that is gone before the host has fetched what its result shares."""
    with PidfdPoolExecutor(1, mp_context=way, max_tasks_per_child=limit) as pool:
        futures = [pool.submit(make_pipe) for _ in range(2)]
    for future in futures:
        check(future.result(timeout=20))


def test_results_of_a_map_are_there_when_the_pool_is_gone(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        results = pool.map(make_pipe, range(3))
    assert len([check(ends) for ends in results]) == 3


def test_a_result_that_nobody_can_rebuild_does_not_hold_up_the_end(way):
    pool = PidfdPoolExecutor(1, mp_context=way)
    future = pool.submit(make_what_is_not_rebuilt)
    pool.shutdown(wait=False)
    assert future.exception(timeout=20) is not None
    pool.kill_workers()
    pool.shutdown()


class Refuses:
    def __setstate__(self, state):
        raise ZeroDivisionError


def make_what_is_not_rebuilt():
    refuses = Refuses()
    refuses.kept = 1
    return [refuses, multiprocessing.Pipe()]


@pytest.mark.parametrize("kind", ["small", "large", "lambda"])
def test_nothing_is_left_of_calls_that_never_run(way, kind, end):
    """Guards against duplicates that wait for a worker that is never to come."""
    function = (lambda end, _: end.fileno()) if kind == "lambda" else use_first
    data = b"x" * (1 << 20) if kind == "large" else b"x"
    with PidfdPoolExecutor(1, mp_context=way, max_pending=20) as pool:
        assert pool.submit(use, end).result(timeout=20)
        held = pool.submit(time.sleep, 60)
        eventually(held.running, "it runs")
        cancelled = [pool.submit(function, end, data) for _ in range(10)]
        late = [pool.options(deadline=0.01).submit(function, end, data) for _ in range(3)]
        assert all(isinstance(future.exception(timeout=20), DeadlineExceeded) for future in late)
        assert all(future.cancel() for future in cancelled)
        waiting = [pool.submit(int) for _ in range(19)]
        with pytest.raises(QueueFull):
            pool.options(block=False).submit(function, end, data)
        with pytest.raises(Exception, match="never"):
            pool.submit(function, [end, Never()], data).result(timeout=20)
        assert all(future.cancel() for future in waiting)
        killed = pool.submit(function, end, data)
        pool.kill_workers()
        killed.exception(timeout=20) if not killed.cancelled() else None
    del cancelled, late, waiting, killed
    gc.collect()
    eventually(lambda: not shared(), "nothing waits to be fetched")


class Never:
    def __reduce__(self):
        raise ValueError("never")


def length(values, _=None):
    return len(values)


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_what_only_the_call_holds_lives_until_the_future_is_done(way, large, tmp_path):
    """Guards against letting go of arguments that live only as long as the host holds them."""
    data = b"x" * (1 << 20) if large else b"x"
    with multiprocessing.get_context("spawn").Manager() as manager, PidfdPoolExecutor(1, mp_context=way) as pool:
        held = pool.submit(calls.run_until, str(tmp_path / "runs"), str(tmp_path / "release"), 1)
        waiting = [pool.submit(length, manager.list([1, 2]), data) for _ in range(3)]
        folder = pool.submit(is_there, tempfile.TemporaryDirectory(dir=tmp_path), data)
        gc.collect()
        (tmp_path / "release").touch()
        assert held.result(timeout=20) == 1
        assert [future.result(timeout=20) for future in waiting] == [2, 2, 2]
        assert folder.result(timeout=20)
        assert list(pool.map(length, (manager.list([1]) for _ in range(3)))) == [1, 1, 1]
        del folder, waiting
        gc.collect()
        eventually(lambda: not [name for name in os.listdir(tmp_path) if name.startswith("tmp")], "it is let go of")


def is_there(folder, _):
    folder._finalizer.detach()  # the copy is not to remove it
    return os.path.isdir(folder.name)


def test_workers_that_could_not_be_started_are_not_signalled(way, monkeypatch, caplog):
    """Guards against looking for a worker whose start has just failed, when the pool breaks for another one's."""

    def refuse():
        raise OSError(errno.EMFILE, "too many open files")

    with PidfdPoolExecutor(2, mp_context=way, period=0.05, backoff=0.02) as pool:
        monkeypatch.setattr(tokens, "pair", refuse)
        with pytest.raises(PoolBroken, match="no process could be started.*too many open files"):
            pool.prestart(2)
    assert "the pool thread failed" not in caplog.text
