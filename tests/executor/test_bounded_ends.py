"""How a map with a buffersize begins and ends: what is refused, what fails, who leaves. With a played pool."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest

from pidfdpool import CallNotSendable, InheritedFutureError, PoolBroken
from pidfdpool.executor.map_pieces import Kind
from tests.executor.played_maps import LONG, TINY, Numbers, Played, bounded
from tests.map_calls import taken


def refused(text="cannot schedule new futures after shutdown"):
    return RuntimeError(text)


# ---- the beginning ---------------------------------------------------------------------------------------------


def test_a_map_of_nothing_asks_nothing_of_its_executor():
    played = Played()
    played.refusal = refused()
    made = bounded(played, 100, [])
    assert (played.tasks, played.maps, list(made.results(None))) == ([], [], [])


def test_exactly_as_many_inputs_are_taken_as_the_buffer_holds():
    for buffersize in (1, 2, 3, 4, 5, 16, 17, 1000):
        played, source = Played(), Numbers()
        made = bounded(played, buffersize, source)
        assert source.taken == buffersize
        assert played.maps == [made]
        assert played.sizes() == [1] * min(buffersize, 4)


def test_inputs_that_come_quickly_are_taken_in_ever_larger_batches(monkeypatch):
    played = Played()
    monkeypatch.setattr("pidfdpool.executor.bounded_map.time.monotonic", lambda: 5.0)
    bounded(played, 5000, Numbers())
    monkeypatch.undo()
    assert played.looks <= 15, "each look at the workers costs as much as many inputs"


def test_calls_run_while_an_input_that_is_slow_to_come_is_waited_for(monkeypatch):
    now, played, seen = [0.0], Played(), []

    def slow():
        for number in range(12):
            now[0] += 0.01
            seen.append(len(played.tasks))
            if number == 4:
                played.answer(LONG)
            yield number

    monkeypatch.setattr("pidfdpool.executor.bounded_map.time.monotonic", lambda: now[0])
    bounded(played, 12, slow())
    monkeypatch.undo()
    assert seen == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]


def test_inputs_that_become_slow_are_waited_for_one_by_one(monkeypatch):
    now, played, seen = [0.0], Played(), []

    def becoming_slow():
        for number in range(100):
            now[0] += 0.01 if number > 40 else 0.0
            seen.append(len(played.tasks))
            if number == 10:
                played.answer(LONG)
            yield number

    monkeypatch.setattr("pidfdpool.executor.bounded_map.time.monotonic", lambda: now[0])
    bounded(played, 100, becoming_slow())
    monkeypatch.undo()
    assert seen[70:] == list(range(70, 100))


@pytest.mark.parametrize("error", [RuntimeError("refused"), PoolBroken("broken"), KeyboardInterrupt()])
@pytest.mark.parametrize("outcomes", [False, True])
def test_a_pool_that_refuses_the_first_call_refuses_the_map(error, outcomes):
    played = Played()
    played.note = lambda _task: (_ for _ in ()).throw(error)
    with pytest.raises(type(error)) as raised:
        bounded(played, 100, Numbers(), return_exceptions=outcomes)
    assert raised.value is error
    assert played.pool.holds == []


@pytest.mark.parametrize("options", [{}, {"timeout": 5.0}])
def test_who_is_interrupted_while_it_begins_leaves_nothing_to_be_run(options):
    played = Played(**options)
    with pytest.raises(KeyboardInterrupt):
        bounded(played, 100, Numbers(10, KeyboardInterrupt()))
    assert len(played.tasks) == 4
    assert all(task.future.cancelled() for task in played.tasks)
    assert played.pool.holds == [], "the pool may end"


def test_a_function_that_does_not_pickle_fails_the_first_result_and_no_other_input_is_taken():
    played, source, lock = Played(), Numbers(), threading.Lock()
    made = bounded(played, 100, source, function=lambda _: lock)
    assert (source.taken, played.tasks) == (1, [])
    came, error = taken(made.results(None))
    assert (came, type(error)) == ([], CallNotSendable)
    assert source.taken == 1


def test_a_function_that_does_not_pickle_is_the_outcome_of_each_call():
    played, source, lock = Played(), Numbers(5), threading.Lock()
    found = list(bounded(played, 3, source, function=lambda _: lock, return_exceptions=True).results(None))
    assert [outcome.index for outcome in found] == [0, 1, 2, 3, 4]
    assert [type(outcome.error) for outcome in found] == [CallNotSendable] * 5
    assert len({id(outcome.error) for outcome in found}) == 5, "each can be raised by itself"


# ---- refusals while it is under way ----------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("seconds", [TINY, LONG])
@pytest.mark.parametrize("outcomes", [False, True])
def test_of_a_pool_that_breaks_the_results_come_first_and_the_error_last(seconds, ordered, outcomes):
    played, source = Played(), Numbers()
    made = bounded(played, 100, source, ordered=ordered, return_exceptions=outcomes)
    results, came = made.results(None), []
    for _ in range(300):
        played.answer(seconds)
        came.append(next(results))
    played.answer(seconds)
    submitted = len(played.calls())
    played.refusal = broken = PoolBroken("it is broken")
    made._permit.end()  # as the pool has it
    asked = source.taken
    more, error = taken(results)
    assert error is broken
    found = [outcome.index for outcome in came + more] if outcomes else came + more
    assert sorted(found) == list(range(submitted))
    assert source.taken <= asked + 1
    assert next(results, "the end") == "the end"


@pytest.mark.parametrize("outcomes", [False, True])
def test_after_a_shutdown_an_input_that_cannot_be_submitted_is_an_error_at_once_or_behind_all_outcomes(outcomes):
    played, source = Played(), Numbers()
    made = bounded(played, 100, source, return_exceptions=outcomes)
    results = made.results(None)
    for _ in range(50):
        played.answer(LONG)
        next(results)
    assert made.submit_rest()
    played.answer(LONG)
    assert len(played.calls()) == source.taken == 150
    played.refusal = refused()
    came, error = taken(results)
    assert error is played.refusal
    assert len(came) == (100 if outcomes else 0)
    assert source.taken == 151


def test_at_the_end_of_the_inputs_a_shutdown_is_no_error():
    played = Played()
    made = bounded(played, 100, Numbers(120))
    results = made.results(None)
    for _ in range(50):
        played.answer(TINY)
        next(results)
    assert made.submit_rest()
    played.refusal = refused()
    played.answer(TINY)
    assert list(results) == list(range(50, 120))


def test_what_submitting_raises_amid_a_map_is_raised_to_a_consumer_who_submits():
    played = Played()
    made = bounded(played, 100, Numbers())
    played.answer(LONG)
    results = made.results(None)
    next(results)
    played.refusal = refused("no more")
    with pytest.raises(RuntimeError, match="no more"):
        next(results)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_what_interrupts_the_pool_threads_submits_is_told_to_the_consumer(kind):
    """A chunk has ended, and what submits the next is interrupted. The calls that were to follow are lost."""
    played = Played(timeout=5.0)
    made = bounded(played, 100, Numbers())
    first = played.tasks[0]
    assert (first.kind, len(played.tasks)) == (Kind.ALONE, 4)
    played.refusal = kind("interrupted")
    if kind is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            first.answer(seconds=LONG)
    else:
        first.answer(seconds=LONG)
    played.refusal = None
    played.answer(LONG)
    assert played.pool.holds == []
    assert len(played.tasks) == 4, "nothing more is submitted"
    came, seen = [], None
    try:
        came.extend(made.results(None))
    except BaseException as error:
        seen = error
    assert (came, type(seen)) == ([0, 1, 2, 3], kind)


# ---- the end of the executor -----------------------------------------------------------------------------------


def test_before_a_shutdown_all_that_is_held_is_submitted_whatever_runs():
    played, source = Played(), Numbers()
    made = bounded(played, 1000, source)
    assert played.sizes() == [1] * 4
    assert made.submit_rest() is True
    assert played.calls() == list(range(1000))
    assert max(played.sizes()) == 1, "nothing was measured"
    played.answer(TINY)
    results = made.results(None)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert played.calls() == list(range(source.taken)), "what is taken from now on is not held"


def test_the_end_of_the_executor_ends_the_taking_of_inputs_and_the_pool_makes_what_is_held():
    played, source = Played(), Numbers()
    made = bounded(played, 100, source)
    results = made.results(None)
    for _ in range(300):
        played.answer(TINY)
        next(results)
    held, asked = source.taken - len(played.calls()), source.taken
    assert held
    played.is_there = False
    played.lost(None)
    before = len(played.tasks)
    rest = []
    for result in results:
        played.answer(TINY)
        rest.append(result)
    assert rest == list(range(300, asked))
    assert source.taken == asked
    assert sorted(played.calls()) == list(range(asked))
    assert played.calls(before) == list(range(asked - held, asked))


@pytest.mark.parametrize(
    ("count", "answered", "told"), [(100, True, False), (100, False, True), (101, True, True), (None, True, True)]
)
def test_a_shutdown_that_cancels_is_told_only_if_there_was_something_to_cancel(count, answered, told):
    """There was if inputs were held, or if there may be further ones."""
    played = Played()
    made = bounded(played, 101, Numbers(count))
    if answered:
        played.answer(LONG)
    made.stop_submitting(CancelledError())
    played.answer(LONG)
    came, error = taken(made.results(None))
    assert came == list(range(len(played.tasks)))
    assert isinstance(error, CancelledError) is told


@pytest.mark.parametrize("first", [CancelledError("first"), LookupError("first")])
def test_the_first_reason_to_submit_no_more_is_the_one_that_is_told(first):
    played = Played()
    made = bounded(played, 100, Numbers())
    made.stop_submitting(first)
    made.stop_submitting(LookupError("second"))
    made.stop_submitting(None)
    assert made._chunks.is_cancelled is isinstance(first, CancelledError)
    played.answer(LONG)
    assert len(played.tasks) == 4
    came, error = [], None
    try:
        came.extend(made.results(None))
    except BaseException as raised:
        error = raised
    assert (came, error) == ([0, 1, 2, 3], first)


def test_in_a_forked_child_the_results_end_with_what_is_the_parents():
    played, source = Played(timeout=5.0), Numbers()
    made = bounded(played, 100, source)
    played.answer(LONG, 2)
    asked, before = source.taken, len(played.tasks)
    made.forget_in_forked_child()
    played.answer(LONG)
    came, error = taken(made.results(None))
    assert came == list(range(before))
    assert type(error) is InheritedFutureError
    assert str(error) == "this map was under way when its process was forked: the parent goes on"
    assert (source.taken, len(played.tasks)) == (asked, before)


# ---- who leaves ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"timeout": 5.0}])
@pytest.mark.parametrize("seconds", [TINY, LONG])
def test_who_leaves_has_what_no_worker_has_begun_cancelled_and_nothing_more_submitted(options, seconds):
    played, source = Played(**options), Numbers()
    made = bounded(played, 100, source)
    results = made.results(None)
    for _ in range(150):
        played.answer(seconds)
        next(results)
    running = played.unanswered()
    begun = running[:1]
    for task in begun:
        task.future.set_running_or_notify_cancel()
    asked, before = source.taken, len(played.tasks)
    results.close()
    assert all(task.future.cancelled() for task in running[1:])
    for task in begun:
        assert not task.future.cancelled()
        task.answer(seconds=seconds)
    assert (source.taken, len(played.tasks), played.pool.holds) == (asked, before, [])
    assert made._pool is None, "the map may be held by a traceback, which must not hold the pool"
    assert not made._held


def test_a_map_that_was_left_submits_nothing_before_a_shutdown():
    played = Played()
    made = bounded(played, 100, Numbers())
    made.cancel()
    assert made.submit_rest()
    assert len(played.tasks) == 4
