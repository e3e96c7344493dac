"""The worker's end of segments: when the segment of a call is free again, and what a task leaves for the next one."""

from __future__ import annotations

import mmap
import os

import pytest

from pidfdpool.serialization import payload
from pidfdpool.transport import framing
from pidfdpool.transport.segments import layout, memory
from pidfdpool.transport.segments.arena import CALL
from pidfdpool.worker import leased_segments


@pytest.fixture
def segments(monkeypatch):
    """Give the worker's end of segments, with number 1 mapped, in which a call lies with its array of 64 KB."""
    hooks = []
    monkeypatch.setattr(leased_segments.os, "register_at_fork", lambda after_in_parent: hooks.append(after_in_parent))
    fd = memory.create(1 << 17)
    given = [os.dup(fd), None]

    class Channel:
        def accept_descriptors(self):
            pass

        def next_descriptor(self):
            return given.pop(0)

    segments = leased_segments.LeasedSegments(Channel())
    segments.handle_frame(framing.Frame(framing.EXPECT_DESCRIPTORS, 0, 0, 0, []))
    segments.handle_frame(framing.Frame(framing.MAP_SEGMENT, CALL, (1 << 17) // mmap.PAGESIZE, 1, []))
    (segments.fork,) = hooks
    os.close(fd)
    yield segments
    segments.close_in_forked_child()  # unmaps all


_PARTS = [payload.dumps((print, (), {}))[0], b"x" * (1 << 16)]


def _frame():
    return framing.Frame(
        framing.TASK, framing.CALL_IN_SEGMENT, 1, 7, [layout.Layout(_PARTS[:1], _PARTS[1:]).reference(1)]
    )


def test_a_segment_is_not_free_after_a_task_that_forked_but_after_one_that_did_not(segments):
    """The copy has it mapped, too."""
    frame = _frame()
    assert segments.begin_task(frame)
    frame.buffers.clear()
    assert segments.end_task() & framing.CALL_SEGMENT_FREE
    frame = _frame()
    assert segments.begin_task(frame)
    frame.buffers.clear()
    segments.fork()
    assert not segments.end_task() & framing.CALL_SEGMENT_FREE
    assert not segments.begin_task(_frame()), "it is left to the copy"


def test_a_fork_counts_for_its_own_task_only(segments):
    segments.fork()  # between two tasks, say by a thread
    segments.end_task()
    frame = _frame()
    assert segments.begin_task(frame)
    frame.buffers.clear()
    assert segments.end_task() & framing.CALL_SEGMENT_FREE


def test_a_segment_that_something_of_the_task_views_is_not_free(segments):
    frame = _frame()
    assert segments.begin_task(frame)
    kept = frame.buffers.pop()
    frame.buffers.clear()
    assert not segments.end_task() & framing.CALL_SEGMENT_FREE
    assert len(kept) == 1 << 16


def test_nothing_of_a_task_with_segments_is_left_for_the_next(segments):
    frame = _frame()
    frame.slot |= framing.HAS_LEASE
    frame.buffers.append(framing.LEASE.pack(framing.NO_SEGMENT))
    assert segments.begin_task(frame)
    assert segments.active
    assert segments.expects_large
    frame.buffers.clear()
    segments.end_task()
    assert not segments.active
    assert not segments.expects_large


def test_a_call_whose_segment_has_not_come_is_asked_for(segments):
    frame = _frame()
    frame.buffers = [layout.Layout(_PARTS[:1], _PARTS[1:]).reference(2)]
    segments.handle_frame(framing.Frame(framing.MAP_SEGMENT, CALL, 1, 2, []))  # its descriptor was lost
    assert not segments.begin_task(frame)


@pytest.mark.parametrize(("lease", "told"), [(None, False), (framing.NO_SEGMENT, False), (1, False), (9, True)])
def test_only_a_lease_that_has_not_come_is_told_of(segments, lease, told):
    """Guards: the host was told so of each call in a segment, and announced segments again that were mapped."""
    frame = _frame()
    if lease is not None:
        frame.slot |= framing.HAS_LEASE
        frame.buffers.append(framing.LEASE.pack(lease))
    assert segments.begin_task(frame)
    assert segments.expects_large is (lease is not None)
    frame.buffers.clear()
    flags = segments.end_task()
    assert flags & framing.HAS_SEGMENT_FLAGS
    assert bool(flags & framing.LEASE_NOT_RECEIVED) is told
    assert not segments.end_task()


@pytest.mark.parametrize("size", [1 << 10, 1 << 16, 1 << 20])
def test_a_result_goes_into_its_lease_if_it_is_large_and_fits(segments, size):
    frame = _frame()
    frame.slot |= framing.HAS_LEASE
    frame.buffers.append(framing.LEASE.pack(1))
    assert segments.begin_task(frame)
    frame.buffers.clear()
    buffers = segments.dump_result(b"x" * size, None)
    fits = size == 1 << 16
    assert (sum(map(len, buffers)) < 100) is fits
    if fits:
        assert layout.number_of(buffers[0]) == 1
    assert bool(segments.end_task() & framing.RESULT_IN_SEGMENT) is fits


def test_a_segment_that_is_used_no_more_is_unmapped(segments):
    assert segments.mapped_bytes == 1 << 17
    segments.handle_frame(framing.Frame(framing.UNMAP_SEGMENT, 0, 0, 1, []))
    segments.handle_frame(framing.Frame(framing.UNMAP_SEGMENT, 0, 0, 1, []))
    assert segments.mapped_bytes == 0
