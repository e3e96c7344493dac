"""How an arena makes room, and what it takes again: bounds, moments, and the order in which segments go."""

from __future__ import annotations

import errno
import itertools
import os
import sys
from contextlib import closing
from functools import partial

import pytest

from pidfdpool.transport.segments import arena, memory
from pidfdpool.transport.segments.arena import CALL, RESULT, Arena, Segment
from tests.conditions import open_descriptors

MB = 1 << 20
PAGE = memory.PAGE


@pytest.fixture
def clock(monkeypatch):
    """Give a clock that stands until it is moved."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr("time.monotonic", lambda: Clock.now)
    return Clock


@pytest.fixture
def made(clock):
    it = Arena(8 * MB)
    yield it
    it.close()


def use(arena, role=CALL, size=MB):
    return arena.take_free(role, size) or arena.allocate(role, size)


def full(made, role=CALL):
    segments = [use(made, role) for _ in range(8)]
    assert None not in segments
    return segments


# ---- what is taken again ---------------------------------------------------------------------------------------


def test_a_segment_is_taken_for_as_much_as_it_holds_and_for_no_less_than_half_of_it(made):
    """With a page of grace, so that the smallest ones are for all that is small."""
    segment = use(made, size=16 * PAGE)
    made.release(segment)
    assert made.take_free(CALL, 16 * PAGE + 1) is None
    least = (16 * PAGE - PAGE) // 2
    assert made.take_free(CALL, least - 1) is None
    assert made.take_free(CALL, least) is segment
    made.release(segment)
    assert made.take_free(CALL, 16 * PAGE) is segment
    small = use(made, size=1)
    made.release(small)
    assert made.take_free(CALL, 1) is small


def test_of_those_that_fit_the_one_used_last_is_taken_and_those_that_do_not_are_left(made):
    fits, too_small, large = use(made, size=MB), use(made, size=PAGE), use(made, size=4 * MB)
    for segment in (large, fits, too_small):
        made.release(segment)
    assert made.take_free(CALL, MB) is fits
    assert made.take_free(CALL, MB) is None
    assert made.take_free(CALL, 2 * MB) is large
    assert made.take_free(CALL, 1) is too_small


def test_the_size_of_a_new_segment_is_rounded_and_counts_as_a_whole(made):
    segment = made.allocate(CALL, 5 * MB // 2 + 1)
    assert (segment.size, made.used) == (arena.rounded_size(5 * MB // 2 + 1), segment.size)
    assert os.fstat(segment.fileno()).st_size == len(segment.shared) == segment.size
    assert len(made) == 1


def test_sizes_are_in_steps_of_an_eighth_so_that_payloads_of_about_a_size_share_segments():
    eighth = MB // 8
    sizes = (MB, MB + 1, MB + eighth, MB + eighth + 1, 2 * MB - 1, 2 * MB + 1)
    assert [arena.rounded_size(size) - MB for size in sizes] == [
        0, eighth, eighth, 2 * eighth, MB, MB + 2 * eighth,
    ]  # fmt: skip
    assert arena.rounded_size(1) == arena.rounded_size(PAGE) == PAGE


# ---- making room -----------------------------------------------------------------------------------------------


def test_a_segment_that_was_used_just_now_does_not_make_room_and_later_it_does(made, clock):
    segments = full(made)
    made.release(segments[3])
    clock.now += 1
    assert made.take_free(CALL, MB) is segments[3]
    made.release(segments[3])
    assert made.allocate(RESULT, MB) is None
    assert made.segments[segments[3].number] is segments[3]
    clock.now += arena.REUSE_WINDOW - 0.001
    assert made.allocate(RESULT, MB) is None
    clock.now += 0.002
    new = made.allocate(RESULT, MB)
    assert new is not None
    assert segments[3].number not in made.segments
    assert made.used == 8 * MB
    assert made.to_unmap == {segments[3].number}


def test_the_segment_that_is_free_for_longest_makes_room_whatever_it_was_for(made, clock):
    segments = [use(made, role) for role in (CALL, RESULT) * 4]
    for index in (5, 2, 3, 4):
        made.release(segments[index])
        clock.now += 1
        made.free_idle(0.0)
    for index in (5, 2, 3):
        assert made.allocate(CALL, MB) is not None
        assert segments[index].fileno() == -1
    assert segments[4].fileno() != -1


def test_as_many_make_room_as_are_needed_and_no_more(made, clock):
    segments = full(made)
    for segment in segments[:6]:
        made.release(segment)
        made.free_idle(0.0)
        clock.now += 1
    assert made.allocate(CALL, 3 * MB) is not None
    assert [segment.fileno() == -1 for segment in segments] == [True] * 3 + [False] * 5
    assert made.used == 8 * MB


def test_free_segments_make_room_before_what_the_user_holds(made, clock):
    segments = full(made, RESULT)
    held: set[int] = set()
    release = made.hold(segments[0], held)
    made.release(segments[1])
    made.free_idle(0.0)
    clock.now += 1
    assert made.allocate(CALL, MB) is not None
    assert (segments[0].fileno() == -1, segments[1].fileno() == -1) == (False, True)
    assert made.allocate(CALL, MB) is not None
    assert segments[0].fileno() == -1
    assert made.allocate(CALL, MB) is None, "the others are in use"
    assert held == {segments[0].number}
    release()
    assert not held
    made.free_idle(0.0)
    assert (len(made), made.used) == (8, 8 * MB)


def test_a_segment_that_the_user_has_given_back_and_that_is_in_use_again_does_not_make_room(made):
    segments = full(made, RESULT)
    made.hold(segments[0], set())()
    assert made.take_free(RESULT, MB) is segments[0]
    assert made.allocate(RESULT, MB) is None
    assert segments[0].fileno() != -1


def test_a_result_that_is_held_after_a_fork_and_not_during_one_is_used_again(made):
    made.note_fork()
    segment = use(made, RESULT)
    made.hold(segment, set())()
    assert made.take_free(RESULT, MB) is segment
    made.note_fork()
    made.hold(segment, set())()
    assert made.take_free(RESULT, MB) is segment


def test_what_may_not_be_used_again_makes_room_at_once(made):
    """It is looked at when somebody allocates, not only when somebody looks for a free one."""
    segments = full(made)
    segments[2].not_reusable = True
    made.release(segments[2])
    new = made.allocate(CALL, MB)
    assert new is not None
    assert segments[2].number in made.to_unmap
    assert made.used == 8 * MB


def test_the_limit_may_be_filled_to_the_last_byte(made):
    assert made.allocate(CALL, 8 * MB) is not None
    assert made.allocate(CALL, 1) is None
    assert made.used == made.limit


def test_there_are_64_segments_at_most_and_one_that_is_free_for_long_makes_room(clock):
    it = Arena(1 << 40)
    segments = [it.allocate(CALL, 1) for _ in range(64)]
    assert None not in segments
    assert it.allocate(CALL, 1) is None
    it.release(segments[7])
    it.free_idle(0.0)
    clock.now += 1
    assert it.allocate(RESULT, 1) is not None
    assert len(it) == 64
    it.close()


# ---- moments ---------------------------------------------------------------------------------------------------


def test_whoever_releases_first_wakes_the_pool_thread_and_who_follows_does_not():
    woken = []
    it = Arena(8 * MB, lambda: woken.append(1))
    first, second, third = use(it), use(it), use(it)
    it.release(first)
    it.release(second)
    assert woken == [1]
    assert it.free_idle(0.0) is not None
    it.release(third)
    assert woken == [1], "it comes again when the first is due, and needs no call"
    assert it.free_idle(1e12) is None
    it.release(use(it))
    assert woken == [1, 1]
    it.close()


def test_an_arena_of_which_no_thread_takes_care_wakes_nobody():
    it = Arena(8 * MB)
    it.release(use(it))
    it.close()


def test_whenever_a_segment_is_released_the_pool_thread_is_woken_or_comes_again(clock):
    """Also if it is released while that thread looks for what is idle: by another thread, or a signal handler."""
    for moment in itertools.count():
        woken: list[int] = []
        with closing(Arena(8 * MB, partial(woken.append, 1))) as it:
            it.release(use(it, size=PAGE))
            assert it.free_idle(clock.now) is not None
            segment, woken[:] = use(it, size=PAGE), []
            due, was_released = released_at_line(moment, it, segment, clock.now)
            assert woken or due is not None or not was_released, f"it waits for ever after line {moment}"
        if not was_released:
            break
    assert moment > 3


def released_at_line(number, it, segment, now):
    """Look for what is idle, and release a segment before that line of it. Return the answer, and whether it came."""
    lines = itertools.count()
    was_released = False

    def trace(frame, event, _):
        nonlocal was_released
        if frame.f_code.co_filename != arena.__file__:
            return None
        if event == "line" and next(lines) == number:
            it.release(segment)
            was_released = True
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return it.free_idle(now), was_released
    finally:
        sys.settrace(before)


def test_a_segment_is_idle_for_its_whole_time(made, clock):
    segment = use(made)
    made.release(segment)
    due = made.free_idle(clock.now)
    assert due == clock.now + 5.0, "as is documented"
    assert made.free_idle(due - 0.001) == due
    assert segment.fileno() != -1
    assert made.free_idle(due) is None
    assert segment.fileno() == -1
    assert made.to_unmap == {segment.number}


# ---- the end, and what fails -----------------------------------------------------------------------------------


def test_an_arena_that_closes_keeps_nothing(made):
    segments = full(made)
    made.release(segments[0])
    made.free_idle(0.0)
    made.release(segments[1])
    made.close()
    assert (len(made), made.used, made.take_free(CALL, MB)) == (0, 0, None)
    assert made.to_unmap == {segment.number for segment in segments}
    assert all(segment.fileno() == -1 and segment.shared is None for segment in segments)
    assert made.free_idle(0.0) is None


def test_a_segment_that_is_made_while_the_arena_closes_is_not_handed_out(made, monkeypatch):
    """Its memory is allocated without the lock."""
    real = os.posix_fallocate

    def allocate(*arguments):
        made.close()
        real(*arguments)

    before = open_descriptors()
    monkeypatch.setattr(os, "posix_fallocate", allocate)
    assert made.allocate(CALL, MB) is None
    assert (len(made), made.used) == (0, 0)
    assert open_descriptors() == before


def test_an_interruption_while_memory_is_allocated_takes_no_room_from_the_others(made, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            made.allocate(CALL, MB)
    assert (len(made), made.used) == (0, 0)
    assert open_descriptors() == before
    full(made)


def test_a_memory_file_that_cannot_be_mapped_is_closed(made, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    before = open_descriptors()
    monkeypatch.setattr(memory, "map_file", refuse)
    assert made.allocate(CALL, MB) is None
    assert (len(made), made.used) == (0, 0)
    assert open_descriptors() == before


def test_a_segment_that_nobody_has_any_more_is_closed():
    before = open_descriptors()
    segment = Segment(RESULT, PAGE)
    assert (segment.role, segment.size, segment.readers, segment.held) == (RESULT, PAGE, 0, False)
    assert Segment(CALL, PAGE).number == segment.number + 1
    segment.close()
    segment.close()
    assert open_descriptors() == before


def test_a_duplicate_is_closed_at_exec_and_lives_on_by_itself(made):
    segment = use(made)
    fd = segment.duplicate()
    try:
        assert fd > 2
        assert fd != segment.fileno()
        assert not os.get_inheritable(fd)
        segment.shared[:3] = b"abc"
        made.release(segment)
        made.close()
        assert os.pread(fd, 3, 0) == b"abc"
    finally:
        os.close(fd)


def test_what_several_threads_share_is_changed_with_the_lock_only(clock):
    """A thread that submits, the pool thread and the one that closes the pool all come here."""

    class Guarded(Arena):
        def __setattr__(self, name, value):
            assert name != "used" or "_lock" not in vars(self) or self._lock._is_owned()
            super().__setattr__(name, value)

        def _collect_released(self):
            assert self._lock._is_owned()
            super()._collect_released()

        def _make_room(self, size):
            assert self._lock._is_owned()
            return super()._make_room(size)

        def _forget(self, segment):
            assert self._lock._is_owned()
            super()._forget(segment)

    class GuardedSegments(dict):
        def __setitem__(self, number, segment):
            assert it._lock._is_owned()
            super().__setitem__(number, segment)

    it = Guarded(2 * MB)
    it.segments = GuardedSegments()
    it.release(use(it))
    assert use(it) is not None
    it.prepare(RESULT, MB)
    it.free_idle(0.0)
    clock.now += 1
    last = use(it)
    assert last is not None, "the one for results makes room"
    it.release(last)
    assert it.free_idle(1e12) is None
    it.close()
