"""What a map that knows all its calls submits, who may do it when, and how it ends. With a played pool."""

from __future__ import annotations

import threading
import time

import pytest

from pidfdpool import InheritedFutureError, PoolBroken
from pidfdpool.executor.map_pieces import Kind
from tests.conditions import held_by_another_thread
from tests.executor.played_maps import LONG, TINY, Numbers, Played, adaptive, bounded
from tests.map_calls import taken


class PickledWhile:
    """An argument that calls a function when it is pickled."""

    def __init__(self, function):
        self.function = function

    def __reduce__(self):
        self.function()
        return int, (7,)


def begin(kind, played, count, **how):
    """Begin a map of numbers of one of the two kinds that submit in turns."""
    return adaptive(played, range(count), **how) if kind is adaptive else bounded(played, count, range(count), **how)


# ---- the beginning ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calls", [[], (), range(0), range(5, 5), iter(())], ids=lambda calls: type(calls).__name__)
def test_a_map_of_nothing_asks_nothing_of_its_executor(calls):
    played = Played()
    played.refusal = RuntimeError("refused")
    made = adaptive(played, calls)
    assert not made.entries.were_added
    assert list(made.results(None)) == []
    assert (played.tasks, played.maps) == ([], [])


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_two_calls_for_each_worker_run_at_first(workers):
    played = Played(workers)
    adaptive(played, range(100))
    assert played.sizes() == [1] * 2 * workers


def test_a_range_is_as_long_as_it_says():
    for calls in (range(10**30), range(10**30, 0, -1), range(-(10**20), 10**20, 3)):
        played = Played()
        adaptive(played, calls)
        assert played.calls() == list(calls[:4])
        played.answer(TINY, 4)
        assert played.calls() == list(calls[: len(played.calls())])


@pytest.mark.parametrize("error", [RuntimeError("refused"), PoolBroken("broken"), KeyboardInterrupt()])
def test_a_pool_that_refuses_the_first_call_refuses_the_map(error):
    played = Played()
    played.note = lambda _task: (_ for _ in ()).throw(error)
    with pytest.raises(type(error)) as raised:
        adaptive(played, range(9))
    assert raised.value is error
    assert played.pool.holds == []


@pytest.mark.parametrize("error", [RuntimeError("refused"), KeyboardInterrupt()])
def test_a_pool_that_refuses_a_later_call_has_those_before_it_run(error):
    """What is no Exception ends the map at once, and what was submitted is withdrawn."""
    played = Played()
    note = played.note
    played.note = lambda task: note(task) if len(played.tasks) < 2 else (_ for _ in ()).throw(error)
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            adaptive(played, range(9))
        assert all(task.future.cancelled() for task in played.tasks)
    else:
        made = adaptive(played, range(9))
        played.answer()
        assert taken(made.results(None)) == ([0, 1], error)
    assert (len(played.tasks), played.pool.holds) == (2, [])


def test_calls_that_do_not_pickle_take_nobodys_place_among_those_that_run():
    played, lock = Played(), threading.Lock()
    made = adaptive(played, [lock] * 5 + list(range(9)), return_exceptions=True)
    assert played.calls() == [0, 1, 2, 3]
    played.answer()
    found = list(made.results(None))
    assert [outcome.ok for outcome in found] == [False] * 5 + [True] * 9
    assert [outcome.index for outcome in found] == list(range(14))


# ---- the pool stays until nothing can follow -------------------------------------------------------------------


def test_the_pool_is_held_until_all_is_submitted():
    played = Played()
    made = adaptive(played, range(100))
    while len(played.calls()) < 100:
        assert played.pool.holds == [made._chunks]
        played.answer(TINY, 1)
    assert played.unanswered()
    assert played.pool.holds == [], "nothing follows from those that run"


def test_the_pool_is_held_until_nothing_can_follow_from_the_last_chunk():
    played = Played(timeout=5.0)
    made = adaptive(played, range(4))
    played.answer(LONG, 3)
    assert played.pool.holds == [made._chunks]
    played.answer(LONG)
    assert played.pool.holds == []


@pytest.mark.parametrize("options", [{}, {"timeout": 5.0}])
def test_who_leaves_lets_the_pool_go_when_what_runs_has_ended(options):
    played = Played(**options)
    made = adaptive(played, range(50))
    task = played.tasks[0]
    task.future.set_running_or_notify_cancel()
    results = made.results(None)
    made.entries.claim(None)
    made.cancel()
    assert [each.future.cancelled() for each in played.tasks] == [False, True, True, True]
    task.answer()
    assert (len(played.tasks), played.pool.holds) == (4, [])
    results.close()


def test_a_failure_among_the_results_withdraws_the_rest():
    played = Played()
    made = adaptive(played, range(500))
    played.answer(TINY, 4)
    chunk = played.tasks[4]
    chunk.answer(chunk.calls[:3], failure=LookupError("the eighth"))
    came, error = taken(made.results(None))
    assert (came, type(error), error.args) == (list(range(7)), LookupError, ("the eighth",))
    assert [each.future.cancelled() for each in played.tasks[5:]] == [True] * (len(played.tasks) - 5)
    assert len(played.calls()) < 500


def test_who_closes_the_results_withdraws_the_rest():
    played = Played()
    results = adaptive(played, range(500)).results(None)
    played.tasks[0].answer()
    assert next(results) == 0
    results.close()
    assert all(each.future.cancelled() for each in played.tasks[1:])
    before = len(played.tasks)
    assert before < 500
    played.maps[0].submit_rest()
    assert len(played.tasks) == before


def test_a_chunk_that_is_submitted_while_its_map_is_left_is_withdrawn():
    played, made = Played(), []
    calls = [*range(4), PickledWhile(lambda: made and made[0].cancel()), *range(5, 50)]
    made.append(adaptive(played, calls))
    played.answer(LONG, 1)
    assert len(played.tasks) == 5
    assert all(task.future.cancelled() for task in played.tasks[1:])
    assert played.pool.holds == []


# ---- turns -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [adaptive, bounded])
@pytest.mark.parametrize("what", ["a chunk ends", "it is left"])
def test_whoever_must_not_wait_for_another_threads_turn_does_not(kind, what):
    """The pool thread, when a chunk has ended; and any thread in which the collector closes an iterator."""
    played = Played()
    made = begin(kind, played, 100)
    act = made.cancel if what == "it is left" else lambda: played.answer(LONG, 1)
    thread = threading.Thread(target=act)
    with held_by_another_thread(made._turns._lock):
        thread.start()
        thread.join(20)
        waits = thread.is_alive()
        assert [task.future.cancelled() for task in played.tasks] == [what == "it is left"] * 4
    thread.join()
    assert not waits
    assert len(played.tasks) == 4, "the thread that has the turn finds a note"
    assert made._turns.wanted


@pytest.mark.parametrize("kind", [adaptive, bounded])
def test_without_waiting_it_is_told_that_another_thread_submits_and_that_one_submits_the_rest(kind):
    played, told = Played(), []
    made = begin(kind, played, 100)
    with held_by_another_thread(made._turns._lock):
        told.append(made.submit_rest(wait=False))
    assert told == [False]
    assert len(played.tasks) == 4
    assert made._turns.wanted, "it is to look for more when its turn is over"
    assert made.submit_rest(wait=False) is True
    assert len(played.calls()) == 100


@pytest.mark.parametrize("kind", [adaptive, bounded])
@pytest.mark.parametrize("what", ["shut down", "look for an entry", "take a chunk that has ended early"])
def test_whoever_needs_what_another_thread_enters_waits_for_its_turn(kind, what):
    played, told = Played(timeout=5.0), []
    made = begin(kind, played, 60)
    if what == "take a chunk that has ended early":
        played.answer(TINY, 4)
        for _ in range(4):
            made.take(made.next_entry())
        entry, task = made.next_entry(), played.tasks[4]
        assert task.kind is Kind.EACH
    elif what == "look for an entry":
        for _ in range(4):
            made.entries.claim(None)
    with held_by_another_thread(made._turns._lock):
        if what == "take a chunk that has ended early":
            task.answer(task.calls[:3])
        acts = {
            "shut down": made.submit_rest,
            "look for an entry": made.prepare,
            "take a chunk that has ended early": lambda: made.take(entry),
        }
        thread = threading.Thread(target=lambda: told.append(acts[what]()))
        thread.start()
        time.sleep(0.03)  # who does not wait is mostly done by then
        assert told == []
    thread.join(20)
    assert len(told) == 1
    if what == "take a chunk that has ended early":
        assert told == [(task.calls[:3], None)]
    made.cancel()


@pytest.mark.parametrize("kind", [adaptive, bounded])
def test_code_that_has_interrupted_a_turn_cannot_take_what_that_turn_is_to_settle(kind):
    played = Played(timeout=5.0)
    made = begin(kind, played, 60)
    played.answer(TINY, 4)
    for _ in range(4):
        made.take(made.next_entry())
    entry, task = made.next_entry(), played.tasks[4]

    assert task.kind is Kind.EACH
    with made._turns._lock:  # it is this thread's turn
        task.answer(task.calls[:3])
        with pytest.raises(RuntimeError, match="^a map cannot go on in code that has interrupted its own submits$"):
            made.take(entry)
    assert made.take(entry) == (task.calls[:3], None)
    made.cancel()


def test_a_shutdown_from_within_a_turn_lets_the_pool_go_and_all_is_submitted():
    played, told, made = Played(), [], []

    def shut_down():
        if made and not told:
            told.append(len(played.pool.holds))
            told.append(made[0].submit_rest())
            told.append(len(played.pool.holds))

    made.append(adaptive(played, [*range(4), PickledWhile(shut_down), *range(5, 50)]))
    played.answer(LONG, 1)
    assert told == [1, False, 0], "this code may wait for the pool's end, and the turn cannot end before it"
    assert len(played.calls()) == 50


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_what_interrupts_the_pool_threads_submits_is_told_to_the_consumer(kind):
    played = Played(timeout=5.0)
    made = adaptive(played, range(100))
    played.refusal = kind("interrupted")
    if kind is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            played.tasks[0].answer()
    else:
        played.tasks[0].answer()
    played.refusal = None
    played.answer()
    assert played.pool.holds == []
    assert len(played.tasks) == 4
    came, seen = [], None
    try:
        came.extend(made.results(None))
    except BaseException as error:
        seen = error
    assert (came, type(seen)) == ([0, 1, 2, 3], kind)


def test_without_order_the_entries_that_another_thread_enters_are_waited_for():
    played = Played()
    made = adaptive(played, range(60), ordered=False)
    for _ in range(4):
        played.answer(LONG, 1)
        assert made.prepare() is True
        made.take(made.entries.claim(1.0))
    told: list = []
    with held_by_another_thread(made._turns._lock):
        thread = threading.Thread(target=lambda: told.append(made.prepare()))
        thread.start()
        time.sleep(0.03)
        assert told == []
    thread.join(20)
    assert told == [True]
    made.cancel()


# ---- the end ---------------------------------------------------------------------------------------------------


def test_at_its_end_a_map_says_so_as_often_as_it_is_asked():
    played = Played()
    made = adaptive(played, range(3))
    played.answer()
    assert [made.take(made.next_entry()) for _ in range(3)] == [([0], None), ([1], None), ([2], None)]
    assert made.prepare() is False
    assert made.next_entry() is None


@pytest.mark.parametrize("kind", [adaptive, bounded])
def test_in_a_forked_child_nobody_waits_and_the_pool_is_left_alone(kind):
    """The thread that had the turn was not copied, and the pool, which is the parent's, may be locked."""
    played, came = Played(timeout=5.0), []
    made = begin(kind, played, 100)
    played.answer(TINY, 1)
    held, before = list(played.pool.holds), len(played.tasks)
    with held_by_another_thread(made._turns._lock):
        made.forget_in_forked_child()
        for task in played.unanswered():
            task.future._resolve(None, InheritedFutureError("of the future"))
        thread = threading.Thread(target=lambda: came.append(taken(made.results(None))))
        thread.start()
        thread.join(20)
        waits = thread.is_alive()
    thread.join()
    assert not waits
    ((results, error),) = came
    assert results == [0]
    assert type(error) is InheritedFutureError
    assert (played.pool.holds, len(played.tasks)) == (held, before)
    assert type(made._chunks.failure) in (InheritedFutureError, type(None))


def test_in_a_forked_child_a_map_with_calls_left_ends_with_what_is_the_parents():
    played = Played()
    made = adaptive(played, range(100))
    made.forget_in_forked_child()
    played.answer()
    came, error = taken(made.results(None))
    assert came == [0, 1, 2, 3]
    assert type(error) is InheritedFutureError
    assert str(error) == "this map was under way when its process was forked: the parent goes on"


@pytest.mark.parametrize("ordered", [True, False])
def test_a_size_that_was_given_is_that_of_each_chunk_and_outcomes_come_of_each_call(ordered):
    played = Played()
    made = adaptive(played, range(25), ordered=ordered, chunksize=3, return_exceptions=True)
    assert played.sizes() == [3] * 4
    played.answer(LONG)
    assert played.sizes() == [3] * 8 + [1]
    assert {task.kind for task in played.tasks} == {Kind.EACH}
    assert [tuple(outcome) for outcome in made.results(None)] == [(number, number, None) for number in range(25)]


def test_the_time_of_the_map_ends_it():
    played = Played()
    with pytest.raises(TimeoutError):
        next(adaptive(played, range(9)).results(time.monotonic() - 1))
    assert all(task.future.cancelled() for task in played.tasks)
    with pytest.raises(TimeoutError):
        next(adaptive(Played(), range(9), ordered=False).results(time.monotonic() - 1))


def test_an_iterable_that_raises_is_told_before_anything_is_submitted():
    played = Played()
    with pytest.raises(LookupError):
        adaptive(played, Numbers(5, LookupError()))
    assert (played.tasks, played.maps) == ([], [])
