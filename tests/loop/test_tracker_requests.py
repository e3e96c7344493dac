"""What the host answers to who asks for its resource tracker, and what it does if it has none."""

from __future__ import annotations

import os
import sys
import threading
from multiprocessing import resource_tracker
from types import SimpleNamespace

import pytest

from pidfdpool.loop import tracker_requests
from pidfdpool.transport.descriptor_requests import Inbox, Requester
from pidfdpool.worker import shared_tracker
from tests.conditions import eventually, held_by_another_thread, open_descriptors


@pytest.fixture
def tracker(monkeypatch):
    """Give a host that has no tracker, and takes what it then has away again."""
    tracker = SimpleNamespace(_fd=None, _pid=None, _lock=threading.RLock())
    monkeypatch.setattr(resource_tracker, "_resource_tracker", tracker)
    yield tracker
    if tracker._fd is not None:
        os.close(tracker._fd)


@pytest.fixture
def asked(tracker):
    """Return a function that asks, and returns what came of it; `started` are the pipes of the trackers to start."""
    before = open_descriptors()
    inbox, started = Inbox(), []
    requester = Requester(fd := inbox.open())

    def ask():
        got = []
        asking = threading.Thread(target=lambda: got.append(requester.request()))
        asking.start()
        tracker_requests.answer(inbox, started.append)
        while asking.is_alive():  # the request had not come yet
            tracker_requests.answer(inbox, started.append)
        if got[0] is None:
            return None
        number = os.fstat(got[0]).st_ino
        os.close(got[0])
        return number

    ask.started, ask.inbox, ask.fd = started, inbox, fd
    yield ask
    for each in (*started, fd):
        os.close(each)
    inbox.close()
    if tracker._fd is not None:
        os.close(tracker._fd)
        tracker._fd = None
    assert open_descriptors() == before


def pipe(fd):
    return os.fstat(fd).st_ino


def test_the_tracker_of_the_host_is_answered(tracker, asked):
    reader, tracker._fd = os.pipe()
    assert asked() == asked() == pipe(reader)
    assert asked.started == []
    os.close(reader)


def test_a_host_without_one_gets_one_that_reads_what_is_written_from_then_on(tracker, asked):
    first = asked()
    [reader] = asked.started
    assert first == pipe(reader) == pipe(tracker._fd)
    assert tracker._pid is None, "it is no child of this process"
    assert asked() == first
    assert asked.started == [reader]


def test_it_is_not_started_while_the_lock_of_multiprocessing_is_held(tracker, asked):
    def start(reader):
        asked.started.append(reader)
        assert not tracker._lock._is_owned(), "the pool's lock is taken for it, and others take the two in that order"

    requests = threading.Thread(target=lambda: os.close(Requester(asked.fd).request()))
    requests.start()
    eventually(lambda: tracker_requests.answer(asked.inbox, start) or asked.started, "it was asked for")
    requests.join()


def test_one_that_is_gone_is_replaced_if_it_is_no_child_of_the_hosts(tracker, asked):
    first = asked()
    os.close(asked.started.pop())
    second = asked()
    assert second == pipe(tracker._fd) != first
    assert len(asked.started) == 1


def test_a_child_of_the_hosts_that_is_gone_is_left_to_multiprocessing(tracker, asked):
    reader, tracker._fd = os.pipe()
    tracker._pid, before = os.getpid(), tracker._fd
    os.close(reader)
    assert asked() == pipe(before)
    assert (tracker._fd, asked.started) == (before, [])


def test_a_host_that_is_itself_a_worker_asks_its_own_host_first(tracker, asked, monkeypatch):
    reader, writer = os.pipe()
    asking = SimpleNamespace(request=lambda: writer)
    monkeypatch.setattr(shared_tracker.asking, "requester", asking)
    assert asked() == pipe(reader)
    assert (tracker._fd, asked.started) == (writer, [])
    os.close(reader)


def test_nobody_waits_for_long_for_a_thread_that_holds_the_lock(tracker, asked, monkeypatch):
    monkeypatch.setattr(tracker_requests, "_LOCK_TIMEOUT", 0.01)
    with held_by_another_thread(tracker._lock):
        assert asked() is None
    assert (tracker._fd, asked.started) == (None, [])


def test_a_host_that_can_load_nothing_any_more_has_no_answer(asked, monkeypatch):
    import multiprocessing

    monkeypatch.delattr(multiprocessing, "resource_tracker")
    monkeypatch.setitem(sys.modules, "multiprocessing.resource_tracker", None)
    assert asked() is None


@pytest.mark.parametrize("name", ["sentinel_pipe", "duplicate"])
def test_without_a_descriptor_there_is_no_answer_and_what_was_begun_is_finished(tracker, asked, monkeypatch, name):
    def refuse(*_):
        raise OSError(24, "no more")

    place = tracker_requests if name == "sentinel_pipe" else tracker_requests.native
    with monkeypatch.context() as patch:
        patch.setattr(place, name, refuse)
        assert asked() is None
    assert len(asked.started) == (name == "duplicate")
    assert (tracker._fd is None) is (name == "sentinel_pipe")
