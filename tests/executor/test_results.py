"""What goes in comes out: calls, results and exceptions of every awkward kind."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import os
import pickle
import sys
import threading

import pytest

from pidfdpool import PayloadError, PidfdPoolExecutor, ProcessPoolExecutor, WorkerCrashed
from tests import calling_back, calls
from tests.conditions import eventually


@pytest.fixture
def pool(way):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        yield pool


def test_calls_with_arguments_and_keywords_return_their_results(pool):
    assert pool.submit(pow, 2, 10).result() == 1024
    assert pool.submit(int, "ff", base=16).result() == 255
    assert pool.submit(sorted, [3, 1, 2], reverse=True).result() == [3, 2, 1]


def test_keywords_named_like_ours_belong_to_the_function(pool):
    assert pool.submit(dict, fn=1, self=2, timeout=3).result() == {"fn": 1, "self": 2, "timeout": 3}


def test_lambdas_closures_and_local_classes_work(pool):
    offset = 5

    class Local:
        def __init__(self, value):
            self.value = value

    assert pool.submit(lambda x: x + offset, 1).result() == 6
    assert pool.submit(lambda: Local(3)).result().value == 3
    assert isinstance(pool.submit(lambda thing: thing, Local(1)).result(), Local)


def test_the_arguments_are_taken_as_they_are_at_submit(pool):
    data = [1]
    futures = []
    for number in range(20):
        futures.append(pool.submit(calls.double, data))
        data[0] = number
    assert futures[0].result() == [1, 1]
    assert [future.result()[0] for future in futures[1:]] == list(range(19))


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 1 << 20, 50_000_000])
def test_payloads_of_every_size_arrive_whole_in_both_directions(pool, size):
    data = os.urandom(min(size, 1 << 20)) * (size // (1 << 20) or 1)
    assert pool.submit(calls.double, data).result() == data * 2


def test_many_large_payloads_at_once_do_not_block_each_other(pool):
    big = bytes(5_000_000)
    futures = [pool.submit(len, big) for _ in range(20)] + [pool.submit(calls.double, big) for _ in range(5)]
    assert [len(future.result()) if i >= 20 else future.result() for i, future in enumerate(futures)] == [
        5_000_000
    ] * 20 + [10_000_000] * 5


@pytest.mark.parametrize(
    "error", [ValueError("a", 1), KeyError("k"), OSError(2, "no"), UnicodeDecodeError("u", b"", 0, 1, "x")]
)
def test_an_exception_comes_back_with_the_remote_traceback_as_its_cause(pool, error):
    raised = pool.submit(calls.raise_it, error).exception()
    assert type(raised) is type(error)
    assert raised.args == error.args
    assert "in raise_it" in str(raised.__cause__)
    assert "Traceback" in str(raised.__cause__)
    assert "pidfdpool" not in str(raised.__cause__), "our own frames are of no use to anybody"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
def test_what_is_not_an_exception_is_the_outcome_of_that_task_only(pool, kind):
    worker = pool.submit(os.getpid).result()
    assert isinstance(pool.submit(calls.raise_it, kind("out")).exception(), kind)
    assert isinstance(pool.submit(calls.exit_with, 3).exception(), SystemExit)
    assert pool.submit(os.getpid).result() == worker, "the worker lives on"


def test_notes_and_groups_survive(pool):
    error = ExceptionGroup("several", [ValueError(1), TypeError(2)])
    error.add_note("a note")
    raised = pool.submit(calls.raise_it, error).exception()
    assert [type(inner) for inner in raised.exceptions] == [ValueError, TypeError]
    assert raised.__notes__ == ["a note"]


def test_a_call_that_does_not_pickle_fails_its_own_future_at_once(pool):
    future = pool.submit(calls.double, calls.Unpicklable())
    assert future.done()
    with pytest.raises(TypeError, match="does not pickle"):
        future.result()
    assert pool.submit(calls.double, 2).result() == 4


def test_a_function_that_does_not_pickle_fails_its_own_future(pool):
    lock = __import__("threading").Lock()
    with pytest.raises(TypeError, match="cannot pickle"):
        pool.submit(lambda: lock).result()
    assert pool.submit(calls.double, 2).result() == 4


@pytest.mark.parametrize("error", ["ValueError", "SystemExit", "KeyboardInterrupt"])
def test_a_call_that_does_not_unpickle_fails_its_own_future(pool, error):
    raised = pool.submit(calls.double, calls.Unloadable(error)).exception()
    assert type(raised).__name__ == error
    assert pool.submit(calls.double, 2).result() == 4


def test_a_result_that_does_not_pickle_fails_its_own_future(pool):
    with pytest.raises(TypeError, match="does not pickle"):
        pool.submit(calls.make, "Unpicklable").result()
    assert pool.submit(calls.double, 2).result() == 4


@pytest.mark.parametrize("error", ["ValueError", "SystemExit", "KeyboardInterrupt"])
def test_a_result_that_does_not_unpickle_fails_its_own_future(pool, error):
    raised = pool.submit(calls.make, "Unloadable", error).exception()
    assert isinstance(raised, PayloadError)
    assert "does not unpickle" in str(raised)
    assert type(raised.__cause__).__name__ == error
    assert pool.submit(calls.double, 2).result() == 4


def test_an_exception_that_does_not_unpickle_is_replaced_by_one_that_tells_all(pool):
    raised = pool.submit(calls.raise_new, "TwoArguments", "this", "that").exception()
    assert isinstance(raised, PayloadError)
    assert "this and that" in str(raised)
    assert "raise_new" in str(raised)
    assert pool.submit(calls.double, 2).result() == 4


def test_an_exception_that_does_not_pickle_is_replaced_by_one_that_tells_all(pool):
    def fail():
        error = ValueError("holds a lock")
        error.lock = __import__("threading").Lock()
        raise error

    raised = pool.submit(fail).exception()
    assert isinstance(raised, PayloadError)
    assert "holds a lock" in str(raised)


def test_an_exception_that_is_a_frozen_dataclass_comes_back_if_its_pickle_does(pool):
    raised = pool.submit(calls.raise_new, "FrozenWithReduce", 3).exception()
    assert raised == calls.FrozenWithReduce(3)
    assert "raise_new" in str(raised.__cause__)
    raised = pool.submit(calls.raise_new, "Frozen", 3).exception()
    assert isinstance(raised, PayloadError)
    assert "Frozen" in str(raised)
    assert type(raised.__cause__) is dataclasses.FrozenInstanceError


def test_endless_recursion_is_an_exception_like_any_other(pool):
    def recurse(n):
        return recurse(n + 1) + 1

    assert isinstance(pool.submit(recurse, 0).exception(), RecursionError)
    nested = []
    for _ in range(100_000):
        nested = [nested]
    error = pool.submit(len, nested).exception()
    assert isinstance(error, (RecursionError, pickle.PicklingError))
    assert pool.submit(calls.double, 2).result() == 4


def test_every_future_gets_an_exception_of_its_own(pool):
    error = ValueError("one")
    first, second = (pool.submit(calls.raise_it, error).exception() for _ in range(2))
    assert first is not second


def test_wait_and_as_completed_take_our_futures(pool):
    futures = [pool.submit(calls.double, number) for number in range(10)]
    assert {future.result() for future in concurrent.futures.as_completed(futures)} == set(range(0, 20, 2))
    done, not_done = concurrent.futures.wait(futures)
    assert len(done) == 10
    assert not not_done


def test_asyncio_awaits_our_futures(pool):
    import asyncio

    async def main():
        loop = asyncio.get_running_loop()
        first = await asyncio.wrap_future(pool.submit(calls.double, 2))
        return [first, *await asyncio.gather(*(loop.run_in_executor(pool, calls.double, n) for n in range(5)))]

    assert asyncio.run(main()) == [4, 0, 2, 4, 6, 8]


def test_a_callback_that_raises_anything_hurts_nobody(pool):
    order = []

    def bad(_):
        order.append("bad")
        raise SystemExit

    calling_back.submit(pool, bad, lambda _: order.append("good")).result()
    assert pool.submit(calls.double, 2).result() == 4
    assert order == ["bad", "good"]


def test_a_callback_may_submit_and_wait_is_not_needed(pool):
    from threading import Event

    done, results = Event(), []

    def next_one(future):
        results.append(future.result())
        if len(results) == 50:
            done.set()
        else:
            pool.submit(calls.double, len(results)).add_done_callback(next_one)

    pool.submit(calls.double, 0).add_done_callback(next_one)
    assert done.wait(20)
    assert results == [number * 2 for number in range(50)]


def test_the_one_line_swap_has_its_name():
    assert ProcessPoolExecutor is PidfdPoolExecutor
    assert issubclass(WorkerCrashed, concurrent.futures.process.BrokenProcessPool)


def test_objects_die_when_nobody_needs_them(pool):
    import gc
    import weakref

    from tests.conditions import eventually

    class Thing:
        pass

    thing = Thing()
    reference = weakref.ref(thing)
    pool.submit(type, thing).result()
    del thing
    eventually(lambda: gc.collect() is not None and reference() is None, "the argument is collected")
    for result in pool.map(calls.identity_of_new, range(5)):
        reference = weakref.ref(result)
        del result
        eventually(lambda: gc.collect() is not None and reference() is None, "the result is collected")


def test_output_is_written_when_the_task_is_done(tmp_path, way):
    from tests.conditions import run_python

    done = run_python(
        """
        import sys
        from pidfdpool import PidfdPoolExecutor
        print("before", end=" ")
        with PidfdPoolExecutor(1, mp_context=sys.argv[1]) as pool:
            pool.submit(print, "out", end=" ").result()
            pool.submit(print, "err", file=None).result()
            print("after")
        """,
        way,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.split()) == ["after", "before", "err", "out"]
    assert sys.stdout is not None


def wait_and_raise(path):
    calls.wait_for(path)
    raise ValueError("no")


def test_a_callback_that_is_added_late_is_called_at_once():
    with PidfdPoolExecutor(1) as pool:
        futures = [pool.submit(calls.double, 1), pool.submit(calls.raise_it, ValueError())]
        concurrent.futures.wait(futures, timeout=20)
        called = []
        for future in futures:
            future.add_done_callback(called.append)
        assert called == futures


def test_who_waits_for_the_first_exception_is_told_of_it(tmp_path):
    with PidfdPoolExecutor(2) as pool:
        holding = pool.submit(calls.wait_for, str(tmp_path / "end"))
        failing = pool.submit(wait_and_raise, str(tmp_path / "fail"))
        found = []
        wait = functools.partial(concurrent.futures.wait, return_when=concurrent.futures.FIRST_EXCEPTION)
        waiting = threading.Thread(target=lambda: found.append(wait([holding, failing])))
        waiting.start()
        eventually(lambda: failing._waiters, "it waits")
        (tmp_path / "fail").touch()
        waiting.join(20)
        assert [done for done, _ in found] == [{failing}]
        (tmp_path / "end").touch()
        waiting.join()


def test_what_its_owner_has_set_stays(tmp_path):
    """A future may be resolved by hand while its task runs; the pool's result comes too late."""
    with PidfdPoolExecutor(1) as pool:
        future = pool.submit(calls.run_until, str(tmp_path / "runs"), str(tmp_path / "release"), "the pool's")
        eventually((tmp_path / "runs").exists, "it runs")
        future.set_result("its owner's")
        (tmp_path / "release").touch()
        assert pool.submit(calls.double, 1).result(20) == 2
        assert future.result(0) == "its owner's"
