"""The books of segments: what each worker has, what it is told, and when a segment is free. Without workers."""

from __future__ import annotations

import errno
import threading
from types import SimpleNamespace

import pytest

from pidfdpool.loop import segment_leases
from pidfdpool.loop.segment_account import SegmentAccount
from pidfdpool.loop.segment_leases import Gathered, SegmentLeases, Staged, Unstaged
from pidfdpool.loop.task import Task
from pidfdpool.process import native
from pidfdpool.scheduler.policy import Policy
from pidfdpool.scheduler.states import State
from pidfdpool.serialization import payload
from pidfdpool.transport import framing
from pidfdpool.transport.segments import THRESHOLD, layout
from pidfdpool.transport.segments.arena import CALL, RESULT, Segment

LARGE = b"x" * (4 * THRESHOLD)
PATIENCE = segment_leases._PATIENCE


class Link:
    """The host's end of a worker: notes the kinds of frames that it is sent. `refuses`: none is taken."""

    def __init__(self):
        self.account, self.sent, self.large, self.refuses = SegmentAccount(), [], [], False

    def post(self, pieces, descriptor=None, *, large=False):
        if descriptor is not None:
            native.close(descriptor)
        if self.refuses:
            raise BrokenPipeError
        kind, _, slot, _, value = framing.HEADER.unpack_from(pieces[0])
        self.sent.append((kind, slot, value))
        self.large.append(large)

    @property
    def kinds(self):
        return [kind for kind, *_ in self.sent]


@pytest.fixture
def pool():
    link = Link()
    pool = SimpleNamespace(
        lock=threading.RLock(), tasks={}, workers={0: link}, admission=SimpleNamespace(waiting={}),
        machine=SimpleNamespace(size=2, slots=[SimpleNamespace(index=0, state=State.IDLE)]),
        wake_pool_thread=lambda: None,
    )  # fmt: skip
    pool.leases = SegmentLeases(pool, 64 << 20)
    pool.link = link
    yield pool
    pool.tasks.clear()
    pool.leases.close()


def staged(pool, number=1, value=LARGE):
    """Give a task whose call lies in a segment."""
    buffers = pool.leases.pickled((len, (value,), {}), None)
    task = Task(number, SimpleNamespace(), buffers, "work", Policy(1))
    pool.tasks[number] = task
    return task


def outcome(number, flags, buffers=(b"\x80\x05N.",)):
    return framing.Frame(framing.RESULT, flags, 0, number, list(buffers))


# ---- calls -------------------------------------------------------------------------------------------------------


def test_a_worker_maps_the_segment_of_a_call_once(pool):
    first, second = staged(pool, 1), staged(pool, 2)
    assert type(first.buffers) is Staged
    pool.leases.post(pool.link, first, 1, None)
    assert pool.link.kinds == [framing.EXPECT_DESCRIPTORS, framing.MAP_SEGMENT, framing.TASK]
    assert pool.link.sent[-1][1] & framing.CALL_IN_SEGMENT
    assert pool.link.large == [False] * 3
    segment = first.buffers.segment
    assert pool.link.account.mapped_sizes == {segment.number: segment.size}
    assert segment.readers == 1
    pool.link.sent.clear()
    pool.leases.post(pool.link, second, 1, None)
    assert pool.link.kinds == [framing.MAP_SEGMENT, framing.TASK]
    pool.link.sent.clear()
    pool.leases.post(pool.link, first, 2, None)
    assert pool.link.kinds == [framing.TASK]


def test_where_no_descriptor_is_left_the_call_goes_through_the_channel_and_its_segment_is_not_used_again(
    pool, monkeypatch
):
    task = staged(pool)

    def refuse(_segment):
        raise OSError(errno.EMFILE, "no more")

    monkeypatch.setattr(Segment, "duplicate", refuse)
    pool.leases.post(pool.link, task, 1, None)
    assert pool.link.kinds == [framing.TASK]
    assert not pool.link.sent[0][1] & framing.USES_SEGMENTS
    assert pool.link.large == [True]
    assert task.buffers.segment.not_reusable
    assert task.buffers.segment.readers == 0
    assert pool.link.account.leased == {}


def test_a_call_is_in_use_until_its_answer_and_free_if_the_worker_says_so(pool):
    for flags, reusable in ((framing.CALL_SEGMENT_FREE, True), (0, False)):
        task = staged(pool)
        segment = task.buffers.segment
        pool.leases.post(pool.link, task, 1, None)
        pool.leases.settle(pool.link, outcome(1, framing.HAS_SEGMENT_FLAGS | flags))
        assert segment.readers == 0
        assert segment.not_reusable is not reusable
        assert pool.link.account.leased == {}


def test_what_was_not_reusable_before_is_not_because_one_worker_says_so(pool):
    task = staged(pool)
    pool.leases.post(pool.link, task, 1, None)
    task.buffers.segment.not_reusable = True
    pool.leases.settle(pool.link, outcome(1, framing.HAS_SEGMENT_FLAGS | framing.CALL_SEGMENT_FREE))
    assert task.buffers.segment.not_reusable


def test_a_call_that_was_taken_back_is_read_no_more(pool):
    task = staged(pool)
    pool.leases.post(pool.link, task, 1, None)
    pool.leases.take_back(pool.link, 1)
    pool.leases.take_back(pool.link, 1)
    assert task.buffers.segment.readers == 0


def test_a_segment_that_has_not_come_is_announced_anew_the_next_time_and_the_call_sent_without(pool):
    """Guards: it counted as mapped, and each later call in it had to be sent twice."""
    task = staged(pool)
    task.attempt = 3
    pool.leases.post(pool.link, task, 3, 9.0)
    pool.link.sent.clear()
    pool.leases.resend_without_segment(pool.link, 1)
    assert pool.link.kinds == [framing.TASK]
    flags = pool.link.sent[0][1]
    assert flags & framing.HAS_DEADLINE
    assert not flags & framing.USES_SEGMENTS
    assert pool.link.account.mapped_sizes == {}
    assert (pool.link.account.leased, task.buffers.segment.readers) == ({}, 0)
    pool.leases.resend_without_segment(pool.link, 1)
    assert pool.link.kinds == [framing.TASK], "it was sent already"


def test_a_worker_that_is_gone_gets_nothing_anew(pool):
    task = staged(pool)
    pool.leases.post(pool.link, task, 1, None)
    pool.link.refuses = True
    pool.leases.resend_without_segment(pool.link, 1)
    assert task.buffers.segment.readers == 0


# ---- results -----------------------------------------------------------------------------------------------------


def learn(pool, size=1 << 20, number=1):
    """Have a task of this name return something so large."""
    task = Task(number, SimpleNamespace(), payload.dumps(None), "work", Policy(1))
    pool.tasks[number] = task
    pool.leases.settle(pool.link, outcome(number, 0, [bytes(size)]))
    return task


def test_a_task_whose_name_is_known_for_large_results_gets_a_segment_for_its_own(pool):
    task = learn(pool)
    pool.leases.post(pool.link, task, 1, None)
    assert pool.link.kinds[-1] == framing.TASK
    assert pool.link.sent[-1][1] & framing.USES_SEGMENTS == framing.HAS_LEASE
    lease = pool.link.account.leased[1].result
    assert lease.segment.size >= 1 << 20
    assert pool.leases.arena.take_free(RESULT, 1 << 20) is None, "it is the worker's"


def test_without_a_segment_the_worker_is_told_that_the_result_is_probably_large(pool):
    task = learn(pool)
    taken = pool.leases.arena.take_free(RESULT, 1 << 20)
    pool.leases.post(pool.link, task, 1, None)
    assert pool.link.sent[-1][1] & framing.USES_SEGMENTS == framing.HAS_LEASE
    assert pool.link.account.leased == {}
    pool.leases.arena.release(taken)


def test_small_results_are_forgiven_for_a_while(pool):
    learn(pool)
    size, patience = pool.leases.sizes["work"]
    assert (size, patience) == (1 << 20, PATIENCE)
    for left in range(PATIENCE - 1, -1, -1):
        learn(pool, 10)
        assert pool.leases.sizes["work"] == (size, left)
    learn(pool, 10)
    assert "work" not in pool.leases.sizes


def test_results_that_become_smaller_have_smaller_segments_in_the_end_and_larger_ones_at_once(pool):
    learn(pool, 8 << 20)
    learn(pool, 1 << 20)
    assert pool.leases.sizes["work"][0] == 7 << 20
    learn(pool, 9 << 20)
    assert pool.leases.sizes["work"][0] == 9 << 20


def test_an_error_says_nothing_of_the_size_of_results(pool):
    pool.tasks[1] = Task(1, SimpleNamespace(), payload.dumps(None), "work", Policy(1))
    pool.leases.settle(pool.link, framing.Frame(framing.ERROR, 0, 0, 1, [bytes(1 << 20)]))
    assert pool.leases.sizes == {}


def leased(pool):
    task = learn(pool)
    pool.leases.post(pool.link, task, 1, None)
    return pool.link.account.leased[1].result.segment


def in_segment(segment, value):
    """Write what a worker would, and return the reference."""
    plan = layout.Layout(*value)
    with memoryview(segment.shared) as whole:
        plan.write(whole)
    return plan.reference(segment.number)


RESULT_FLAGS = framing.HAS_SEGMENT_FLAGS | framing.RESULT_IN_SEGMENT


def test_a_result_that_is_viewed_is_not_leased_again_until_nobody_views_it(pool):
    """Guards: the segment was given to the next task, which wrote over what the user was looking at."""
    segment = leased(pool)
    frame = outcome(1, RESULT_FLAGS, [in_segment(segment, ([payload.dumps(1)[0]], [b"y" * (1 << 19)]))])
    pool.leases.settle(pool.link, frame)
    assert segment.held
    assert pool.leases.arena.take_free(RESULT, 1 << 20) is not segment
    assert bytes(frame.buffers[1][:3]) == b"yyy"
    frame.buffers.clear()
    assert not segment.held
    pool.leases.arena.release(pool.leases.arena.allocate(RESULT, 1 << 20))
    found = [pool.leases.arena.take_free(RESULT, 1 << 20) for _ in range(3)]
    assert found.count(segment) == 1, "and then it is free, once"


def test_a_result_that_is_copied_out_is_free_when_it_was(pool):
    segment = leased(pool)
    frame = outcome(1, RESULT_FLAGS, [in_segment(segment, ([b"z" * (1 << 20)], []))])
    pool.leases.settle(pool.link, frame)
    assert pool.leases.arena.take_free(RESULT, 1 << 20) is not segment
    frame.buffers = []
    found = [pool.leases.arena.take_free(RESULT, 1 << 20) for _ in range(3)]
    assert found.count(segment) == 1


def test_a_lease_that_was_not_used_is_free_and_one_that_has_not_come_is_announced_anew(pool):
    segment = leased(pool)
    pool.leases.settle(pool.link, outcome(1, framing.HAS_SEGMENT_FLAGS | framing.LEASE_NOT_RECEIVED))
    assert segment.number not in pool.link.account.mapped_sizes
    assert segment in [pool.leases.arena.take_free(RESULT, 1 << 20) for _ in range(3)]


@pytest.mark.parametrize("lie", ["no lease", "another segment", "too large"])
def test_a_result_in_a_segment_that_was_not_lent_is_nothing_that_a_loop_writes(pool, lie):
    segment = leased(pool)
    reference = in_segment(segment, ([b"z" * 100], []))
    if lie == "no lease":
        pool.link.account.leased.clear()
    elif lie == "another segment":
        reference = layout.Layout([b"z" * 100]).reference(segment.number + 1)
    else:
        reference = layout.Layout([b"z" * (8 << 20)]).reference(segment.number)
    with pytest.raises(framing.ProtocolError, match="not lent|larger than the segment"):
        pool.leases.settle(pool.link, outcome(1, RESULT_FLAGS, [reference]))


# ---- the rest ----------------------------------------------------------------------------------------------------


def test_idle_workers_are_told_what_is_used_no_more_and_busy_ones_before_their_next_task(pool):
    task = staged(pool)
    pool.leases.post(pool.link, task, 1, None)
    number = task.buffers.segment.number
    pool.leases.settle(pool.link, outcome(1, framing.HAS_SEGMENT_FLAGS | framing.CALL_SEGMENT_FREE))
    pool.leases.arena.to_unmap.update({number, 9999})
    slot = pool.machine.slots[0]
    slot.state = State.BUSY
    pool.link.sent.clear()
    assert pool.leases.release_idle(0.0, 5.0) == 5.0
    assert pool.link.sent == []
    assert pool.leases.arena.to_unmap == {number}, "the other is nobody's"
    slot.state = State.IDLE
    pool.leases.release_idle(0.0, None)
    assert pool.link.sent == [(framing.UNMAP_SEGMENT, 0, number)]
    assert (pool.link.account.mapped_sizes, pool.leases.arena.to_unmap) == ({}, set())


def test_it_is_looked_again_when_something_will_be_idle_or_sooner(pool, monkeypatch):
    for due, deadline, expected in (
        (None, 5.0, 5.0),
        (7.0, 5.0, 5.0),
        (3.0, 5.0, 3.0),
        (3.0, None, 3.0),
        (None, None, None),
    ):
        monkeypatch.setattr(pool.leases.arena, "free_idle", lambda _now, due=due: due)
        assert pool.leases.release_idle(0.0, deadline) == expected


def test_a_call_that_will_wait_for_long_is_staged_when_it_is_sent(pool):
    pool.tasks = dict.fromkeys(range(100, 100 + segment_leases._SOON * pool.machine.size))
    task = staged(pool)
    assert type(task.buffers) is Unstaged
    pool.leases.post(pool.link, task, 1, None)
    assert type(task.buffers) is Staged
    assert pool.link.sent[-1][1] & framing.CALL_IN_SEGMENT
    pool.tasks = dict.fromkeys(range(100, 200))
    larger = staged(pool, 1, b"x" * (segment_leases._LATE + 1))
    assert type(larger.buffers) is Staged, "to copy it later would hold the lock for too long"


def test_without_segments_a_call_goes_through_the_channel(pool):
    pool.leases.arena.limit = 0
    task = staged(pool)
    assert type(task.buffers) is Gathered
    pool.leases.post(pool.link, task, 1, None)
    assert (pool.link.kinds, pool.link.large) == ([framing.TASK], [True])


def test_a_segment_is_given_back_with_its_task(pool):
    segment = staged(pool).buffers.segment
    assert pool.leases.arena.take_free(CALL, segment.size) is None
    pool.tasks.clear()
    assert pool.leases.arena.take_free(CALL, segment.size) is segment
