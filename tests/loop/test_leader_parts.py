"""Who leads, until when, and what it leaves behind: with a poller and futures of the test's, and no process."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from types import SimpleNamespace

import pytest

from pidfdpool.loop import leader as leaders
from pidfdpool.loop.leader import Leadership


class Poller:
    """`batches`: what each wait finds; behind the last, nothing. `log` has what is done, in order."""

    def __init__(self):
        self.log, self.batches, self.serving = [], [], threading.RLock()
        self.leader, self.reader, self.guarded, self.is_served, self.reads, self.left_at = (
            {},
            None,
            False,
            False,
            0,
            0.0,
        )
        self.waits, self.on_serve = [], lambda ready: None
        self.lead = lambda: self.log.append("lead")
        self.follow = lambda: self.log.append("follow")

    def wait_for_answers(self, timeout):
        self.waits.append(timeout)
        return self.batches.pop(0) if self.batches else []

    def serve(self, ready):
        assert self.serving._is_owned()
        self.log.append(ready)
        self.on_serve(ready)

    def wake_leader(self):
        self.log.append("wake leader")

    def close(self):
        self.log.append("close")


class Future:
    """Done when so many batches were served."""

    _leader = None
    callbacks = False

    def __init__(self, poller, batches=1):
        self.poller, self.batches = poller, batches

    def _is_done(self):
        return sum(isinstance(each, list) for each in self.poller.log) >= self.batches

    def _has_callbacks(self):
        return self.callbacks


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


def in_thread(call):
    """Call in another thread, which runs no signal handlers; return what that raised."""
    raised = []

    def run():
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    return raised


ANYWHERE = pytest.mark.parametrize("call", [lambda call: call(), in_thread], ids=["main thread", "another thread"])
ONE, TWO, THREE = [(1, 1)], [(2, 1)], [(3, 1)]


@ANYWHERE
def test_a_leader_reads_until_its_result_is_there_and_gives_the_channels_back(leadership, poller, outbox, call):
    poller.batches = [ONE, [], TWO, THREE]
    served_by = []
    poller.on_serve = lambda ready: served_by.append(outbox.leader == threading.get_ident())
    future = Future(poller, 2)
    call(lambda: leadership.wait(future, None))
    assert poller.log == ["lead", ONE, TWO, "follow"]
    assert (poller.leader, future._leader, outbox.leader, poller.reads) == ({}, None, None, 2)
    assert served_by == [True, True]
    assert poller.left_at > 0


def test_in_the_main_thread_no_interrupt_comes_while_it_serves(leadership, poller):
    masks = []
    poller.batches, before = [ONE], signal.pthread_sigmask(signal.SIG_BLOCK, ())
    poller.on_serve = lambda ready: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    leadership.wait(Future(poller), None)
    assert masks == [before | {signal.SIGINT}]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_the_future_knows_whom_to_wake_while_the_leader_waits(leadership, poller):
    future, seen = Future(poller), []
    poller.batches = [[], ONE]
    wait = poller.wait_for_answers
    poller.wait_for_answers = lambda timeout: seen.append(future._leader) or wait(timeout)
    poller.on_serve = lambda ready: seen.append(future._leader)
    leadership.wait(future, None)
    assert seen == [poller, poller, None]


@ANYWHERE
def test_a_leader_leaves_when_something_is_left_to_the_pool_thread(leadership, poller, outbox, call):
    poller.batches = [ONE, TWO]
    poller.on_serve = lambda ready: outbox.left.append(None)
    call(lambda: leadership.wait(Future(poller, 2), None))
    assert poller.log == ["lead", ONE, "follow"]
    assert poller.leader == {}


def test_a_leader_leaves_when_the_pool_thread_serves(leadership, poller):
    poller.batches = [ONE]
    wait = poller.wait_for_answers

    def begin(timeout):
        poller.is_served = True
        return wait(timeout)

    poller.wait_for_answers = begin
    leadership.wait(Future(poller), None)
    assert poller.log == ["lead", "follow"]


def test_a_leader_that_has_interrupted_its_own_wait_goes_on_until_its_own_result_is_there(leadership, poller, outbox):
    """Guards: it left, and nobody read any more: the channels are those of the wait that it has interrupted."""
    poller.leader[None] = threading.get_ident()
    poller.batches = [ONE, TWO]
    poller.is_served = True
    poller.on_serve = lambda ready: outbox.left.append(None)
    leadership.wait(Future(poller, 2), None)
    assert poller.log == [ONE, TWO, "wake leader"], "which looks again; what was to wake it is used up"
    assert poller.leader == {None: threading.get_ident()}


@pytest.mark.parametrize("timeout", [0, -1.0, 0.0])
def test_at_the_deadline_what_has_come_is_read_and_nothing_is_waited_for(leadership, poller, timeout):
    poller.batches = [ONE, TWO]
    leadership.wait(Future(poller, 5), timeout)
    assert poller.log == ["lead", ONE, "follow"]
    assert poller.waits == [0.0]


def test_a_result_that_does_not_come_is_waited_for_as_long_as_was_said(leadership, poller):
    poller.wait_for_answers = lambda timeout: poller.waits.append(timeout) or []
    in_thread(lambda: leadership.wait(Future(poller), 0.001))
    assert poller.waits[-1] == 0.0
    assert all(0 <= timeout <= 0.001 for timeout in poller.waits)
    assert poller.log == ["lead", "follow"]


@pytest.mark.parametrize(
    "why", ["may not", "callbacks", "served", "other leader", "closed", "prompt", "handlers", "deep", "raising"]
)
def test_nobody_leads_where_that_could_stop_others_or_itself(leadership, pool, poller, why, monkeypatch):
    future = Future(poller)
    poller.batches = [ONE]
    if why == "may not":
        pool.may_lead = False
    elif why == "callbacks":
        future.callbacks = True
    elif why == "served":
        poller.is_served = True
    elif why == "other leader":
        poller.leader[None] = -1
    elif why == "closed":
        pool.closed = True
    elif why == "prompt":
        monkeypatch.setattr(leaders.native, "is_interactive", lambda: True)
    elif why == "handlers":
        monkeypatch.setattr(leaders.interruptible, "handlers_are_called", lambda: True)
    elif why == "deep":
        monkeypatch.setattr(leaders, "_is_deep", lambda: True)
    else:
        monkeypatch.setattr(leaders.interruptible, "handlers_may_raise_here", lambda: True)
    (in_thread if why == "raising" else lambda call: call())(lambda: leadership.wait(future, None))
    assert poller.log == []
    assert poller.leader == ({None: -1} if why == "other leader" else {})


def test_another_thread_may_lead_at_a_prompt(leadership, poller, monkeypatch):
    monkeypatch.setattr(leaders.native, "is_interactive", lambda: True)
    poller.batches = [ONE]
    assert in_thread(lambda: leadership.wait(Future(poller), None)) == []
    assert poller.log == ["lead", ONE, "follow"]


@ANYWHERE
def test_what_is_raised_while_it_serves_breaks_the_pool_and_the_next_can_lead(leadership, pool, poller, outbox, call):
    def fail(_ready):
        raise ZeroDivisionError

    poller.batches, poller.on_serve = [ONE], fail
    with suppress(ZeroDivisionError):
        call(lambda: leadership.wait(Future(poller), None))
    assert [type(error) for error in pool.failed] == [ZeroDivisionError]
    assert poller.log == ["lead", ONE, "follow"]
    assert (poller.leader, outbox.leader) == ({}, None)


def test_channels_that_are_guarded_stay_so_and_those_of_an_event_loop_are_the_leaders(leadership, poller):
    poller.batches, poller.guarded = [ONE], True
    leadership.wait(Future(poller), None)
    assert poller.log == [ONE]
    assert poller.guarded
    poller.log.clear()
    poller.batches, poller.reader = [ONE], object()
    leadership.wait(Future(poller), None)
    assert poller.log == ["lead", ONE, "follow"]
    assert (poller.guarded, poller.reader) == (False, None)


def test_the_poller_is_closed_by_who_is_the_last_at_it(leadership, poller):
    poller.leader[None] = -1
    leadership.close()
    assert poller.log == []
    poller.leader.clear()
    leadership.close()
    assert poller.log == ["close"]
    poller.log.clear()
    poller.batches = [ONE]
    leadership.wait(Future(poller), None)
    assert poller.log == ["lead", ONE, "follow", "close"]


def test_at_the_end_a_leader_is_woken_until_it_has_left(leadership, poller, monkeypatch):
    poller.leader[None] = -1
    poller.wake_leader = lambda: poller.log.append("wake leader") or (len(poller.log) == 3 and poller.leader.clear())
    leadership.end()
    assert poller.log == ["wake leader"] * 3
    monkeypatch.setattr(leaders, "LEAVING", 0.01)
    poller.leader[None], poller.wake_leader = -1, lambda: None
    leadership.end()


# ---- event loops -------------------------------------------------------------------------------------------------


@pytest.fixture
def reader(pool, poller):
    poller.reader = reader = object()
    pool.watchdog.take_back = lambda: poller.log.append("take back") or setattr(poller, "reader", None)
    pool.watchdog.postpone = lambda: poller.log.append("postpone")
    return reader


def test_an_event_loop_serves_what_has_come_and_goes_on(leadership, poller, outbox, reader):
    poller.batches = [ONE]
    seen = []
    poller.on_serve = lambda ready: seen.append((outbox.in_loop, signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    assert leadership.read_in_loop(reader)
    assert (poller.log, poller.waits) == ([ONE], [0])
    assert seen[0][0]
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGALRM} <= seen[0][1]
    assert not outbox.in_loop
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert not poller.serving._is_owned()
    assert leadership.read_in_loop(reader), "nothing has come"


def test_what_an_event_loop_leaves_is_the_pool_threads_for_a_while(leadership, poller, outbox, reader):
    poller.batches = [ONE]
    poller.on_serve = lambda ready: outbox.left.append(None)
    assert not leadership.read_in_loop(reader)
    assert poller.log == [ONE, "postpone", "take back"]


@pytest.mark.parametrize("why", ["leader", "closed", "served", "handlers", "another", "busy"])
def test_an_event_loop_does_not_read_where_others_do_or_handlers_may_raise(
    leadership, pool, poller, reader, why, monkeypatch
):
    poller.batches = [ONE]
    if why == "leader":
        poller.leader[None] = 1
    elif why == "closed":
        pool.closed = True
    elif why == "served":
        poller.is_served = True
    elif why == "handlers":
        monkeypatch.setattr(leaders.interruptible, "handlers_may_raise", lambda: True)
    elif why == "another":
        poller.reader = object()
    go, held = threading.Event(), threading.Event()
    if why == "busy":
        thread = threading.Thread(target=lambda: hold(poller.serving, held, go))
        thread.start()
        assert held.wait(20)
    assert not leadership.read_in_loop(reader)
    if why == "busy":
        go.set()
        thread.join()
    assert poller.log == ([] if why == "another" else ["take back"])


def hold(lock, held, go):
    with lock:
        held.set()
        go.wait(20)
