"""What the poller registers, serves and closes: each descriptor once, by its registration and not by its number."""

from __future__ import annotations

import gc
import os
import select
import socket
import threading
from types import SimpleNamespace

import pytest

from pidfdpool.loop import poller as pollers
from pidfdpool.loop.poller import READ, WRITE, Poller, new_epoll
from pidfdpool.process import counters, native
from tests.conditions import in_forked_child, open_descriptors


@pytest.fixture
def pipes():
    """Give what makes pipes: their read ends, with something in them."""
    made = []

    def make():
        reader, writer = os.pipe()
        made.extend((reader, writer))
        os.write(writer, b"data")
        return reader

    yield make
    for fd in made:
        os.close(fd)


class Epoll:
    """Stands for an epoll that finds nothing; `waits` has how long it was to wait."""

    def __init__(self):
        self.waits = []

    def poll(self, timeout, _most=-1):
        self.waits.append(timeout)
        return []


# ---- waits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "waited"), [(None, None), (0, 0), (0.5, 0.5), (native.LONGEST_WAIT, native.LONGEST_WAIT),
                          (native.LONGEST_WAIT + 1, native.LONGEST_WAIT), (float("inf"), native.LONGEST_WAIT)]
)  # fmt: skip
def test_a_wait_is_as_long_as_was_asked_for_unless_the_kernel_cannot_count_that(poller, asked, waited):
    own, inner = poller._epoll, poller._inner
    served = []
    poller.serve = served.append
    poller._epoll, poller._inner = first, second = Epoll(), Epoll()
    poller.wait(asked)
    assert poller.wait_for_answers(asked) == []
    poller._epoll, poller._inner = own, inner
    assert (first.waits, second.waits) == ([waited], [waited])
    assert served == [], "nobody serves where nothing has come"


def test_among_greenlets_the_wait_is_one_that_lets_the_others_run(poller, pipes, monkeypatch):
    waits, served = [], []
    monkeypatch.setattr(native, "wait_readable", lambda epoll, timeout: waits.append((epoll, timeout)))
    poller.watch(pipes(), served.append)
    poller.among_greenlets = True
    poller.wait(60)
    assert waits == [(poller._epoll, 60)]
    assert served == [READ]
    own, poller._epoll = poller._epoll, Epoll()
    poller.wait(60)
    assert poller._epoll.waits == [0], "that one lets nobody run"
    poller._epoll = own
    waits.clear()
    poller.among_greenlets = False
    poller.wait(60)
    assert waits == []


def test_what_has_been_read_meanwhile_is_not_waited_for(poller):
    """The leader may have read what the pool thread was woken for, which has other things to do."""
    own, inner = poller._epoll, poller._inner
    poller._epoll, poller._inner = first, second = Epoll(), Epoll()
    poller.serve([(poller.inner_fd, READ)])
    assert second.waits == [0]
    poller.serve_all()
    assert (first.waits, second.waits) == ([0], [0, 0])
    poller._epoll, poller._inner = own, inner


# ---- what is served ----------------------------------------------------------------------------------------------


def test_all_that_is_ready_is_served_in_one_turn_however_much_it_is(poller, pipes):
    served = []
    for number in range(40):
        poller.watch(pipes(), lambda _mask, number=number: served.append(number), inner=number % 2 == 0)
    poller.lead()
    poller.serve_all()
    assert sorted(served) == list(range(40))
    poller.follow()


def test_a_number_that_is_anothers_by_now_is_not_served_by_what_was_ready_before(poller, pipes):
    """A batch has both; the first closes the second, and a new one gets its number."""
    served, first, second = [], pipes(), pipes()

    def replace(_mask):
        served.append("first")
        if len(served) == 1:
            poller.forget(watches[second])
            poller.watch(second, lambda _mask: served.append("new"))

    watches = {first: poller.watch(first, replace), second: poller.watch(second, lambda _mask: served.append("old"))}
    poller.serve([(first, READ), (second, READ)])
    assert served == ["first"]
    poller.wait(20)
    assert sorted(served[1:]) == ["first", "new"]


def test_a_number_that_nobody_watches_is_passed_over(poller, pipes):
    served, fd = [], pipes()
    poller.watch(fd, served.append)
    poller.serve([(pipes(), READ), (fd, READ)])
    assert served == [READ]


def test_only_one_thread_serves_at_a_time(poller, pipes):
    seen, fd = [], pipes()
    poller.watch(fd, lambda _mask: seen.append((poller.serving._is_owned(), poller.is_served)))
    poller.serve([(fd, READ)])
    poller.serve_all()
    assert set(seen) == {(True, True)}
    assert not poller.serving._is_owned()
    assert not poller.is_served
    order, go = [], threading.Event()
    with poller.serving:
        thread = threading.Thread(target=lambda: (go.set(), poller.serve([]), order.append("served")))
        thread.start()
        assert go.wait(20)
        order.append("held")
    thread.join(20)
    assert order == ["held", "served"]


def test_one_that_is_served_while_something_is_served_is_still_being_served_afterwards(poller, pipes):
    inner, outer, seen = pipes(), pipes(), []
    poller.watch(inner, lambda _mask: seen.append(poller.is_served))
    poller.watch(outer, lambda _mask: (poller.serve([(inner, READ)]), seen.append(poller.is_served)))
    poller.serve([(outer, READ)])
    assert seen == [True, True]
    assert not poller.is_served


def test_channels_are_served_by_the_pool_thread_unless_it_stands_back(poller, pipes):
    served, fd = [], pipes()
    poller.watch(fd, served.append, inner=True)
    assert not poller.stands_back()
    poller.wait(20)
    assert served == [READ]


# ---- registrations -----------------------------------------------------------------------------------------------


def test_a_watch_knows_what_was_asked_for(poller, pipes):
    fd, callback = pipes(), lambda _mask: None
    for inner, epoll in ((False, poller._epoll), (True, poller._inner)):
        watch = poller.watch(fd, callback, READ | WRITE, inner=inner)
        assert (watch.fd, watch.callback, watch.events, watch.epoll, watch.active) == (
            fd, callback, READ | WRITE, epoll, True
        )  # fmt: skip
        poller.forget(watch)
        assert not watch.active
        assert fd not in poller._watches
    assert not poller.guarded
    assert poller.reader is None
    assert (poller.leader, poller.reads, poller.among_greenlets) == ({}, 0, False)


def test_what_cannot_be_registered_is_not_watched(poller):
    with pytest.raises(OSError):  # noqa: PT011  a number that nobody has
        poller.watch(1 << 20, lambda _mask: None)
    assert 1 << 20 not in poller._watches


def test_nothing_is_asked_of_the_kernel_where_nothing_changes(poller):
    calls = []
    epoll = SimpleNamespace(modify=lambda *given: calls.append(given))
    watch = pollers.Watch(epoll, 7, lambda _mask: None, READ)
    poller.change(watch, READ)
    assert calls == []
    poller.change(watch, READ | WRITE)
    poller.change(watch, READ | WRITE)
    assert calls == [(7, READ | WRITE)]
    watch.active = False
    poller.change(watch, READ)
    assert (calls, watch.events) == ([(7, READ | WRITE)], READ | WRITE)


def test_a_change_of_what_another_thread_has_forgotten_meanwhile_does_no_harm(poller, pipes):
    watch = poller.watch(pipes(), lambda _mask: None)
    watch.epoll.unregister(watch.fd)
    poller.change(watch, WRITE)
    watch.epoll.register(watch.fd)


# ---- wake-ups ----------------------------------------------------------------------------------------------------


def test_each_wake_up_is_for_the_one_whom_it_is_for(poller):
    poller.wake()
    assert poller.wait_for_answers(0) == []
    assert [fd for fd, _ in poller._epoll.poll(0)] == [poller._wake_fd]
    poller.wait(20)
    assert poller._epoll.poll(0) == []
    poller.wake_leader()
    [(fd, mask)] = poller.wait_for_answers(0)
    assert (fd, mask) == (poller._led_fd, READ)
    assert [fd for fd, _ in poller._epoll.poll(0)] == [poller.inner_fd]
    poller.serve([(fd, mask)])
    assert poller.wait_for_answers(0) == [], "nobody leads, so it is for nobody else"


def test_the_collector_may_wake_a_thread_that_is_about_to_wake_it(poller):
    """A weak reference's callback runs between any two steps, in the middle of another wake-up, too."""
    with poller._wake_lock:
        assert poller._wake_lock.acquire(blocking=False)
        poller._wake_lock.release()
        poller.wake()
    assert poller._epoll.poll(0)


def test_at_the_interpreters_end_a_wake_up_is_nobodys_and_no_error(poller, monkeypatch):
    monkeypatch.setattr(pollers, "_getpid", None)
    poller.wake()
    poller.wake_leader()
    assert poller._epoll.poll(0) == []


@pytest.mark.parametrize("ring", ["wake", "wake_leader"])
def test_a_wake_up_of_a_poller_that_is_closed_does_not_go_into_another_file(ring):
    poller = Poller()
    numbers = {poller._wake_fd, poller._led_fd}
    poller.close()
    others = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(8)]
    getattr(poller, ring)()
    ready = select.select(others, [], [], 0)[0]
    assert numbers <= set(others), "the numbers are used again"
    for fd in others:
        os.close(fd)
    assert ready == []


# ---- what is open ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made_before", [0, 1])
def test_where_no_descriptor_is_left_for_a_poller_nothing_stays_open(made_before, monkeypatch):
    gc.collect()
    before, make, made = open_descriptors(), counters.make, []

    def refuse(**options):
        if len(made) == made_before:
            raise OSError("none left")
        made.append(make(**options))
        return made[-1]

    monkeypatch.setattr(counters, "make", refuse)
    with pytest.raises(OSError, match="none left"):
        Poller()
    gc.collect()
    assert open_descriptors() == before


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_where_the_host_has_closed_a_standard_stream_no_epoll_becomes_one(closed):
    kept = native.duplicate(closed)
    os.close(closed)
    try:
        made = new_epoll()
    finally:
        os.dup2(kept, closed)
        os.close(kept)
    assert made.fileno() > 2
    assert not os.get_inheritable(made.fileno())
    with made:
        assert made.poll(0) == []


def test_two_pollers_are_closed_each_for_itself():
    first, second = Poller(), Poller()
    before = open_descriptors()
    numbers = {first._wake_fd, first._led_fd, first.inner_fd, first._epoll.fileno()}
    first.close()
    assert set(before) - set(open_descriptors()) == numbers
    first.close()
    second.wake()
    second.wait(20)
    second.close()


def test_in_a_forked_child_the_copies_are_closed_with_those_of_the_event_loops_that_read(poller, pipes):
    closed = []

    class Reader:
        def close_in_forked_child(self):
            closed.append(self)

    readers = [Reader(), Reader()]
    poller.readers.update(readers)
    fd, served = pipes(), []
    poller.watch(fd, served.append)

    def close():
        poller.close_in_forked_child()
        assert set(map(id, closed)) == set(map(id, readers))
        assert poller._epoll.closed
        poller.wake()

    assert in_forked_child(close) == "ok"
    poller.wait(20)
    assert served == [READ], "the parent's goes on"


@pytest.mark.parametrize("inner", [False, True])
def test_a_descriptor_is_watched_in_the_epoll_of_who_is_to_serve_it(poller, inner):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        served = []
        watch = poller.watch(ours.fileno(), served.append, inner=inner)
        theirs.send(b"x")
        assert bool(poller.wait_for_answers(0)) is inner
        poller.lead()
        poller.wait(0)
        assert served == ([] if inner else [READ])
        poller.follow()
        poller.forget(watch)
