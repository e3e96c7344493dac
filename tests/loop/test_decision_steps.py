"""What a decision takes into account, in which order its consequences come, and who may decide at all."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from pidfdpool import PoolBroken
from pidfdpool.deaths import Cause
from pidfdpool.loop import decisions
from pidfdpool.loop.backpressure import SLICE, Waiter
from pidfdpool.loop.death_reports import MOST_IN_ERRORS, Evidence
from pidfdpool.loop.decisions import Decisions
from pidfdpool.loop.outcomes import Outcome
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.policy import Policy
from pidfdpool.scheduler.states import Phase
from pidfdpool.serialization import payload
from pidfdpool.template.recipe import Recipe
from pidfdpool.transport import framing
from tests.loop.test_decisions import SPAWN, Machine, Thread, handler, task


def recipe(**options):
    return Recipe(way="exec", preload=(), preload_call=None, initializer=None, **options)


@pytest.fixture
def core():
    core = Decisions(Policy(1), recipe(), [], 1)
    real = core.poller
    core.poller = SimpleNamespace(wake=lambda: woken.append(1), among_greenlets=False)
    woken = core.woken = []
    core.outbox._pool = SimpleNamespace(poller=core.poller, closed=False)
    core.machine, core.thread = Machine(), Thread()
    core.admission.owner = "the pool"
    core.sleeps_until = None
    yield core
    core.leases.close()
    real.close()


class Other(Thread):
    is_current = True


EVENT = ev.ResizeRequested(5)


# ---- who may decide ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raising", [False, True])
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("works", [False, True])
def test_decisions_are_left_to_a_thread_that_no_handler_interrupts_if_there_is_one(
    core, monkeypatch, raising, started, works
):
    monkeypatch.setattr(decisions.interruptible, "handlers_may_raise_here", lambda: raising)
    core.thread.started, core.thread.does_its_work = started, works
    deferred = raising and started and not works
    assert core.defers is deferred
    core.handle(EVENT)
    assert (core.machine.events, core.has_deferred) == ([] if deferred else [EVENT], deferred)
    assert bool(core.woken) is deferred


def test_who_has_interrupted_the_pools_work_or_does_it_is_at_work(core):
    assert not core.is_at_work_here
    assert not core.is_reentered
    with core.lock:
        assert core.is_at_work_here
        assert core.is_reentered
    core.thread.does_its_work = True
    assert core.is_at_work_here
    assert not core.is_reentered


@pytest.mark.parametrize(("started", "greenlets", "may"), [(True, False, True), (False, False, False),
                                                          (True, True, False), (False, True, False)])  # fmt: skip
def test_threads_read_channels_only_beside_a_thread_that_is_none_of_the_hosts_greenlets(
    core, started, greenlets, may
):
    core.thread.started, core.poller.among_greenlets = started, greenlets
    assert core.may_lead is may


def test_what_was_deferred_is_decided_in_its_order_and_then_what_was_left_is_run(core):
    log = []
    core.outbox.left.append(lambda: log.append(list(core.machine.events)))
    for size in (5, 6):
        core.defer(ev.ResizeRequested(size))
    assert core.woken == [1, 1]
    core.catch_up()
    assert log == [[ev.ResizeRequested(5), ev.ResizeRequested(6)]]
    assert not core.has_deferred


# ---- what is taken into account ----------------------------------------------------------------------------------


def test_an_outcome_comes_along_to_who_resolves_the_future(core):
    done = task(core, 3)
    core.machine.plan.append([do.Deliver(3)])
    outcome = Outcome(framing.Frame(framing.RESULT, 0, 0, 3, payload.dumps("value")))
    core.handle(ev.Finished(0, 1, 3, False, False, 0, 0.0, 1), outcome)
    assert done.future.told == ["value"]


def test_the_evidence_of_a_death_comes_along_to_who_reports_it(core):
    from pidfdpool.pidfd import ExitStatus

    told = []
    core.resolver.deaths._subscribers.append(told.append)
    core.machine.plan.append([do.ReportDeath(0, 1, 5, Cause.CRASH, ExitStatus(signal=9), 1.0, 0)])
    with core.lock:
        resolutions = core.decide_death(ev.Died(0, 1, None), Evidence(stderr=("a line",)))
    assert told == []
    core.outbox.run(resolutions)
    assert [death.stderr for death in told] == [("a line",)]


def test_who_observes_is_told_of_each_event_with_its_actions_before_they_are_carried_out(core):
    log = []
    core.resolver.observation = SimpleNamespace(note_decision=lambda *given: log.append(given))
    failed = ev.SpawnFailed(0, 1, "no more")
    core.machine.plan.extend([[SPAWN], ()])
    core._carry_out[do.Spawn] = lambda action: log.append(action) or failed
    core.handle(EVENT)
    assert log == [(EVENT, [SPAWN]), SPAWN, (failed, ())]


def test_events_that_follow_are_decided_in_the_order_in_which_they_came(core):
    first, second, third = (ev.SpawnFailed(slot, 1, "no more") for slot in range(3))
    core.machine.plan.extend([[SPAWN, do.Stop(0, 1)], [do.DumpStack(0, 1)]])
    for kind, following in ((do.Spawn, first), (do.Stop, second), (do.DumpStack, third)):
        handler(core, kind, following)
    core.handle(EVENT)
    assert core.machine.events == [EVENT, first, second, third]


@pytest.mark.parametrize("event", [ev.Cancelled(4), EVENT])
def test_only_a_cancellation_of_what_waits_for_room_needs_no_decision(core, event):
    core.admission.waiting[3] = SimpleNamespace()
    core.handle(event)
    assert core.machine.events == [event]


# ---- room --------------------------------------------------------------------------------------------------------


def waiting(core, count):
    """Have so many tasks wait for room, for which there is one place."""
    core.machine.policy = Policy(1, max_pending=1)
    task(core, 1)
    waiters = []
    for number in range(2, 2 + count):
        each = task(core, number)
        del core.tasks[number]
        each.policy = core.machine.policy
        waiters.append(Waiter(each, blocks=False))
        with core.lock:
            assert core.admission.must_wait(waiters[-1])
    return waiters


def test_who_waits_for_room_is_accepted_when_all_that_follows_is_decided(core):
    waiting(core, 2)
    core.machine.plan.extend([[SPAWN], [do.Stop(0, 1)], ()])
    failed, second = ev.SpawnFailed(0, 1, "no more"), ev.SpawnFailed(1, 1, "no more")
    core._carry_out[do.Spawn] = lambda _action: core.tasks.clear() or failed
    handler(core, do.Stop, second)
    core.handle(EVENT)
    assert core.machine.events == [EVENT, failed, second, ev.Submitted(2, None, False)]
    assert set(core.admission.waiting) == {3}
    assert set(core.tasks) == {2}


@pytest.mark.parametrize("count", [1, SLICE, SLICE + 3])
def test_when_a_pool_ends_those_that_wait_for_room_are_refused_some_at_a_time(core, count):
    waiters = waiting(core, count)
    core.machine.phase = Phase.CLOSING
    core.woken.clear()
    core.handle(EVENT)
    refused = min(count, SLICE)
    assert [len(waiter.task.future.told) for waiter in waiters] == [1] * refused + [0] * (count - refused)
    assert len(core.woken) == (count > SLICE), "for the next slice"
    if count > SLICE:
        core.handle(ev.Tick(read_until=0.0))
        assert core.admission.waiting == {}


def test_while_a_pool_is_open_nobody_is_refused(core):
    waiting(core, 1)
    core.handle(EVENT)
    assert set(core.admission.waiting) == {2}


# ---- what comes of it --------------------------------------------------------------------------------------------


def test_a_decision_that_somebody_waits_for_is_told_to_all_of_them_and_others_cost_nothing(core):
    told = []
    core.readiness = SimpleNamespace(notify_all=lambda: told.append(core.lock._is_owned()))
    core.handle(EVENT)
    assert told == []
    core.awaited = 2
    core.handle(EVENT)
    assert told == [True]


def test_the_time_until_which_the_pool_thread_sleeps_is_known_to_the_next_who_decides(core):
    core.machine.due = 5.0
    core.handle(EVENT)
    assert (core.sleeps_until, core.woken) == (5.0, [1])
    core.machine.due = 4.0
    core.handle(EVENT)
    assert (core.sleeps_until, core.woken) == (4.0, [1, 1])
    core.machine.due = 4.5
    core.handle(EVENT)
    assert (core.sleeps_until, core.woken) == (4.0, [1, 1])


def test_a_new_pools_thread_needs_no_wake_up_before_it_has_looked():
    core = Decisions(Policy(1), recipe(), [], 1)
    woken = []
    core.poller, real = SimpleNamespace(wake=lambda: woken.append(1)), core.poller
    core.machine = Machine()
    core.machine.due = 5.0
    core.handle(EVENT)
    assert woken == []
    assert (core.closed, core.abandoned, core.template_wanted, core.awaited, core.submitted) == (
        False, False, False, 0, 0
    )  # fmt: skip
    assert (core.logs, core.template, core.has_deferred) == (None, None, False)
    core.leases.close()
    real.close()


def test_workers_are_no_longer_put_off_when_the_decision_about_a_death_fails(core):
    def interrupt(*_):
        raise KeyboardInterrupt

    core.machine.decide = interrupt
    with core.lock, pytest.raises(KeyboardInterrupt):
        core.decide_death(ev.Died(0, 1, None), Evidence())
    assert not core.dispatcher.defers_spawns


def test_while_workers_are_put_off_what_was_put_off_before_stays_so(core):
    core.dispatcher.deferred_spawns = [SPAWN]
    with core.lock:
        core.decide_death(ev.Died(0, 1, None), Evidence())
    assert core.dispatcher.deferred_spawns == [SPAWN]


@pytest.mark.parametrize("late", [ev.Cancelled(3), ev.Finished(0, 1, 3, False, False, 0, 0.0, 1)])
def test_what_comes_too_late_for_a_closed_pool_fails_no_task(core, late):
    each = task(core, 3)
    core.closed = True
    core.handle(late)
    assert (core.tasks, each.future.told, core.woken) == ({3: each}, [], [])


def test_a_task_that_came_too_late_says_that_the_pool_is_shut_down(core):
    each = task(core, 3)
    core.closed = True
    core.handle(ev.Submitted(3))
    assert "the pool is shut down" in str(each.future.told[0])
    assert core.resolver.failed == 1


# ---- failures ----------------------------------------------------------------------------------------------------


def test_a_decision_that_fails_is_seen_by_all_before_the_pool_thread_is_woken_for_it(core):
    seen, error = [], ZeroDivisionError("why")
    core.thread.start = lambda: seen.append((core.thread.failure, list(core.machine.given_up)))
    core.poller.wake = lambda: seen.append("woken")
    core.fail(error)
    assert seen == [(error, ["the pool's own machinery failed: ZeroDivisionError('why')"]), "woken"]
    assert isinstance(core.refusal(), PoolBroken)


def test_what_a_failed_decision_had_resolved_is_left_in_its_order(core):
    for number in (3, 4, 5):
        task(core, number)
    core.machine.plan.append([do.Cancel(3), do.Cancel(4), SPAWN, do.Cancel(5)])

    def interrupt(_action):
        raise KeyboardInterrupt

    core._carry_out[do.Spawn] = interrupt
    with pytest.raises(KeyboardInterrupt):
        core.handle(EVENT)
    assert [resolution.task.number for resolution in core.outbox.left] == [3, 4]
    assert set(core.tasks) == {5}
    assert not core.lock._is_owned()


# ---- the template, logs and the thread ---------------------------------------------------------------------------


def test_the_end_of_a_pool_wakes_its_thread(core):
    core.machine.plan.append([do.Close()])
    core.handle(EVENT)
    assert (core.closed, core.woken) == (True, [1])


@pytest.mark.parametrize("levels", [None, "levels"])
def test_logs_are_relayed_once_if_the_recipe_says_so(core, levels, monkeypatch):
    from pidfdpool.loop import log_relay

    made = []
    monkeypatch.setattr(log_relay, "LogRelay", lambda *given: made.append(given) or SimpleNamespace())
    core.recipe.log_levels = levels
    core.relay_logs()
    core.relay_logs()
    assert made == ([] if levels is None else [(core.recipe, core)])
    assert (core.logs is None) is (levels is None)
    assert core.logs is core.dispatcher.logs


def test_the_script_and_a_resumed_template_are_asked_for_with_the_lock(core):
    held = []
    core.dispatcher.template = template = SimpleNamespace(
        resume=lambda: held.append(core.lock._is_owned()), want_script=lambda: held.append(core.lock._is_owned())
    )
    core.resume_template()
    core.want_script()
    assert held == [True, True]
    assert core.template is template


@pytest.mark.parametrize(("allowed", "kept"), [(0, 1), (3, 4), (10**9, MOST_IN_ERRORS + 1)])
def test_as_many_deaths_are_remembered_as_may_break_a_pool(allowed, kept):
    """An error tells of all of them, and of the one that broke the pool."""
    core = Decisions(Policy(1, intensity=allowed), recipe(), [], 1)
    remembered = core.resolver.deaths.recent.maxlen
    core.leases.close()
    core.poller.close()
    assert remembered == kept


def test_a_pool_thread_of_its_own_looks_before_it_sleeps_and_is_not_woken_by_itself(core):
    core.thread = Other()
    core.wake_pool_thread()
    assert core.woken == []
    ran = threading.Thread(target=core.wake_pool_thread)
    core.thread = Thread()
    ran.start()
    ran.join(20)
    assert core.woken == [1]


def test_the_pool_thread_is_woken_when_there_is_something_for_it_and_not_before(core):
    seen = []
    core.poller.wake = lambda: seen.append(core.has_deferred)
    core.defer(EVENT)
    assert seen == [True]


def test_the_pool_is_closed_before_its_thread_is_woken_for_that(core):
    seen = []
    core.poller.wake = lambda: seen.append((core.closed, core.template_wanted))
    core.machine.plan.append([do.StartTemplate(), do.Close()])
    core.handle(EVENT)
    assert seen == [(False, True), (True, True)]
