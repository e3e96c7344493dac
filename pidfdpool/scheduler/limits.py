"""How a worker is ended because of its task: time, memory, the caller's word. Pure; see the room's docstring.

SIGTERM, then SIGKILL after the task's grace, for a timeout and a lost heartbeat; SIGKILL at once for memory and for
`Future.kill()`. The task's outcome is that cause, unless its result was written before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler.commands import SIGKILL, SIGTERM
from pidfdpool.scheduler.policy import STACK_TIME
from pidfdpool.scheduler.states import State
from pidfdpool.scheduler.timers import Timer

if TYPE_CHECKING:
    from pidfdpool.scheduler import events as ev
    from pidfdpool.scheduler.commands import Commands
    from pidfdpool.scheduler.pool_state import PoolState
    from pidfdpool.scheduler.queue import TaskQueue
    from pidfdpool.scheduler.states import Slot, Task
    from pidfdpool.scheduler.tasks import TaskRules
    from pidfdpool.scheduler.timers import Timers
    from pidfdpool.scheduler.workforce import Workforce

BY_TASK = (Cause.TIMEOUT, Cause.HEARTBEAT, Cause.MEMORY, Cause.KILL)  # causes that the task has a part in
GIVE_UP_AFTER = 0.2  # seconds from SIGKILL; a process in the kernel's hands (uninterruptible sleep) takes longer


def cause_for_task(cause: Cause | None) -> Cause:
    """Return the cause that a task gets for its worker's death: a crash, unless the task has a part in the cause."""
    return cause if cause in BY_TASK else Cause.CRASH


class TaskLimits:
    """Watches what tasks may take, and ends the workers of those that take more."""

    def __init__(
        self,
        state: PoolState,
        queue: TaskQueue,
        timers: Timers,
        workforce: Workforce,
        commands: Commands,
        tasks: TaskRules,
    ) -> None:
        self._state, self._queue, self._timers, self._workforce = state, queue, timers, workforce
        self._commands, self._tasks = commands, tasks

    # ---- time ----------------------------------------------------------------------------------------------

    def on_timeout(self, slot: Slot, now: float) -> None:
        """End a worker whose task has run for too long; of a chunk, ask when the call under way began."""
        number = self._chunk_of(slot)
        timeout = self._state.tasks[number].policy.timeout if number is not None else None
        if number is None or timeout is None:
            self._terminate(slot, Cause.TIMEOUT, now)
        else:
            self._state.actions.append(do.CheckCall(slot.index, slot.generation, number, now - timeout))

    def on_call_started(self, slot: Slot, event: ev.CallStarted, now: float) -> None:
        """End a worker whose call has run for too long."""
        task = self._task_of(slot)
        if task is not None and task.policy.timeout is not None:
            due = max(event.at or 0.0, slot.busy_since) + task.policy.timeout
            self._terminate_at(due, slot, Cause.TIMEOUT, Timer.TIMEOUT, now, late=event.late)

    def _terminate_at(self, due: float, slot: Slot, cause: Cause, timer: Timer, now: float, *, late: bool) -> None:
        """End a worker, if it is time, or have the timer ask again when it is.

        late: it was when the worker was looked at, so it begins no further call. Otherwise SIGTERM could hit the next
        one, or the worker could take an exception that SIGTERM has raised for the call's own.
        """
        if late and now >= due:
            self._terminate(slot, cause, now)
        else:
            self._timers.set((timer, slot.generation), due)

    def _task_of(self, slot: Slot) -> Task | None:
        return self._state.tasks.get(slot.task) if slot.task is not None else None

    def _chunk_of(self, slot: Slot) -> int | None:
        """Return the number of the worker's task, if that makes many calls."""
        number = slot.task
        return (
            number
            if number is not None and number in self._state.running and self._state.tasks[number].calls
            else None
        )

    def on_heartbeat_due(self, slot: Slot, now: float) -> None:
        """Ask when the task gave its last heartbeat."""
        task = self._task_of(slot)
        timeout = None if task is None else task.policy.heartbeat_timeout
        before = 0.0 if timeout is None else now - timeout
        self._state.actions.append(do.CheckHeartbeat(slot.index, slot.generation, self._chunk_of(slot), before))

    def on_last_heartbeat(self, slot: Slot, event: ev.LastHeartbeat, now: float) -> None:
        """End a worker whose task has given no heartbeat for too long."""
        task = self._task_of(slot)
        if task is not None and task.policy.heartbeat_timeout is not None:
            due = max(event.at or 0.0, slot.busy_since) + task.policy.heartbeat_timeout
            self._terminate_at(due, slot, Cause.HEARTBEAT, Timer.HEARTBEAT, now, late=event.late)

    # ---- memory --------------------------------------------------------------------------------------------

    def watch_memory(self, now: float) -> None:
        """Have the memory of busy workers measured from now on, if the policy limits it."""
        policy = self._state.policy
        if policy.hard_memory_per_child is not None and (Timer.MEMORY, 0) not in self._timers:
            self._timers.set((Timer.MEMORY, 0), now + policy.memory_interval)

    def on_memory_due(self, _pool: int, now: float) -> None:
        """Ask how much memory each busy worker has."""
        busy = [slot for slot in self._workforce.workers() if slot.state is State.BUSY]
        self._state.actions.extend(do.CheckMemory(slot.index, slot.generation) for slot in busy)
        if busy:
            self._timers.set((Timer.MEMORY, 0), now + self._state.policy.memory_interval)

    def on_memory_measured(self, slot: Slot, event: ev.MemoryMeasured, now: float) -> None:
        """End a worker that has too much memory."""
        most = self._state.policy.hard_memory_per_child
        if most is not None and event.memory > most:
            self._terminate(slot, Cause.MEMORY, now)

    # ---- the caller's word ---------------------------------------------------------------------------------

    def on_task_kill_requested(self, event: ev.TaskKillRequested, now: float) -> None:
        """End a task, wherever it is."""
        number, state = event.task, self._state
        if number in state.running:
            self.request_kill(number, self._workforce.slots[state.running[number]], now)
        elif number in state.prefetched:
            self.request_kill(number, self._workforce.slots[state.prefetched[number]], now)
        elif number in state.tasks:
            self._tasks.forget(number)
            state.actions.append(do.Fail(number, Cause.KILL))

    def request_kill(self, number: int, slot: Slot, now: float) -> None:
        """Have a worker killed for a task that it has, as soon as that certainly hits no other task."""
        slot.kill_requested_for = number
        self._tasks.own(number).kill_requested = True
        if slot.ahead:
            self._commands.recall(slot)
        else:
            self.kill_if_alone(slot, now)

    def kill_if_alone(self, slot: Slot, now: float) -> None:
        """Kill the worker if the task runs, and nothing that is ahead has begun.

        What is still ahead when all of it was to be taken back has begun. So the task before it has ended, and its
        outcome is in the channel. If the one that is ahead is to be killed, its turn is about to come.
        """
        number, slot.kill_requested_for = slot.kill_requested_for, None
        if number is not None and number in self._queue:
            self._tasks.forget(number)
            self._state.actions.append(do.Fail(number, Cause.KILL))
        elif number == slot.task and number in self._state.running and not slot.ahead:
            self._terminate(slot, Cause.KILL, now)

    # ---- the end of the worker -----------------------------------------------------------------------------

    def _terminate(self, slot: Slot, cause: Cause, now: float) -> None:
        """End a worker because of its task."""
        gently = cause in (Cause.TIMEOUT, Cause.HEARTBEAT)
        if slot.state is not State.BUSY or (slot.cause is not None and gently):
            return
        # The caller's word comes before all others: after it there is no other attempt.
        slot.cause = cause if cause is Cause.KILL else slot.cause or cause
        slot.end_expected = True
        self._commands.retire(slot, cause, now, at_once=True)
        self._timers.cancel_task_limits(slot.generation)
        tasks = self._state.tasks
        if not gently or slot.task not in tasks:
            self.kill(slot, now)
            return
        # SIGTERM makes the worker write its stack and end, unless the task handles the signal. A worker that does not
        # end is asked for its stack once more, and killed.
        self._commands.signal(slot, SIGTERM)
        grace = tasks[slot.task].policy.time_to_die
        self._timers.set((Timer.KILL, slot.generation), now + grace)
        if grace >= 2 * STACK_TIME:
            self._timers.set((Timer.STACK, slot.generation), now + grace - STACK_TIME)

    def on_stack_due(self, slot: Slot, _now: float) -> None:
        """Have the worker write its stack, since SIGTERM did not end it."""
        self._state.actions.append(do.DumpStack(slot.index, slot.generation))

    def kill(self, slot: Slot, now: float) -> None:
        """Kill the worker."""
        self._timers.cancel((Timer.STACK, slot.generation), (Timer.KILL, slot.generation))
        self._commands.signal(slot, SIGKILL)
        if (Timer.GIVE_UP, slot.generation) not in self._timers:  # another reason to kill it gives it no more time
            self._timers.set((Timer.GIVE_UP, slot.generation), now + GIVE_UP_AFTER)

    def on_give_up(self, slot: Slot, now: float) -> None:
        """Fail the task though the process has not ended yet: it will never run user code again."""
        number = self._tasks.detach(slot)
        if number is not None:
            self._workforce.move(slot, State.STOPPING)
            if self._state.tasks[number].calls:
                self._state.actions.append(do.ReadPublished(slot.index, slot.generation, number))
            self._tasks.attempt_lost(number, cause_for_task(slot.cause), now)
