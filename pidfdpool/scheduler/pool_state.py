"""What a machine knows of its pool, and the steps by which that changes. Pure; see the room's docstring."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from typing import TYPE_CHECKING

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler.queue import Waiting
from pidfdpool.scheduler.states import Phase, Slot, State, Task, Template
from pidfdpool.scheduler.timers import Timer, Timers

if TYPE_CHECKING:
    from pidfdpool.scheduler import events as ev
    from pidfdpool.scheduler.policy import Policy

SIGTERM, SIGKILL = 15, 9
# What a frame has room for. A pool that forks 400 workers a second gets there in 124 days.
MOST_GENERATIONS = 2**32 - 1
END_AFTER_HANGING_UP = 0.2  # seconds; the kernel closes the channel of a process that ends a moment before its end

_OF_WORKERS = [timer for timer in Timer if timer < Timer.DEADLINE]


class Knowledge:
    """The state of one pool. Not thread-safe: the caller holds the pool's lock."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.phase = Phase.OPEN
        self.broken: str | None = None
        self.template = Template.DOWN
        self.booted = False  # the template's preload is done
        self.size = policy.max_workers  # workers at most, those that are being replaced not counted
        self.level = 0  # workers to be kept, min_workers at least: grows with what waits, shrinks when they idle
        self.prestart = 0  # what the level is to rise to, though no tasks wait
        self.slots: list[Slot] = []  # as many as were ever needed at a time
        self.tasks: dict[int, Task] = {}  # accepted and not resolved
        self.queue = Waiting()
        self.running: dict[int, int] = {}  # task -> slot; a task in none of them waits for its next attempt
        self.given: dict[int, int] = {}  # task -> slot: those ahead of a worker
        self.withdrawing = False  # what comes back to the queue from there is cancelled
        self.withdrawn: set[int] = set()  # and these, if they come back
        self.killing = False
        self.states: Counter[State] = Counter()
        self.active = 0  # workers that count towards the level: not stopping, and not being replaced
        self.retiring: list[Slot] = []  # they work on until their replacements are ready
        self.deaths = self.restarts = self.retries = 0  # ever
        self._timers = Timers()
        self._idle: list[int] = []  # last in, first out: the warmest worker gets the next task
        self._free: list[int] = []  # a heap: dead slots
        self._by_generation: dict[int, Slot] = {}  # of living workers
        self._generations = 0
        self._streak = 0  # young deaths in a row, of workers and templates alike
        self._rounds = 0  # the same, but those that come during one pause count once
        self._young: deque[float] = deque()  # when they were
        self._barren_since: float | None = None  # since when no process could be started, with none there to go on
        self._not_before = 0.0  # no spawn and no template start before this
        self._pace: float | None = None  # seconds that a task takes, lately
        self._ahead_floor = 0  # the lowest priority of a task that is ahead, if one is
        self._may_wait: int | None = None  # what `Machine.enqueue` found out, since the last decision
        self._actions: list[do.Action] = []
        self._now = 0.0  # of the decision that is being taken

    # ---- slots ---------------------------------------------------------------------------------------------

    @property
    def alive(self) -> int:
        """The number of workers, in whatever state."""
        return len(self._by_generation)

    def _occupy(self, now: float) -> Slot:
        """Take the first free slot for a new worker."""
        if not self._free:
            self._free.append(len(self.slots))
            self.slots.append(Slot(len(self.slots)))
        slot = self.slots[heapq.heappop(self._free)]
        slot.occupy(self._new_generation(), now)
        self._by_generation[slot.generation] = slot
        self.states[State.STARTING] += 1
        self.active += 1
        return slot

    def _new_generation(self) -> int:
        """Return a number that no living worker has, nor any of the last billions. They begin anew one day."""
        while True:
            self._generations = self._generations % MOST_GENERATIONS + 1
            if self._generations not in self._by_generation:
                return self._generations

    def held(self, index: int, generation: int) -> list[int]:
        """Return the tasks that a worker has not answered, in the order in which it begins them."""
        slot = self.slots[index]
        if slot.generation != generation:
            return []
        return [*slot.ahead] if slot.task is None else [slot.task, *slot.ahead]

    def _move(self, slot: Slot, state: State) -> None:
        if slot.state is State.IDLE:
            self._idle.remove(slot.index)
        self.states[slot.state] -= 1
        self.states[state] += 1
        slot.state = state
        if state is State.STOPPING:
            self._discount(slot)
        elif state is State.IDLE:
            if slot.counted:
                self._idle.append(slot.index)
            else:  # it works on until its replacement is ready, but whoever is there to stay comes first
                self._idle.insert(0, slot.index)

    def _discount(self, slot: Slot) -> None:
        """Count the worker no longer: another one may take its place."""
        if slot.counted:
            slot.counted = False
            self.active -= 1
        if slot in self.retiring:
            self.retiring.remove(slot)

    def _bury(self, slot: Slot) -> None:
        self._move(slot, State.DEAD)
        self._discount(slot)
        self._timers.cancel(*((timer, slot.generation) for timer in _OF_WORKERS))
        del self._by_generation[slot.generation]
        slot.pid = slot.task = slot.ready_at = slot.cause = None
        slot.ahead.clear()
        heapq.heappush(self._free, slot.index)

    def _stop(self, slot: Slot, now: float, cause: Cause) -> None:
        """Tell a worker to leave, and wait for that."""
        slot.cause = slot.cause or cause
        self._actions.append(do.Stop(slot.index, slot.generation))
        self._expect_end(slot, now)

    def _expect_end(self, slot: Slot, now: float) -> None:
        self._timers.set((Timer.STOP, slot.generation), now + self.policy.stop_grace)
        self._move(slot, State.STOPPING)

    def _retire(self, slot: Slot, cause: Cause, now: float, *, at_once: bool = False) -> None:
        """Have a worker replaced: when the replacement is ready, or at once, but never in the middle of a task."""
        if slot.state not in (State.STARTING, State.IDLE, State.BUSY):
            return
        slot.retires_for = slot.retires_for or cause
        self._discount(slot)
        if not at_once:
            if not slot.leaving:
                self.retiring.append(slot)
        else:
            slot.leaving = True
            self._recall(slot)
            if slot.state is State.IDLE:
                self._stop(slot, now, slot.retires_for)
        if slot.state is State.IDLE:
            self._move(slot, State.IDLE)  # to its new place in the line

    def _retire_now(self, slot: Slot, now: float) -> None:
        """Wait for the replacement no longer."""
        assert slot.retires_for is not None
        self._retire(slot, slot.retires_for, now, at_once=True)

    def _recall(self, slot: Slot, count: int | None = None) -> None:
        """Have so many of the last tasks ahead of a worker taken back, or all; TakenBack tells how many were.

        Once at a time, because the number is meant of what is ahead now.
        """
        count = len(slot.ahead) if count is None else count
        if count and not slot.recalled:
            slot.recalled = True
            self._actions.append(do.TakeBack(slot.index, slot.generation, count))

    def _recall_all(self) -> None:
        """Have all that is ahead of any worker taken back."""
        for slot in self._by_generation.values():
            self._recall(slot)

    def _signal(self, slot: Slot, number: int) -> None:
        self._actions.append(do.Signal(slot.index, slot.generation, number))

    def _distrust(self, slot: Slot) -> None:
        """Kill a worker that wrote what no worker's loop writes. Whatever it says next cannot be trusted either."""
        slot.cause = slot.cause or Cause.BABBLE
        self._signal(slot, SIGKILL)

    def _babbled(self, slot: Slot, event: ev.Babbled, _now: float) -> None:
        slot.detail = slot.detail or event.told
        self._distrust(slot)

    def _hung_up(self, slot: Slot, _event: ev.HungUp, now: float) -> None:
        self._timers.set((Timer.HANG_UP, slot.generation), now + END_AFTER_HANGING_UP)

    def _hung_up_for_long(self, slot: Slot, _now: float) -> None:
        slot.cause = slot.cause or Cause.HUNG_UP
        self._signal(slot, SIGKILL)

    def _stop_clocks(self, slot: Slot) -> None:
        """Bound the worker's task by time no longer."""
        self._timers.cancel((Timer.TIMEOUT, slot.generation), (Timer.HEARTBEAT, slot.generation))

    # ---- giving up -----------------------------------------------------------------------------------------

    def _died_young(self, told: str, now: float, *, fatal: bool = True) -> None:
        """Pause before the next start; break if this happens too often. Not fatal: pause only."""
        self._streak += 1
        one_blow = now < self._not_before  # whatever dies during a pause was started before it
        self._not_before = now + self.policy.pause(self._streak)
        if not fatal:
            return
        self._rounds += not one_blow
        most = self.policy.young_rounds_allowed
        if most is not None and self._rounds > most:
            # The pauses grow: these alone, one at a time, would never be as many within the period.
            self._break(
                f"processes died {self._rounds} times in a row, after growing pauses, before any of them finished a "
                f"task; the last: {told}"
            )
            return
        self._young.append(now)
        while now - self._young[0] > self.policy.period:
            self._young.popleft()
        if len(self._young) > self.policy.young_deaths_allowed:
            self._break(
                f"{len(self._young)} processes died within {self.policy.period:g} s before any of them finished "
                f"a task; the last: {told}"
            )

    def _not_started(self, told: str, now: float, *, fatal: bool) -> None:
        """Note that a worker or a template could not be started; break if none could for a whole period.

        Their number would not tell: it is the pauses between attempts that grow, and all of a pool fail together.
        """
        if any(slot.pid is not None for slot in self._by_generation.values()):
            self._barren_since = None
        elif self._barren_since is None:
            self._barren_since = now
        elif now - self._barren_since >= self.policy.period:
            self._break(f"no process could be started for {now - self._barren_since:.3g} s; the last: {told}")
            return
        self._died_young(told, now, fatal=fatal)

    def _forgive(self) -> None:
        """Forget the young deaths: a task was finished."""
        if self._streak:
            self._streak = self._rounds = 0
            self._young.clear()

    def give_up(self, reason: str) -> None:
        """Take note that a decision was left half done, and nothing in here can be relied on any more."""
        self.broken = self.broken or reason
        self.phase = Phase.CLOSED

    def _break(self, reason: str) -> None:
        """Fail everything, kill everything. The reason of the first break is the one that counts."""
        if self.phase is Phase.CLOSING:
            return
        self.broken = reason
        self.phase = Phase.CLOSING
        self._actions.extend(do.FailBroken(task, reason) for task in self.tasks)
        for task in self.tasks:
            self._timers.cancel((Timer.DEADLINE, task), (Timer.RETRY, task))
        self.tasks.clear()
        self.running.clear()
        self.given.clear()
        self.queue.clear()
        for slot in self._by_generation.values():
            slot.ahead.clear()
            slot.cause = slot.cause or Cause.BROKEN
            self._stop_clocks(slot)
            self._signal(slot, SIGKILL)
        if self.template is Template.UP:
            self._stop_template()

    def _stop_template(self) -> None:
        self._actions.append(do.StopTemplate())
        self.template = Template.STOPPING
        self._timers.set((Timer.TEMPLATE, 0), self._now + self.policy.stop_grace)
