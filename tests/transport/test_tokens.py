"""Tokens: each is taken only once, by the process that comes first."""

from __future__ import annotations

import os
import resource
from contextlib import suppress

import pytest

from pidfdpool.transport import tokens


@pytest.fixture
def pair():
    made = tokens.pair()
    yield made
    for fd in made:
        os.close(fd)


def test_both_ends_name_the_same_tokens(pair):
    ours, theirs = pair
    assert not any(os.get_inheritable(fd) for fd in pair)
    assert min(pair) > 2
    tokens.put(ours, 2)
    assert tokens.take(theirs)
    assert tokens.take(ours)
    assert not tokens.take(theirs), "and it does not wait"
    assert not tokens.take(ours)


@pytest.mark.parametrize(("there", "wanted", "taken"), [(5, 3, 3), (3, 5, 3), (0, 1, 0), (2, 0, 0)])
def test_no_more_are_taken_than_there_are(pair, there, wanted, taken):
    ours, theirs = pair
    if there:
        tokens.put(ours, there)
    assert tokens.take_many(ours, wanted) == taken
    assert tokens.take_many(theirs, 100) == there - taken


def test_two_processes_never_take_the_same_token(pair):
    ours, theirs = pair
    count = 20_000
    tokens.put(ours, count)
    told, tells = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(tells, str(tokens.take_many(theirs, count)).encode())
        os._exit(0)
    mine = tokens.take_many(ours, count)
    os.waitpid(pid, 0)
    other = int(os.read(told, 100))
    os.close(told)
    os.close(tells)
    assert mine + other == count


def test_nothing_stays_open_when_there_is_no_descriptor_left():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    taken = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        os.close(taken.pop())  # room for one
        with pytest.raises(OSError, match="Too many open files"):
            tokens.pair()
        taken.append(os.dup(0))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)
