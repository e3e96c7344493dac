"""Maps on a cluster that is made up: threads answer requests, in any order, or nobody does."""

from __future__ import annotations

import concurrent.futures
import itertools
import math
import random
import threading
import time

import pytest

import pidfdpool
from pidfdpool.integrations.dask_cluster import calls, options
from pidfdpool.integrations.dask_cluster.mapping import ClusterMap
from pidfdpool.integrations.dask_cluster.requests import Answer
from tests.conditions import eventually

SECONDS = 60.0


class Cluster:
    """Answers requests in threads, after short times that differ."""

    threads = 2

    def __init__(self, seed=5):
        self.pool = concurrent.futures.ThreadPoolExecutor(3)
        self.chance = random.Random(seed)
        self.requests = []
        self.cancelled = []
        self.failure = None

    def check(self):
        if self.failure is not None:
            raise self.failure

    def cancel(self, key):
        self.cancelled.append(key)
        return True

    def send(self, recipient, _rules, _name, function, pickled, *, first):
        self.check()
        self.requests.append((first, len(pickled)))
        recipient._sent(("f", len(self.requests)))
        self.pool.submit(self.answer, recipient, function, pickled, self.chance.random())

    def answer(self, recipient, function, pickled, chance):
        time.sleep(0.001 * (chance < 0.3))
        recipient._take(Answer("tcp://a:1", [calls.Call(function, each, None, 0)() for each in pickled]))


class Silent(Cluster):
    """Answers nothing."""

    def answer(self, *_):
        pass


@pytest.fixture
def cluster():
    made = Cluster()
    yield made
    made.pool.shutdown()


@pytest.fixture
def silent():
    made = Silent()
    yield made
    made.pool.shutdown()


def begin(cluster, function, *iterables, **settings):
    defaults = {"timeout": SECONDS, "chunksize": None, "buffersize": None, "return_exceptions": False, "star": False}
    return ClusterMap(cluster, options.rules({}), function, iterables, **{**defaults, "ordered": True, **settings})


@pytest.mark.parametrize("long", [1e308, math.inf, 10**400])
def test_results_are_waited_for_any_number_of_seconds(cluster, long):
    for ordered in (True, False):
        assert sorted(begin(cluster, abs, range(3), timeout=long, ordered=ordered).results()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "value", "kind", "told"),
    [
        ("timeout", math.nan, ValueError, "a number of seconds, or None, not nan"),
        ("timeout", "5", TypeError, "a number of seconds, or None, not '5'"),
        ("chunksize", True, TypeError, "an integer or None, not True"),
        ("chunksize", 2**63, ValueError, "<= 9223372036854775807, not 9223372036854775808"),
        ("buffersize", 0, ValueError, ">= 1, not 0"),
        ("buffersize", 1.5, TypeError, "an integer or None, not 1.5"),
        ("star", 1, TypeError, "True or False, not 1"),
        ("return_exceptions", None, TypeError, "True or False, not None"),
    ],
)
def test_what_makes_no_sense_is_refused_with_name_and_value(cluster, name, value, kind, told):
    with pytest.raises(kind, match=f"^{name} must be {told}$"):
        begin(cluster, abs, [1], **{name: value})
    assert not cluster.requests


SETTINGS = list(itertools.product([0, 1, 50, 400], [None, 1, 5, 60], [None, 1, 7], [True, False]))


@pytest.mark.parametrize(("count", "buffersize", "chunksize", "ordered"), SETTINGS)
def test_every_call_has_one_result(cluster, count, buffersize, chunksize, ordered):
    found = begin(cluster, abs, range(count), buffersize=buffersize, chunksize=chunksize, ordered=ordered)
    results = list(found.results())
    assert (results if ordered else sorted(results)) == list(range(count))
    assert [first for first, _ in cluster.requests] == list(
        itertools.accumulate([size for _, size in cluster.requests][:-1], initial=0)
    )[: len(cluster.requests)]


@pytest.mark.parametrize(("buffersize", "chunksize", "ahead"), [(6, None, 6), (2, 3, 6)])
def test_a_bounded_map_takes_no_more_than_it_may(cluster, buffersize, chunksize, ahead):
    taken: list[int] = []
    endless = (taken.append(number) or number for number in itertools.count())
    results = begin(cluster, abs, endless, buffersize=buffersize, chunksize=chunksize).results()
    for number in range(30):
        assert next(results) == number
        assert len(taken) <= number + 1 + ahead + (chunksize or 1)
    results.close()


def test_an_answer_amid_the_taking_of_inputs_sends_no_part_of_a_chunk(silent):
    """Such a part would count as a chunk, for which a whole one is taken: the map would run ever further ahead."""

    def numbers():
        for number in range(12):
            yield number
            if number == 6:
                answered.set_result(None)  # as the client's thread may at any time
                for recipient, function, pickled in held:
                    recipient._take(Answer("tcp://a:1", [calls.Call(function, each, None, 0)() for each in pickled]))

    answered: concurrent.futures.Future[None] = concurrent.futures.Future()
    held: list[tuple[object, ...]] = []
    silent.answer = lambda recipient, function, pickled, _: held.append((recipient, function, pickled))
    results = begin(silent, abs, numbers(), buffersize=2, chunksize=3).results()
    eventually(lambda: len(held) == 2, "both chunks are under way")
    assert next(results) == 0
    assert answered.done()
    assert silent.requests == [(0, 3), (3, 3), (6, 3)]
    results.close()


def test_very_many_that_do_not_pickle_are_as_many_outcomes(silent):
    locks = [threading.Lock()] * 3000
    outcomes = list(begin(silent, repr, locks, return_exceptions=True).results())
    assert [outcome.index for outcome in outcomes] == list(range(3000))
    assert {type(outcome.error) for outcome in outcomes} == {pidfdpool.CallNotSendable}


def test_all_calls_run_though_nobody_takes_the_results(cluster):
    found = begin(cluster, abs, range(300))
    eventually(lambda: sum(size for _, size in cluster.requests) == 300, "all were sent")
    assert list(found.results()) == list(range(300))


def test_few_calls_are_sent_alone_and_no_more_than_may_run(silent):
    begin(silent, abs, range(300))
    assert silent.requests == [(0, 1), (1, 1), (2, 1), (3, 1)]


def test_the_rest_is_sent_at_the_end(silent):
    found = begin(silent, abs, range(20))
    found.finish(cancel=False)
    assert sum(size for _, size in silent.requests) == 20


def test_a_cancelled_map_ends(silent):
    found = begin(silent, abs, range(20))
    found.finish(cancel=True)
    assert len(silent.cancelled) == 4
    with pytest.raises(concurrent.futures.CancelledError):
        list(found.results())


def test_a_map_times_out_and_cancels(silent):
    for ordered in (True, False):
        with pytest.raises(TimeoutError):
            next(begin(silent, abs, range(9), timeout=0.01, ordered=ordered).results())
    assert silent.cancelled


def test_a_cluster_that_breaks_ends_an_endless_map(cluster):
    results = begin(cluster, abs, itertools.count(), buffersize=5, return_exceptions=True).results()
    assert next(results) == (0, 0, None)
    cluster.failure = pidfdpool.PoolBroken("it went away")
    with pytest.raises(pidfdpool.PoolBroken, match="went away"):
        list(results)
