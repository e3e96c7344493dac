"""Maps whose tasks have a fixed number of calls: what becomes of errors and refusals, and what a task is named."""

from __future__ import annotations

import contextvars
import gc
import time
import weakref
from concurrent.futures import CancelledError

import pytest

from pidfdpool import InheritedFutureError, Outcome, PoolBroken, WorkerCrashed
from pidfdpool.executor import mapping
from pidfdpool.executor.adaptive_map import AdaptiveMap
from pidfdpool.executor.bounded_map import BoundedMap
from pidfdpool.executor.map_request import MapRequest
from pidfdpool.loop.chunk_calls import Chunk
from tests.executor.played_maps import Numbers, OneByOne, Played
from tests.executor.test_map_requests import Ticks
from tests.map_calls import taken

FORMS = (mapping.in_order, mapping.as_they_come)
forms = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
NAME = contextvars.ContextVar("NAME", default="nobody")


def half(number):
    if number % 2:
        raise ValueError(number)
    return number // 2


def plain(outcomes):
    return [(each.index, each.value, None if each.error is None else str(each.error)) for each in outcomes]


# ---- who forms the chunks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ({}, AdaptiveMap),
        ({"chunksize": 5}, None),
        ({"chunksize": 1}, None),
        ({"chunksize": 5, "return_exceptions": True}, AdaptiveMap),
        ({"return_exceptions": True}, AdaptiveMap),
        ({"buffersize": 7}, None),
        ({"buffersize": 8}, BoundedMap),
        ({"buffersize": 100}, BoundedMap),
        ({"buffersize": 100, "chunksize": 5}, None),
        ({"buffersize": 7, "return_exceptions": True}, BoundedMap),
        ({"buffersize": 1, "chunksize": 5, "return_exceptions": True}, BoundedMap),
    ],
    ids=str,
)
@pytest.mark.parametrize("ordered", [True, False])
def test_the_pool_forms_chunks_where_it_is_not_told_to_or_where_outcomes_are_wanted(how, kind, ordered):
    request = MapRequest(abs, (range(100),), **how)
    played = Played()
    made = mapping.in_chunks_of_the_pool(played, request, ordered=ordered)
    assert type(made) is (type(None) if kind is None else kind)
    if made is not None:
        assert made.entries.is_ordered is ordered
        assert bool(played.tasks) is True
    alone = Played(sizes_chunks=False)
    assert mapping.in_chunks_of_the_pool(alone, request, ordered=ordered) is None
    assert alone.tasks == []


@pytest.mark.parametrize(("chunksize", "inputs"), [(None, 10), (1, 10), (3, 30)])
def test_a_buffer_of_chunks_holds_as_many_calls_as_they_have(chunksize, inputs):
    source = Numbers()
    request = MapRequest(abs, (source,), chunksize=chunksize, buffersize=10, return_exceptions=True)
    mapping.in_chunks_of_the_pool(Played(), request, ordered=True)
    assert source.taken == inputs


@forms
@pytest.mark.parametrize("how", [{}, {"buffersize": 50}])
def test_chunks_of_the_pools_give_their_results_in_either_form(form, how):
    played = Played()
    results = form(played, abs, (range(30),), **how)
    assert played.maps[0].entries.is_ordered is (form is mapping.in_order)
    played.tasks[1].answer()
    if form is mapping.as_they_come:
        assert next(results) == 1
    played.answer()
    assert sorted(results) == [number for number in range(30) if number != 1 or form is mapping.in_order]
    with pytest.raises(TimeoutError):
        next(form(Played(), abs, (range(30),), timeout=-1, **how))


@forms
def test_what_only_a_loop_can_read_is_refused(form):
    for submitter in (OneByOne(), Played()):
        with pytest.raises(TypeError, match="iterable 1 is asynchronous"):
            form(submitter, abs, (Ticks(),))


# ---- what a task is --------------------------------------------------------------------------------------------


def begun(submitter, count=3, **how):
    """Begin a map of `pow`; return its first tasks."""
    results = mapping.in_order(submitter, pow, (range(6), [2] * 6), **how)
    for at in range(count):
        submitter.end(at) if at < len(submitter.tasks) else None
        next(results)
    return submitter.tasks


@pytest.mark.parametrize("rules", [{}, {"timeout": 5.0}, {"retries": 2}], ids=str)
def test_a_call_of_a_small_buffer_is_a_task_that_knows_which_call_it_is(rules):
    tasks = begun(OneByOne(sizes_chunks=True, **rules), buffersize=2)
    assert [task[1].label for task in tasks[:3]] == [f"builtins.pow, item {number} of map" for number in range(3)]
    assert [task[2] for task in tasks[:3]] == [(0, 2), (1, 2), (2, 2)]
    assert tasks[2][1].arguments() == ": 2, 2"


@pytest.mark.parametrize(
    "submitter_and_how",
    [
        ({"sizes_chunks": False}, {"buffersize": 2}),
        ({"sizes_chunks": True}, {"buffersize": 2, "chunksize": 1}),
        ({"sizes_chunks": True}, {"chunksize": 1}),
    ],
    ids=str,
)
def test_other_calls_are_tasks_as_the_user_would_submit_them(submitter_and_how):
    options, how = submitter_and_how
    tasks = begun(OneByOne(**options), **how)
    assert [task[1:] for task in tasks[:3]] == [(pow, (number, 2)) for number in range(3)]


def test_a_chunk_knows_which_calls_it_has():
    submitter = OneByOne()
    results = mapping.in_order(submitter, pow, (range(7), [2] * 7), chunksize=3)
    assert [task[1].label for task in submitter.tasks] == [
        "builtins.pow, items 0 to 2 of map",
        "builtins.pow, items 3 to 5 of map",
        "builtins.pow, item 6 of map",
    ]
    for at in range(3):
        submitter.end(at)
    assert list(results) == [number**2 for number in range(7)]
    single = OneByOne()
    mapping.in_order(single, abs, (range(2),), chunksize=1)
    assert type(single.tasks[0][1]) is not Chunk


def test_chosen_context_variables_travel_with_each_call():
    def tell(_):
        return NAME.get()

    submitter = OneByOne(context_vars=(NAME,))
    token = NAME.set("the caller")
    results = mapping.in_order(submitter, tell, (range(2),), chunksize=1)
    NAME.reset(token)
    for at in range(2):
        contextvars.Context().run(submitter.end, at)
    assert list(results) == ["the caller"] * 2


# ---- failures and refusals -------------------------------------------------------------------------------------


@forms
@pytest.mark.parametrize("buffersize", [None, 2])
def test_outcomes_come_of_each_call_with_its_index(form, buffersize):
    submitter = OneByOne()
    results = form(submitter, half, (range(6),), buffersize=buffersize, return_exceptions=True, chunksize=4)
    found = []
    for at in range(6):
        submitter.end(at)
        found.append(next(results))
    assert plain(found) == [(n, None if n % 2 else n // 2, str(n) if n % 2 else None) for n in range(6)]
    assert all(type(each) is Outcome for each in found)
    assert next(results, "the end") == "the end"


def test_outcomes_without_order_come_as_they_are_made():
    submitter = OneByOne()
    results = mapping.as_they_come(submitter, half, (range(4),), return_exceptions=True)
    for at in (3, 1, 0, 2):
        submitter.end(at)
    assert [each.index for each in results] == [3, 1, 0, 2]
    bounded = OneByOne()
    results = mapping.as_they_come(bounded, half, (range(4),), buffersize=2, return_exceptions=True)
    bounded.end(1)
    assert next(results).index == 1
    bounded.end(2)
    assert next(results).index == 2
    bounded.end(3)
    bounded.end(0)
    assert [each.index for each in results] == [3, 0]


@forms
@pytest.mark.parametrize("buffersize", [None, 3])
@pytest.mark.parametrize("outcomes", [False, True])
def test_a_refusal_of_the_first_call_is_raised_at_once(form, buffersize, outcomes):
    with pytest.raises(LookupError, match="refused"):
        form(OneByOne(refused_at=0), abs, (range(6),), buffersize=buffersize, return_exceptions=outcomes)


@forms
@pytest.mark.parametrize("buffersize", [None, 3])
def test_a_refusal_of_a_later_call_comes_behind_the_outcomes(form, buffersize):
    submitter = OneByOne(refused_at=2)
    source = Numbers()
    results = form(submitter, half, (source,), buffersize=buffersize, return_exceptions=True)
    assert source.taken == 3
    for at in range(2):
        submitter.end(at)
    found, error = taken(results)
    assert plain(found) == [(0, 0, None), (1, None, "1")]
    assert error is submitter.refusal
    assert source.taken == 3, "no other input is taken"


@forms
@pytest.mark.parametrize("buffersize", [None, 3])
def test_without_outcomes_a_refusal_is_raised_to_who_submits(form, buffersize):
    submitter = OneByOne(refused_at=2)
    with pytest.raises(LookupError, match="refused"):
        form(submitter, abs, (range(6),), buffersize=buffersize)
    later = OneByOne(refused_at=4)
    results = form(later, abs, (range(6),), buffersize=3)
    for at in range(3):
        later.end(at)
    assert next(results) == 0
    with pytest.raises(LookupError, match="refused"):
        next(results)


@forms
def test_what_ends_a_map_of_outcomes_comes_behind_those_that_are_there(form):
    for error in (PoolBroken("broken"), InheritedFutureError("forked")):
        submitter = OneByOne()
        results = form(submitter, half, (range(4),), return_exceptions=True)
        submitter.end(0)
        submitter.end(2, error)
        submitter.end(1)
        submitter.end(3)
        found, raised = taken(results)
        there = [(0, 0, None), (1, None, "1"), (3, None, "3")]
        assert plain(found) == (there[:2] if form is mapping.in_order else there)
        assert raised is error


@forms
def test_what_ends_a_map_takes_no_other_input(form):
    submitter, source = OneByOne(), Numbers(None if form is mapping.in_order else 3)
    results = form(submitter, half, (source,), buffersize=3, return_exceptions=True)
    for at in range(3):
        submitter.end(at, PoolBroken("broken"))
    found, error = taken(results)
    assert (found, type(error)) == ([], PoolBroken)
    assert source.taken <= 4
    assert all(task[0].done() for task in submitter.tasks)


@forms
def test_a_call_that_was_cancelled_ends_a_map_of_outcomes(form):
    submitter = OneByOne()
    results = form(submitter, half, (range(3),), return_exceptions=True)
    submitter.end(0)
    submitter.tasks[1][0].cancel()
    assert next(results).index == 0
    with pytest.raises(CancelledError):
        next(results)
    assert submitter.tasks[2][0].cancelled()


@forms
@pytest.mark.parametrize("outcomes", [False, True])
def test_the_error_of_a_death_names_the_call_and_its_arguments(form, outcomes):
    submitter = OneByOne()
    results = form(submitter, half, ([7, 8],), return_exceptions=outcomes)
    error = WorkerCrashed("it died in half, item 0 of map", task="half, item 0 of map", task_id=1, attempt=1)
    error.chunk = Chunk(half, "half", 0, [(7,)])
    submitter.end(0, error)
    if outcomes:
        assert next(results).error is error
    else:
        with pytest.raises(WorkerCrashed):
            next(results)
    assert str(error) == "it died in half, item 0 of map: 7"
    assert error.task == "half, item 0 of map: 7"


@forms
@pytest.mark.parametrize("chunksize", [1, 3])
def test_an_iterable_that_raises_has_what_it_yielded_before_submitted(form, chunksize):
    submitter = OneByOne()
    results = form(submitter, abs, (Numbers(4, LookupError("no more")),), chunksize=chunksize, buffersize=9)
    assert [task[2] for task in submitter.tasks] == (
        [(0,), (1,), (2,), (3,)] if chunksize == 1 else [([(0,), (1,), (2,)],), ([(3,)],)]
    )
    for at in range(len(submitter.tasks)):
        submitter.end(at)
    came, error = taken(results)
    assert (came, error.args) == ([0, 1, 2, 3], ("no more",))
    with pytest.raises(LookupError, match="no more"):
        form(OneByOne(), abs, (Numbers(4, LookupError("no more")),), chunksize=chunksize)
    at_once = OneByOne()
    with pytest.raises(LookupError):
        form(at_once, abs, (Numbers(0, LookupError("no more")),), chunksize=chunksize)
    assert at_once.tasks == []


@forms
@pytest.mark.parametrize("outcomes", [False, True])
def test_the_time_of_the_map_counts_from_its_beginning(form, outcomes, monkeypatch):
    submitter = OneByOne()
    results = form(submitter, abs, (range(3),), timeout=50, return_exceptions=outcomes)
    submitter.end(0)
    assert next(results) == (Outcome(0, 0) if outcomes else 0)
    later = time.monotonic() + 50
    monkeypatch.setattr("pidfdpool.executor.mapping.time.monotonic", lambda: later)
    with pytest.raises(TimeoutError):
        next(results)
    monkeypatch.undo()
    assert [task[0].cancelled() for task in submitter.tasks] == [False, True, True]
    endless = OneByOne()
    results = form(endless, abs, (range(3),), timeout=100)
    for at in range(3):
        endless.end(at)
    assert list(results) == [0, 1, 2]


@forms
@pytest.mark.parametrize("how", [{"chunksize": 2}, {"chunksize": 2, "buffersize": 2}, {"buffersize": 4}])
def test_who_closes_the_results_withdraws_what_has_not_begun(form, how):
    submitter = OneByOne()
    results = form(submitter, abs, (range(8),), **how)
    submitter.end(0)
    assert next(results) == 0
    results.close()
    assert all(task[0].cancelled() for task in submitter.tasks[1:])
    unbegun = OneByOne()
    form(unbegun, abs, (range(8),), **how).close()
    assert not any(task[0].cancelled() for task in unbegun.tasks), "as with the standard library's"


def test_the_results_of_chunks_are_closed_with_the_single_results():
    chunks = (chunk for chunk in ([1, 2], [3]))
    results = mapping._flatten(chunks)
    assert next(results) == 1
    results.close()
    assert next(chunks, "closed") == "closed"
    assert list(mapping._flatten(iter([[1, 2], [], [3]]))) == [1, 2, 3], "not everything can be closed"


class Thing:
    pass


@forms
@pytest.mark.parametrize("how", [{}, {"chunksize": 2}, {"buffersize": 2}, {"return_exceptions": True}], ids=str)
def test_a_result_is_let_go_of_when_the_next_is_asked_for(form, how):
    submitter = OneByOne()
    results = form(submitter, lambda _: Thing(), (range(6),), **how)
    for at in range(len(submitter.tasks)):
        submitter.end(at)
    submitter.tasks.clear()
    result = next(results)
    thing = weakref.ref(result.value if type(result) is Outcome else result)
    gc.disable()
    try:
        del result
        assert thing() is None
    finally:
        gc.enable()
