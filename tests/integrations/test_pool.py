"""pidfdpool.multiprocessing: what code for multiprocessing.Pool expects, and what is better here.

CPython's own tests of it run in tests/stdlib_suite.
"""

from __future__ import annotations

import concurrent.futures
import gc
import itertools
import multiprocessing
import multiprocessing.pool
import operator
import os
import pickle
import signal
import threading
import time
import warnings

import pytest

import pidfdpool
from pidfdpool.multiprocessing import MaybeEncodingError, Pool
from tests.conditions import eventually, is_alive
from tests.integrations import pool_calls as calls

LONG = 90.0


@pytest.fixture(params=["fork", "spawn"])
def pool(request):
    with Pool(2, context=multiprocessing.get_context(request.param)) as made:
        yield made


@pytest.fixture(scope="module")
def shared():
    with Pool(2) as made:
        assert len(made._pool) == 2  # they are up before the first test looks what is there
        yield made


class TestRequests:
    def test_each_returns_what_the_standard_pool_returns(self, pool):
        numbers = range(20)
        squares = [number * number for number in numbers]
        pairs = [(2, 3), (4, 1)]
        assert pool.apply(calls.square, (3,)) == 9
        assert pool.apply(int, ("11",), {"base": 2}) == 3
        assert pool.apply_async(calls.square, [3]).get() == 9
        assert pool.map(calls.square, numbers) == squares
        assert pool.map(calls.square, iter(numbers), chunksize=3) == squares
        assert pool.map_async(calls.square, numbers).get() == squares
        assert pool.starmap(pow, pairs) == [8, 4]
        assert pool.starmap_async(pow, pairs, chunksize=1).get() == [8, 4]
        assert list(pool.imap(calls.square, numbers)) == squares
        assert list(pool.imap(calls.square, numbers, chunksize=3)) == squares
        assert sorted(pool.imap_unordered(calls.square, numbers)) == squares
        assert sorted(pool.imap_unordered(calls.square, numbers, chunksize=3)) == squares

    def test_results_are_of_the_standard_classes(self, shared):
        assert isinstance(shared, multiprocessing.pool.Pool)
        assert isinstance(shared.apply_async(calls.square, (3,)), multiprocessing.pool.AsyncResult)
        assert isinstance(shared.map_async(calls.square, [3]), multiprocessing.pool.AsyncResult)
        assert isinstance(shared.imap(calls.square, [3]), multiprocessing.pool.IMapIterator)
        assert isinstance(shared.imap_unordered(calls.square, [3]), multiprocessing.pool.IMapUnorderedIterator)

    @pytest.mark.parametrize("name", ["map", "starmap", "map_async", "starmap_async", "imap", "imap_unordered"])
    @pytest.mark.parametrize(("chunksize", "error"), [(0, ValueError), (-1, ValueError), ("3", TypeError)])
    def test_a_chunksize_that_makes_no_sense_is_named(self, shared, name, chunksize, error):
        with pytest.raises(error, match=f"chunksize.*{chunksize}"):
            getattr(shared, name)(calls.square, [1], chunksize=chunksize)

    def test_a_chunk_of_a_map_is_the_share_of_a_worker_in_quarters(self, shared):
        assert shared.map_async(calls.square, range(17))._chunksize == 3
        assert shared.map_async(calls.square, range(16))._chunksize == 2

    def test_what_a_call_takes_is_its_own_at_once(self, shared):
        value = [1]
        result = shared.apply_async(sum, (value,))
        value.append(2)
        assert result.get() == 1

    @pytest.mark.parametrize(
        "name", ["apply", "map", "imap", "imap_unordered", "starmap", "apply_async", "map_async"]
    )
    def test_a_closed_pool_takes_nothing(self, name):
        pool = Pool(1)
        pool.close()
        with pytest.raises(ValueError, match="Pool not running"):
            getattr(pool, name)(calls.square, [(1,)])
        pool.join()


class TestAsyncResult:
    def test_it_tells_whether_it_is_there(self, pool):
        result = pool.apply_async(time.sleep, (LONG,))
        assert not result.ready()
        with pytest.raises(ValueError, match="not ready"):
            result.successful()
        result.wait(0.01)
        with pytest.raises(multiprocessing.TimeoutError):
            result.get(0.01)
        done = pool.apply_async(calls.square, (3,))
        done.wait()
        assert done.ready()
        assert done.successful()
        failed = pool.apply_async(calls.raise_for_three, (3,))
        failed.wait()
        assert not failed.successful()

    def test_a_map_tells_how_many_chunks_are_left(self, pool):
        result = pool.map_async(time.sleep, [0, 0, LONG, LONG], chunksize=1)
        eventually(lambda: result._number_left == 2, "two chunks are done")

    def test_the_cause_of_an_exception_is_the_workers_traceback(self, shared):
        with pytest.raises(KeyError) as caught:
            shared.apply(calls.raise_for_three, (3,))
        assert type(caught.value.__cause__) is multiprocessing.pool.RemoteTraceback
        assert "raise_for_three" in str(caught.value.__cause__)
        assert "process_pool" not in str(caught.value.__cause__)

    def test_a_timeout_error_of_the_call_is_not_that_of_get(self, shared):
        def time_out():
            raise TimeoutError("of the call")

        with pytest.raises(TimeoutError, match="of the call"):
            shared.apply_async(time_out).get(LONG)

    def test_callbacks_come_before_get_returns(self, shared):
        for _ in range(200):
            told = []
            assert shared.apply_async(calls.square, (3,), callback=told.append).get() == 9
            assert told == [9]
            result = shared.map_async(calls.raise_for_three, range(5), 1, told.append, told.append)
            with pytest.raises(KeyError):
                result.get()
            assert [type(each) for each in told] == [int, KeyError]

    def test_what_a_callback_raises_is_logged_and_harms_nothing(self, shared, caplog):
        assert shared.apply_async(calls.square, (3,), callback=operator.itemgetter(1)).get() == 9
        assert "exception calling callback" in caplog.text
        assert shared.apply(calls.square, (4,)) == 16

    def test_a_callback_may_submit(self, shared):
        then = []
        shared.apply_async(
            calls.square, (3,), callback=lambda value: then.append(shared.apply_async(calls.square, (value,)))
        ).get()
        assert then[0].get() == 81

    def test_no_callback_is_called_for_a_map_over_nothing(self, shared):
        told = []
        assert shared.map_async(calls.square, [], callback=told.append).get() == []
        assert told == []


class TestIteratorsOverResults:
    def test_a_call_that_fails_does_not_end_them(self, shared):
        for iterator in (
            shared.imap(calls.raise_for_three, range(6)),
            shared.imap_unordered(calls.raise_for_three, range(6)),
        ):
            seen = []
            for _ in range(6):
                try:
                    seen.append(next(iterator))
                except KeyError:
                    seen.append(3)
            assert sorted(seen) == [0, 1, 2, 3, 4, 5]
            with pytest.raises(StopIteration):
                next(iterator)

    def test_next_waits_no_longer_than_told(self, pool):
        for iterator in (pool.imap(time.sleep, [LONG]), pool.imap_unordered(time.sleep, [LONG])):
            for timeout in (0.01, 0, -1):
                with pytest.raises(multiprocessing.TimeoutError):
                    iterator.next(timeout)

    def test_an_endless_iterable_is_read_as_results_are_taken(self, pool):
        for method in (pool.imap, pool.imap_unordered):
            read = 0

            def count():
                nonlocal read
                while True:
                    read += 1
                    yield read

            results = method(calls.square, count())
            for taken in range(1, 60):
                next(results)
                assert read <= taken + 2 * 16

    def test_the_iterable_is_read_by_the_thread_that_takes_results(self, shared):
        readers = set()

        def read():
            for number in range(100):
                readers.add(threading.get_ident())
                yield number

        assert sum(shared.imap(calls.square, read())) == sum(number * number for number in range(100))
        assert readers == {threading.get_ident()}

    def test_threads_may_share_one(self, shared):
        for method in (shared.imap, shared.imap_unordered):
            results = method(calls.square, range(400))
            with concurrent.futures.ThreadPoolExecutor(4) as threads:
                shares = list(threads.map(lambda _: list(results), range(4)))
            assert sorted(itertools.chain(*shares)) == [number * number for number in range(400)]

    def test_join_submits_what_is_left_of_the_inputs(self, tmp_path):
        pool = Pool(2)
        results = pool.imap(os.mkdir, (str(tmp_path / str(number)) for number in range(100)))
        pool.close()
        pool.join()
        assert len(list(tmp_path.iterdir())) == 100
        assert list(results) == [None] * 100


class TestDeaths:
    def test_a_worker_that_dies_fails_its_own_call_only(self, pool):
        results = [pool.apply_async(calls.die_for_three, (number,)) for number in range(6)]
        with pytest.raises(pidfdpool.WorkerCrashed, match="die_for_three.*SIGKILL"):
            results.pop(3).get()
        assert [result.get() for result in results] == [0, 1, 2, 4, 5]

    def test_a_map_ends_with_the_death(self, pool):
        with pytest.raises(pidfdpool.WorkerCrashed):
            pool.map(calls.die_for_three, range(8), chunksize=2)
        assert pool.map(calls.square, range(3)) == [0, 1, 4]

    def test_an_initializer_that_fails_ends_all_calls(self):
        with Pool(1, initializer=operator.truediv, initargs=(1, 0)) as pool:
            with pytest.raises(pidfdpool.PoolBroken):
                pool.apply(calls.square, (3,))


class TestResultsThatDoNotTravel:
    def test_of_a_result_the_message_has_both(self, shared):
        with pytest.raises(MaybeEncodingError) as caught:
            shared.apply(calls.lock)
        assert "cannot pickle" in caught.value.exc
        assert "lock" in caught.value.value
        assert "<unlocked _thread.lock object" in str(caught.value)

    def test_of_an_exception(self, shared):
        with pytest.raises(MaybeEncodingError, match="stays where it is"):
            shared.apply(calls.raise_unsendable)


class TestTheEnd:
    def test_terminate_ends_what_runs_and_what_waits(self, pool):
        running = pool.map_async(time.sleep, [LONG, LONG], chunksize=1)
        eventually(lambda: pool._executor.stats().running == 2, "both run")
        waiting = pool.apply_async(calls.square, (3,))
        workers = [worker.pid for worker in pool._pool]
        pool.terminate()
        assert not any(map(is_alive, workers))
        with pytest.raises(pidfdpool.WorkerCrashed):
            running.get()
        with pytest.raises(concurrent.futures.CancelledError, match="terminated"):
            waiting.get()
        pool.join()

    def test_a_callback_may_terminate(self):
        pool = Pool(2)
        results = [pool.apply_async(calls.square, (3,), callback=lambda _: pool.terminate())]
        results += [pool.apply_async(time.sleep, (LONG,)) for _ in range(3)]
        for result in results:
            result.wait(LONG)
            assert result.ready()
        pool.join()

    def test_join_is_for_pools_that_are_to_end(self, shared):
        with pytest.raises(ValueError, match="still running"):
            shared.join()

    def test_leaving_a_block_terminates(self):
        with Pool(1) as pool:
            result = pool.apply_async(time.sleep, (LONG,))
        with pytest.raises((pidfdpool.WorkerCrashed, concurrent.futures.CancelledError)):
            result.get()
        with pytest.raises(ValueError, match="not running"):
            pool.__enter__()

    def test_close_finishes_what_was_accepted(self, tmp_path):
        pool = Pool(2)
        results = [pool.apply_async(calls.square, (number,)) for number in range(50)]
        pool.close()
        assert [result.get() for result in results] == [number * number for number in range(50)]
        pool.join()

    def test_a_pool_that_is_left_open_is_warned_of(self):
        pool = Pool(1)
        pids = [worker.pid for worker in pool._pool]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del pool
            gc.collect()
        assert any(each.category is ResourceWarning and "unclosed running" in str(each.message) for each in caught)
        eventually(lambda: not any(map(is_alive, pids)), "its workers have left")

    def test_a_pool_that_failed_to_begin_is_not(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ValueError, match="at least 1"):
                Pool(0)
            gc.collect()

    def test_it_is_not_pickled(self, shared):
        with pytest.raises(NotImplementedError, match="cannot be passed between processes"):
            pickle.dumps(shared)


class TestWhatItAdds:
    def test_options_apply_to_each_call(self, pool):
        with pytest.raises(pidfdpool.TaskTimeout):
            pool.options(timeout=0.05).apply(time.sleep, (LONG,))
        assert pool.options(priority=3).options(retries=1).map(calls.square, [1, 2]) == [1, 4]
        assert list(pool.options(timeout=LONG).imap(calls.square, [1, 2])) == [1, 4]

    def test_options_of_the_pool(self):
        with Pool(1, timeout=0.05) as pool, pytest.raises(pidfdpool.TaskTimeout):
            pool.apply(time.sleep, (LONG,))

    @pytest.mark.parametrize("unknown", [{"timeut": 3}, {"max_workers": 3}])
    def test_options_that_do_not_exist_are_named(self, unknown):
        with pytest.raises(TypeError, match=next(iter(unknown))):
            Pool(1, **unknown)

    def test_maxtasksperchild_counts_chunks(self):
        with Pool(1, maxtasksperchild=2) as pool:
            pids = pool.map(calls.worker, range(8), chunksize=2)
        assert pids[0] == pids[3] != pids[4] == pids[7]

    @pytest.mark.parametrize("wrong", [0, -1, 0.5, "12", True])
    def test_maxtasksperchild_that_makes_no_sense_is_named(self, wrong):
        with pytest.raises(ValueError, match=f"maxtasksperchild.*{wrong}"):
            Pool(1, maxtasksperchild=wrong)

    def test_its_workers_can_be_looked_at(self, pool):
        assert pool._processes == len(pool._pool) == 2
        worker = pool._pool[0]
        assert worker.is_alive()
        assert worker.ident == worker.pid
        os.kill(worker.pid, signal.SIGKILL)
        eventually(lambda: not worker.is_alive(), "it has ended")
