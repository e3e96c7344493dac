"""One call of a map that fails, dies, forks or cannot travel: whatever the pool does with chunks, it is that call."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import itertools
import os
import sys
import threading

import pytest

from pidfdpool import Future, PayloadError, PidfdPoolExecutor, WorkerCrashed
from pidfdpool.errors import TaskTimeout
from pidfdpool.executor.options import Options
from tests import calls
from tests.conditions import eventually
from tests.map_calls import taken

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="nobody's")


@pytest.fixture
def pool():
    """Provide a pool. How its template comes into being makes no difference to what is tested here."""
    with PidfdPoolExecutor(2) as pool:
        yield pool


def same(value):
    return value


def note(path, value):
    """Append a line to a file and return the value."""
    with open(path, "a") as file:
        file.write("x\n")
    return value


def lines(path):
    return path.read_text().split("\n")[:-1] if path.exists() else []


def _refuse(*_):
    raise ValueError("not here")


def _refuse_elsewhere(process):
    if os.getpid() != process:
        raise ValueError("not in this process")
    return OnlyHere()


class Nowhere:
    """Pickles, and cannot be rebuilt."""

    def __reduce__(self):
        return _refuse, ()


class OnlyHere:
    """Can be rebuilt in the process only that pickled it."""

    def __reduce__(self):
        return _refuse_elsewhere, (os.getpid(),)


def note_and_return_one_that_stays(path, value, at):
    return note(path, OnlyHere() if value == at else value)


def note_fork_and_return(path, value, at):
    """Note who runs the call; at one value, return in two processes."""
    with open(path, "a") as file:
        file.write(f"{value} {os.getpid()}\n")
    if value == at:
        os.fork()
    return value


def die_at(value, at):
    if value == at:
        os._exit(5)
    return value


# ---- (a) whose submit it is --------------------------------------------------------------------------------


class Bounded(PidfdPoolExecutor):
    """Has its own way to submit, as tools that trace or limit calls have."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.by = []
        self.free = threading.Semaphore(2)

    def submit(self, fn, /, *args, **kwargs):
        self.by.append((threading.get_ident(), VARIABLE.get(), fn, args))
        self.free.acquire()
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(lambda _: self.free.release())
        return future


def test_a_subclasss_submit_is_called_for_each_call_by_the_caller():
    me = threading.get_ident(), "mine"
    token = VARIABLE.set("mine")
    try:
        with Bounded(2) as pool:
            assert list(pool.map(same, range(40))) == list(range(40))
            assert sorted(pool.map_unordered(same, range(10))) == list(range(10))
            assert asyncio.run(_amapped(pool, range(10))) == list(range(10))
            assert {by[:2] for by in pool.by} == {me}
            assert [by[2:] for by in pool.by] == [(same, (n,)) for n in [*range(40), *range(10), *range(10)]]
    finally:
        VARIABLE.reset(token)


async def _amapped(pool, values):
    return [result async for result in pool.amap(same, values)]


def test_a_submit_that_was_put_in_its_place_is_called_in_the_same_way(monkeypatch):
    with PidfdPoolExecutor(1) as pool:
        assert pool._sizes_chunks()
        assert pool.options(priority=1)._sizes_chunks()
        for owner, submitter in ((pool, pool), (PidfdPoolExecutor, pool), (Options, pool.options(priority=1))):
            with monkeypatch.context() as patch:
                seen = []
                patch.setattr(owner, "submit", lambda *given, seen=seen: seen.append(given) or _resolved(given[-1]))
                assert list(submitter.map(same, range(5))) == list(range(5))
                assert len(seen) == 5
        assert pool._sizes_chunks()


def _resolved(result):
    future: Future = Future()
    future.set_result(result)
    return future


class TellsItsContext:
    def __reduce__(self):
        return str, (VARIABLE.get(),)


def test_arguments_are_pickled_in_the_context_of_the_caller_whenever_that_is(pool):
    token = VARIABLE.set("the caller's")
    results = pool.map(same, [TellsItsContext() for _ in range(400)])
    VARIABLE.reset(token)
    assert set(results) == {"the caller's"}


# ---- (b) what does not travel ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Nowhere, threading.Lock], ids=["rebuilding", "pickling"])
def test_an_argument_that_does_not_travel_costs_no_other_call_anything(pool, tmp_path, kind):
    path = tmp_path / "made"
    given = [kind() if value == 41 else value for value in range(300)]
    results = pool.map(note, itertools.repeat(str(path)), given)
    eventually(lambda: len(lines(path)) == 299, "all others are made, though nobody takes a result")
    came, error = taken(results)
    assert came == list(range(41))
    assert isinstance(error, ValueError if kind is Nowhere else TypeError)
    assert len(lines(path)) == 299


def test_an_argument_of_the_only_iterable_that_does_not_travel(pool):
    came, error = taken(pool.map(same, [Nowhere() if value == 41 else (value,) for value in range(300)]))
    assert came == [(value,) for value in range(41)], "no tuple is taken for arguments"
    assert str(error) == "not here"


def test_a_result_that_cannot_be_rebuilt_costs_no_other_anything(pool, tmp_path):
    path = tmp_path / "made"
    arguments = itertools.repeat(str(path)), range(300), itertools.repeat(41)
    results = pool.map(note_and_return_one_that_stays, *arguments)
    eventually(lambda: len(lines(path)) == 300, "all calls are made")
    came, error = taken(results)
    assert came == list(range(41))
    assert isinstance(error, PayloadError)
    assert "not in this process" in str(error)

    async def take():
        came = []
        try:
            async for result in pool.amap(note_and_return_one_that_stays, *arguments):
                came.append(result)  # noqa: PERF401  what came before the error counts
        except PayloadError:
            return came

    assert asyncio.run(take()) == list(range(41))


# ---- (c) two processes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [None, 20, 100])
def test_a_call_that_returns_in_two_processes_makes_no_call_run_twice(pool, tmp_path, chunksize):
    path = tmp_path / "made"
    arguments = itertools.repeat(str(path)), range(100), itertools.repeat(41)
    assert list(pool.map(note_fork_and_return, *arguments, chunksize=chunksize)) == list(range(100))
    # The copy has left by now, or does so without another call: it says nothing of those behind.
    assert pool.submit(same, 5).result(20) == 5
    assert sorted(int(line.split()[0]) for line in lines(path)) == list(range(100))


def test_a_copy_leaves_a_long_run_of_calls_alone(pool, tmp_path):
    path = tmp_path / "made"
    # One task with more calls than are noted one by one.
    arguments = itertools.repeat(str(path)), range(1500), itertools.repeat(41)
    assert list(pool.map(note_fork_and_return, *arguments, chunksize=1500)) == list(range(1500))
    assert sorted(int(line.split()[0]) for line in lines(path)) == list(range(1500))


# ---- (d) lengths -------------------------------------------------------------------------------------------


class Lies(list):
    """Says of its length what it likes."""

    def __init__(self, values, length):
        super().__init__(values)
        self.length = length

    def __len__(self):
        if self.length is None:
            raise ZeroDivisionError("no length")
        return self.length


class Hints:
    """An iterator with a hint of that kind."""

    def __init__(self, values, length):
        self.values, self.length = iter(values), length

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.values)

    def __length_hint__(self):
        if self.length is None:
            raise ZeroDivisionError("no hint")
        return self.length


def test_nobody_asks_an_iterable_for_its_length(pool):
    for kind, length in itertools.product([Lies, Hints], [None, 0, 3, sys.maxsize]):
        for options in ({}, {"chunksize": 2}, {"buffersize": 2}):
            assert list(pool.map(same, kind(range(9), length), **options)) == list(range(9))
            given = kind(range(9), length), kind([1] * 9, length)
            assert sorted(pool.map_unordered(pow, *given, **options)) == [*range(9)]
        assert asyncio.run(_amapped(pool, kind(range(9), length))) == list(range(9))


def test_a_range_that_is_longer_than_any_list():
    for calls_ in (range(10**30), range(10**30, -(10**30), -7)):
        with PidfdPoolExecutor(1) as pool:
            results = pool.map(same, calls_)
            assert [next(results) for _ in range(300)] == list(itertools.islice(calls_, 300))
            results.close()


# ---- (e) which call it was ---------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [None, 25])
def test_the_error_of_a_crash_names_the_function_the_call_and_its_arguments(pool, chunksize):
    deaths = []
    pool.subscribe(deaths.append)
    given = [f"value {number}" for number in range(300)], itertools.repeat("value 141")
    for results in (
        pool.map(die_at, *given, chunksize=chunksize),
        pool.map_unordered(die_at, *given, chunksize=chunksize),
    ):
        _, error = taken(results)
        assert isinstance(error, WorkerCrashed)
        assert error.task == "tests.executor.test_map_faults.die_at, item 141 of map: 'value 141', 'value 141'"
        assert error.task in str(error)
        assert error.death.task == "tests.executor.test_map_faults.die_at, item 141 of map"
        assert not hasattr(error, "chunk")
    assert [death.task for death in deaths] == [error.death.task] * 2

    async def take():
        async for _ in pool.amap(die_at, *given, chunksize=chunksize):
            pass

    with pytest.raises(WorkerCrashed, match="item 141 of map: 'value 141'"):
        asyncio.run(take())


RULES = [{}, {"timeout": 60}, {"retries": 1, "retry_on": LookupError}, {"deadline": 60}, {"heartbeat_timeout": 60}]


@pytest.mark.costly_table
@pytest.mark.parametrize("rules", RULES, ids=lambda rules: next(iter(rules), "none"))
@pytest.mark.parametrize(
    "options", [{"buffersize": 3}, {"buffersize": 3, "chunksize": 2}, {"buffersize": 100}], ids=str
)
def test_the_error_of_a_crash_names_the_call_of_a_bounded_map_under_any_rule(pool, rules, options):
    """Guards: under a rule, where each call is a task, it named only the function."""
    for method in (pool.options(**rules).map, pool.options(**rules).map_unordered):
        _, error = taken(method(die_at, ["a", "b", "c", "d"], itertools.repeat("c"), **options))
        assert error.task == "tests.executor.test_map_faults.die_at, item 2 of map: 'c', 'c'"


class Unspeakable:
    def __repr__(self):
        raise RuntimeError("no")


def die_of(value):
    if isinstance(value, Unspeakable):
        os._exit(5)


def test_arguments_are_cut_and_need_no_text_of_their_own(pool):
    _, error = taken(pool.map(die_at, ["a" * 10_000] * 50, ["a" * 10_000] * 50))
    where, _, shown = error.task.partition(": ")
    assert where.endswith("item 0 of map")
    assert len(shown) == 100
    assert shown.endswith("...")
    _, error = taken(pool.map(die_of, [*range(50), Unspeakable(), *range(50)]))
    assert "item 50 of map: <" in error.task
    assert "Unspeakable" in error.task


def test_of_very_many_calls_it_is_told_between_which_it_was():
    with PidfdPoolExecutor(1) as pool:
        _, error = taken(pool.map(die_at, range(20_000), itertools.repeat(9_999), chunksize=20_000))
    assert error.task == "tests.executor.test_map_faults.die_at, items 9703 to 10015 of map"
    assert " (tests.executor.test_map_faults.die_at, items 9703 to 10015 of map)" in str(error)


def test_a_call_that_takes_too_long_is_named_too(pool):
    view = pool.options(timeout=2.0, grace=0.1)
    results = view.map(calls.double_or_hang, [1, 2, 3, 4], [3] * 4, chunksize=4)
    _, error = taken(results)
    assert isinstance(error, TaskTimeout)
    assert error.task == "tests.calls.double_or_hang, item 2 of map: 3, 3"


def test_a_worker_that_dies_between_calls_is_not_said_to_have_been_at_one():
    """While its calls are rebuilt none is under way; what was noted of the chunk before must not be told."""
    with PidfdPoolExecutor(1) as pool:
        assert list(pool.map(same, range(30), chunksize=10)) == list(range(30))
        _, error = taken(pool.map(same, [1, DiesElsewhere(os.getpid()), 3], chunksize=3))
        assert error.task == "tests.executor.test_map_faults.same, items 0 to 2 of map"


class DiesElsewhere:
    def __init__(self, process):
        self.process = process

    def __setstate__(self, state):
        if state["process"] != os.getpid():
            os._exit(5)


def test_a_chunk_may_be_called_by_whoever_gets_it():
    """As what the standard's map submits: a subclass may run calls in place."""

    class Inline(PidfdPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            future: concurrent.futures.Future = concurrent.futures.Future()
            future.set_result(fn(*args, **kwargs))
            return future

    with Inline(1) as pool:
        assert list(pool.map(pow, range(5), [2] * 5, chunksize=2)) == [0, 1, 4, 9, 16]
