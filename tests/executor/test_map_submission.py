"""How the calls of a map are submitted: as which kind of task, under which rules, by which way."""

from __future__ import annotations

import itertools
import threading
import types
import weakref
from concurrent.futures import CancelledError, Future

import pytest

from pidfdpool import CallNotSendable, PidfdPoolExecutor, Policy
from pidfdpool.executor import map_submission, mapping
from pidfdpool.executor.adaptive_map import AdaptiveMap
from pidfdpool.executor.map_pieces import Kind, UnsentCall
from pidfdpool.executor.map_request import MapRequest
from pidfdpool.executor.map_submission import Submission
from pidfdpool.loop.chunk_calls import Terms
from pidfdpool.serialization import payload
from pidfdpool.transport.published import MAX_CALLS
from pidfdpool.worker.chunk import call_all
from pidfdpool.worker.chunk_publishing import call_alone, call_published


class Way:
    """Takes tasks in the place of an executor, and notes how."""

    def __init__(self, policy=None):
        self._policy, self.sent = policy or Policy(2), []

    def submit(self, chunk, *arguments):
        self.sent.append(("submit", chunk, arguments, None, None))
        return Future()

    def _submit_for(self, future, policy, chunk, arguments, keywords, *, wait):
        assert (keywords, wait) == ({}, True)
        self.sent.append(("for", chunk, arguments, policy, future))


def submission(function=abs, *, starred=False, lazy=False, **options):
    made = Submission(function, Policy(2, **options), None, starred=starred, lazy=lazy)
    assert made.pickle_function() is None
    return made


FOLLOWS, AGAIN = Terms(5.0, follows=True), Terms(attempts=1, follows=True)


@pytest.mark.parametrize(
    ("options", "lazy", "count", "terms", "publishes", "kind", "by"),
    [
        ({}, False, 3, None, False, Kind.TOGETHER, "submit"),
        ({}, False, 1, None, False, Kind.TOGETHER, "submit"),
        ({}, False, 3, None, True, Kind.EACH, "for"),
        ({}, False, MAX_CALLS, None, True, Kind.EACH, "for"),
        ({}, False, MAX_CALLS + 1, None, True, Kind.TOGETHER, "submit"),
        ({"timeout": 5.0}, False, 3, None, False, Kind.EACH, "for"),
        ({"timeout": 5.0}, False, 1, None, False, Kind.EACH, "for"),
        ({"timeout": 5.0}, True, 1, None, False, Kind.ALONE, "for"),
        ({"timeout": 5.0}, True, 2, None, False, Kind.EACH, "for"),
        ({}, True, 1, None, False, Kind.TOGETHER, "submit"),
        ({}, True, 3, FOLLOWS, False, Kind.EACH, "for"),
        ({"timeout": 5.0}, True, 1, FOLLOWS, False, Kind.EACH, "for"),
        ({"retries": 2}, False, 1, AGAIN, False, Kind.ALONE, "for"),
    ],
)
def test_a_chunk_is_of_the_kind_that_its_rules_ask_for(options, lazy, count, terms, publishes, kind, by):
    way = Way()
    (piece,) = submission(lazy=lazy, **options).submit(way, 10, list(range(count)), terms, publishes=publishes)
    ((how, chunk, arguments, policy, future),) = way.sent
    assert (piece.kind, piece.first, piece.count, how) == (kind, 10, count, by)
    assert chunk.call is {Kind.TOGETHER: call_all, Kind.EACH: call_published, Kind.ALONE: call_alone}[kind]
    assert chunk.label == f"builtins.abs, {'item 10' if count == 1 else f'items 10 to {9 + count}'} of map"
    assert payload.loads([arguments[0]]) is abs
    assert payload.loads([buffer.raw() for buffer in arguments[1]]) == list(range(count))
    assert piece.size == sum(buffer.raw().nbytes for buffer in arguments[1])
    assert future is None or piece.future is future
    if kind is Kind.EACH:
        assert policy.retries == 0, "the calls are tried again, and not the chunk"
        assert arguments[2:5] == (count, False, options.get("timeout"))
        assert piece.rest.since == (5.0 if terms is FOLLOWS else chunk.terms.since)
    if kind is Kind.ALONE:
        assert policy.retries == options.get("retries", 0)


def test_the_deadline_of_all_calls_counts_from_the_beginning_and_that_of_lazy_ones_from_their_submit(monkeypatch):
    now = itertools.count(100.0)
    monkeypatch.setattr(map_submission.time, "monotonic", lambda: next(now))
    for lazy, expected in ((False, [107.0, 107.0]), (True, [109.0, 110.0])):
        way, made = Way(), submission(lazy=lazy, deadline=7.0)
        for first in (0, 5):
            list(made.submit(way, first, [1, 2]))
        assert [arguments[5] for _, _, arguments, _, _ in way.sent] == expected


def test_of_calls_one_of_which_does_not_pickle_each_is_a_task_of_its_own():
    way, lock = Way(), threading.Lock()
    entries = list(submission().submit(way, 10, [1, lock, 3]))
    assert [type(entry) is UnsentCall for entry in entries] == [False, True, False]
    assert type(entries[1].error) is CallNotSendable
    assert "argument 1 of abs()" in str(entries[1].error)
    assert [entry.first for entry in (entries[0], entries[2])] == [10, 12]
    (entry,) = submission(pow, starred=True).submit(way, 0, [(2, lock)])
    assert "argument 2 of pow()" in str(entry.error)


def test_a_function_that_does_not_pickle_takes_the_place_of_all_calls():
    lock = threading.Lock()
    unsent = Submission(lambda x: lock, Policy(2), None, starred=False).pickle_function()
    assert type(unsent.error) is CallNotSendable
    assert "its variable 'lock'" in str(unsent.error)


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({}, 10**6),
        ({"timeout": 1.0}, MAX_CALLS),
        ({"max_tasks_per_child": 7}, 7),
        ({"max_tasks_per_child": MAX_CALLS + 5}, MAX_CALLS),
    ],
)
def test_no_more_calls_share_a_chunk_than_may(options, most):
    made = submission(**options)
    assert [made.at_most(count) for count in (1, most, most + 1)] == [1, most, most if options else most + 1]


# ---- maps with tasks of a fixed size ---------------------------------------------------------------------------


class Played:
    """Runs each task when the test says so."""

    _policy = Policy(2)

    def __init__(self):
        self.tasks = []

    def submit(self, function, *arguments):
        self.tasks.append((Future(), function, arguments))
        return self.tasks[-1][0]

    def _sizes_chunks(self):
        return False

    def _submitter_ref(self, _lost=None):
        return weakref.ref(self)

    def end(self, at):
        future, function, arguments = self.tasks[at]
        future.set_running_or_notify_cancel()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)


def refuse_at(number):
    for value in itertools.count():
        if value == number:
            raise LookupError(f"no {number}")
        yield value


OPTIONS = {"timeout": None, "chunksize": None, "buffersize": None}


@pytest.mark.parametrize("chunksize", [None, 3])
@pytest.mark.parametrize("buffersize", [None, 2])
@pytest.mark.parametrize("mapped", [mapping.in_order, mapping.as_they_come])
def test_all_calls_are_made_and_no_more_at_a_time_than_the_buffer_holds(mapped, chunksize, buffersize):
    played, size = Played(), chunksize or 1
    options = {**OPTIONS, "chunksize": chunksize, "buffersize": buffersize}
    results = mapped(played, pow, (range(12), itertools.repeat(2)), **options)
    assert len(played.tasks) == (2 if buffersize else 12 // size)
    came = []
    for at in range(12 // size):
        played.end(at)
        came += itertools.islice(results, size)
        # One more is submitted when the results of a task are asked for.
        assert len(played.tasks) == (min(at + 3, 12 // size) if buffersize else 12 // size)
    assert came == [number**2 for number in range(12)]
    assert next(results, "the end") == "the end"


@pytest.mark.parametrize("mapped", [mapping.in_order, mapping.as_they_come])
def test_an_iterable_that_raises_is_not_asked_again_and_its_error_comes_last(mapped):
    played, asked = Played(), []

    class Source:
        def __iter__(self):
            return self

        def __next__(self):
            asked.append(1)
            if len(asked) == 4:
                raise LookupError("the fourth")
            return len(asked)

    results = mapped(played, abs, (Source(),), **{**OPTIONS, "buffersize": 2})
    for at in range(3):
        played.end(at)
        assert next(results) == at + 1
    with pytest.raises(LookupError, match="the fourth"):
        next(results)
    assert len(asked) == 4
    assert next(results, "the end") == "the end"


@pytest.mark.parametrize("mapped", [mapping.in_order, mapping.as_they_come])
@pytest.mark.parametrize("how", ["left", "failed", "too late"])
def test_who_leaves_cancels_the_tasks_that_have_not_begun(mapped, how):
    played = Played()
    options = {**OPTIONS, "timeout": 0.0 if how == "too late" else None}
    results = mapped(played, divmod, (range(6), [1, 0, 1, 1, 1, 1]), **options)
    if how == "too late":
        with pytest.raises(TimeoutError):
            next(results)
    else:
        played.end(0)
        assert next(results) == (0, 0)
        played.tasks[5][0].set_running_or_notify_cancel()
        if how == "failed":
            played.end(1)
            with pytest.raises(ZeroDivisionError):
                next(results)
        else:
            results.close()
    expected = [False, how == "left", True, True, True, False]
    if how == "too late":
        expected = [True] * 6
    assert [future.cancelled() for future, _, _ in played.tasks] == expected


def test_a_map_of_fixed_size_goes_on_with_what_it_has_when_its_executor_is_gone():
    played = Played()
    results = mapping.in_order(played, abs, (range(9),), **{**OPTIONS, "buffersize": 2})
    for at in range(2):
        played.end(at)
    del played
    assert list(results) == [0, 1]


class Own(PidfdPoolExecutor):
    """Keeps what is submitted, by itself or through a view."""

    def submit(self, function, *arguments):
        future: Future = Future()
        self._submit_for(future, self._policy, function, arguments, {}, wait=True)
        return future

    def _submit_for(self, future, policy, function, arguments, keywords, *, wait):
        self.__dict__.setdefault("tasks", []).append((future, function, arguments, policy))


@pytest.mark.parametrize("through", ["the executor", "a view"])
@pytest.mark.parametrize(("name", "expected"), [("map", [0, 1, 4]), ("map_unordered", [4, 1, 0])])
def test_results_come_in_the_order_of_the_calls_or_as_they_come(through, name, expected):
    pool = Own(2)
    submitter = pool if through == "the executor" else pool.options(priority=3)
    results = getattr(submitter, name)(pow, range(3), [2] * 3, chunksize=1)
    for future, function, arguments, policy in reversed(pool.tasks):
        future.set_result(function(*arguments))
        assert policy.priority == (0 if through == "the executor" else 3)
    assert list(results) == expected


@pytest.mark.parametrize("through", ["the executor", "a view"])
@pytest.mark.parametrize("name", ["map", "map_unordered"])
def test_what_is_said_of_a_map_is_heeded_by_each_of_its_forms(through, name):
    pool = Own(2)
    mapped = getattr(pool if through == "the executor" else pool.options(priority=3), name)
    mapped(pow, range(10), [2] * 10, chunksize=4, buffersize=2)
    assert len(pool.tasks) == 2
    (calls,) = pool.tasks[0][2]
    assert calls == [(0, 2), (1, 2), (2, 2), (3, 2)]
    with pytest.raises(TimeoutError):
        next(mapped(pow, range(3), [2] * 3, chunksize=1, timeout=0.0))


# ---- maps whose chunks the pool sizes --------------------------------------------------------------------------


class Adaptive(Played):
    def __init__(self):
        super().__init__()
        self.maps = []
        self.pool = types.SimpleNamespace(
            recipe=types.SimpleNamespace(shared_main=None), hold=lambda _: None, let_go=lambda _: None
        )

    def _register_map(self, adaptive):
        self.maps.append(adaptive)
        return 2, self.pool

    def calls(self, at):
        return list(payload.loads([buffer.raw() for buffer in self.tasks[at][2][1]]))

    def end(self, at):
        calls = self.calls(at)
        self.tasks[at][0].set_result((([10 * call for call in calls],), None, 1e-6 * len(calls)))


def test_an_adaptive_map_submits_the_next_chunk_when_one_has_ended_and_the_rest_when_it_has_to():
    played = Adaptive()
    made = AdaptiveMap(played, MapRequest(abs, (range(100),)), ordered=True)
    assert [played.calls(at) for at in range(len(played.tasks))] == [[0], [1], [2], [3]]
    played.end(1)
    assert len(played.tasks) == 5, "though nobody takes a result"
    assert played.calls(4) == list(range(4, 20)), "it is larger, by what was measured"
    assert made.submit_rest()
    tasks = range(len(played.tasks))
    assert [call for at in tasks for call in played.calls(at)] == list(range(100))
    for at in (0, *tasks[2:]):
        played.end(at)
    assert len(played.tasks) == len(tasks)
    assert list(made.results(None)) == [10 * number for number in range(100)]


@pytest.mark.parametrize("submitted", ["all", "some"])
def test_a_shutdown_that_cancels_ends_only_a_map_that_has_calls_left(submitted):
    played = Adaptive()
    made = AdaptiveMap(played, MapRequest(abs, (range(4 if submitted == "all" else 6),)), ordered=True)
    made.stop_submitting(CancelledError())
    for at in range(4):
        played.end(at)
    assert len(played.tasks) == 4
    results = made.results(None)
    assert [next(results) for _ in range(4)] == [0, 10, 20, 30]
    if submitted == "all":
        assert next(results, "the end") == "the end"
    else:
        with pytest.raises(CancelledError):
            next(results)


def test_why_the_rest_could_not_be_submitted_is_told_behind_what_was():
    played = Adaptive()
    made = AdaptiveMap(played, MapRequest(abs, (range(6),)), ordered=True)
    made.stop_submitting(LookupError("first"))
    made.stop_submitting(LookupError("second"))
    for at in range(4):
        played.end(at)
    results = made.results(None)
    assert [next(results) for _ in range(4)] == [0, 10, 20, 30]
    with pytest.raises(LookupError, match="first"):
        next(results)


def test_an_adaptive_map_that_is_left_submits_nothing_more():
    played = Adaptive()
    made = AdaptiveMap(played, MapRequest(abs, (range(12),)), ordered=True)
    played.tasks[0][0].set_running_or_notify_cancel()
    made.cancel()
    assert [future.cancelled() for future, _, _ in played.tasks] == [False, True, True, True]
    played.end(0)
    assert len(played.tasks) == 4
    assert made.submit_rest()
    assert len(played.tasks) == 4


def test_an_adaptive_map_keeps_its_executor_alive_until_all_is_submitted_and_no_longer():
    played = Adaptive()
    gone, tasks = weakref.ref(played), played.tasks
    made = AdaptiveMap(played, MapRequest(abs, (range(5),)), ordered=True)
    played.maps.clear()
    end = played.end
    del played
    assert gone() is not None
    end(0)
    del end
    assert gone() is None
    assert len(tasks) == 5
    assert made.next_entry() is not None
