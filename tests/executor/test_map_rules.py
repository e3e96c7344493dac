"""Rules about each call of a map, and deaths in the middle of a chunk: what a call gets, it would get as a task."""

from __future__ import annotations

import asyncio
import itertools
import os
import pathlib
import time

import pytest

from pidfdpool import PidfdPoolExecutor, WorkerCrashed
from pidfdpool.deaths import Cause
from pidfdpool.errors import DeadlineExceeded, HeartbeatLost, MemoryExceeded, PoisonTask, TaskTimeout
from pidfdpool.executor import bounded_map, chunk_sizes
from tests import calls, map_calls
from tests.conditions import eventually
from tests.map_calls import taken

LONG = 60.0  # seconds; a limit that no call reaches
AT = 80  # the call that is special, in chunks of many by then
COUNT = 120


DEATHS = ["os._exit", "SIGKILL", "segfault"]


@pytest.fixture
def pool():
    """Provide a pool. How its template comes into being makes no difference to what is tested here."""
    with PidfdPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(params=[None, 1000], ids=["all at once", "with a buffersize"])
def ahead(request, monkeypatch):
    """Return how many inputs a map takes ahead. Calls share chunks also where the machine makes them take long."""
    monkeypatch.setattr(bounded_map, "LONG", 10.0)
    monkeypatch.setattr(chunk_sizes, "TARGET", 1.0)
    return {} if request.param is None else {"buffersize": request.param}


def made(path):
    """Return the calls that were made, as (number, attempt)."""
    return sorted(tuple(map(int, line.split())) for line in pathlib.Path(path).read_text().splitlines())


def once(count=COUNT):
    return [(number, 1) for number in range(count)]


def arguments(path, how, at=AT, count=COUNT):
    return [str(path)] * count, range(count), [at] * count, [how] * count


# ---- the death of a worker -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", DEATHS)
def test_a_death_costs_the_call_that_ran_and_no_other(pool, tmp_path, how, ahead):
    path = tmp_path / "made"
    results = pool.options(timeout=LONG).map(map_calls.make, *arguments(path, how), **ahead)
    eventually(lambda: path.exists() and len(made(path)) == COUNT, "all are made, though nobody takes a result")
    came, error = taken(results)
    assert came == list(range(AT))
    assert type(error) is WorkerCrashed
    assert f"make, item {AT} of map: " in error.task
    assert made(path) == once(), "each once"
    assert pool.stats().submitted < COUNT
    assert not hasattr(error, "chunk")


def test_without_rules_too_where_calls_are_long_enough_to_publish_each_result(pool):
    taken_before_death, error = taken(pool.map(map_calls.die_slowly_at, range(1000), [500] * 1000))
    assert taken_before_death == list(range(500))
    assert "item 500 of map: 500, 500" in error.task
    unordered, error = taken(pool.map_unordered(map_calls.die_slowly_at, range(1000), [500] * 1000))
    assert isinstance(error, WorkerCrashed)
    assert len(set(unordered)) == len(unordered)


def test_a_death_in_a_map_whose_results_come_as_they_come(pool, tmp_path, ahead):
    path = tmp_path / "made"
    results = pool.options(timeout=LONG).map_unordered(map_calls.make, *arguments(path, "os._exit"), **ahead)
    eventually(lambda: path.exists() and len(made(path)) == COUNT, "all are made")
    came, error = taken(results)
    assert isinstance(error, WorkerCrashed)
    assert set(came) <= set(range(COUNT)) - {AT}
    assert made(path) == once()


def test_a_death_in_amap(pool, tmp_path, ahead):
    async def take():
        came = []
        try:
            async for result in pool.options(timeout=LONG).amap(
                map_calls.make, *arguments(tmp_path / "made", "os._exit"), **ahead
            ):
                came.append(result)  # noqa: PERF401  what came before the error counts
        except WorkerCrashed as error:
            return came, error

    came, error = asyncio.run(take())
    assert came == list(range(AT))
    assert f"item {AT} of map: " in error.task


def test_a_call_that_has_finished_when_its_worker_dies_has_its_result(pool, ahead):
    came, error = taken(pool.options(timeout=LONG).map(map_calls.die_after, range(COUNT), [AT] * COUNT, **ahead))
    assert came == list(range(len(came)))
    assert len(came) > AT
    assert error is None or f"item {len(came)} of map" in error.task


def test_an_argument_whose_rebuilding_kills_the_worker_costs_no_other_call_anything(pool, tmp_path, ahead):
    path = tmp_path / "made"
    given = [map_calls.DiesElsewhere(os.getpid()) if number == AT else number for number in range(COUNT)]
    results = pool.options(timeout=LONG).map(
        map_calls.make, [str(path)] * COUNT, given, [None] * COUNT, ["nothing"] * COUNT, **ahead
    )
    eventually(lambda: path.exists() and len(made(path)) == COUNT - 1, "all others are made", 60)
    came, error = taken(results)
    assert came == list(range(AT))
    assert f"item {AT} of map" in error.task


def test_a_call_that_returns_in_two_processes_makes_no_call_run_twice(pool, tmp_path, ahead):
    path = tmp_path / "made"
    results = pool.options(timeout=LONG).map(
        map_calls.note_fork_and_return, [str(path)] * COUNT, range(COUNT), [AT] * COUNT, **ahead
    )
    assert list(results) == list(range(COUNT))
    assert pool.submit(abs, -5).result(20) == 5
    assert [number for number, _ in made(path)] == list(range(COUNT))


def test_a_task_that_writes_into_what_is_published_costs_its_own_chunk_at_most(pool, ahead):
    came, error = taken(pool.options(timeout=LONG).map(map_calls.scribble, range(COUNT), [AT] * COUNT, **ahead))
    assert came == list(range(len(came)))
    assert len(came) <= AT
    assert error is not None
    assert list(pool.options(timeout=LONG).map(abs, range(100), **ahead)) == list(range(100))


# ---- time ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["hang", "hang in native code", "raise at SIGTERM"])
def test_a_timeout_ends_the_call_that_hangs_and_no_other(pool, tmp_path, how, ahead):
    path = tmp_path / "made"
    results = pool.options(timeout=3.0, grace=0.5).map(map_calls.make, *arguments(path, how), **ahead)
    eventually(lambda: path.exists() and len(made(path)) == COUNT, "all are made", 60)
    came, error = taken(results)
    assert came == list(range(AT))
    assert isinstance(error, TaskTimeout)
    assert f"make, item {AT} of map: " in error.task
    assert "timeout of 3 s" in str(error)
    assert made(path) == once()


def test_a_timeout_is_for_each_call_and_not_for_the_chunk(pool, ahead):
    """The calls seem short at first, so a chunk has many of those that take long; together they take much longer."""
    results = pool.options(timeout=2.0).map(map_calls.sleep_at, range(130), [100] * 130, [0.3] * 130, **ahead)
    assert list(results) == list(range(130))
    assert pool.stats().deaths == 0


def test_a_silent_call_is_lost_and_one_that_gives_heartbeats_is_not(pool, tmp_path, ahead):
    path = tmp_path / "made"
    view = pool.options(heartbeat_timeout=1.0, grace=0.1)
    assert list(view.map(map_calls.make, *arguments(path, "beat"), **ahead)) == list(range(COUNT))
    path.unlink()
    came, error = taken(view.map(map_calls.make, *arguments(path, "hang"), **ahead))
    assert came == list(range(AT))
    assert isinstance(error, HeartbeatLost)
    assert f"item {AT} of map: " in error.task


def test_the_beginning_of_a_call_counts_as_a_heartbeat(pool, ahead):
    results = pool.options(heartbeat_timeout=2.0).map(
        map_calls.sleep_at, range(130), [100] * 130, [0.3] * 130, **ahead
    )
    assert list(results) == list(range(130))


def test_no_call_begins_after_the_deadline(tmp_path):
    path = tmp_path / "made"
    with PidfdPoolExecutor(1) as pool:
        pool.submit(abs, -1).result()
        results = pool.options(deadline=1.5).map(
            calls.append_and_stay,
            [str(path)] * 2000,
            itertools.repeat("nobody"),
            range(2000),
            itertools.repeat(None),
        )
        came, error = taken(results)
        assert isinstance(error, DeadlineExceeded)
        assert "within its deadline of 1.5 s" in str(error)
        assert f"item {len(came)} of map" in str(error)
        eventually(lambda: not pool.stats().pending, "nothing is left to do")
        assert len(made_numbers(path)) == len(came) < 2000


def made_numbers(path):
    return sorted(int(line) for line in path.read_text().split())


def test_each_call_knows_until_when_it_is_wanted(pool, ahead):
    for now, task in pool.options(timeout=50).map(map_calls.tell, range(500), **ahead):
        assert task.attempt == 1
        assert 0 <= now + 50 - task.deadline < 20
    calls = pool.options(timeout=50).map(map_calls.tell_who, range(500), **ahead)
    of_workers = sorted((pid, task.deadline, now) for pid, now, task in calls)
    assert len(of_workers) == 500
    for (pid, _, now), (following, deadline, _) in itertools.pairwise(of_workers):
        assert following != pid or deadline >= now + 50, "it counts from the start of the call itself"
    assert len({task.deadline for _, task in pool.options(deadline=50).map(map_calls.tell, range(500))}) == 1


def test_the_deadline_of_a_call_counts_from_when_it_is_submitted(pool):
    """With a buffersize, that is when its input was taken, and at once for all calls otherwise."""
    began = time.monotonic()
    results = pool.options(deadline=50).map(map_calls.tell, range(3000), buffersize=1000)
    first = next(results)[1].deadline
    assert began <= first - 50 <= time.monotonic()
    time.sleep(0.2)
    later = time.monotonic()
    *_, (_, last) = results
    assert later <= last.deadline - 50 <= time.monotonic()


def test_memory_that_a_call_takes_too_much_of_costs_that_call(ahead):
    with PidfdPoolExecutor(1, timeout=LONG, hard_memory_per_child=300_000_000, memory_interval=0.02) as pool:
        came, error = taken(pool.map(map_calls.leak_at, range(COUNT), [AT] * COUNT, **ahead))
        assert came == list(range(AT))
        assert isinstance(error, MemoryExceeded)
        assert f"item {AT} of map: " in error.task


# ---- attempts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [*DEATHS, "hang", "raise"])
@pytest.mark.parametrize("mapped", ["map", "map_unordered"])
def test_a_call_that_fails_or_is_lost_has_another_attempt_and_no_other_call_has(pool, tmp_path, how, mapped, ahead):
    path = tmp_path / "made"
    kinds = WorkerCrashed, TaskTimeout, LookupError
    view = pool.options(timeout=3.0, grace=0.1, retries=1, retry_on=kinds, retry_backoff=0.01)
    results = list(getattr(view, mapped)(map_calls.make, *arguments(path, how), **ahead))
    assert (results if mapped == "map" else sorted(results)) == list(range(COUNT))
    assert made(path) == sorted([*once(), (AT, 2)])
    assert pool.stats().retries == 1


@pytest.mark.parametrize("mapped", ["map", "map_unordered"])
def test_one_more_input_is_taken_for_each_result_also_where_calls_are_made_again(mapped, ahead):
    """Where the first call of a chunk is to be made again, the chunk gives no result in its turn."""
    count = 0

    def inputs():
        nonlocal count
        for number in range(600):
            count += 1
            yield number

    ahead = {"buffersize": 40} if ahead else {}
    came = []
    with PidfdPoolExecutor(
        2, intensity=None, retries=1, retry_on=(WorkerCrashed, LookupError), retry_backoff=0.0
    ) as pool:
        for result in getattr(pool, mapped)(
            map_calls.fail_or_die_at_first, inputs(), itertools.repeat(3), itertools.repeat(150), **ahead
        ):
            came.append(result)
            assert count == (min(40 + len(came), 600) if ahead else 600)
    assert sorted(came) == list(range(600))
    assert mapped == "map_unordered" or came == list(range(600))


def test_what_was_not_named_has_no_other_attempt(pool, tmp_path, ahead):
    path = tmp_path / "made"
    came, error = taken(
        pool.options(retries=3, retry_on=KeyError).map(map_calls.make, *arguments(path, "raise"), **ahead)
    )
    assert (came, str(error)) == (list(range(AT)), "the first time")
    path.unlink()
    came, error = taken(
        pool.options(retries=3, retry_on=LookupError).map(map_calls.make, *arguments(path, "os._exit"), **ahead)
    )
    assert (came, type(error)) == (list(range(AT)), WorkerCrashed)
    assert (AT, 2) not in made(path)


def test_the_attempts_of_a_call_are_in_the_history_of_its_error(pool, ahead):
    came, error = taken(
        pool.options(retries=2, retry_backoff=0.0).map(map_calls.die_at, range(COUNT), [AT] * COUNT, **ahead)
    )
    assert came == list(range(AT))
    assert type(error) is PoisonTask
    assert error.attempt == 3
    assert [death.attempt for death in error.deaths] == [1, 2, 3]
    assert all(death.cause is Cause.CRASH for death in error.deaths)
    assert f"die_at, item {AT} of map: {AT}, {AT}" in error.task
    assert "3 deaths" in str(error)


def test_poison_after_ends_it_whatever_is_left(pool, ahead):
    _, error = taken(
        pool.options(retries=9, retry_backoff=0.0, poison_after=2).map(
            map_calls.die_at, range(COUNT), [AT] * COUNT, **ahead
        )
    )
    assert type(error) is PoisonTask
    assert len(error.deaths) == 2
    _, error = taken(
        pool.options(retries=9, retry_backoff=0.0, poison_after=1).map(
            map_calls.die_at, range(COUNT), [AT] * COUNT, **ahead
        )
    )
    assert type(error) is WorkerCrashed


def test_a_shutdown_finishes_what_chunks_have_left(tmp_path, ahead):
    path = tmp_path / "made"
    with PidfdPoolExecutor(2) as pool:
        view = pool.options(retries=1, retry_backoff=0.2)
        results = view.map(map_calls.make, *arguments(path, "os._exit"), **ahead)
    assert made(path) == sorted([*once(), (AT, 2)]), "all calls are made before the block is left"
    assert list(results) == list(range(COUNT))


def test_a_pool_that_is_shut_down_waits_for_what_follows_from_its_last_call(tmp_path, ahead):
    path = tmp_path / "made"
    pool = PidfdPoolExecutor(1)
    view = pool.options(retries=1, retry_backoff=0.0)
    results = view.map(map_calls.die_at_last, [str(path)] * COUNT, range(COUNT), [COUNT - 1] * COUNT, **ahead)
    eventually(lambda: path.exists() and len(made(path)) == COUNT, "the last call has begun")
    pool.shutdown(wait=False)
    path.with_suffix(".release").touch()
    pool.shutdown()
    assert made(path) == sorted([*once(), (COUNT - 1, 2)])
    assert list(results) == list(range(COUNT))


def test_an_abandoned_map_keeps_no_pool_alive(tmp_path, ahead):
    pool = PidfdPoolExecutor(2)
    results = pool.options(timeout=LONG).map(map_calls.make, *arguments(tmp_path / "made", "os._exit"), **ahead)
    next(results)
    results.close()
    pool.shutdown()
    assert not pool._pool.machine.state.holds


# ---- results ---------------------------------------------------------------------------------------------------


def test_large_results_come_in_their_places(pool, ahead):
    expected = [map_calls.large(number) for number in range(200)]
    for view in (pool.options(timeout=LONG), pool.options(retries=1)):
        assert list(view.map(map_calls.large, range(200), **ahead)) == expected
        assert sorted(map(str, view.map_unordered(map_calls.large, range(200), **ahead))) == sorted(
            map(str, expected)
        )


def test_more_results_than_there_is_room_for_come_in_their_places(pool, ahead):
    results = pool.options(timeout=LONG).map(map_calls.middling, range(400), **ahead)
    assert all(result == map_calls.middling(number) for number, result in enumerate(results))


@pytest.mark.parametrize("function", [map_calls.one_that_does_not_pickle, map_calls.one_that_does_not_unpickle])
def test_a_result_that_does_not_travel_costs_no_other_anything(pool, function, ahead):
    came, error = taken(pool.options(timeout=LONG).map(function, range(COUNT), [AT] * COUNT, **ahead))
    assert came == list(range(AT))
    assert "pickle" in str(error)


def test_a_result_that_shares_a_descriptor_with_the_host_arrives(pool, ahead):
    results = list(pool.options(timeout=LONG).map(map_calls.pipe_at, range(90), [30] * 90, **ahead))
    for number in (0, 30, 60):
        assert results[number].recv() == number
        results[number].close()
    assert [result for number, result in enumerate(results) if number % 30] == [n for n in range(90) if n % 30]


def test_a_result_is_what_it_was_when_its_call_returned(ahead):
    with PidfdPoolExecutor(1, timeout=LONG) as pool:
        results = list(pool.map(map_calls.remember, range(200), **ahead))
        assert [result[-1] for result in results] == list(range(200))


def test_results_of_classes_that_travel_by_value(pool, ahead):
    class Inner:
        def __init__(self, number):
            self.number = number

    results = list(pool.options(timeout=LONG).map(lambda number: Inner(number), range(100), **ahead))
    assert [result.number for result in results] == list(range(100))
    assert {type(result) for result in results} == {Inner}


# ---- the tasks of a worker ----------------------------------------------------------------------------------------


@pytest.mark.costly_table
@pytest.mark.parametrize("most", [1, 4, 50])
def test_a_worker_makes_as_many_calls_as_it_may_and_no_more(most, ahead):
    with PidfdPoolExecutor(1, max_tasks_per_child=most) as pool:
        pids = list(pool.map(map_calls.who, range(100), **ahead))
        assert {pids.count(pid) for pid in pids} == {most}
        first = pool.submit(os.getpid).result()
        assert first not in pids


def test_a_worker_that_says_it_is_unhealthy_makes_no_further_call(ahead):
    with PidfdPoolExecutor(1, timeout=LONG) as pool:
        pids = list(pool.map(map_calls.unhealthy_at, range(100), [50] * 100, **ahead))
        assert pids[50] not in pids[51:]
        assert len(set(pids)) == 2
