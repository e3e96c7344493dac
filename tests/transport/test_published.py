"""What a worker publishes of a chunk of calls, and what the host believes of it."""

from __future__ import annotations

import mmap
import os
import random
import struct
import time

import pytest

from pidfdpool.transport import black_box, published
from pidfdpool.transport.published import BEGUN, DATA, HALTED, OFFSET, STARTED, TASK, Ledger
from tests.cut_boxes import cut_off

ENDS = OFFSET + 64


@pytest.fixture
def ledger(box):
    ledger = Ledger(box)
    yield ledger
    ledger.close()


def publish(ledger, results, begun=None, task=7):
    """Publish results as a worker does, after which another call has begun, unless something else is said."""
    assert ledger.begin(task, len(results) + 1)
    at = DATA
    for index, result in enumerate(results):
        ledger.words[STARTED] = time.monotonic_ns()
        ledger.words[BEGUN] = index + 1
        assert ledger.has_room(at + len(result))
        ledger.memory[at : at + len(result)] = result
        at += len(result)
        ledger.ends[index] = at - DATA
    ledger.words[BEGUN] = len(results) + 1 if begun is None else begun


def word(index, value):
    return OFFSET + 8 * index, struct.pack("@q", value)


def end(index, value):
    return ENDS + 4 * index, struct.pack("@I", value)


def test_a_new_box_has_nothing_published(box):
    assert published.read(box) is None
    assert published.call_started(box) is None
    assert published.calls_begun(box, 0) == 0


def test_what_was_published_is_read_through_another_descriptor(box, ledger):
    publish(ledger, [b"one", b"three", b"x" * 100_000])
    other = os.dup(box)
    try:
        found = published.read(other)
        assert (found.task, found.begun, list(found.ends)) == (7, 4, [3, 8, 100_008])
        assert found.data == b"onethree" + b"x" * 100_000
        assert 0 < published.call_started(other) <= time.monotonic()
        assert published.calls_begun(other, 7) == 4
        assert published.calls_begun(other, 8) is None
    finally:
        os.close(other)
    ends, data = ledger.results(2)
    assert (struct.unpack("@2I", ends), data) == ((3, 8), b"onethree")


def test_what_the_chunk_before_has_published_is_no_result_of_this_one(box, ledger):
    """A worker that dies in the second call of a chunk has published one result, wherever the last chunk ended."""
    publish(ledger, [b"of", b"the", b"chunk", b"before"])
    publish(ledger, [b"first"], task=8)
    found = published.read(box)
    assert (found.task, found.begun, list(found.ends), found.data) == (8, 2, [5], b"first")
    assert ledger.begin(9, 3)
    ledger.words[BEGUN] = 1
    assert list(published.read(box).ends) == []


def test_between_two_calls_none_is_under_way(box, ledger):
    publish(ledger, [b"one", b"two"], begun=2)
    assert published.read(box).begun == len(published.read(box).ends)


def test_the_next_chunk_shows_nothing_of_the_one_before(box, ledger):
    publish(ledger, [b"one", b"two", b"three"])
    assert ledger.begin(8, 4)
    found = published.read(box)
    assert (found.task, found.begun, found.ends, found.data) == (8, 0, [], b"")
    assert published.call_started(box) is None


@pytest.mark.parametrize(
    ("where", "what"),
    [
        word(TASK, 0),
        word(BEGUN, -1),
        word(BEGUN, 1),
        word(BEGUN, 5),
        word(BEGUN, published.MAX_CALLS),
        word(BEGUN, published.MAX_CALLS + 1),
        word(BEGUN, 1 << 60),
        end(0, 0),
        end(1, 1),
        end(1, 3),
        end(2, published.CAPACITY + 1),
        end(2, 0xFFFFFFFF),
        end(3, 9),
    ],
)
def test_what_cannot_be_true_is_not_believed(box, ledger, where, what):
    publish(ledger, [b"one", b"two", b"three"])
    os.pwrite(box, what, where)
    found = published.read(box)
    if (where, what) == word(BEGUN, 1):
        assert (found.begun, len(found.ends)) == (1, 1), "fewer may be true"
    else:
        assert found is None


@pytest.mark.parametrize("at", [0, -5, 1 << 62])
def test_a_call_that_began_at_no_possible_time_did_not_begin(box, ledger, at):
    publish(ledger, [b"one"])
    ledger.words[STARTED] = at
    assert published.call_started(box) is None


def test_any_contents_are_read_without_harm(box, ledger):
    draw = random.Random(1)
    for _ in range(300):
        begun = draw.choice([0, 1, 3, 50, published.MAX_CALLS])
        os.pwrite(box, struct.pack("@3q", 7, draw.choice([0, 1 << 62]), begun), OFFSET)
        os.pwrite(box, draw.randbytes(draw.randrange(300)), ENDS)
        found = published.read(box)
        if found is not None:
            assert found.begun - len(found.ends) in (0, 1)
            assert list(found.ends) == sorted(set(found.ends))
            assert len(found.data) == (found.ends[-1] if found.ends else 0)


def test_a_box_that_was_cut_off_or_is_no_file_counts_as_empty(box, ledger):
    publish(ledger, [b"one"])
    cut_off(box, ENDS + 2)
    read, write = os.pipe()
    try:
        for fd in (box, read):
            assert published.read(fd) is None
            assert published.calls_begun(fd, 1) is None
        assert published.call_started(read) is None
        published.halt(read, 7)
        published.allow(read, 7)
    finally:
        os.close(read)
        os.close(write)


def test_the_host_can_halt_one_chunk(box, ledger):
    publish(ledger, [b"one"])
    published.halt(box, 7)
    assert ledger.words[HALTED] == 7


def test_there_is_room_up_to_a_limit(ledger):
    assert ledger.begin(1, published.MAX_CALLS)
    last = DATA + published.CAPACITY
    assert ledger.has_room(last)
    ledger.memory[last - 1 : last] = b"x"
    assert not ledger.has_room(last + 1)
    ledger.end_early()
    assert not ledger.has_room(DATA + 1)
    assert ledger.begin(2, 1)
    assert ledger.has_room(DATA + 1)


def test_who_writes_asks_for_room_as_soon_as_a_chunk_is_to_end_early(ledger):
    """A signal handler says so at any point, and whoever writes has looked for room a moment before."""
    assert ledger.begin(1, 3)
    assert ledger.has_room(DATA + 100)
    limit = ledger.limit
    assert limit >= DATA + 100
    ledger.end_early()
    assert ledger.limit == DATA, "so it asks"
    assert not ledger.has_room(DATA + 1)
    assert ledger.limit == DATA
    assert ledger.begin(2, 3)
    assert ledger.limit == limit, "what is allocated is there for the next chunk"
    assert ledger.has_room(limit)
    assert not ledger.has_room(DATA + published.CAPACITY + 1)
    assert ledger.limit == limit


def test_only_used_pages_are_allocated(box, ledger):
    before = os.fstat(box).st_blocks
    publish(ledger, [b"one", b"two"])
    assert (os.fstat(box).st_blocks - before) * 512 <= 16 * mmap.PAGESIZE
    assert os.fstat(box).st_size == black_box.STACKS_OFFSET


def test_without_memory_there_is_no_room_and_no_harm(monkeypatch, ledger):
    def refuse(*_):
        raise OSError(28, "no space")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert not ledger.begin(1, 5)
    alone = Ledger(None)
    assert not alone.begin(1, 5)
    assert not alone.has_room(DATA + 1)
    assert alone.results(0) == (b"", b"")


def test_a_box_that_is_too_short_cannot_be_shared():
    fd = os.memfd_create("short", os.MFD_CLOEXEC)
    try:
        with pytest.raises(ValueError, match="greater than file size"):
            Ledger(fd)
    finally:
        os.close(fd)


def test_a_closed_ledger_refuses_whoever_goes_on_writing(ledger):
    publish(ledger, [b"one"])
    ledger.close()
    with pytest.raises(ValueError, match="released"):
        ledger.words[BEGUN] = 1
    with pytest.raises(ValueError, match="closed"):
        ledger.memory[DATA : DATA + 1] = b"x"


def test_what_a_full_ledger_has_allocated_ends_with_it(box, ledger):
    """Behind it are the stacks, whose end is the end of the file."""
    size = os.fstat(box).st_size
    assert ledger.begin(7, 1)
    for end in (DATA + published.CAPACITY // 3, DATA + published.CAPACITY * 5 // 6, DATA + published.CAPACITY):
        assert ledger.has_room(end)
    assert not ledger.has_room(DATA + published.CAPACITY + 1)
    assert os.fstat(box).st_size == size
    assert black_box.read_stack(box) is None
