"""The slots of a pool and the workers in them: who is there, in which state, and how many. Pure."""

from __future__ import annotations

import heapq
from collections import Counter
from typing import TYPE_CHECKING

from pidfdpool.scheduler.states import Slot, State

if TYPE_CHECKING:
    from collections.abc import ValuesView

    from pidfdpool.scheduler.timers import Timers

# What a frame has room for. A pool that forks 400 workers a second gets there in 124 days.
MAX_GENERATION = 2**32 - 1


class Workforce:
    """All slots, with an index by generation, a list of the idle ones and counts by state.

    A slot changes its state here only, so that lists and counts always agree with the slots. Whether a change makes
    sense is for the callers to know.

    Attributes:
        slots: all slots, as many as were ever needed at a time.
        by_generation: generation -> slot, for each living worker.
        counts: state -> number of slots. DEAD is not kept up for slots that were never filled.
        idle: indexes of the slots whose workers are idle. The last one gets the next task: its worker has run most
            recently, so its memory is the most likely to be in the caches.
        active: the number of workers that count towards the pool's level: not stopping, and not being replaced.
        retiring: slots whose workers go on until their replacements are ready.
    """

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self.slots: list[Slot] = []
        self.by_generation: dict[int, Slot] = {}
        self.counts: Counter[State] = Counter()
        self.idle: list[int] = []
        self.active: int = 0
        self.retiring: list[Slot] = []
        self._free: list[int] = []  # a heap of the indexes of DEAD slots
        self._last_generation = 0

    def workers(self) -> ValuesView[Slot]:
        """Return the slots that have a worker, in whatever state, oldest first. A view: copy it to change slots."""
        return self.by_generation.values()

    @property
    def alive(self) -> int:
        """The number of workers, in whatever state."""
        return len(self.by_generation)

    def held(self, index: int, generation: int) -> list[int]:
        """Return the tasks that a worker has not answered, in the order in which it begins them."""
        slot = self.slots[index]
        if slot.generation != generation:
            return []
        return [*slot.ahead] if slot.task is None else [slot.task, *slot.ahead]

    def occupy(self, now: float) -> Slot:
        """Take the first free slot for a new worker, which is STARTING."""
        if not self._free:
            self._free.append(len(self.slots))
            self.slots.append(Slot(len(self.slots)))
        slot = self.slots[heapq.heappop(self._free)]
        slot.occupy(self._next_generation(), now)
        self.by_generation[slot.generation] = slot
        self.counts[State.STARTING] += 1
        self.active += 1
        return slot

    def _next_generation(self) -> int:
        """Return a number that no living worker has, nor any of the last billions. They wrap around one day."""
        while True:
            self._last_generation = self._last_generation % MAX_GENERATION + 1
            if self._last_generation not in self.by_generation:
                return self._last_generation

    def move(self, slot: Slot, state: State) -> None:
        """Change the state of a worker."""
        if slot.state is State.IDLE:
            self.idle.remove(slot.index)
        self.counts[slot.state] -= 1
        self.counts[state] += 1
        slot.state = state
        if state is State.STOPPING:
            self.uncount(slot)
        elif state is State.IDLE:
            if slot.counted:
                self.idle.append(slot.index)
            else:  # it works on until its replacement is ready, but workers that are to stay get tasks first
                self.idle.insert(0, slot.index)

    def uncount(self, slot: Slot) -> None:
        """Stop counting the worker as active: another one may take its place."""
        if slot.counted:
            slot.counted = False
            self.active -= 1
        if slot in self.retiring:
            self.retiring.remove(slot)

    def vacate(self, slot: Slot) -> None:
        """Free the slot of a worker that has died, or that was never forked."""
        self.move(slot, State.DEAD)
        self.uncount(slot)
        self._timers.cancel_worker(slot.generation)
        del self.by_generation[slot.generation]
        slot.pid = slot.task = slot.ready_at = slot.cause = None
        slot.ahead.clear()
        heapq.heappush(self._free, slot.index)
