"""What an event loop watches for its pools, and when it lets go of that: with a loop and pollers of the test's."""

from __future__ import annotations

import os
import select
import threading
from types import SimpleNamespace
from weakref import WeakSet

import pytest

from pidfdpool.loop import loop_reader
from pidfdpool.loop.loop_reader import LoopReader
from tests.conditions import in_forked_child, open_descriptors


class Loop:
    """An event loop: what it watches, and what it is to call soon."""

    closed, refuses = False, None

    def __init__(self):
        self.watched, self.soon = {}, []

    def add_reader(self, fd, callback):
        if self.refuses is not None:
            raise self.refuses
        self.watched[fd] = callback

    def remove_reader(self, fd):
        if self.closed:
            raise RuntimeError("Event loop is closed")
        del self.watched[fd]

    def call_soon_threadsafe(self, callback):
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.soon.append(callback)

    def is_closed(self):
        return self.closed


class Poller:
    """Of a pool: `inner_fd` is ready. `goes_on`: whether the loop may read."""

    def __init__(self):
        self.epoll = select.epoll()
        self.ends = os.pipe()
        os.write(self.ends[1], b"x")
        self.epoll.register(self.ends[0], select.EPOLLIN)
        self.inner_fd, self.readers, self.reader, self.goes_on, self.reads = (
            self.epoll.fileno(),
            WeakSet(),
            None,
            True,
            [],
        )

    def read_in_loop(self, reader):
        self.reads.append(reader.reads_here)
        if not self.goes_on:
            self.reader = None
        return self.goes_on

    def close(self):
        self.epoll.close()
        for fd in self.ends:
            os.close(fd)


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def reader(loop):
    reader = LoopReader(loop)
    yield reader
    reader._close()


@pytest.fixture
def pollers():
    made = [Poller(), Poller()]
    yield made
    for each in made:
        each.close()


def hub_is_ready(loop):
    (fd,) = loop.watched
    return bool(select.select([fd], [], [], 0)[0])


def test_a_loop_reads_all_pools_that_it_watches_and_only_while_it_reads_is_that_so(loop, reader, pollers):
    for poller in pollers:
        poller.reader = reader
        assert reader.watch(poller)
        assert reader.watch(poller), "twice is once"
        assert list(poller.readers) == [reader], "which is told of the pool's end"
    assert hub_is_ready(loop)
    reader._read_all()
    assert [poller.reads for poller in pollers] == [[True], [True]]
    assert not reader.reads_here


def test_a_pool_that_is_not_to_be_read_is_watched_no_more_and_can_be_again(loop, reader, pollers):
    poller = pollers[0]
    poller.reader, poller.goes_on = reader, False
    reader.watch(poller)
    reader._read_all()
    assert not hub_is_ready(loop)
    reader._read_all()
    assert len(poller.reads) == 1
    assert reader.watch(poller)
    assert hub_is_ready(loop)


def test_one_that_is_watched_again_at_that_moment_stays_watched(loop, reader, pollers):
    poller = pollers[0]
    reader.watch(poller)
    poller.read_in_loop = lambda _reader: setattr(poller, "reader", reader)  # by the pool thread; None: not to go on
    reader._read_all()
    assert hub_is_ready(loop)


def test_what_is_raised_while_it_reads_ends_the_reading(loop, reader, pollers):
    def fail(_reader):
        raise KeyboardInterrupt

    pollers[0].read_in_loop = fail
    reader.watch(pollers[0])
    with pytest.raises(KeyboardInterrupt):
        reader._read_all()
    assert not reader.reads_here


def test_the_hub_is_closed_in_the_loops_thread_at_the_end_of_the_last_pool(loop, reader, pollers):
    for poller in pollers:
        reader.watch(poller)
    reader.detach(pollers[0])
    for callback in loop.soon:
        callback()
    assert not reader.closed, "another pool needs it"
    assert hub_is_ready(loop)
    reader.detach(pollers[1])
    assert not reader.closed, "the loop is still to be told"
    for callback in loop.soon:
        callback()
    assert reader.closed
    assert loop.watched == {}
    assert not reader.watch(pollers[0])
    reader.detach(pollers[0])


def test_the_hub_of_a_loop_that_is_closed_or_gone_is_closed_at_once(pollers):
    before = open_descriptors()
    for end in ("closed", "gone"):
        loop = Loop()
        reader = LoopReader(loop)
        reader.watch(pollers[0])
        if end == "closed":
            loop.closed = True
        else:
            del loop
        reader.detach(pollers[0])
        assert reader.closed
        assert open_descriptors() == before


def test_hubs_of_loops_that_were_closed_are_closed_when_another_is_made(loop, reader):
    loop.closed = True
    other = LoopReader(Loop())
    assert reader.closed
    other._loop = lambda: None
    loop_reader.close_after_loops()
    assert other.closed


def test_a_loop_that_cannot_watch_descriptors_leaves_none_open(loop):
    before = open_descriptors()
    loop.refuses = NotImplementedError()
    with pytest.raises(NotImplementedError):
        LoopReader(loop)
    assert open_descriptors() == before


def test_only_the_loops_own_thread_closes_a_hub_that_no_pool_needs(loop, reader, pollers):
    thread = threading.Thread(target=loop_reader.release_here)
    thread.start()
    thread.join()
    assert not reader.closed
    reader.watch(pollers[0])
    loop_reader.release_here()
    assert not reader.closed, "a pool needs it"
    reader._pollers.clear()
    loop_reader.release_here()
    assert reader.closed
    assert loop.watched == {}


def test_where_the_kernel_allows_no_more_watches_the_loop_does_not_read(reader, pollers):
    poller = SimpleNamespace(inner_fd=os.open(os.devnull, os.O_RDONLY), readers=WeakSet())
    assert not reader.watch(poller), "a file like this cannot be watched"
    assert list(poller.readers) == []
    os.close(poller.inner_fd)


def test_in_a_forked_child_a_copy_watches_nothing_and_the_parents_goes_on(loop, reader, pollers):
    reader.watch(pollers[0])

    def child():
        assert not reader.watch(pollers[1])
        reader._release()
        assert not reader.closed
        reader.close_in_forked_child()
        assert reader.closed

    assert in_forked_child(child) == "ok"
    assert hub_is_ready(loop)
