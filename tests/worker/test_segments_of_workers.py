"""What a worker does with the segments that it is told of: how it maps them, and what it leaves open."""

from __future__ import annotations

import mmap
import os

import pytest

from pidfdpool.serialization import payload
from pidfdpool.serialization.out_of_band import OutOfBandPickle
from pidfdpool.transport import framing
from pidfdpool.transport.segments import THRESHOLD, layout, memory
from pidfdpool.transport.segments.arena import CALL, RESULT
from pidfdpool.worker.leased_segments import LeasedSegments
from tests.conditions import in_forked_child, open_descriptors

PAGES = 32
SIZE = PAGES * mmap.PAGESIZE


class Channel:
    """Gives descriptors in the order in which they were put in."""

    def __init__(self):
        self.given = []
        self.accepts = False

    def accept_descriptors(self):
        self.accepts = True

    def next_descriptor(self):
        return self.given.pop(0)


@pytest.fixture
def parts():
    """Give the worker's end of segments, its channel, and the host's descriptor of segments 1 and 2."""
    channel, fds = Channel(), {1: memory.create(SIZE), 2: memory.create(SIZE)}
    segments = LeasedSegments(channel)
    for number, role in ((1, CALL), (2, RESULT)):
        channel.given.append(os.dup(fds[number]))
        segments.handle_frame(framing.Frame(framing.MAP_SEGMENT, role, PAGES, number, []))
    yield segments, channel, fds
    segments.close_in_forked_child()
    for fd in fds.values():
        os.close(fd)


def call_in(number, *further, flags=0, more=()):
    """Return the frame of a task whose call lies in a segment, in these parts."""
    pieces = [payload.dumps((print, (), {}))[0]]
    reference = layout.Layout(pieces, list(further)).reference(number)
    return framing.Frame(framing.TASK, framing.CALL_IN_SEGMENT | flags, 1, 7, [reference, *more])


def lease(number, **options):
    return framing.Frame(framing.TASK, framing.HAS_LEASE, 1, 7, [b"call", framing.LEASE.pack(number)], **options)


def test_before_the_first_the_channel_is_prepared_for_descriptors_and_forks_are_noted():
    def worker():
        segments = LeasedSegments(channel := Channel())
        assert not channel.accepts
        segments.handle_frame(framing.Frame(framing.EXPECT_DESCRIPTORS, 0, 0, 0, []))
        assert channel.accepts
        pid = os.fork()
        if not pid:
            os._exit(segments._forked)
        assert os.waitpid(pid, 0)[1] == 0
        assert segments._forked
        segments.end_task()
        assert not segments._forked

    assert in_forked_child(worker) == "ok"


def test_mapped_is_the_whole_of_each_and_no_descriptor_stays(parts):
    segments, channel, _ = parts
    assert segments.mapped_bytes == 2 * SIZE
    assert channel.given == []
    assert (segments.active, segments.expects_large) == (False, False), "no task has begun"
    before = open_descriptors()
    channel.given.append(os.open("/dev/null", os.O_RDONLY))
    segments.handle_frame(framing.Frame(framing.MAP_SEGMENT, CALL, PAGES, 3, []))
    assert segments.mapped_bytes == 2 * SIZE, "such a file cannot be mapped"
    assert open_descriptors() == before


def test_what_a_task_writes_to_its_call_is_its_own_and_its_result_is_the_hosts_too(parts):
    segments, _, fds = parts
    for number in (1, 2):
        memory_of = segments._mapped[number]
        memory_of[0:4] = b"here"
        assert os.pread(fds[number], 4, 0) == (b"here" if number == 2 else bytes(4))


def test_the_memory_of_a_lease_is_there_before_it_is_written(parts, monkeypatch):
    segments, channel, fds = parts
    populated = []
    monkeypatch.setattr(memory, "populate", populated.append)
    for number, role in ((3, CALL), (4, RESULT)):
        channel.given.append(os.dup(fds[1]))
        segments.handle_frame(framing.Frame(framing.MAP_SEGMENT, role, PAGES, number, []))
    assert populated == [segments._mapped[4]]
    populated.clear()


def test_a_call_is_read_from_its_segment_and_again_as_the_host_has_written_it(parts):
    segments, _, fds = parts
    frame = call_in(1, b"x" * 5000)
    parts_of = layout.Layout([payload.dumps((print, (), {}))[0]], [b"y" * 5000])
    with mmap.mmap(fds[1], SIZE) as host, memoryview(host) as whole:
        parts_of.write(whole)
    assert segments.begin_task(frame)
    assert len(frame.buffers) == 2
    assert bytes(frame.buffers[1]) == b"y" * 5000
    frame.buffers[1][:] = b"z" * 5000
    frame.buffers.clear()
    assert segments.end_task() & framing.CALL_SEGMENT_FREE
    again = call_in(1, b"x" * 5000)
    assert segments.begin_task(again)
    assert bytes(again.buffers[1]) == b"y" * 5000, "what a task changed is discarded"
    again.buffers.clear()
    segments.end_task()


def test_a_call_of_one_part_is_free_afterwards_whatever_still_refers_to_it(parts):
    """Its pickle was read, and nothing can view it."""
    segments, _, _ = parts
    frame = call_in(1)
    assert segments.begin_task(frame)
    kept = list(frame.buffers)
    assert segments.end_task() == framing.HAS_SEGMENT_FLAGS | framing.CALL_SEGMENT_FREE
    assert len(kept) == 1
    kept.clear()
    assert 1 in segments._mapped


def test_a_segment_that_is_left_to_its_views_is_mapped_no_more_here(parts):
    segments, _, _ = parts
    frame = call_in(1, b"x" * 5000)
    assert segments.begin_task(frame)
    assert not segments.end_task() & framing.CALL_SEGMENT_FREE
    assert segments.mapped_bytes == SIZE
    assert segments.end_task() == 0, "there is no task any more"
    frame.buffers.clear()
    assert not segments.begin_task(call_in(1))


@pytest.mark.parametrize("number", [1, 9])
def test_a_call_without_its_segment_is_not_begun(parts, number):
    segments, _, _ = parts
    if number == 1:
        segments.close_in_forked_child()
    assert not segments.begin_task(call_in(number))
    assert not segments.active


def test_a_lease_goes_with_a_call_in_the_frame_too(parts):
    segments, _, _ = parts
    frame = lease(2)
    assert segments.begin_task(frame)
    assert frame.buffers == [b"call"]
    assert (segments.active, segments.expects_large) == (True, True)
    (reference,) = segments.dump_result(b"x" * THRESHOLD, None)
    assert layout.number_of(reference) == 2
    whole = memoryview(segments._mapped[2])
    assert payload.loads([bytes(part) for part in layout.parts(reference, whole)]) == b"x" * THRESHOLD
    whole.release()
    flags = segments.end_task()
    assert flags == framing.HAS_SEGMENT_FLAGS | framing.RESULT_IN_SEGMENT
    assert (segments.active, segments.expects_large) == (False, False)


def test_both_the_lease_and_the_call_are_in_segments(parts):
    segments, _, _ = parts
    frame = call_in(1, flags=framing.HAS_LEASE, more=[framing.LEASE.pack(2)])
    assert segments.begin_task(frame)
    assert len(frame.buffers) == 1
    frame.buffers.clear()
    segments.dump_result(b"x" * THRESHOLD, None)
    assert segments.end_task() == (framing.HAS_SEGMENT_FLAGS | framing.RESULT_IN_SEGMENT | framing.CALL_SEGMENT_FREE)


def size_in_segment(result):
    pickled = OutOfBandPickle(result)
    return layout.Layout(pickled.pieces, pickled.out_of_band).size


@pytest.mark.parametrize("target", [THRESHOLD - 1, THRESHOLD, SIZE, SIZE + 1])
def test_a_result_is_written_into_its_lease_from_the_threshold_on_as_long_as_it_fits(parts, target):
    segments, _, _ = parts
    candidates = (b"x" * (target - less) for less in range(200))
    result = next(each for each in candidates if size_in_segment(each) == target)
    segments.begin_task(lease(2))
    buffers = segments.dump_result(result, None)
    in_segment = bool(segments.end_task() & framing.RESULT_IN_SEGMENT)
    assert in_segment is (THRESHOLD <= target <= SIZE)
    assert (sum(map(len, buffers)) < 100) is in_segment


def test_without_a_lease_a_large_result_goes_through_the_channel(parts):
    segments, _, _ = parts
    segments.begin_task(lease(framing.NO_SEGMENT))
    buffers = segments.dump_result(b"x" * THRESHOLD, None)
    assert payload.loads([bytes(each) for each in buffers]) == b"x" * THRESHOLD
    assert segments.end_task() == framing.HAS_SEGMENT_FLAGS


def test_a_result_with_a_class_that_travels_by_value_goes_through_the_channel(parts):
    """The host looks for such classes in the bytes that it gets."""
    segments, _, _ = parts
    segments.begin_task(lease(2))
    segments.dump_result([payload.CLASS_BY_VALUE, b"x" * THRESHOLD], None)
    assert segments.end_task() == framing.HAS_SEGMENT_FLAGS


def test_a_lease_of_a_task_is_none_of_the_next(parts):
    segments, _, _ = parts
    segments.begin_task(lease(2))
    segments.end_task()
    segments.begin_task(lease(framing.NO_SEGMENT))
    segments.dump_result(b"x" * THRESHOLD, None)
    assert segments.end_task() == framing.HAS_SEGMENT_FLAGS


def test_in_a_copy_nothing_is_mapped_and_nothing_is_expected(parts):
    segments, _, _ = parts
    segments.begin_task(lease(2))
    segments.close_in_forked_child()
    assert (segments.mapped_bytes, segments.active, segments.expects_large) == (0, False, False)
