"""What maps must not do beside their work: keep errors, submit or take too much, tell the wrong one of an error."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref

import pytest

from pidfdpool import PoolBroken
from pidfdpool.executor import mapping
from pidfdpool.executor.futures import Future
from pidfdpool.executor.map_pieces import Kind
from tests.conditions import held_by_another_thread
from tests.executor.played_maps import LONG, TINY, Numbers, OneByOne, Played, adaptive, bounded
from tests.map_calls import taken

kinds = pytest.mark.parametrize("kind", [adaptive, bounded])


class Error(LookupError):
    """One to which there can be weak references."""


def begin(kind, played, count, inputs=None, **how):
    inputs = range(count) if inputs is None else inputs
    return adaptive(played, inputs, **how) if kind is adaptive else bounded(played, count, inputs, **how)


@kinds
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("how", ["a call failed", "the rest could not be submitted", "it does not pickle"])
def test_an_error_that_was_raised_and_dropped_is_gone_with_its_map(kind, ordered, how):
    """Without the garbage collector: no frame in its traceback may hold the error, or a map that does."""
    played = Played()
    calls = [*range(4), threading.Lock()] if how == "it does not pickle" else None
    made = begin(kind, played, 5, calls, ordered=ordered)
    if how == "a call failed":
        played.tasks[0].answer([], failure=Error("first"))
    elif how == "the rest could not be submitted":
        made.stop_submitting(Error("no more"))
    played.answer(LONG)
    map_gone, results = weakref.ref(made), made.results(None)
    played.maps.clear()
    del made
    gc.collect()
    gc.disable()
    try:
        try:
            for _ in results:
                pass
        except Exception as error:
            gone = weakref.ref(error)
        del results
        played.tasks.clear()
        played.lost = None
        assert gone() is None
        assert map_gone() is None
    finally:
        gc.enable()


@kinds
def test_what_follows_from_a_chunk_takes_its_place_among_those_that_run(kind):
    played = Played(timeout=5.0)
    begin(kind, played, 1000)
    played.answer(TINY, 4)
    chunk = next(task for task in played.unanswered() if task.kind is Kind.EACH and len(task.calls) > 3)
    running = len(played.unanswered())
    chunk.die(chunk.calls[:1])
    assert [task.calls for task in played.tasks if task.through == "pool"] == [chunk.calls[2:]]
    if kind is adaptive:
        assert len(played.unanswered()) == running == 4


def test_an_input_is_taken_once_for_each_result_however_often_it_is_prepared():
    played, source = Played(), Numbers()
    made = bounded(played, 10, source)
    for _ in range(3):
        assert made.prepare()
        assert source.taken == 11
    played.answer(LONG)
    assert made.take(made.next_entry()) == ([0], None)
    assert source.taken == 11
    for _ in range(2):
        assert made.prepare()
        assert source.taken == 12


@pytest.mark.parametrize("outcomes", [False, True])
@pytest.mark.parametrize("error", [PoolBroken("broken"), RuntimeError("shut down")])
def test_what_a_consumer_cannot_submit_is_told_at_once_or_behind_what_is_there(outcomes, error):
    played = Played()
    made = bounded(played, 20, Numbers(), return_exceptions=outcomes)
    played.answer(LONG)
    assert len(played.calls()) == 20

    def refuse(_task):
        raise error

    played.note = refuse
    came, raised = taken(made.results(None))
    assert raised is error
    assert len(came) == (20 if outcomes or isinstance(error, PoolBroken) else 0)


@kinds
@pytest.mark.parametrize("options", [{}, {"timeout": 5.0}])
def test_what_the_pool_thread_cannot_submit_is_told_to_the_consumer_and_not_logged(kind, options, caplog):
    played = Played(**options)
    made = begin(kind, played, 100)
    played.refusal = refusal = RuntimeError("refused")
    played.tasks[0].answer(seconds=LONG)
    played.refusal = None
    played.answer(LONG)
    assert caplog.records == []
    assert taken(made.results(None)) == ([0, 1, 2, 3], refusal)


@kinds
def test_the_length_of_what_is_mapped_is_not_asked_for(kind):
    class Lies(list):
        def __len__(self):
            raise AssertionError("it is not to be asked")

        def __length_hint__(self):
            raise AssertionError("it is not to be asked")

    class Hints:
        def __iter__(self):
            return HintingIterator()

        __len__ = Lies.__len__

    class HintingIterator(Numbers):
        __length_hint__ = Lies.__length_hint__

        def __init__(self):
            super().__init__(9)

    played = Played()
    made = adaptive(played, Hints()) if kind is adaptive else bounded(played, 20, Hints())
    played.answer()
    assert list(made.results(None)) == list(range(9))


@kinds
def test_a_turn_that_fails_when_nothing_else_runs_lets_the_pool_go(kind):
    """Nobody has another turn, in which it would be let go of."""
    played = Played(timeout=5.0)
    made = begin(kind, played, 500)
    played.answer(TINY, 4)
    running = played.unanswered()
    assert played.pool.holds
    with held_by_another_thread(made._turns._lock):
        for task in running[:-1]:
            task.answer()
    played.refusal = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        running[-1].answer()
    assert played.pool.holds == []


class Thing:
    pass


def test_a_result_that_comes_first_is_let_go_of_though_its_call_was_submitted_last():
    submitter = OneByOne()
    results = mapping.as_they_come(submitter, lambda _: Thing(), (range(6),), buffersize=2)
    submit = submitter.submit

    def submit_and_end(function, *arguments):
        future = submit(function, *arguments)
        submitter.end(2)
        submitter.tasks.clear()
        return future

    submitter.submit = submit_and_end
    gc.disable()
    try:
        thing = weakref.ref(next(results))
        assert thing() is None
    finally:
        gc.enable()
    results.close()


def test_a_future_whose_error_ends_a_map_of_outcomes_is_gone_when_that_is_dropped():
    held = [Future()]
    held[0]._resolve(None, PoolBroken("broken"))
    gone = weakref.ref(held[0])
    gc.disable()
    try:
        with contextlib.suppress(PoolBroken):
            mapping._outcome_of(lambda: (0, held.pop()), 0)
        assert gone() is None
    finally:
        gc.enable()
