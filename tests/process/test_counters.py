"""Counters: eventfd(2), and what comes near to it where that is refused."""

from __future__ import annotations

import errno
import os
import select

import pytest

from pidfdpool.process import counters, native


@pytest.fixture(params=["eventfd", "pipe"])
def make(request, monkeypatch):
    """Make counters of either kind."""
    if request.param == "pipe":
        monkeypatch.setattr(counters, "_pipes", False)  # set back afterwards
        monkeypatch.setattr(os, "eventfd", refuse)
    made = []

    def make(**options):
        made.append(counters.make(**options))
        return made[-1]

    yield make
    for fd in made:
        native.close(fd)


def refuse(*_):
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def is_readable(fd):
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))


def test_a_semaphore_gives_one_at_a_time(make):
    fd = make(semaphore=True)
    assert fd > 2
    assert not os.get_inheritable(fd)
    assert not counters.take(fd)
    counters.add(fd, 3)
    counters.add(fd)
    other = native.duplicate(fd)
    assert [counters.take(end) for end in (fd, other, fd, other, fd)] == [True, True, True, True, False]
    native.close(other)


def test_a_counter_is_readable_until_it_is_cleared(make):
    fd = make()
    assert not is_readable(fd)
    counters.add(fd)
    counters.add(fd)
    assert is_readable(fd)
    counters.clear(fd)
    assert not is_readable(fd)
    counters.clear(fd)


def test_nobody_waits_for_room_in_a_counter(make):
    fd = make()
    for _ in range(20_000):  # more than a pipe takes
        counters.add(fd)
    assert is_readable(fd)
    counters.clear(fd)
    assert not is_readable(fd)


def test_nothing_is_added_to_a_counter_that_somebody_has_filled():
    """Guards: a task filled its worker's tokens, and the host took the error for the worker's end."""
    fd = counters.make(semaphore=True)
    os.eventfd_write(fd, 2**64 - 2)
    counters.add(fd, 7)
    assert is_readable(fd)
    os.close(fd)


def test_without_the_other_way_the_error_names_the_call(monkeypatch):
    monkeypatch.setattr(os, "eventfd", refuse)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="eventfd2: "):
        counters.make()


def test_a_lack_of_descriptors_is_no_refusal(monkeypatch):
    def fail(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "eventfd", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        counters.make()
