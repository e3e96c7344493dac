"""How an event loop stops to read for a pool: whatever has ended before, and whichever thread it is."""

from __future__ import annotations

import signal
import threading

import pytest

from pidfdpool.loop import loop_reader
from pidfdpool.loop.loop_reader import LoopReader
from tests.loop.test_loop_reader_parts import Loop, Poller, hub_is_ready


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def reader(loop):
    reader = LoopReader(loop)
    yield reader
    reader._close()


@pytest.fixture
def poller():
    made = Poller()
    yield made
    made.close()


def test_another_thread_is_not_the_one_that_reads(loop, reader, poller):
    seen = []

    def read_in_loop(reader):
        thread = threading.Thread(target=lambda: seen.append(reader.reads_here))
        thread.start()
        thread.join()
        seen.append(reader.reads_here)
        return True

    poller.read_in_loop = read_in_loop
    reader.watch(poller)
    reader._read_all()
    assert seen == [False, True]
    assert not reader.reads_here


def test_a_pool_that_ends_while_the_loop_reads_is_no_trouble(loop, reader, poller):
    """Its descriptor is closed by then, and another pool's reading goes on."""
    other = Poller()
    try:
        for each in (poller, other):
            reader.watch(each)
        inner = poller.inner_fd
        poller.read_in_loop = lambda _reader: poller.epoll.close()
        reader._read_all()
        assert other.reads == [True]
        reader._read_all()
        assert other.reads == [True, True]
        assert inner not in reader._pollers
    finally:
        other.close()


def test_a_hub_that_is_closed_while_the_loop_reads_is_no_trouble(loop, reader, poller):
    poller.read_in_loop = lambda reader: reader._hub.close()
    reader.watch(poller)
    reader._read_all()
    assert reader.closed


def test_pools_may_come_and_go_while_the_loop_reads(loop, reader, poller):
    other = Poller()
    try:
        poller.read_in_loop = lambda reader: reader.detach(other) or True
        reader.watch(poller)
        reader.watch(other)
        reader._read_all()
        assert list(reader._pollers.values()) == [poller]
    finally:
        other.close()


def test_a_pool_that_ends_is_watched_no_more_from_then_on(loop, reader, poller):
    reader.watch(poller)
    assert hub_is_ready(loop)
    reader.detach(poller)
    assert not hub_is_ready(loop)
    reader._read_all()
    assert poller.reads == []


def test_the_end_of_a_pool_that_it_does_not_watch_any_more_closes_a_hub_that_no_other_needs(loop, reader, poller):
    poller.goes_on = False
    reader.watch(poller)
    reader._read_all()
    reader.detach(poller)
    assert [callback() for callback in loop.soon] == [None]
    assert reader.closed


def test_a_hub_is_not_closed_twice_and_the_loop_not_told_twice(loop, reader):
    reader._release()
    assert (reader.closed, loop.watched) == (True, {})
    reader._release()
    loop_reader.release_here()


@pytest.mark.parametrize("end", ["closed", "gone"])
def test_a_hub_whose_loop_has_ended_is_closed_when_it_is_released(reader, loop, end):
    loop.closed = end == "closed"
    if end == "gone":
        reader._loop = lambda: None
    reader._release()
    assert reader.closed


def test_a_hub_of_a_loop_that_goes_on_is_not_closed_with_those_of_others(loop, reader):
    loop_reader.close_after_loops()
    assert not reader.closed
    assert reader._hub.fileno() in loop.watched


def test_a_closed_hub_keeps_no_pool_alive(loop, reader, poller):
    reader.watch(poller)
    reader._close()
    assert reader._pollers == {}


class Lock:
    """Notes which signals were blocked when it was taken, and whether it is held."""

    def __init__(self):
        self.held, self.blocked = False, []

    def __enter__(self):
        self.blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        self.held = True

    def __exit__(self, *_):
        self.held = False


def test_no_signal_handler_interrupts_whoever_holds_the_lock_while_the_hub_is_closed(loop, reader):
    """A handler may submit or shut down, and wait for the pool thread, which waits for that lock."""
    reader._lock = lock = Lock()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    reader._close()
    assert {signal.SIGINT, signal.SIGALRM} <= lock.blocked[0]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_the_pool_thread_changes_a_hub_while_nobody_closes_it(loop, reader, poller):
    reader._lock = lock = Lock()
    hub, held = reader._hub, []

    class Hub:
        closed = False

        def __getattr__(self, name):
            held.append((name, lock.held))
            return getattr(hub, name)

    reader._hub = Hub()
    reader.watch(poller)
    reader.detach(poller)
    reader._hub.close()
    reader._hub = hub
    reader._close()
    assert held == [("register", True), ("unregister", True), ("close", False)]
    assert len(lock.blocked) == 3


def test_before_it_ever_reads_nobody_is_in_the_middle_of_that(loop, reader):
    assert not reader.reads_here


def test_a_hub_is_known_to_be_the_calling_threads_own(loop, reader):
    assert reader.thread == threading.get_ident()
    reader.thread = 0
    reader.release_here()
    assert not reader.closed
    reader.thread = threading.get_ident()
    reader.release_here()
    assert reader.closed
