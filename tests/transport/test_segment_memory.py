"""One piece of shared memory: made where something is lacking, mapped as older Pythons do it, and looked at."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import struct
import sys

import pytest

from pidfdpool.transport.segments import layout, memory
from pidfdpool.transport.segments.arena import CALL, RESULT, Segment
from tests.conditions import open_descriptors

MB = 1 << 20
PAGE = memory.PAGE


@pytest.fixture
def file():
    """Give a memory file of 4 pages."""
    fd = memory.create(4 * PAGE)
    yield fd
    os.close(fd)


@pytest.fixture(params=["of today", "before Python 3.13"])
def map_file(request, monkeypatch):
    """Give `memory.map_file` in both ways in which it keeps no descriptor."""
    if request.param != "of today":
        monkeypatch.setattr(sys, "version_info", (3, 12, 9, "final", 0))
    return memory.map_file


# ---- making it -------------------------------------------------------------------------------------------------


@pytest.fixture
def file_size_limit():
    """Allow files of 1 MB at most, though this process may raise that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MB, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_may_be_as_large_as_the_limit_and_no_larger(file_size_limit, monkeypatch):
    os.close(memory.create(MB))

    def fail(*_):
        raise AssertionError("the kernel would answer with SIGXFSZ")

    monkeypatch.setattr(os, "ftruncate", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)) as caught:
        memory.create(MB + 1)
    assert caught.value.errno == errno.EFBIG


def refusing_memfd_create(monkeypatch, number, only_flag=None):
    real, asked = os.memfd_create, []

    def create(name, flags):
        asked.append(flags)
        if only_flag is None or flags & only_flag:
            raise OSError(number, os.strerror(number))
        return real(name, flags)

    monkeypatch.setattr(os, "memfd_create", create)
    return asked


NOEXEC_SEAL = 8  # <linux/memfd.h>


def test_a_kernel_that_does_not_know_how_to_forbid_execution_is_asked_without(monkeypatch):
    """Linux before 6.3."""
    asked = refusing_memfd_create(monkeypatch, errno.EINVAL, NOEXEC_SEAL)
    fd = memory.create(PAGE)
    try:
        assert asked == [os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | NOEXEC_SEAL, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING]
        assert not os.get_inheritable(fd)
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    finally:
        os.close(fd)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EMFILE])
def test_any_other_refusal_is_the_error_and_nothing_else_is_tried(monkeypatch, number):
    asked = refusing_memfd_create(monkeypatch, number)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        memory.create(PAGE)
    assert (caught.value.errno, len(asked)) == (number, 1)


def test_a_python_that_does_not_know_memory_files_is_as_a_kernel_that_does_not(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(OSError, match=os.strerror(errno.ENOSYS)) as caught:
        memory.create(PAGE)
    assert caught.value.errno == errno.ENOSYS


@pytest.mark.parametrize("call", ["ftruncate", "posix_fallocate"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=["full", "interrupted"])
def test_a_file_that_could_not_be_made_whole_is_closed(monkeypatch, call, error):
    def refuse(*_):
        raise error

    before = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(type(error)):
            memory.create(PAGE)
    assert open_descriptors() == before


# ---- mapping it ------------------------------------------------------------------------------------------------


def test_a_shared_mapping_is_seen_by_others_and_a_private_one_is_not(map_file, file):
    before = open_descriptors()
    shared, private = map_file(file, 4 * PAGE, memory.SHARED), map_file(file, 4 * PAGE, memory.PRIVATE)
    assert open_descriptors() == before
    assert len(shared) == len(private) == 4 * PAGE
    shared[-3:] = b"abc"
    assert os.pread(file, 3, 4 * PAGE - 3) == private[-3:] == b"abc"
    private[-3:] = b"xyz"
    assert shared[-3:] == b"abc"
    told = []
    private.when_unmapped = lambda: told.append(1)
    view = memoryview(private)[-1:]
    del private
    assert (bytes(view), told) == (b"z", [])
    view.release()
    del view
    assert told == [1]


def test_what_cannot_be_mapped_is_an_error_that_says_why(map_file):
    read, write = os.pipe()
    try:
        with pytest.raises((OSError, ValueError)) as caught:
            map_file(read, PAGE, memory.SHARED)
        if isinstance(caught.value, OSError):
            assert caught.value.errno in (errno.EACCES, errno.ENODEV)
            assert os.strerror(caught.value.errno) in str(caught.value)
    finally:
        os.close(read)
        os.close(write)
        del memory._never_unmapped[:]


def test_where_a_mapping_failed_half_way_its_memory_is_never_unmapped(monkeypatch):
    """By the time of unmapping it may belong to somebody else."""
    monkeypatch.setattr(sys, "version_info", (3, 12, 9, "final", 0))
    with pytest.raises(OSError, match=f"mmap: {os.strerror(errno.EBADF)}") as caught:
        memory.map_file(-1, PAGE, memory.SHARED)
    assert caught.value.errno == errno.EBADF
    assert len(memory._never_unmapped.pop()) == PAGE


def resident(mapping):
    """Return how many bytes of a mapping have been mapped to pages."""
    address, found = memory.address_of(mapping), False
    with open("/proc/self/smaps") as smaps:
        for line in smaps:
            first = line.split()[0]
            if "-" in first:
                begin, _, end = first.partition("-")
                found = int(begin, 16) <= address < int(end, 16)
            elif found and first == "Rss:":
                return int(line.split()[1]) * 1024
    raise AssertionError("it is not mapped")


def test_pages_are_mapped_at_once_for_calls_which_the_host_writes_and_not_for_results():
    segments = Segment(CALL, 64 * PAGE), Segment(RESULT, 64 * PAGE)
    try:
        sizes = [resident(segment.shared) for segment in segments]
    finally:
        for segment in segments:
            segment.close()
    if int(os.uname().release.split(".")[0]) >= 6:  # Linux 5.14; an older one does it at the first write
        assert sizes[0] == 64 * PAGE
    assert sizes[1] == 0


def test_memory_behind_a_mapping_is_freed_and_a_mapping_that_is_closed_is_no_error(file):
    mapping = memory.map_file(file, 4 * PAGE, memory.SHARED)
    mapping[:] = b"x" * 4 * PAGE
    memory.drop_pages(mapping)
    assert os.fstat(file).st_blocks == 0
    assert not any(mapping)
    mapping.close()
    memory.drop_pages(mapping)
    memory.populate(mapping)


def test_views_are_noticed_and_told_by_yes_or_no(file):
    mapping = memory.map_file(file, 4 * PAGE, memory.PRIVATE)
    assert memory.has_views(mapping) is False
    with memoryview(mapping):
        assert memory.has_views(mapping) is True
    assert memory.has_views(mapping) is False
    assert len(mapping) == 4 * PAGE


# ---- private pages ---------------------------------------------------------------------------------------------

PRESENT, SWAPPED, OF_FILE = 1 << 63, 1 << 62, 1 << 61  # pagemap.rst of the kernel's documentation


@pytest.mark.parametrize(
    ("pages", "private"),
    [
        ([0, 0, 0, 0], False),
        ([PRESENT | OF_FILE] * 4, False),
        ([0, PRESENT | OF_FILE, SWAPPED | OF_FILE, (1 << 55) - 1], False),
        ([PRESENT, 0, 0, 0], True),
        ([0, 0, 0, PRESENT], True),
        ([PRESENT | OF_FILE, PRESENT | OF_FILE, SWAPPED, PRESENT | OF_FILE], True),
        ([SWAPPED, 0, 0, 0], True),
        ([PRESENT | OF_FILE] * 3, True),
        ([], True),
    ],
    ids=["untouched", "read", "mixed", "first", "last", "swapped", "swapped first", "too few", "nothing"],
)
def test_a_private_copy_is_found_in_what_the_kernel_says_of_each_page(monkeypatch, file, pages, private):
    """What is not known may be one: the next payload must not be hidden by what was written before."""
    mapping = memory.map_file(file, 4 * PAGE, memory.PRIVATE)
    mapping[0] = 1
    asked = []

    def pread(_fd, size, offset):
        asked.append((size, offset))
        return struct.pack(f"={len(pages)}Q", *pages)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", pread)
        memory.discard_private_pages(mapping, 4 * PAGE)
    assert mapping[0] == (0 if private else 1)
    assert asked == [(8 * 4, memory.address_of(mapping) // PAGE * 8)]


@pytest.mark.parametrize("page", range(4))
def test_whichever_page_was_written_to_all_show_the_file_again(file, page):
    mapping = memory.map_file(file, 4 * PAGE, memory.PRIVATE)
    before = open_descriptors()
    mapping[page * PAGE + 5] = 1
    memory.discard_private_pages(mapping, page * PAGE + 6)
    assert not any(mapping)
    assert open_descriptors() == before


def test_pages_behind_those_that_are_asked_about_are_left_alone(file):
    mapping = memory.map_file(file, 4 * PAGE, memory.PRIVATE)
    mapping[2 * PAGE] = 1
    memory.discard_private_pages(mapping, 2 * PAGE)
    assert mapping[2 * PAGE] == 1
    mapping[0] = 1
    memory.discard_private_pages(mapping, 2 * PAGE)
    assert (mapping[0], mapping[2 * PAGE]) == (0, 1)


# ---- where the parts lie ---------------------------------------------------------------------------------------


def test_out_of_band_buffers_are_aligned_and_nothing_else_is_written():
    plan = layout.Layout([b"ab", b"c"], [b"d" * 65, b"", b"e"])
    assert plan.size == 64 + 128 + 1
    room = bytearray(b"." * plan.size)
    plan.write(memoryview(room))
    assert room == (b"abc".ljust(64, b".") + b"d" * 65).ljust(192, b".") + b"e"
    assert plan.reference(9) == struct.pack("<5Q", 9, 3, 65, 0, 1)
    assert plan.buffers() == [b"abc", b"d" * 65, b"", b"e"]


def test_the_last_byte_of_a_pickle_is_known_without_the_pickle_in_one_piece():
    """It says whether the call needs the script; see `serialization`."""
    assert layout.Layout([b"ab", b"c"], [b"d"]).last_byte == ord("c")


def test_a_reference_without_any_part_is_refused_and_so_is_one_byte_too_many():
    room = memoryview(bytearray(100))
    with pytest.raises(ValueError, match="exceeds its segment"):
        layout.parts(struct.pack("<Q", 7), room)
    [whole] = layout.parts(struct.pack("<2Q", 7, 100), room)
    assert len(whole) == 100
    with pytest.raises(ValueError, match="exceeds its segment"):
        layout.parts(struct.pack("<2Q", 7, 101), room)
    first, second = layout.parts(struct.pack("<3Q", 7, 1, 36), room)
    second[0] = 5
    assert (len(first), room[64]) == (1, 5)
    assert layout.size_of(struct.pack("<3Q", 7, 1, 36)) == 100
    with pytest.raises(ValueError, match="exceeds its segment"):
        layout.parts(struct.pack("<3Q", 7, 1, 37), room)
