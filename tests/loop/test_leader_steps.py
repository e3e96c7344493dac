"""How long a leader waits, what ends its wait, and what it leaves behind when it is interrupted."""

from __future__ import annotations

import signal
import sys
import threading
from types import SimpleNamespace

import pytest

from pidfdpool.loop import leader as leaders
from pidfdpool.loop.leader import _HANDLED, SHORT, Leadership, _is_deep
from pidfdpool.process import interruptible
from tests.loop.test_leader_parts import ANYWHERE, ONE, TWO, Future, Poller, in_thread


@pytest.fixture
def poller():
    return Poller()


@pytest.fixture
def pool(poller):
    return SimpleNamespace(
        poller=poller, closed=False, may_lead=True, is_at_work_here=False, failed=[], watchdog=SimpleNamespace()
    )


@pytest.fixture
def outbox():
    return SimpleNamespace(left=[], leader=None, in_loop=False)


@pytest.fixture
def leadership(pool, outbox, monkeypatch):
    pool.fail = pool.failed.append
    monkeypatch.setattr(leaders.interruptible, "handlers_are_called", lambda: False)
    monkeypatch.setattr(leaders.native, "is_interactive", lambda: False)
    return Leadership(pool, outbox, 0.0)


@pytest.fixture
def reader(pool, poller):
    poller.reader = reader = object()
    pool.watchdog.take_back = lambda: poller.log.append("take back") or setattr(poller, "reader", None)
    pool.watchdog.postpone = lambda: poller.log.append("postpone")
    return reader


def mask():
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


# ---- how long ----------------------------------------------------------------------------------------------------


def test_in_the_main_thread_the_first_waits_are_short_and_the_last_as_long_as_it_takes(leadership, poller):
    """A signal that came just before the thread slept is seen then; an idle thread does not wake."""
    poller.batches = [*([[]] * 8), ONE]
    leadership.wait(Future(poller), None)
    assert poller.waits[0] == SHORT == interruptible.FIRST_WAITS[0]
    assert poller.waits[1:6] == [*interruptible.FIRST_WAITS, None]
    assert len(poller.waits) == 9


def test_another_thread_waits_as_long_as_it_takes(leadership, poller):
    poller.batches = [[], ONE, TWO]
    in_thread(lambda: leadership.wait(Future(poller, 2), None))
    assert poller.waits == [None] * 3


@ANYWHERE
def test_no_wait_is_longer_than_the_time_that_is_left(leadership, poller, call):
    poller.batches = [[], ONE, TWO]
    call(lambda: leadership.wait(Future(poller, 2), 5.0))
    assert len(poller.waits) == 3
    assert all(0 < timeout <= 5.0 for timeout in poller.waits)
    assert poller.waits[0] > 4 if call is in_thread else poller.waits[0] <= SHORT


def test_a_result_that_is_there_already_is_not_waited_for(leadership, poller):
    leadership.wait(Future(poller, 0), None)
    assert poller.waits == []
    assert poller.log == ["lead", "follow"]
    assert poller.leader == {}


def test_a_look_without_a_wait_is_one_without_a_wait(leadership, poller):
    poller.batches = [ONE]
    assert leadership._look() == ONE
    assert poller.waits == [0]


def test_a_leader_that_may_spin_looks_before_it_sleeps(pool, outbox, monkeypatch, poller):
    seen = []

    class Spin:
        def __init__(self, limit):
            self.limit = limit

        def wait(self, look, sleep):
            seen.append(self.limit)
            return look() or sleep()

    monkeypatch.setattr(leaders, "LearningSpin", Spin)
    made = Leadership(pool, outbox, 0.25)
    poller.batches = [[], ONE]
    in_thread(lambda: made.wait(Future(poller), None))
    assert seen == [0.25]
    assert poller.waits == [0, None]


# ---- what ends it ------------------------------------------------------------------------------------------------


@ANYWHERE
def test_a_leader_leaves_when_its_pool_ends(leadership, pool, poller, call):
    poller.batches = [ONE, TWO]
    poller.on_serve = lambda ready: setattr(pool, "closed", True)
    future = Future(poller, 9)
    call(lambda: leadership.wait(future, None))
    assert poller.log == ["lead", ONE, "follow"]
    assert (poller.leader, future._leader) == ({}, None)


def test_what_comes_while_the_pool_thread_begins_to_serve_is_left_to_it_unread(leadership, poller):
    served = []
    poller.batches = [ONE, TWO]
    wait = poller.wait_for_answers
    poller.wait_for_answers = lambda timeout: setattr(poller, "is_served", True) or wait(timeout)
    poller.on_serve = served.append
    future = Future(poller)
    leadership.wait(future, None)
    assert served == []
    assert poller.reads == 0
    assert future._leader is None


def test_who_is_not_the_first_to_lead_gives_nothing_back(leadership, poller):
    """Between the look whether there is a leader and the step that makes it one, another may have become it."""

    class Racing(dict):
        def setdefault(self, key, default):
            super().setdefault(key, -1)
            return super().setdefault(key, default)

    poller.leader = Racing()
    leadership.wait(Future(poller), None)
    assert (poller.log, poller.leader) == ([], {None: -1})


@ANYWHERE
def test_an_interrupted_wait_gives_the_channels_back(leadership, poller, call):
    def interrupt(_timeout):
        raise KeyboardInterrupt

    poller.wait_for_answers = interrupt
    if call is in_thread:
        assert [type(error) for error in in_thread(lambda: leadership.wait(Future(poller), None))] == [
            KeyboardInterrupt
        ]
    else:
        with pytest.raises(KeyboardInterrupt):
            leadership.wait(Future(poller), None)
    assert (poller.log, poller.leader) == (["lead", "follow"], {})


def test_where_another_wait_of_this_thread_goes_on_it_is_woken_also_by_one_that_was_interrupted(leadership, poller):
    def interrupt(_timeout):
        raise KeyboardInterrupt

    poller.leader[None], poller.wait_for_answers = threading.get_ident(), interrupt
    with pytest.raises(KeyboardInterrupt):
        leadership.wait(Future(poller), None)
    assert poller.log == ["wake leader"]
    assert poller.leader == {None: threading.get_ident()}


def test_who_would_wait_for_himself_is_told_what_to_do(leadership, pool, poller):
    pool.is_at_work_here = True
    with pytest.raises(RuntimeError, match="Give a timeout, or wait in another thread"):
        leadership.wait(Future(poller), None)
    for timeout in (0, 0.0, 5.0):
        leadership.wait(Future(poller), timeout)
    assert poller.log == poller.waits == []


def test_the_poller_is_closed_by_a_leader_only_when_the_pool_thread_has_ended(leadership, pool, poller):
    poller.batches = [ONE]
    leadership.wait(Future(poller), None)
    assert "close" not in poller.log
    pool.closed = True
    leadership.close()
    poller.log.clear()
    leadership.wait(Future(poller), None)
    assert poller.log == ["close"], "it came too late to lead, and may have kept the pool thread from closing it"


# ---- while it serves ---------------------------------------------------------------------------------------------


@ANYWHERE
def test_while_it_serves_it_is_known_as_the_one_who_does(leadership, poller, outbox, call):
    seen, before = [], mask()
    poller.batches = [ONE]
    poller.on_serve = lambda ready: seen.append((outbox.leader == threading.get_ident(), poller.reads, mask()))
    call(lambda: leadership.wait(Future(poller), None))
    [(known, reads, blocked)] = seen
    assert (known, reads) == (True, 1)
    assert blocked == before | (set() if call is in_thread else {signal.SIGINT}), "no handler runs in other threads"
    assert not poller.serving._is_owned()


def test_what_was_blocked_before_stays_so_and_what_is_raised_leaves_nothing_blocked(leadership, poller):
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGUSR1))
    try:
        before = mask()
        poller.batches = [ONE]
        leadership.wait(Future(poller), None)
        assert mask() == before
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGUSR1))

    def fail(_ready):
        raise ZeroDivisionError

    poller.log.clear()
    before, poller.batches, poller.on_serve = mask(), [ONE], fail
    with pytest.raises(ZeroDivisionError):
        leadership.wait(Future(poller), None)
    assert mask() == before


def test_where_the_mask_was_not_known_yet_nothing_stays_blocked(leadership, monkeypatch):
    changes = []

    def change(how, signals):
        changes.append((how, set(signals)))
        raise KeyboardInterrupt

    monkeypatch.setattr(leaders.signal, "pthread_sigmask", change)
    with pytest.raises(KeyboardInterrupt):
        leadership._with_blocked((signal.SIGINT,), lambda: pytest.fail("it is not to be served"))
    assert changes == [(signal.SIG_BLOCK, {signal.SIGINT}), (signal.SIG_UNBLOCK, {signal.SIGINT})]


@pytest.mark.parametrize("over", [-40, 40])
def test_a_stack_is_deep_when_more_than_half_of_what_python_allows_is_in_use(over):
    def descend(left):
        return _is_deep() if left <= 0 else descend(left - 1)

    depth, frame = 0, sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    assert descend(sys.getrecursionlimit() // 2 + over - depth) is (over > 0)


# ---- event loops -------------------------------------------------------------------------------------------------


def test_in_a_loop_of_another_thread_no_signal_is_blocked_and_no_handler_matters(
    leadership, poller, reader, monkeypatch
):
    monkeypatch.setattr(leaders.interruptible, "handlers_may_raise", lambda: True)
    seen, went_on = [], []
    poller.batches = [ONE]
    poller.on_serve = lambda ready: seen.append(mask())
    assert in_thread(lambda: went_on.append((mask(), leadership.read_in_loop(reader)))) == []
    assert went_on == [(seen[0], True)]


def test_in_the_main_threads_loop_nothing_that_programs_react_to_comes_meanwhile(leadership, poller, reader):
    seen, before = [], mask()
    poller.batches = [ONE]
    poller.on_serve = lambda ready: seen.append(mask())
    leadership.read_in_loop(reader)
    assert seen == [before | set(_HANDLED)]
    assert mask() == before


def test_an_event_loop_that_is_no_longer_the_reader_reads_nothing_more(leadership, pool, poller, reader):
    poller.batches = [ONE]
    poller.on_serve = lambda ready: setattr(poller, "reader", None)
    assert not leadership.read_in_loop(reader), "the pool thread has taken the channels back meanwhile"
    poller.batches, poller.waits[:] = [ONE], []
    poller.reader = reader
    real = poller.serving

    class Serving:
        def acquire(self, blocking):
            poller.reader = None  # the pool has ended since
            return real.acquire(blocking=blocking)

        def release(self):
            real.release()

    poller.serving = Serving()
    assert not leadership.read_in_loop(reader)
    assert poller.waits == []
    assert not real._is_owned()


def test_what_is_raised_in_an_event_loop_breaks_the_pool_and_leaves_nothing_held(
    leadership, pool, poller, outbox, reader
):
    def fail(_ready):
        raise ZeroDivisionError

    poller.batches, poller.on_serve, before = [ONE], fail, mask()
    with pytest.raises(ZeroDivisionError):
        leadership.read_in_loop(reader)
    assert [type(error) for error in pool.failed] == [ZeroDivisionError]
    assert (outbox.in_loop, outbox.leader, mask()) == (False, None, before)
    assert not poller.serving._is_owned()


def test_an_event_loop_that_finds_nothing_serves_nothing_and_counts_no_read(leadership, poller, reader):
    assert leadership.read_in_loop(reader)
    assert (poller.log, poller.waits, poller.reads) == ([], [0], 0)


# ---- the end -----------------------------------------------------------------------------------------------------


def test_where_nobody_leads_the_end_waits_for_nobody(leadership, poller):
    leadership.end()
    assert poller.log == []


def test_who_resolves_the_future_after_the_last_look_at_it_knows_whom_to_wake(leadership, poller):
    """Otherwise the leader would sleep, though its result is there."""
    future, known = Future(poller), []
    is_done = future._is_done
    future._is_done = lambda: known.append(future._leader is poller) or is_done()
    poller.batches = [[], ONE]
    leadership.wait(future, None)
    assert known == [True] * 3


def test_a_leader_that_leaves_after_the_last_look_for_one_closes_the_poller(leadership, poller):
    """Otherwise nobody would."""
    over = []

    class Looked(dict):
        def __bool__(self):
            over.append(leadership._over)
            return True

    poller.leader = Looked()
    leadership.close()
    assert over == [True]
    assert poller.log == []
