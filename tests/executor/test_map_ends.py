"""The end of a pool while a map may still go on with what its chunks have left."""

from __future__ import annotations

import signal
from concurrent.futures import CancelledError, Future

import pytest

from pidfdpool import PidfdPoolExecutor, WorkerCrashed
from pidfdpool.executor.map_entries import Entries
from pidfdpool.executor.map_pieces import UnsentCall
from tests import calls
from tests.conditions import eventually
from tests.map_calls import taken


class Interrupting:
    """An argument in whose pickling a signal arrives."""

    def __reduce__(self):
        signal.raise_signal(signal.SIGUSR1)
        return int, (7,)


@pytest.mark.parametrize("cancel", [False, True])
def test_a_signal_handler_may_wait_for_the_end_of_the_pool_in_the_midst_of_a_map(cancel):
    pool = PidfdPoolExecutor(2)

    def results():
        yield from pool.options(retries=1).map(calls.double, [1, Interrupting(), 3])

    before = signal.signal(signal.SIGUSR1, lambda *_: pool.shutdown(cancel_futures=cancel))
    try:
        came, error = taken(results())
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert came in ([], [2])
    assert isinstance(error, (RuntimeError, CancelledError))
    assert not pool._pool.machine.state.holds


@pytest.mark.parametrize("name", ["map", "map_unordered"])
def test_a_pool_that_cancels_what_waits_ends_its_maps_with_that(name):
    pool = PidfdPoolExecutor(2)
    results = getattr(pool.options(retries=1), name)(calls.sleep, [0.001] * 5000, range(5000))
    next(results)
    pool.shutdown(cancel_futures=True)
    came, error = taken(results)
    assert type(error) is CancelledError
    assert len(came) < 4999


def test_a_call_that_was_killed_with_its_pool_has_no_other_attempt():
    pool = PidfdPoolExecutor(2)
    results = pool.options(retries=1).map(calls.sleep, [0.0] * 50 + [600.0] * 50, range(100))
    assert next(results) == 0
    eventually(lambda: all((worker.task_age or 0.0) > 0.5 for worker in pool.workers()), "both calls are long")
    pool.kill_workers()
    came, error = taken(results)
    assert isinstance(error, (WorkerCrashed, CancelledError))
    assert came == list(range(1, len(came) + 1))
    pool.shutdown()


@pytest.mark.parametrize("options", [{}, {"buffersize": 100}])
@pytest.mark.parametrize("kind", ["map", "map_unordered"])
def test_a_shutdown_that_cancels_does_not_concern_a_map_that_has_finished(kind, options, tmp_path):
    pool, ran = PidfdPoolExecutor(2), tmp_path / "ran"
    results = getattr(pool, kind)(calls.append, [str(ran)] * 50, range(50), **options)
    next(results)
    eventually(lambda: len(ran.read_text().splitlines()) == 50 and not pool.stats().pending, "all have run")
    pool.shutdown(cancel_futures=True)
    assert len(list(results)) == 49


def test_a_chunk_that_is_claimed_while_others_are_entered_is_not_claimed_twice():
    found = Entries(ordered=True)
    first, second = UnsentCall(ValueError("first")), UnsentCall(ValueError("second"))
    claimed = []

    class Entered(list):
        def __len__(self):  # called in the middle, where another thread may run
            claimed.append(found.claim(None))
            return super().__len__()

    found.add([first])
    found.add(Entered([second]))
    claimed.append(found.claim(None))
    assert claimed == [first, second]
    assert found.are_claimed


class Chunk:
    """An entry that has a future, and is completed later."""

    def __init__(self, done=False):
        self.future = Future()
        if done:
            self.future.set_result(None)


def test_entries_in_order_are_claimed_in_order_and_what_follows_from_one_comes_next():
    found = Entries(ordered=True)
    assert not found.were_added
    assert found.are_claimed
    assert not found.is_first_done
    first, second, third, last = Chunk(done=True), Chunk(), UnsentCall(ValueError("third")), UnsentCall(ValueError())
    found.add([first, second])
    found.complete(first)  # which matters only where the order does not
    found.add([third])
    assert found.were_added
    assert found.is_first_done
    assert found.claim(None) is first
    follow = [UnsentCall(ValueError(str(number))) for number in range(3)]
    found.put_back(follow)
    found.add([last])
    assert [found.claim(None) for _ in range(3)] == follow
    assert not found.is_first_done, "the chunk runs"
    assert not found.are_claimed
    assert [found.claim(None) for _ in range(3)] == [second, third, last]
    assert found.are_claimed


def test_entries_without_order_are_claimed_as_they_are_completed():
    found = Entries(ordered=False)
    first, second, sure = Chunk(done=True), Chunk(), UnsentCall(ValueError("sure"))
    found.add([first, second])
    assert not found.is_first_done, "its followers are not known yet"
    with pytest.raises(TimeoutError):
        found.claim(0.0)
    found = Entries(ordered=False)
    found.add([first, second, sure])
    assert found.is_first_done
    found.complete(second)
    found.complete(first)
    assert [found.claim(None) for _ in range(3)] == [sure, second, first]
    assert found.are_claimed
    assert not found.in_order
