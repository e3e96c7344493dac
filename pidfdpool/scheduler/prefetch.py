"""Which tasks are sent to a worker before it asks, and which are taken back. Pure; see the room's docstring.

If a worker gets its next task only after it has answered the last one, it is idle in between. It waits until the host
has woken up. If the host computes in Python, it also waits until the pool thread gets the interpreter's lock. So a
worker is sent further tasks *ahead*, behind the one that it runs: as many as take `prefetch` seconds at the measured
pace. The limit is a time and not a number, because a hundred tasks of 10 us take 1 ms, and two of a second take 2 s.

What is ahead has not begun, and all promises hold as if it were still in the queue:

  - It is *taken back* as soon as another worker has nothing to do, when it is cancelled, when a task of a higher
    priority comes, when its worker is to leave, or is to be killed for the task that it runs. The worker takes a
    token before it begins a task, and the host takes the token back. Only one of the two gets the token, so no task
    is both begun and taken back.
  - What was taken back is still in the worker's channel. The worker drops it, and says so. Until then it is sent
    nothing more.
  - Tokens that are left when a worker dies tell how many of its tasks never began. Those run elsewhere.
  - Of tasks whose calls are large only one at a time is ahead, because each of them occupies memory while it waits.
  - Tasks with a limit of time, and all tasks of a pool that counts or measures each of them, are not sent ahead.
    Nothing is sent ahead while the pool may still start another worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler.states import Phase, State
from pidfdpool.scheduler.timers import Timer

if TYPE_CHECKING:
    from pidfdpool.scheduler.commands import Commands
    from pidfdpool.scheduler.pool_state import PoolState
    from pidfdpool.scheduler.queue import TaskQueue
    from pidfdpool.scheduler.states import Slot
    from pidfdpool.scheduler.timers import Timers
    from pidfdpool.scheduler.workforce import Workforce

MAX_AHEAD = 1000  # tasks ahead of a worker
# Seconds of work. A worker that has more ahead is sent nothing: a host that computes may not look again for 5 ms.
REFILL_BELOW = 0.01
# Seconds of work. While every worker has more ahead, a submit need not look: the next answer will be soon enough.
SUBMIT_REFILLS_BELOW = 0.001
# Seconds of work that may wait in the queue until there is more of it to send, while all workers are busy.
BATCH_SECONDS = 0.0005
MAX_BATCH = 64  # tasks that may wait for that reason at most, however short they are
UNBOUNDED = 1 << 62  # tasks
_PART, _ALL = 1, 2  # see `Slot.rebalanced`
WORTH_MOVING = 0.001  # seconds that another worker must be behind, so that tasks are taken back from it


class Prefetcher:
    """Keeps busy workers supplied, and moves tasks from those that are behind to those that are idle.

    Attributes:
        pace: seconds that a task takes, as a moving average; None until a task has finished.
    """

    def __init__(
        self, state: PoolState, queue: TaskQueue, timers: Timers, workforce: Workforce, commands: Commands
    ) -> None:
        self._state, self._queue, self._timers, self._workforce = state, queue, timers, workforce
        self._commands = commands
        self.pace: float | None = None
        self._lowest_ahead = 0  # the lowest priority of a task that is ahead, if one is

    def note_pace(self, seconds: float, count: int = 1) -> None:
        """Learn from tasks that took so long on average."""
        self.pace = seconds if self.pace is None else seconds + (self.pace - seconds) * (7 / 8) ** count

    # ---- sending ahead -------------------------------------------------------------------------------------

    def _is_possible(self) -> bool:
        """Return whether anything may be sent ahead now: the pool is as large as it can be, its pace is known."""
        return (
            self._state.policy.sends_ahead
            and self.pace is not None
            and self._workforce.active >= self._state.size
            and not self._workforce.counts[State.STARTING]
        )

    def _tasks_in(self, seconds: float) -> int:
        """Return how many tasks take that time, in seconds, at the measured pace."""
        assert self.pace is not None
        return MAX_AHEAD if seconds >= MAX_AHEAD * self.pace else int(seconds / self.pace)

    def _most_and(self, seconds: float) -> tuple[int, int]:
        """Return how many tasks may be ahead of a worker, and how many fill the time that is to be kept ahead."""
        most = self._tasks_in(self._state.policy.prefetch)
        return most, min(most, max(1, self._tasks_in(seconds)))

    def _is_short(self, slot: Slot, enough: int) -> bool:
        """Return whether tasks may be sent ahead of this worker, and it has fewer than enough."""
        tasks = self._state.tasks
        return (
            slot.state is State.BUSY
            and not slot.leaving
            and not slot.to_drop
            and not slot.recall_pending
            and slot.cause is None
            and len(slot.ahead) < enough
            and slot.task in tasks
            and tasks[slot.task].policy.sends_ahead
        )

    def send_ahead(self) -> None:
        """Send queued tasks ahead of every worker that is short of them."""
        if not self._is_possible():
            return
        most, enough = self._most_and(REFILL_BELOW)
        short = [slot for slot in self._workforce.workers() if self._is_short(slot, enough)]
        short.sort(key=lambda slot: len(slot.ahead))
        for index, slot in enumerate(short):
            # An even share of the queue, so that the first worker does not get all of it.
            share = -(-len(self._queue) // (len(short) - index))
            self._top_up(slot, min(most, share + len(slot.ahead)))

    def _top_up(self, slot: Slot, most: int) -> None:
        """Send queued tasks ahead of a worker until `most` are ahead."""
        numbers: list[int] = []
        queue, tasks, prefetched, ahead = self._queue, self._state.tasks, self._state.prefetched, slot.ahead
        count, heavy = most - len(ahead), bool(ahead)
        for number in queue:
            if count <= 0:
                break
            task = tasks[number]
            if task.begun or not task.policy.sends_ahead or (task.heavy and heavy):
                break
            count -= 1
            heavy = True
            numbers.append(number)
        if numbers:
            lowest = tasks[numbers[-1]].policy.priority  # the queue begins with the highest
            if not prefetched or lowest < self._lowest_ahead:
                self._lowest_ahead = lowest
            queue.remove_first(numbers)
            ahead.extend(numbers)
            prefetched.update(dict.fromkeys(numbers, slot.index))
            self._state.actions.append(do.Prefetch(slot.index, slot.generation, tuple(numbers)))

    def queue_limit(self) -> int:
        """Return how many tasks of the pool's own policy may wait before a further one is a reason to decide.

        Where every worker runs something, its answer will be such a reason in any case. Who submits many small tasks
        need not send each of them alone: a system call takes as long as such a task, and gives up the interpreter's
        lock.
        """
        state, workforce = self._state, self._workforce
        if state.phase is not Phase.OPEN or workforce.idle or state.policy.deadline is not None:
            return 0
        if state.size > workforce.active or (state.prefetched and state.policy.priority > self._lowest_ahead):
            return 0
        if not self._is_possible():
            return UNBOUNDED
        _, enough = self._most_and(SUBMIT_REFILLS_BELOW)
        if not any(self._is_short(slot, enough) for slot in workforce.workers()):
            return UNBOUNDED
        return min(MAX_BATCH, self._tasks_in(BATCH_SECONDS))

    # ---- taking back ---------------------------------------------------------------------------------------

    def make_way(self, priority: int) -> None:
        """Have everything taken back, if a task of this priority is more urgent than some that are ahead."""
        if self._state.prefetched and priority > self._lowest_ahead:
            self._commands.recall_all()

    def recall_task(self, number: int) -> None:
        """Have a task taken back that is ahead of a worker, and with it those behind."""
        slot = self._workforce.slots[self._state.prefetched[number]]
        self._commands.recall(slot, len(slot.ahead) - slot.ahead.index(number))

    def rebalance(self, now: float) -> None:
        """Take back a part of what is ahead of the worker that is furthest behind, for workers that are idle.

        The queue is empty. TakenBack puts the tasks there.
        """
        pace = self.pace
        if pace is None:
            return
        long = max(WORTH_MOVING, 2 * pace)
        behind = [
            slot
            for slot in self._workforce.workers()
            if slot.ahead
            and not slot.recall_pending
            and slot.rebalanced < (_ALL if now - slot.busy_since >= long else _PART)
        ]
        if not behind:
            return
        slot = max(behind, key=lambda slot: len(slot.ahead) * pace + now - slot.busy_since)
        if now - slot.busy_since >= long:
            slot.rebalanced, count = _ALL, len(slot.ahead)  # what it runs takes long, whatever was measured
        elif len(slot.ahead) * pace >= WORTH_MOVING:
            slot.rebalanced, count = _PART, -(-len(slot.ahead) // 2)
            self._timers.set((Timer.BALANCE, 0), slot.busy_since + long)  # the rest, if what it runs takes long
        else:
            self._timers.set((Timer.BALANCE, 0), now + long)
            return
        self._commands.recall(slot, count)
