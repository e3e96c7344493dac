"""What happens to one worker, from its fork to its death. Pure; see the room's docstring.

A worker ends in one of three ways:

    it is *terminated*  because of its task (`limits`).
    it is *retired*     because of itself: age, memory, its number of tasks, its own word. A replacement is started,
                        and the worker leaves when that is ready; or after its task, if it may run no other.
    it *dies*           for reasons of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler.commands import SIGKILL
from pidfdpool.scheduler.limits import BY_TASK, cause_for_task
from pidfdpool.scheduler.states import Phase, Slot, State, Template
from pidfdpool.scheduler.timers import Timer

if TYPE_CHECKING:
    from pidfdpool.scheduler import events as ev
    from pidfdpool.scheduler.breaker import Breaker
    from pidfdpool.scheduler.commands import Commands
    from pidfdpool.scheduler.limits import TaskLimits
    from pidfdpool.scheduler.pool_state import PoolState
    from pidfdpool.scheduler.prefetch import Prefetcher
    from pidfdpool.scheduler.queue import TaskQueue
    from pidfdpool.scheduler.restart_limits import RestartLimiter
    from pidfdpool.scheduler.tasks import TaskRules
    from pidfdpool.scheduler.timers import Timers
    from pidfdpool.scheduler.workforce import Workforce

EXIT_AFTER_CLOSE = 0.2  # seconds; the kernel closes the channel of a process that ends a moment before its end


class WorkerRules:
    """The rules about workers. `states.RULES` says which method takes an event in which state."""

    def __init__(
        self,
        state: PoolState,
        queue: TaskQueue,
        timers: Timers,
        workforce: Workforce,
        commands: Commands,
        limiter: RestartLimiter,
        breaker: Breaker,
        prefetcher: Prefetcher,
        tasks: TaskRules,
        limits: TaskLimits,
    ) -> None:
        self._state, self._queue, self._timers, self._workforce = state, queue, timers, workforce
        self._commands, self._limiter, self._breaker = commands, limiter, breaker
        self._prefetcher, self._tasks, self._limits = prefetcher, tasks, limits

    def ignore(self, _slot: Slot, _event: Any, _now: float) -> None:
        """Take an event that changes nothing."""

    # ---- the start -----------------------------------------------------------------------------------------

    def on_spawned(self, slot: Slot, event: ev.Spawned, now: float) -> None:
        """Note the pid of a worker that was forked."""
        slot.pid = event.pid
        self._state.forked_at = now
        self._limiter.worker_started()
        self._timers.cancel((Timer.FORK, slot.generation))
        start_timeout = self._state.policy.start_timeout
        if start_timeout is not None and slot.state is State.STARTING:
            self._timers.set((Timer.START, slot.generation), now + start_timeout)

    def on_fork_overdue(self, slot: Slot, now: float) -> None:
        """Kill the template, which does not fork. One that has forked others meanwhile only has much to do."""
        patience_ends = self._state.forked_at + self._state.policy.spawn_timeout
        if now < patience_ends:
            self._timers.set((Timer.FORK, slot.generation), patience_ends)
        elif self._state.template is Template.UP:
            self._state.template = Template.STUCK
            self._state.actions.append(do.KillTemplate())

    def on_start_overdue(self, slot: Slot, _now: float) -> None:
        """Kill a worker that takes too long to get ready."""
        if slot.state is State.STARTING:
            slot.cause = slot.cause or Cause.START
            self._commands.signal(slot, SIGKILL)

    def on_spawn_failed(self, slot: Slot, event: ev.SpawnFailed, now: float) -> None:
        """Give up a worker that could not be forked."""
        self._workforce.vacate(slot)
        # With other workers alive the pool goes on with those: a process limit is no reason to break it.
        fatal = not self._workforce.alive
        self._breaker.failed_start(f"no worker could be started: {event.reason}", now, fatal=fatal)
        if self._workforce.retiring:  # one of those that wait for a replacement makes room for it
            self._commands.retire_first(now)

    def on_ready(self, slot: Slot, _event: ev.Ready, now: float) -> None:
        """Take a worker into service."""
        slot.ready_at = now
        self._timers.cancel((Timer.START, slot.generation))
        if slot.leaving:
            self._commands.stop(slot, now, slot.retire_cause or Cause.UNHEALTHY)
            reason = f"worker {slot.index} (pid {slot.pid}) said that it is unhealthy: {slot.detail}"
            self._breaker.young_death(reason, now)
            return
        max_age = self._state.policy.max_age
        if max_age is not None:
            self._timers.set((Timer.AGE, slot.generation), now + max_age)
        self.rest(slot, now)

    def on_initializer_failed(self, _slot: Slot, event: ev.InitializerFailed, now: float) -> None:
        """Break the pool: the initializer would raise in the next worker, too."""
        self._breaker.break_pool(f"the initializer raised in a worker: {event.reason}", now)

    # ---- work ----------------------------------------------------------------------------------------------

    def rest(self, slot: Slot, now: float) -> None:
        """Note that a worker has nothing to do."""
        self._workforce.move(slot, State.IDLE)
        idle_timeout = self._state.policy.idle_timeout
        if idle_timeout is not None:
            self._timers.set((Timer.IDLE, slot.generation), now + idle_timeout)

    def hand_out(self, now: float) -> None:
        """Give queued tasks to idle workers, as far as more tasks may run."""
        queue, workforce, tasks = self._queue, self._workforce, self._tasks
        while queue and workforce.idle and workforce.counts[State.BUSY] < self._state.size:
            number = queue.next()
            if tasks.is_too_late(self._state.tasks[number], now):  # its timer has not been looked at yet
                tasks.expire(number)
            else:
                self._give_next(workforce.slots[workforce.idle[-1]], now)

    def _give_next(self, slot: Slot, now: float) -> None:
        """Give the next queued task to an idle worker."""
        policy = self._state.policy
        if policy.idle_timeout is not None:
            self._timers.cancel((Timer.IDLE, slot.generation))
        self._workforce.move(slot, State.BUSY)
        limit, number = policy.max_tasks_per_child, self._queue.pop()
        # If a chunk has more calls than the worker may do, it ends early, and others make the rest.
        if limit is not None and slot.tasks_done + (self._state.tasks[number].calls or 1) >= limit:
            self._commands.retire(slot, Cause.TASKS, now, at_once=True)
        if policy.hard_memory_per_child is not None:
            self._limits.watch_memory(now)
        self._tasks.start_and_send(number, slot, now)

    def on_finished(self, slot: Slot, event: ev.Finished, now: float) -> None:
        """Take the outcome of a worker's task."""
        if slot.task != event.task:
            self._commands.kill_for_violation(slot)
            return
        slot.tasks_done += event.calls
        self._limiter.task_finished()
        if event.seconds is not None:
            self._prefetcher.note_pace(event.seconds)
        number = self._tasks.detach(slot)
        if number is not None:
            self._take_outcome(number, slot, event, now)
        if slot.cause in BY_TASK:  # it may end, as SIGTERM told it to, and SIGKILL is on its way
            self._state.actions.append(do.Stop(slot.index, slot.generation))
            self._workforce.move(slot, State.STOPPING)
            return
        self._go_on(slot, now)
        most = self._state.policy.max_memory_per_child
        if most is not None and event.memory > most:
            self._commands.retire(slot, Cause.RETIRED, now)

    def _take_outcome(self, number: int, slot: Slot, event: ev.Finished, now: float) -> None:
        tasks = self._tasks
        if event.failed and slot.cause in BY_TASK:
            if self._state.tasks[number].calls:
                self._state.actions.append(do.ReadPublished(slot.index, slot.generation, number))
            tasks.attempt_lost(number, slot.cause, now)  # it raised because SIGTERM made it
        elif event.failed and event.retryable and tasks.may_retry(self._state.tasks[number]):
            tasks.retry(number, now)
        else:
            tasks.forget(number)
            self._state.actions.append(do.Deliver(number))

    def _go_on(self, slot: Slot, now: float) -> None:
        """Decide what a worker does next that has answered its task."""
        if slot.ahead:
            self._tasks.start_next_ahead(slot, now)
            self._note_begun(slot, now)
        elif slot.leaving:
            self._commands.stop(slot, now, slot.retire_cause or Cause.UNHEALTHY)
        elif not slot.to_drop:
            self.rest(slot, now)

    def on_answered(self, slot: Slot, _event: ev.Answered, now: float) -> None:
        """Note that the worker has begun the task behind those whose outcomes were taken."""
        self._note_begun(slot, now)

    def _note_begun(self, slot: Slot, now: float) -> None:
        assert slot.task is not None
        self._state.actions.append(do.MarkBegun(slot.index, slot.generation, slot.task))
        if self._state.tasks[slot.task].kill_requested:
            self._limits.request_kill(slot.task, slot, now)

    def on_send_refused(self, slot: Slot, _event: ev.SendRefused, now: float) -> None:
        """Queue a task again that a worker could not be sent, and expect the worker to end."""
        self._tasks.requeue(slot, now)
        self._timers.cancel_task_limits(slot.generation)
        slot.cause = slot.cause or (Cause.TEMPLATE if slot.end_expected else Cause.REFUSED)
        self._commands.expect_exit(slot, now)

    def on_send_skipped(self, slot: Slot, event: ev.SendSkipped, now: float) -> None:
        """Forget a task that turned out to be cancelled just before it was sent."""
        self._tasks.detach(slot)
        if event.task in self._state.tasks:
            self._tasks.forget(event.task)
        self._go_on(slot, now)

    def on_outdated(self, slot: Slot, _event: ev.Outdated, now: float) -> None:
        """Queue all tasks of a worker again that lacks what the next one needs of the script. It leaves."""
        self._tasks.requeue_ahead(slot, len(slot.ahead))  # it begins none of these, and they come behind its task
        if slot.cause in BY_TASK:  # too late for its task: the signal that is on its way was for that
            self._workforce.move(slot, State.STOPPING)
            return
        self._tasks.requeue(slot, now)
        self._timers.cancel_task_limits(slot.generation)
        slot.cause = slot.cause or (Cause.TEMPLATE if slot.end_expected else Cause.SCRIPT)
        self._commands.expect_exit(slot, now)

    # ---- tasks that were ahead -----------------------------------------------------------------------------

    def on_taken_back(self, slot: Slot, event: ev.TakenBack, now: float) -> None:
        """Queue the tasks again that were taken back."""
        tasks = self._tasks
        slot.recall_pending = False
        slot.to_drop += event.count
        tasks.requeue_ahead(slot, event.count)
        tasks.cancelled_ahead.difference_update(slot.ahead)  # these have begun, so it is too late to cancel them
        if slot.kill_requested_for is not None:
            self._limits.kill_if_alone(slot, now)
        if event.count and (slot.leaving or tasks.cancelling):
            self._commands.recall(slot)  # if less than all was asked back

    def on_dropped(self, slot: Slot, event: ev.Dropped, now: float) -> None:
        """Note that a worker has passed over tasks that were taken back."""
        if event.count > slot.to_drop:
            slot.detail = slot.detail or "it passed over tasks that nobody had taken back"
            self._commands.kill_for_violation(slot)
            return
        slot.to_drop -= event.count
        if not slot.to_drop and slot.task is None:
            self._go_on(slot, now)

    # ---- leaving -------------------------------------------------------------------------------------------

    def on_unhealthy(self, slot: Slot, event: ev.Unhealthy, now: float) -> None:
        """Replace a worker that asked for it."""
        slot.detail = event.reason
        self._commands.retire(slot, Cause.UNHEALTHY, now, at_once=True)

    def on_too_old(self, slot: Slot, now: float) -> None:
        """Replace a worker because of its age."""
        self._commands.retire(slot, Cause.AGE, now)

    def on_idle_too_long(self, slot: Slot, now: float) -> None:
        """End a worker that nobody needs, unless the pool is to keep it."""
        state = self._state
        if slot.state is State.IDLE and slot.counted and state.level > state.policy.min_workers:
            state.level -= 1
            self._commands.stop(slot, now, Cause.IDLE)

    def on_stop_overdue(self, slot: Slot, _now: float) -> None:
        """Kill a worker that should have left."""
        self._commands.signal(slot, SIGKILL)

    def on_protocol_violated(self, slot: Slot, event: ev.ProtocolViolated, _now: float) -> None:
        """Kill a worker that wrote what no worker's loop writes."""
        slot.detail = slot.detail or event.detail
        self._commands.kill_for_violation(slot)

    def on_channel_closed(self, slot: Slot, _event: ev.ChannelClosed, now: float) -> None:
        """Expect a worker to end whose end of the channel is closed."""
        self._timers.set((Timer.EXIT, slot.generation), now + EXIT_AFTER_CLOSE)

    def on_exit_overdue(self, slot: Slot, _now: float) -> None:
        """Kill a worker whose channel is closed, and that has not ended."""
        slot.cause = slot.cause or Cause.HUNG_UP
        self._commands.signal(slot, SIGKILL)

    # ---- death ---------------------------------------------------------------------------------------------

    def on_died(self, slot: Slot, event: ev.Died, now: float) -> None:
        """Decide about a death: report it, queue or fail its tasks, and look whether it died young."""
        state, tasks = self._state, self._tasks
        most = len(slot.ahead)
        tasks.requeue_ahead(slot, min(event.unbegun, most))
        # More than it was sent cannot be left: its task has put tokens down itself, and so has begun.
        if event.unbegun == most + 1 and slot.cause not in BY_TASK:
            tasks.requeue(slot, now)
        cause = slot.cause or (Cause.TEMPLATE if slot.end_expected else Cause.CRASH)
        tasks_done = slot.tasks_done
        is_new = slot.ready_at is None or now - slot.ready_at < state.policy.young_age
        lost = tasks.detach(slot)
        unknown = list(slot.ahead)  # empty, unless something that it wrote was not read: these may have run
        state.deaths += 1
        state.actions.append(
            do.ReportDeath(
                slot=slot.index,
                generation=slot.generation,
                pid=slot.pid,
                cause=cause,
                status=event.status,
                uptime=now - slot.requested_at,
                tasks_done=tasks_done,
                task=lost,
                attempt=state.tasks[lost].attempt if lost is not None else 0,
                detail=slot.detail,
            )
        )
        reason = f"worker {slot.index} (pid {slot.pid}) ended: {event.status}"
        self._workforce.vacate(slot)
        if lost is not None:
            tasks.attempt_lost(lost, cause_for_task(cause), now)
        for number in unknown:
            del state.prefetched[number]
            tasks.own(number).attempt += 1
            tasks.attempt_lost(number, Cause.CRASH, now)
        if state.phase is Phase.CLOSING:
            return
        young = is_new and lost is None and tasks_done == 0
        if state.policy.on_crash == "break" and (cause.unasked or (lost is not None and cause is Cause.TEMPLATE)):
            self._breaker.break_pool(f"{reason}; on_crash='break' makes every crash break the pool", now)
        elif young and (cause.unasked or cause in (Cause.START, Cause.BABBLE, Cause.HUNG_UP)):
            self._breaker.young_death(f"{reason}, because {cause.value}" if cause is Cause.START else reason, now)
