"""The template, the number of workers and the end of a pool, decided alone."""

from __future__ import annotations

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import Phase, State, Template
from pidfdpool.scheduler.tasks import SLICE
from pidfdpool.scheduler.timers import Timer
from tests.scheduler.parts import Parts


def up(workers: int = 2, **policy) -> Parts:
    parts = Parts(workers, **policy)
    parts.state.template = Template.UP
    return parts


def test_a_template_is_started_before_the_first_worker():
    parts = Parts(2)
    parts.add_task(1, queued=True)
    rules = parts.pool_rules()
    rules.refill(1.0)
    assert (parts.actions(), parts.state.template) == ([do.StartTemplate()], Template.STARTING)
    assert parts.state.template_starts == 1
    rules.on_template_up(ev.TemplateUp(), 1.0)
    rules.refill(1.0)
    assert parts.actions() == [do.Spawn(0, 1)]


@pytest.mark.parametrize(
    ("queued", "level", "prestart", "policy", "wanted"),
    [
        (0, 0, 0, {}, 0),
        (2, 0, 0, {}, 2),
        (9, 0, 0, {}, 3),
        (0, 2, 0, {}, 2),
        (0, 0, 2, {}, 2),
        (0, 0, 0, {"min_workers": 1}, 1),
    ],
)
def test_as_many_are_wanted_as_tasks_wait_or_as_the_pool_is_to_hold(queued, level, prestart, policy, wanted):
    parts = up(3, **policy)
    parts.state.level, parts.state.prestart = level, prestart
    for number in range(queued):
        parts.add_task(number, queued=True)
    assert parts.pool_rules().spawns_wanted() == wanted


def test_none_is_started_during_a_pause_and_its_end_is_known():
    parts = up()
    parts.add_task(1, queued=True)
    parts.limiter.not_before = 5.0
    rules = parts.pool_rules()
    rules.refill(4.9)
    assert (parts.actions(), rules.next_spawn()) == ([], 5.0)
    rules.refill(5.0)
    assert (parts.actions(), rules.next_spawn()) == ([do.Spawn(0, 1)], None)


def test_restarts_are_those_that_do_not_make_the_pool_larger():
    parts = up()
    parts.state.level = 1
    for number in (1, 2):
        parts.add_task(number, queued=True)
    parts.pool_rules().refill(1.0)
    assert (parts.state.level, parts.state.restarts) == (2, 1)


def test_a_smaller_pool_lets_the_idle_and_the_starting_go_first():
    parts = up(3)
    busy, starting, idle = parts.worker(State.BUSY, 1), parts.worker(State.STARTING), parts.worker()
    rules = parts.pool_rules()
    rules.on_resize_requested(ev.ResizeRequested(1), 1.0)
    assert parts.actions() == [do.Stop(idle.index, idle.generation), do.Stop(starting.index, starting.generation)]
    assert (busy.leaving, starting.cause) == (False, Cause.RESIZE)


def test_replaced_workers_leave_when_there_are_enough_others():
    parts = up(1)
    parts.state.level = 1
    old = parts.worker()
    parts.commands.retire(old, Cause.AGE, 1.0)
    rules = parts.pool_rules()
    rules.let_replaced_leave(1.0)
    assert parts.actions() == []
    parts.worker()
    rules.let_replaced_leave(2.0)
    assert parts.actions() == [do.Stop(0, 1)]


def test_forks_are_expected_in_time_once_the_preload_is_done():
    parts = up(spawn_timeout=5.0)
    unborn = parts.workforce.occupy(0.0)
    parts.pool_rules().on_template_booted(ev.TemplateBooted(), 1.0)
    assert parts.timers.pop_due(6.0) == (Timer.FORK, unborn.generation)


@pytest.mark.parametrize("asked", [False, True])
def test_with_the_template_its_requests_are_lost_and_an_unasked_loss_delays_the_next(asked):
    parts = up()
    born, unborn = parts.worker(), parts.workforce.occupy(0.0)
    if asked:
        parts.state.template = Template.STOPPING
    parts.pool_rules().on_template_lost(ev.TemplateLost("killed"), 1.0)
    assert (born.end_expected, unborn.state) == (True, State.DEAD)
    assert (parts.state.template, parts.limiter.not_before > 1.0) == (Template.DOWN, not asked)


def test_one_that_no_other_could_replace_breaks_the_pool():
    parts = up()
    parts.pool_rules().on_template_unusable(ev.TemplateUnusable("its preload fails"), 1.0)
    assert parts.state.broken == "its preload fails"


def test_a_pool_ends_in_steps():
    parts = up()
    slot = parts.worker()
    rules = parts.pool_rules()
    rules.on_shutdown_requested(ev.ShutdownRequested(), 1.0)
    rules.close_if_done(1.0)
    assert (parts.actions(), parts.state.phase) == ([do.Stop(0, 1)], Phase.CLOSING)
    parts.workforce.vacate(slot)
    rules.close_if_done(2.0)
    assert parts.actions() == [do.StopTemplate()]
    rules.on_template_lost(ev.TemplateLost("asked"), 3.0)
    rules.close_if_done(3.0)
    assert (parts.actions(), parts.state.phase) == ([do.Close()], Phase.CLOSED)


def test_a_pool_does_not_close_before_all_is_cancelled_though_it_breaks_meanwhile():
    parts = Parts()
    for number in range(SLICE + 1):
        parts.add_task(number, queued=True)
    rules = parts.pool_rules()
    rules.on_shutdown_requested(ev.ShutdownRequested(cancel=True), 1.0)
    parts.breaker().break_pool("no good", 2.0)
    rules.close_if_done(2.0)
    assert (parts.actions(), parts.state.phase) == ([], Phase.CLOSING)
    parts.tasks().on_cancel_due(0, 3.0)
    rules.close_if_done(3.0)
    assert parts.actions() == [*(do.Cancel(number) for number in range(SLICE + 1)), do.Close()]


def test_a_template_that_does_not_leave_is_killed():
    parts = up()
    rules = parts.pool_rules()
    rules.on_template_overdue(0, 1.0)
    assert parts.actions() == []
    parts.state.template = Template.STOPPING
    rules.on_template_overdue(0, 1.0)
    assert parts.actions() == [do.KillTemplate()]


def test_to_kill_a_pool_signals_every_worker_and_grants_no_attempt():
    parts = up()
    slot = parts.worker(State.BUSY, 1)
    parts.pool_rules().on_kill_requested(ev.KillRequested(15), 1.0)
    assert (parts.actions(), slot.cause, parts.state.killing) == ([do.Signal(0, 1, 15)], Cause.SHUTDOWN, True)
