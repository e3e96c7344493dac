"""What happens to the pool, and how many workers there are to be. Pure; see the room's docstring.

How many: `level` is what the pool holds. It rises when tasks wait and no worker is free, up to `size`, and falls when
workers idle too long, down to the policy's min_workers. A worker that dies, leaves or is being replaced counts no
longer, so another is started. While some are being replaced there are more processes than `size`, but never more
than twice as many, and never more than `size` tasks run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pidfdpool import actions as do
from pidfdpool import events as ev
from pidfdpool.actions import Cause
from pidfdpool.machine.timers import Timer
from pidfdpool.machine.workers import WorkerRules
from pidfdpool.rules import Phase, State, Task, Template

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.policy import Policy
    from pidfdpool.rules import Slot


class Machine(WorkerRules):
    """The state of one pool and the rules that move it. Not thread-safe: the caller holds the pool's lock."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self._pool_events: dict[type[Any], Callable[[Any, float], None]] = {
            ev.Submitted: self._submitted,
            ev.Cancelled: self._cancelled,
            ev.TaskKillAsked: self._task_kill_asked,
            ev.Resized: self._resized,
            ev.Prestarted: self._prestarted,
            ev.TemplateUp: self._template_up,
            ev.TemplateBooted: self._template_booted,
            ev.TemplateLost: self._template_lost,
            ev.TemplateHopeless: self._template_hopeless,
            ev.ShutdownAsked: self._shutdown_asked,
            ev.KillAsked: self._kill_asked,
            ev.Tick: self._tick,
        }
        self._worker_timers: dict[Timer, Callable[[Slot, float], None]] = {
            Timer.STOP: self._stop_overdue,
            Timer.TIMEOUT: self._timed_out,
            Timer.HEARTBEAT: self._ask_heartbeat,
            Timer.STACK: self._ask_stack,
            Timer.KILL: self._kill,
            Timer.GIVE_UP: self._give_up,
            Timer.AGE: self._too_old,
            Timer.IDLE: self._idle_too_long,
            Timer.FORK: self._fork_overdue,
            Timer.START: self._start_overdue,
            Timer.HANG_UP: self._hung_up_for_long,
        }
        self._other_timers: dict[Timer, Callable[[int, float], None]] = {
            Timer.DEADLINE: self._deadline_passed,
            Timer.RETRY: self._pause_over,
            Timer.MEMORY: self._look_at_memory,
            Timer.TEMPLATE: self._template_overdue,
            Timer.BALANCE: self._balance,
        }

    # ---- the two calls -------------------------------------------------------------------------------------

    def decide(self, event: ev.Event, now: float) -> list[do.Action]:
        """Take one event and return the actions to carry out, in order."""
        self._now = now
        self._may_wait = None
        pool_event = self._pool_events.get(type(event))
        if pool_event is not None:
            pool_event(event, now)
        else:
            self._worker_event(event, now)
        self._settle(now)
        actions, self._actions = self._actions, []
        return actions

    def enqueue(self, number: int, now: float, heavy: bool = False) -> bool:
        """Take a task under the pool's own policy, by the short way: return whether it just waits, and that is all.

        Otherwise nothing has happened yet, and `Submitted` is to be decided about.
        """
        most = self._may_wait
        if most is None:
            most = self._may_wait = self._queues_up_to()
        if len(self.queue.priority_of) >= most:
            return False
        self.tasks[number] = Task(self.policy, now, heavy)
        self.queue.add(number, self.policy.priority)
        return True

    def hand_over(self, number: int, now: float, heavy: bool = False) -> Slot | None:
        """Take a task under the pool's own policy for an idle worker, by the short way: return that one's slot.

        It is to be sent the task. None: nothing has happened yet, `Submitted` is to be decided about.
        """
        if not self._idle or not self._is_quiet or self.states[State.BUSY] >= self.size:
            return None
        slot = self.slots[self._idle[-1]]
        task = self.tasks[number] = Task(self.policy, now, heavy)
        self._move(slot, State.BUSY)
        self._start_on(number, task, slot, now)
        self._may_wait = None
        return slot

    def deadline(self) -> float | None:
        """Return when a Tick is due, or None: then nothing happens unless something else does."""
        at = self._timers.next()
        if self._spawns_wanted() and self.template in (Template.UP, Template.DOWN):
            return self._not_before if at is None else min(at, self._not_before)
        return at

    # ---- events about the pool -----------------------------------------------------------------------------

    def _tick(self, event: ev.Tick, now: float) -> None:
        while (key := self._timers.pop_due(min(now, event.heard_until))) is not None:
            timer, whose = key
            if timer in self._other_timers:
                self._other_timers[timer](whose, now)
            elif whose in self._by_generation:
                self._worker_timers[timer](self._by_generation[whose], now)

    def _look_at_memory(self, _pool: int, now: float) -> None:
        busy = [slot for slot in self._by_generation.values() if slot.state is State.BUSY]
        self._actions.extend(do.CheckMemory(slot.index, slot.generation) for slot in busy)
        if busy:
            self._timers.set((Timer.MEMORY, 0), now + self.policy.memory_interval)

    def _template_overdue(self, _pool: int, _now: float) -> None:
        if self.template is Template.STOPPING:
            self._actions.append(do.KillTemplate())

    def _task_kill_asked(self, event: ev.TaskKillAsked, now: float) -> None:
        number = event.task
        if number in self.running:
            self._ask_to_kill(number, self.slots[self.running[number]], now)
        elif number in self.given:
            self._ask_to_kill(number, self.slots[self.given[number]], now)
        elif number in self.tasks:
            self._forget(number)
            self._actions.append(do.Fail(number, Cause.KILL))

    def _resized(self, event: ev.Resized, now: float) -> None:
        self.size = event.size
        self.level = min(self.level, self.size)
        # Those that have nothing to do first; then those that will be free the sooner the longer they run.
        order = {State.IDLE: 0, State.STARTING: 1, State.BUSY: 2}
        counted = [slot for slot in self._by_generation.values() if slot.counted]
        counted.sort(key=lambda slot: (order[slot.state], slot.busy_since))
        for slot in counted[: max(0, self.active - self.size)]:
            if slot.state is State.STARTING:
                self._stop(slot, now, Cause.RESIZE)
            else:
                self._retire(slot, Cause.RESIZE, now, at_once=True)

    def _prestarted(self, event: ev.Prestarted, _now: float) -> None:
        self.prestart = max(self.prestart, event.count)

    def _template_up(self, _event: ev.TemplateUp, _now: float) -> None:
        self.template = Template.UP
        self.booted = False

    def _template_booted(self, _event: ev.TemplateBooted, now: float) -> None:
        self.booted = True
        for slot in self._by_generation.values():
            if slot.pid is None:
                self._timers.set((Timer.FORK, slot.generation), now + self.policy.spawn_timeout)

    def _template_lost(self, event: ev.TemplateLost, now: float) -> None:
        asked = self.template is Template.STOPPING
        self._lose_template()
        if not asked and self.phase is not Phase.CLOSING:
            self._not_started(f"the template was lost: {event.reason}", now, fatal=True)

    def _template_hopeless(self, event: ev.TemplateHopeless, _now: float) -> None:
        self._lose_template()
        self._break(event.reason)

    def _lose_template(self) -> None:
        self.template = Template.DOWN
        self.booted = False
        for slot in list(self._by_generation.values()):
            if slot.pid is None:
                self._bury(slot)  # the request died with the template
            else:
                slot.doomed = True  # by its parent-death signal; its own Died follows

    def _shutdown_asked(self, event: ev.ShutdownAsked, _now: float) -> None:
        if self.phase is Phase.OPEN:
            self.phase = Phase.DRAINING
        if event.cancel:
            self._withdraw_waiting()

    def _kill_asked(self, event: ev.KillAsked, now: float) -> None:
        self._shutdown_asked(ev.ShutdownAsked(cancel=True), now)
        self.killing = True
        for slot in self._by_generation.values():
            slot.doomed = True
            slot.cause = slot.cause or Cause.SHUTDOWN
            self._signal(slot, event.signal)

    # ---- bringing the pool forward -------------------------------------------------------------------------

    def _settle(self, now: float) -> None:
        if self.phase in (Phase.OPEN, Phase.DRAINING):
            self._hand_out(now)
            if self.queue:
                self._send_ahead()
            elif self._idle and self.given:
                self._share_out(now)
            if now >= self._not_before:
                self._refill(now)
            if self.retiring:
                self._relieve(now)
        if self.phase is Phase.DRAINING and not self.tasks:
            self.phase = Phase.CLOSING
            for slot in list(self._by_generation.values()):
                if slot.task is None and slot.state is not State.STOPPING:
                    self._stop(slot, now, Cause.SHUTDOWN)
        if self.phase is Phase.CLOSING and not self.alive:
            if self.template is Template.UP:
                self._stop_template()
            elif self.template is Template.DOWN:
                self.phase = Phase.CLOSED
                self._actions.append(do.Close())

    def _hand_out(self, now: float) -> None:
        while self.queue and self._idle and self.states[State.BUSY] < self.size:
            number = self.queue.next()
            if self._is_too_late(self.tasks[number], now):  # though nobody has had the time to say so
                self._expire(number)
            else:
                self._give(self.slots[self._idle[-1]], now)

    def _spawns_wanted(self) -> int:
        """Return how many workers to start: those that waiting tasks need, and what an open pool's level lacks."""
        room = min(self.size - self.active, 2 * self.size - len(self._by_generation))
        if room <= 0 or self.phase not in (Phase.OPEN, Phase.DRAINING):
            return 0
        wanted = len(self.queue) - self.states[State.STARTING] - len(self._idle)
        if self.phase is Phase.OPEN:
            wanted = max(wanted, max(self.level, self.policy.min_workers, self.prestart) - self.active)
        return max(0, min(wanted, room))

    def _refill(self, now: float) -> None:
        wanted = self._spawns_wanted()
        if not wanted:
            return
        if self.template is Template.DOWN:
            self.template = Template.STARTING
            self._actions.append(do.StartTemplate())
        if self.template is not Template.UP:
            return
        for _ in range(wanted):
            slot = self._occupy(now)
            if self.booted:
                self._timers.set((Timer.FORK, slot.generation), now + self.policy.spawn_timeout)
            self._actions.append(do.Spawn(slot.index, slot.generation))
        grown = max(self.level, min(self.active, self.size))
        self.restarts += wanted - (grown - self.level)
        self.level = grown
        if self.level >= min(self.prestart, self.size):
            self.prestart = 0  # from now on they are like any others

    def _relieve(self, now: float) -> None:
        """Let those that are being replaced leave, as far as the others are as many as the pool is to hold."""
        ready = self.active - self.states[State.STARTING]
        while self.retiring and ready + len(self.retiring) > min(self.level, self.size):
            self._retire_now(self.retiring[0], now)
