"""Where a black box is made: a memory file, or a file without a name where memory files are refused."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from pidfdpool.transport import black_box


def refusing(number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.fixture
def opened(monkeypatch):
    """Refuse memory files; give the list of the directories that were tried, and a table of those that refuse."""
    tried: list[str] = []
    real, memory_file, answers = os.open, os.memfd_create, {}

    def open_there(path, flags, *rest):
        if path not in ("/dev/shm", "/tmp", "/var/tmp"):
            return real(path, flags, *rest)
        assert flags == os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
        assert rest == (0o600,), "a stack is nobody else's business"
        tried.append(path)
        if path in answers:
            raise OSError(answers[path], os.strerror(answers[path]))
        return memory_file("a file without a name")

    monkeypatch.setattr(os, "memfd_create", refusing(errno.ENOSYS))
    monkeypatch.setattr(os, "open", open_there)
    return tried, answers


def test_the_next_directory_is_tried_where_one_is_not_there_or_is_full_or_cannot_do_it(opened):
    tried, answers = opened
    answers.update({"/dev/shm": errno.ENOENT, "/tmp": errno.EOPNOTSUPP})
    os.close(black_box.create())
    assert tried == ["/dev/shm", "/tmp", "/var/tmp"]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_where_no_descriptor_is_left_no_other_directory_is_tried(opened, number):
    """None would help, and the error has to name what is lacking."""
    tried, answers = opened
    answers["/dev/shm"] = number
    with pytest.raises(OSError, match=os.strerror(number)):
        black_box.create()
    assert tried == ["/dev/shm"]


def test_if_there_is_no_place_the_last_refusal_is_the_error(opened):
    tried, answers = opened
    answers.update({"/dev/shm": errno.ENOENT, "/tmp": errno.EROFS, "/var/tmp": errno.EACCES})
    with pytest.raises(PermissionError):
        black_box.create()
    assert len(tried) == 3


def test_a_box_without_room_is_a_box_all_the_same():
    """The limit of file sizes stands for a full disk. Then only its maker sees the first bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        fd = black_box.create()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    try:
        assert os.fstat(fd).st_size == 0
        black_box.map_words(fd)[black_box.LAST_BEGUN] = 7
        assert black_box.last_begun(fd) is None
        assert black_box.read_stack(fd) is None
    finally:
        os.close(fd)
