"""What becomes of one task, from its acceptance until it is resolved. Pure; see the room's docstring."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler.states import NewTask, Phase, Task
from pidfdpool.scheduler.timers import Timer

if TYPE_CHECKING:
    from pidfdpool.scheduler import events as ev
    from pidfdpool.scheduler.commands import Commands
    from pidfdpool.scheduler.pool_state import PoolState
    from pidfdpool.scheduler.prefetch import Prefetcher
    from pidfdpool.scheduler.queue import TaskQueue
    from pidfdpool.scheduler.states import Slot
    from pidfdpool.scheduler.timers import Timers

SLICE = 256  # tasks that are cancelled in one decision; with more, others would wait for the lock for milliseconds


class TaskRules:
    """Accepts tasks, begins their attempts, and decides what follows an attempt.

    Attributes:
        cancelling: every task that comes back from ahead of a worker is cancelled.
        cancelled_ahead: tasks that were cancelled while they were ahead of a worker. Each is cancelled if it comes
            back, and runs if it does not.
    """

    def __init__(
        self, state: PoolState, queue: TaskQueue, timers: Timers, commands: Commands, prefetcher: Prefetcher
    ) -> None:
        self._state, self._queue, self._timers = state, queue, timers
        self._commands, self._prefetcher = commands, prefetcher
        self.cancelling: bool = False
        self.cancelled_ahead: set[int] = set()

    # ---- what the caller asks for --------------------------------------------------------------------------

    def on_submitted(self, event: ev.Submitted, now: float) -> None:
        """Accept a task."""
        state = self._state
        if state.phase is not Phase.OPEN and not (event.follows and state.phase is Phase.DRAINING):
            # The caller checks first; a task that slips through between its check and this call must not hang.
            state.actions.append(do.FailBroken(event.task, state.broken or "the pool is shut down"))
            return
        policy = event.policy or state.policy
        since = now if event.since is None else event.since
        task = state.tasks[event.task] = Task(policy, since, event.heavy, event.calls)
        if state.phase is Phase.DRAINING and (self.cancelling or state.killing):
            del state.tasks[event.task]
            state.actions.append(do.Fail(event.task, Cause.SHUTDOWN) if event.attempts else do.Cancel(event.task))
            return
        if event.attempts:
            task.attempt, task.deaths, task.begun = event.attempts, event.deaths, True
            self.retry(event.task, now)
            return
        self._queue.add(event.task, policy.priority)
        self._prefetcher.make_way(policy.priority)
        if task.start_by is not None:
            self._timers.set((Timer.DEADLINE, event.task), task.start_by)

    def on_cancelled(self, event: ev.Cancelled, _now: float) -> None:
        """Cancel a task that is queued, or that is ahead of a worker and can be taken back."""
        number = event.task
        if number in self._queue or number in self._state.to_cancel:
            self.forget(number)
            self._state.actions.append(do.Cancel(number))
        elif number in self._state.prefetched:
            self.cancelled_ahead.add(number)
            self._prefetcher.recall_task(number)

    def cancel_unbegun(self) -> None:
        """Have every task cancelled that no worker has begun; from now on no worker gets one of them."""
        state = self._state
        self.cancelling = True
        self._commands.recall_all()
        state.to_cancel.take_all(self._queue)
        state.to_cancel.take_all(state.delayed)

    def cancel_in_slices(self, now: float) -> None:
        """Cancel what is to be cancelled, if it is little, or have a slice of it cancelled at the next Tick.

        A million tasks take seconds. No thread is to wait for so long, be it the one that shuts the pool down or one
        that needs the pool's lock.
        """
        left = len(self._state.to_cancel)
        if left > SLICE:
            if (Timer.CANCEL, 0) not in self._timers:
                self._timers.set((Timer.CANCEL, 0), math.nextafter(now, math.inf))
        elif left:
            self.on_cancel_due(0, now)

    def on_cancel_due(self, _pool: int, _now: float) -> None:
        """Cancel one slice. A task between two attempts fails: its future was told to run."""
        state = self._state
        for _ in range(min(SLICE, len(state.to_cancel))):
            number = state.to_cancel.pop()
            begun = self._drop(number).begun
            state.actions.append(do.Fail(number, Cause.SHUTDOWN) if begun else do.Cancel(number))

    # ---- attempts begin ------------------------------------------------------------------------------------

    def own(self, number: int) -> Task:
        """Return what is known of a task, to be changed."""
        task = self._state.tasks[number]
        if type(task) is NewTask:
            task = self._state.tasks[number] = Task(task.policy, 0.0, task.heavy)
        return task

    def start(self, number: int, slot: Slot, now: float) -> Task:
        """Note that a worker begins an attempt, as far as is known. Return the task."""
        task = self.own(number)
        task.attempt += 1
        task.begun = True
        slot.task = number
        slot.busy_since = now
        slot.rebalanced = 0
        self._state.running[number] = slot.index
        return task

    def start_and_send(self, number: int, slot: Slot, now: float) -> None:
        """Send a task that was taken from the queue to a worker."""
        task = self.start(number, slot, now)
        policy = task.policy
        deadline = task.start_by
        if policy.timeout is not None:
            deadline = now + policy.timeout
            self._timers.set((Timer.TIMEOUT, slot.generation), deadline)
        if policy.heartbeat_timeout is not None:
            self._timers.set((Timer.HEARTBEAT, slot.generation), now + policy.heartbeat_timeout)
        limit = self._state.policy.max_tasks_per_child if task.calls else None
        allowed = 0 if limit is None else limit - slot.tasks_done
        self._state.actions.append(do.Send(slot.index, slot.generation, number, task.attempt, deadline, allowed))

    def start_next_ahead(self, slot: Slot, now: float) -> None:
        """Note that a worker has begun the first of the tasks ahead, since it has answered the one before."""
        number = slot.ahead.popleft()
        del self._state.prefetched[number]
        self.start(number, slot, now)

    # ---- attempts that never were --------------------------------------------------------------------------

    def requeue(self, slot: Slot, now: float) -> None:
        """Put a task back that was sent to a worker and never ran there. It did not use up an attempt."""
        number = slot.task
        if number is None or self._state.killing or self._state.running.pop(number, None) is None:
            return
        slot.task = None
        task = self._state.tasks[number]
        task.attempt -= 1
        if self.is_too_late(task, now):
            self.expire(number)
        else:
            self._queue.add(number, task.policy.priority, first=True)

    def requeue_ahead(self, slot: Slot, count: int) -> None:
        """Put the last `count` of the tasks ahead of a worker back to the head of the queue, or cancel them."""
        state = self._state
        for _ in range(min(count, len(slot.ahead))):
            number = slot.ahead.pop()
            del state.prefetched[number]
            if number in self.cancelled_ahead:
                self.cancelled_ahead.discard(number)
                self.forget(number)
                state.actions.append(do.Cancel(number))
            elif self.cancelling:
                state.to_cancel.add(number, state.tasks[number].policy.priority, first=True)
            else:
                self._queue.add(number, state.tasks[number].policy.priority, first=True)

    # ---- the deadline --------------------------------------------------------------------------------------

    @staticmethod
    def is_too_late(task: Task, now: float) -> bool:
        """Return whether a task that waits must not be begun any more."""
        return task.start_by is not None and now >= task.start_by and not task.attempt

    def on_deadline(self, number: int, now: float) -> None:
        """Fail a task whose deadline has passed, if no worker was given it."""
        if number in self._queue and self.is_too_late(self._state.tasks[number], now):
            self.expire(number)

    def expire(self, number: int) -> None:
        """Fail a task because its deadline has passed."""
        self.forget(number)
        self._state.actions.append(do.Expire(number))

    # ---- attempts end --------------------------------------------------------------------------------------

    def detach(self, slot: Slot) -> int | None:
        """Take the task out of a worker and return its number, or None if its outcome does not matter any more."""
        number, slot.task = slot.task, None
        if number is None or self._state.running.pop(number, None) is None:
            return None
        self._timers.cancel_task_limits(slot.generation)
        return number

    def attempt_lost(self, number: int, cause: Cause, now: float) -> None:
        """Try a task again whose worker died or was killed, or fail it."""
        task = self._state.tasks[number]
        task.deaths += 1
        poison = task.policy.poison_after is not None and task.deaths >= task.policy.poison_after
        if not poison and task.policy.retries_after(cause) and self.may_retry(task):
            self.retry(number, now)
        else:
            self.forget(number)
            self._state.actions.append(do.Fail(number, cause))

    def may_retry(self, task: Task) -> bool:
        """Return whether the task has another attempt left."""
        state = self._state
        return (
            not (state.killing or task.kill_requested)
            and state.broken is None
            and task.attempt <= task.policy.retries
        )

    def retry(self, number: int, now: float) -> None:
        """Queue a task for its next attempt, at once or after a pause."""
        state = self._state
        task = state.tasks[number]
        state.retries += 1
        pause = task.policy.retry_pause(task.attempt)
        state.actions.append(do.Retry(number, task.attempt + 1, pause))
        if pause:
            state.delayed.add(number, task.policy.priority)
            self._timers.set((Timer.RETRY, number), now + pause)
        else:
            self._queue.add(number, task.policy.priority)

    def on_retry_due(self, number: int, _now: float) -> None:
        """Queue a task whose pause between two attempts is over."""
        delayed = self._state.delayed
        if number in delayed:  # and not about to be cancelled
            priority = delayed.priority_of[number]
            delayed.remove(number)
            self._queue.add(number, priority)
            self._prefetcher.make_way(priority)

    def forget(self, number: int) -> None:
        """Remove a task from wherever it waits. The caller adds the action that resolves it."""
        state = self._state
        if number in self._queue.priority_of:
            self._queue.remove(number)
        elif number in state.to_cancel.priority_of:
            state.to_cancel.remove(number)
        elif number in state.delayed.priority_of:
            state.delayed.remove(number)
        self._drop(number)

    def _drop(self, number: int) -> Task:
        task = self._state.tasks.pop(number)
        if task.start_by is not None or task.attempt:
            self._timers.cancel((Timer.DEADLINE, number), (Timer.RETRY, number))
        return task
