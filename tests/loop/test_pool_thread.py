"""The thread of a pool by itself: how it starts, who knows that, and how others wait for its end."""

from __future__ import annotations

import re
import signal
import threading
from types import SimpleNamespace

import pytest

from pidfdpool.loop import pool_thread
from pidfdpool.loop.outbox import Outbox
from pidfdpool.loop.pool_thread import PoolThread


class Poller:
    among_greenlets, woken = False, 0

    def wake(self):
        self.woken += 1


@pytest.fixture
def outbox():
    return Outbox(SimpleNamespace(poller=Poller(), closed=False))


@pytest.fixture
def thread(outbox):
    return PoolThread(outbox._pool.poller, outbox)


@pytest.fixture
def among_greenlets(monkeypatch):
    monkeypatch.setattr(pool_thread.native, "threads_are_greenlets", lambda: True)


def test_it_runs_beside_the_program_and_no_signal_is_handled_in_it(thread):
    """Otherwise a host whose main thread has ended would not exit, or a signal would wait for this thread."""
    seen = []
    thread.run = lambda: seen.append((threading.current_thread(), signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    thread.start()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    thread.join()
    [(own, blocked)] = seen
    assert own.daemon
    assert re.fullmatch(r"pidfdpool-\d+", own.name)
    assert blocked >= signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    assert thread.started
    assert not thread._poller.among_greenlets


def test_it_is_started_once_and_each_pools_has_a_name_of_its_own(outbox):
    names = []
    for _ in range(2):
        thread = PoolThread(outbox._pool.poller, outbox)
        thread.run = lambda: names.append(threading.current_thread().name)
        thread.start()
        thread.start()
        thread.join()
        thread.start()
    assert len(names) == len(set(names)) == 2


def test_where_the_system_allows_no_thread_it_counts_as_not_started_and_nobody_waits_for_it(thread, monkeypatch):
    class Refused:
        def __init__(self, **_options):
            pass

        def start(self):
            raise RuntimeError("can't start new thread")

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.setattr(pool_thread.threading, "Thread", Refused)
    with pytest.raises(RuntimeError, match="can't start"):
        thread.start()
    assert not thread.started
    thread.join()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_who_does_its_work_does_not_wait_for_its_end(thread, outbox):
    """It would wait for itself: a callback that shuts its pool down, or a leader's signal handler."""
    go, joined = threading.Event(), []

    def run():
        thread.join()
        joined.append("the thread")
        go.wait(20)

    thread.run = run
    thread.start()
    outbox.leader = threading.get_ident()
    thread.join()
    joined.append("the leader")
    outbox.leader = None
    go.set()
    thread.join()
    assert sorted(joined) == ["the leader", "the thread"]
    assert not thread._thread.is_alive()


def test_its_end_is_waited_for(thread):
    go, order = threading.Event(), []
    thread.run = lambda: (go.wait(20), order.append("ended"))
    thread.start()
    waiting = threading.Thread(target=lambda: (thread.join(), order.append("joined")))
    waiting.start()
    go.set()
    waiting.join(20)
    assert order == ["ended", "joined"]


def test_among_greenlets_it_is_one_of_them_and_its_end_is_what_it_says_itself(thread, among_greenlets):
    """A greenlet cannot be waited for as a thread is, and `threading` is not to know it."""
    go, seen = threading.Event(), []

    def run():
        go.wait(20)
        seen.append((thread.is_current, thread.does_its_work))
        thread.note_end()

    thread.run = run
    before = threading.enumerate()
    thread.start()
    thread.start()
    assert threading.enumerate() == before
    assert thread.started
    assert thread._poller.among_greenlets
    assert not thread.is_over
    go.set()
    thread.join()
    assert thread.is_over
    assert seen == [(True, True)]


def test_nothing_is_started_and_nobody_does_its_work_before_the_first_submit(thread):
    assert (thread.started, thread.failure, thread.is_over) == (False, None, False)
    assert not thread.is_current
    assert not thread.does_its_work
    thread.join()


def test_those_who_are_told_of_the_end_find_that_it_is_over_and_are_told_once(thread):
    told = []
    for number in range(3):
        thread.tell_end(lambda number=number: told.append((number, thread.is_over)))
    thread.note_end()
    thread.note_end()
    thread.tell_end(lambda: told.append((3, thread.is_over)))
    assert sorted(told) == [(number, True) for number in range(4)]


def test_who_asks_while_others_are_told_is_told_too(thread):
    told = []
    thread.tell_end(lambda: thread.tell_end(lambda: told.append("the second")))
    thread.note_end()
    assert told == ["the second"]


# ---- what is left to it ------------------------------------------------------------------------------------------


def test_who_leaves_nothing_does_not_wake_it(outbox):
    ran = []
    outbox.run([])
    outbox.run([lambda: ran.append(1), lambda: ran.append(2)])
    assert (ran, list(outbox.left), outbox._pool.poller.woken) == ([1, 2], [], 0)


def test_a_leader_of_another_pool_or_thread_leaves_nothing(outbox):
    ran = []
    outbox.leader = threading.get_ident() + 1
    assert not outbox.in_leader
    outbox.run([lambda: ran.append(1)])
    assert (ran, outbox.in_loop) == ([1], False)


def test_what_is_left_comes_behind_what_was_left_before_and_wakes_the_thread(outbox):
    ran = []
    for numbers in ((1, 2), (3,)):
        outbox.leave([lambda number=number: ran.append(number) for number in numbers])
    assert (ran, outbox._pool.poller.woken) == ([], 2)
    outbox.run_left()
    assert (ran, list(outbox.left)) == ([1, 2, 3], [])


def test_one_that_runs_is_still_among_those_that_are_left_so_that_nothing_overtakes_it(outbox):
    seen = []
    outbox.leave([lambda: seen.append(len(outbox.left)), lambda: seen.append(len(outbox.left))])
    outbox.run_left()
    assert seen == [2, 1]


def test_one_that_is_interrupted_is_run_again(outbox):
    fails, ran = [1], []

    def interrupted():
        if fails:
            fails.pop()
            raise KeyboardInterrupt
        ran.append(1)

    outbox.leave([interrupted, lambda: ran.append(2)])
    with pytest.raises(KeyboardInterrupt):
        outbox.run_left()
    outbox.run_left()
    assert ran == [1, 2]


def test_at_the_end_another_thread_may_take_what_is_being_run(outbox):
    ran = []
    outbox.leave([lambda: (outbox.left.clear(), ran.append(1))])
    outbox.run_left()
    assert ran == [1]


def test_at_the_end_each_is_run_once_whatever_it_leaves_or_raises(outbox):
    ran = []
    outbox._pool.closed = True
    outbox.left.append(lambda: (ran.append(1), outbox.finish(), 1 / 0))
    outbox.left.append(lambda: ran.append(2))
    outbox.finish()
    assert (ran, list(outbox.left)) == ([1, 2], [])


def test_a_thread_that_is_prevented_never_runs(thread):
    ran = []
    thread.run = lambda: ran.append(True)
    assert thread.prevent()
    thread.start()
    thread.join()
    assert ran == []


def test_a_thread_that_runs_cannot_be_prevented_and_counts_as_started_though_its_start_was_interrupted(thread):
    runs, ends = threading.Event(), threading.Event()
    thread.run = lambda: (runs.set(), ends.wait(30))
    own = threading.Thread(target=thread._run)  # what is left of such a start
    own.start()
    assert runs.wait(30)
    assert not thread.prevent()
    assert thread.started
    assert thread._thread is own
    ends.set()
    thread.join()
    assert not own.is_alive()


def test_a_second_start_runs_nothing(thread):
    """As when the first was interrupted, and the pool then wants a thread to break it."""
    ran = []
    thread.run = lambda: ran.append(threading.current_thread())
    thread.start()
    thread.join()
    thread.started = False
    thread.start()
    thread.join()
    assert ran == [thread._thread]


@pytest.mark.parametrize("handled", [False, True])
def test_what_interrupts_the_wait_for_its_beginning_is_raised_and_not_what_threading_complains_of(
    thread, monkeypatch, handled
):
    def start(_):
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("release unlocked lock")

    monkeypatch.setattr(pool_thread.threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        in_handler_of_error(thread.start) if handled else thread.start()
    assert not thread.started


@pytest.mark.parametrize("handled", [False, True])
def test_where_there_is_no_further_thread_that_is_said(thread, monkeypatch, handled):
    def start(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(pool_thread.threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        in_handler_of_error(thread.start) if handled else thread.start()


def in_handler_of_error(call):
    """Call it as a program does that handles an error of its own."""
    try:
        raise LookupError("the program's own")
    except LookupError:
        return call()
