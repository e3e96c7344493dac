"""What fails in the pool's own machinery leaves no future behind: each is told, and what has come is delivered."""

from __future__ import annotations

import threading
from concurrent.futures import wait

import pytest

from pidfdpool import PidfdPoolExecutor, PoolBroken
from pidfdpool.loop import responses
from tests import calls
from tests.conditions import eventually
from tests.pace import seem_quick


@pytest.fixture
def pool():
    with PidfdPoolExecutor(1, prefetch=10.0) as pool:
        pool.submit(calls.double, 0).result()
        seem_quick(pool)
        yield pool


def broken(*_):
    raise ZeroDivisionError("a slip")


def test_who_waits_for_room_is_told_that_the_pool_has_failed(monkeypatch, tmp_path):
    told = []
    path = tmp_path / "held"
    with PidfdPoolExecutor(1, max_pending=1) as pool:
        pool.prestart()
        held = pool.submit(calls.run_until, str(path), f"{path}.release", "value")

        def submit():
            try:
                pool.submit(calls.double, 1)
            except BaseException as error:
                told.append(error)

        thread = threading.Thread(target=submit, daemon=True)
        thread.start()
        eventually(lambda: pool._pool.core.admission.waiting, "it waits for room")
        monkeypatch.setattr(pool._pool.machine, "take_answers", broken)
        (tmp_path / "held.release").touch()
        thread.join(30)
        assert isinstance(told[0], PoolBroken), told
        assert isinstance(held.exception(30), PoolBroken)


def test_answers_behind_one_that_could_not_be_told_are_told(pool, monkeypatch, tmp_path):
    deliver, told = responses.deliver, []

    def deliver_some(undelivered, task):
        told.append(task.number)
        if len(told) == 3:
            raise ZeroDivisionError("a slip")
        deliver(undelivered, task)

    path = tmp_path / "held"
    held = pool.submit(calls.run_until, str(path), f"{path}.release", "value")
    eventually(path.exists, "it runs")
    # All of these are ahead of the worker, and their answers come together.
    futures = [pool.submit(calls.double, number) for number in range(20)]
    monkeypatch.setattr(responses, "deliver", deliver_some)
    (tmp_path / "held.release").touch()
    assert not wait([held, *futures], 30).not_done
    outcomes = [future.exception() or future.result() for future in futures]
    assert len(told) == 3
    number = told[2] - told[0] + 1  # those that had been read
    assert outcomes[:number] == [2 * each for each in range(number)], "each is told how it ended, this one too"
    assert {type(outcome) for outcome in outcomes} <= {int, PoolBroken}


def test_what_a_signal_handler_has_interrupted_is_told_by_the_pool_thread(pool):
    """Main threads resolve futures, too, when they cancel or shut down, and handlers raise between any two steps."""
    told = []

    def interrupted():
        if not told:
            told.append("interrupted")
            raise KeyboardInterrupt
        told.append("again")

    with pytest.raises(KeyboardInterrupt):
        pool._pool.core.outbox.run([interrupted, lambda: told.append(threading.current_thread().name)])
    eventually(lambda: len(told) == 3, "all is told")
    assert told[:2] == ["interrupted", "again"]
    assert told[2].startswith("pidfdpool-")
    assert pool.submit(calls.double, 2).result(30) == 4
