"""Room for what a worker publishes: allocated before it is written to, in few steps; and what its lack does."""

from __future__ import annotations

import errno
import mmap
import os
import struct
import sys
import time

import pytest

from pidfdpool.transport import black_box, published
from pidfdpool.transport.published import (
    ALLOWED,
    BEGUN,
    CAPACITY,
    DATA,
    HALTED,
    MAX_CALLS,
    OFFSET,
    STARTED,
    TASK,
    Ledger,
)
from tests.conditions import open_descriptors
from tests.cut_boxes import cut_off

ENDS = OFFSET + 64


@pytest.fixture
def ledger(box):
    ledger = Ledger(box)
    yield ledger
    ledger.close()


@pytest.fixture
def allocated(monkeypatch):
    """Give the set of the pages that were allocated, and refuse more than it may become. Its limit can be set."""

    class Pages(set):
        limit = 1 << 20
        requests = 0

    pages, real = Pages(), os.posix_fallocate

    def allocate(fd, offset, size):
        pages.requests += 1
        assert size > 0
        wanted = range(offset // mmap.PAGESIZE, -(-(offset + size) // mmap.PAGESIZE))
        if len(pages.union(wanted)) > pages.limit:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        pages.update(wanted)
        real(fd, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    return pages


def pages_of(begin, end):
    return set(range(begin // mmap.PAGESIZE, -(-end // mmap.PAGESIZE)))


# ---- the layout ------------------------------------------------------------------------------------------------


def test_the_parts_lie_behind_each_other_and_the_data_begin_at_a_page():
    behind_ends = ENDS + 4 * MAX_CALLS
    assert 0 <= DATA - behind_ends < mmap.PAGESIZE
    assert DATA % 4096 == OFFSET % 4096 == 0
    assert DATA + CAPACITY == OFFSET + published.SIZE == black_box.RUN_TIMES_OFFSET


def test_as_many_calls_as_a_chunk_may_have_are_published(box, ledger):
    assert ledger.begin(7, MAX_CALLS)
    assert ledger.has_room(DATA + MAX_CALLS)
    ledger.memory[DATA : DATA + MAX_CALLS] = b"x" * MAX_CALLS
    for index in range(MAX_CALLS):
        ledger.ends[index] = index + 1
    ledger.words[BEGUN] = MAX_CALLS
    found = published.read(box)
    assert (found.begun, found.ends[0], found.ends[-1], len(found.data)) == (MAX_CALLS, 1, MAX_CALLS, MAX_CALLS)
    assert published.calls_begun(box, 7) == MAX_CALLS
    assert len(ledger.ends) == MAX_CALLS


def test_data_may_take_all_the_room_there_is(box, ledger):
    assert ledger.begin(7, 1)
    assert ledger.has_room(DATA + CAPACITY)
    ledger.ends[0], ledger.words[BEGUN] = CAPACITY, 1
    ledger.memory[DATA + CAPACITY - 1 : DATA + CAPACITY] = b"x"
    assert published.read(box).data[-1:] == b"x"


def test_host_and_worker_write_each_word_at_its_own_place(box, ledger):
    for index in range(5):
        ledger.words[index] = 100 + index
    published.halt(box, 8)
    published.allow(box, 9)
    assert list(ledger.words) == [100, 101, 102, 8, 9, 0, 0, 0]
    assert (TASK, STARTED, BEGUN, HALTED, ALLOWED) == (0, 1, 2, 3, 4)


def test_what_the_host_says_of_a_chunk_outlives_its_beginning(ledger, box):
    """It may be said before the worker gets there."""
    published.halt(box, 8)
    published.allow(box, 9)
    assert ledger.begin(8, 2)
    assert list(ledger.words)[:5] == [8, 0, 0, 8, 9]


@pytest.mark.parametrize("size", [OFFSET + 7, OFFSET + 15, OFFSET + 23])
def test_of_a_box_that_ends_among_the_words_nothing_is_believed(box, ledger, size):
    assert ledger.begin(7, 2)
    ledger.words[STARTED], ledger.words[BEGUN] = time.monotonic_ns(), 1
    assert published.call_started(box) is not None
    cut_off(box, size)
    assert published.read(box) is None
    assert published.calls_begun(box, 7) is None
    assert (published.call_started(box) is None) == (size < OFFSET + 16)


def test_a_call_that_begins_in_the_future_did_not_begin(box, ledger):
    assert ledger.begin(7, 1)
    ledger.words[STARTED] = time.monotonic_ns() + 10**12
    assert published.call_started(box) is None


def test_the_moment_at_which_a_call_began_is_told_in_seconds(box, ledger):
    assert ledger.begin(7, 1)
    at = time.monotonic_ns()
    ledger.words[STARTED] = at
    assert published.call_started(box) == at / 1e9
    ledger.words[STARTED] = 1
    assert published.call_started(box) == 1e-9


@pytest.mark.parametrize(("begun", "known"), [(-1, None), (0, 0), (MAX_CALLS, MAX_CALLS), (MAX_CALLS + 1, None)])
def test_no_impossible_number_of_calls_is_believed(box, begun, known):
    os.pwrite(box, struct.pack("@3q", 7, 0, begun), OFFSET)
    assert published.calls_begun(box, 7) == known


# ---- allocation ------------------------------------------------------------------------------------------------


def test_only_what_was_allocated_is_written_to(ledger, allocated):
    """A page that cannot be had when it is written to would be a SIGBUS."""
    for calls in (1, 2000, 10, MAX_CALLS):
        assert ledger.begin(7, calls)
        assert allocated >= pages_of(OFFSET, ENDS + 4 * calls)
    for end in (DATA + 1, DATA + 5, DATA + 40_000, DATA + 40_001, DATA + CAPACITY - 1, DATA + CAPACITY):
        assert ledger.has_room(end)
        assert allocated >= pages_of(DATA, end)
        assert allocated >= pages_of(DATA, ledger.limit)


def test_what_was_allocated_once_is_not_allocated_again(ledger, allocated):
    assert ledger.begin(7, 100)
    assert ledger.has_room(DATA + 100)
    requests = allocated.requests
    for task in (8, 9):
        assert ledger.begin(task, 100)
        assert ledger.has_room(DATA + 100)
        assert ledger.begin(task, 1)
    assert allocated.requests == requests


def test_a_chunk_takes_no_more_memory_for_its_ends_than_it_has_calls(ledger, allocated):
    assert ledger.begin(7, 100)
    assert allocated == pages_of(OFFSET, ENDS + 400)


def test_data_of_any_length_are_allocated_in_few_steps_that_grow(ledger, allocated):
    """A chunk of small results asks for room once in many results."""
    assert ledger.begin(7, 1)
    requests, steps, end = allocated.requests, [], DATA
    while ledger.has_room(end + 1):
        steps.append(ledger.limit - end)
        end = ledger.limit
    assert end == DATA + CAPACITY
    assert allocated.requests - requests == len(steps) <= 8
    assert steps[0] == 1 << 15
    assert steps[:-1] == sorted(steps[:-1])


def test_where_memory_is_short_a_chunk_does_not_begin_and_a_smaller_one_may(box, ledger, allocated):
    allocated.limit = len(pages_of(OFFSET, ENDS + 400))
    assert ledger.begin(7, MAX_CALLS) is False
    assert ledger.words[TASK] == 0
    assert ledger.begin(8, 100)
    assert ledger.has_room(DATA + 1) is False
    assert ledger.limit == DATA, "whoever writes asks again"
    allocated.limit = 1 << 20
    assert ledger.has_room(DATA + 1) is True
    assert ledger.begin(9, MAX_CALLS)
    assert published.read(box).task == 9


def test_a_lack_of_memory_in_the_middle_leaves_what_was_there(ledger, allocated):
    assert ledger.begin(7, 10)
    assert ledger.has_room(DATA + 100)
    limit = ledger.limit
    allocated.limit = len(allocated)
    assert ledger.has_room(limit + 1) is False
    assert ledger.limit == limit
    assert ledger.has_room(limit)


def test_what_was_refused_is_refused_again_while_memory_is_short(ledger, allocated):
    """Otherwise the second try would write to pages that do not exist: a SIGBUS."""
    allocated.limit = len(pages_of(OFFSET, ENDS + 400))
    for task in (7, 8, 9):
        assert ledger.begin(task, MAX_CALLS) is False
    assert ledger.begin(10, 100)
    for _ in range(3):
        assert ledger.has_room(DATA + 1) is False
        assert ledger.limit == DATA
    assert allocated == pages_of(OFFSET, ENDS + 400)


def test_a_ledger_that_nobody_sees_has_no_room_for_data_though_calls_are_counted_in_it():
    alone = Ledger(None)
    alone.words[BEGUN] += 1
    alone.ends[MAX_CALLS - 1] = 5
    assert alone.words[BEGUN] == 1
    assert alone.has_room(DATA) is False, "not even for a result of no bytes"
    assert alone.limit == DATA
    alone.close()


class Watched:
    """Memory that has somebody look after each time that it was written to."""

    def __init__(self, memory, look):
        self.memory, self.look = memory, look

    def __setitem__(self, where, value):
        self.memory[where] = value
        self.look()


def test_a_worker_that_dies_while_it_begins_a_chunk_has_published_nothing_of_it(box, ledger):
    """What the chunk before has left there is never taken for results of the new one."""
    assert ledger.begin(7, 3)
    assert ledger.has_room(DATA + 3)
    ledger.memory[DATA : DATA + 3] = b"abc"
    ledger.ends[0], ledger.ends[1], ledger.words[BEGUN] = 1, 2, 3
    seen, words, memory = [], ledger.words, ledger.memory

    def look():
        seen.append(published.read(box))

    ledger.words, ledger.memory = Watched(words, look), Watched(memory, look)
    try:
        assert ledger.begin(8, 3)
    finally:
        ledger.words, ledger.memory = words, memory
    assert len(seen) >= 5
    assert [(found.task, found.begun, found.ends) for found in seen if found is not None] == [(8, 0, [])]


def test_the_results_of_the_first_calls_are_copied_out(ledger):
    assert ledger.begin(7, 3)
    assert ledger.has_room(DATA + 6)
    ledger.memory[DATA : DATA + 6] = b"abcdef"
    ledger.ends[0], ledger.ends[1], ledger.ends[2] = 1, 3, 6
    assert ledger.results(0) == (b"", b"")
    assert ledger.results(1) == (struct.pack("@I", 1), b"a")
    assert ledger.results(3) == (struct.pack("@3I", 1, 3, 6), b"abcdef")


@pytest.mark.skipif(sys.version_info < (3, 13), reason="a mapping keeps a duplicate of its descriptor there")
def test_a_ledger_keeps_no_descriptor(box):
    before = open_descriptors()
    ledger = Ledger(box)
    assert open_descriptors() == before
    ledger.close()


def test_a_closed_ledger_frees_its_memory_though_somebody_holds_it(ledger):
    ends = ledger.ends
    ledger.close()
    with pytest.raises(ValueError, match="released"):
        len(ends)
    with pytest.raises(ValueError, match="closed"):
        ledger.memory[0]
