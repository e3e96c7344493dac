"""How many workers a pool starts, holds and lets go, and how it ends, decided alone: every bound and every order."""

from __future__ import annotations

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import Phase, State, Template
from pidfdpool.scheduler.timers import Timer
from tests.scheduler.parts import Parts


def up(workers: int = 2, queued: int = 0, **policy) -> Parts:
    parts = Parts(workers, **policy)
    parts.state.template = Template.UP
    for number in range(1, queued + 1):
        parts.add_task(number, queued=True)
    return parts


def stopped(parts: Parts) -> list[int]:
    return [action.slot for action in parts.actions() if isinstance(action, do.Stop)]


# ---- the template ----------------------------------------------------------------------------------------------


def test_a_template_that_is_up_has_yet_to_boot():
    parts = Parts()
    parts.state.template_booted = True
    parts.pool_rules().on_template_up(ev.TemplateUp(), 1.0)
    assert (parts.state.template, parts.state.template_booted) == (Template.UP, False)


def test_forks_that_were_asked_for_before_it_booted_are_expected_from_then_on():
    parts = up(spawn_timeout=5.0)
    parts.worker()
    parts.workforce.occupy(0.0)
    parts.pool_rules().on_template_booted(ev.TemplateBooted(), 1.0)
    assert parts.state.template_booted
    assert parts.timers.pop_due(6.0) == (Timer.FORK, 2)
    assert parts.timers.next() is None, "the other one was forked"


@pytest.mark.parametrize("booted", [False, True])
def test_a_fork_is_expected_in_time_by_a_template_that_has_booted_only(booted):
    parts = up(queued=1, spawn_timeout=5.0)
    parts.state.template_booted = booted
    parts.pool_rules().refill(1.0)
    assert parts.timers.next() == (6.0 if booted else None)


def test_a_template_that_is_lost_has_not_booted():
    parts = up()
    parts.state.template_booted = True
    parts.pool_rules().on_template_unusable(ev.TemplateUnusable("no"), 1.0)
    assert (parts.state.template, parts.state.template_booted) == (Template.DOWN, False)


@pytest.mark.parametrize("why", ["asked", "otherwise", "closing", "unasked"])
def test_only_an_unasked_loss_of_the_template_counts(why):
    parts = up(intensity=0)
    if why == "asked":
        parts.state.template = Template.STOPPING
    elif why == "closing":
        parts.state.phase = Phase.CLOSING
    parts.pool_rules().on_template_lost(ev.TemplateLost("killed", starts_otherwise=why == "otherwise"), 1.0)
    assert parts.limiter.streak == int(why == "unasked")
    if why == "unasked":
        assert parts.state.broken.endswith("the last: the template was lost: killed")


@pytest.mark.parametrize("template", [Template.STARTING, Template.STUCK, Template.STOPPING])
def test_no_worker_and_no_other_template_is_asked_for_while_one_comes_or_goes(template):
    parts = up(queued=1)
    parts.state.template = template
    rules = parts.pool_rules()
    rules.refill(1.0)
    assert (parts.actions(), rules.next_spawn(), parts.state.template_starts) == ([], None, 0)


def test_a_template_is_started_for_workers_that_are_wanted_and_for_none():
    parts = Parts()
    rules = parts.pool_rules()
    rules.refill(1.0)
    assert (parts.actions(), rules.next_spawn()) == ([], None)
    parts.add_task(1, queued=True)
    assert rules.next_spawn() == 0.0
    rules.refill(1.0)
    assert (parts.actions(), parts.state.level) == ([do.StartTemplate()], 0)


# ---- how many --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("queued", "starting", "idle", "busy", "wanted"),
    [(3, 0, 0, 0, 3), (3, 1, 0, 0, 2), (3, 0, 1, 0, 2), (3, 0, 0, 1, 3), (3, 2, 1, 0, 0), (1, 2, 0, 0, 0),
     (9, 1, 1, 1, 1)],
)  # fmt: skip
def test_workers_that_start_or_are_idle_are_as_good_as_new_ones(queued, starting, idle, busy, wanted):
    parts = up(4, queued)
    for number in range(busy):
        parts.worker(State.BUSY, 100 + number)
    for _ in range(idle):
        parts.worker()
    for _ in range(starting):
        parts.worker(State.STARTING)
    assert parts.pool_rules().spawns_wanted() == wanted


@pytest.mark.parametrize(
    ("phase", "queued", "wanted"),
    [(Phase.OPEN, 0, 2), (Phase.DRAINING, 0, 0), (Phase.DRAINING, 1, 1), (Phase.CLOSING, 1, 0), (Phase.CLOSED, 1, 0)],
)
def test_a_pool_that_drains_starts_workers_for_tasks_only(phase, queued, wanted):
    parts = up(3, queued)
    parts.state.level, parts.state.phase = 2, phase
    assert parts.pool_rules().spawns_wanted() == wanted


def test_of_level_fewest_and_prestart_the_largest_counts_as_far_as_there_is_room():
    parts = up(5, min_workers=2)
    rules = parts.pool_rules()
    assert rules.spawns_wanted() == 2
    parts.state.level = 3
    assert rules.spawns_wanted() == 3
    rules.on_prestart_requested(ev.PrestartRequested(4), 1.0)
    rules.on_prestart_requested(ev.PrestartRequested(1), 1.0)
    assert (rules.spawns_wanted(), parts.state.prestart) == (4, 4)
    parts.worker()
    assert rules.spawns_wanted() == 3
    parts.state.prestart = 50
    assert rules.spawns_wanted() == 4


def test_workers_that_leave_take_up_room_until_there_are_twice_as_many():
    parts = up(2, queued=9)
    for number in range(3):
        parts.workforce.move(parts.worker(State.BUSY, 100 + number), State.STOPPING)
    assert parts.pool_rules().spawns_wanted() == 1
    parts.workforce.move(parts.worker(State.BUSY, 104), State.STOPPING)
    assert parts.pool_rules().spawns_wanted() == 0


def test_workers_are_asked_for_one_by_one_and_the_level_rises_with_them():
    parts = up(5, queued=3)
    parts.pool_rules().refill(7.0)
    assert parts.actions() == [do.Spawn(index, index + 1) for index in range(3)]
    assert [slot.requested_at for slot in parts.workforce.slots] == [7.0] * 3
    assert (parts.state.level, parts.state.restarts) == (3, 0)


def test_those_that_take_the_place_of_others_are_counted():
    parts = up(5)
    parts.state.level = 3
    parts.worker()
    parts.pool_rules().refill(1.0)
    assert (parts.state.level, parts.state.restarts) == (3, 2)


@pytest.mark.parametrize(
    ("size", "stopping", "prestart", "level", "left"), [(5, 0, 2, 2, 0), (2, 0, 4, 2, 0), (3, 5, 3, 1, 3)]
)
def test_workers_that_were_started_beforehand_are_like_others_when_all_of_them_were(
    size, stopping, prestart, level, left
):
    parts = up(size)
    for number in range(stopping):
        parts.workforce.move(parts.worker(State.BUSY, 100 + number), State.STOPPING)
    parts.state.prestart = prestart
    parts.pool_rules().refill(1.0)
    assert (parts.state.level, parts.state.prestart) == (level, left)


def test_a_smaller_pool_ends_as_many_as_are_too_many_in_the_order_in_which_they_are_free():
    parts = up(6)
    late, early = parts.worker(State.BUSY, 1), parts.worker(State.BUSY, 2)
    late.busy_since, early.busy_since = 5.0, 3.0
    starting, idle, replaced = parts.worker(State.STARTING), parts.worker(), parts.worker()
    parts.commands.retire(replaced, Cause.AGE, 1.0)
    parts.state.level = 4
    rules = parts.pool_rules()
    rules.on_resize_requested(ev.ResizeRequested(3), 6.0)
    assert stopped(parts) == [idle.index]
    rules.on_resize_requested(ev.ResizeRequested(1), 6.0)
    assert stopped(parts) == [starting.index]
    assert (early.leaving, early.retire_cause, late.leaving) == (True, Cause.RESIZE, False)
    assert (parts.state.size, parts.state.level, replaced.state) == (1, 1, State.IDLE)
    rules.on_resize_requested(ev.ResizeRequested(9), 6.0)
    assert (parts.state.size, parts.state.level, stopped(parts)) == (9, 1, [])


@pytest.mark.parametrize(
    ("level", "ready", "starting", "retiring", "leave"),
    [(2, 1, 0, 2, 1), (2, 2, 0, 2, 2), (2, 0, 1, 2, 0), (2, 0, 0, 3, 1), (1, 1, 1, 1, 1), (2, 1, 1, 1, 0)],
)
def test_of_those_that_are_replaced_as_many_leave_as_are_ready_to_take_their_place(
    level, ready, starting, retiring, leave
):
    parts = up(2)
    parts.state.level = level
    for _ in range(retiring):
        parts.commands.retire(parts.worker(), Cause.AGE, 1.0)
    for _ in range(ready):
        parts.worker()
    for _ in range(starting):
        parts.worker(State.STARTING)
    parts.pool_rules().let_replaced_leave(2.0)
    assert stopped(parts) == list(range(leave))
    assert len(parts.workforce.retiring) == retiring - leave


# ---- the end ---------------------------------------------------------------------------------------------------


def test_a_shutdown_leaves_what_waits_unless_it_is_to_be_cancelled():
    parts = up(queued=2)
    rules = parts.pool_rules()
    rules.on_shutdown_requested(ev.ShutdownRequested(), 1.0)
    assert (parts.state.phase, len(parts.queue), len(parts.state.to_cancel)) == (Phase.DRAINING, 2, 0)
    rules.on_shutdown_requested(ev.ShutdownRequested(cancel=True), 1.0)
    assert (len(parts.queue), len(parts.state.to_cancel)) == (0, 2)
    parts.state.phase = Phase.CLOSING
    rules.on_shutdown_requested(ev.ShutdownRequested(), 1.0)
    assert parts.state.phase is Phase.CLOSING


def test_a_pool_that_is_killed_cancels_what_waits_and_expects_its_workers_to_end():
    parts = up(queued=1)
    slots = parts.worker(State.BUSY, 50, ahead=(51,)), parts.worker()
    slots[1].cause = Cause.IDLE
    parts.pool_rules().on_kill_requested(ev.KillRequested(9), 1.0)
    assert parts.actions() == [do.TakeBack(0, 1, 1), do.Signal(0, 1, 9), do.Signal(1, 2, 9)]
    assert [slot.cause for slot in slots] == [Cause.SHUTDOWN, Cause.IDLE]
    assert all(slot.end_expected for slot in slots)
    assert (parts.state.phase, parts.state.killing, list(parts.state.to_cancel)) == (Phase.DRAINING, True, [1])


@pytest.mark.parametrize("why", ["a task", "a map", "nothing", "a map that is cancelled"])
def test_a_pool_closes_when_no_task_and_no_map_is_left(why):
    parts = up()
    parts.worker()
    rules = parts.pool_rules()
    if why == "a task":
        parts.add_task(1)
    elif "map" in why:
        parts.state.holds.add("a map")
    rules.on_shutdown_requested(ev.ShutdownRequested(cancel="cancelled" in why), 1.0)
    rules.close_if_done(2.0)
    closes = why in ("nothing", "a map that is cancelled")
    assert (parts.state.phase is Phase.CLOSING, stopped(parts)) == (closes, [0] if closes else [])
    if closes:
        assert parts.workforce.slots[0].cause is Cause.SHUTDOWN


def test_a_pool_that_closes_tells_those_to_leave_that_are_not_on_their_way():
    parts = up()
    parts.state.phase = Phase.DRAINING
    parts.worker()
    parts.workforce.move(parts.worker(), State.STOPPING)
    parts.worker(State.STARTING)
    busy = parts.worker(State.BUSY)
    busy.task = 99  # it has its outcome already
    parts.pool_rules().close_if_done(2.0)
    assert stopped(parts) == [0, 2]
    assert parts.state.phase is Phase.CLOSING


@pytest.mark.parametrize("template", list(Template))
def test_the_template_leaves_behind_the_workers_and_then_the_pool_is_closed(template):
    parts = up()
    parts.state.phase, parts.state.template = Phase.CLOSING, template
    slot = parts.worker()
    rules = parts.pool_rules()
    rules.close_if_done(2.0)
    assert parts.actions() == []
    parts.workforce.vacate(slot)
    parts.add_task(1)
    rules.close_if_done(2.0)
    assert parts.actions() == []
    del parts.state.tasks[1]
    rules.close_if_done(3.0)
    ends = {Template.UP: [do.StopTemplate()], Template.DOWN: [do.Close()]}
    assert parts.actions() == ends.get(template, [])
    assert (parts.state.phase is Phase.CLOSED) == (template is Template.DOWN)
