"""Whatever the code of exceptions, results, functions and callbacks does: no future is lost, and no other task."""

from __future__ import annotations

import asyncio
import copy
import linecache
import os
import pickle
import threading
import time
from concurrent.futures import CancelledError, wait
from contextlib import suppress

import pytest

from pidfdpool import PayloadError, PidfdPoolExecutor, PoolBroken, WorkerCrashed
from pidfdpool.loop import stacks
from pidfdpool.serialization import payload
from tests import calling_back, calls
from tests import hostile_objects as hostile
from tests.conditions import eventually
from tests.hostile_objects import Refusal

KINDS = (
    "Refusal", "Untold", "OfUnnamed", "Untraced", "Unrelated", "Classless", "NeitherTrueNorFalse", "Falsy",
    "Incomparable", "BecomesPretender", "StopIteration", "GeneratorExit", "SystemExit", "KeyboardInterrupt",
    "RecursionError",
)  # fmt: skip
PICKLES_NOT = ("BecomesPretender", "OfUnnamed")  # the latter cannot be found by its name


def name_of(error):
    return vars(type)["__name__"].__get__(type(error))


def test_a_task_may_raise_whatever_it_likes(pool):
    pool.submit(calls.double, 0).result()
    futures = {kind: pool.submit(hostile.raise_now, kind) for kind in KINDS}
    others = [pool.submit(calls.double, number) for number in range(5)]
    raised = {kind: name_of(future.exception(30)) for kind, future in futures.items()}
    assert raised == {kind: "PayloadError" if kind in PICKLES_NOT else kind for kind in KINDS}
    for future in futures.values():
        with pytest.raises(BaseException) as caught:  # noqa: PT011  result() raises what exception() returns
            future.result()
        assert caught.value is future.exception()
    assert [other.result(30) for other in others] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("make", [hostile.give, hostile.raise_holding])
def test_a_result_or_an_exception_may_raise_whatever_it_likes_when_it_is_rebuilt(pool, make):
    pool.submit(calls.double, 0).result()
    futures = [pool.submit(make, kind) for kind in KINDS]
    others = [pool.submit(calls.double, number) for number in range(5)]
    errors = [future.exception(30) for future in futures]
    assert [type(error) for error in errors] == [PayloadError] * len(KINDS)
    assert "Untold: the text" in str(errors[KINDS.index("Untold")])
    assert "OfUnnamed" in str(errors[KINDS.index("OfUnnamed")])
    assert [other.result(30) for other in others] == [0, 2, 4, 6, 8]
    assert pool.submit(calls.double, 21).result(30) == 42


def test_what_was_read_with_it_is_told_all_the_same(pool):
    """Many answers come in one read, and the one that fails is among them."""
    futures = [
        pool.submit(hostile.give, "Refusal") if n % 7 == 3 else pool.submit(calls.double, n) for n in range(300)
    ]
    assert not wait(futures, 60).not_done
    for n, future in enumerate(futures):
        if n % 7 == 3:
            assert isinstance(future.exception(), PayloadError)
        else:
            assert future.result() == 2 * n


def test_asyncio_is_told_of_every_kind(pool):
    async def outcome(kind):
        try:
            await pool.run(hostile.raise_now, kind)
        except BaseException as error:
            return name_of(error)

    async def main():
        return [await asyncio.wait_for(outcome(kind), 30) for kind in kinds]

    kinds = [kind for kind in KINDS if kind != "GeneratorExit"]  # which coroutines take for a word of Python's own
    wanted = {"StopIteration": "RuntimeError", **dict.fromkeys(PICKLES_NOT, "PayloadError")}
    assert asyncio.run(main()) == [wanted.get(kind, kind) for kind in kinds]


def test_the_classes_in_retry_on_may_refuse_to_judge(pool):
    view = pool.options(retries=1, retry_on=(hostile.Judge, hostile.NeitherTrueNorFalse), retry_backoff=0)
    assert name_of(view.submit(hostile.raise_now, "Refusal").exception(30)) == "Refusal"
    twice = pool.options(retries=1, retry_on=(hostile.NeitherTrueNorFalse,), retry_backoff=0)
    assert name_of(twice.submit(hostile.raise_now, "NeitherTrueNorFalse").exception(30)) == "NeitherTrueNorFalse"
    assert isinstance(view.submit(calls.die).exception(30), WorkerCrashed)
    assert pool.submit(calls.double, 21).result(30) == 42


def test_what_is_called_may_have_no_name(pool):
    assert pool.submit(hostile.Nameless(), 5).result(30) == 5
    assert pool.submit(hostile.misnamed, 5).result(30) == 5
    error = pool.submit(hostile.misnamed, "die").exception(30)
    assert isinstance(error, WorkerCrashed)
    assert error.task == "tests.hostile_objects.misnamed"


def test_a_name_may_be_a_string_of_another_kind(pool):
    def named(value):
        return value or os._exit(1)

    named.__module__ = hostile.NoText("module")
    named.__qualname__ = hostile.NoText("name")
    futures = [pool.submit(named, value) for value in (1, 0, 2)]
    assert [type(future.exception(30)) for future in futures] == [type(None), WorkerCrashed, type(None)]
    assert futures[1].exception().task == "module.name"
    assert type(futures[1].exception().task) is str


@pytest.mark.parametrize("where", [{"initializer": hostile.Initialized()}, {"preload": hostile.Initialized()}])
def test_what_breaks_the_pool_need_not_say_why(way, where):
    with PidfdPoolExecutor(1, mp_context=way, **where) as pool:
        futures = [pool.submit(calls.double, 0)]
        with suppress(PoolBroken):  # it may be broken already
            futures += [pool.submit(calls.double, number) for number in range(2)]
        assert {type(future.exception(30)) for future in futures} == {PoolBroken}
        assert isinstance(futures[0].exception().__cause__, Refusal)


def test_callbacks_and_subscribers_may_raise_whatever_they_like(pool, caplog):
    told = []
    for kind in KINDS:
        pool.subscribe(lambda _death, kind=kind: hostile.raise_now(kind))
    pool.subscribe(told.append)
    for number in range(3):
        raising = [lambda _future, kind=kind: hostile.raise_now(kind) for kind in KINDS]
        future = calling_back.submit(pool, *raising, told.append, then=calls.die if number == 1 else int)
        assert not wait([future], 30).not_done
    eventually(lambda: len(told) == 4, "the last of them is called each time")
    assert pool.submit(calls.double, 21).result(30) == 42
    assert "exception calling callback" in caplog.text


def test_which_subscription_ends_is_not_for_the_callbacks_to_say(pool):
    class Same:
        def __init__(self):
            self.deaths = []

        def __call__(self, death):
            self.deaths.append(death)

        def __eq__(self, _other):
            return True

        __hash__ = None

    first, second = Same(), Same()
    pool.subscribe(first)
    pool.subscribe(second)()
    pool.submit(calls.die).exception(30)
    eventually(lambda: first.deaths, "it is told")
    assert not second.deaths


def test_a_reason_may_be_a_string_of_another_kind(pool):
    deaths = []
    pool.subscribe(deaths.append)
    assert pool.submit(hostile.be_unwell).result(30) == "done"
    eventually(lambda: deaths, "the worker is replaced")
    assert deaths[0].detail == "tired"


def test_a_loader_of_the_users_may_raise_whatever_it_likes(monkeypatch):
    """The lines of source in a dead worker's stack come from it."""
    monkeypatch.setitem(linecache.cache, "made up", (lambda: hostile.raise_now("SystemExit"),))
    frame = 'Thread 0x1 (most recent call first):\n  File "made up", line 1 in work'
    assert stacks.told(frame) == frame


class LetsGo:
    """Tells, when it dies, whether another thread could use the pool at that moment."""

    def __init__(self, pool, told):
        self.pool, self.told = pool, told

    def __reduce__(self):
        return int, ()

    def __del__(self):
        used = threading.Event()

        def use():
            self.pool.workers()
            used.set()

        threading.Thread(target=use).start()
        self.told.append(used.wait(20))


def test_what_a_call_held_dies_without_a_lock(pool):
    """The last reference to a function, and to what that refers to, may be the pool's."""
    told = []

    def submit(held):
        function = lambda value: (time.sleep(0.1), value, held)[1]  # noqa: E731  it ends when nobody else holds it
        return pool.submit(function, 1)

    futures = [submit(LetsGo(pool, told)) for _ in range(2)]
    assert [future.result(60) for future in futures] == [1, 1]
    eventually(lambda: len(told) == 2, "they are dead", seconds=60)
    assert told == [True, True]


def test_who_waits_deep_in_the_stack_rebuilds_no_results_of_others(pool, held):
    """It would run out of stack in the middle of somebody else's result."""
    other = pool.submit(calls.sleep, 0.05, nested(150))

    def descend(levels):
        return descend(levels - 1) if levels else held.result(30)

    threading.Timer(0.5, held.release.touch).start()
    assert descend(900) == "value"
    assert other.result(30) == nested(150)


def nested(levels):
    found = Box(None)
    for _ in range(levels):
        found = Box(found)
    return found


class Box:
    """Takes two levels of the stack for each level when it is rebuilt."""

    def __init__(self, inner):
        self.inner = inner

    def __reduce__(self):
        return unpack, (pickle.dumps(self.inner),)

    def __eq__(self, other):
        return payload.picklers.dumps(self) == payload.picklers.dumps(other)

    __hash__ = None


def unpack(inner):
    return Box(pickle.loads(inner))


# ---- futures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", [copy.copy, copy.deepcopy, pickle.dumps, payload.dumps])
def test_a_future_is_neither_copied_nor_pickled(pool, use):
    finished, cancelled = pool.submit(calls.double, 2), pool.submit(calls.sleep, 0.1)
    cancelled.cancel()
    finished.result()
    for future in (finished, cancelled):
        with pytest.raises(TypeError, match=r"cannot copy or pickle 'Future' object.*its result\(\) instead"):
            use(future)


def test_a_future_is_no_argument_and_no_result(pool):
    error = pool.submit(calls.double, pool.submit(calls.double, 2)).exception(30)
    assert "cannot copy or pickle 'Future' object" in str(error)
    assert "argument 1 of double()" in str(error)


def test_all_that_wait_for_a_future_are_told_of_its_cancellation(pool, tmp_path):
    started = tmp_path / "started"
    future = pool.options(cancel_kills=True).submit(calls.touch_and, str(started), "sleep")
    eventually(started.exists, "it runs")
    told = []

    def wait_for_it():
        try:
            told.append(future.result(60))
        except BaseException as error:
            told.append(type(error))

    threads = [threading.Thread(target=wait_for_it, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    eventually(lambda: threading.active_count() >= 4, "they run")
    time.sleep(0.1)  # until all of them wait, most probably; none may hang in any case
    assert future.cancel()
    for thread in threads:
        thread.join(30)
    assert told == [CancelledError] * 3
