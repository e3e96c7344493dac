"""Picklers that are kept and used again: each pickle is the same as from a new one."""

from __future__ import annotations

import array
import copyreg
import functools
import gc
import pickle
import threading
import weakref
from multiprocessing import Pipe, resource_sharer
from multiprocessing.reduction import ForkingPickler

import pytest

from pidfdpool.serialization import payload, picklers
from pidfdpool.serialization.out_of_band import OutOfBandPickle
from tests.conditions import open_descriptors


class Thing:
    def __init__(self, value=None):
        self.value = value


def first(_thing):
    return str, ("first",)


def second(_thing):
    return str, ("second",)


@pytest.fixture(params=["copyreg", "multiprocessing"])
def register(request):
    """Yield each of the two ways to register a reducer; it is removed afterwards."""
    if request.param == "copyreg":
        yield copyreg.pickle
        copyreg.dispatch_table.pop(Thing, None)
    else:
        yield ForkingPickler.register
        ForkingPickler._extra_reducers.pop(Thing, None)


def rebuilt(value):
    try:
        data = picklers.dumps(value)
    except picklers.SharesResource:
        with picklers.ResourceReducers() as resources:
            data = resources.dumps(value)
    return pickle.loads(data)


def test_a_reducer_takes_effect_when_it_is_registered(register):
    assert isinstance(rebuilt(Thing()), Thing)
    register(Thing, first)
    assert rebuilt(Thing()) == "first"
    register(Thing, second)
    assert rebuilt(Thing()) == "second"


def test_the_same_holds_for_what_travels_by_value(register):
    def rebuilt():
        return payload.loads(payload.dumps([lambda: 0, Thing()]))[1]

    assert isinstance(rebuilt(), Thing)
    register(Thing, first)
    assert rebuilt() == "first"
    register(Thing, second)
    assert rebuilt() == "second"


def test_multiprocessings_reducers_take_precedence():
    copyreg.pickle(Thing, first)
    ForkingPickler.register(Thing, second)
    try:
        assert rebuilt(Thing()) == "second"
    finally:
        del copyreg.dispatch_table[Thing], ForkingPickler._extra_reducers[Thing]
    assert isinstance(rebuilt(Thing()), Thing)


@pytest.fixture
def counted():
    """Register a reducer with multiprocessing's pickler, and count its calls."""
    calls = []

    def reduce(thing):
        calls.append(thing)
        return Thing, (thing.value,)

    ForkingPickler.register(Thing, reduce)
    yield calls
    del ForkingPickler._extra_reducers[Thing]


@pytest.mark.parametrize("function", [id, lambda _: None], ids=["function", "lambda"])
@pytest.mark.parametrize("dumps", [payload.dumps, OutOfBandPickle])
@pytest.mark.parametrize(
    "shared", [None, payload.ReceivedMain(), payload.InheritedMain()], ids=["host", "spawn", "fork"]
)
def test_each_resource_is_reduced_once_however_it_is_pickled(counted, function, dumps, shared):
    things = Thing(1), Thing(2)
    dumps((function, [*things, *things]), shared)
    assert counted == list(things)


def test_resources_are_not_reduced_without_resource_reducers(counted):
    with pytest.raises(picklers.SharesResource, match="'Thing'"):
        picklers.dumps([Thing()])
    assert counted == []


def test_methods_and_partials_need_no_resource_reducers():
    """Guards against pickling twice what multiprocessing reduces without side effects."""
    assert pickle.loads(picklers.dumps(functools.partial(int, base=2)))("11") == 3
    assert pickle.loads(picklers.dumps([1, 2].append))(3) is None
    assert pickle.loads(picklers.dumps(array.array("i", [1]))) == array.array("i", [1])


@pytest.mark.parametrize("value", [(abs, (1,), {}), ["x" * 10_000] * 3, b"y" * 100_000, None])
def test_the_second_pickle_is_the_same_as_the_first(value):
    assert picklers.dumps(value) == picklers.dumps(value) == pickle.dumps(value, picklers.PROTOCOL)


class Nested:
    def __reduce__(self):
        return pickle.loads, (picklers.dumps(["inner", abs]),)


def test_nested_pickling_uses_another_pickler():
    assert pickle.loads(picklers.dumps([Nested(), "outer", Nested()])) == [["inner", abs], "outer", ["inner", abs]]


class Fails:
    def __reduce__(self):
        raise ZeroDivisionError


def test_a_pickler_that_failed_is_not_used_again():
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            picklers.dumps(["begun", Fails()])
        assert pickle.loads(picklers.dumps("good")) == "good"


def test_a_kept_pickler_holds_no_objects():
    thing = Thing()
    gone = weakref.ref(thing)
    picklers.dumps([thing, thing])
    del thing
    gc.collect()
    assert gone() is None


def test_a_large_pickler_is_not_kept():
    picklers.dumps("small")
    reducers = picklers._current_tables()
    assert len(reducers.idle) >= 1
    reducers.idle.clear()
    picklers.dumps([Thing(number) for number in range(1000)])
    assert reducers.idle == []


def test_threads_do_not_share_a_pickler():
    wrong = []

    def work(number):
        value = [Thing(number), f"thread {number}"] * 20
        for _ in range(300):
            loaded = pickle.loads(picklers.dumps(value))
            if [getattr(item, "value", item) for item in loaded[:2]] != [number, f"thread {number}"]:
                wrong.append(loaded)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("dumps", [payload.dumps, OutOfBandPickle])
def test_what_shares_a_resource_is_let_go_of_when_it_is_pickled(monkeypatch, dumps):
    """An object that a caller drops, a socket say, is not kept open by its pickle."""
    monkeypatch.setitem(ForkingPickler._extra_reducers, Thing, first)
    thing = Thing(1)
    gone = weakref.ref(thing)
    gc.disable()
    try:
        dumps([thing, thing])
        del thing
        assert gone() is None
    finally:
        gc.enable()
        picklers.pop_shared_resources()


def test_what_was_reduced_once_is_kept_so_that_nothing_else_gets_its_place():
    """A payload is pickled in several ways one after the other; what a reduction makes is gone after the first."""
    ours, theirs = Pipe()
    with theirs, picklers.ResourceReducers() as resources:
        resources.dumps(ours)
        noted = weakref.ref(ours)
        ours.close()
        del ours
        assert noted() is not None
    picklers.close_unfetched(picklers.pop_shared_resources())
    resource_sharer.stop()


def test_what_was_shared_for_a_payload_that_is_not_sent_after_all_is_closed():
    """Nobody would fetch the duplicates, and they would stay open as long as this process runs."""
    ours, theirs = Pipe()
    with ours, theirs:
        waiting = resource_sharer._resource_sharer._cache
        with picklers.ResourceReducers() as resources:
            resources.dumps([ours, theirs])
        assert len(waiting) == 2
        shared = picklers.pop_shared_resources()
        assert not picklers.are_fetched(shared)
        picklers.close_unfetched(shared)
        assert picklers.are_fetched(shared)
        before = open_descriptors()
        resources = picklers.ResourceReducers()
        resources.dumps([ours, theirs])
        assert len(open_descriptors()) == len(before) + 2
        with pytest.raises(ZeroDivisionError), resources:
            resources.dumps([ours, theirs, Fails()])
        assert waiting == {}
        assert open_descriptors() == before
        assert picklers.pop_shared_resources() == []
    resource_sharer.stop()
