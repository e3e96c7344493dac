"""How multiprocessing's tracker object comes to ask: now or when it is loaded, once, in each form that it has."""

from __future__ import annotations

import os
import sys
import threading
from types import SimpleNamespace

import pytest

from pidfdpool.worker import shared_tracker
from tests.conditions import in_forked_child


class Older:
    """The tracker object as it was up to Python 3.13: `starts` counts the trackers that it has started itself."""

    def __init__(self):
        self._lock, self._fd, self.starts, self.sent = threading.RLock(), None, 0, []

    def ensure_running(self):
        if self._fd is None:
            self._fd, self.starts = -5, self.starts + 1

    def getfd(self):
        self.ensure_running()
        return self._fd

    def register(self, name):
        self.ensure_running()
        self.sent.append((self._fd, name))


class Newer(Older):
    """As it is since Python 3.14."""

    def ensure_running(self):
        self._ensure_running_and_write()

    def _ensure_running_and_write(self, message=None):
        super().ensure_running()
        if message is not None:
            self.sent.append((self._fd, message))

    def register(self, name):
        self._ensure_running_and_write(name)


@pytest.fixture(params=[Older, Newer])
def tracker(request):
    return request.param()


@pytest.fixture
def module(tracker, monkeypatch):
    """Give a loaded module of multiprocessing's that has this tracker."""
    functions = {name: getattr(tracker, name) for name in ("ensure_running", "getfd", "register")}
    module = SimpleNamespace(_resource_tracker=tracker, **functions)
    monkeypatch.setitem(sys.modules, "multiprocessing.resource_tracker", module)
    monkeypatch.setattr(shared_tracker.asking, "requester", None)
    return module


def answering(monkeypatch, *answers):
    """Have requests answered; return a list of those that are not yet given."""
    left = list(answers)
    monkeypatch.setattr(shared_tracker, "Requester", lambda _fd: SimpleNamespace(request=lambda: left.pop(0)))
    return left


@pytest.mark.parametrize("use", ["ensure_running", "getfd", "register"])
def test_however_it_is_used_the_hosts_is_asked_for_first_and_once(module, tracker, monkeypatch, use):
    left = answering(monkeypatch, 77, 78)
    shared_tracker.install(5)
    arguments = ("name",) if use == "register" else ()
    getattr(module, use)(*arguments)
    getattr(module, use)(*arguments)
    assert (tracker._fd, tracker.starts, left) == (77, 0, [78])
    assert tracker.sent == [(77, "name")] * 2 * len(arguments)


def test_where_nobody_answers_one_is_started(module, tracker, monkeypatch):
    answering(monkeypatch, None)
    shared_tracker.install(5)
    module.register("name")
    assert (tracker._fd, tracker.starts) == (-5, 1)


def test_who_has_one_asks_nobody(module, tracker, monkeypatch):
    answering(monkeypatch)
    shared_tracker.install(5)
    tracker._fd = 9
    module.register("name")
    assert tracker.sent == [(9, "name")]


def test_a_process_that_has_closed_its_own_asks_again(module, tracker, monkeypatch):
    """A process that a task forks closes the descriptor of the worker's, on newer versions of Python."""
    answering(monkeypatch, 77, 78)
    shared_tracker.install(5)
    module.register("one")
    tracker._fd = None
    module.register("two")
    assert tracker.sent == [(77, "one"), (78, "two")]


def test_a_template_of_a_worker_asks_the_worker_and_not_its_host(module, tracker, monkeypatch):
    answering(monkeypatch, 77)
    shared_tracker.install(5)
    answering(monkeypatch, 88)
    shared_tracker.install(6)
    module.register("name")
    assert (tracker._fd, tracker.starts) == (88, 0)


def test_a_lock_that_some_thread_of_the_host_held_at_the_fork_is_forgotten(module, tracker, monkeypatch):
    holding = threading.Thread(target=tracker._lock.acquire)
    holding.start()
    holding.join()
    answering(monkeypatch, 77)
    shared_tracker.install(5)
    module.register("name")
    assert tracker._fd == 77


def test_a_finalizer_that_asks_in_the_middle_leaves_one_descriptor(module, tracker, monkeypatch):
    first, second = os.open(os.devnull, os.O_RDONLY), os.open(os.devnull, os.O_RDONLY)

    def request():
        monkeypatch.setattr(shared_tracker.asking, "requester", SimpleNamespace(request=lambda: first))
        shared_tracker.fetch(tracker)
        return second

    monkeypatch.setattr(shared_tracker.asking, "requester", SimpleNamespace(request=request))
    shared_tracker.fetch(tracker)
    assert tracker._fd == first
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(second)
    os.close(first)


def test_two_threads_ask_once(module, tracker, monkeypatch):
    asked, asks = [], threading.Event()

    def request():
        asked.append(1)
        asks.set()
        other.join(0.01)  # the other one waits for the lock meanwhile
        return 77

    monkeypatch.setattr(shared_tracker.asking, "requester", SimpleNamespace(request=request))
    other = threading.Thread(target=lambda: asks.wait() and shared_tracker.fetch(tracker))
    other.start()
    shared_tracker.fetch(tracker)
    other.join()
    assert (asked, tracker._fd) == ([1], 77)


def test_the_host_asks_nobody(tracker, monkeypatch):
    monkeypatch.setattr(shared_tracker.asking, "requester", None)
    shared_tracker.fetch(tracker)
    assert tracker._fd is None


def test_what_is_not_loaded_asks_when_it_is():
    def child():
        for name in [name for name in sys.modules if name.startswith("multiprocessing.resource_tracker")]:
            del sys.modules[name]
        reader, writer = os.pipe()
        shared_tracker.asking.requester = None
        shared_tracker.Requester = lambda _fd: SimpleNamespace(request=lambda: writer)
        shared_tracker.install(5)
        assert "multiprocessing.resource_tracker" not in sys.modules
        import multiprocessing.resource_tracker as loaded

        assert loaded._resource_tracker._fd is None
        loaded.register("/name", "shared_memory")
        assert loaded.getfd() == writer
        assert os.read(reader, 1000).count(b"\n") >= 1

    assert in_forked_child(child) == "ok"
