"""What host and worker tell each other by a black box: words, the heartbeat, marks, and stacks behind all else."""

from __future__ import annotations

import faulthandler
import mmap
import os
import signal
import struct
import sys
import threading
import time

import pytest

from pidfdpool.transport import black_box
from tests.conditions import open_descriptors
from tests.cut_boxes import cut_off


@pytest.fixture
def closed_pipe():
    """Give a descriptor that can be neither read at a position nor written to."""
    read, write = os.pipe()
    os.close(write)
    yield read
    os.close(read)


def words(fd):
    return struct.unpack("@6q", os.pread(fd, 48, 0))


# ---- words -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "index", "value"),
    [
        (lambda box: black_box.announce_take_backs(box), 4, 1),
        (lambda box: black_box.record_taken_back(box, 12), 3, 12),
        (lambda box: black_box.record_taken_back(box, black_box.UNDECIDED), 3, -1),
        (lambda box: black_box.clear_last_begun(box), 2, 0),
        (lambda box: black_box.map_words(box), 1, 1),
    ],
    ids=["announced", "taken back", "undecided", "cleared", "records"],
)
def test_each_word_has_its_own_place_and_changes_no_other(box, write, index, value):
    """A word at another's place would be read by the other process as something else."""
    before = [101, 102, 103, 104, 105, 106]
    os.pwrite(box, struct.pack("@6q", *before), 0)
    write(box)
    before[index] = value
    assert list(words(box)) == before
    assert not any(os.pread(box, 1000, 48))


def test_what_the_worker_maps_is_what_the_host_reads_and_writes(box):
    mapped = black_box.map_words(box)
    assert black_box.last_begun(box) == 0
    mapped[black_box.LAST_BEGUN], mapped[black_box.CLAIMED] = 8, 9
    assert black_box.last_begun(box) == 8
    assert black_box.claimed_tasks(box) == (8, 9)
    black_box.record_taken_back(box, 11)
    black_box.announce_take_backs(box)
    assert (mapped[black_box.TAKEN_BACK_FROM], mapped[black_box.ANNOUNCED]) == (11, 1)
    black_box.clear_last_begun(box)
    assert black_box.claimed_tasks(box) == (0, 9)


@pytest.mark.parametrize("flag", [0, 2, -1])
def test_what_was_begun_is_believed_of_a_worker_that_records_it_only(box, flag):
    os.pwrite(box, struct.pack("@2q", flag, 7), 8)
    assert black_box.last_begun(box) is None
    assert black_box.claimed_tasks(box) == ()


@pytest.mark.parametrize(("size", "begun", "claimed"), [(23, None, ()), (24, 7, ()), (47, 7, ()), (48, 7, (7, 5))])
def test_of_a_box_that_was_cut_off_only_what_is_whole_is_believed(box, size, begun, claimed):
    os.pwrite(box, struct.pack("@5q", 1, 7, 0, 0, 5), 8)
    cut_off(box, size)
    assert black_box.last_begun(box) == begun
    assert black_box.claimed_tasks(box) == claimed


def test_nothing_is_known_of_a_box_that_cannot_be_read_and_what_is_to_be_written_there_is_lost(closed_pipe):
    """The host goes on: the worker of this box may be dead, or a task may have closed everything."""
    assert black_box.last_begun(closed_pipe) is None
    assert black_box.claimed_tasks(closed_pipe) == ()
    assert black_box.count_marks(closed_pipe) == 0
    black_box.announce_take_backs(closed_pipe)
    black_box.clear_last_begun(closed_pipe)
    black_box.record_taken_back(closed_pipe, 7)


def test_a_worker_without_room_for_its_record_has_words_that_only_it_sees(box):
    cut_off(box, 100)
    mapped = black_box.map_words(box)
    assert mapped[black_box.RECORDS_BEGUN] == 0, "or the host would believe what it does not see"
    mapped[black_box.LAST_BEGUN] = mapped[black_box.CLAIMED] = 1 << 40
    assert mapped[black_box.LAST_BEGUN] == 1 << 40
    assert not any(words(box))
    assert os.fstat(box).st_size == 100


def test_a_worker_whose_box_cannot_be_mapped_has_words_and_a_heartbeat_of_its_own(closed_pipe):
    black_box.map_words(closed_pipe)[black_box.CLAIMED] = 3
    black_box.map_heartbeat(closed_pipe)[0] = 1.5


# ---- the heartbeat ---------------------------------------------------------------------------------------------


def test_a_heartbeat_is_recorded_in_memory_as_by_a_system_call(box):
    mapped = black_box.map_heartbeat(box)
    now = time.monotonic()
    mapped[0] = now
    assert black_box.last_heartbeat(box) == now
    black_box.record_heartbeat(box, now / 2)
    assert mapped[0] == now / 2
    assert not any(words(box)[1:])


def test_a_heartbeat_that_nobody_else_can_see_is_recorded_without_an_error(box):
    cut_off(box, 100)
    mapped = black_box.map_heartbeat(box)
    mapped[0] = 1.5
    assert mapped[0] == 1.5
    assert black_box.last_heartbeat(box) is None


@pytest.mark.parametrize("at", [0.0, -1.0, float("nan"), float("inf")])
def test_a_heartbeat_at_no_possible_time_is_none(box, at):
    black_box.record_heartbeat(box, at)
    assert black_box.last_heartbeat(box) is None


def test_half_a_heartbeat_is_none(box):
    black_box.record_heartbeat(box, 1.0)
    cut_off(box, 7)
    assert black_box.last_heartbeat(box) is None


# ---- marks -----------------------------------------------------------------------------------------------------


def test_as_many_marks_as_there_may_be_are_counted_and_touch_nothing_else(box):
    black_box.map_words(box)[black_box.LAST_BEGUN] = 7
    mapping = black_box.map_marks(box)
    black_box.clear_marks(mapping)
    for count in range(black_box.MAX_MARKS):
        assert black_box.count_marks(box) == count
        mapping.write_byte(1)
    assert black_box.count_marks(box) == black_box.MAX_MARKS == 1024
    assert black_box.last_begun(box) == 7
    with pytest.raises(ValueError, match="out of range"):
        mapping.write_byte(1)
    assert os.pread(box, 1024, 1024) == b"\1" * 1024
    assert os.pread(box, 48, 48) == bytes(48)
    assert not any(os.pread(box, 100, 2048))


def test_marks_are_cleared_and_begin_anew(box):
    mapping = black_box.map_marks(box)
    for _ in range(2):
        black_box.clear_marks(mapping)
        assert black_box.count_marks(box) == 0
        mapping.write(b"\1\1\1")
        assert black_box.count_marks(box) == 3
    black_box.map_marks(box)
    assert black_box.count_marks(box) == 0, "whoever maps them has made none"


# ---- the box ---------------------------------------------------------------------------------------------------


def test_the_parts_of_a_box_follow_each_other(box):
    assert black_box.PUBLISHED_OFFSET == 4096, "as the module says"
    assert black_box.RUN_TIMES_OFFSET == black_box.PUBLISHED_OFFSET + black_box.PUBLISHED_SIZE
    assert black_box.STACKS_OFFSET == black_box.RUN_TIMES_OFFSET + black_box.RUN_TIMES_SIZE
    assert os.fstat(box).st_size == black_box.STACKS_OFFSET
    assert os.fstat(box).st_blocks * 512 <= mmap.PAGESIZE, "what nobody uses takes no memory"


@pytest.mark.skipif(sys.version_info < (3, 13), reason="a mapping keeps a duplicate of its descriptor there")
def test_what_is_mapped_keeps_no_descriptor(box):
    before = open_descriptors()
    kept = black_box.map_words(box), black_box.map_heartbeat(box), black_box.map_marks(box)
    assert open_descriptors() == before
    assert len(kept) == 3


# ---- stacks ----------------------------------------------------------------------------------------------------


def test_the_signal_for_stacks_is_the_last_that_valgrind_leaves_to_others():
    assert black_box.STACK_SIGNAL == signal.SIGRTMAX - 1 > signal.SIGTERM


def test_sigterm_is_left_alone_by_a_process_that_has_a_handler_of_its_own(box):
    black_box.record_stacks(box, at_sigterm=False)
    try:
        assert not faulthandler.unregister(signal.SIGTERM)
        signal.raise_signal(black_box.STACK_SIGNAL)
    finally:
        assert faulthandler.unregister(black_box.STACK_SIGNAL)
    assert "test_sigterm_is_left_alone" in black_box.read_stack(box)


def a_place_that_can_be_recognized(waits, ends):
    waits.set()
    ends.wait()


def test_the_stack_of_every_thread_is_written(box):
    waits, ends = threading.Event(), threading.Event()
    thread = threading.Thread(target=a_place_that_can_be_recognized, args=(waits, ends))
    thread.start()
    try:
        waits.wait()
        black_box.record_stacks(box)
        signal.raise_signal(black_box.STACK_SIGNAL)
    finally:
        black_box.stop_recording_stacks()
        ends.set()
        thread.join()
    assert "a_place_that_can_be_recognized" in black_box.read_stack(box)


def test_whoever_stops_to_record_has_neither_signal_write_any_more(box):
    black_box.record_stacks(box)
    black_box.stop_recording_stacks()
    assert not faulthandler.unregister(signal.SIGTERM)
    assert not faulthandler.unregister(black_box.STACK_SIGNAL)


def test_bytes_of_a_stack_that_are_no_text_are_replaced(box):
    os.pwrite(box, b"a\xffb", black_box.STACKS_OFFSET)
    assert black_box.read_stack(box) == "a\N{REPLACEMENT CHARACTER}b"


def test_only_the_last_16_kilobytes_of_stacks_are_read_unless_more_is_asked_for(box):
    os.pwrite(box, b"x" * 20_000, black_box.STACKS_OFFSET)
    assert len(black_box.read_stack(box)) == 16384
    assert len(black_box.read_stack(box, 20_001)) == 20_000
    cut_off(box, black_box.STACKS_OFFSET + 1)
    assert black_box.read_stack(box) == "x"
    cut_off(box, black_box.STACKS_OFFSET)
    assert black_box.read_stack(box) is None
