"""The ring of entries that tells when tasks ran: its room, its end, and recordings that follow each other."""

from __future__ import annotations

import errno
import math
import mmap
import os
import struct
import sys
from array import array
from pathlib import Path

import pytest

from pidfdpool.transport import black_box
from pidfdpool.transport.run_times import CAPACITY, ENTRY, RunTimesReader, ring
from tests.conditions import open_descriptors
from tests.cut_boxes import cut_off


def write_entry(box, entry, number, began, ended):
    os.pwrite(box, struct.pack("@qddqq", number, began, ended, 1, 1), black_box.RUN_TIMES_OFFSET + 40 * entry)


def read(reader, box, *numbers):
    began, ended, _, _ = reader.read(box, array("q", numbers))
    return list(zip(began, ended, strict=True))


def answer(ends, *numbers):
    put, place = ends
    for number in numbers:
        put(place(), number, float(number), number + 0.5, 1, 1)


def began(times):
    return [None if math.isnan(at) else at for at, _ in times]


def test_an_entry_is_a_number_two_times_and_two_sizes_and_the_ring_has_room_for_what_a_pipe_holds():
    assert ENTRY.size == 40
    assert CAPACITY * 40 == black_box.RUN_TIMES_SIZE
    assert CAPACITY >= 2**16 // 32, "no answer is shorter than a frame's header"


def test_a_full_ring_is_read_at_once_and_one_answer_more_is_not(box):
    ends = ring(box)
    answer(ends, *range(1, CAPACITY + 1))
    assert began(read(RunTimesReader(), box, *range(1, CAPACITY + 1))) == list(range(1, CAPACITY + 1))
    answer(ends, CAPACITY + 1)
    assert not any(began(read(RunTimesReader(), box, *range(1, CAPACITY + 2))))


def test_the_end_of_the_ring_is_not_read_on_into_the_stacks(box):
    """The stacks begin right behind it."""
    os.pwrite(box, bytes(range(1, 200)), black_box.STACKS_OFFSET)
    reader, ends = RunTimesReader(), ring(box)
    number = 0
    while number < 2 * CAPACITY:
        numbers = range(number + 1, number + 8)
        answer(ends, *numbers)
        assert began(read(reader, box, *numbers)) == list(numbers)
        number = numbers[-1]
    assert os.pread(box, 4, black_box.STACKS_OFFSET) == b"\1\2\3\4"


def test_times_are_handed_on_as_they_were_read_once_the_entries_are_found(box):
    """Whoever reads them holds the pool's lock, so that every task would wait for numbers to be made of them."""
    reader, ends = RunTimesReader(), ring(box)
    answer(ends, 1, 2, 3)
    read(reader, box, 1)
    times = reader.read(box, array("q", [2, 3]))
    assert [type(part) for part in times] == [memoryview] * 4
    assert times[0].tolist() == [2.0, 3.0]


def test_a_recording_begins_at_the_first_entry_though_an_earlier_one_seemed_to_be_there(box):
    """The answer of a task that began before it has no entry, but finds the one that the last recording left."""
    write_entry(box, 0, 5, 0.5, 0.75)
    reader = RunTimesReader()
    assert began(read(reader, box, 5)) == [0.5]
    ends = ring(box)
    answer(ends, 6, 7)
    assert began(read(reader, box, 6, 7)) == [6.0, 7.0]
    answer(ends, 8)
    assert began(read(reader, box, 8)) == [8.0], "it goes on behind that"


def test_only_if_all_of_the_tasks_are_at_the_first_entries_they_are_read_there(box):
    reader, ends = RunTimesReader(), ring(box)
    answer(ends, 1)
    assert began(read(reader, box, 1)) == [1.0]
    write_entry(box, 0, 2, 9.0, 9.0)
    answer(ends, 2, 3)
    write_entry(box, 1, 99, 9.0, 9.0)
    assert began(read(reader, box, 2, 3)) == [None, 3.0]
    answer(ends, 4)
    assert began(read(reader, box, 4)) == [4.0]


def test_numbers_that_are_all_unknown_leave_the_reader_where_it_is_until_one_is_found(box):
    reader, ends = RunTimesReader(), ring(box)
    answer(ends, 4, 5)
    assert began(read(reader, box, 1, 2)) == [None, None]
    assert began(read(reader, box, 3, 4)) == [None, 4.0]
    assert began(read(reader, box, 5)) == [5.0]
    answer(ends, 6)
    assert began(read(reader, box, 6)) == [6.0]


def test_an_entry_that_was_overwritten_is_skipped_and_the_next_ones_are_found(box):
    reader, ends = RunTimesReader(), ring(box)
    answer(ends, 1, 2, 3, 4)
    assert began(read(reader, box, 1)) == [1.0]
    write_entry(box, 1, 99, 9.0, 9.0)
    assert began(read(reader, box, 2)) == [None]
    assert began(read(reader, box, 3, 4)) == [3.0, 4.0]


def test_an_answer_that_was_read_while_the_box_was_away_says_nothing(box):
    reader, ends = RunTimesReader(), ring(box)
    answer(ends, 1)
    assert began(read(reader, box, 1)) == [1.0]
    assert began(read(reader, None, 2)) == [None]
    assert began(read(reader, -1, 2)) == [None]


def test_the_room_is_allocated_before_anything_is_recorded_there(box):
    """A page that cannot be had later would be a SIGBUS in the middle of an answer."""
    before = os.fstat(box).st_blocks
    ring(box)
    assert (os.fstat(box).st_blocks - before) * 512 >= black_box.RUN_TIMES_SIZE
    assert os.fstat(box).st_size == black_box.STACKS_OFFSET


@pytest.mark.parametrize("refused", [errno.ENOSPC, errno.EINTR, "mmap"])
def test_without_room_there_is_no_ring(box, monkeypatch, refused):
    def refuse(*_):
        raise OSError(refused, "refused")

    if refused == "mmap":
        cut_off(box, 0)
        monkeypatch.setattr(os, "posix_fallocate", lambda *_: None)
    else:
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert ring(box) is None


@pytest.mark.skipif(sys.version_info < (3, 13), reason="a mapping keeps a duplicate of its descriptor there")
def test_a_recording_keeps_no_descriptor(box):
    before = open_descriptors()
    ends = ring(box)
    assert open_descriptors() == before
    answer(ends, 1)


def mappings():
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if "pidfdpool-blackbox" in line]


def test_once_an_entry_is_found_the_ring_is_read_without_a_system_call(box, monkeypatch):
    """Whoever reads it holds the pool's lock, and a call takes twice as long."""
    reader, ends = RunTimesReader(), ring(box)
    answer(ends, *range(1, CAPACITY))
    assert began(read(reader, box, 1)) == [1.0]
    assert began(read(reader, box, *range(2, CAPACITY))) == list(range(2, CAPACITY))
    monkeypatch.setattr(os, "pread", None)
    answer(ends, CAPACITY, CAPACITY + 1)
    assert began(read(reader, box, CAPACITY, CAPACITY + 1)) == [CAPACITY, CAPACITY + 1], "around its end"


def test_a_reader_leaves_neither_a_descriptor_nor_a_mapping(box):
    reader, ends = RunTimesReader(), ring(box)
    answer(ends, 1, 2)
    before, descriptors = mappings(), open_descriptors()
    assert began(read(reader, box, 1)) == [1.0]
    times = reader.read(box, array("q", [2]))
    assert len(mappings()) == len(before) + 1
    assert open_descriptors() == descriptors
    del reader
    assert mappings() == before
    assert times[0].tolist() == [2.0], "it is a copy"


def test_a_file_that_a_task_can_cut_short_is_not_mapped(box):
    """The host would be killed by SIGBUS."""
    cut_off(box, black_box.STACKS_OFFSET)
    reader, ends = RunTimesReader(), ring(box)
    answer(ends, 1, 2, 3)
    assert began(read(reader, box, 1)) == [1.0]
    assert began(read(reader, box, 2)) == [2.0]
    os.ftruncate(box, 0)
    assert began(read(reader, box, 3)) == [None]


def test_two_recordings_of_one_worker_write_to_the_same_places(box):
    answer(ring(box), 1, 2, 3)
    answer(ring(box), 4)
    assert began(read(RunTimesReader(), box, 4)) == [4.0]


def test_it_does_not_depend_on_the_size_of_a_page(box, monkeypatch):
    """Some machines have pages of 64 KB, and no mapping begins anywhere else there."""
    real = mmap.mmap

    def map_there(fd, size, *, offset=0, **options):
        if offset % (1 << 16):
            raise ValueError("no page begins there")
        return real(fd, size, offset=offset, **options)

    monkeypatch.setattr(mmap, "mmap", map_there)
    answer(ring(box), 1, 2)
    assert began(read(RunTimesReader(), box, 1, 2)) == [1.0, 2.0]
    assert black_box.last_begun(box) is None
