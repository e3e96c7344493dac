"""What becomes of one task, from its acceptance to the last word on it. Pure; see the room's docstring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler.pool_state import Knowledge
from pidfdpool.scheduler.states import Phase, Task
from pidfdpool.scheduler.timers import Timer

if TYPE_CHECKING:
    from pidfdpool.scheduler import events as ev
    from pidfdpool.scheduler.states import Slot


class TaskRules(Knowledge):
    """The rules about tasks."""

    def _submitted(self, event: ev.Submitted, now: float) -> None:
        if self.phase is not Phase.OPEN:
            # The caller checks first; a task that slips through between its check and this call must not hang.
            self._actions.append(do.FailBroken(event.task, self.broken or "the pool is shut down"))
            return
        policy = event.policy or self.policy
        task = self.tasks[event.task] = Task(policy, now, event.heavy)
        self.queue.add(event.task, policy.priority)
        self._overtake(policy.priority)
        if task.start_by is not None:
            self._timers.set((Timer.DEADLINE, event.task), task.start_by)

    def _cancelled(self, event: ev.Cancelled, _now: float) -> None:
        number = event.task
        if number in self.queue:
            self._forget(number)
            self._actions.append(do.Withdraw(number))
        elif number in self.given:
            self.withdrawn.add(number)
            self._recall_from(number)

    def _recall_from(self, number: int) -> None:
        """Have a task taken back that is ahead of a worker, and with it those behind."""
        slot = self.slots[self.given[number]]
        self._recall(slot, len(slot.ahead) - slot.ahead.index(number))

    def _withdraw_waiting(self) -> None:
        """Cancel what no worker has begun; one that waits again was told to have begun, so it is failed."""
        self.withdrawing = True
        self._recall_all()
        waiting = [number for number in self.tasks if number not in self.running and number not in self.given]
        for number in waiting:
            begun = self.tasks[number].begun
            self._forget(number)
            self._actions.append(do.Fail(number, Cause.SHUTDOWN) if begun else do.Withdraw(number))

    def _start_on(self, number: int, task: Task, slot: Slot, now: float) -> None:
        """Note that a worker begins an attempt, for all that is known."""
        task.attempt += 1
        task.begun = True
        slot.task = number
        slot.busy_since = now
        slot.asked_back = False
        self.running[number] = slot.index

    def _begin(self, number: int, slot: Slot, now: float) -> None:
        """Give a task that was taken from the queue to a worker."""
        task = self.tasks[number]
        policy = task.policy
        self._start_on(number, task, slot, now)
        deadline = task.start_by
        if policy.timeout is not None:
            deadline = now + policy.timeout
            self._timers.set((Timer.TIMEOUT, slot.generation), deadline)
        if policy.heartbeat_timeout is not None:
            self._timers.set((Timer.HEARTBEAT, slot.generation), now + policy.heartbeat_timeout)
        self._actions.append(do.Send(slot.index, slot.generation, number, task.attempt, deadline))

    def _requeue(self, slot: Slot, now: float) -> None:
        """Put a task back that was handed to a worker and never ran there; it did not use up an attempt."""
        number = slot.task
        if number is None or self.killing or self.running.pop(number, None) is None:
            return
        slot.task = None
        task = self.tasks[number]
        task.attempt -= 1
        if self._is_too_late(task, now):
            self._expire(number)
        else:
            self.queue.add(number, task.policy.priority, first=True)

    @staticmethod
    def _is_too_late(task: Task, now: float) -> bool:
        """Return whether a task that waits must not be begun any more."""
        return task.start_by is not None and now >= task.start_by and not task.attempt

    def _deadline_passed(self, number: int, now: float) -> None:
        if number in self.queue and self._is_too_late(self.tasks[number], now):
            self._expire(number)

    def _expire(self, number: int) -> None:
        self._forget(number)
        self._actions.append(do.Expire(number))

    def _take_from(self, slot: Slot) -> int | None:
        """Take the task out of a worker, if its outcome still matters."""
        number, slot.task = slot.task, None
        if number is None or self.running.pop(number, None) is None:
            return None
        self._stop_clocks(slot)
        return number

    def _attempt_lost(self, number: int, cause: Cause, now: float) -> None:
        """Try a task again whose worker died or was killed, or fail it."""
        task = self.tasks[number]
        task.deaths += 1
        poison = task.policy.poison_after is not None and task.deaths >= task.policy.poison_after
        if not poison and task.policy.retries_after(cause) and self._grants_another(task):
            self._try_again(number, now)
        else:
            self._forget(number)
            self._actions.append(do.Fail(number, cause))

    def _grants_another(self, task: Task) -> bool:
        return not (self.killing or task.unwanted) and self.broken is None and task.attempt <= task.policy.retries

    def _try_again(self, number: int, now: float) -> None:
        task = self.tasks[number]
        self.retries += 1
        pause = task.policy.retry_pause(task.attempt)
        self._actions.append(do.Retry(number, task.attempt + 1, pause))
        if pause:
            self._timers.set((Timer.RETRY, number), now + pause)
        else:
            self.queue.add(number, task.policy.priority)

    def _pause_over(self, number: int, _now: float) -> None:
        priority = self.tasks[number].policy.priority
        self.queue.add(number, priority)
        self._overtake(priority)

    def _overtake(self, priority: int) -> None:
        """Make way for a task that is more urgent than some that are ahead."""
        if self.given and priority > self._ahead_floor:
            self._recall_all()

    def _forget(self, number: int) -> None:
        """Strike a task off, wherever it waits; an action with the last word on it follows."""
        if number in self.queue:
            self.queue.remove(number)
        task = self.tasks.pop(number)
        if task.start_by is not None or task.attempt:
            self._timers.cancel((Timer.DEADLINE, number), (Timer.RETRY, number))
