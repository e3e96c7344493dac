"""The standard error of a worker: passed on, and its last lines kept, in whatever pieces they come."""

from __future__ import annotations

import errno
import os

import pytest

from pidfdpool.loop import worker_stderr
from pidfdpool.loop.worker_stderr import LINES, Stderr


@pytest.fixture
def ends(monkeypatch):
    """Give the host's end, the worker's, and what was passed on."""
    passed = []
    monkeypatch.setattr(worker_stderr, "_pass_on", passed.append)
    reader, writer = os.pipe()
    stderr = Stderr(reader)
    yield stderr, writer, passed
    stderr.close()


def test_a_line_that_comes_in_pieces_is_one_line(ends):
    stderr, writer, passed = ends
    for piece in (b"one\ntw", b"o\n", b"", b"thr", b"ee"):
        os.write(writer, piece)
        assert stderr.read()
    assert stderr.last_lines() == ("one", "two", "three")
    os.write(writer, b"!\n")
    os.close(writer)
    assert not stderr.read(), "nothing more may come"
    assert stderr.last_lines() == ("one", "two", "three!")
    assert b"".join(passed) == b"one\ntwo\nthree!\n"


def test_what_is_kept_is_bounded_though_no_line_ends(ends):
    stderr, writer, passed = ends
    for _ in range(40):
        os.write(writer, b"x" * 4096)
        assert stderr.read()
    assert len(stderr._rest) == worker_stderr._LONGEST
    os.write(writer, b"\n" + b"y" * 5000 + b"\n" + b"line\n" * 50)
    os.close(writer)
    assert not stderr.read()
    assert stderr.last_lines() == ("line",) * LINES
    assert max(map(len, stderr._lines)) == worker_stderr._LONGEST
    assert sum(map(len, passed)) == 40 * 4096 + 1 + 5001 + 250


def test_a_worker_that_writes_without_end_holds_nobody_up(monkeypatch, ends):
    stderr, writer, _ = ends
    monkeypatch.setattr(worker_stderr.os, "read", lambda _fd, size: b"y\n" * (size // 2))
    assert stderr.read()
    monkeypatch.undo()
    os.close(writer)


def test_what_cannot_be_read_any_more_is_watched_no_longer(monkeypatch, ends):
    def fail(_fd, _size):
        raise OSError(errno.EIO, "no")

    stderr, writer, _ = ends
    with monkeypatch.context() as failing:
        failing.setattr(worker_stderr.os, "read", fail)
        assert not stderr.read()
    os.close(writer)


def test_what_the_hosts_own_standard_error_does_not_take_at_once_is_not_passed_on():
    from tests.conditions import in_forked_child

    def child():
        _, writer = os.pipe()
        os.dup2(writer, 2)
        os.set_blocking(2, True)
        for _ in range(100):  # more than a pipe holds
            worker_stderr._pass_on(b"x" * 4096)
        os.close(2)
        worker_stderr._pass_on(b"x")

    assert in_forked_child(child) == "ok"
