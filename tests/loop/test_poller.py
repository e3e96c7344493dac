"""The poller by itself: which events of a descriptor it serves."""

from __future__ import annotations

import select
import socket

import pytest

from pidfdpool.loop.poller import READ, WRITE, Poller


@pytest.fixture
def poller():
    poller = Poller()
    yield poller
    poller.close()


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("inner", [False, True])
def test_a_socket_that_takes_everything_again_is_not_served_for_that_any_more(poller, ends, inner):
    """Otherwise the pool thread would never sleep again."""
    masks = []
    watch = poller.watch(ends[0].fileno(), masks.append, inner=inner)
    poller.change(watch, READ | WRITE)
    poller.wait(0)
    assert masks == [WRITE]
    poller.change(watch, READ)
    poller.wait(0)
    assert masks == [WRITE]
    ends[1].send(b"data")
    poller.wait(0)
    assert masks == [WRITE, select.EPOLLIN]


def test_what_was_forgotten_in_the_same_batch_is_not_served(poller, ends):
    served = []
    watches = [poller.watch(end.fileno(), lambda mask, end=end: (served.append(end), forget())) for end in ends]

    def forget():
        for watch in watches:
            poller.forget(watch)

    for end in ends:
        end.send(b"data")
    poller.wait(0)
    assert len(served) == 1
    poller.wait(0)
    assert len(served) == 1
