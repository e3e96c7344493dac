"""Tasks and initializers that change a setting of their worker's descriptors or process cost nobody else anything."""

from __future__ import annotations

import os

import pytest

from pidfdpool import PidfdPoolExecutor, WorkerCrashed
from tests import calls, hostile
from tests.conditions import eventually
from tests.pace import send_ahead

# ---- descriptors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("then", ["wait", "wait first"])
def test_what_is_ahead_can_be_taken_back_though_a_task_makes_all_descriptors_blocking(way, tmp_path, then):
    """Before the host takes it back ("wait"), or after that."""
    with PidfdPoolExecutor(1, way, prefetch=60.0) as pool:
        list(pool.map(calls.double, range(100), chunksize=1))
        go = str(tmp_path / "go")
        first = pool.submit(hostile.set_all_blocking, True, then, go)
        ahead = [pool.submit(calls.double, number) for number in range(10)]
        eventually(first.running, "it was sent")
        send_ahead(pool, 10)
        worker = pool.workers()[0].pid
        if then == "wait":
            eventually(lambda: tokens_are_blocking(worker), "it has made them blocking")
        cancelled = [future.cancel() for future in ahead[5:]]
        calls.note(go)
        assert first.result(timeout=30) == worker
        assert [future.result(timeout=30) for future in ahead[:5]] == [0, 2, 4, 6, 8]
        assert cancelled == [True] * 5
        assert pool.submit(os.getpid).result(timeout=30) == worker


def tokens_are_blocking(pid: int) -> bool:
    for name in os.listdir(f"/proc/{pid}/fd"):
        if "eventfd" in os.readlink(f"/proc/{pid}/fd/{name}"):
            with open(f"/proc/{pid}/fdinfo/{name}") as file:
                return not int(file.read().split("flags:")[1].split()[0], 8) & os.O_NONBLOCK
    raise AssertionError("it has no tokens")


def test_answers_are_complete_though_a_task_makes_all_descriptors_non_blocking(way, tmp_path):
    with PidfdPoolExecutor(1, way, prefetch=60.0) as pool:
        list(pool.map(calls.double, range(100), chunksize=1))
        go = str(tmp_path / "go")
        first = pool.submit(hostile.set_all_blocking, False, "wait", go)
        small = [pool.submit(hostile.make_bytes, 30_000) for _ in range(30)]
        large = [pool.submit(hostile.make_bytes, 1 << 24) for _ in range(3)]
        eventually(first.running, "it was sent")
        send_ahead(pool, 33)
        with pool._pool.core.poller.serving:  # nobody reads, so the pipe is full before
            calls.note(go)
            eventually(lambda: hostile_has_filled(pool), "the pipe is full")
        worker = first.result(timeout=30)
        assert {len(future.result(timeout=30)) for future in small} == {30_000}
        assert {len(future.result(timeout=30)) for future in large} == {1 << 24}
        pool.submit(hostile.set_all_blocking, False).result(timeout=30)
        assert pool.submit(os.getpid).result(timeout=30) == worker, "it waits for a task as before"


def hostile_has_filled(pool: PidfdPoolExecutor) -> bool:
    from termios import FIONREAD

    return pool._pool.core.workers[0].answers.unread_bytes(FIONREAD) >= 30_000


def test_a_task_that_fills_its_workers_tokens_changes_nothing(pool):
    worker = pool.submit(hostile.fill_tokens).result(timeout=30)
    assert [pool.submit(calls.double, 21).result(timeout=30) for _ in range(20)] == [42] * 20
    assert worker in {one.pid for one in pool.workers() if one.state == "IDLE"}


def test_no_task_can_cut_its_workers_black_box_short(way):
    with PidfdPoolExecutor(1, way) as pool:
        worker = pool.submit(hostile.cut_black_box).result(timeout=30)
        assert pool.submit(os.getpid).result(timeout=30) == worker


def test_what_was_answered_after_the_end_of_the_channel_is_delivered(monkeypatch, tmp_path):
    monkeypatch.setattr("pidfdpool.scheduler.workers.EXIT_AFTER_CLOSE", 60.0)
    with PidfdPoolExecutor(1, prefetch=60.0) as pool:
        list(pool.map(calls.double, range(100), chunksize=1))
        ended, go = str(tmp_path / "ended"), str(tmp_path / "go")
        first = pool.submit(hostile.end_channel_and_wait, ended, go)
        ahead = [pool.submit(hostile.run_once, str(tmp_path), f"ahead-{number}") for number in range(10)]
        last = pool.submit(calls.die)
        eventually(first.running, "it was sent")
        send_ahead(pool, 11)
        link = pool._pool.core.workers[0]
        eventually(lambda: not link.reading, "the host has read the end")
        calls.note(go)
        assert first.result(timeout=30) is None
        assert [future.result(timeout=30) for future in ahead] == [f"ahead-{number}" for number in range(10)]
        assert isinstance(last.exception(timeout=30), WorkerCrashed)


# ---- initializers that take away what imports need ----------------------------------------------------------------


@pytest.mark.parametrize("initializer", [hostile.leave_no_descriptor, hostile.forget_where_modules_are])
def test_an_initializer_may_leave_workers_nothing_to_import_from(way, initializer, tmp_path):
    with PidfdPoolExecutor(2, way, initializer=initializer) as pool:
        assert list(pool.map(calls.double, range(300))) == [2 * number for number in range(300)]
        assert list(pool.options(timeout=60).map(calls.double, range(30))) == [2 * number for number in range(30)]
        assert list(pool.stream(range, 100)) == list(range(100))
        error = pool.submit(calls.raise_it, ValueError("its own text")).exception(timeout=30)
        assert (type(error), str(error)) == (ValueError, "its own text")
        assert "raise_it" in str(error.__cause__)
        outcomes = list(pool.map(calls.double, ["a", None, 3], return_exceptions=True))
        assert [outcome.value for outcome in outcomes] == ["aa", None, 6]
        assert isinstance(outcomes[1].error, TypeError)
        with pool.trace(tmp_path / "trace.json"):
            assert pool.submit(calls.double, 21).result(timeout=30) == 42
        assert pool.stats().crashes == 0
    with PidfdPoolExecutor(1, way, initializer=initializer, context_vars=True) as pool:
        assert pool.submit(calls.double, 21).result(timeout=30) == 42
