"""Results in segments: what comes out of them, when they are free again, and what is learned from them."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import pytest

from pidfdpool.loop import segment_leases
from pidfdpool.loop.segment_account import ResultLease, SegmentAccount, TaskSegments
from pidfdpool.loop.segment_leases import SegmentLeases
from pidfdpool.loop.task import Task
from pidfdpool.scheduler.policy import Policy
from pidfdpool.serialization import payload
from pidfdpool.transport import framing
from pidfdpool.transport.segments import THRESHOLD, memory
from pidfdpool.transport.segments.arena import RESULT
from tests.loop import test_lease_books as books
from tests.loop.test_lease_books import PATIENCE, RESULT_FLAGS, in_segment, learn, leased, outcome, staged

pool = books.pool
PICKLE = payload.dumps(1)[0]
VIEWED = ([PICKLE], [b"y" * (1 << 19)])


def settled(pool, value, flags=RESULT_FLAGS):
    """Have a worker return that in the segment that it was lent; return the segment and the frame."""
    segment = leased(pool)
    frame = outcome(1, flags, [in_segment(segment, value)])
    pool.leases.settle(pool.link, frame)
    return segment, frame


def free(pool, count=3):
    return [pool.leases.arena.take_free(RESULT, 1 << 20) for _ in range(count)]


# ---- what comes out ----------------------------------------------------------------------------------------------


def test_a_result_comes_out_as_it_was_put_in(pool):
    _, frame = settled(pool, ([PICKLE], [b"a" * 100_000, b"b" * 70_000]))
    assert list(map(bytes, frame.buffers)) == [PICKLE, b"a" * 100_000, b"b" * 70_000]
    assert pool.link.account.leased == {}


def test_what_the_user_does_to_a_result_that_is_viewed_reaches_no_segment(pool):
    segment, frame = settled(pool, VIEWED)
    frame.buffers[1][:3] = b"abc"
    assert b"abc" not in bytes(segment.shared[: 1 << 20])


def test_of_so_many_results_at_a_time_no_more_are_viewed_but_copied(pool):
    """Guards: a process may have 65530 mappings, and cannot even allocate memory beyond that."""
    pool.leases._looked_at.update(range(10**9, 10**9 + segment_leases._MOST_LOOKED_AT - 1))
    segment, frame = settled(pool, VIEWED)
    assert segment.held
    assert segment.number in pool.leases._looked_at
    other, copied = settled(pool, VIEWED)
    assert not other.held
    assert [type(part) for part in copied.buffers] == [bytearray] * 2
    assert bytes(copied.buffers[1]) == VIEWED[1][0]
    assert other in free(pool), "it is free at once"
    frame.buffers.clear()
    assert segment.number not in pool.leases._looked_at


def refuse_views(monkeypatch, error):
    """Have the host be unable to map a segment another time."""
    map_file = memory.map_file

    def refuse(fd, size, flags):
        if flags == memory.PRIVATE:
            raise error
        return map_file(fd, size, flags)

    monkeypatch.setattr(memory, "map_file", refuse)


def test_a_result_that_cannot_be_mapped_is_copied(pool, monkeypatch):
    refuse_views(monkeypatch, OSError("no mapping left"))
    segment, frame = settled(pool, VIEWED)
    assert list(map(bytes, frame.buffers)) == [PICKLE, VIEWED[1][0]]
    assert not segment.held


def test_a_result_for_which_there_is_no_memory_is_missing_with_its_size(pool, monkeypatch):
    refuse_views(monkeypatch, MemoryError())
    segment, frame = settled(pool, VIEWED)
    assert type(frame.buffers) is framing.MissingBuffers
    assert 1 << 19 <= frame.buffers.size < 1 << 20
    assert not segment.held


def test_the_size_of_a_result_in_a_segment_is_learned(pool):
    settled(pool, ([PICKLE], [b"y" * (3 << 18)]))
    size, patience = pool.leases.sizes["work"]
    assert (size, patience) == ((1 << 20) - (1 << 17), PATIENCE), "an eighth less than the one before"
    pool.leases.sizes.clear()
    segment, frame = settled(pool, ([b"z" * (1 << 20)], []))
    frame.buffers = []
    pool.leases.sizes["work"] = 100, 5
    leased_now = leased(pool)
    pool.leases.settle(pool.link, outcome(1, RESULT_FLAGS, [in_segment(leased_now, ([b"z" * (1 << 19)], []))]))
    assert pool.leases.sizes["work"][0] >= 1 << 19
    assert segment.size >= 1 << 20


def test_a_result_of_a_task_that_is_over_is_read_all_the_same_and_nothing_is_learned(pool):
    segment = leased(pool)
    pool.tasks.clear()
    pool.leases.sizes.clear()
    frame = outcome(1, RESULT_FLAGS, [in_segment(segment, VIEWED)])
    pool.leases.settle(pool.link, frame)
    assert bytes(frame.buffers[1]) == VIEWED[1][0]
    assert pool.leases.sizes == {}


def test_a_lease_that_has_come_stays_mapped(pool):
    segment = leased(pool)
    pool.leases.settle(pool.link, outcome(1, framing.HAS_SEGMENT_FLAGS))
    assert segment.number in pool.link.account.mapped_sizes
    assert segment in free(pool)


def test_of_a_task_with_both_each_segment_is_settled_by_its_own_flag(pool):
    task = staged(pool)
    pool.leases._learn("work", framing.RESULT, 1 << 20)
    pool.leases.post(pool.link, task, 1, None)
    had = pool.link.account.leased[1]
    pool.leases.settle(pool.link, outcome(1, framing.HAS_SEGMENT_FLAGS | framing.LEASE_NOT_RECEIVED))
    assert (had.call.readers, had.call.not_reusable) == (0, True)
    assert had.call.number in pool.link.account.mapped_sizes
    assert had.result.segment.number not in pool.link.account.mapped_sizes


def test_an_answer_without_flags_settles_nothing(pool):
    task = staged(pool)
    pool.leases.post(pool.link, task, 1, None)
    pool.leases.settle(pool.link, outcome(1, 0))
    assert (task.buffers.segment.readers, list(pool.link.account.leased)) == (1, [1])


def test_flags_without_anything_lent_are_no_trouble(pool):
    pool.leases.settle(pool.link, outcome(1, framing.HAS_SEGMENT_FLAGS | framing.LEASE_NOT_RECEIVED))
    assert pool.link.account.leased == {}


def test_a_result_in_a_segment_that_was_taken_out_is_nothing_that_a_loop_writes(pool):
    segment = leased(pool)
    reference = in_segment(segment, ([b"z" * 100], []))
    lease = pool.link.account.leased[1].result
    lease.segment = None
    with pytest.raises(framing.ProtocolError, match="not lent"):
        pool.leases.settle(pool.link, outcome(1, RESULT_FLAGS, [reference]))
    pool.leases.arena.release(segment)


# ---- what is learned ---------------------------------------------------------------------------------------------


def settle_sized(pool, size, name="work"):
    pool.tasks[1] = Task(1, SimpleNamespace(), payload.dumps(None), name, Policy(1))
    pool.leases.settle(pool.link, outcome(1, 0, [bytes(size - size // 2), bytes(size // 2)]))


def test_a_result_is_large_from_the_threshold_on_and_all_its_buffers_count(pool):
    settle_sized(pool, THRESHOLD - 1)
    assert pool.leases.sizes == {}
    settle_sized(pool, THRESHOLD)
    assert pool.leases.sizes == {"work": (THRESHOLD, PATIENCE)}


def test_names_are_remembered_each_for_itself_and_not_without_end(pool):
    for number in range(segment_leases._MOST_NAMES):
        pool.leases.sizes[f"name {number}"] = THRESHOLD, 1
    settle_sized(pool, THRESHOLD)
    assert pool.leases.sizes == {"work": (THRESHOLD, PATIENCE)}
    settle_sized(pool, 2 * THRESHOLD, "other")
    assert pool.leases.sizes == {"work": (THRESHOLD, PATIENCE), "other": (2 * THRESHOLD, PATIENCE)}


def test_a_segment_is_there_before_the_next_task_of_the_name_unless_none_are_used(pool):
    settle_sized(pool, 1 << 20)
    assert free(pool, 1) != [None]
    pool.leases.arena.limit = 0
    before = len(pool.leases.arena)
    settle_sized(pool, 8 << 20)
    assert len(pool.leases.arena) == before


def test_patience_is_for_small_results_in_a_row(pool):
    learn(pool)
    for _ in range(PATIENCE):
        learn(pool, 10)
    learn(pool)
    assert pool.leases.sizes["work"] == (1 << 20, PATIENCE)


# ---- what a worker had -------------------------------------------------------------------------------------------


def test_of_a_dead_worker_no_segment_is_used_again(pool):
    task = staged(pool)
    pool.leases._learn("work", framing.RESULT, 1 << 20)
    pool.leases.post(pool.link, task, 1, None)
    had = pool.link.account.leased[1]
    lent = had.result.segment
    assert pool.link.account.mapped == had.call.size + lent.size
    pool.link.account.close()
    assert (had.call.not_reusable, lent.not_reusable) == (True, True)
    assert (pool.link.account.leased, pool.link.account.mapped_sizes, pool.link.account.mapped) == ({}, {}, 0)
    del had
    assert lent not in free(pool)


def test_an_account_of_tasks_without_the_one_or_the_other_is_closed_as_well():
    account = SegmentAccount()
    call, result = SimpleNamespace(not_reusable=False), SimpleNamespace(not_reusable=False)
    given = []
    lease = ResultLease(SimpleNamespace(release=given.append), result)
    taken = ResultLease(SimpleNamespace(release=given.append), None)
    account.leased = {
        1: TaskSegments(call, None, None),
        2: TaskSegments(None, lease, 1.0),
        3: TaskSegments(None, taken, 1.0),
    }
    account.close()
    assert (call.not_reusable, result.not_reusable) == (True, True)
    del lease, taken
    assert given == [result], "the one that was taken out is not given back"


def test_a_call_can_be_read_again_from_its_segment_which_is_not_used_again_then(pool):
    task = staged(pool)
    segment = task.buffers.segment
    assert not segment.not_reusable
    parts = task.buffers.through_channel()
    assert b"".join(parts).count(b"x" * 1000) >= 1
    assert segment.not_reusable


def test_a_call_is_sent_anew_with_its_own_attempt_and_deadline_if_it_is_still_wanted(pool):
    task = staged(pool)
    written = []
    task.attempt = 3
    pool.leases.post(pool.link, task, 3, 9.0)
    expected = task.frame(3, 9.0, 0, task.buffers.through_channel())
    pool.link.post = lambda pieces, *, large: written.append((b"".join(pieces), large))
    pool.leases.resend_without_segment(pool.link, 1)
    assert written == [(b"".join(expected), True)]
    task.attempt = 0
    pool.leases.post(books.Link(), task, 1, None)
    for gone in (None, "not staged"):
        other = books.Link()
        pool.leases.post(other, task, 1, None)
        other.sent.clear()
        if gone is None:
            kept = pool.tasks.pop(1)
        else:
            pool.tasks[1] = SimpleNamespace(buffers=[b""])
        pool.leases.resend_without_segment(other, 1)
        assert (other.sent, other.account.leased) == ([], {})
    assert kept is task


def test_a_task_that_was_never_begun_counts_as_its_first_attempt_when_it_is_sent_anew(pool):
    task = staged(pool)
    pool.leases.post(pool.link, task, 1, None)
    written = []
    pool.link.post = lambda pieces, *, large: written.append(framing.HEADER.unpack_from(pieces[0])[3])
    task.attempt = 0
    pool.leases.resend_without_segment(pool.link, 1)
    assert written == [1]


def test_books_are_kept_under_the_pools_lock(pool):
    held = []

    class Leased(dict):
        def pop(self, *of):
            held.append(pool.lock._is_owned())
            return super().pop(*of)

        def get(self, *of):
            held.append(pool.lock._is_owned())
            return super().get(*of)

    task = staged(pool)
    pool.link.account.leased = Leased()
    pool.leases.post(pool.link, task, 1, None)
    pool.leases.settle(pool.link, outcome(1, framing.HAS_SEGMENT_FLAGS))
    pool.leases.resend_without_segment(pool.link, 1)
    assert held == [True, True]


# ---- the pool's life, and forks ----------------------------------------------------------------------------------


def test_whatever_is_in_use_while_the_host_forks_is_noted_before_and_after(pool):
    before = pool.leases.arena._fork_count
    segment_leases._note_fork()
    assert pool.leases.arena._fork_count == before + 1
    gone = SegmentLeases(pool, 1 << 20)
    told = weakref.ref(gone)
    gone.close()
    del gone
    gc.collect()
    assert told() is None, "pools that are gone are not kept for that"
    segment_leases._note_fork()


def test_a_result_that_is_viewed_during_a_fork_has_its_segment_never_used_again(pool):
    segment, frame = settled(pool, VIEWED)
    segment_leases._note_fork()
    frame.buffers.clear()
    assert segment.not_reusable
    assert segment not in free(pool)


def test_a_closed_pool_and_a_forked_child_have_no_segments(pool):
    task = staged(pool)
    learn(pool, number=2)
    pool.leases.abandon_in_forked_child()
    assert (pool.leases.sizes, len(pool.leases.arena)) == ({}, 0)
    other = SegmentLeases(pool, 64 << 20)
    assert other.pickled((len, (books.LARGE,), {}), None) is not None
    other.close()
    assert type(other.pickled((len, (books.LARGE,), {}), None)) is not segment_leases.Staged
    assert task is not None


def test_the_pool_thread_is_woken_when_something_is_given_back_that_nobody_else_would_look_at(pool):
    woken = []
    pool.wake_pool_thread = lambda: woken.append(1)
    leases = SegmentLeases(pool, 64 << 20)
    staged_call = leases.pickled((len, (books.LARGE,), {}), None)
    leases.release_idle(0.0, None)
    del staged_call
    assert woken == [1]
    leases.close()
