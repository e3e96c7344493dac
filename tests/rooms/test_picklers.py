"""Picklers that are kept and used again: each pickle is as if it came from a new one."""

from __future__ import annotations

import array
import copyreg
import functools
import gc
import pickle
import threading
import weakref
from multiprocessing.reduction import ForkingPickler

import pytest

from pidfdpool import payload, picklers
from pidfdpool.segments.apart import Apart


class Thing:
    def __init__(self, value=None):
        self.value = value


def first(_thing):
    return str, ("first",)


def second(_thing):
    return str, ("second",)


@pytest.fixture(params=["copyreg", "multiprocessing"])
def register(request):
    """Both ways to teach picklers a type; forgotten afterwards."""
    if request.param == "copyreg":
        yield copyreg.pickle
        copyreg.dispatch_table.pop(Thing, None)
    else:
        yield ForkingPickler.register
        ForkingPickler._extra_reducers.pop(Thing, None)


def rebuilt(value):
    try:
        data = picklers.pickled(value)
    except picklers.SharesResource:
        with picklers.Once() as once:
            data = once.pickled(value)
    return pickle.loads(data)


def test_a_reducer_is_known_from_the_moment_on_in_which_it_is_registered(register):
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


def test_multiprocessings_reducers_come_first():
    copyreg.pickle(Thing, first)
    ForkingPickler.register(Thing, second)
    try:
        assert rebuilt(Thing()) == "second"
    finally:
        del copyreg.dispatch_table[Thing], ForkingPickler._extra_reducers[Thing]
    assert isinstance(rebuilt(Thing()), Thing)


@pytest.fixture
def counted():
    """Teach multiprocessing's pickler a type, and count how often its reducer is called."""
    calls = []

    def reduce(thing):
        calls.append(thing)
        return Thing, (thing.value,)

    ForkingPickler.register(Thing, reduce)
    yield calls
    del ForkingPickler._extra_reducers[Thing]


@pytest.mark.parametrize("function", [id, lambda _: None], ids=["function", "lambda"])
@pytest.mark.parametrize("dumps", [payload.dumps, Apart])
@pytest.mark.parametrize("shared", [None, payload.Arrived(), payload.AllShared()], ids=["host", "spawn", "fork"])
def test_each_object_is_reduced_once_in_whichever_way_it_is_pickled(counted, function, dumps, shared):
    things = Thing(1), Thing(2)
    dumps((function, [*things, *things]), shared)
    assert counted == list(things)


def test_what_may_be_pickled_for_nothing_is_not_reduced(counted):
    with pytest.raises(picklers.SharesResource, match="'Thing'"):
        picklers.pickled([Thing()])
    assert counted == []


def test_methods_and_partials_are_pickled_at_once():
    """Guards against a second pickling of what multiprocessing reduces without any effect."""
    assert pickle.loads(picklers.pickled(functools.partial(int, base=2)))("11") == 3
    assert pickle.loads(picklers.pickled([1, 2].append))(3) is None
    assert pickle.loads(picklers.pickled(array.array("i", [1]))) == array.array("i", [1])


@pytest.mark.parametrize("value", [(abs, (1,), {}), ["x" * 10_000] * 3, b"y" * 100_000, None])
def test_the_second_pickle_is_the_same_as_the_first(value):
    assert picklers.pickled(value) == picklers.pickled(value) == pickle.dumps(value, picklers.PROTOCOL)


class Nested:
    def __reduce__(self):
        return pickle.loads, (picklers.pickled(["inner", abs]),)


def test_what_pickles_while_it_is_pickled_gets_a_pickler_of_its_own():
    assert pickle.loads(picklers.pickled([Nested(), "outer", Nested()])) == [["inner", abs], "outer", ["inner", abs]]


class Fails:
    def __reduce__(self):
        raise ZeroDivisionError


def test_a_pickler_that_failed_is_not_used_again():
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            picklers.pickled(["begun", Fails()])
        assert pickle.loads(picklers.pickled("good")) == "good"


def test_nothing_of_what_was_pickled_is_held():
    thing = Thing()
    gone = weakref.ref(thing)
    picklers.pickled([thing, thing])
    del thing
    gc.collect()
    assert gone() is None


def test_a_pickler_that_has_grown_large_is_not_kept():
    picklers.pickled("small")
    reducers = picklers._current()
    assert len(reducers._kept) >= 1
    reducers._kept.clear()
    picklers.pickled([Thing(number) for number in range(1000)])
    assert reducers._kept == []


def test_threads_do_not_share_one():
    wrong = []

    def work(number):
        value = [Thing(number), f"thread {number}"] * 20
        for _ in range(300):
            loaded = pickle.loads(picklers.pickled(value))
            if [getattr(item, "value", item) for item in loaded[:2]] != [number, f"thread {number}"]:
                wrong.append(loaded)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
