"""Segments by themselves, without any process: memory, layout, and the arena that allocates and frees them."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import resource
import threading

import pytest

from pidfdpool.transport.segments import arena, layout, memory
from pidfdpool.transport.segments.arena import CALL, RESULT, Arena
from tests.conditions import eventually, run_python

MB = 1 << 20


@pytest.fixture
def woken():
    return []


@pytest.fixture
def made(woken):
    """Give an arena of 8 MB that is closed at the end."""
    it = Arena(8 * MB, lambda: woken.append(1))
    yield it
    it.close()


def use(arena, role=CALL, size=MB):
    """Return a segment as the pool takes one."""
    return arena.take_free(role, size) or arena.allocate(role, size)


# ---- memory ----------------------------------------------------------------------------------------------------


def test_a_memory_file_is_sealed_and_close_on_exec_and_has_its_pages():
    fd = memory.create(MB)
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        wanted = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        assert seals & wanted == wanted
        assert not seals & fcntl.F_SEAL_WRITE
        assert not os.get_inheritable(fd)
        assert os.fstat(fd).st_blocks * 512 == os.fstat(fd).st_size == MB
        for size in (0, 2 * MB):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
    finally:
        os.close(fd)


def test_a_memory_file_is_refused_above_the_limit_of_file_sizes_without_a_signal():
    done = run_python(
        """
        import resource, signal
        from pidfdpool.transport.segments import memory
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            memory.create(2 << 20)
        except OSError as error:
            print(error.errno)
        """
    )
    assert done.stdout == f"{errno.EFBIG}\n", done.stderr


def test_a_descriptor_is_never_that_of_a_standard_stream():
    done = run_python(
        """
        import os
        from pidfdpool.transport.segments import memory
        os.close(0)
        fd = memory.create(4096)
        assert fd > 2, fd
        try:
            os.fstat(0)
        except OSError:
            print("ok")
        """
    )
    assert done.stdout == "ok\n", done.stderr


def test_a_mapping_keeps_no_descriptor_and_outlives_the_file():
    before = len(os.listdir("/proc/self/fd"))
    fd = memory.create(MB)
    shared, private = memory.map_file(fd, MB, memory.SHARED), memory.map_file(fd, MB, memory.PRIVATE)
    os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == before
    shared[:3] = b"abc"
    view = memoryview(private)[:3]
    del private
    assert bytes(view) == b"abc"


def test_private_pages_are_visible_only_there_until_they_are_discarded():
    fd = memory.create(MB)
    shared, private = memory.map_file(fd, MB, memory.SHARED), memory.map_file(fd, MB, memory.PRIVATE)
    os.close(fd)
    shared[:] = b"a" * MB
    assert private[:] == b"a" * MB
    private[5000:5003] = b"xyz"
    assert shared[5000] == ord("a")
    shared[:] = b"b" * MB
    assert private[5000] == ord("x")
    assert private[9000] == ord("b")
    memory.discard_private_pages(private, MB)
    assert private[:] == b"b" * MB


@pytest.mark.parametrize("refused", [False, True])
def test_pages_are_discarded_only_if_one_was_written_to(monkeypatch, refused):
    fd = memory.create(MB)
    private = memory.map_file(fd, MB, memory.PRIVATE)
    os.close(fd)
    assert bytes(private) == bytes(MB)
    if refused:
        real = os.open
        monkeypatch.setattr(os, "open", lambda path, *rest: real(f"{path}-is-not-there", *rest))
    assert memory._may_have_private_pages(private, MB) is refused
    private[MB - 1] = 1
    assert memory._may_have_private_pages(private, MB)


def test_a_view_and_a_part_of_one_are_noticed():
    fd = memory.create(MB)
    mapping = memory.map_file(fd, MB, memory.PRIVATE)
    os.close(fd)
    assert not memory.has_views(mapping)
    view = memoryview(mapping)
    part = view[10:20]
    view.release()
    assert memory.has_views(mapping)
    part.release()
    assert not memory.has_views(mapping)
    assert len(mapping) == MB


def test_a_mapping_reports_when_its_last_view_is_gone():
    fd = memory.create(MB)
    mapping = memory.map_file(fd, MB, memory.PRIVATE)
    os.close(fd)
    told = []
    mapping.when_unmapped = lambda: told.append(1)
    part = memoryview(mapping)[5:6]
    del mapping
    assert not told
    del part
    assert told == [1]


# ---- layout ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(5,), (0,), (100, 64, 1), (1, 0, 70_000)])
def test_parts_are_found_where_the_layout_put_them(sizes):
    parts = [bytes([n + 1]) * size for n, size in enumerate(sizes)]
    plan = layout.Layout([parts[0][:2], parts[0][2:]], parts[1:])
    room = bytearray(plan.size)
    plan.write(memoryview(room))
    reference = plan.reference(77)
    assert (layout.number_of(reference), layout.size_of(reference)) == (77, plan.size)
    assert [bytes(part) for part in layout.parts(reference, memoryview(room))] == parts == plan.buffers()
    if plan.size:
        with pytest.raises(ValueError, match="exceeds its segment"):
            layout.parts(reference, memoryview(room)[1:])


# ---- arena -----------------------------------------------------------------------------------------------------


def test_a_released_segment_is_taken_again(made):
    segment = use(made)
    assert made.take_free(CALL, MB) is None
    made.release(segment)
    assert made.take_free(RESULT, MB) is None, "that is another role"
    assert made.take_free(CALL, MB // 4) is None, "it would be wasted"
    assert made.take_free(CALL, 2 * MB) is None
    assert made.take_free(CALL, MB - 5000) is segment


def test_the_segment_released_last_is_taken_first(made):
    segments = [use(made) for _ in range(3)]
    for segment in segments:
        made.release(segment)
    assert [use(made) for _ in range(3)] == segments[::-1]


@pytest.mark.parametrize("size", [1, 4096, 4097, 65_536, 100_000, MB, MB + 1, 3 * MB - 7, 10**8])
def test_little_is_wasted(size):
    assert size <= arena.rounded_size(size) <= max(size + size // 8, size + memory.PAGE)
    assert arena.rounded_size(size) % memory.PAGE == 0


def test_the_limit_is_kept(made):
    segments = [use(made) for _ in range(8)]
    assert made.used == 8 * MB
    assert use(made, size=4096) is None
    made.release(segments.pop())
    assert use(made, size=2 * MB) is None, "one that was used just now is about to be used again"
    assert use(made) is not None
    assert use(made, size=9 * MB) is None


def test_free_segments_make_room(made, monkeypatch):
    monkeypatch.setattr(arena, "REUSE_WINDOW", 0.0)
    segments = [use(made) for _ in range(8)]
    for segment in segments[:4]:
        made.release(segment)
    large = use(made, size=3 * MB)
    assert large is not None
    assert made.used <= 8 * MB
    assert made.to_unmap == {segment.number for segment in segments[:3]}
    assert all(segment.fileno() == -1 for segment in segments[:3])


def test_held_segments_make_room_and_keep_their_contents(made):
    segment = use(made, RESULT)
    segment.shared[:3] = b"abc"
    mapping = memory.map_file(segment.fileno(), segment.size, memory.PRIVATE)
    held = set()
    mapping.when_unmapped = made.hold(segment, held)
    view = memoryview(mapping)[:3]
    del mapping
    others = [use(made) for _ in range(7)]
    assert use(made) is not None
    assert bytes(view) == b"abc"
    assert held == {segment.number}
    del view, others
    assert not held
    assert made.used <= 8 * MB


def test_there_are_never_too_many(woken):
    it = Arena(1 << 40)
    segments = [use(it, size=4096) for _ in range(arena.MAX_SEGMENTS)]
    assert None not in segments
    assert use(it, size=4096) is None
    it.close()
    assert all(segment.fileno() == -1 for segment in segments)


@pytest.mark.parametrize("why", ["not_reusable", "readers"])
def test_a_segment_that_may_be_read_is_not_reused(made, why):
    segment = use(made)
    setattr(segment, why, 1)
    made.release(segment)
    assert use(made) is not segment
    assert segment.fileno() == -1
    assert segment.number in made.to_unmap


def test_a_segment_held_during_a_fork_is_not_reused(made):
    segment, other = use(made, RESULT), use(made, RESULT)
    release, later = made.hold(segment, set()), made.hold(other, set())
    later()
    made.note_fork()
    release()
    assert use(made, RESULT) is other
    assert use(made, RESULT) not in (segment, other)


def test_idle_segments_are_freed_and_then_nothing_is_awaited(made, woken):
    first, second = use(made), use(made, RESULT)
    assert made.free_idle(0.0) is None
    made.release(first)
    assert woken == [1], "somebody has to look"
    made.release(second)
    assert woken == [1]
    due = made.free_idle(0.0)
    assert due == first.free_since + arena.IDLE_TIME
    assert made.free_idle(due + 1) is None
    assert (len(made), made.used) == (0, 0)


def test_the_memory_of_idle_segments_is_freed_although_others_have_them_mapped(made):
    segment = use(made)
    fd = segment.duplicate()
    mapped = memory.map_file(fd, segment.size, memory.PRIVATE)
    assert bytes(mapped) == bytes(MB)
    made.release(segment)
    made.free_idle(made.free_idle(0.0) + 1)
    assert os.fstat(fd).st_blocks == 0
    os.close(fd)


def test_a_refusal_is_no_error(made, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    before = len(os.listdir("/proc/self/fd"))
    assert use(made) is None
    assert (made.used, len(made)) == (0, 0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_descriptor_left_is_no_error(made):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert use(made) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert use(made) is not None


def test_a_signal_handler_that_interrupts_the_arena_neither_hangs_nor_takes_what_is_being_handed_out(made):
    made.prepare(CALL, MB)
    with made._lock:
        assert made.take_free(CALL, MB) is None
        assert made.allocate(CALL, MB) is None


def test_a_closed_arena_allocates_nothing_and_closes_released_segments(made):
    segment = use(made)
    made.close()
    assert segment.fileno() == -1
    made.release(segment)
    assert use(made) is None


def test_many_threads_share_an_arena(made):
    def work():
        for _ in range(200):
            segment = use(made, size=4096)
            segment.shared[:8] = threading.get_ident().to_bytes(8, "little")
            mine.append(int.from_bytes(segment.shared[:8], "little") == threading.get_ident())
            made.release(segment)

    mine: list[bool] = []
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mine == [True] * 1600
    assert len(made) <= 8
    assert made.used == sum(segment.size for segment in made.segments.values())
    gc.collect()
    eventually(lambda: len(os.listdir("/proc/self/fd")) < 100, "no descriptor leaks")


def test_of_a_closed_arena_nothing_is_to_be_had(made):
    """A thread may be about to submit when the pool ends."""
    made.release(use(made))
    made.free_idle(0.0)
    made.close()
    assert made.take_free(CALL, MB) is None
    assert made.allocate(CALL, MB) is None
    assert not made.segments


def test_a_forked_child_does_not_wait_for_a_thread_that_was_not_copied(made, woken):
    used, held, done = use(made), threading.Event(), threading.Event()

    def hold():
        with made._lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    made.abandon_in_forked_child()
    is_free = made._lock.acquire(blocking=False)
    done.set()
    thread.join()
    assert is_free, "it is another lock"
    made._lock.release()
    made.release(used)
    assert made.allocate(CALL, MB) is None
    assert not woken, "whoever would be woken is the parent's"


def test_what_can_never_fit_costs_no_other_segment_anything(made):
    free, held = use(made), use(made, RESULT)
    release = made.hold(held, set())
    made.release(free)
    assert use(made, size=made.limit + 1) is None
    assert made.take_free(CALL, MB) is free
    assert made.segments[held.number] is held
    release()


def test_what_is_prepared_is_there_and_only_once(made):
    made.prepare(CALL, MB)
    made.prepare(CALL, MB)
    assert len(made) == 1
    segment = made.take_free(CALL, MB)
    assert segment is not None
    assert made.take_free(CALL, MB) is None
    made.prepare(RESULT, MB)
    assert made.take_free(CALL, MB) is None, "what is for results is for nothing else"
    assert made.take_free(RESULT, MB) is not None


def test_a_segment_that_was_forgotten_while_somebody_had_it_is_closed_when_it_comes_back(woken):
    it = Arena(MB, lambda: None)
    segment = use(it, RESULT)
    it.hold(segment, held := set())
    assert use(it) is not None, "it makes room"
    assert held == {segment.number}
    assert segment.fileno() == -1
    copy = memory.create(MB)
    segment._fd = copy  # as if it was opened again
    it.release(segment)
    it.free_idle(0.0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(copy)
    it.close()


def test_an_arena_comes_back_when_the_first_of_what_is_idle_is_due(made):
    first, second, third = use(made), use(made), use(made, RESULT)
    for at, segment in enumerate((third, first, second)):
        made.release(segment)
        made.free_idle(0.0)
        segment.free_since = 100.0 + at
    assert made.free_idle(100.0 + arena.IDLE_TIME - 0.001) == third.free_since + arena.IDLE_TIME
    assert made.free_idle(101.0 + arena.IDLE_TIME) == second.free_since + arena.IDLE_TIME
    assert [segment.fileno() == -1 for segment in (first, second, third)] == [True, False, True]


def test_a_forked_child_keeps_no_segment_open_and_mapped(made):
    used, held, free = use(made), use(made, RESULT), use(made)
    made.hold(held, set())
    made.release(free)
    made.free_idle(0.0)
    fds = [segment.fileno() for segment in (used, held, free)]
    made.abandon_in_forked_child()
    assert [segment.fileno() for segment in (used, held, free)] == [-1] * 3
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    assert [segment.shared for segment in (used, held, free)] == [None] * 3
    assert not made.segments
    made.abandon_in_forked_child()
