"""What of a worker's standard error is passed on, what is kept of it, and how much is read at a time."""

from __future__ import annotations

import os
import select

import pytest

from pidfdpool.loop import worker_stderr
from pidfdpool.loop.worker_stderr import LINES, Stderr
from tests.conditions import open_descriptors
from tests.loop.test_stacks import CRASH, TASK


@pytest.fixture
def ends():
    reader, writer = os.pipe()
    stderr = Stderr(reader)
    yield stderr, writer
    stderr.close()
    os.close(writer)


def test_what_a_worker_writes_comes_on_the_hosts_own_standard_error(ends, capfd):
    stderr, writer = ends
    os.write(writer, b"one\ntw")
    assert stderr.read()
    assert capfd.readouterr() == ("", "one\ntw")


def test_what_is_passed_on_is_whole_until_there_is_no_room_and_nobody_waits_for_that(monkeypatch):
    write = os.write

    def write_at_once(fd, data):
        assert select.select([], [fd], [], 0)[1], "it would block"
        return write(fd, data)

    monkeypatch.setattr(worker_stderr.os, "write", write_at_once)
    reader, writer = os.pipe()
    own = os.dup(2)
    os.dup2(writer, 2)
    try:
        for number in range(100):  # more than a pipe holds
            worker_stderr._pass_on(b"%04d" % number + b"x" * 4092)
    finally:
        os.dup2(own, 2)
        os.close(own)
        os.close(writer)
    with open(reader, "rb") as file:
        passed = file.read()
    assert 4096 <= len(passed) < 100 * 4096
    assert passed == b"".join(b"%04d" % number + b"x" * 4092 for number in range(len(passed) // 4096))


def test_a_host_whose_standard_error_nobody_reads_any_more_is_no_trouble():
    reader, writer = os.pipe()
    os.close(reader)
    own = os.dup(2)
    os.dup2(writer, 2)
    os.close(writer)
    try:
        worker_stderr._pass_on(b"x")
    finally:
        os.dup2(own, 2)
        os.close(own)


def test_where_nothing_has_been_written_yet_nobody_waits(ends):
    stderr, _ = ends
    assert not os.get_blocking(stderr.fd)
    assert stderr.read(), "more may come"
    assert stderr.last_lines() == ()


def test_so_much_is_read_at_a_time_as_a_pipe_takes_without_blocking_and_so_often_that_it_is_empty(ends, monkeypatch):
    stderr, _ = ends
    asked = []

    def read(fd, size):
        asked.append((fd, size))
        return b"y\n"

    monkeypatch.setattr(worker_stderr, "_pass_on", lambda _data: None)
    monkeypatch.setattr(worker_stderr.os, "read", read)
    assert stderr.read()
    monkeypatch.undo()
    size = asked[0][1]
    assert set(asked) == {(stderr.fd, size)}
    assert size <= 4096
    assert 64 << 10 <= len(asked) * size <= 256 << 10


def lines_of(stderr, writer, text):
    os.write(writer, text)
    stderr.read()
    return stderr.last_lines()


@pytest.fixture
def quiet(monkeypatch):
    monkeypatch.setattr(worker_stderr, "_pass_on", lambda _data: None)


def test_the_last_lines_are_told_with_one_that_has_not_ended(ends, quiet):
    stderr, writer = ends
    assert lines_of(stderr, writer, b"".join(b"line %d\n" % number for number in range(50))) == tuple(
        f"line {number}" for number in range(50 - LINES, 50)
    )
    assert lines_of(stderr, writer, b"rest") == (*(f"line {number}" for number in range(51 - LINES, 50)), "rest")


def test_long_lines_are_cut_and_what_is_no_text_is_shown_all_the_same(ends, quiet):
    stderr, writer = ends
    assert lines_of(stderr, writer, b"a" * 600 + b"\n\xff\xfe\n" + b"b" * 600) == ("a" * 500, r"\xff\xfe", "b" * 500)


def test_of_a_long_line_that_comes_in_pieces_the_beginning_is_kept(ends, quiet):
    stderr, writer = ends
    for piece in (b"it begins", b"x" * 600, b"y" * 600, b"and ends"):
        [line] = lines_of(stderr, writer, piece)
        assert line.startswith("it begins")
        assert len(line) <= 500
    assert lines_of(stderr, writer, b"\nnext")[0].startswith("it begins")


def test_a_crash_is_told_whole_with_all_its_frames(ends, quiet):
    """It has up to 100 frames, and 32 of C: more lines than are told of anything else."""
    stderr, writer = ends
    deep = [f'  File "/no/such/file.py", line {number} in f' for number in range(100)]
    c_frames = [f'  Binary file "/usr/bin/python3", at f{number}+0x7 [0x5ab3f7]' for number in range(32)]
    written = [*CRASH[:3], *deep, "", "Current thread's C stack trace (most recent call first):", *c_frames]
    told = lines_of(stderr, writer, "\n".join([*written, ""]).encode())
    assert told[: 3 + len(deep)] == (*CRASH[:3], *deep)
    assert TASK[0] not in told


def test_what_is_kept_has_an_end(ends, quiet):
    stderr, writer = ends
    for _ in range(20):
        lines_of(stderr, writer, b"line\n" * 500)
    assert len(stderr._lines) <= 200


def test_it_is_closed_once():
    before = open_descriptors()
    reader, writer = os.pipe()
    stderr = Stderr(reader)
    stderr.close()
    os.close(writer)
    assert open_descriptors() == before
    taken = os.open(os.devnull, os.O_RDONLY)  # which has the number that was free
    stderr.close()
    os.fstat(taken)
    os.close(taken)
    assert not stderr.read()
