"""What happens to the pool as a whole, and how many workers there are to be. Pure; see the room's docstring.

How many: `PoolState.level` is what the pool holds. It rises when tasks wait and no worker is free, up to `size`, and
falls when workers idle too long, down to the policy's min_workers. A worker that dies, leaves or is being replaced
does not count any more, so another is started. While some are being replaced there are more processes than `size`,
but never more than twice as many, and never more than `size` tasks run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import Phase, State, Template
from pidfdpool.scheduler.timers import Timer

if TYPE_CHECKING:
    from pidfdpool.scheduler.breaker import Breaker
    from pidfdpool.scheduler.commands import Commands
    from pidfdpool.scheduler.pool_state import PoolState
    from pidfdpool.scheduler.queue import TaskQueue
    from pidfdpool.scheduler.restart_limits import RestartLimiter
    from pidfdpool.scheduler.tasks import TaskRules
    from pidfdpool.scheduler.timers import Timers
    from pidfdpool.scheduler.workforce import Workforce


class PoolRules:
    """The rules about the template, the number of workers, and the end of the pool."""

    def __init__(
        self,
        state: PoolState,
        queue: TaskQueue,
        timers: Timers,
        workforce: Workforce,
        commands: Commands,
        limiter: RestartLimiter,
        breaker: Breaker,
        tasks: TaskRules,
    ) -> None:
        self._state, self._queue, self._timers, self._workforce = state, queue, timers, workforce
        self._commands, self._limiter, self._breaker, self._tasks = commands, limiter, breaker, tasks

    # ---- the template --------------------------------------------------------------------------------------

    def on_template_up(self, _event: ev.TemplateUp, _now: float) -> None:
        """Note that a template takes requests."""
        self._state.template = Template.UP
        self._state.template_booted = False

    def on_template_booted(self, _event: ev.TemplateBooted, now: float) -> None:
        """Expect the template to fork at once from now on."""
        self._state.template_booted = True
        for slot in self._workforce.workers():
            if slot.pid is None:
                self._timers.set((Timer.FORK, slot.generation), now + self._state.policy.spawn_timeout)

    def on_template_lost(self, event: ev.TemplateLost, now: float) -> None:
        """Note that the template is gone; another one is started when workers are needed."""
        asked = self._state.template is Template.STOPPING
        self._lose_template()
        if not (asked or event.starts_otherwise) and self._state.phase is not Phase.CLOSING:
            self._breaker.failed_start(f"the template was lost: {event.reason}", now, fatal=True)

    def on_template_unusable(self, event: ev.TemplateUnusable, now: float) -> None:
        """Break the pool, because no other template could do its work either."""
        self._lose_template()
        self._breaker.break_pool(event.reason, now)

    def _lose_template(self) -> None:
        self._state.template = Template.DOWN
        self._state.template_booted = False
        for slot in list(self._workforce.workers()):
            if slot.pid is None:
                self._workforce.vacate(slot)  # the request died with the template
            else:
                slot.end_expected = True  # by its parent-death signal; its own Died follows

    def on_template_overdue(self, _pool: int, _now: float) -> None:
        """Kill a template that should have left."""
        if self._state.template is Template.STOPPING:
            self._state.actions.append(do.KillTemplate())

    # ---- how many workers ----------------------------------------------------------------------------------

    def on_resize_requested(self, event: ev.ResizeRequested, now: float) -> None:
        """Change the number of workers at most, and end those that are too many."""
        state, workforce = self._state, self._workforce
        state.size = event.size
        state.level = min(state.level, state.size)
        # Those that have nothing to do first; then those that have run longest, as they will be free the soonest.
        order = {State.IDLE: 0, State.STARTING: 1, State.BUSY: 2}
        counted = [slot for slot in workforce.workers() if slot.counted]
        counted.sort(key=lambda slot: (order[slot.state], slot.busy_since))
        for slot in counted[: max(0, workforce.active - state.size)]:
            if slot.state is State.STARTING:
                self._commands.stop(slot, now, Cause.RESIZE)
            else:
                self._commands.retire(slot, Cause.RESIZE, now, at_once=True)

    def on_prestart_requested(self, event: ev.PrestartRequested, _now: float) -> None:
        """Start workers before there are tasks for them."""
        self._state.prestart = max(self._state.prestart, event.count)

    def spawns_wanted(self) -> int:
        """Return how many workers to start: those that queued tasks need, and what an open pool's level lacks."""
        state, workforce = self._state, self._workforce
        room = min(state.size - workforce.active, 2 * state.size - len(workforce.by_generation))
        if room <= 0 or state.phase not in (Phase.OPEN, Phase.DRAINING):
            return 0
        wanted = len(self._queue) - workforce.counts[State.STARTING] - len(workforce.idle)
        if state.phase is Phase.OPEN:
            wanted = max(wanted, max(state.level, state.policy.min_workers, state.prestart) - workforce.active)
        return max(0, min(wanted, room))

    def next_spawn(self) -> float | None:
        """Return the moment from which a worker or a template may be started, if one is wanted."""
        if self.spawns_wanted() and self._state.template in (Template.UP, Template.DOWN):
            return self._limiter.not_before
        return None

    def refill(self, now: float) -> None:
        """Start the workers that are wanted, or a template for them, unless there is a pause."""
        state, workforce = self._state, self._workforce
        if now < self._limiter.not_before:
            return
        wanted = self.spawns_wanted()
        if not wanted:
            return
        if state.template is Template.DOWN:
            state.template = Template.STARTING
            state.template_starts += 1
            state.actions.append(do.StartTemplate())
        if state.template is not Template.UP:
            return
        for _ in range(wanted):
            slot = workforce.occupy(now)
            if state.template_booted:
                self._timers.set((Timer.FORK, slot.generation), now + state.policy.spawn_timeout)
            state.actions.append(do.Spawn(slot.index, slot.generation))
        grown = max(state.level, min(workforce.active, state.size))
        state.restarts += wanted - (grown - state.level)
        state.level = grown
        if state.level >= min(state.prestart, state.size):
            state.prestart = 0  # from now on they are like any others

    def let_replaced_leave(self, now: float) -> None:
        """End workers that are being replaced, as far as the others are as many as the pool is to hold."""
        state, workforce = self._state, self._workforce
        ready = workforce.active - workforce.counts[State.STARTING]
        while workforce.retiring and ready + len(workforce.retiring) > min(state.level, state.size):
            self._commands.retire_first(now)

    # ---- the end -------------------------------------------------------------------------------------------

    def on_shutdown_requested(self, event: ev.ShutdownRequested, _now: float) -> None:
        """Accept no more tasks; run or cancel those that wait."""
        if self._state.phase is Phase.OPEN:
            self._state.phase = Phase.DRAINING
        if event.cancel:
            self._tasks.cancel_unbegun()

    def on_kill_requested(self, event: ev.KillRequested, now: float) -> None:
        """Cancel what waits, and send every worker a signal."""
        self.on_shutdown_requested(ev.ShutdownRequested(cancel=True), now)
        self._state.killing = True
        for slot in self._workforce.workers():
            slot.end_expected = True
            slot.cause = slot.cause or Cause.SHUTDOWN
            self._commands.signal(slot, event.signal)

    def close_if_done(self, now: float) -> None:
        """End the workers when no task is left, then the template, then the pool. Not called in an open pool."""
        state, workforce = self._state, self._workforce
        self._tasks.cancel_in_slices(now)
        held = state.holds and not self._tasks.cancelling  # what a map would go on with is cancelled, too
        if state.phase is Phase.DRAINING and not state.tasks and not held:
            state.phase = Phase.CLOSING
            for slot in list(workforce.workers()):
                if slot.task is None and slot.state is not State.STOPPING:
                    self._commands.stop(slot, now, Cause.SHUTDOWN)
        if state.phase is Phase.CLOSING and not workforce.alive and not state.tasks:
            if state.template is Template.UP:
                self._commands.stop_template(now)
            elif state.template is Template.DOWN:
                state.phase = Phase.CLOSED
                state.actions.append(do.Close())
