"""Which payloads go into segments, and which do not: sizes, names, and what a worker is told. Without workers."""

from __future__ import annotations

import errno
import pickle
from types import SimpleNamespace

import pytest

from pidfdpool.loop import segment_leases
from pidfdpool.loop.segment_account import TaskSegments
from pidfdpool.loop.segment_leases import Gathered, Staged, Unstaged
from pidfdpool.loop.task import Task
from pidfdpool.scheduler.policy import Policy
from pidfdpool.scheduler.states import State
from pidfdpool.serialization import payload
from pidfdpool.transport import framing
from pidfdpool.transport.segments import THRESHOLD, memory
from pidfdpool.transport.segments.arena import CALL, RESULT, Segment
from tests.loop import test_lease_books as books
from tests.loop.test_lease_books import LARGE, PATIENCE, learn, staged

pool = books.pool
LATE, SOON = segment_leases._LATE, segment_leases._SOON


def pickled(pool, *arguments, **keywords):
    return pool.leases.pickled((len, arguments, keywords), None)


def crowd(pool, tasks, waiting=0):
    """Have so many tasks, and callers that wait for room."""
    pool.tasks = dict.fromkeys(range(1000, 1000 + tasks))
    pool.admission.waiting = dict.fromkeys(range(waiting))


class Fd(books.Link):
    """Notes which frames had a descriptor, and what they said."""

    def __init__(self):
        super().__init__()
        self.frames, self.with_fd, self.written = [], [], b""

    def post(self, pieces, descriptor=None, *, large=False):
        self.with_fd.append(descriptor is not None)
        self.frames.append(framing.HEADER.unpack_from(pieces[0]))
        self.written = b"".join(pieces)
        super().post(pieces, descriptor, large=large)


# ---- calls -------------------------------------------------------------------------------------------------------


def test_a_small_call_is_one_pickle_and_expects_nothing(pool):
    for small in ((1, 2), ("x" * 100,), (b"x" * (THRESHOLD - 1000),)):
        buffers = pickled(pool, *small)
        assert (type(buffers), len(buffers)) == (list, 1)
        assert len(buffers[0]) < THRESHOLD
    assert pool.leases.expecting == 0


@pytest.mark.parametrize("where", ["positional", "keyword", "behind others", "not bytes"])
def test_a_large_call_lies_in_a_segment_wherever_it_is_large(pool, where):
    buffers = {
        "positional": lambda: pickled(pool, LARGE),
        "keyword": lambda: pickled(pool, key=LARGE),
        "behind others": lambda: pickled(pool, 1, b"x", LARGE),
        "not bytes": lambda: pickled(pool, "x" * len(LARGE)),
    }[where]()
    assert type(buffers) is Staged
    assert pool.leases.expecting == PATIENCE
    function, arguments, keywords = payload.loads([b"".join(buffers.through_channel()[:1])])
    assert (function, {**dict(enumerate(arguments)), **keywords}.popitem()[1]) in (
        (len, LARGE),
        (len, "x" * len(LARGE)),
    )


def test_a_keyword_is_not_forgotten_in_a_small_call(pool):
    [buffer] = pickled(pool, 1, key=2)
    assert b"key" in buffer


@pytest.mark.parametrize(("size", "kind"), [(THRESHOLD - 1, list), (THRESHOLD, Staged)])
def test_a_segment_is_used_from_the_threshold_on(pool, size, kind):
    buffers = [bytes(size)]
    pool.leases.expecting = 0
    plain = pool.leases.stage(buffers) if size >= THRESHOLD else buffers
    assert type(plain) is kind
    value = bytearray(size)
    overhead = sum(map(len, payload.dumps(value))) - size
    found = pool.leases.dump(bytearray(size - overhead), None)
    assert type(found) is kind


def test_patience_with_small_calls_runs_out(pool):
    pickled(pool, LARGE)
    for left in range(PATIENCE - 1, -1, -1):
        assert type(pickled(pool, 1)) is list
        assert pool.leases.expecting == left
    pickled(pool, 1)
    assert pool.leases.expecting == 0
    pool.leases.dump(1, None)
    assert pool.leases.expecting == 0
    pool.leases.dump(LARGE, None)
    assert pool.leases.expecting == PATIENCE


@pytest.mark.parametrize(("tasks", "waiting", "soon"), [(7, 0, True), (8, 0, False), (5, 2, True), (5, 3, False)])
def test_a_call_behind_many_others_is_staged_later_if_that_does_not_take_long(pool, tasks, waiting, soon):
    assert SOON * pool.machine.size == 8
    crowd(pool, tasks, waiting)
    assert type(pickled(pool, LARGE)) is (Staged if soon else Unstaged)
    assert type(pool.leases.stage([LARGE])) is (Staged if soon else Unstaged)
    assert type(pickled(pool, bytes(LATE + 1))) is Staged


def test_of_a_call_that_waits_what_the_caller_may_change_is_copied(pool):
    crowd(pool, 100)
    array = bytearray(LARGE)
    unstaged = pool.leases.dump(pickle.PickleBuffer(array), None)
    assert type(unstaged) is Unstaged
    array[:3] = b"abc"
    assert [bytes(part[:3]) for part in unstaged[1:]] == [b"xxx"]
    assert type(unstaged[0]) is bytes


@pytest.mark.parametrize("limit", [0, 1])
def test_a_call_for_which_there_is_no_segment_goes_through_the_channel_with_its_large_bytes_uncopied(pool, limit):
    pool.leases.arena.limit = limit
    large = bytes(LATE + 1)
    gathered = pool.leases.dump((len, (large,), {}), None)
    assert type(gathered) is Gathered
    assert any(part is large for part in gathered)
    array = bytearray(LATE + 1)
    gathered = pool.leases.dump(pickle.PickleBuffer(array), None)
    array[:3] = b"abc"
    assert all(bytes(part[:3]) != b"abc" for part in gathered)


def test_one_that_may_be_staged_later_waits_only_if_there_are_segments_at_all(pool):
    for limit, kind in ((1, Unstaged), (0, Gathered)):
        pool.leases.arena.limit = limit
        assert type(pool.leases.dump((len, (LARGE,), {}), None)) is kind
        assert type(pool.leases.stage([LARGE])) is kind


def test_a_free_segment_is_used_before_another_is_made(pool):
    segment = staged(pool).buffers.segment
    pool.tasks.clear()
    assert staged(pool).buffers.segment is segment
    assert len(pool.leases.arena) == 1


def test_one_that_has_waited_gets_a_new_segment_only_while_there_are_few(pool):
    crowd(pool, 100)
    tasks = [staged(pool, number) for number in range(SOON * pool.machine.size + 1)]
    for task in tasks:
        pool.leases.post(pool.link, task, 1, None)
    assert [type(task.buffers) for task in tasks] == [Staged] * (SOON * pool.machine.size) + [list]
    assert pool.link.large == [False] * (len(pool.link.large) - 1) + [True]
    pool.tasks.clear()
    del tasks[0], task
    crowd(pool, 100)
    late = staged(pool, 99)
    pool.leases.post(pool.link, late, 1, None)
    assert type(late.buffers) is Staged, "there is a free one"


def test_one_that_has_waited_and_would_take_long_is_not_copied_under_the_lock(pool):
    task = staged(pool)
    task.buffers = Unstaged([b"x" * (LATE + 1)])
    pool.leases.post(pool.link, task, 1, None)
    assert (type(task.buffers), pool.link.large) == (list, [True])
    task.buffers = Unstaged([b"x" * LATE])
    pool.leases.post(pool.link, task, 1, None)
    assert type(task.buffers) is Staged


def test_what_was_staged_late_is_what_was_submitted(pool):
    task = staged(pool)
    task.buffers = Unstaged([b"p" * 1000, b"q" * THRESHOLD])
    pool.leases.post(pool.link, task, 1, None)
    assert [bytes(part) for part in task.buffers.through_channel()] == [b"p" * 1000, b"q" * THRESHOLD]
    assert task.buffers.last_byte == ord("p")


# ---- sending -----------------------------------------------------------------------------------------------------


def test_a_worker_is_told_of_a_segment_with_its_number_its_role_and_its_pages(pool):
    pool.workers[0] = link = Fd()
    task = staged(pool)
    pool.leases.post(link, task, 2, 9.5)
    segment = task.buffers.segment
    expect, mapping, sent = link.frames
    assert link.with_fd == [True, True, False]
    assert expect[0] == framing.EXPECT_DESCRIPTORS
    assert (mapping[0], mapping[2:]) == (framing.MAP_SEGMENT, (CALL, segment.size // memory.PAGE, segment.number))
    assert (sent[0], sent[3:]) == (framing.TASK, (2, 1))
    assert sent[2] == framing.CALL_IN_SEGMENT | framing.HAS_DEADLINE
    assert link.account.leased == {1: TaskSegments(segment, None, 9.5)}


def test_a_lease_is_named_before_the_deadline_and_behind_the_call(pool):
    pool.workers[0] = link = Fd()
    task = learn(pool)
    pool.leases.post(link, task, 3, 9.5)
    lease = link.account.leased[1].result
    buffers = [*task.buffers, framing.LEASE.pack(lease.segment.number), framing.DEADLINE.pack(9.5)]
    flags = framing.HAS_LEASE | framing.HAS_DEADLINE
    assert link.written == b"".join(framing.encode(framing.TASK, flags, 3, 1, buffers))
    assert lease.segment.role == RESULT


def test_without_a_segment_the_lease_names_none(pool, monkeypatch):
    pool.workers[0] = link = Fd()
    task = learn(pool)
    monkeypatch.setattr(pool.leases.arena, "take_free", lambda *_: None)
    pool.leases.post(link, task, 1, None)
    buffers = [*task.buffers, framing.LEASE.pack(framing.NO_SEGMENT)]
    assert link.written == b"".join(framing.encode(framing.TASK, framing.HAS_LEASE, 1, 1, buffers))
    assert (link.large, link.account.leased) == ([True], {})


def test_a_lease_that_cannot_be_announced_is_given_back_and_the_worker_told_that_there_is_none(pool, monkeypatch):
    task = learn(pool)

    def refuse(_segment):
        raise OSError(errno.EMFILE, "no more")

    with monkeypatch.context() as refusing:
        refusing.setattr(Segment, "duplicate", refuse)
        pool.leases.post(pool.link, task, 1, None)
    assert pool.link.sent[-1][1] & framing.USES_SEGMENTS == framing.HAS_LEASE
    assert pool.link.account.leased == {}
    assert pool.leases.arena.take_free(RESULT, 1 << 20) is not None


def test_a_task_of_another_name_gets_no_lease_and_no_word_of_one(pool):
    learn(pool)
    other = Task(2, SimpleNamespace(), payload.dumps(None), "other work", Policy(1))
    pool.leases.post(pool.link, other, 1, None)
    assert pool.link.sent == [(framing.TASK, 0, 2)]


def test_a_worker_unmaps_what_is_used_no_more_before_its_next_task_and_only_that_worker_is_told(pool):
    task = staged(pool)
    other = pool.workers[1] = Fd()
    for link in (pool.link, other):
        pool.leases.post(link, task, 1, None)
    number = task.buffers.segment.number
    pool.leases.arena.to_unmap.add(number)
    pool.link.sent.clear()
    small = Task(2, SimpleNamespace(), payload.dumps(None), "small", Policy(1))
    pool.leases.post(pool.link, small, 1, None)
    assert [(kind, value) for kind, _, value in pool.link.sent] == [
        (framing.UNMAP_SEGMENT, number),
        (framing.TASK, 2),
    ]
    assert pool.leases.arena.to_unmap == {number}, "the other one still has it"
    assert framing.UNMAP_SEGMENT not in other.kinds
    del other.account.mapped_sizes[number]
    pool.leases.release_idle(0.0, None)
    assert pool.leases.arena.to_unmap == set()


def test_a_worker_that_is_gone_has_unmapped_everything(pool):
    task = staged(pool)
    pool.leases.post(pool.link, task, 1, None)
    pool.leases.arena.to_unmap.add(task.buffers.segment.number)
    pool.link.refuses = True
    pool.leases.release_idle(0.0, None)
    assert (pool.link.account.mapped_sizes, pool.leases.arena.to_unmap) == ({}, set())


def test_idle_slots_without_a_worker_are_told_nothing(pool):
    pool.machine.slots.append(SimpleNamespace(index=7, state=State.IDLE))
    pool.leases.arena.to_unmap.add(5)
    pool.leases.release_idle(0.0, None)
    assert pool.leases.arena.to_unmap == set()


def test_of_a_lease_there_is_nothing_to_take_back_but_a_call_is_read_by_one_less(pool):
    task = learn(pool)
    pool.leases.post(pool.link, task, 1, None)
    segment = pool.link.account.leased[1].result.segment
    pool.leases.take_back(pool.link, 1)
    assert pool.link.account.leased == {}
    assert segment in [pool.leases.arena.take_free(RESULT, 1 << 20) for _ in range(3)], "it is given back"
