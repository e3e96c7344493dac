"""The poller by itself: which events of a descriptor it serves."""

from __future__ import annotations

import gc
import select
import socket
import threading

import pytest

from pidfdpool.loop.poller import READ, WRITE, Poller
from tests.conditions import in_forked_child, open_descriptors


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


def test_what_is_forgotten_twice_or_was_never_watched_does_no_harm(poller, ends):
    watch = poller.watch(ends[0].fileno(), lambda _mask: None)
    poller.forget(watch)
    poller.forget(watch)
    poller.forget(None)
    poller.change(watch, READ | WRITE)
    assert poller.watch(ends[0].fileno(), lambda _mask: None).active, "the number may be another's by now"
    assert not watch.active


def test_who_serves_is_known_and_known_no_more_when_that_raises(poller, ends):
    seen = []

    def serve(_mask):
        seen.append(poller.is_served)
        poller.serve([])
        seen.append(poller.is_served)
        raise KeyboardInterrupt

    poller.watch(ends[0].fileno(), serve)
    ends[1].send(b"data")
    with pytest.raises(KeyboardInterrupt):
        poller.wait(20)
    assert seen == [True, True]
    assert not poller.is_served


def test_a_wake_up_ends_one_wait_the_present_one_or_the_next(poller):
    poller.wake()
    poller.wake()
    poller.wait(60)
    assert poller._epoll.poll(0) == [], "both were for the same wait"
    thread = threading.Timer(0.05, poller.wake)
    thread.start()
    poller.wait(60)
    thread.join()


def test_channels_that_are_lent_out_do_not_wake_the_pool_thread_and_those_that_are_given_back_do(poller, ends):
    served = []
    poller.watch(ends[0].fileno(), served.append, inner=True)
    ends[1].send(b"data")
    poller.lead()
    poller.wait(0)
    assert served == []
    [(fd, mask)] = poller.wait_for_answers(20)
    assert (fd, mask) == (ends[0].fileno(), READ)
    poller.serve([(fd, mask)])
    assert served == [READ]
    poller.follow()
    poller.wait(20)
    assert served == [READ, READ]


def test_everything_is_served_once_also_what_is_lent_out(poller, ends):
    served = []
    for index, end in enumerate(ends):
        poller.watch(end.fileno(), lambda _mask, index=index: served.append(index), inner=index == 0)
        end.send(b"data")
    poller.lead()
    poller.serve_all()
    assert sorted(served) == [0, 1]


def test_a_pool_thread_that_stands_back_leaves_the_channels_to_others(poller, ends):
    served = []
    poller.watch(ends[0].fileno(), served.append, inner=True)
    ends[1].send(b"data")
    poller.stands_back = lambda: True
    poller.wait(20)
    assert served == []


def test_a_wake_up_of_the_leaders_that_another_thread_drains_is_passed_on(poller):
    poller.leader[None] = threading.get_ident() + 1
    poller.wake_leader()
    [(fd, mask)] = poller.wait_for_answers(20)
    poller.serve([(fd, mask)])
    assert poller.wait_for_answers(0), "it is still there for the leader"
    poller.leader[None] = threading.get_ident()
    poller.serve([(fd, mask)])
    assert poller.wait_for_answers(0) == []


def test_in_a_forked_child_nobody_of_the_parents_is_woken(poller):
    assert in_forked_child(poller.wake) == "ok"
    assert in_forked_child(poller.wake_leader) == "ok"
    assert poller._epoll.poll(0.05) == []


def test_a_poller_that_is_closed_can_be_woken_and_leaves_nothing_open():
    before = open_descriptors()
    poller = Poller()
    assert len(open_descriptors()) == len(before) + 4
    assert in_forked_child(lambda: _close_copies(poller, before)) == "ok"
    poller.close()
    poller.wake()
    poller.close()
    assert open_descriptors() == before
    Poller()  # of a pool that never came to anything
    gc.collect()
    assert open_descriptors() == before


def _close_copies(poller, before):
    poller.close_in_forked_child()
    left = {fd: name for fd, name in open_descriptors().items() if before.get(fd) != name}
    assert len(left) <= 1, left  # the pipe by which this is told
    poller.wake()
