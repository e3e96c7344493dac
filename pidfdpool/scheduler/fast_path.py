"""Decisions about one task that change nothing else, without the rest of the machine. Pure; see the room's docstring.

Two events happen for each task: Submitted and Finished. In a busy pool they mostly change nothing but the queue, and
so does Cancelled. The four methods here do all of it in that case. In any other case they change nothing, and the
event is to be decided about by `Machine.decide`.

This is the pool's hot path. What other parts have methods for is written out where a call would cost too much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool.scheduler.states import NewTask, Phase, State, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pidfdpool.scheduler.pool_state import PoolState
    from pidfdpool.scheduler.prefetch import Prefetcher
    from pidfdpool.scheduler.queue import TaskQueue
    from pidfdpool.scheduler.restart_limits import RestartLimiter
    from pidfdpool.scheduler.states import Slot
    from pidfdpool.scheduler.tasks import TaskRules
    from pidfdpool.scheduler.workforce import Workforce


class FastPath:
    """Accepts tasks under the pool's own policy, cancels those that wait, and takes outcomes.

    Attributes:
        queue_limit: how many tasks may wait before a further one is a reason to decide; None: to be found out. Every
            decision may change it, so `Machine.decide` sets it to None.
    """

    def __init__(
        self,
        state: PoolState,
        queue: TaskQueue,
        workforce: Workforce,
        limiter: RestartLimiter,
        prefetcher: Prefetcher,
        tasks: TaskRules,
    ) -> None:
        self._state, self._queue, self._workforce, self._limiter = state, queue, workforce, limiter
        self._prefetcher, self._tasks = prefetcher, tasks
        self.queue_limit: int | None = None
        self._light, self._heavy = (NewTask(state.policy, 0.0, heavy) for heavy in (False, True))

    def enqueue(self, number: int, heavy: bool = False) -> bool:
        """Accept a task that only has to wait, and return True; False: nothing has happened yet.

        Args:
            number: the task.
            heavy: its call is large.
        """
        limit = self.queue_limit
        if limit is None:
            limit = self.queue_limit = self._prefetcher.queue_limit()
        queue, state = self._queue, self._state
        if len(queue.priority_of) >= limit:
            return False
        state.tasks[number] = self._heavy if heavy else self._light  # there is no deadline, or nothing may wait
        priority = state.policy.priority
        line = queue.lines.get(priority)
        if line is None:
            queue.add(number, priority)
        else:  # as there
            line[number] = None
            queue.priority_of[number] = priority
        return True

    def hand_over(self, number: int, now: float, heavy: bool = False) -> Slot | None:
        """Accept a task for an idle worker, and return its slot: the worker is to be sent the task.

        None: nothing has happened yet. The arguments are those of `enqueue`, and the time.
        """
        state, workforce = self._state, self._workforce
        idle = workforce.idle
        if not idle or not self._is_quiet() or workforce.counts[State.BUSY] >= state.size:
            return None
        slot = workforce.slots[idle[-1]]
        state.tasks[number] = Task(state.policy, now, heavy)
        workforce.move(slot, State.BUSY)
        self._tasks.start(number, slot, now)
        self.queue_limit = None
        return slot

    def cancel(self, number: int) -> bool:
        """Forget a task that waits in the queue, and return True: it is cancelled. False: nothing has happened yet.

        The last task of the queue does not go this way. Without it there may be something else to do: the pool may
        close, or tasks may be taken back for a worker that has nothing to do.
        """
        queue, state = self._queue, self._state
        waiting = queue.priority_of
        if number not in waiting or len(waiting) == 1 or state.phase is Phase.CLOSED:
            return False
        task = state.tasks[number]
        if task.start_by is not None or task.attempt:
            self._tasks.forget(number)
        else:
            priority = waiting.pop(number)
            line = queue.lines[priority]
            del line[number]
            if not line:
                queue.close(priority)
            del state.tasks[number]
        return True

    def take_answers(self, index: int, generation: int, answers: Sequence[int], seconds: float, now: float) -> int:
        """Take outcomes of a worker's tasks, in their order, and return how many were taken.

        Those are taken after which nothing has to be done but to deliver them: no timer runs for the task, and the
        worker has another task ahead and goes on with it, or nothing waits anywhere. For the outcomes behind them
        nothing has happened yet, and `Finished` is to be decided about. If any were taken, and the worker is still
        busy, `Answered` has to follow.

        Args:
            index, generation: which worker.
            answers: the tasks.
            seconds: how long all of them took together.
            now: the time.
        """
        state, workforce, prefetcher = self._state, self._workforce, self._prefetcher
        slot = workforce.slots[index]
        first = number = slot.task
        if slot.generation != generation or slot.cause is not None or first is None or first not in state.running:
            return 0
        tasks, prefetched, ahead, taken = state.tasks, state.prefetched, slot.ahead, 0
        for answered in answers:
            if answered != number or not tasks[answered].policy.sends_ahead:
                break
            if ahead:
                number = ahead.popleft()
                del prefetched[number], tasks[answered]
                taken += 1
            else:
                if not (slot.leaving or slot.to_drop) and self._is_quiet():
                    number = None
                    del tasks[answered]
                    taken += 1
                break
        if taken:
            slot.tasks_done += taken
            prefetcher.note_pace(seconds / len(answers), taken)
            self._limiter.task_finished()
            del state.running[first]
            if number is None:
                slot.task = None
                workforce.move(slot, State.IDLE)  # there is no idle_timeout, or the pool would not be quiet
                self.queue_limit = None
            else:
                self._tasks.start(number, slot, now)
        return taken

    def _is_quiet(self) -> bool:
        """Return whether a task may be accepted or answered without a look at anybody but its worker."""
        state, policy = self._state, self._state.policy
        return (
            state.phase is Phase.OPEN
            and policy.sends_ahead
            and policy.idle_timeout is None
            and not (self._queue.priority_of or state.prefetched or self._workforce.retiring)
        )
