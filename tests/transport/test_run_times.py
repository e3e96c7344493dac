"""The part of a black box that tells when tasks ran."""

from __future__ import annotations

import math
import os
from array import array

import pytest

from pidfdpool.transport import black_box
from pidfdpool.transport.run_times import CAPACITY, ENTRY, RunTimesReader, ring
from tests.cut_boxes import cut_off


def recorder(fd):
    """Return what adds an entry by the worker's end."""
    put, place = ring(fd)

    def add(number, began, ended, *sizes):
        put(place(), number, began, ended, *(sizes or (10, 20)))

    return add


def read(reader, fd, numbers):
    began, ended, _, _ = reader.read(fd, array("q", numbers))
    return list(zip(began, ended, strict=True))


def test_what_is_recorded_is_read_in_order_also_around_the_end_of_the_ring(box):
    add, reader = recorder(box), RunTimesReader()
    number = 0
    while number < 3 * CAPACITY:
        numbers = tuple(range(number + 1, number + 1 + 1000))
        for each in numbers:
            add(each, each + 0.25, each + 0.5)
        assert read(reader, box, numbers) == [(each + 0.25, each + 0.5) for each in numbers]
        number = numbers[-1]


def test_answers_from_before_the_recording_have_no_times(box):
    reader = RunTimesReader()
    assert all(math.isnan(began) for began, _ in read(reader, box, (1, 2)))
    add = recorder(box)
    for number in (4, 5):
        add(number, number, number)
    found = read(reader, box, (3, 4, 5))
    assert math.isnan(found[0][0])
    assert found[1:] == [(4, 4), (5, 5)]
    add(6, 6, 6)
    assert read(reader, box, (6,)) == [(6, 6)]


def test_the_number_of_a_task_may_come_twice(box):
    """As that of a task which is tried again in the same worker."""
    add, reader = recorder(box), RunTimesReader()
    add(1, 1, 2)
    assert read(reader, box, (1,)) == [(1, 2)]
    add(1, 3, 4)
    assert read(reader, box, (1,)) == [(3, 4)]


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_entries_of_other_tasks_are_not_believed(box, broken):
    """A task can write there."""
    add, reader = recorder(box), RunTimesReader()
    add(1, 1, 1)
    assert read(reader, box, (1,)) == [(1, 1)]
    for number in (2, 3, 4):
        add(number, number, number)
    os.pwrite(box, ENTRY.pack(99, 0.0, 0.0, 0, 0), black_box.RUN_TIMES_OFFSET + (1 + broken) * ENTRY.size)
    found = read(reader, box, (2, 3, 4))
    assert math.isnan(found[broken][0])
    assert [times for index, times in enumerate(found) if index != broken] == [
        (number, number) for number in (2, 3, 4) if number != 2 + broken
    ]
    add(5, 5, 5)
    assert read(reader, box, (5,)) == [(5, 5)], "it goes on behind that"


def test_without_a_box_and_with_more_answers_than_there_is_room_for_nothing_is_known(box):
    reader = RunTimesReader()
    assert all(math.isnan(began) for began, _ in read(reader, None, (1, 2)))
    assert all(math.isnan(began) for began, _ in read(reader, box, tuple(range(1, CAPACITY + 2))))


def test_a_box_that_is_cut_off_says_nothing(box):
    recorder(box)(1, 1, 1)
    cut_off(box, black_box.RUN_TIMES_OFFSET)
    assert all(math.isnan(began) for began, _ in read(RunTimesReader(), box, (1,)))


def test_stacks_come_behind_it(box):
    add = recorder(box)
    for number in range(1, CAPACITY + 1):
        add(number, 1.0, 2.0)
    assert black_box.read_stack(box) is None
    black_box.record_stacks(box)
    try:
        os.write(box, b"a stack")
    finally:
        black_box.stop_recording_stacks()
    assert black_box.read_stack(box) == "a stack"


def test_sizes_come_with_the_times_also_those_of_more_than_4_gb(box):
    add, reader = recorder(box), RunTimesReader()
    for number in (1, 2, 3):
        add(number, 1.0, 2.0, number << 33, number)
    assert [list(column) for column in reader.read(box, array("q", [1, 2]))[2:]] == [[1 << 33, 2 << 33], [1, 2]]
    assert [list(column) for column in reader.read(box, array("q", [3]))[2:]] == [[3 << 33], [3]]


def test_sizes_that_nobody_noted_are_not_known(box):
    add, reader = recorder(box), RunTimesReader()
    assert [list(column) for column in reader.read(None, array("q", [1, 2]))[2:]] == [[-1, -1], [-1, -1]]
    add(2, 1.0, 2.0, 30, 40)
    assert [list(column) for column in reader.read(box, array("q", [1, 2]))[2:]] == [[-1, 30], [-1, 40]]
