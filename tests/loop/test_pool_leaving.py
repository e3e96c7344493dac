"""The ways out of a pool: cancellations, kills, ends, and who observes it. No template comes up here."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from pidfdpool.loop import pool as pools
from pidfdpool.process import interruptible
from pidfdpool.scheduler import events as ev
from tests.loop.test_pool_parts import Owner, deferred, made, submit


@pytest.fixture
def pool():
    pool = made()
    yield pool
    pool.leases.close()
    pool.core.poller.close()


@pytest.fixture
def limited():
    pool = made(max_pending=1)
    yield pool
    pool.leases.close()
    pool.core.poller.close()


class Observation:
    """Notes what it is told. `observers` are those that are to be told."""

    def __init__(self, core, log=None):
        self.core, self.log, self.observers = core, [] if log is None else log, []

    def note_decision(self, event, actions):
        pass

    def note_end(self, task, error, *, cancelled=False):
        self.log.append(("end", task.number, error, cancelled, self.core.lock._is_owned()))

    def tell_if_many(self):
        self.log.append(("if many", self.core.lock._is_owned()))

    def tell(self, **how):
        self.log.append(("tell", how, list(self.observers), self.core.lock._is_owned()))

    def record_times(self, link, *, on=True):
        self.log.append(("times", link, on))

    def add(self, observer):
        self.observers.append(observer)


def later(monkeypatch):
    """Leave decisions to the pool thread, as at a prompt."""
    monkeypatch.setattr(interruptible, "handlers_may_raise", lambda: True)
    monkeypatch.setattr(interruptible, "handlers_may_raise_here", lambda: True)


def handled_by(pool):
    handled = []
    pool.core.handle = lambda event, context=None: handled.append(event)
    return handled


# ---- cancellations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("observed", [False, True])
def test_one_of_several_that_wait_is_cancelled_noted_and_told_at_once(pool, observed):
    futures = [submit(pool) for _ in range(3)]
    log = []
    if observed:
        pool.core.resolver.observation = Observation(pool.core, log)
    told = []
    futures[1]._resolve_cancelled = lambda: told.append((pool.core.lock._is_owned(), 2 in pool.core.undelivered))
    assert pool.cancel(2, futures[1])
    assert told == [(False, True)]
    assert log == [("end", 2, None, True, True), ("if many", False)] * observed
    assert (set(pool.core.tasks), pool.core.undelivered, pool.core.resolver.cancelled) == ({1, 3}, {}, 1)
    assert futures[1].marked


@pytest.mark.parametrize("short", [False, True])
def test_one_that_has_begun_meanwhile_is_not_cancelled(pool, short):
    futures = [submit(pool) for _ in range(3 if short else 1)]
    futures[0]._mark_cancelled = lambda: False
    assert pool.cancel(1, futures[0]) is False
    assert 1 in pool.core.tasks
    assert pool.core.resolver.cancelled == 0


class Queue:
    """Stands for a queue that nothing waits in."""

    priority_of = ()

    def __contains__(self, _number):
        return False


@pytest.mark.parametrize("gone", [True, False])
def test_one_that_a_worker_was_sent_ahead_is_cancelled_if_it_can_be_taken_back(pool, gone):
    future, decided = submit(pool), []
    future._mark_cancelled = lambda: pytest.fail("that is decided when it is taken back")
    pool.machine.queue, pool.machine.prefetched = Queue(), {1: 0}

    def decide(event, context=None):
        decided.append(event)
        if gone:
            del pool.core.tasks[1]
        return []

    pool.core.decide = decide
    assert pool.cancel(1, future) is gone
    assert decided == [ev.Cancelled(1)]


def test_at_a_prompt_the_pool_thread_decides_about_what_waits_and_nothing_else_is_tried(pool, monkeypatch):
    futures = [submit(pool) for _ in range(2)]
    later(monkeypatch)
    assert pool.cancel(1, futures[0])
    assert futures[0].marked, "it is seen as cancelled at once"
    assert deferred(pool) == [ev.Cancelled]
    assert futures[0].told == []
    pool.machine.queue = Queue()
    pool.core.machine.queue = Queue()
    assert not pool.cancel(2, futures[1]), "it may have begun, or be about to"
    assert not futures[1].marked
    assert deferred(pool) == [ev.Cancelled]


def test_one_that_is_to_be_cancelled_is_cancelled_at_a_prompt_too(pool, monkeypatch):
    future = submit(pool)
    later(monkeypatch)
    pool.machine.queue = Queue()
    pool.machine.to_cancel = {1}
    assert pool.cancel(1, future)
    assert deferred(pool) == [ev.Cancelled]


def test_one_that_is_unknown_is_not_cancelled(pool):
    handled = handled_by(pool)
    future = SimpleNamespace(_mark_cancelled=lambda: pytest.fail("it is not this pool's, or over"))
    assert pool.cancel(99, future) is False
    assert handled == []


def test_room_that_a_cancellation_makes_is_given_to_who_waits_for_it(limited):
    first, second = submit(limited), submit(limited, wait=False)
    limited.core.machine.cancel = lambda number: True
    assert limited.cancel(first.number, first)
    assert first.told == ["cancelled"]
    assert set(limited.core.tasks) == {second.number}
    assert limited.core.admission.waiting == {}


def test_what_a_leader_cancels_while_it_serves_is_told_where_its_callbacks_may_be_called(pool):
    futures = [submit(pool) for _ in range(3)]
    futures[0].callbacks = True
    pool.core.outbox.leader = threading.get_ident()
    assert pool.cancel(1, futures[0])
    assert futures[0].told == []
    assert [delivery.task.number for delivery in pool.core.outbox.left] == [1]
    pool.core.outbox.leader = None
    pool.core.outbox.run_left()
    assert futures[0].told == ["cancelled"]


def test_a_cancellation_that_is_interrupted_in_the_middle_breaks_the_pool(pool):
    futures, failed = [submit(pool) for _ in range(3)], []

    def interrupt(_number):
        raise KeyboardInterrupt

    pool.core.fail = failed.append
    pool.machine.cancel = interrupt
    with pytest.raises(KeyboardInterrupt):
        pool.cancel(1, futures[0])
    assert [type(error) for error in failed] == [KeyboardInterrupt]
    assert not pool.core.lock._is_owned()


# ---- events ------------------------------------------------------------------------------------------------------


def test_what_is_asked_of_a_pool_is_decided_about(pool):
    handled = handled_by(pool)
    pool.kill_task(5)
    pool.resize(3)
    pool.shutdown(cancel=True)
    pool.shutdown(cancel=False)
    pool.kill(15)
    assert handled == [
        ev.TaskKillRequested(5), ev.ResizeRequested(3), ev.ShutdownRequested(True), ev.ShutdownRequested(False),
        ev.KillRequested(15),
    ]  # fmt: skip


def test_before_a_pool_ends_its_template_is_resumed_and_nobody_lets_answers_lie(pool):
    log = []
    pool.core.resume_template = lambda: log.append("resume")
    pool.core.watchdog = SimpleNamespace(note_observer=lambda: log.append("observer"))
    pool.core.handle = lambda event, context=None: log.append(type(event))
    pool.shutdown(cancel=False)
    assert sorted(log[:2]) == ["observer", "resume"]
    assert log[2:] == [ev.ShutdownRequested]
    log.clear()
    pool.kill(9)
    assert log == ["resume", ev.KillRequested]


def test_each_holder_is_let_go_of_for_itself(pool):
    for holder in ("one", "other", "one"):
        pool.hold(holder)
    pool.let_go("one")
    assert pool.machine.state.holds == {"other"}
    pool.let_go("nobody")
    assert pool.machine.state.holds == {"other"}


@pytest.mark.parametrize("logs", [False, True])
def test_the_end_of_a_pool_is_that_of_its_start_its_thread_and_its_logs(pool, logs):
    log = []
    pool.starter.wait_for_first = lambda: log.append("start")
    pool.core.thread = SimpleNamespace(join=lambda: log.append("thread"))
    pool.core.watchdog.release = lambda: log.append("release")
    pool.core.logs = SimpleNamespace(join=lambda: log.append("logs")) if logs else None
    pool.join()
    assert log == ["start", "thread", "release"] + ["logs"] * logs


# ---- owners ------------------------------------------------------------------------------------------------------


def test_what_an_owner_that_is_there_has_left_is_its_own_to_submit(pool):
    finished, owner = [], Owner()
    pool.shut_down_with(owner, SimpleNamespace(finish=lambda cancel: finished.append(cancel)))
    pool.submit_for_lost_owner()
    assert finished == []
    assert not pool._loop.owner_lost
    assert pool._loop.unsubmitted is not None


def test_in_a_forked_child_nobody_is_told_what_was_observed(pool, monkeypatch):
    seen = []
    pool.core.resolver.observation = Observation(pool.core)
    monkeypatch.setattr(
        pools.teardown, "abandon_in_forked_child", lambda core: seen.append(core.resolver.observation)
    )
    pool.abandon_in_forked_child()
    assert seen == [None]


# ---- observers ---------------------------------------------------------------------------------------------------


class Link:
    """The host's end of a worker; `posted` is what is written to it."""

    def __init__(self):
        self.posted = []

    def post(self, pieces):
        self.posted.append(b"".join(pieces))


@pytest.fixture
def observed(pool, monkeypatch):
    """Give a pool of two workers, and what is done with its observation, in order."""
    from pidfdpool.loop import observation

    log = []
    monkeypatch.setattr(observation, "Observation", lambda *parts: made_of(*parts))

    def made_of(machine, tasks, lock, wake_by):
        assert lock is pool.core.lock
        assert wake_by == pool.core.wake_by
        assert machine is pool.machine
        assert tasks is pool.core.tasks
        return Observation(pool.core, log)

    pool.core.workers.update({0: "first", 1: "second"})
    yield SimpleNamespace(pool=pool, log=log)
    pool.core.workers.clear()


def test_the_first_observer_has_workers_record_times_and_the_last_has_them_stop(observed):
    pool, log = observed.pool, observed.log
    pool.observe("one")
    observation = pool.core.resolver.observation
    assert log == [("times", "first", True), ("times", "second", True)]
    assert pool.core.poller._epoll.poll(0), "the pool thread has work to do for it"
    pool.core.poller.wait(20)
    pool.observe("other")
    assert pool.core.resolver.observation is observation
    assert len(log) == 2
    assert pool.core.poller._epoll.poll(0)
    assert observation.observers == ["one", "other"]
    log.clear()
    pool.stop_observing("one")
    assert log == [("tell", {"wait": True}, ["one", "other"], False)], "what was noted before"
    assert pool.core.resolver.observation is observation
    log.clear()
    pool.stop_observing("other")
    assert log == [
        ("tell", {"wait": True}, ["other"], False), ("times", "first", False), ("times", "second", False)
    ]  # fmt: skip
    assert pool.core.resolver.observation is None


def test_who_observes_nothing_is_told_nothing_at_its_end(observed):
    pool, log = observed.pool, observed.log
    pool.stop_observing("nobody")
    pool.tell_observers()
    pool.observe("one")
    log.clear()
    pool.stop_observing("nobody")
    assert log == []
    pool.tell_observers()
    pool.tell_observers(wait=True)
    assert log == [("tell", {"wait": False}, ["one"], False), ("tell", {"wait": True}, ["one"], False)]


def test_one_that_fails_while_it_is_told_the_last_is_gone_already(observed):
    pool = observed.pool
    pool.observe("one")
    observation = pool.core.resolver.observation
    observation.tell = lambda wait: observation.observers.clear()
    pool.stop_observing("one")
    assert pool.core.resolver.observation is None
