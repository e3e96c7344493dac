"""`map(..., return_exceptions=True)` and its kin: an outcome of each call, whatever it fails of."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import os
import pickle
import signal
import threading
import traceback
import weakref

import pytest

from pidfdpool import (
    DeadlineExceeded,
    InheritedFutureError,
    Outcome,
    PayloadError,
    PidfdPoolExecutor,
    PoolBroken,
    TaskTimeout,
    WorkerCrashed,
)
from pidfdpool.executor import bounded_map, chunk_sizes
from tests import calls, map_calls, outcome_calls
from tests.conditions import eventually
from tests.outcome_calls import MAPS, append_to, made, outcomes

AT = 23
COUNT = 60
SIZES = {
    "adaptive": {},
    "chunks": {"chunksize": 7},
    "single": {"chunksize": 1},
    "buffered": {"buffersize": 40},
    "buffered a little": {"buffersize": 2},
    "buffered chunks": {"buffersize": 3, "chunksize": 5},
}
ERRORS = {
    "raise": LookupError,
    "die": WorkerCrashed,
    "exit": SystemExit,
    "no memory": MemoryError,
    "interrupt": KeyboardInterrupt,
    "unpicklable": TypeError,
    "unloadable": PayloadError,
}

sizes = pytest.mark.parametrize("size", SIZES)
maps = pytest.mark.parametrize("name", MAPS)


@pytest.fixture
def same():
    """Give a pool. How its template comes into being makes no difference to what is tested with it."""
    with PidfdPoolExecutor(2) as pool:
        pool.submit(calls.double, 1).result()
        yield pool


def check(found, error, at=(AT,), count=COUNT):
    """Check that these calls have failed with an error of that class, and all others have their value."""
    assert [outcome.index for outcome in found] == list(range(count))
    for index, outcome in enumerate(found):
        if index in at:
            assert (outcome.ok, outcome.value) == (False, None)
            assert isinstance(outcome.error, error), outcome
            with pytest.raises(error) as raised:
                outcome.result()
            assert raised.value is outcome.error
        else:
            assert outcome == Outcome(index, index, None), outcome
            assert outcome.ok
            assert outcome.result() == index


def arguments(path, how, at=(AT,), count=COUNT):
    return [str(path)] * count, range(count), [at] * count, [how] * count


# ---- the record ------------------------------------------------------------------------------------------------


def test_an_outcome_can_be_unpacked_compared_pickled_and_not_changed():
    index, value, error = Outcome(3, "value")
    assert (index, value, error) == (3, "value", None)
    assert Outcome(3, "value") == Outcome(3, "value", None) != Outcome(4, "value")
    assert repr(Outcome(3, 9)) == "Outcome(index=3, value=9, error=None)"
    failed = pickle.loads(pickle.dumps(Outcome(3, None, ValueError("no"))))
    assert (failed.index, failed.ok, repr(failed.error)) == (3, False, "ValueError('no')")
    with pytest.raises(AttributeError):
        failed.value = 3
    assert Outcome[int].__origin__ is Outcome


def test_raising_the_error_of_an_outcome_makes_no_cycle():
    class Own(Exception):
        pass

    outcome = Outcome(0, None, Own())
    gone = weakref.ref(outcome.error)
    with pytest.raises(Own) as raised:
        outcome.result()
    del raised, outcome
    assert gone() is None


# ---- what fails ------------------------------------------------------------------------------------------------


@pytest.mark.costly_table
@maps
@sizes
def test_a_call_that_fails_costs_no_other_call_anything(same, tmp_path, name, size):
    for how, kind in ERRORS.items():
        path = tmp_path / how
        found = outcomes(same, name, outcome_calls.fail, *arguments(path, how), **SIZES[size])
        check(found, kind)
        assert made(path) == [(number, 1) for number in range(COUNT)], "each once"
        if how == "die":
            assert f"item {AT} of map: '" in found[AT].error.task
            assert not hasattr(found[AT].error, "chunk")
            assert found[AT].error.exit_status.code == 5
        elif how in ("raise", "exit"):
            assert f"in _{how}" in "".join(traceback.format_exception(found[AT].error)), "where it was raised"


@maps
@pytest.mark.parametrize("how", ["raise", "die", "unpicklable", "hang"])
def test_in_both_ways_of_starting(pool, tmp_path, name, how):
    view = pool.options(timeout=2.0, grace=0.1) if how == "hang" else pool
    at = (0, 10, 11, 29)
    found = outcomes(view, name, outcome_calls.fail, *arguments(tmp_path / "made", how, at, 30))
    check(found, (ERRORS | {"hang": TaskTimeout})[how], at, 30)
    assert made(tmp_path / "made") == [(number, 1) for number in range(30)]


@sizes
def test_an_argument_that_does_not_travel(same, size):
    at = 0, 23, 24, 59
    for kind, name in itertools.product([threading.Lock, calls.Unloadable], MAPS):
        given = [kind() if number in at else number for number in range(COUNT)]
        found = outcomes(same, name, abs, given, **SIZES[size])
        check(found, Exception, at)
        assert len({id(found[index].error) for index in at}) == len(at)


@maps
def test_a_function_that_does_not_travel_fails_each_call(same, name):
    lock = threading.Lock()

    def function(_):
        return lock

    found = outcomes(same, name, function, range(5))
    assert [type(outcome.error) for outcome in found] == [found[0].error.__class__] * 5
    assert isinstance(found[0].error, TypeError)
    bounded = getattr(same, name)(function, itertools.count(), buffersize=3, return_exceptions=True)
    if not name.startswith("a"):
        assert sorted(outcome.index for outcome in itertools.islice(bounded, 20)) == list(range(20))
        bounded.close()


@sizes
def test_a_worker_that_somebody_kills(same, tmp_path, size):
    given = [str(tmp_path / "pid")] * COUNT, range(COUNT), [AT] * COUNT

    def kill():
        eventually((tmp_path / "pid").exists, "it hangs")
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    check(outcomes(same, "map", outcome_calls.hang_at, *given, **SIZES[size]), WorkerCrashed)
    killer.join()


@pytest.mark.costly_table
@maps
def test_all_calls_may_fail(same, name):
    for size in SIZES.values():
        found = outcomes(same, name, outcome_calls.never, range(COUNT), **size)
        assert [outcome.error.args for outcome in found] == [(number,) for number in range(COUNT)]


@maps
def test_the_last_and_large_results(same, name):
    found = outcomes(same, name, map_calls.large, range(100))
    assert [outcome.result() for outcome in found] == [map_calls.large(number) for number in range(100)]


@maps
def test_no_calls(same, name):
    assert outcomes(same, name, abs, []) == []
    assert outcomes(same, name, abs, [], buffersize=3) == []


# ---- options of calls ------------------------------------------------------------------------------------------


@pytest.mark.costly_table
@maps
@sizes
def test_retries_are_of_each_call(same, tmp_path, name, size):
    view = same.options(retries=2, retry_on=(LookupError, WorkerCrashed), retry_backoff=0)
    for how in ("raise", "die"):
        path = tmp_path / how
        found = outcomes(view, name, outcome_calls.fail, *arguments(path, how, (5, AT)), **SIZES[size])
        assert [outcome.result() for outcome in found] == list(range(COUNT))
        assert made(path) == sorted([(number, 1) for number in range(COUNT)] + [(5, 2), (AT, 2)])


@maps
def test_what_fails_in_each_attempt_has_the_last_error(same, name):
    view = same.options(retries=1, retry_on=(ValueError, WorkerCrashed), retry_backoff=0)
    found = outcomes(view, name, outcome_calls.half, range(30))
    assert [outcome.ok for outcome in found] == [True, False] * 15
    found = outcomes(view, name, map_calls.die_at, range(30), [7] * 30)
    check(found, WorkerCrashed, (7,), 30)
    assert len(found[7].error.deaths) == 2


@maps
@pytest.mark.parametrize("size", ["adaptive", "chunks", "buffered"])
def test_a_timeout_is_of_the_call_that_took_too_long(same, tmp_path, name, size):
    view = same.options(timeout=1.0, grace=0.1)
    found = outcomes(view, name, outcome_calls.fail, *arguments(tmp_path / "made", "hang"), **SIZES[size])
    check(found, TaskTimeout)
    assert made(tmp_path / "made") == [(number, 1) for number in range(COUNT)]


@pytest.mark.parametrize("size", ["adaptive", "chunks"])
def test_calls_that_are_too_late_are_each_named(held, pool, size):
    with PidfdPoolExecutor(1) as other:
        future = other.submit(calls.run_until, f"{held.release}1", str(held.release))
        eventually(lambda: os.path.exists(f"{held.release}1"), "the worker is held")
        view = other.options(deadline=0.2)
        found = list(view.map(calls.double, range(30), return_exceptions=True, **SIZES[size]))
        held.release.touch()
        future.result()
    assert [type(outcome.error) for outcome in found] == [DeadlineExceeded] * 30
    assert [f"item {outcome.index} of map)" in str(outcome.error) for outcome in found] == [True] * 30


# ---- speed -----------------------------------------------------------------------------------------------------


@pytest.mark.costly_table
@maps
@pytest.mark.parametrize("keywords", [{}, {"chunksize": 7}, {"buffersize": 1000}])
def test_calls_that_raise_go_on_sharing_tasks(same, name, keywords, monkeypatch):
    monkeypatch.setattr(bounded_map, "LONG", 10.0)  # also where the machine makes them take long
    monkeypatch.setattr(chunk_sizes, "TARGET", 1.0)
    for function in (outcome_calls.half, outcome_calls.never):
        count, before = 2000, same.stats().submitted
        found = outcomes(same, name, function, range(count), **keywords)
        assert sum(outcome.ok for outcome in found) == (count // 2 if function is outcome_calls.half else 0)
        assert same.stats().submitted - before < count / 3


def test_arguments_that_do_not_pickle_leave_the_others_in_their_tasks(same):
    before = same.stats().submitted
    given = [threading.Lock() if number % 50 == 7 else number for number in range(1000)]
    found = list(same.map(abs, given, chunksize=100, return_exceptions=True))
    assert [outcome.index for outcome in found if not outcome.ok] == list(range(7, 1000, 50))
    assert same.stats().submitted - before <= 40


# ---- what ends the map -----------------------------------------------------------------------------------------


def taken(results):
    came = []
    try:
        for outcome in results:
            came.append(outcome)  # noqa: PERF402  what came before the error counts
    except BaseException as error:
        return came, error
    return came, None


@pytest.mark.parametrize("size", SIZES)
def test_a_broken_pool_ends_it_behind_the_call_that_has_broken_it(way, size):
    with PidfdPoolExecutor(1, mp_context=way, on_crash="break") as pool:
        came, error = taken(pool.map(map_calls.die_at, range(100), [41] * 100, return_exceptions=True, **SIZES[size]))
    assert [outcome.index for outcome in came] == list(range(42))
    assert [outcome.ok for outcome in came] == [True] * 41 + [False]
    assert isinstance(came[-1].error, WorkerCrashed)
    assert type(error) is PoolBroken


@maps
@pytest.mark.parametrize("options", [{}, {"max_pending": 3}])
def test_a_broken_pool_ends_it_without_order_and_with_max_pending(name, options):
    for keywords in ({"buffersize": 2}, {"buffersize": 50}, {}):
        with PidfdPoolExecutor(1, on_crash="break", **options) as pool:
            pool.submit(calls.double, 1).result()
            numbers = itertools.count() if keywords else range(45)
            results = getattr(pool, name)(
                map_calls.die_at, numbers, itertools.repeat(41), return_exceptions=True, **keywords
            )
            came = []
            with pytest.raises(PoolBroken):
                asyncio.run(append_to(came, results)) if name.startswith("a") else came.extend(results)
        assert sorted(outcome.index for outcome in came) == list(range(42))
        assert [outcome.index for outcome in came if not outcome.ok] == [41]


def test_a_pool_that_is_broken_from_the_start():
    with PidfdPoolExecutor(1, initializer=calls.raise_it, initargs=(ValueError(),)) as pool:
        came, error = taken(pool.map(abs, range(10), return_exceptions=True))
        assert (came, type(error)) == ([], PoolBroken)
        with pytest.raises(PoolBroken):
            pool.map(abs, range(10), return_exceptions=True)


@pytest.mark.parametrize("size", SIZES)
def test_a_shutdown_that_cancels_ends_it(size, tmp_path):
    with PidfdPoolExecutor(1) as pool:
        results = pool.map(
            calls.append_and_stay, *([str(tmp_path / each)] * 100 for each in ("log", "go")), range(100), [0] * 100,
            return_exceptions=True, **SIZES[size],
        )  # fmt: skip
        eventually((tmp_path / "log").exists, "the first runs")
        pool.shutdown(wait=False, cancel_futures=True)
        (tmp_path / "go").touch()
        came, error = taken(results)
    assert all(outcome.ok for outcome in came)
    assert len(came) < 100
    assert came
    assert isinstance(error, concurrent.futures.CancelledError)


@pytest.mark.parametrize("size", SIZES)
def test_a_shutdown_that_waits_finishes_it(size):
    with PidfdPoolExecutor(2) as pool:
        results = pool.map(outcome_calls.half, range(20), return_exceptions=True, **SIZES[size])
        came = [next(results)]
    more, error = taken(results)
    came += more
    assert [outcome.ok for outcome in came] == [number % 2 == 0 for number in range(len(came))]
    if "buffersize" in SIZES[size]:
        assert error is None or isinstance(error, RuntimeError)
        assert len(came) > min(SIZES[size]["buffersize"], 19), "the calls that were submitted have outcomes"
    else:
        assert (len(came), error) == (20, None)


@maps
@pytest.mark.parametrize("buffersize", [None, 2, 40])
def test_an_iterable_that_raises_ends_it(same, name, buffersize):
    def numbers():
        yield from range(30)
        raise LookupError("no more numbers")

    def begin():
        return getattr(same, name)(outcome_calls.half, numbers(), return_exceptions=True, buffersize=buffersize)

    if buffersize is None:
        with pytest.raises(LookupError, match="no more numbers"):
            begin()
        return

    came, results = [], begin()
    with pytest.raises(LookupError):
        asyncio.run(append_to(came, results)) if name.startswith("a") else came.extend(results)
    assert sorted(outcome.index for outcome in came) == list(range(30))


@maps
@pytest.mark.parametrize("size", ["adaptive", "chunks", "buffered a little"])
def test_the_time_of_the_map_ends_it(name, size, tmp_path):
    with PidfdPoolExecutor(1) as pool:
        with pytest.raises(TimeoutError) as raised:
            outcomes(pool, name, calls.wait_for, [str(tmp_path / "go")] * 9, timeout=0.1, **SIZES[size])
        assert not isinstance(raised.value, TaskTimeout)
        (tmp_path / "go").touch()


def test_in_a_forked_child_it_ends(same):
    results = same.map(calls.sleep, [0.01] * 200, return_exceptions=True)
    assert next(results).ok
    read, write = os.pipe()
    if not (child := os.fork()):
        _, error = taken(results)
        os.write(write, type(error).__name__.encode())
        os._exit(0)
    os.close(write)
    with open(read) as told:
        assert told.read() == InheritedFutureError.__name__
    os.waitpid(child, 0)
    assert sum(outcome.ok for outcome in results) == 199


# ---- how far it reads ahead ------------------------------------------------------------------------------------


@pytest.mark.costly_table
@pytest.mark.parametrize("name", ["map", "map_unordered"])
@pytest.mark.parametrize(("keywords", "ahead"), [({"buffersize": 3}, 3), ({"buffersize": 50}, 50)])
def test_a_bounded_map_takes_no_more_than_it_says(same, name, keywords, ahead):
    taken = []
    numbers = (taken.append(number) or number for number in itertools.count())
    results = getattr(same, name)(outcome_calls.half, numbers, return_exceptions=True, **keywords)
    assert len(taken) == ahead
    for given in range(1, 300):
        next(results)
        assert len(taken) == ahead + given
    results.close()


def test_a_bounded_map_of_chunks_takes_no_more_chunks_than_it_says(same):
    taken = []
    numbers = (taken.append(number) or number for number in itertools.count())
    results = same.map(outcome_calls.half, numbers, buffersize=3, chunksize=4, return_exceptions=True)
    for given in range(100):
        assert 12 <= len(taken) <= 12 + 4 + given
        assert next(results).index == given
    results.close()


# ---- other ways to submit --------------------------------------------------------------------------------------


class Own(PidfdPoolExecutor):
    """Has its own way to submit."""

    submitted = 0

    def submit(self, fn, /, *args, **kwargs):
        self.submitted += 1
        return super().submit(fn, *args, **kwargs)


@pytest.mark.costly_table
@maps
@pytest.mark.parametrize("kind", ["own", "limited", "not blocking"])
def test_with_a_submit_of_its_own_and_with_max_pending(name, kind):
    options = {"own": {}, "limited": {"max_pending": 3}, "not blocking": {"max_pending": 100, "block": False}}[kind]
    with (Own if kind == "own" else PidfdPoolExecutor)(2, **options) as pool:
        for size in SIZES.values():
            found = outcomes(pool, name, outcome_calls.half, range(COUNT), **size)
            assert [outcome.ok for outcome in found] == [True, False] * (COUNT // 2)
            found = outcomes(pool, name, map_calls.die_at, range(COUNT), [AT] * COUNT, **size)
            check(found, WorkerCrashed)
        if kind == "own":
            assert pool.submitted == 2 * COUNT * len(SIZES)


@maps
@pytest.mark.parametrize("keyword", ["return_exceptions", "star"])
def test_what_is_neither_true_nor_false_is_refused(same, name, keyword):
    for value in (1, "yes", None):
        with pytest.raises(TypeError, match=f"{keyword} must be True or False, not {value!r}"):
            getattr(same, name)(abs, [1], **{keyword: value})
