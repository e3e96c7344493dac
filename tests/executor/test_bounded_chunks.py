"""When a map with a buffersize submits what it has taken, and in which chunks: with a pool that a test plays."""

from __future__ import annotations

import types

import pytest

from pidfdpool import Policy
from pidfdpool.executor.bounded_map import BoundedMap
from pidfdpool.executor.futures import Future
from pidfdpool.executor.map_request import MapRequest
from pidfdpool.serialization import payload

TINY, LONG = 1e-6, 1e-3  # seconds


class Played:
    """Takes chunks in the place of an executor with two workers. The test says when one has ended."""

    _policy = Policy(2)

    def __init__(self):
        self.sent = []  # futures of chunks, and their calls
        self.answered = 0

    def submit(self, _chunk, _function, buffers, starred):
        assert not starred
        self.sent.append((Future(), payload.loads([buffer.raw() for buffer in buffers])))
        return self.sent[-1][0]

    def _register_map(self, _map):
        return 2, types.SimpleNamespace(recipe=types.SimpleNamespace(shared_main=None))

    def _submitter_ref(self, _lost=None):
        return lambda: self

    def answer(self, seconds, count=None):
        """Have chunks end, in their order: so many, or all that there are, also those that are sent meanwhile."""
        while self.answered < len(self.sent) and count != 0:
            future, calls = self.sent[self.answered]
            self.answered += 1
            future._resolve((([10 * call for call in calls],), None, seconds * len(calls)), None)
            count = None if count is None else count - 1

    def sizes(self, since=0):
        return [len(calls) for _, calls in self.sent[since:]]

    def calls(self):
        return [call for _, calls in self.sent for call in calls]


class Endless:
    def __init__(self):
        self.taken = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.taken += 1
        return self.taken - 1


def begin(buffersize, *, ordered=True, inputs=None):
    played, inputs = Played(), inputs or Endless()
    bounded = BoundedMap(played, MapRequest(abs, (inputs,)), buffersize, ordered=ordered)
    return played, inputs, bounded, bounded.results(None)


def run_in(played, results, seconds, count):
    """Take so many results, each chunk of which ends before it is waited for."""
    for _ in range(count):
        played.answer(seconds)
        next(results)


@pytest.mark.parametrize("ordered", [True, False])
def test_until_a_call_was_measured_two_for_each_worker_are_submitted(ordered):
    played, inputs, _, _ = begin(1000, ordered=ordered)
    assert (played.sizes(), inputs.taken) == ([1] * 4, 1000)
    assert all(future._has_callbacks() for future, _ in played.sent)


@pytest.mark.parametrize("ordered", [True, False])
def test_tiny_calls_are_submitted_in_growing_chunks_though_nobody_takes_results(ordered):
    played, _, _, _ = begin(1000, ordered=ordered)
    played.answer(TINY, 1)
    assert played.sizes(4) == [16]
    played.answer(TINY)
    assert played.calls() == list(range(1000))
    assert max(played.sizes()) == 250


@pytest.mark.parametrize("ordered", [True, False])
def test_long_calls_are_submitted_at_once_and_each_alone(ordered):
    played, inputs, _, results = begin(100, ordered=ordered)
    played.answer(LONG, 2)
    played.answer(LONG, 10)
    assert played.sizes() == [1] * 100
    for count in range(1, 8):
        next(results)
        assert (len(played.sent), inputs.taken) == (100 + count, 100 + count)


def test_in_the_long_run_the_consumer_submits_full_chunks_and_nobody_is_called_back():
    played, _, _, results = begin(1000)
    run_in(played, results, TINY, 5000)
    before = len(played.sent)
    run_in(played, results, TINY, 5000)
    assert played.sizes(before) == [250] * 20
    assert played.calls() == list(range(len(played.calls())))


@pytest.mark.parametrize(("seconds", "size"), [(1e-7, 500), (3e-7, 500), (5e-7, 250), (2e-6, 250)])
def test_each_worker_has_one_chunk_where_to_wake_it_takes_longer_than_the_chunk_and_two_elsewhere(seconds, size):
    played, inputs, _, results = begin(1000)
    run_in(played, results, seconds, 5000)
    before = len(played.sent)
    run_in(played, results, seconds, 5000)
    assert set(played.sizes(before)) == {size}
    assert inputs.taken == 11_000


def test_the_futures_of_full_chunks_have_no_callbacks():
    played, _, _, results = begin(1000)
    run_in(played, results, TINY, 5000)
    played.answer(TINY)
    before = len(played.sent)
    while len(played.sent) == before:
        next(results)
    assert not played.sent[-1][0]._had_callbacks


def test_a_chunk_is_short_only_if_a_worker_is_idle_and_the_consumer_would_wait():
    played, _, bounded, _ = begin(16)
    played.answer(TINY)
    assert played.calls() == list(range(16))
    # In the place of the consumer: three inputs are taken, which is less than a chunk of eight.
    for _ in range(3):
        bounded.step()
    bounded._submit_held(consumer=True)
    assert played.calls() == list(range(16)), "there are results for the consumer"
    bounded.entries.in_order.clear()
    bounded._submit_held(consumer=True)
    assert played.calls() == list(range(19))
    assert played.sizes()[-1] == 3
    for _ in range(2):
        bounded.step()
    bounded._submit_held(consumer=True)
    assert played.sizes()[-1] == 2, "one worker has nothing to do, and the first result is not there"
    bounded.step()
    bounded._submit_held(consumer=True)
    assert played.sizes()[-1] == 2, "both workers have something to do"
    for _ in range(7):
        bounded.step()
    bounded._submit_held(consumer=True)
    assert played.sizes()[-1] == 8


def test_when_tiny_calls_become_long_what_is_held_is_submitted_at_once():
    played, inputs, _, results = begin(1000)
    run_in(played, results, TINY, 3000)
    run_in(played, results, 100 * LONG, 1500)
    assert len(played.calls()) == inputs.taken
    assert set(played.sizes()[-40:]) == {1}


def test_at_the_end_of_the_inputs_nothing_is_held_back():
    played, _, _, results = begin(1000, inputs=iter(range(1010)))
    played.answer(TINY)
    found = [next(results) for _ in range(400)]
    assert played.calls() == list(range(1010))
    played.answer(TINY)
    assert found + list(results) == [10 * n for n in range(1010)]


def test_a_failure_to_submit_is_told_behind_the_results_of_what_was_submitted():
    played, _, _, results = begin(1000)

    def refuse(*_):
        raise LookupError("refused")

    played.submit = refuse
    played.answer(TINY)
    assert [next(results) for _ in range(4)] == [0, 10, 20, 30]
    with pytest.raises(LookupError, match="refused"):
        next(results)
