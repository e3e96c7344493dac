"""The thread that hands records over: that there is one, for how long, what it holds, and who waits for it."""

from __future__ import annotations

import logging
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from pidfdpool.loop import log_emitter
from pidfdpool.loop.log_emitter import OVERHEAD, Emitter
from tests.conditions import eventually

LINGER, GRACE = log_emitter.LINGER, log_emitter.GRACE
HALF = 5 * (OVERHEAD + 10)  # bytes of five records of ten bytes


class Host:
    """Takes records. Until `go` it takes none further than the first."""

    def __init__(self):
        self.got, self.threads, self.go, self.entered = [], [], threading.Event(), threading.Event()
        self.error = None

    def emit(self, data, *origin):
        self.threads.append(threading.current_thread())
        self.entered.set()
        self.go.wait(30)
        self.got.append((data, *origin))
        if self.error is not None:
            raise self.error

    @property
    def numbers(self):
        return [int(data) for data, *_ in self.got]


def item(number):
    return (b"%010d" % number, 3, 99, 5, "work")


@pytest.fixture
def host():
    host = Host()
    host.go.set()
    return host


@pytest.fixture
def emitter(host, monkeypatch):
    monkeypatch.setattr(log_emitter, "LINGER", 0.01)
    emitter = Emitter(object(), host.emit)
    yield emitter
    host.go.set()
    emitter.join()


@pytest.fixture
def told(caplog):
    """Give what was logged of records that were lost."""
    return lambda: [record.args for record in caplog.records if record.name == "pidfdpool.logs"]


def held_up(host, emitter):
    """Have the host be busy with a first record."""
    host.go.clear()
    emitter.put(item(0))
    assert host.entered.wait(30)


# ---- the thread --------------------------------------------------------------------------------------------------


def test_records_are_handed_over_whole_and_in_order_by_one_thread_which_then_ends(host, emitter, monkeypatch):
    monkeypatch.setattr(log_emitter, "LINGER", 20.0)
    for number in range(50):
        emitter.put(item(number))
    emitter.join()
    assert host.got == [item(number) for number in range(50)]
    [thread] = set(host.threads)
    assert thread.name.startswith("pidfdpool-logs-")
    assert thread.daemon, "the interpreter's exit waits for it in a way of its own"
    assert not thread.is_alive()
    assert thread is not threading.current_thread()


def test_no_signal_handler_of_the_programs_runs_in_that_thread_instead(host, emitter):
    blocked = []
    emitter._emit = lambda *_: blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    emitter.put(item(1))
    emitter.join()
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1} <= blocked[0]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_thread_that_lingers_takes_what_comes_and_ends_when_nothing_does(host, emitter, monkeypatch):
    monkeypatch.setattr(log_emitter, "LINGER", 20.0)
    for number in range(3):
        emitter.put(item(number))
        eventually(lambda number=number: len(host.got) == number + 1, "at once, though it lingers", seconds=10)
    monkeypatch.setattr(log_emitter, "LINGER", 0.001)
    emitter.put(item(3))
    eventually(lambda: not emitter._runs and not host.threads[0].is_alive(), "it ends of itself", seconds=10)
    assert len(set(host.threads)) == 1
    emitter.put(item(4))
    emitter.join()
    assert host.numbers == [0, 1, 2, 3, 4]
    assert len(set(host.threads)) == 2


def test_a_thread_lingers_between_two_records_that_come_close_one_upon_the_other(host, emitter, monkeypatch):
    waits = []
    news = emitter._news
    emitter._news = SimpleNamespace(
        wait=lambda seconds: waits.append(seconds) or news.wait(seconds), set=news.set, clear=news.clear,
        is_set=news.is_set,
    )  # fmt: skip
    emitter.put(item(0))
    eventually(lambda: not emitter._runs, "it ends")
    assert waits == [log_emitter.LINGER], "once, and not for each look"
    eventually(lambda: not host.threads[0].is_alive(), "it is gone")


def test_a_pool_is_held_up_for_seconds_at_most_and_its_thread_lingers_for_a_moment():
    assert 0.01 <= LINGER <= 0.5
    assert 1 <= GRACE <= 5


def test_whatever_a_handler_raises_the_next_record_comes(host, emitter):
    for error in (ValueError("a bug"), SystemExit(3), KeyboardInterrupt()):
        host.error = error
        emitter.put(item(1))
    emitter.join()
    assert len(host.got) == 3


def test_where_threads_are_greenlets_it_is_one_of_them(host, emitter, monkeypatch):
    monkeypatch.setattr(log_emitter.native, "threads_are_greenlets", lambda: True)
    started = []
    monkeypatch.setattr(log_emitter._thread, "start_new_thread", lambda *of: started.append(of))
    emitter.put(item(1))
    [(run, arguments)] = started
    thread = threading.Thread(target=run, args=arguments)
    thread.start()
    emitter.join()
    thread.join()
    assert host.numbers == [1]
    assert emitter._thread is None


# ---- what does not fit -------------------------------------------------------------------------------------------


def test_what_waits_is_bounded_and_what_does_not_fit_is_told_when_half_is_handed_over(
    host, emitter, monkeypatch, told
):
    monkeypatch.setattr(log_emitter, "MOST_BYTES", 2 * HALF)
    held_up(host, emitter)
    for number in range(1, 14):
        emitter.put(item(number))
    seen, emit = [], host.emit
    emitter._emit = lambda *of: (emit(*of), seen.append(told()[:]))
    host.go.set()
    emitter.join()
    assert host.numbers == list(range(11)), "ten wait, beside the one that is being handed over"
    assert told() == [(3,)]
    assert [len(each) for each in seen] == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1], "not before the fifth of them"


def test_the_room_of_what_was_handed_over_is_free_again(host, emitter, monkeypatch, told):
    monkeypatch.setattr(log_emitter, "MOST_BYTES", OVERHEAD + 10)
    for number in range(20):
        emitter.put(item(number))
        eventually(lambda number=number: emitter._done == number + 1, "it is handed over")
    assert told() == []
    assert emitter._bytes == 0


def test_each_loss_is_told_once_also_of_what_could_not_be_received(host, emitter, told, caplog):
    emitter.lose()
    emitter.lose()
    for number in range(3):
        emitter.put(item(number))
    emitter.join()
    assert told() == [(2,)]
    assert caplog.records[0].levelno == logging.WARNING
    assert "2 log records of workers were dropped" in caplog.records[0].getMessage()


# ---- without a thread --------------------------------------------------------------------------------------------


def refuse(*_):
    raise RuntimeError("can't start new thread")


def test_where_there_can_be_no_thread_the_next_record_tries_again(host, emitter, monkeypatch):
    with monkeypatch.context() as refusing:
        refusing.setattr(threading.Thread, "start", refuse)
        emitter.put(item(0))
        emitter.put(item(1))
    assert host.got == []
    emitter.put(item(2))
    eventually(lambda: len(host.got) == 3, "they all come")
    assert host.numbers == [0, 1, 2]


@pytest.mark.parametrize("count", [0, 3])
def test_where_there_can_be_no_thread_who_waits_for_the_records_hands_them_over(host, emitter, monkeypatch, count):
    with monkeypatch.context() as refusing:
        refusing.setattr(threading.Thread, "start", refuse)
        for number in range(count):
            emitter.put(item(number))
        emitter.join()
    assert host.numbers == list(range(count))
    assert set(host.threads) <= {threading.current_thread()}


# ---- waiting for it ----------------------------------------------------------------------------------------------


def test_who_waits_does_not_wait_for_a_thread_that_only_lingers(host, emitter, monkeypatch):
    monkeypatch.setattr(log_emitter, "LINGER", 60.0)
    emitter.put(item(0))
    eventually(lambda: emitter._done, "it lingers by now, or is about to")
    began = time.monotonic()
    emitter.join()
    assert time.monotonic() - began < 30
    assert not host.threads[0].is_alive()
    emitter.put(item(1))
    eventually(lambda: emitter._done == 2, "another one comes")
    assert emitter._runs, "that lingers as ever"
    emitter.join()


def test_one_record_that_is_never_handed_over_is_waited_for_no_longer_than_the_grace(host, emitter, monkeypatch):
    monkeypatch.setattr(log_emitter, "GRACE", 0.02)
    held_up(host, emitter)
    emitter.put(item(1))
    emitter.join()
    assert host.got == [], "and who waited has not tried, beside the thread"
    assert set(host.threads) != {threading.current_thread()}
    host.go.set()
    eventually(lambda: len(host.got) == 2, "the thread goes on")
    monkeypatch.setattr(log_emitter, "GRACE", 30.0)


def test_as_long_as_records_are_handed_over_they_are_waited_for_however_long_all_of_them_take(
    host, emitter, monkeypatch
):
    now = [0.0]
    monkeypatch.setattr(log_emitter, "time", SimpleNamespace(monotonic=lambda: now[0]))
    held_up(host, emitter)
    over, steps = emitter._over, []

    def wait(seconds):
        steps.append(seconds)
        now[0] += log_emitter.GRACE * 0.4
        if len(steps) < 10:
            emitter._done += len(steps) % 2  # another one is handed over
        else:
            host.go.set()
            over.wait(30)

    emitter._over = SimpleNamespace(wait=wait)
    emitter.join()
    assert host.numbers == [0]
    assert len(steps) == 10


def test_a_record_that_is_stuck_behind_others_is_waited_for_no_longer_than_the_grace(host, emitter, monkeypatch):
    """Guards: one record that was handed over meanwhile would have the wait go on for ever."""
    now = [0.0]
    monkeypatch.setattr(log_emitter, "time", SimpleNamespace(monotonic=lambda: now[0]))
    held_up(host, emitter)
    over, thread, steps, joined = emitter._over, emitter._thread, [], []

    def wait(seconds):
        steps.append(seconds)
        now[0] += log_emitter.GRACE * 0.4
        if len(steps) == 1:
            emitter._done += 1  # one is handed over, and the next is stuck
        if len(steps) == 10:
            host.go.set()
            over.wait(30)

    emitter._over = SimpleNamespace(wait=wait)
    emitter._thread = SimpleNamespace(join=joined.append)
    emitter.join()
    assert len(steps) == 4, "the grace, counted from the one that was handed over"
    assert joined == [], "nor is the thread waited for, as if it were at its end"
    emitter._over, emitter._thread = over, thread
    host.go.set()
    assert over.wait(30)


def test_a_handler_may_wait_for_the_records_without_waiting_for_itself(host, emitter):
    waited = []
    emitter._emit = lambda *_: (emitter.join(), waited.append(emitter._joined))
    emitter.put(item(0))
    emitter.join()
    assert waited in ([True], [False])
    assert not emitter._joined


def test_a_forked_child_forgets_what_the_parent_hands_over(host, emitter):
    held_up(host, emitter)
    emitter.put(item(1))
    emitter.lose()
    copy = Emitter(object(), host.emit)
    copy._items.append(item(2))
    copy._lost, copy._runs, copy._thread = 1, True, threading.current_thread()
    lock = copy._lock
    lock.acquire()
    copy.abandon_in_forked_child()
    assert (list(copy._items), copy._lost, copy._runs, copy._thread, copy._pool) == ([], 0, False, None, None)
    assert copy._lock is not lock
    copy.join()
    assert copy._done == 0
