"""The turns of the pool thread: how long it sleeps, what it does when it wakes, and in which order it ends."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace

import pytest

from pidfdpool.loop import event_loop
from pidfdpool.loop.event_loop import RETRY, EventLoop
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import Phase
from tests.loop import test_thread_parts as parts
from tests.loop.test_thread_parts import Core, TemplateLink, Worker

NOW = 1000.0


class Clock:
    """Tells NOW until somebody sleeps or works."""

    def __init__(self):
        self.now, self.naps = NOW, []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.naps.append(seconds)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(event_loop, "time", clock)
    return clock


@pytest.fixture
def core():
    core = Core()
    core.machine.phase = Phase.OPEN
    return core


@pytest.fixture
def others(core):
    return parts.Parts(core)


@pytest.fixture
def loop(core, others):
    return EventLoop(core, others, others, others)


@pytest.fixture
def turn(core, loop, clock):
    """Give what takes one turn, and returns how long the thread was to sleep in it: a list of one, or of none."""

    def take():
        slept = []
        core.poller.wait = slept.append
        loop._turn(core)
        return slept

    return take


# ---- how long it sleeps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deadline", "slept"),
    [(None, [None]), (NOW + 5, [5]), (NOW + 1e-6, [0.001]), (NOW, []), (NOW - 5, [])],
    ids=["none", "later", "in a moment", "now", "past"],
)
def test_the_thread_sleeps_until_the_next_deadline_and_never_for_less_than_epoll_can_count(
    core, turn, deadline, slept
):
    held = []
    core.machine.deadline = lambda: held.append(core.lock._is_owned()) or deadline
    assert turn() == pytest.approx(slept)
    assert core.sleeps_until == deadline
    assert held == [True], "whoever decides meanwhile sees what this thread sleeps until"


@pytest.mark.parametrize("later", [None, NOW + 9, NOW + 1])
def test_whichever_comes_first_ends_the_sleep(core, loop, turn, others, later):
    soon = min(NOW + 2, later or NOW + 2)
    core.machine.deadline = lambda: later
    others.unreported = [SimpleNamespace(overdue_at=NOW + 2), SimpleNamespace(overdue_at=NOW + 3)]
    assert turn() == [soon - NOW]
    others.unreported = []
    core.resolver.observation = SimpleNamespace(work=lambda idle: None, due_at=lambda now: now + 2)
    assert turn() == [soon - NOW]
    core.resolver.observation = SimpleNamespace(work=lambda idle: None, due_at=lambda now: math.inf)
    assert turn() == [later and later - NOW]


@pytest.mark.parametrize("what", ["segments", "to_unmap", None])
def test_idle_segments_are_let_go_of_in_their_time_and_looked_at_only_if_there_are_any(core, turn, what):
    asked = []

    def release_idle(now, deadline):
        asked.append((now, deadline, core.lock._is_owned()))
        return NOW + 3

    core.leases.release_idle = release_idle
    core.machine.deadline = lambda: NOW + 5
    if what:
        getattr(core.leases.arena, what).append(1)
    assert turn() == [3 if what else 5]
    assert asked == [(NOW, NOW + 5, True)] * bool(what)


@pytest.mark.parametrize(
    ("waiting", "phase", "sleeps"),
    [([1], Phase.OPEN, True), ([1], Phase.DRAINING, False), ([], Phase.DRAINING, True)],
)
def test_while_callers_are_refused_that_wait_for_room_the_thread_does_not_sleep(core, turn, waiting, phase, sleeps):
    core.admission.waiting, core.machine.phase = waiting, phase
    assert turn() == ([None] if sleeps else [])


@pytest.mark.parametrize("deadline", [None, NOW + 5, NOW + RETRY / 2])
def test_what_another_thread_submits_for_a_lost_executor_is_waited_for_a_moment_at_a_time(core, loop, turn, deadline):
    loop.owner_lost = True
    loop.unsubmitted = SimpleNamespace(submit_without_waiting=lambda: False)
    core.machine.deadline = lambda: deadline
    turn()
    assert core.sleeps_until == min(NOW + RETRY, deadline or NOW + RETRY)
    assert core.events == []


def test_the_watchdog_may_shorten_the_sleep_and_looks_after_it(core, turn, clock):
    order = []
    core.watchdog.limit = lambda seconds: order.append(seconds) or 0.003
    core.watchdog.look = lambda: order.append("look")
    core.machine.deadline = lambda: NOW + 5
    assert turn() == [0.003]
    assert order == [5, "look"]
    order.clear()
    clock.now = NOW + 5
    turn()
    assert order == [], "it has not waited"


@pytest.mark.parametrize("greenlets", [True, False])
def test_other_greenlets_have_their_turn_between_two_slices_of_long_work(core, turn, clock, greenlets):
    core.poller.among_greenlets = greenlets
    core.machine.deadline = lambda: NOW
    turn()
    assert clock.naps == [0] * greenlets
    core.machine.deadline = lambda: NOW + 1
    turn()
    assert clock.naps == [0] * greenlets, "its wait gives them theirs"


def test_a_pool_that_was_closed_in_this_turn_is_not_waited_for(core, loop, turn, others):
    others.start_if_wanted = lambda: setattr(core, "closed", True)
    assert turn() == []
    core.machine.deadline = lambda: NOW
    turn()
    assert core.events == []


def test_nothing_is_judged_before_its_time(core, turn, clock):
    core.machine.deadline = lambda: NOW + 5
    turn()
    assert core.events == []
    core.poller.serve_all = lambda: core.log.append("read all")
    clock.now = NOW + 5
    turn()
    assert core.events == [ev.Tick(read_until=NOW + 5)]


def test_observers_are_told_in_their_turn_and_whether_there_is_anything_else_to_do(core, turn):
    told = []
    core.resolver.observation = SimpleNamespace(
        work=lambda idle: told.append((idle, core.lock._is_owned())),
        due_at=lambda now: told.append(("due", now, core.lock._is_owned())) or math.inf,
    )
    turn()
    core.tasks[1] = None
    turn()
    assert told == [(True, False), ("due", NOW, True), (False, False), ("due", NOW, True)], "asked under the lock"


def test_what_the_executor_has_left_is_submitted_before_the_pool_is_shut_down(core, loop, turn):
    loop.owner_lost = True
    loop.unsubmitted = SimpleNamespace(submit_without_waiting=lambda: core.log.append("submitted") or True)
    turn()
    turn()
    assert [each for each in core.log if each == "submitted" or isinstance(each, ev.Event)] == [
        "submitted",
        ev.ShutdownRequested(),
    ]
    assert (loop.owner_lost, loop.unsubmitted) == (False, None)


# ---- judging -----------------------------------------------------------------------------------------------------


def test_judged_is_what_was_read_by_the_moment_in_which_reading_began(core, loop, clock, others):
    def serve_all():
        clock.now += 1
        core.log.append(("read all", others.reads_all))

    core.poller.serve_all = serve_all
    others.remove_overdue = lambda now: core.log.append((now, core.poller.serving._is_owned()))
    loop._judge(core)
    assert core.log == [("read all", True), (NOW, True), ev.Tick(read_until=NOW)]
    assert not others.reads_all


def test_what_is_raised_while_all_is_read_does_not_make_each_later_turn_read_all(core, loop, others):
    core.poller.serve_all = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        loop._judge(core)
    assert not others.reads_all


# ---- the end -----------------------------------------------------------------------------------------------------


def test_the_end_goes_step_by_step(core, loop):
    Worker(core)
    TemplateLink(core)

    def step(name):
        return lambda: core.log.append((name, core.lock._is_owned(), core.closed))

    core.leadership = SimpleNamespace(end=step("leadership"), close=step("leadership closed"))
    core.watchdog.end, core.leases.close = step("watchdog"), step("leases")
    core.admission.refuse = lambda: step("refused")() or ["refusal"]
    core.outbox.finish = lambda: core.log.append(("finish", list(core.outbox.left)))
    core.resolver.observation = SimpleNamespace(
        work=lambda idle: setattr(core, "closed", True),
        due_at=lambda now: math.inf,
        gather=step("gathered"),
        end=step("observation"),
    )
    core.thread.note_end = step("told")
    loop.run()
    assert core.log[3:] == [
        *(("leadership", False, True), ("watchdog", False, True), ("refused", True, True)),
        ("gathered", True, True),
        *("close 0", ("leases", True, True), "close template", ("leadership closed", True, True)),
        *(("finish", ["refusal"]), "catch up", ("observation", False, True), ("told", False, True)),
    ]


@pytest.mark.parametrize(("error", "level"), [(ValueError("a"), logging.CRITICAL), (SystemExit(1), logging.INFO)])
def test_of_a_failure_of_the_pools_own_it_is_complained_and_not_of_an_exit(core, loop, others, caplog, error, level):
    def fail():
        raise error

    others.start_if_wanted = fail
    with caplog.at_level(logging.DEBUG, "pidfdpool"):
        loop.run()
    assert [(record.levelno, record.exc_info[1]) for record in caplog.records] == [(level, error)]
    assert core.resolver.cause is error
    assert core.closed


def test_the_pool_is_closed_under_the_lock_before_anything_is_let_go_of(loop, core):
    """A thread that submits has found it open, and is done with that; or finds it closed."""

    class Closing(type(core)):
        def __setattr__(self, name, value):
            if name == "closed":
                held.append((value, self.lock._is_owned()))
            super().__setattr__(name, value)

    held = []
    core.__class__ = Closing
    core.poller.wait = lambda _seconds: vars(core).update(closed=True)
    loop.run()
    assert held == [(True, True)]


def test_a_failure_in_another_thread_breaks_the_pool_before_anything_else_is_done(core, loop):
    core.thread.failure = KeyboardInterrupt()
    reasons = []
    core.machine.give_up = reasons.append
    loop.run()
    assert core.resolver.cause is core.thread.failure
    assert len(reasons) == 1
    assert core.log == ["finish", "catch up"]
