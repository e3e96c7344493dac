"""What workers and the template are told, and what the pool expects of them then. Pure; see the room's docstring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler.states import State, Template
from pidfdpool.scheduler.timers import Timer

if TYPE_CHECKING:
    from pidfdpool.scheduler.pool_state import PoolState
    from pidfdpool.scheduler.states import Slot
    from pidfdpool.scheduler.timers import Timers
    from pidfdpool.scheduler.workforce import Workforce

SIGTERM, SIGKILL = 15, 9


class Commands:
    """Adds commands to the decision that is being taken, and notes in slots and timers what has to follow."""

    def __init__(self, state: PoolState, timers: Timers, workforce: Workforce) -> None:
        self._state, self._timers, self._workforce = state, timers, workforce

    def signal(self, slot: Slot, number: int) -> None:
        """Send a signal to the worker and its process group."""
        self._state.actions.append(do.Signal(slot.index, slot.generation, number))

    def kill_for_violation(self, slot: Slot) -> None:
        """Kill a worker that wrote what no worker's loop writes. Nothing that it says from now on can be trusted."""
        slot.cause = slot.cause or Cause.BABBLE
        self.signal(slot, SIGKILL)

    def stop(self, slot: Slot, now: float, cause: Cause) -> None:
        """Tell a worker to leave, and wait until it has."""
        slot.cause = slot.cause or cause
        self._state.actions.append(do.Stop(slot.index, slot.generation))
        self.expect_exit(slot, now)

    def expect_exit(self, slot: Slot, now: float) -> None:
        """Wait for a worker that is about to leave; it is killed if that takes longer than `stop_grace`."""
        self._timers.set((Timer.STOP, slot.generation), now + self._state.policy.stop_grace)
        self._workforce.move(slot, State.STOPPING)

    def retire(self, slot: Slot, cause: Cause, now: float, *, at_once: bool = False) -> None:
        """Have a worker replaced: when the replacement is ready, or at once, but never in the middle of a task."""
        if slot.state not in (State.STARTING, State.IDLE, State.BUSY):
            return
        slot.retire_cause = slot.retire_cause or cause
        self._workforce.uncount(slot)
        if not at_once:
            if not slot.leaving:
                self._workforce.retiring.append(slot)
        else:
            slot.leaving = True
            self.recall(slot)
            if slot.state is State.IDLE:
                self.stop(slot, now, slot.retire_cause)
        if slot.state is State.IDLE:
            self._workforce.move(slot, State.IDLE)  # to its new place among the idle workers

    def retire_first(self, now: float) -> None:
        """Let the worker that has waited longest for its replacement go without one."""
        slot = self._workforce.retiring[0]
        assert slot.retire_cause is not None
        self.retire(slot, slot.retire_cause, now, at_once=True)

    def recall(self, slot: Slot, count: int | None = None) -> None:
        """Have the last `count` tasks ahead of a worker taken back, or all of them. TakenBack tells how many were.

        Only one request at a time: the number refers to what is ahead now.
        """
        count = len(slot.ahead) if count is None else count
        if count and not slot.recall_pending:
            slot.recall_pending = True
            self._state.actions.append(do.TakeBack(slot.index, slot.generation, count))

    def recall_all(self) -> None:
        """Have everything taken back that is ahead of any worker."""
        for slot in self._workforce.workers():
            self.recall(slot)

    def stop_template(self, now: float) -> None:
        """Tell the template to leave; it is killed if that takes longer than `stop_grace`."""
        self._state.actions.append(do.StopTemplate())
        self._state.template = Template.STOPPING
        self._timers.set((Timer.TEMPLATE, 0), now + self._state.policy.stop_grace)
