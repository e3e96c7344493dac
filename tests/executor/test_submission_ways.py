"""How the chunks of one map get into the pool: which rules travel with them, and what of them does not pickle."""

from __future__ import annotations

import contextvars
import gc
import itertools
import threading
import time
import weakref
from concurrent.futures import Future

import pytest

from pidfdpool import CallNotSendable, Policy
from pidfdpool.executor.map_entries import Entries
from pidfdpool.executor.map_pieces import Kind, UnsentCall
from pidfdpool.executor.map_submission import Submission
from pidfdpool.loop.chunk_calls import Terms
from pidfdpool.loop.pool import Pool
from pidfdpool.serialization import payload, picklers
from tests.executor.played_maps import Played

NAME = contextvars.ContextVar("NAME", default="nobody")


def submission(function=abs, *, starred=False, ready=True, outcomes=False, lazy=False, **options):
    made = Submission(function, Policy(2, **options), None, starred=starred, outcomes=outcomes, lazy=lazy)
    if ready:
        assert made.pickle_function() is None
    return made


def sent(made, calls, *, first=0, terms=None, publishes=False, played=None):
    played = played or Played()
    entries = list(made.submit(played, first, calls, terms, publishes=publishes))
    return entries, played.tasks


# ---- rules -----------------------------------------------------------------------------------------------------


def test_unless_it_is_said_there_are_results_and_inputs_that_are_there():
    made = Submission(abs, Policy(2), None, starred=False)
    assert not made.counts_calls
    ruled = Submission(abs, Policy(2, timeout=5.0), None, starred=False)
    assert ruled.counts_calls
    ruled.pickle_function()
    (piece,), _ = sent(ruled, [1])
    assert piece.kind is Kind.EACH, "a map that has its inputs may have more calls"
    made.pickle_function()
    (piece,), _ = sent(made, [1])
    assert piece.kind is Kind.TOGETHER, "nobody has asked for more"


def test_where_outcomes_are_wanted_each_call_counts_alone_ones_too():
    for lazy in (False, True):
        made = submission(outcomes=True, lazy=lazy)
        assert made.counts_calls
        for count in (1, 3):
            (piece,), _ = sent(made, list(range(count)))
            assert piece.kind is Kind.EACH
    (piece,), _ = sent(submission(outcomes=True, lazy=True, timeout=5.0), [1])
    assert piece.kind is Kind.EACH


def test_a_chunk_is_never_tried_again_as_a_whole_and_a_call_alone_is():
    made = submission(retries=3, timeout=4.0)
    _, (chunk,) = sent(made, [1, 2])
    assert (chunk.policy.retries, chunk.policy.timeout) == (0, 4.0)
    _, (alone,) = sent(made, [1], terms=Terms(attempts=1))
    assert (alone.policy.retries, alone.policy.timeout) == (3, 4.0)
    assert made.policy.retries == 3


@pytest.mark.parametrize(
    ("options", "lazy", "terms", "until"),
    [
        ({"deadline": 7.0}, False, None, 107.0),
        ({"deadline": 7.0}, True, None, 108.0),
        ({"deadline": 7.0}, False, Terms(5.0, follows=True), 12.0),
        ({"deadline": 7.0}, False, Terms(None, follows=True), None),
        ({"timeout": 3.0}, False, None, None),
    ],
)
def test_a_chunk_knows_until_when_its_calls_are_wanted(monkeypatch, options, lazy, terms, until):
    now = itertools.count(100.0)
    monkeypatch.setattr("pidfdpool.executor.map_submission.time.monotonic", lambda: next(now))
    made = submission(lazy=lazy, **options)
    (piece,), (task,) = sent(made, [1, 2], terms=terms)
    monkeypatch.undo()
    assert task.arguments[2:] == (2, False, options.get("timeout"), until)
    expected = terms.since if terms is not None else 101.0 if lazy else 100.0
    assert piece.rest.since == expected == task.chunk.terms.since


@pytest.mark.parametrize("starred", [False, True])
def test_each_kind_of_task_knows_whether_calls_are_tuples(starred):
    calls = [(1,), (2,)] if starred else [1, 2]
    for options, terms, count in (({}, None, 2), ({"timeout": 5.0}, None, 2), ({}, Terms(attempts=1), 1)):
        (piece,), (task,) = sent(submission(starred=starred, **options), calls[:count], terms=terms, first=10)
        assert task.starred is starred
        assert task.calls == calls[:count] == list(piece.calls)
        assert task.chunk.named() == {f"argument 1 of item {10 + at} of map": at + 1 for at in range(count)}, (
            "which is what an error names"
        )


def test_chosen_context_variables_are_those_of_who_maps():
    def tell(_):
        return NAME.get()

    token = NAME.set("the caller")
    made = submission(tell, context_vars=(NAME,), ready=False)
    NAME.reset(token)
    assert contextvars.Context().run(made._function, 1) == "the caller"
    assert "tell" in made._name
    assert submission(abs)._function is abs


def test_a_task_is_for_workers_that_have_run_the_script_if_its_function_or_its_calls_need_that():
    made = submission()
    _, (task,) = sent(made, [1])
    assert task.chunk.of_script is False
    made._pickled_function = bytes([*made._pickled_function, payload.NEEDS_SCRIPT])
    _, (task,) = sent(made, [1])
    assert task.chunk.of_script is True


# ---- what does not pickle --------------------------------------------------------------------------------------


def test_those_between_two_that_do_not_pickle_stay_together():
    lock = threading.Lock()
    calls = [1, 2, lock, 4, 5, 6, lock, lock, 9]
    entries, tasks = sent(submission(), calls, first=100)
    assert [task.calls for task in tasks] == [[1, 2], [4, 5, 6], [9]]
    assert [entry._index if type(entry) is UnsentCall else entry.first for entry in entries] == [
        100, 102, 103, 106, 107, 108
    ]  # fmt: skip
    assert [type(entry) is UnsentCall for entry in entries] == [False, True, False, True, True, False]
    assert all(type(entry.error) is CallNotSendable for entry in entries if type(entry) is UnsentCall)


def test_the_parts_have_the_terms_and_the_rules_of_the_whole():
    lock, terms = threading.Lock(), Terms(5.0, follows=True)
    _, tasks = sent(submission(), [1, lock, 3], terms=terms)
    assert [task.chunk.terms for task in tasks] == [terms] * 2
    _, tasks = sent(submission(), [1, lock, 3, 4], publishes=True)
    assert {task.kind for task in tasks} == {Kind.EACH}


class Beside:
    """Does not pickle behind another of its kind."""

    seen = False

    def __reduce__(self):
        if Beside.seen:
            raise TypeError("not beside another")
        Beside.seen = True
        return int, (7,)


class LookedAt(list):
    """Calls: each may be pickled when it was looked at by itself."""

    def __getitem__(self, index):
        Beside.seen = False
        return super().__getitem__(index)


def test_calls_that_only_together_do_not_pickle_are_tasks_of_their_own():
    Beside.seen = False
    entries, tasks = sent(submission(), LookedAt([Beside(), Beside()]), first=100)
    assert [task.calls for task in tasks] == [[7], [7]]
    assert [entry.first for entry in entries] == [100, 101]


@pytest.mark.parametrize("others", [[], [2], [2, 3]])
def test_an_attempt_to_pickle_leaves_nothing_shared(others):
    import multiprocessing
    from multiprocessing import resource_sharer

    read, write = multiprocessing.Pipe(duplex=False)
    try:
        with read, write:
            entries, _ = sent(submission(), [(read, threading.Lock()), *others])
            assert type(entries[0]) is UnsentCall
            assert not picklers.shared_resources
            assert resource_sharer._resource_sharer._cache == {}, "none waits to be fetched"
    finally:
        resource_sharer.stop(20)


def test_the_error_of_a_call_names_its_argument_alone_or_in_a_tuple():
    lock = threading.Lock()
    (entry,), _ = sent(submission(), [lock], first=5)
    assert "argument 1 of abs()" in str(entry.error)
    assert entry._index == 5
    (entry,), _ = sent(submission(pow, starred=True), [(2, lock)])
    assert "argument 2 of pow()" in str(entry.error)


def test_a_function_that_does_not_pickle_fails_each_call_or_takes_the_place_of_all():
    lock = threading.Lock()
    made = submission(lambda _: lock, ready=False)
    unsent = made.pickle_function()
    assert unsent.take()[0] == []
    assert type(unsent.error) is CallNotSendable
    outcomes = submission(lambda _: lock, ready=False, outcomes=True)
    assert outcomes.pickle_function() is None
    entries, tasks = sent(outcomes, [1, 2, 3], first=10)
    assert tasks == []
    assert [entry._index for entry in entries] == [10, 11, 12]
    assert len({id(entry.error) for entry in entries}) == 3
    assert {str(entry.error) for entry in entries} == {str(unsent.error)}


def test_what_is_no_exception_is_raised_at_once():
    class Interrupts:
        def __reduce__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sent(submission(), [Interrupts()])
    with pytest.raises(KeyboardInterrupt):
        submission(Interrupts(), ready=False).pickle_function()


# ---- the pool itself -------------------------------------------------------------------------------------------


class Direct(Pool):
    """The pool itself, as far as a chunk needs it that follows from another."""

    def __init__(self, refusal=None):
        self.asked, self.submitted, self.refusal = 0, [], refusal
        self.leases, self.recipe = self, self

    shared_main = None

    def check_open(self):
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal

    def pickled(self, call, shared):
        assert shared is None
        return [payload.dumps(call)]

    def submit(self, recipient, buffers, name, policy, held, *, wait):
        assert wait
        self.submitted.append((recipient, policy))


def test_what_follows_is_accepted_by_a_pool_that_is_shut_down_and_other_calls_are_not():
    made = submission(retries=2)
    direct = Direct(RuntimeError("after shutdown"))
    (piece,) = made.submit(direct, 0, [1, 2], Terms(5.0, follows=True))
    ((recipient, policy),) = direct.submitted
    assert (piece.future, policy.retries, direct.asked) == (recipient, 0, 0)
    (alone,) = made.submit(direct, 0, [1], Terms(attempts=1, follows=True))
    assert (alone.future, direct.submitted[1][1].retries) == (direct.submitted[1][0], 2)
    for terms in (None, Terms(5.0)):
        with pytest.raises(RuntimeError, match="after shutdown"):
            list(made.submit(direct, 0, [1, 2], terms))
    plain = submission()
    with pytest.raises(RuntimeError, match="after shutdown"):
        list(plain.submit(direct, 0, [1, 2]))
    assert direct.asked == 3
    assert len(direct.submitted) == 2
    opened = Direct()
    (piece,) = plain.submit(opened, 0, [1, 2])
    assert (piece.kind, piece.future, opened.asked) == (Kind.TOGETHER, opened.submitted[0][0], 1)


# ---- entries ---------------------------------------------------------------------------------------------------


class Chunk:
    def __init__(self, done=False):
        self.future = Future()
        if done:
            self.future.set_result(None)


def test_who_wants_to_know_is_told_of_each_entry_that_can_be_claimed():
    told: list = []
    found = Entries(ordered=False)
    assert found.told is None
    found.told = lambda: told.append(found.is_first_done)
    first = Chunk()
    found.add([first, UnsentCall(LookupError())])
    assert told == [True]
    found.complete(first)
    assert told == [True, True]
    ordered = Entries(ordered=True)
    ordered.told = lambda: told.append("in order")
    ordered.add([first, UnsentCall(LookupError())])
    ordered.complete(first)
    assert len(told) == 2, "who takes them in order waits for their futures"


def test_the_entries_are_counted_as_they_are_added_and_claimed():
    for ordered in (True, False):
        found = Entries(ordered=ordered)
        assert (found.were_added, found.are_claimed, found.is_first_done) == (False, True, False)
        found.add([])
        assert (found.were_added, found.are_claimed) == (False, True)
        found.add([UnsentCall(LookupError())])
        assert found.were_added
        found.add([UnsentCall(LookupError())])
        assert (found.were_added, found.are_claimed, found.is_first_done) == (True, False, True)
        found.claim(None)
        assert not found.are_claimed
        found.claim(None)
        assert (found.were_added, found.are_claimed, found.is_first_done) == (True, True, False)
        assert found.is_ordered is ordered


def test_an_entry_that_is_not_completed_is_waited_for_until_the_deadline():
    found, first = Entries(ordered=False), Chunk()
    found.add([first])
    began = time.monotonic()
    with pytest.raises(TimeoutError) as raised:
        found.claim(began + 0.02)
    assert time.monotonic() - began >= 0.02
    assert raised.value.__suppress_context__
    late, second = Entries(ordered=False), Chunk()
    late.add([second])
    late.complete(second)
    assert late.claim(time.monotonic() - 5) is second, "it is there"


def test_an_entry_is_let_go_of_with_its_claim():
    for ordered in (True, False):
        found, entry = Entries(ordered=ordered), UnsentCall(LookupError())
        found.add([entry])
        gone = weakref.ref(entry)
        del entry
        found.claim(None)
        gc.collect()
        assert gone() is None
