"""map with a buffersize: no more inputs are taken than it says, and nobody must notice that calls share tasks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import itertools
import os
import threading
import time
import weakref

import pytest

from pidfdpool import InheritedFutureError, PidfdPoolExecutor, PoolBroken, WorkerCrashed
from tests import calls
from tests.conditions import eventually, run_python

SIZES = [1, 3, 8, 17, 1000]  # with 2 workers, the first two are too small for chunks
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="nobody's")


@pytest.fixture
def pool():
    """Provide a pool. How its template comes into being makes no difference to what is tested here."""
    with PidfdPoolExecutor(2) as pool:
        yield pool


class Inputs:
    """An iterator over 0, 1, 2 and so on, that notes who takes them. At `end` it ends, or raises `error`."""

    def __init__(self, end=None, error=None):
        self.taken = 0
        self.threads = set()
        self.over = 0
        self._end, self._error = end, error

    def __iter__(self):
        return self

    def __next__(self):
        self.threads.add(threading.get_ident())
        if self.taken == self._end:
            self.over += 1
            raise self._error if self._error is not None else StopIteration
        self.taken += 1
        return self.taken - 1


class Value:
    """Can be referred to weakly."""

    def __init__(self, number):
        self.number = number


def make(number):
    return Value(number)


def number_of(value):
    return value.number


def note(path, number, seconds=0.0):
    """Append a line to a file, and return the number after a while."""
    with open(path, "a") as file:
        file.write(f"{number}\n")
    time.sleep(seconds)
    return number


def noted(path):
    return sorted(int(line) for line in path.read_text().split()) if path.exists() else []


def die_at(number, at, seconds=0.0):
    if number == at:
        os._exit(5)
    time.sleep(seconds)
    return number


def fail_at(number, at):
    if number == at:
        raise LookupError(number)
    return number


def came(results):
    """Return the results that came, and the exception that came after them."""
    found = []
    try:
        found.extend(results)
    except Exception as error:
        return found, error
    return found, None


async def all_of(results):
    return [result async for result in results]


# ---- inputs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffersize", SIZES)
@pytest.mark.parametrize("name", ["map", "map_unordered"])
def test_one_more_input_is_taken_for_each_result_by_who_takes_that(pool, name, buffersize):
    inputs = Inputs()
    results = getattr(pool, name)(calls.double, inputs, buffersize=buffersize)
    assert inputs.taken == buffersize
    for count in range(1, 400):
        next(results)
        assert inputs.taken == buffersize + count
    results.close()
    assert inputs.taken == buffersize + 399
    assert inputs.threads == {threading.get_ident()}


@pytest.mark.parametrize("buffersize", SIZES)
def test_amap_takes_one_more_input_for_each_result_in_the_loops_thread(pool, buffersize):
    inputs = Inputs()

    async def main():
        results = pool.amap(calls.double, inputs, buffersize=buffersize)
        assert inputs.taken == buffersize
        for count in range(1, 200):
            assert await anext(results) == 2 * (count - 1)
            assert inputs.taken == buffersize + count
        await results.aclose()

    asyncio.run(main())
    assert inputs.threads == {threading.get_ident()}


@pytest.mark.parametrize("buffersize", SIZES)
@pytest.mark.parametrize("count", [0, 1, 2, 7, 16, 40, 1000, 3000])
def test_all_results_come_in_order(pool, buffersize, count):
    inputs = Inputs(count)
    assert list(pool.map(calls.double, inputs, buffersize=buffersize)) == [2 * n for n in range(count)]
    assert inputs.over == 1, "nothing is taken from an iterator that has ended"
    results = pool.map_unordered(calls.double, range(count), buffersize=buffersize)
    assert sorted(results) == [2 * n for n in range(count)]
    assert asyncio.run(all_of(pool.amap(calls.double, range(count), buffersize=buffersize))) == [
        2 * n for n in range(count)
    ]


@pytest.mark.parametrize("buffersize", [3, 1000])
def test_iterables_of_every_kind(pool, buffersize):
    def mapped(function, *iterables):
        return list(pool.map(function, *iterables, buffersize=buffersize))

    assert mapped(pow, range(300), itertools.repeat(2)) == [n * n for n in range(300)]
    assert mapped(pow, [1, 2, 3], [1, 2]) == [1, 4]
    assert mapped(calls.double, {"a": 1, "b": 2}) == ["aa", "bb"]
    assert mapped(calls.double, [None] * 0) == []
    assert mapped(bool, [0, "", (), None, 1]) == [False, False, False, False, True]
    assert mapped(len, [(1, 2), (3,)]) == [2, 1], "no tuple is taken for arguments"
    assert mapped(calls.double) == []
    with pytest.raises(TypeError, match="not iterable|must support iteration"):
        pool.map(calls.double, 5, buffersize=buffersize)


@pytest.mark.parametrize("buffersize", SIZES)
@pytest.mark.parametrize("at", [0, 1, 10, 600])
def test_results_come_before_what_an_iterable_raises_behind_their_inputs(pool, buffersize, at):
    for name in ("map", "map_unordered"):
        inputs = Inputs(at, LookupError("no more"))
        results = getattr(pool, name)(calls.double, inputs, buffersize=buffersize)
        found, error = came(results)
        assert sorted(found) == [2 * n for n in range(at)]
        assert name == "map_unordered" or found == sorted(found)
        assert (type(error), error.args) == (LookupError, ("no more",))
        assert (inputs.taken, inputs.over) == (at, 1), "nothing more is taken"
        assert next(results, "over") == "over"


@pytest.mark.parametrize("buffersize", SIZES)
def test_in_amap_results_come_before_what_an_iterable_raises_behind_their_inputs(pool, buffersize):
    async def main():
        results = pool.amap(calls.double, Inputs(10, LookupError("no more")), buffersize=buffersize)
        assert [await anext(results) for _ in range(10)] == [2 * n for n in range(10)]
        with pytest.raises(LookupError, match="no more"):
            await anext(results)

    asyncio.run(main())


@pytest.mark.parametrize("buffersize", SIZES)
@pytest.mark.parametrize("options", [{"chunksize": 3}, {"timeout": 60}])
def test_where_chunks_have_a_size_results_come_before_what_an_iterable_raises_too(pool, buffersize, options):
    size = options.pop("chunksize", None)
    submitter = pool.options(**options) if options else pool
    inputs = Inputs(40, LookupError("no more"))
    found, error = came(submitter.map(calls.double, inputs, buffersize=buffersize, chunksize=size))
    assert (found, type(error), inputs.over) == ([2 * n for n in range(40)], LookupError, 1)


@pytest.mark.parametrize("buffersize", [3, 8, 1000])
def test_what_is_no_exception_is_raised_at_once(pool, buffersize):
    inputs = Inputs(buffersize + 5, KeyboardInterrupt())
    results = pool.map(calls.double, inputs, buffersize=buffersize)
    assert list(itertools.islice(results, 5)) == [0, 2, 4, 6, 8]
    with pytest.raises(KeyboardInterrupt):
        next(results)
    assert next(results, "over") == "over"
    with pytest.raises(KeyboardInterrupt):
        pool.map(calls.double, Inputs(2, KeyboardInterrupt()), buffersize=buffersize)


@pytest.mark.parametrize("buffersize", [3, 8, 1000])
def test_what_is_thrown_into_the_iterator_is_no_error_of_the_inputs(pool, buffersize):
    inputs = Inputs()
    results = pool.map(calls.double, inputs, buffersize=buffersize)
    assert list(itertools.islice(results, 300)) == [2 * n for n in range(300)]
    with pytest.raises(LookupError, match="thrown"):
        results.throw(LookupError("thrown"))
    assert next(results, "over") == "over"
    assert inputs.taken == buffersize + 300


@pytest.mark.parametrize("buffersize", [3, 8, 1000])
def test_so_it_is_where_the_pool_was_shut_down_meanwhile(pool, buffersize):
    results = pool.map(calls.double, Inputs(), buffersize=buffersize)
    assert list(itertools.islice(results, 300)) == [2 * n for n in range(300)]
    pool.shutdown(wait=False)
    with pytest.raises(LookupError, match="thrown"):
        results.throw(LookupError("thrown"))
    assert next(results, "over") == "over"


@pytest.mark.parametrize("buffersize", [3, 8, 1000])
def test_calls_run_while_an_input_is_waited_for(pool, tmp_path, buffersize):
    path = tmp_path / "made"

    def inputs():
        yield 0
        eventually(lambda: noted(path) == [0], "the first call has run")
        yield 1

    assert list(pool.map(note, itertools.repeat(str(path)), inputs(), buffersize=buffersize)) == [0, 1]


# ---- who holds what --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffersize", [3, 8, 1000])
@pytest.mark.parametrize("name", ["map", "map_unordered"])
def test_when_nobody_holds_the_executor_no_further_input_is_taken(name, buffersize):
    inputs = Inputs()
    results = getattr(PidfdPoolExecutor(2), name)(calls.double, inputs, buffersize=buffersize)
    assert sorted(results) == [2 * n for n in range(buffersize)]
    assert inputs.taken == buffersize


@pytest.mark.parametrize("buffersize", [3, 8, 1000])
@pytest.mark.parametrize("view", [False, True])
def test_when_nobody_holds_the_executor_any_more_what_was_taken_is_finished(buffersize, view):
    pool = PidfdPoolExecutor(2)
    # The callbacks of references are called from the youngest to the oldest: after that of the map's own.
    gone = threading.Event()
    reference = weakref.ref(pool, lambda _: gone.set())
    inputs = Inputs()
    submitter = pool.options(priority=1) if view else pool
    results = submitter.map(calls.double, inputs, buffersize=buffersize)
    for count in (100, 101, 130, 131, 250):
        if count == 250:
            del pool, submitter
            eventually(lambda: (gc.collect(), gone.is_set())[1], "the executor is gone, and the map knows")
            ahead = inputs.taken
        else:
            while inputs.taken < buffersize + count:
                next(results)
    assert reference() is None
    assert len(list(results)) == buffersize
    assert inputs.taken == ahead


def test_an_amap_goes_on_without_its_executor():
    async def main():
        inputs = Inputs()
        results = PidfdPoolExecutor(2).amap(calls.double, inputs, buffersize=100)
        assert [result async for result in results] == [2 * n for n in range(100)]
        assert inputs.taken == 100

    asyncio.run(main())


@pytest.mark.costly_table
@pytest.mark.parametrize("buffersize", [3, 8, 1000])
@pytest.mark.parametrize("name", ["map", "map_unordered"])
def test_a_result_that_was_taken_is_let_go_of(pool, name, buffersize):
    results = getattr(pool, name)(make, range(2000), buffersize=buffersize)
    for _ in range(2000):
        reference = weakref.ref(next(results))
        if reference() is not None:  # the pool thread, which has just resolved the future, still holds that
            eventually(lambda reference=reference: reference() is None, "the result is gone")


@pytest.mark.parametrize("buffersize", [3, 8, 100])
def test_an_argument_is_let_go_of_with_its_result(pool, buffersize):
    alive = weakref.WeakSet()

    def inputs():
        for number in range(1000):
            value = Value(number)
            alive.add(value)
            yield value
            del value

    results = pool.map(number_of, inputs(), buffersize=buffersize)
    for number in range(1000):
        assert next(results) == number
        # One more is in the hands of the generator, and of zip(). The pool thread may just have resolved the future.
        eventually(lambda: len(alive) <= buffersize + 2, "the argument is gone")
    assert next(results, "over") == "over"
    eventually(lambda: not alive, "no argument is left")


def test_a_map_that_was_left_needs_no_collector(pool):
    class Iterable:
        def __iter__(self):
            return self

        def __next__(self):
            return 1

    gc.disable()
    try:
        for taken in (1, 50, 51, 300):
            iterable = Iterable()
            reference = weakref.ref(iterable)
            results = pool.map(calls.double, iterable, buffersize=100)
            del iterable
            assert list(itertools.islice(results, taken)) == [2] * taken
            del results
            eventually(lambda reference=reference: reference() is None, "all of the map is gone", 10)
    finally:
        gc.enable()


# ---- the end ---------------------------------------------------------------------------------------------------


@pytest.mark.costly_table
@pytest.mark.parametrize("buffersize", [3, 8, 1000])
@pytest.mark.parametrize("taken", [0, 1, 130])
def test_shutdown_finishes_all_calls_whose_inputs_were_taken(tmp_path, buffersize, taken):
    path = tmp_path / "made"
    inputs = Inputs()
    with PidfdPoolExecutor(2) as pool:
        results = pool.map(note, itertools.repeat(str(path)), inputs, buffersize=buffersize)
        assert list(itertools.islice(results, taken)) == list(range(taken))
    assert noted(path) == list(range(buffersize + taken))
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        next(results)
    assert next(results, "over") == "over"


@pytest.mark.parametrize("buffersize", [3, 8, 1000])
@pytest.mark.parametrize("taken", [0, 1, 130])
def test_after_shutdown_the_results_of_inputs_that_have_ended_come(buffersize, taken):
    inputs = Inputs(buffersize + taken)
    with PidfdPoolExecutor(2) as pool:
        results = pool.map(calls.double, inputs, buffersize=buffersize)
        assert list(itertools.islice(results, taken)) == [2 * n for n in range(taken)]
    assert list(results) == [2 * n for n in range(taken, buffersize + taken)]


@pytest.mark.parametrize("buffersize", [3, 8, 1000])
def test_cancel_futures_cancels_what_no_worker_has_begun(tmp_path, buffersize):
    path = tmp_path / "gate"
    pool = PidfdPoolExecutor(2)
    ended = pool.map(calls.wait_for, [str(path)] * buffersize, buffersize=buffersize)
    endless = pool.map(calls.wait_for, itertools.repeat(str(path)), buffersize=buffersize)
    pool.shutdown(wait=False, cancel_futures=True)
    path.touch()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        list(endless)
    with pytest.raises(concurrent.futures.CancelledError):
        list(ended)


@pytest.mark.costly_table
@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.parametrize("count", [20, 1])
def test_the_end_of_the_script_finishes_all_calls_whose_inputs_were_taken(tmp_path, count, forgotten):
    path = tmp_path / "made"
    done = run_python(
        """
        import itertools
        import sys
        from pidfdpool import PidfdPoolExecutor
        from tests.executor import test_bounded_map
        pool = PidfdPoolExecutor(2)
        results = pool.map(test_bounded_map.note, itertools.repeat(sys.argv[1]), itertools.count(), buffersize=100)
        for _ in range(int(sys.argv[2])):
            next(results)
        if sys.argv[3]:
            del pool  # a moment before the end
        """,
        str(path),
        str(count),
        "forget" if forgotten else "",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert noted(path) == list(range(100 + count))


def test_a_submit_after_shutdown_is_refused():
    pool = PidfdPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.map(calls.double, [1], buffersize=100)
    with PidfdPoolExecutor(1, initializer=calls.raise_it, initargs=(ValueError("no"),)) as pool:
        with pytest.raises(PoolBroken):
            list(pool.map(calls.double, range(100), buffersize=50))
        with pytest.raises(PoolBroken):
            pool.map(calls.double, range(100), buffersize=50)


def test_in_a_forked_child_the_map_is_the_parents(pool):
    results = pool.map(calls.sleep, itertools.repeat(0.001), range(300), buffersize=100)
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
    assert list(results) == list(range(1, 300))


# ---- calls that are not taken ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, 0.002])
@pytest.mark.parametrize("name", ["map", "map_unordered"])
def test_all_calls_of_the_buffer_run_though_nobody_takes_a_result(pool, tmp_path, seconds, name):
    path = tmp_path / "made"
    columns = itertools.repeat(str(path)), itertools.count(), itertools.repeat(seconds)
    results = getattr(pool, name)(note, *columns, buffersize=100)
    eventually(lambda: len(noted(path)) == 100, "all have run")
    dropped = getattr(pool, name)(note, *columns, buffersize=100)
    del dropped
    eventually(lambda: len(noted(path)) == 200, "all have run")
    results.close()


def test_long_calls_run_while_the_consumer_is_busy(pool, tmp_path):
    path = tmp_path / "made"
    columns = itertools.repeat(str(path)), itertools.count(), itertools.repeat(0.002)
    results = pool.map(note, *columns, buffersize=100)
    for count in (1, 2, 3, 40, 41, 150):
        while len(noted(path)) < 100 + count:
            if next(results) == count - 1:
                break
        eventually(lambda count=count: len(noted(path)) == 100 + count, "all have run whose inputs were taken")
    results.close()


def test_a_map_that_takes_too_long(pool):
    results = pool.map(calls.sleep, [0.0] * 10 + [60.0] * 10, timeout=1.0, buffersize=8)
    with pytest.raises(TimeoutError):
        list(results)
    results = pool.map_unordered(calls.sleep, [60.0] * 10, timeout=0.1, buffersize=8)
    with pytest.raises(TimeoutError):
        list(results)
    pool.kill_workers()


# ---- calls that fail -------------------------------------------------------------------------------------------


@pytest.mark.costly_table
@pytest.mark.parametrize("buffersize", SIZES)
def test_results_before_a_call_that_fails_come_in_order(pool, buffersize):
    for count in (1000, 700):
        found, error = came(pool.map(fail_at, range(count), itertools.repeat(613), buffersize=buffersize))
        assert (found, error.args) == (list(range(613)), (613,))
    with pytest.raises(LookupError):
        list(pool.map_unordered(fail_at, range(1000), itertools.repeat(613), buffersize=buffersize))
    eventually(lambda: not pool.stats().pending, "the rest is cancelled")


@pytest.mark.costly_table
@pytest.mark.parametrize("buffersize", SIZES)
def test_long_calls_that_came_before_a_death_keep_their_results_and_the_error_names_the_call(pool, buffersize):
    arguments = range(200), itertools.repeat(130), itertools.repeat(0.001)
    found, error = came(pool.map(die_at, *arguments, buffersize=buffersize))
    assert found == list(range(130))
    assert isinstance(error, WorkerCrashed)
    assert error.task == "tests.executor.test_bounded_map.die_at, item 130 of map: 130, 130, 0.001"
    assert list(pool.map(calls.double, range(100), buffersize=buffersize)) == [2 * n for n in range(100)]


@pytest.mark.parametrize("name", ["map", "map_unordered"])
def test_at_a_death_nothing_runs_twice_and_results_before_its_task_come(pool, tmp_path, name):
    path = tmp_path / "made"
    arguments = itertools.repeat(str(path)), range(3000), itertools.repeat(2100)
    found, error = came(getattr(pool, name)(note_and_die_at, *arguments, buffersize=400))
    if name == "map":
        assert found == list(range(len(found)))
        assert 2100 - 100 <= len(found) <= 2100
    assert error.task.startswith("tests.executor.test_bounded_map.note_and_die_at, item 2100 of map: ")
    eventually(lambda: not pool.stats().pending, "the rest is cancelled")
    assert len(set(noted(path))) == len(noted(path))


def note_and_die_at(path, number, at):
    with open(path, "a") as file:
        file.write(f"{number}\n")
    if number == at:
        os._exit(5)
    return number


@pytest.mark.parametrize("buffersize", SIZES)
def test_an_argument_that_does_not_pickle_costs_no_other_its_result(pool, buffersize):
    given = [*range(500), calls.Unpicklable(), *range(500)]
    found, error = came(pool.map(calls.double, given, buffersize=buffersize))
    assert found == [2 * n for n in range(500)]
    assert isinstance(error, TypeError)
    assert "does not pickle" in str(error)
    with pytest.raises(TypeError, match="does not pickle"):
        list(pool.map_unordered(calls.double, given, buffersize=buffersize))


@pytest.mark.parametrize("buffersize", [3, 1000])
def test_a_function_that_does_not_pickle_fails_where_the_first_result_would_be(pool, buffersize):
    assert pool.submit(calls.double, 1).result() == 2
    for name in ("map", "map_unordered"):
        results = getattr(pool, name)(calls.Unpicklable(), range(5000), buffersize=buffersize)
        with pytest.raises(TypeError, match="does not pickle"):
            next(results)
        assert list(getattr(pool, name)(calls.Unpicklable(), [], buffersize=buffersize)) == []


class TellsItsContext:
    def __reduce__(self):
        return str, (VARIABLE.get(),)


def test_arguments_are_pickled_in_the_context_of_the_caller_whenever_that_is(pool):
    token = VARIABLE.set("the caller's")
    results = pool.map(calls.double, (TellsItsContext() for _ in range(400)), buffersize=100)
    VARIABLE.reset(token)
    assert set(results) == {"the caller's" * 2}


class ShutsDownWhilePickled:
    """As a signal handler may, which interrupts a thread that submits."""

    pool: PidfdPoolExecutor

    def __reduce__(self):
        self.pool.shutdown(wait=False)
        return int, ()


def test_a_shutdown_from_within_a_submit_hangs_nothing():
    with PidfdPoolExecutor(2) as pool:
        ShutsDownWhilePickled.pool = pool
        given = [*range(150), ShutsDownWhilePickled(), *range(500)]
        found, error = came(pool.map(calls.double, given, buffersize=100))
        assert found == [2 * n for n in range(len(found))]
        assert "after shutdown" in str(error)


def test_many_maps_at_once(pool):
    found = {}

    def run(number):
        mapped = pool.map if number % 2 else pool.map_unordered
        found[number] = sorted(mapped(calls.double, range(number, number + 3000), buffersize=10 * number + 5))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [2 * n for n in range(number, number + 3000)] for number in range(6)}
