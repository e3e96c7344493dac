"""What the host keeps of a task: what its frame tells the worker, and by what it is named."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace

import pytest

from pidfdpool.loop.chunk_calls import Chunk, Terms
from pidfdpool.loop.task import Task, name_of, nameable, unwrapped
from pidfdpool.scheduler.policy import Policy
from pidfdpool.serialization import kept_definitions, payload
from pidfdpool.transport import framing

SPARES = Policy(1, kill_descendants=False)
PLAIN, SCRIPT = [b"\x80\x05N."], [b"\x80\x05N." + bytes([payload.NEEDS_SCRIPT])]


class Large(list):
    """A call that lies in a segment: what is sent of it is a reference, and its last byte is known."""

    def __init__(self, last_byte):
        super().__init__([b"the place in the segment"])
        self.last_byte = last_byte


def task(buffers=PLAIN, what="work", policy=None, **options):
    return Task(7, SimpleNamespace(), buffers, what, policy or Policy(1), **options)


def chunk(**options):
    return Chunk(print, "work", 10, range(4), starred=False, **options)


def header(pieces):
    kind, count, flags, attempt, number = framing.HEADER.unpack_from(pieces[0])
    assert (kind, number) == (framing.TASK, 7)
    return count, flags, attempt


@pytest.mark.parametrize(
    ("buffers", "what", "policy", "flags"),
    [
        (PLAIN, "work", None, 0),
        (SCRIPT, "work", None, framing.NEEDS_SCRIPT),
        (Large(payload.NEEDS_SCRIPT), "work", None, framing.NEEDS_SCRIPT),
        (Large(ord(".")), "work", None, 0),
        (PLAIN, chunk(of_script=True), None, framing.NEEDS_SCRIPT),
        (PLAIN, chunk(), None, 0),
        (SCRIPT, chunk(), None, framing.NEEDS_SCRIPT),
        (PLAIN, "work", SPARES, framing.SPARE_DESCENDANTS),
        (SCRIPT, "work", SPARES, framing.SPARE_DESCENDANTS | framing.NEEDS_SCRIPT),
        (PLAIN, chunk(of_script=True), SPARES, framing.SPARE_DESCENDANTS | framing.NEEDS_SCRIPT),
    ],
)
def test_what_a_call_needs_of_its_worker_is_told_with_each_attempt(buffers, what, policy, flags):
    made = task(buffers, what, policy)
    assert made.flags == flags
    assert made.needs_script is bool(flags & framing.NEEDS_SCRIPT)
    for attempt in (1, 2):
        assert header(made.frame(attempt, None)) == (1, flags, attempt)


def test_a_call_is_sent_as_it_is_and_what_is_added_is_behind_it():
    made = task([b"the call", b"a buffer of it"])
    assert made.frame(3, None)[1:] == framing.encode(framing.TASK, 0, 3, 7, [b"the call", b"a buffer of it"])[1:]
    pieces = made.frame(3, 2.5, framing.HAS_LEASE, [b"instead"])
    assert pieces == framing.encode(
        framing.TASK, framing.HAS_LEASE | framing.HAS_DEADLINE, 3, 7, [b"instead", framing.DEADLINE.pack(2.5)]
    )
    for deadline in (0.0, 1.0):
        assert header(made.frame(1, deadline)) == (3, framing.HAS_DEADLINE, 1), "0.0 is a deadline, too"
    assert made.buffers == [b"the call", b"a buffer of it"], "the next attempt has a deadline of its own"


def test_a_deadline_comes_beside_what_the_task_needs():
    count, flags, _ = header(task(SCRIPT, policy=SPARES).frame(1, math.inf))
    assert flags == framing.NEEDS_SCRIPT | framing.SPARE_DESCENDANTS | framing.HAS_DEADLINE
    assert count == 2


def test_attempts_that_a_frame_cannot_count_are_told_as_the_largest_number():
    made = task()
    for attempt in (framing.MAX_ATTEMPTS - 1, framing.MAX_ATTEMPTS):
        assert header(made.frame(attempt, None))[2] == attempt
    assert header(made.frame(framing.MAX_ATTEMPTS + 1, None))[2] == framing.MAX_ATTEMPTS


def test_a_new_task_has_had_no_attempt_and_keeps_what_it_was_given():
    future, policy, held = SimpleNamespace(), Policy(1), object()
    made = Task(9, future, PLAIN, "work", policy, held)
    assert (made.number, made.begun, made.attempt, made.deaths, made.chunk) == (9, False, 0, (), None)
    assert made.future is future
    assert made.policy is policy
    assert made.held is held
    assert made.buffers is PLAIN
    assert task().held is None
    assert not hasattr(made, "worker"), "not before one has it"


def test_a_large_call_is_told_from_a_small_one():
    assert task(Large(46)).heavy
    assert not task().heavy


@pytest.mark.parametrize("kept", [False, True])
def test_a_task_keeps_large_definitions_that_its_result_may_refer_to(kept, monkeypatch):
    def large():
        pass

    here = {"large": large}
    known = {1: (lambda: large, "large", here), 2: (lambda: None, "gone", here)} if kept else {}
    monkeypatch.setattr(kept_definitions, "large", known)
    assert task().definitions == ([large] if kept else None)


@pytest.mark.parametrize(
    ("terms", "follows"), [(None, False), (Terms(), False), (Terms(attempts=1), False), (Terms(follows=True), True)]
)
def test_a_chunk_follows_another_only_if_it_says_so(terms, follows):
    assert task(what=chunk(terms=terms)).follows is follows
    assert not task().follows


class Callable:
    def __call__(self):
        pass


def test_a_task_is_named_by_its_function_or_by_which_calls_of_a_map_it_makes():
    made = chunk()
    for what, name, label in (
        ("work", "work", "work"),
        (chunk, "tests.loop.test_task.chunk", "tests.loop.test_task.chunk"),
        (made, "work", "work, items 10 to 13 of map"),
    ):
        each = task(what=what)
        assert (each.name, each.label) == (name, label)
    assert task(what=made).chunk is made
    assert name_of(made) == "work"


def test_what_is_kept_of_a_function_is_its_name_if_it_may_hold_something_large():
    """Guards: a task kept the list whose method it calls, or the object that it is, until its future was done."""
    made = chunk()
    for function in (chunk, made, len, math.sqrt):
        assert nameable(function) is function
    bound, item = Callable().__call__, [1, 2]
    for function in (item.append, bound, partial(chunk), Callable()):
        kept = nameable(function)
        assert type(kept) is str
        assert kept == name_of(function)


def test_of_a_chunk_the_plain_function_is_sent_with_the_users_before_the_arguments():
    made = Chunk(sum, "work", 0, range(2), func=len)
    assert unwrapped(made, (1, 2), {"key": 3}) == (sum, (len, 1, 2), {"key": 3})
    assert unwrapped(chunk(), (1,), {}) == (print, (1,), {})
