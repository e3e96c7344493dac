"""The pool's decisions: `Machine.decide(event, now)` turns what happened into what is to be done.

Pure: no process, no clock, no I/O, no lock. `loop` owns the one Machine of a pool, calls it under the pool's lock
from whichever thread observed the event, and carries out the actions in their order. `now` is any clock in
seconds that never runs backwards.

What can happen to a worker is one table, `rules.RULES`: a row says in which states an event is taken, where the
slot goes, and why. After every event `_settle` brings the pool forward as a whole: hand out tasks, refill slots,
close.

What holds after every decision, and what the property tests check:
  - a task is queued, or in exactly one worker, or resolved; it is resolved once;
  - a task that a worker may have begun never goes back into the queue;
  - a pool that is asked to close, or that breaks, closes.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from typing import TYPE_CHECKING, Any

from pidfdpool import events as ev
from pidfdpool.rules import TABLE, Phase, Slot, State, Template

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.policy import Policy

SIGKILL = 9


class Machine:
    """The state of one pool and the rules that move it. Not thread-safe: the caller holds the pool's lock."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.phase = Phase.OPEN
        self.broken: str | None = None
        self.template = Template.DOWN
        self.slots = [Slot(index) for index in range(policy.max_workers)]
        self.queue: OrderedDict[int, None] = OrderedDict()
        self.running: dict[int, int] = {}  # task -> slot
        self.killing = False
        self._idle: list[int] = []  # last in, first out: the warmest worker gets the next task
        self._states: Counter[State] = Counter({State.DEAD: policy.max_workers})
        self._generations = 0
        self._streak = 0  # young deaths in a row, of workers and templates alike
        self._young: deque[float] = deque()  # when they were
        self._not_before = 0.0  # no spawn and no template start before this
        self._actions: list[ev.Action] = []
        self._pool_events: dict[type[Any], Callable[[Any, float], None]] = {
            ev.Submitted: self._submitted,
            ev.Cancelled: self._cancelled,
            ev.TemplateUp: self._template_up,
            ev.TemplateLost: self._template_lost,
            ev.TemplateHopeless: self._template_hopeless,
            ev.ShutdownAsked: self._shutdown_asked,
            ev.KillAsked: self._kill_asked,
            ev.Tick: self._tick,
        }

    # ---- the two calls -------------------------------------------------------------------------------------

    def decide(self, event: ev.Event, now: float) -> list[ev.Action]:
        """Take one event and return the actions to carry out, in order."""
        pool_event = self._pool_events.get(type(event))
        if pool_event is not None:
            pool_event(event, now)
        else:
            self._worker_event(event, now)
        self._settle(now)
        actions, self._actions = self._actions, []
        return actions

    def deadline(self) -> float | None:
        """Return when a Tick is due, or None: then nothing happens unless something else does."""
        times: list[float] = []
        if self._states[State.STOPPING]:
            times = [slot.stop_by for slot in self.slots if slot.stop_by is not None]
        if self._spawns_wanted() and self.template in (Template.UP, Template.DOWN):
            times.append(self._not_before)
        return min(times, default=None)

    # ---- events about one worker ---------------------------------------------------------------------------

    def _worker_event(self, event: Any, now: float) -> None:
        slot = self.slots[event.slot]
        if slot.generation != event.generation or slot.state is State.DEAD:
            return  # late news of a worker that is buried
        method = TABLE.get((type(event), slot.state))
        if method is None:
            # Only a task that writes into the worker's channel can make a worker speak out of turn. Whatever it
            # says next cannot be trusted either.
            self._signal(slot, SIGKILL)
            return
        getattr(self, method)(slot, event, now)

    def _ignore(self, _slot: Slot, _event: Any, _now: float) -> None:
        """Take an event that changes nothing."""

    def _spawned(self, slot: Slot, event: ev.Spawned, _now: float) -> None:
        slot.pid = event.pid

    def _spawn_failed(self, slot: Slot, event: ev.SpawnFailed, now: float) -> None:
        self._bury(slot)
        # With other workers alive the pool goes on with those: a process limit is no reason to break it.
        self._died_young(f"no worker could be started: {event.reason}", now, fatal=not self._any_alive())

    def _ready(self, slot: Slot, _event: ev.Ready, now: float) -> None:
        slot.ready_at = now
        self._move(slot, State.IDLE)

    def _initializer_failed(self, _slot: Slot, event: ev.InitializerFailed, _now: float) -> None:
        self._break(f"the initializer raised in a worker: {event.reason}")

    def _finished(self, slot: Slot, event: ev.Finished, now: float) -> None:
        if slot.task != event.task:
            self._signal(slot, SIGKILL)
            return
        slot.task = None
        slot.tasks_done += 1
        self._streak = 0
        self._young.clear()
        if self.running.pop(event.task, None) is not None:
            self._actions.append(ev.Deliver(event.task))
        limit = self.policy.max_tasks_per_child
        if limit is not None and slot.tasks_done >= limit:
            self._stop(slot, now)
        else:
            self._move(slot, State.IDLE)

    def _send_refused(self, slot: Slot, _event: ev.SendRefused, now: float) -> None:
        self._requeue(slot)
        slot.stop_by = now + self.policy.stop_grace
        self._move(slot, State.STOPPING)

    def _declined(self, slot: Slot, event: ev.Declined, _now: float) -> None:
        self.running.pop(event.task, None)
        slot.task = None
        self._move(slot, State.IDLE)

    def _died(self, slot: Slot, event: ev.Died, now: float) -> None:
        asked = slot.state is State.STOPPING or slot.doomed
        if event.unread:
            self._requeue(slot)
        lost = slot.task if slot.task in self.running else None
        if lost is not None:
            del self.running[lost]
            self._actions.append(
                ev.FailCrashed(
                    task=lost,
                    slot=slot.index,
                    generation=slot.generation,
                    pid=slot.pid,
                    status=event.status,
                    uptime=now - slot.asked_at,
                    tasks_done=slot.tasks_done,
                )
            )
        age = 0.0 if slot.ready_at is None else now - slot.ready_at
        young = not asked and lost is None and slot.tasks_done == 0 and age < self.policy.young_age
        told = f"worker {slot.index} (pid {slot.pid}) ended: {event.status}"
        self._bury(slot)
        if self.phase is Phase.CLOSING:
            return
        if self.policy.on_crash == "break" and (lost is not None or not asked):
            self._break(f"{told}; on_crash='break' makes every crash break the pool")
        elif young:
            self._died_young(told, now)

    # ---- events about the pool -----------------------------------------------------------------------------

    def _submitted(self, event: ev.Submitted, _now: float) -> None:
        if self.phase is Phase.OPEN:
            self.queue[event.task] = None
        else:
            # The caller checks first; a task that slips through between its check and this call must not hang.
            self._actions.append(ev.FailBroken(event.task, self.broken or "the pool is shut down"))

    def _cancelled(self, event: ev.Cancelled, _now: float) -> None:
        if event.task in self.queue:
            del self.queue[event.task]
            self._actions.append(ev.Withdraw(event.task))

    def _template_up(self, _event: ev.TemplateUp, _now: float) -> None:
        self.template = Template.UP

    def _template_lost(self, event: ev.TemplateLost, now: float) -> None:
        asked = self.template is Template.STOPPING
        self._lose_template()
        if not asked and self.phase is not Phase.CLOSING:
            self._died_young(f"the template was lost: {event.reason}", now)

    def _template_hopeless(self, event: ev.TemplateHopeless, _now: float) -> None:
        self._lose_template()
        self._break(event.reason)

    def _lose_template(self) -> None:
        self.template = Template.DOWN
        for slot in self.slots:
            if slot.state is State.DEAD:
                continue
            if slot.pid is None:
                self._bury(slot)  # the request died with the template
            else:
                slot.doomed = True  # by its parent-death signal; its own Died follows

    def _shutdown_asked(self, event: ev.ShutdownAsked, _now: float) -> None:
        if self.phase is Phase.OPEN:
            self.phase = Phase.DRAINING
        if event.cancel:
            self._actions.extend(ev.Withdraw(task) for task in self.queue)
            self.queue.clear()

    def _kill_asked(self, event: ev.KillAsked, now: float) -> None:
        self._shutdown_asked(ev.ShutdownAsked(cancel=True), now)
        self.killing = True
        for slot in self.slots:
            if slot.state is not State.DEAD:
                slot.doomed = True
                self._signal(slot, event.signal)

    def _tick(self, _event: ev.Tick, now: float) -> None:
        for slot in self.slots:
            if slot.stop_by is not None and now >= slot.stop_by:
                slot.stop_by = None
                self._signal(slot, SIGKILL)

    # ---- what several rules share --------------------------------------------------------------------------

    def _move(self, slot: Slot, state: State) -> None:
        if slot.state is State.IDLE:
            self._idle.remove(slot.index)
        self._states[slot.state] -= 1
        self._states[state] += 1
        slot.state = state
        if state is State.IDLE:
            self._idle.append(slot.index)

    def _bury(self, slot: Slot) -> None:
        self._move(slot, State.DEAD)
        slot.pid = slot.task = slot.ready_at = slot.stop_by = None
        slot.doomed = False

    def _requeue(self, slot: Slot) -> None:
        if self.killing:
            return  # it never ran, and is not to run any more: it shares its worker's fate
        task, slot.task = slot.task, None
        if task is not None and self.running.pop(task, None) is not None:
            self.queue[task] = None
            self.queue.move_to_end(task, last=False)

    def _stop(self, slot: Slot, now: float) -> None:
        self._actions.append(ev.Stop(slot.index, slot.generation))
        slot.stop_by = now + self.policy.stop_grace
        self._move(slot, State.STOPPING)

    def _signal(self, slot: Slot, number: int) -> None:
        self._actions.append(ev.Signal(slot.index, slot.generation, number))

    def _any_alive(self) -> bool:
        return self._states[State.DEAD] < len(self.slots)

    def _died_young(self, told: str, now: float, *, fatal: bool = True) -> None:
        """Pause before the next start; break if this happens too often. Not fatal: pause only."""
        self._streak += 1
        self._not_before = now + self.policy.pause(self._streak)
        if not fatal:
            return
        self._young.append(now)
        while now - self._young[0] > self.policy.period:
            self._young.popleft()
        if len(self._young) > self.policy.young_deaths_allowed:
            self._break(
                f"{len(self._young)} processes died within {self.policy.period:g} s before any of them finished "
                f"a task; the last: {told}"
            )

    def _break(self, reason: str) -> None:
        """Fail everything, kill everything. The reason of the first break is the one that counts."""
        if self.phase is Phase.CLOSING:
            return
        self.broken = reason
        self.phase = Phase.CLOSING
        tasks = [*self.running, *self.queue]
        self.running.clear()
        self.queue.clear()
        self._actions.extend(ev.FailBroken(task, reason) for task in tasks)
        for slot in self.slots:
            if slot.state is not State.DEAD:
                self._signal(slot, SIGKILL)
        if self.template is Template.UP:
            self._stop_template()

    def _stop_template(self) -> None:
        self._actions.append(ev.StopTemplate())
        self.template = Template.STOPPING

    # ---- bringing the pool forward -------------------------------------------------------------------------

    def _settle(self, now: float) -> None:
        if self.phase in (Phase.OPEN, Phase.DRAINING):
            self._hand_out()
            if now >= self._not_before:
                self._refill(now)
        if self.phase is Phase.DRAINING and not self.queue and not self.running:
            self.phase = Phase.CLOSING
            for slot in self.slots:
                if slot.state in (State.IDLE, State.STARTING):
                    self._stop(slot, now)
        if self.phase is Phase.CLOSING and not self._any_alive():
            if self.template is Template.UP:
                self._stop_template()
            elif self.template is Template.DOWN:
                self.phase = Phase.CLOSED
                self._actions.append(ev.Close())

    def _hand_out(self) -> None:
        while self.queue and self._idle:
            slot = self.slots[self._idle[-1]]
            task, _ = self.queue.popitem(last=False)
            slot.task = task
            self.running[task] = slot.index
            self._move(slot, State.BUSY)
            self._actions.append(ev.Send(slot.index, slot.generation, task))

    def _spawns_wanted(self) -> int:
        """Return how many dead slots to fill.

        One per waiting task that no starting worker will take; in an open pool, every slot that had a worker before.
        """
        if self.phase not in (Phase.OPEN, Phase.DRAINING) or not self._states[State.DEAD]:
            return 0
        wanted = max(0, len(self.queue) - self._states[State.STARTING])
        if self.phase is Phase.OPEN:
            wanted = max(wanted, sum(slot.wanted for slot in self.slots if slot.state is State.DEAD))
        return min(wanted, self._states[State.DEAD])

    def _refill(self, now: float) -> None:
        wanted = self._spawns_wanted()
        if not wanted:
            return
        if self.template is Template.DOWN:
            self.template = Template.STARTING
            self._actions.append(ev.StartTemplate())
        if self.template is not Template.UP:
            return
        dead = [slot for slot in self.slots if slot.state is State.DEAD]
        dead.sort(key=lambda slot: not slot.wanted)
        for slot in dead[:wanted]:
            self._generations += 1
            slot.generation = self._generations
            slot.wanted = True
            slot.asked_at = now
            slot.tasks_done = 0
            self._move(slot, State.STARTING)
            self._actions.append(ev.Spawn(slot.index, slot.generation))
