"""How a pool is broken, alone."""

from __future__ import annotations

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler.states import Phase, State, Template
from pidfdpool.scheduler.timers import Timer
from tests.scheduler.parts import Parts


def test_every_task_fails_every_worker_is_killed_and_the_template_is_stopped():
    parts = Parts()
    parts.state.template = Template.UP
    busy, idle = parts.worker(State.BUSY, 1, ahead=(2,)), parts.worker()
    parts.add_task(3, queued=True)
    parts.timers.set((Timer.DEADLINE, 3), 5.0)
    parts.add_task(4)
    parts.state.delayed.add(4, 0)
    parts.breaker().break_pool("no good", 1.0)
    assert parts.actions() == [
        *(do.FailBroken(number, "no good") for number in (1, 2, 3, 4)),
        *(do.Signal(slot.index, slot.generation, 9) for slot in (busy, idle)),
        do.StopTemplate(),
    ]
    assert (parts.state.phase, parts.state.broken) == (Phase.CLOSING, "no good")
    assert not [*parts.state.tasks, *parts.state.running, *parts.state.prefetched, *parts.queue, *busy.ahead]
    assert not parts.state.delayed
    assert (busy.cause, idle.cause) == (Cause.BROKEN, Cause.BROKEN)
    assert (Timer.DEADLINE, 3) not in parts.timers


def test_a_task_that_is_to_be_cancelled_does_not_fail():
    parts = Parts()
    parts.add_task(1)
    parts.state.to_cancel.add(1, 0)
    parts.breaker().break_pool("no good", 1.0)
    assert (parts.actions(), list(parts.state.to_cancel), list(parts.state.tasks)) == ([], [1], [1])


def test_the_first_reason_counts():
    parts = Parts()
    parts.breaker().break_pool("first", 1.0)
    parts.breaker().break_pool("second", 1.0)
    assert parts.state.broken == "first"


@pytest.mark.parametrize("intensity", [0, 2])
def test_too_many_young_deaths_break_the_pool(intensity):
    parts = Parts(intensity=intensity)
    breaker = parts.breaker()
    for _ in range(intensity):
        breaker.young_death("killed", 1.0)
    assert parts.state.broken is None
    breaker.young_death("killed", 1.0)
    assert parts.state.broken.endswith("the last: killed")


def test_a_failed_start_is_not_counted_against_a_pool_with_running_workers():
    parts = Parts(intensity=0, period=1.0)
    parts.worker()
    for now in (0.0, 2.0, 4.0):
        parts.breaker().failed_start("no", now, fatal=False)
    assert parts.state.broken is None
