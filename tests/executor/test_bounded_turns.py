"""What a map with a buffersize submits in one turn, as which kind of task, and who is told of its end."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import CancelledError

import pytest

from pidfdpool import WorkerCrashed
from pidfdpool.executor.map_pieces import Kind
from tests.executor.played_maps import LONG, TINY, Numbers, Played, adaptive, bounded
from tests.map_calls import taken


def run(played, results, count, seconds=TINY):
    """Take so many results, each chunk of which ends before it is waited for."""
    came = []
    for _ in range(count):
        played.answer(seconds)
        came.append(next(results))
    return came


def test_in_one_turn_no_more_chunks_are_submitted_than_the_pool_thread_has_time_for():
    played = Played()
    made = bounded(played, 200, Numbers())
    played.answer(LONG, 1)
    assert len(played.tasks) == 4 + 32
    played.answer(LONG, 1)
    assert len(played.tasks) == 4 + 64
    results = made.results(None)
    assert [next(results), next(results)] == [0, 1]
    assert len(played.tasks) == 202, "the consumer, who will wait for them, submits all"


def test_before_a_shutdown_all_is_submitted_in_one_turn():
    played = Played()
    made = bounded(played, 200, Numbers())
    played.answer(LONG, 1)
    assert made.submit_rest()
    assert played.calls() == list(range(200))


def test_the_arguments_of_several_iterables_come_as_they_were():
    played = Played()
    made = bounded(played, 100, Numbers(), Numbers(), function=max)
    results = made.results(None)
    found = run(played, results, 1000)
    assert found == [(number, number) for number in range(1000)]
    assert all(task.starred for task in played.tasks)
    plain = Played()
    run(plain, bounded(plain, 100, Numbers()).results(None), 1000)
    assert not any(task.starred for task in plain.tasks)


def test_a_tuple_may_be_an_only_argument():
    played = Played()
    made = bounded(played, 100, [(1, 2), (3,), ()])
    played.answer(TINY)
    assert list(made.results(None)) == [(1, 2), (3,), ()]


@pytest.mark.parametrize("ordered", [True, False])
def test_where_the_order_does_not_matter_the_end_of_each_chunk_is_told(ordered):
    played = Played()
    made = bounded(played, 1000, Numbers(), ordered=ordered)
    results = made.results(None)
    run(played, results, 5000)
    before = len(played.tasks)
    run(played, results, 2000)
    told = {task.future._had_callbacks for task in played.tasks[before:]}
    assert told == {not ordered}


def test_the_end_of_a_long_call_is_told_where_more_is_held():
    played = Played()
    bounded(played, 100, Numbers())
    played.answer(LONG, 1)
    told = [task.future._had_callbacks for task in played.tasks[4:36]]
    assert all(told[:-1])
    played.answer(LONG)
    assert len(played.tasks) == 100
    assert not played.tasks[-1].future._had_callbacks, "nothing is held that could be submitted then"


# ---- calls that count each for itself --------------------------------------------------------------------------


def test_a_call_alone_to_which_a_rule_applies_is_a_task_like_any_other():
    played = Played(timeout=5.0, retries=2)
    bounded(played, 100, Numbers())
    played.answer(LONG)
    assert {task.kind for task in played.tasks} == {Kind.ALONE}
    assert {task.policy.retries for task in played.tasks} == {2}
    assert not played.pool.holds, "nothing follows from it"


@pytest.mark.parametrize("ordered", [True, False])
def test_of_a_chunk_whose_worker_died_the_pool_makes_what_is_left(ordered):
    played = Played(timeout=5.0)
    made = bounded(played, 100, Numbers(), ordered=ordered)
    played.answer(TINY, 1)
    chunk = played.tasks[4]
    assert (chunk.kind, len(chunk.calls)) == (Kind.EACH, 16)
    assert played.pool.holds == [made._chunks]
    played.answer(TINY, 3)
    error = chunk.die(chunk.calls[:5])
    rest = next(task for task in played.tasks if task.through == "pool")
    assert (rest.kind, rest.calls) == (Kind.EACH, chunk.calls[6:])
    played.answer(TINY)
    came, raised = taken(made.results(None))
    assert raised is error
    assert came[:4] == [0, 1, 2, 3]
    if ordered:
        assert came == list(range(9))


class Argument:
    """An argument of which it can be told when it is gone."""


@pytest.mark.parametrize("begin", [bounded, adaptive])
@pytest.mark.parametrize("options", [{}, {"timeout": 5.0}])
def test_arguments_are_let_go_of_with_their_tasks_though_nobody_has_taken_the_results(begin, options):
    alive: weakref.WeakSet = weakref.WeakSet()

    def arguments():
        for _ in range(100):
            argument = Argument()
            alive.add(argument)
            yield argument

    played = Played(**options)
    made = begin(played, 101, arguments()) if begin is bounded else begin(played, arguments())
    assert len(alive) == 100
    while left := played.unanswered():
        left[0].answer([0] * len(left[0].calls))
    assert len(played.calls()) == 100
    played.tasks.clear()
    del left
    gc.collect()
    assert len(alive) == 0
    assert list(made.results(None)) == [0] * 100


@pytest.mark.parametrize(("seconds", "kind"), [(15e-6, Kind.TOGETHER), (25e-6, Kind.EACH)])
def test_without_a_rule_results_are_published_where_calls_take_long_enough(seconds, kind):
    played = Played()
    made = bounded(played, 1000, Numbers())
    results = made.results(None)
    run(played, results, 2000, seconds)
    before = len(played.tasks)
    run(played, results, 2000, seconds)
    assert {task.kind for task in played.tasks[before:]} == {kind}


def test_results_are_not_published_where_the_chunk_takes_less_than_a_millisecond():
    played = Played()
    made = bounded(played, 80, Numbers())
    results = made.results(None)
    run(played, results, 400, 45e-6)
    before = len(played.tasks)
    run(played, results, 400, 45e-6)
    assert set(played.sizes(before)) == {20}
    assert {task.kind for task in played.tasks[before:]} == {Kind.TOGETHER}
    run(played, results, 400, 60e-6)
    before = len(played.tasks)
    run(played, results, 400, 60e-6)
    assert {task.kind for task in played.tasks[before:]} == {Kind.EACH}


def test_a_chunk_of_one_call_publishes_nothing():
    played = Played()
    made = bounded(played, 4, Numbers())
    run(played, made.results(None), 50, 0.05)
    assert {task.kind for task in played.tasks} == {Kind.TOGETHER}


@pytest.mark.parametrize("buffersize", [1, 2, 3])
@pytest.mark.parametrize("seconds", [TINY, LONG])
def test_a_buffer_of_fewer_calls_than_may_run_holds_none_back(buffersize, seconds):
    played, source = Played(), Numbers()
    note = played.note
    played.note = lambda task: note(task) or task.answer(seconds=seconds)
    made = bounded(played, buffersize, source, return_exceptions=True)
    results = made.results(time.monotonic() + 20)
    assert [next(results).value for _ in range(20)] == list(range(20))
    assert max(played.sizes()) <= 2
    assert made.submit_rest()
    assert played.calls() == list(range(source.taken))


# ---- chunks of a given size, where outcomes are wanted ---------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
def test_chunks_have_the_size_that_was_given_and_only_the_last_is_smaller(ordered):
    played, source = Played(), Numbers(25)
    made = bounded(played, 9, source, ordered=ordered, chunksize=3, return_exceptions=True)
    assert (played.sizes(), source.taken) == ([3, 3, 3], 9)
    results = made.results(None)
    found = []
    for _ in range(25):
        played.answer(TINY)
        found.append(next(results))
    assert played.sizes() == [3] * 8 + [1]
    assert [tuple(outcome) for outcome in found] == [(number, number, None) for number in range(25)]
    assert {task.kind for task in played.tasks} == {Kind.EACH}
    assert next(results, "the end") == "the end"


def test_before_a_shutdown_a_smaller_chunk_is_submitted():
    played = Played()
    made = bounded(played, 5, Numbers(), chunksize=3, return_exceptions=True)
    assert played.sizes() == [3]
    assert made.submit_rest()
    assert played.sizes() == [3, 2]


def test_a_consumer_who_has_claimed_all_has_less_than_a_chunk_submitted():
    played, source = Played(), Numbers()
    made = bounded(played, 1, source, chunksize=3, return_exceptions=True)
    assert (source.taken, played.sizes()) == (1, [])
    assert made.prepare()
    assert (source.taken, played.sizes()) == (2, [2])
    made.step()
    made._submit_held(consumer=True)
    assert played.sizes() == [2], "something comes before them"


# ---- turns -----------------------------------------------------------------------------------------------------


class PickledWhile:
    """An argument that calls a function when it is pickled."""

    def __init__(self, function):
        self.function = function

    def __reduce__(self):
        self.function()
        return int, (7,)


def test_what_another_thread_wants_submitted_meanwhile_is_when_the_turn_is_over():
    played, told = Played(), []

    def from_another_thread():
        if not told:
            told.append("asked")
            thread = threading.Thread(target=lambda: told.append(made[0].submit_rest(wait=False)))
            thread.start()
            thread.join(20)

    made = []

    def inputs():
        yield from range(50)
        yield PickledWhile(lambda: made and from_another_thread())
        yield from range(49)

    made.append(bounded(played, 100, inputs()))
    played.answer(LONG, 1)
    played.answer(LONG, 1)
    assert told == ["asked", False]
    assert len(played.calls()) == 100, "all, though the turn would have ended with 68"


def test_a_shutdown_from_within_a_turn_lets_the_pool_go_and_the_turn_goes_on():
    played, told, made = Played(timeout=5.0), [], []

    def shut_down():
        if made and not told:
            told.append(list(played.pool.holds))
            told.append(made[0].submit_rest())
            told.append(list(played.pool.holds))

    made.append(bounded(played, 100, [*range(4), PickledWhile(shut_down), *range(95)]))
    for task in played.tasks[:]:
        task.answer(seconds=TINY)
    assert told[1:] == [False, []], "this code may wait for the pool's end, and the turn cannot end before it"
    assert len(played.calls()) == 100


def test_a_chunk_whose_end_is_told_when_the_consumer_has_noted_it_counts_once():
    played = Played()
    made = bounded(played, 1000, Numbers())
    noted = []
    made._pace.note = lambda *what: noted.append(what)
    played.tasks[1].answer()
    assert [calls for calls, _, _ in noted] == [1]
    results = made.results(None)
    played.tasks[0].answer()
    assert next(results) == 0
    assert len(noted) == 2
    assert next(results) == 1
    assert len(noted) == 2


def test_a_call_that_fails_or_was_cancelled_is_not_measured_and_its_error_comes_in_its_turn():
    played = Played()
    made = bounded(played, 100, Numbers())
    error = played.tasks[1].die()
    assert made._pace.seconds is None
    played.tasks[2].future.cancel()
    assert made._pace.seconds is None
    played.tasks[0].answer()
    came, raised = taken(made.results(None))
    assert (came, raised) == ([0], error)
    assert type(raised) is WorkerCrashed
    assert raised.task.endswith("item 1 of map: 1"), "it names the call with its arguments"


@pytest.mark.parametrize("ordered", [True, False])
def test_a_cancelled_call_ends_the_results(ordered):
    played = Played()
    made = bounded(played, 4, Numbers(4), ordered=ordered)
    played.tasks[0].answer()
    played.tasks[1].future.cancel()
    results = made.results(None)
    assert next(results) == 0
    with pytest.raises(CancelledError):
        next(results)


def test_a_failure_among_the_results_of_a_chunk_comes_behind_those_before_it():
    played = Played()
    made = bounded(played, 1000, Numbers())
    played.answer(TINY, 4)
    chunk = played.tasks[4]
    chunk.answer(chunk.calls[:5], failure=LookupError("the sixth"))
    played.answer(TINY)
    came, error = taken(made.results(None))
    assert came == list(range(9))
    assert (type(error), error.args) == (LookupError, ("the sixth",))
