"""Which tasks are sent to a worker before it asks, and how they come back. Pure; see the room's docstring.

A worker that is given its next task only when the last one is answered stands still in between: for a wake-up of the
host, and in a host that computes for as long as that keeps the interpreter's lock. So behind the task that it runs a
worker is sent others *ahead*, as many as take `prefetch` seconds at the pace that was measured. By time, not by
number: a hundred tasks of 10 us are nothing, two of a second are one too many.

What is ahead is not begun, and all promises hold as if it still stood in the queue:

  - It is *taken back* as soon as another worker has nothing to do, when it is cancelled, when one of a higher
    priority comes, when its worker is to leave, or to be killed for the task that it runs. The worker takes a token
    before it begins a task, the host takes the token back; whoever has it decides, so none is both begun and taken
    back.
  - What was taken back is still in the worker's channel. The worker drops it, and says so; until then it is sent
    nothing more.
  - Tokens that are left when a worker dies tell how many of its tasks never began. Those run elsewhere.
  - Of tasks whose calls are large one at a time is ahead, because memory in use should be at work.
  - Tasks that are limited by time, and all tasks of a pool that counts or measures each of them, are not sent ahead,
    and nothing is sent ahead while the pool may still start another worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool import actions as do
from pidfdpool.machine.tasks import TaskRules
from pidfdpool.machine.timers import Timer
from pidfdpool.rules import Phase, State

if TYPE_CHECKING:
    from pidfdpool.rules import Slot

MOST = 1000  # tasks ahead of a worker
PLENTY = 0.01  # seconds of work ahead to which none is added: a host that computes may not look again for 5 ms
ENOUGH = 0.001  # seconds of work ahead for which a submit need not look: the next answer is reason enough
LITTLE = 0.0005  # seconds of work that may wait until there is more of it to send, while all workers run something
LOT = 64  # tasks that are more than that, however small they are
UNBOUNDED = 1 << 62  # tasks
WORTH = 0.001  # seconds that another worker must be behind, so that taking tasks back from it is worth the while


class PrefetchRules(TaskRules):
    """The rules about tasks that are ahead."""

    # ---- sending ahead -------------------------------------------------------------------------------------

    def _note_pace(self, seconds: float) -> None:
        """Learn from a task that took so long."""
        self._pace = seconds if self._pace is None else self._pace + (seconds - self._pace) / 8

    def _sends_ahead(self) -> bool:
        """Return whether anything may be sent ahead now: the pool is as large as it can be, its pace is known."""
        return (
            self.policy.sends_ahead
            and self._pace is not None
            and self.active >= self.size
            and not self.states[State.STARTING]
        )

    def _may_take(self, seconds: float) -> int:
        """Return how many tasks take so long."""
        assert self._pace is not None
        return MOST if seconds >= MOST * self._pace else int(seconds / self._pace)

    def _most_and(self, seconds: float) -> tuple[int, int]:
        """Return how many tasks may be ahead of a worker, and how many take so long, if so many may be."""
        most = self._may_take(self.policy.prefetch)
        return most, min(most, max(1, self._may_take(seconds)))

    def _takes_more(self, slot: Slot, enough: int) -> bool:
        """Return whether tasks may be sent ahead of this worker, and are needed there."""
        return (
            slot.state is State.BUSY
            and not slot.leaving
            and not slot.to_drop
            and not slot.recalled
            and slot.cause is None
            and len(slot.ahead) < enough
            and slot.task in self.tasks
            and self.tasks[slot.task].policy.sends_ahead
        )

    def _send_ahead(self) -> None:
        """Send waiting tasks ahead of every worker that is short of them."""
        if not self._sends_ahead():
            return
        most, enough = self._most_and(PLENTY)
        short = [slot for slot in self._by_generation.values() if self._takes_more(slot, enough)]
        short.sort(key=lambda slot: len(slot.ahead))
        for index, slot in enumerate(short):
            # An even share of what waits, so that the first to be served does not get it all.
            share = -(-len(self.queue) // (len(short) - index))
            self._top_up(slot, min(most, share + len(slot.ahead)))

    def _top_up(self, slot: Slot, most: int) -> None:
        """Send waiting tasks ahead of a worker until there are so many."""
        numbers: list[int] = []
        queue, tasks, given, ahead, index = self.queue, self.tasks, self.given, slot.ahead, slot.index
        for _ in range(min(len(queue), most - len(ahead))):
            number = queue.pop()
            task = tasks[number]
            policy = task.policy
            if task.begun or not policy.sends_ahead or (task.heavy and ahead):
                queue.add(number, policy.priority, first=True)
                break
            if not given or policy.priority < self._ahead_floor:
                self._ahead_floor = policy.priority
            ahead.append(number)
            numbers.append(number)
            given[number] = index
        if numbers:
            self._actions.append(do.Prefetch(slot.index, slot.generation, tuple(numbers)))

    def _promote(self, slot: Slot, now: float) -> None:
        """Note that a worker has begun the first of the tasks ahead, since it has answered the one before."""
        number = slot.ahead.popleft()
        del self.given[number]
        self._start_on(number, self.tasks[number], slot, now)

    @property
    def _is_quiet(self) -> bool:
        """Whether a task may be taken or answered without a look at anybody but its worker."""
        return (
            self.phase is Phase.OPEN
            and self.policy.sends_ahead
            and self.policy.idle_timeout is None
            and not (self.queue.priority_of or self.given or self.retiring)
        )

    # ---- taking back ---------------------------------------------------------------------------------------

    def _return(self, slot: Slot, count: int) -> None:
        """Put the last of the tasks ahead of a worker back to the head of the queue, or withdraw them."""
        for _ in range(min(count, len(slot.ahead))):
            number = slot.ahead.pop()
            del self.given[number]
            if number in self.withdrawn or self.withdrawing:
                self.withdrawn.discard(number)
                self._forget(number)
                self._actions.append(do.Withdraw(number))
            else:
                self.queue.add(number, self.tasks[number].policy.priority, first=True)

    # ---- keeping all of them busy --------------------------------------------------------------------------

    def _share_out(self, now: float) -> None:
        """Give idle workers a part of what is ahead of the others, for which nothing waits in the queue."""
        workers = self._by_generation.values()
        behind = [slot for slot in workers if slot.ahead and not slot.asked_back and not slot.recalled]
        if not behind or self._pace is None:
            return
        pace = self._pace
        slot = max(behind, key=lambda slot: len(slot.ahead) * pace + now - slot.busy_since)
        long = max(WORTH, 2 * pace)
        if now - slot.busy_since >= long:
            count = len(slot.ahead)  # what it runs takes long, whatever was measured before
        elif len(slot.ahead) * pace >= WORTH:
            count = -(-len(slot.ahead) // 2)
        else:
            self._timers.set((Timer.BALANCE, 0), now + long)
            return
        slot.asked_back = True
        self._recall(slot, count)

    def _balance(self, _pool: int, now: float) -> None:
        """Look again, which `_settle` does after every event."""

    def _queues_up_to(self) -> int:
        """Return how many tasks of the pool's own policy may wait before a further one is a reason to decide.

        Where every worker runs something, its answer will be such a reason in any case. Whoever submits many small
        tasks need not send each of them by itself: a system call takes as long as the task, and lets go of the
        interpreter's lock.
        """
        if self.phase is not Phase.OPEN or self._idle or self.policy.deadline is not None:
            return 0
        if self.size > self.active or (self.given and self.policy.priority > self._ahead_floor):
            return 0
        if not self._sends_ahead():
            return UNBOUNDED
        _, enough = self._most_and(ENOUGH)
        if not any(self._takes_more(slot, enough) for slot in self._by_generation.values()):
            return UNBOUNDED
        return min(LOT, self._may_take(LITTLE))
