"""What a machine tells of itself, which events it does not hear, and when it is to be asked again."""

from __future__ import annotations

import math

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.machine import Machine
from pidfdpool.scheduler.policy import Policy
from pidfdpool.scheduler.pool_state import PoolState
from pidfdpool.scheduler.restart_limits import RestartLimiter
from pidfdpool.scheduler.states import Phase, Slot, State, Template
from pidfdpool.scheduler.timers import Timer, Timers
from pidfdpool.scheduler.workforce import Workforce
from tests.scheduler.driving import KILLED, started
from tests.scheduler.parts import Parts

# ---- a new pool ------------------------------------------------------------------------------------------------


def test_a_new_machine_has_nothing_and_wants_nothing():
    machine = Machine(Policy(max_workers=3))
    assert (machine.phase, machine.broken, machine.template) == (Phase.OPEN, None, Template.DOWN)
    assert (machine.size, machine.level, machine.deaths, machine.restarts) == (3, 0, 0, 0)
    assert (machine.retries, machine.template_restarts, machine.deadline()) == (0, 0, None)
    assert not machine.tasks
    assert not machine.slots
    assert machine.decide(ev.Tick(), 1.0) == []
    assert Machine(Policy(max_workers=3), 2).size == 2


def test_a_new_pool_has_not_booted_is_not_killed_and_has_forked_nothing():
    state = PoolState(Policy(max_workers=3))
    assert (state.template_booted, state.killing, state.forked_at) == (False, False, -math.inf)
    assert (state.prestart, state.template_starts, state.actions, state.holds) == (0, 0, [], set())


def test_what_a_machine_has_counted_can_be_read():
    machine = started(1, retries=1, retry_backoff=0.0)
    machine.decide(ev.Submitted(1), 1.0)
    machine.decide(ev.Died(0, 1, KILLED), 2.0)
    assert (machine.deaths, machine.restarts, machine.retries, machine.level) == (1, 1, 1, 1)
    assert machine.template is Template.UP
    machine.decide(ev.TemplateLost("killed"), 3.0)
    assert machine.template is Template.DOWN
    machine.decide(ev.Tick(), 99.0)
    assert (machine.template, machine.template_restarts) == (Template.STARTING, 1)
    machine.decide(ev.ResizeRequested(4), 99.0)
    assert machine.size == 4
    machine.decide(ev.TemplateUnusable("no good"), 99.0)
    assert (machine.broken, machine.phase) == ("no good", Phase.CLOSED)


def test_a_machine_that_was_given_up_is_closed_and_names_the_first_reason():
    machine = started(1)
    for reason in ("first", "second"):
        machine.give_up(reason)
        assert (machine.broken, machine.phase) == ("first", Phase.CLOSED)


# ---- events ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("slot", "generation"), [(0, 99), (1, 1), (0, 2)])
def test_news_of_a_worker_that_is_not_there_is_late(slot, generation):
    machine = started(2)
    assert machine.decide(ev.Died(slot, generation, KILLED), 1.0) == []
    assert machine.deaths == 0


def test_a_worker_that_speaks_out_of_turn_is_killed():
    machine = started(1)
    assert machine.decide(ev.Finished(0, 1, 7), 1.0) == [do.Signal(0, 1, 9)]
    assert machine.slots[0].cause is Cause.BABBLE


def test_actions_belong_to_one_decision():
    machine = started(1)
    assert machine.decide(ev.Submitted(1), 1.0) == [do.Send(0, 1, 1)]
    assert machine.decide(ev.Tick(), 1.0) == []


def test_at_a_tick_all_that_was_due_comes_and_nothing_later_and_nothing_unheard_of():
    machine = started(1)
    for number, deadline in ((1, None), (2, 5.0), (3, 6.0), (4, 7.0)):
        machine.decide(ev.Submitted(number, machine.policy.refined({"deadline": deadline})), 0.0)
    assert machine.deadline() == 5.0
    assert machine.decide(ev.Tick(read_until=4.9), 9.0) == []
    assert machine.decide(ev.Tick(), 6.0) == [do.Expire(2), do.Expire(3)]
    assert machine.deadline() == 7.0


def test_a_timer_of_a_worker_that_is_gone_does_nothing():
    machine = started(1)
    machine.timers.set((Timer.STOP, 99), 1.0)
    assert machine.decide(ev.Tick(), 2.0) == []


def test_a_machine_is_asked_again_at_the_first_of_timers_and_the_end_of_a_pause():
    machine = Machine(Policy(max_workers=1, deadline=5.0, backoff=2.0))
    machine.decide(ev.TemplateUp(), 0.0)
    machine.decide(ev.Submitted(1), 0.0)
    assert machine.deadline() == 5.0
    machine.decide(ev.SpawnFailed(0, 1, "no"), 1.0)
    assert machine.deadline() == 3.0
    machine = Machine(Policy(max_workers=1, backoff=9.0, backoff_limit=9.0))
    machine.decide(ev.TemplateUp(), 0.0)
    machine.decide(ev.Submitted(1), 0.0)
    machine.decide(ev.SpawnFailed(0, 1, "no"), 1.0)
    assert machine.deadline() == 10.0


def test_a_machine_looks_again_for_an_idle_worker_when_a_task_may_have_taken_long():
    """What waits behind that goes to the other one then."""
    machine = started(2, prefetch=1.0)
    machine.prefetcher.pace = 0.0001
    for number in range(1, 6):
        machine.decide(ev.Submitted(number), 1.0)
    giving = max(machine.slots, key=lambda slot: len(slot.ahead))
    [free] = [slot for slot in machine.slots if slot is not giving]
    assert len(giving.ahead) == 2
    while free.task is not None:
        machine.decide(ev.Finished(free.index, free.generation, free.task, seconds=0.0001), 1.0002)
    at = machine.deadline()
    assert at == pytest.approx(1.0012)
    assert machine.decide(ev.Tick(), at) == [do.TakeBack(giving.index, giving.generation, 2)]


# ---- slots and timers ------------------------------------------------------------------------------------------


def test_no_two_timers_are_the_same_and_those_of_workers_come_first():
    assert len(Timer.__members__) == len({timer.value for timer in Timer}) == 17
    assert len({state.value for state in State}) == len(State.__members__) == 5
    assert len(Phase.__members__) == 4
    assert len({*Template}) == 5


def test_a_slot_begins_anew_with_each_worker():
    slot = Slot(3)
    fresh = Slot(3)
    fresh.occupy(8, 2.0)
    slot.occupy(7, 1.0)
    slot.leaving = slot.end_expected = slot.recall_pending = True
    slot.retire_cause = slot.cause = Cause.AGE
    slot.pid = slot.task = slot.kill_requested_for = 5
    slot.ready_at = slot.busy_since = 1.5
    slot.ahead.append(6)
    slot.rebalanced = slot.tasks_done = slot.to_drop = 2
    slot.detail = "no disk"
    slot.counted = False
    slot.occupy(8, 2.0)
    slot.busy_since = fresh.busy_since  # nobody asks for it before the worker has a task
    for name in Slot.__slots__:
        assert getattr(slot, name) == getattr(fresh, name), name
    assert (slot.state, slot.generation, slot.requested_at, slot.counted) == (State.STARTING, 8, 2.0, True)
    assert Slot(3).state is State.DEAD
    assert not any((Slot(3).counted, Slot(3).leaving, Slot(3).end_expected, Slot(3).recall_pending))
    assert (Slot(3).tasks_done, Slot(3).to_drop, Slot(3).rebalanced, Slot(3).generation) == (0, 0, 0, 0)


def test_a_slot_is_the_same_as_itself_only():
    """However much two of them look alike: lists of slots are searched."""
    one, other = Slot(3), Slot(3)
    assert one != other
    assert len({one, other}) == 2


def test_a_slot_that_is_vacated_is_nobodys_and_the_first_to_be_used_again():
    workforce = Workforce(Timers())
    slots = [workforce.occupy(0.0) for _ in range(3)]
    for slot in slots:
        slot.ready_at, slot.cause = 1.0, Cause.AGE
    workforce.move(slots[2], State.IDLE)
    workforce.retiring.append(slots[0])
    for slot in (slots[2], slots[0]):
        workforce.vacate(slot)
    assert (list(workforce.workers()), workforce.active, workforce.idle, workforce.retiring) == (
        [slots[1]],
        1,
        [],
        [],
    )
    assert (slots[0].ready_at, slots[0].cause, slots[0].counted) == (None, None, False)
    assert [workforce.occupy(2.0).index for _ in range(3)] == [0, 2, 3]
    assert workforce.counts[State.STARTING] == 4


def test_a_heap_of_timers_is_made_anew_only_when_most_of_it_is_over():
    timers = Timers()
    for generation in range(200):
        timers.set((Timer.AGE, generation), 1000.0 + 37 * generation % 200)
    heap = timers._heap
    for moment in range(64 + 2 * 200 - 200):
        timers.set((Timer.AGE, 0), 2000.0 + moment)
    assert timers._heap is heap
    timers.set((Timer.AGE, 0), 5.0)
    assert timers._heap is not heap
    assert len(timers._heap) == 200
    come = [timers.pop_due(2000.0) for _ in range(200)]
    assert come == [(Timer.AGE, 0), *((Timer.AGE, at * 173 % 200) for at in range(1, 200))]  # 37 * 173 % 200 is 1
    assert timers.next() is None


# ---- deaths and breaks -----------------------------------------------------------------------------------------


def test_a_death_as_old_as_the_period_still_counts():
    limiter = RestartLimiter(Policy(1, intensity=1, period=10.0))
    assert limiter.young_death("a", 0.0) is None
    assert "2 processes died within 10 s" in limiter.young_death("b", 10.0)
    limiter = RestartLimiter(Policy(1, intensity=1, period=10.0))
    assert limiter.young_death("a", 0.0) is None
    assert limiter.young_death("b", 10.1) is None


def test_a_death_at_the_end_of_a_pause_is_of_the_next_round():
    limiter = RestartLimiter(Policy(500, backoff=1.0, backoff_limit=1.0))
    told = [limiter.young_death("killed", float(now)) for now in range(8)]
    assert told[:7] == [None] * 7
    assert "died 8 times in a row, after growing pauses" in told[7]


def test_what_is_not_fatal_makes_the_pause_grow_and_is_no_round():
    limiter = RestartLimiter(Policy(500, backoff=1.0, backoff_limit=8.0))
    for now in range(0, 900, 9):
        assert limiter.young_death("killed", float(now), fatal=False) is None
    assert (limiter.streak, limiter.not_before) == (100, 891 + 8.0)
    limiter.task_finished()
    assert limiter.streak == 0


def test_a_task_that_finishes_ends_the_rounds_and_what_is_recent():
    limiter = RestartLimiter(Policy(1, intensity=1, period=1000.0))
    for now in range(20):
        assert limiter.young_death("killed", float(now)) is None
        limiter.task_finished()
    limiter = RestartLimiter(Policy(1, backoff_limit=0.1))
    for now in range(20):
        assert limiter.young_death("killed", float(now)) is None
        if now % 7 == 6:
            limiter.task_finished()


@pytest.mark.parametrize("running", ["forked", "asked for", "none"])
def test_a_pool_breaks_for_want_of_workers_only_if_none_is_there(running):
    parts = Parts(500, period=10.0)
    if running != "none":
        parts.workforce.occupy(0.0).pid = 77 if running == "forked" else None
    for now in (0.0, 10.0):
        parts.breaker().failed_start("no fork", now, fatal=False)
    assert parts.state.broken == (
        None if running == "forked" else "no process could be started for 10 s; the last: no fork"
    )


def test_workers_that_come_end_the_wait_for_the_first():
    limiter = RestartLimiter(Policy(500, period=10.0))
    assert limiter.failed_start("no", 0.0, fatal=False, any_running=False) is None
    assert limiter.failed_start("no", 5.0, fatal=False, any_running=True) is None
    assert limiter.failed_start("no", 12.0, fatal=False, any_running=False) is None
    assert limiter.failed_start("no", 21.9, fatal=False, any_running=False) is None
    assert limiter.failed_start("no", 22.0, fatal=False, any_running=False) is not None


def test_a_pool_that_breaks_waits_for_nothing_of_its_tasks_and_keeps_the_causes_of_its_workers():
    parts = Parts(timeout=5.0)
    slot = parts.worker(State.BUSY, 1)
    slot.cause = Cause.MEMORY
    for key in ((Timer.TIMEOUT, 1), (Timer.HEARTBEAT, 1), (Timer.RETRY, 2)):
        parts.timers.set(key, 5.0)
    parts.add_task(2)
    parts.state.delayed.add(2, 0)
    parts.state.template = Template.STARTING
    parts.breaker().break_pool("no good", 1.0)
    assert parts.actions() == [do.FailBroken(1, "no good"), do.FailBroken(2, "no good"), do.Signal(0, 1, 9)]
    assert (slot.cause, parts.timers.next(), parts.state.template) == (Cause.MEMORY, None, Template.STARTING)
    assert parts.state.tasks == {}


# ---- commands --------------------------------------------------------------------------------------------------


def test_a_worker_that_is_to_be_replaced_comes_behind_the_others_that_are_idle():
    parts = Parts(3)
    first, second = parts.worker(), parts.worker()
    parts.commands.retire(second, Cause.AGE, 1.0)
    assert parts.workforce.idle == [second.index, first.index]
    parts.commands.retire(second, Cause.RETIRED, 1.0)
    assert (second.retire_cause, parts.workforce.retiring, parts.workforce.active) == (Cause.AGE, [second], 1)
    busy = parts.worker(State.BUSY, 1)
    busy.leaving = True
    parts.commands.retire(busy, Cause.AGE, 1.0)
    assert parts.workforce.retiring == [second], "it leaves after its task, and waits for nobody"
