"""map with its default arguments: chunks that the pool sizes itself, and that nobody must be able to notice."""

from __future__ import annotations

import concurrent.futures
import gc
import itertools
import os
import threading
import weakref

import pytest

from pidfdpool import InheritedFutureError, PayloadError, PidfdPoolExecutor, PoolBroken, WorkerCrashed
from tests import calls
from tests.conditions import eventually, run_python


class Once:
    """A function that counts, in the host, how often it is pickled."""

    pickled = 0

    def __reduce__(self):
        Once.pickled += 1
        return _double_function, ()


def _double_function():
    return calls.double


class Result:
    def __init__(self, number):
        self.number = number


def make_result(number):
    return Result(number)


def note_and_raise(path, number, at, error):
    """Append the number to a file; raise at one of them."""
    with open(path, "a") as file:
        file.write(f"{number}\n")
    if number == at:
        raise error
    return number


def result_that_does_not_pickle(number):
    return calls.Unpicklable() if number == 37 else number


def _refuse_to_be_rebuilt(*_):
    raise ValueError("not here")


class DoesNotUnpickle:
    def __reduce__(self):
        return _refuse_to_be_rebuilt, ()


def result_that_does_not_unpickle(number):
    return DoesNotUnpickle() if number == 0 else number


def die_at(number, at):
    if number == at:
        os._exit(5)
    return number


def numbers(path):
    return sorted(int(line) for line in path.read_text().split())


# ---- results ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 17, 1000, 100_000])
def test_all_results_come_in_order(pool, count):
    assert list(pool.map(calls.double, range(count))) == [2 * n for n in range(count)]


def test_iterables_of_every_kind(pool):
    assert list(pool.map(calls.double, (n for n in range(100)))) == [2 * n for n in range(100)]
    assert list(pool.map(calls.double, {"a": 1, "b": 2})) == ["aa", "bb"]
    assert list(pool.map(calls.double, range(10, 0, -3))) == [20, 14, 8, 2]
    assert list(pool.map(pow, range(300), itertools.repeat(2))) == [n * n for n in range(300)]
    assert list(pool.map(pow, [1, 2, 3], [1, 2])) == [1, 4]
    assert list(pool.map(calls.double)) == []
    with pytest.raises(TypeError, match="not iterable"):
        pool.map(calls.double, 5)


def test_a_lambda_and_what_it_closes_over(pool):
    factor = 3
    assert list(pool.map(lambda n: n * factor, range(500))) == [3 * n for n in range(500)]


def test_results_as_they_come(pool):
    results = list(pool.map_unordered(calls.double, range(5000)))
    assert sorted(results) == [2 * n for n in range(5000)]


def test_many_maps_at_once(pool):
    found = {}

    def run(number):
        mapped = pool.map if number % 2 else pool.map_unordered
        found[number] = sorted(mapped(calls.double, range(number, number + 3000)))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [2 * n for n in range(number, number + 3000)] for number in range(6)}


def test_what_was_given_may_be_changed_afterwards(pool):
    given = list(range(20_000))
    results = pool.map(calls.double, given)
    given.clear()
    assert list(results) == [2 * n for n in range(20_000)]


def test_the_function_is_pickled_once(pool):
    Once.pickled = 0
    assert list(pool.map(Once(), range(2000))) == [2 * n for n in range(2000)]
    assert Once.pickled == 1


def test_a_result_that_was_taken_is_let_go_of(pool):
    results = pool.map(make_result, range(1000))
    taken = [weakref.ref(next(results)) for _ in range(1000)]
    assert [ref for ref in taken if ref() is not None] == []


# ---- failures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("no"), StopIteration("no"), SystemExit(3), KeyboardInterrupt("no")])
def test_results_before_a_failure_come_and_calls_after_it_are_made(pool, tmp_path, error):
    path = tmp_path / "made"
    count, at = 3000, 1234
    arguments = itertools.repeat(str(path)), range(count), itertools.repeat(at), itertools.repeat(error)
    results = pool.map(note_and_raise, *arguments)
    # Nobody takes the results, so nothing is cancelled.
    eventually(lambda: path.exists() and len(numbers(path)) == count, "all calls are made")
    taken = []
    # A generator, as the standard's, cannot raise StopIteration.
    with pytest.raises(RuntimeError if isinstance(error, StopIteration) else type(error)) as raised:
        taken.extend(results)
    assert taken == list(range(at))
    if not isinstance(error, StopIteration):
        assert raised.value.args == error.args
        assert "note_and_raise" in str(raised.value.__cause__), "the remote traceback starts in the function"
        assert "chunk.py" not in str(raised.value.__cause__)
    assert numbers(path) == list(range(count))


def test_the_first_failure_ends_an_unordered_map(pool):
    with pytest.raises(ZeroDivisionError):
        list(pool.map_unordered(divmod, [1] * 500, [1] * 300 + [0] + [1] * 199))


def test_an_argument_that_does_not_pickle_costs_no_other_its_result(pool):
    given = [*range(500), calls.Unpicklable(), *range(500)]
    results = pool.map(calls.double, given)
    assert list(itertools.islice(results, 500)) == [2 * n for n in range(500)]
    with pytest.raises(TypeError, match="does not pickle"):
        next(results)


def test_a_function_that_does_not_pickle_fails_where_the_first_result_would_be(pool):
    results = pool.map(calls.Unpicklable(), [1, 2])
    with pytest.raises(TypeError, match="does not pickle"):
        next(results)
    assert list(pool.map(calls.Unpicklable(), [])) == []


def test_a_result_that_does_not_pickle_costs_no_other_its_place(pool):
    results = pool.map(result_that_does_not_pickle, range(100))
    assert list(itertools.islice(results, 37)) == list(range(37))
    with pytest.raises(TypeError, match="does not pickle"):
        next(results)


def test_a_result_that_does_not_unpickle(pool):
    with pytest.raises(PayloadError, match="not here"):
        list(pool.map(result_that_does_not_unpickle, range(100)))


def test_a_crash_ends_the_map_and_not_the_pool(pool):
    results = pool.map(die_at, range(2000), itertools.repeat(1000))
    with pytest.raises(WorkerCrashed) as raised:
        list(results)
    assert raised.value.exit_status.code == 5
    assert raised.value.task == "tests.executor.test_adaptive_map.die_at, item 1000 of map: 1000, 1000"
    assert list(pool.map(calls.double, range(100))) == [2 * n for n in range(100)]


def test_a_broken_pool_says_so(way):
    with PidfdPoolExecutor(1, mp_context=way, initializer=calls.raise_it, initargs=(ValueError("no"),)) as pool:
        with pytest.raises(PoolBroken):
            list(pool.map(calls.double, range(100)))
        with pytest.raises(PoolBroken):
            pool.map(calls.double, range(100))


# ---- the end ---------------------------------------------------------------------------------------------------


def test_shutdown_finishes_a_map(way, tmp_path):
    path = tmp_path / "made"
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        results = pool.map(calls.touch_and, [str(path)] * 200, ["go on"] * 200)
    assert len(path.read_text().split()) == 200, "all calls are made before the block is left"
    assert list(results) == [str(path)] * 200


def test_an_executor_that_nobody_holds_finishes_a_map_that_nobody_takes(way, tmp_path):
    path = tmp_path / "made"
    pool = PidfdPoolExecutor(2, mp_context=way)
    pool.map(calls.touch_and, [str(path)] * 200, ["go on"] * 200)
    del pool
    gc.collect()
    eventually(lambda: path.exists() and len(path.read_text().split()) == 200, "all calls are made")


def test_the_end_of_the_script_finishes_a_map(way, tmp_path):
    path = tmp_path / "made"
    done = run_python(
        """
        import sys
        from pidfdpool import PidfdPoolExecutor
        from tests import calls
        pool = PidfdPoolExecutor(2, mp_context=sys.argv[1])
        pool.map(calls.touch_and, [sys.argv[2]] * 200, ["go on"] * 200)
        """,
        way,
        str(path),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(path.read_text().split()) == 200


def test_cancel_futures_cancels_what_is_not_handed_out(pool, tmp_path):
    gate = tmp_path / "gate"
    results = pool.map(calls.wait_for, [str(gate)] * 100)
    pool.shutdown(wait=False, cancel_futures=True)
    gate.touch()
    with pytest.raises(concurrent.futures.CancelledError):
        list(results)


def test_an_abandoned_map_makes_no_more_calls(pool, tmp_path):
    path = tmp_path / "made"
    results = pool.map(calls.touch_and, [str(path)] * 300, ["sleep"] * 300, [0.02] * 300)
    next(results)
    results.close()
    pool.submit(calls.double, 1).result()
    eventually(lambda: not pool.stats().pending and not pool.stats().running, "nothing is left to do")
    assert len(path.read_text().split()) < 100


def test_a_map_that_takes_too_long(pool):
    results = pool.map(calls.sleep, [0.0] * 10 + [60.0] * 10, timeout=1.0)
    with pytest.raises(TimeoutError):
        list(results)
    pool.kill_workers()


def test_a_submit_after_shutdown_is_refused(way):
    pool = PidfdPoolExecutor(1, mp_context=way)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.map(calls.double, [1])


def test_in_a_forked_child_the_map_is_the_parents(pool):
    results = pool.map(calls.sleep, [0.005] * 200, range(200))
    assert next(results) == 0
    child = os.fork()
    if not child:
        status = 1
        try:
            try:
                list(results)
            except InheritedFutureError:
                status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0) == (child, 0)
    assert list(results) == list(range(1, 200))


# ---- rules that are about each task ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"timeout": 20}, {"deadline": 20}, {"heartbeat_timeout": 20}, {"retries": 1}, {"timeout": 20, "retries": 1}],
)
def test_rules_about_each_call_do_not_make_each_a_task(way, options):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        assert list(pool.options(**options).map(calls.double, range(2000))) == [2 * n for n in range(2000)]
        assert pool.stats().submitted < 1000


def test_max_tasks_per_child_counts_calls(way):
    with PidfdPoolExecutor(1, mp_context=way, max_tasks_per_child=4) as pool:
        assert len(set(pool.map(calls.identify, range(20)))) == 5


def test_otherwise_tasks_are_fewer_than_calls(pool):
    before = pool.stats().submitted
    list(pool.map(calls.double, range(100_000)))
    assert pool.stats().submitted - before < 1000


def fail_from_50(number):
    if number >= 50:
        raise ValueError(number)
    return number


def test_of_the_failures_in_one_chunk_the_first_is_raised():
    with PidfdPoolExecutor(1) as pool:
        results = pool.map(fail_from_50, range(500))
        assert [next(results) for _ in range(50)] == list(range(50))
        with pytest.raises(ValueError, match="^50$"):
            next(results)
