"""From an event to what follows from it, in the thread that decides. With a machine of the test's, and no process."""

from __future__ import annotations

import threading
from collections import deque
from types import SimpleNamespace

import pytest

from pidfdpool import PoolBroken
from pidfdpool.loop import decisions
from pidfdpool.loop.decisions import Decisions
from pidfdpool.loop.task import Task
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.policy import Policy
from pidfdpool.scheduler.states import Phase
from pidfdpool.serialization import payload
from pidfdpool.template.recipe import Recipe
from tests.loop.test_parts import Recipient

SPAWN = do.Spawn(0, 1)


class Machine:
    """Decides what it is told to: `plan` has the actions for each event in turn."""

    def __init__(self):
        self.plan, self.events = deque(), []
        self.broken, self.phase, self.queue, self.due, self.given_up = None, Phase.OPEN, [], None, []
        self.policy, self.tasks, self.slots = Policy(1), {}, []

    def decide(self, event, _now):
        self.events.append(event)
        return self.plan.popleft() if self.plan else ()

    def deadline(self):
        return self.due

    def give_up(self, reason):
        self.given_up.append(reason)
        self.broken = reason


class Thread:
    started, failure, does_its_work, is_current = True, None, False, False

    def start(self):
        self.started = True


@pytest.fixture
def core(monkeypatch):
    recipe = Recipe(way="exec", preload=(), preload_call=None, initializer=None)
    core = Decisions(Policy(1), recipe, [], 1)
    real = core.poller
    core.poller = SimpleNamespace(wake=lambda: woken.append(1))
    woken = core.woken = []
    core.outbox._pool = SimpleNamespace(poller=core.poller, closed=False)
    core.machine, core.thread = Machine(), Thread()
    core.sleeps_until = None
    core.ran = []
    yield core
    core.leases.close()
    real.close()


def task(core, number):
    core.tasks[number] = made = Task(number, Recipient(), payload.dumps(None), "function", Policy(1))
    return made


def handler(core, kind, result=None):
    """Have an action of this kind noted, and lead to this."""
    seen = []

    def carry_out(action):
        assert core.lock._is_owned()
        seen.append(action)
        return result

    core._carry_out[kind] = carry_out
    return seen


def test_what_an_action_leads_to_is_decided_after_it_or_run_without_the_lock(core):
    core.machine.plan.extend([[SPAWN, do.Stop(0, 1)], ()])
    handler(core, do.Spawn, ev.SpawnFailed(0, 1, "no more"))
    handler(core, do.Stop, lambda: core.ran.append(core.lock._is_owned()))
    core.handle(ev.TemplateUp())
    assert core.machine.events == [ev.TemplateUp(), ev.SpawnFailed(0, 1, "no more")]
    assert core.ran == [False]


def test_an_event_that_interrupts_a_decision_is_decided_later(core):
    with core.lock:
        core.handle(ev.ResizeRequested(5))
    assert core.machine.events == []
    assert core.has_deferred
    assert core.woken
    core.catch_up()
    assert core.machine.events == [ev.ResizeRequested(5)]
    assert not core.has_deferred


def test_where_handlers_may_raise_the_pool_thread_decides(core, monkeypatch):
    monkeypatch.setattr(decisions.interruptible, "handlers_may_raise_here", lambda: True)
    core.handle(ev.ResizeRequested(5))
    assert (core.machine.events, core.has_deferred) == ([], True)
    core.thread.does_its_work = True
    core.catch_up()
    assert core.machine.events == [ev.ResizeRequested(5)]
    core.thread.does_its_work, core.thread.started = False, False
    core.handle(ev.ResizeRequested(6))
    assert core.machine.events[1:] == [ev.ResizeRequested(6)], "there is no other thread"


def test_a_decision_that_is_interrupted_breaks_the_pool_and_its_resolutions_are_left(core):
    core.machine.plan.append([SPAWN, do.Stop(0, 1)])
    handler(core, do.Spawn, lambda: core.ran.append("resolved"))

    def interrupt(_action):
        raise KeyboardInterrupt

    core._carry_out[do.Stop] = interrupt
    core.thread.started = False
    with pytest.raises(KeyboardInterrupt):
        core.handle(ev.TemplateUp())
    assert type(core.thread.failure) is KeyboardInterrupt
    assert core.thread.started, "somebody has to break it"
    assert "KeyboardInterrupt" in core.machine.given_up[0]
    assert [resolution() for resolution in core.outbox.left] == [None]
    assert core.ran == ["resolved"]
    core.machine.events.clear()
    core.handle(ev.ResizeRequested(5))
    assert core.machine.events == [], "nothing is to follow a decision that is half done"


@pytest.mark.parametrize("why", ["closed", "failed"])
def test_a_task_that_comes_too_late_fails_and_nothing_else_is_decided(core, why):
    late = task(core, 3)
    if why == "closed":
        core.closed = True
    else:
        core.thread.failure = KeyboardInterrupt()
    core.handle(ev.Submitted(3))
    core.handle(ev.Submitted(4))
    core.handle(ev.ResizeRequested(5))
    assert core.machine.events == []
    assert [type(error) for error in late.future.told] == [PoolBroken]
    assert core.tasks == {}


@pytest.mark.parametrize(
    ("sleeps_until", "due", "woken"),
    [(None, 5.0, 1), (7.0, 5.0, 1), (5.0, 5.0, 0), (3.0, 5.0, 0), (3.0, None, 0), (None, None, 0)],
)
def test_the_pool_thread_is_woken_if_something_is_due_before_its_wait_ends(core, sleeps_until, due, woken):
    core.sleeps_until, core.machine.due = sleeps_until, due
    core.handle(ev.ResizeRequested(5))
    assert len(core.woken) == woken
    core.handle(ev.ResizeRequested(6))
    assert len(core.woken) == woken, "once is enough"


def test_who_waits_for_workers_is_told_that_something_has_happened(core):
    over = []

    def wait():
        with core.lock:
            core.awaited += 1
            waiting.set()
            over.append(core.readiness.wait(20))

    waiting = threading.Event()
    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(20)
    core.handle(ev.ResizeRequested(5))
    thread.join(20)
    assert over == [True]


def test_workers_that_a_death_has_put_off_are_asked_for_by_the_next_decision_or_when_that_is_said(core):
    asked = []
    core.dispatcher._spawn = core._carry_out[do.Spawn] = lambda action: (
        core.dispatcher.deferred_spawns.append(action) if core.dispatcher.defers_spawns else asked.append(action)
    )
    for follow in (core.spawn_deferred, lambda: core.handle(ev.ResizeRequested(5))):
        core.machine.plan.append([SPAWN])
        with core.lock:
            core.decide_death(ev.Died(0, 1, None), None)
        assert asked == []
        follow()
        assert asked == [SPAWN]
        assert core.dispatcher.deferred_spawns == []
        asked.clear()
    core.machine.events.clear()
    core.spawn_deferred()
    assert core.machine.events == []


def test_what_failed_at_once_of_those_that_were_put_off_is_decided_before_the_event(core):
    core.dispatcher.deferred_spawns = [SPAWN]
    core.dispatcher._spawn = lambda action: ev.SpawnFailed(action.slot, action.generation, "no more")
    core.handle(ev.ResizeRequested(5))
    assert core.machine.events == [ev.SpawnFailed(0, 1, "no more"), ev.ResizeRequested(5)]


def test_a_task_that_waits_for_room_is_cancelled_without_a_decision(core):
    core.admission.waiting[3] = SimpleNamespace()
    core.handle(ev.Cancelled(3))
    assert (core.machine.events, core.admission.waiting) == ([], {})
    core.handle(ev.Cancelled(3))
    assert core.machine.events == [ev.Cancelled(3)]


def test_a_template_that_is_wanted_is_for_the_pool_thread_to_start(core):
    for started in (True, False):
        core.woken.clear()
        core.template_wanted, core.thread.started = False, started
        core.machine.plan.append([do.StartTemplate()])
        core.handle(ev.ResizeRequested(5))
        assert core.template_wanted
        assert bool(core.woken) is started
    core.machine.plan.append([do.Close()])
    core.handle(ev.ResizeRequested(5))
    assert core.closed


def test_a_pool_refuses_tasks_when_it_is_broken_or_shut_down_with_an_error_of_its_own_each_time(core):
    core.check_open()
    core.machine.phase = Phase.DRAINING
    with pytest.raises(RuntimeError, match="^cannot schedule new futures after shutdown$"):
        core.check_open()
    core.machine.broken = "somebody said so"
    first, second = core.refusal(), core.refusal()
    assert type(first) is PoolBroken
    assert first is not second


def test_the_script_and_a_stopped_template_are_told_of_once_there_is_one(core):
    asked = []
    core.resume_template()
    core.want_script()
    assert core.recipe.runs_script, "the next one is told at its start"
    core.dispatcher.template = SimpleNamespace(
        resume=lambda: asked.append("resume"), want_script=lambda: asked.append("script")
    )
    core.resume_template()
    core.want_script()
    assert asked == ["resume", "script"]


def test_the_pool_thread_needs_no_wake_up_of_its_own(core):
    core.thread.is_current = True
    core.wake_pool_thread()
    assert core.woken == []
    core.thread.is_current = False
    core.wake_pool_thread()
    assert core.woken == [1]


def test_others_could_notice_that_an_answer_lies_there(core):
    assert not core.has_waiting
    core.machine.queue.append(1)
    assert core.has_waiting
    core.machine.queue.clear()
    core.admission.waiting[3] = SimpleNamespace()
    assert core.has_waiting
    core.admission.waiting.clear()
    core.machine.phase = Phase.DRAINING
    assert core.has_waiting
