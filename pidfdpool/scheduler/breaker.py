"""How the whole pool is broken: every task fails, every process is killed. Pure; see the room's docstring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler.commands import SIGKILL
from pidfdpool.scheduler.states import Phase, Template
from pidfdpool.scheduler.timers import Timer

if TYPE_CHECKING:
    from pidfdpool.scheduler.commands import Commands
    from pidfdpool.scheduler.pool_state import PoolState
    from pidfdpool.scheduler.queue import TaskQueue
    from pidfdpool.scheduler.restart_limits import RestartLimiter
    from pidfdpool.scheduler.timers import Timers
    from pidfdpool.scheduler.workforce import Workforce


class Breaker:
    """Breaks the pool, when that was asked for or when too many processes died young."""

    def __init__(
        self,
        state: PoolState,
        queue: TaskQueue,
        timers: Timers,
        workforce: Workforce,
        commands: Commands,
        limiter: RestartLimiter,
    ) -> None:
        self._state, self._queue, self._timers, self._workforce = state, queue, timers, workforce
        self._commands, self._limiter = commands, limiter

    def young_death(self, reason: str, now: float) -> None:
        """Pause before the next start, because a process died young; break the pool if that happens too often."""
        self._break_if(self._limiter.young_death(reason, now), now)

    def failed_start(self, reason: str, now: float, *, fatal: bool) -> None:
        """Pause before the next start, because one failed; break the pool if they keep failing.

        Args:
            reason: what happened, for people.
            now: the time.
            fatal: whether it counts as a young death as well.
        """
        any_running = any(slot.pid is not None for slot in self._workforce.workers())
        self._break_if(self._limiter.failed_start(reason, now, fatal=fatal, any_running=any_running), now)

    def _break_if(self, reason: str | None, now: float) -> None:
        if reason is not None:
            self.break_pool(reason, now)

    def break_pool(self, reason: str, now: float) -> None:
        """Fail everything, kill everything. Of several reasons the first one counts.

        What is being cancelled does not fail: its turn to be cancelled still comes.
        """
        state = self._state
        if state.phase is Phase.CLOSING:
            return
        state.broken = reason
        state.phase = Phase.CLOSING
        for task in sorted((*state.running, *state.prefetched, *self._queue, *state.delayed)):
            state.actions.append(do.FailBroken(task, reason))
            self._timers.cancel((Timer.DEADLINE, task), (Timer.RETRY, task))
            del state.tasks[task]
        state.running.clear()
        state.prefetched.clear()
        state.delayed.clear()
        self._queue.clear()
        for slot in self._workforce.workers():
            slot.ahead.clear()
            slot.cause = slot.cause or Cause.BROKEN
            self._timers.cancel_task_limits(slot.generation)
            self._commands.signal(slot, SIGKILL)
        if state.template is Template.UP:
            self._commands.stop_template(now)
