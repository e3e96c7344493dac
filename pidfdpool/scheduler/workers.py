"""What happens to one worker, and when one has to go. Pure; see the room's docstring.

A worker goes in one of three ways:

    it is *condemned*   because of its task: it ran too long, fell silent, took too much memory, or is to be killed.
                        SIGTERM, then SIGKILL after the task's grace, or SIGKILL at once. The task's outcome is that,
                        unless its result was written before.
    it is *retired*     because of itself: age, memory, its share of tasks, its own word. A replacement is started,
                        and it leaves when that is ready; or after the task it has, where it may run no other.
    it *dies*           for reasons of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler.policy import STACK_TIME
from pidfdpool.scheduler.pool_state import SIGKILL, SIGTERM
from pidfdpool.scheduler.prefetch import PrefetchRules
from pidfdpool.scheduler.states import TABLE, Phase, Slot, State, Template
from pidfdpool.scheduler.timers import Timer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pidfdpool.scheduler import events as ev

CONDEMNED = (Cause.TIMEOUT, Cause.HEARTBEAT, Cause.MEMORY, Cause.KILL)  # causes that the task has a part in
GIVE_UP_AFTER = 0.2  # seconds from SIGKILL; a process in the kernel's hands (uninterruptible sleep) takes longer


class WorkerRules(PrefetchRules):
    """The rules about workers; `rules.RULES` names them."""

    def _worker_event(self, event: Any, now: float) -> None:
        slot = self._by_generation.get(event.generation)
        if slot is None or slot.index != event.slot:
            return  # late news of a worker that is buried
        method = TABLE.get((type(event), slot.state))
        if method is None:
            # Only a task that writes into the worker's channel can make a worker speak out of turn. Whatever it
            # says next cannot be trusted either.
            self._distrust(slot)
            return
        getattr(self, method)(slot, event, now)

    def _ignore(self, _slot: Slot, _event: Any, _now: float) -> None:
        """Take an event that changes nothing."""

    # ---- birth ---------------------------------------------------------------------------------------------

    def _spawned(self, slot: Slot, event: ev.Spawned, now: float) -> None:
        slot.pid = event.pid
        self._barren_since = None
        self._timers.cancel((Timer.FORK, slot.generation))
        if self.policy.start_timeout is not None and slot.state is State.STARTING:
            self._timers.set((Timer.START, slot.generation), now + self.policy.start_timeout)

    def _fork_overdue(self, _slot: Slot, _now: float) -> None:
        if self.template is Template.UP:
            self.template = Template.STUCK
            self._actions.append(do.KillTemplate())

    def _start_overdue(self, slot: Slot, _now: float) -> None:
        if slot.state is State.STARTING:
            slot.cause = slot.cause or Cause.START
            self._signal(slot, SIGKILL)

    def _spawn_failed(self, slot: Slot, event: ev.SpawnFailed, now: float) -> None:
        self._bury(slot)
        # With other workers alive the pool goes on with those: a process limit is no reason to break it.
        self._not_started(f"no worker could be started: {event.reason}", now, fatal=not self.alive)
        if self.retiring:  # one of those that wait for a replacement makes room for it
            self._retire_now(self.retiring[0], now)

    def _ready(self, slot: Slot, _event: ev.Ready, now: float) -> None:
        slot.ready_at = now
        self._timers.cancel((Timer.START, slot.generation))
        if slot.leaving:
            self._stop(slot, now, slot.retires_for or Cause.UNHEALTHY)
            self._died_young(f"worker {slot.index} (pid {slot.pid}) said that it is unhealthy: {slot.detail}", now)
            return
        if self.policy.max_age is not None:
            self._timers.set((Timer.AGE, slot.generation), now + self.policy.max_age)
        self._rest(slot, now)

    def _initializer_failed(self, slot: Slot, event: ev.InitializerFailed, _now: float) -> None:
        slot.cause = slot.cause or Cause.BROKEN
        self._break(f"the initializer raised in a worker: {event.reason}")

    # ---- work ----------------------------------------------------------------------------------------------

    def _rest(self, slot: Slot, now: float) -> None:
        self._move(slot, State.IDLE)
        if self.policy.idle_timeout is not None:
            self._timers.set((Timer.IDLE, slot.generation), now + self.policy.idle_timeout)

    def _give(self, slot: Slot, now: float) -> None:
        """Give the next waiting task to an idle worker."""
        limit = self.policy.max_tasks_per_child
        if self.policy.idle_timeout is not None:
            self._timers.cancel((Timer.IDLE, slot.generation))
        self._move(slot, State.BUSY)
        if limit is not None and slot.tasks_done + 1 >= limit:
            self._retire(slot, Cause.TASKS, now, at_once=True)
        if self.policy.hard_memory_per_child is not None and (Timer.MEMORY, 0) not in self._timers:
            self._timers.set((Timer.MEMORY, 0), now + self.policy.memory_interval)
        self._begin(self.queue.pop(), slot, now)

    def _finished(self, slot: Slot, event: ev.Finished, now: float) -> None:
        if slot.task != event.task:
            self._distrust(slot)
            return
        slot.tasks_done += 1
        self._forgive()
        if event.seconds is not None:
            self._note_pace(event.seconds)
        number = self._take_from(slot)
        if number is not None:
            self._take_outcome(number, slot, event, now)
        if slot.cause in CONDEMNED:  # it may do as SIGTERM told it, and SIGKILL is on its way
            self._actions.append(do.Stop(slot.index, slot.generation))
            self._move(slot, State.STOPPING)
            return
        self._move_on(slot, now)
        most = self.policy.max_memory_per_child
        if most is not None and event.memory > most:
            self._retire(slot, Cause.RETIRED, now)

    def _move_on(self, slot: Slot, now: float) -> None:
        """See what a worker does that has answered its task."""
        if slot.ahead:
            self._promote(slot, now)
            self._began(slot, now)
        elif slot.leaving:
            self._stop(slot, now, slot.retires_for or Cause.UNHEALTHY)
        elif not slot.to_drop:
            self._rest(slot, now)

    def take_answers(self, index: int, generation: int, answers: Sequence[tuple[int, float]], now: float) -> int:
        """Take outcomes of a worker's tasks, in their order, by the short way: return how many went this way.

        So do those after which nothing follows but that they are delivered: no clock runs for the task, and the
        worker has another one ahead and there is nothing to say against its going on, or nothing waits anywhere. For
        those behind them nothing has happened yet, and `Finished` is to be decided about. If any were taken, and the
        worker is still busy, Answered has to follow.

        Args:
            index, generation: which worker.
            answers: the tasks, and the seconds that each of them took.
            now: the time.
        """
        slot = self.slots[index]
        first = number = slot.task
        if slot.generation != generation or slot.cause is not None or first is None or first not in self.running:
            return 0
        tasks, given, ahead, taken = self.tasks, self.given, slot.ahead, 0
        for answered, seconds in answers:
            if answered != number or not tasks[answered].policy.sends_ahead:
                break
            if not ahead and (slot.leaving or slot.to_drop or not self._is_quiet):
                break
            self._note_pace(seconds)
            del tasks[answered]
            taken += 1
            number = ahead.popleft() if ahead else None
            if number is None:
                break
            del given[number]
        if taken:
            slot.tasks_done += taken
            self._forgive()
            del self.running[first]
            if number is None:
                slot.task = None
                self._rest(slot, now)
                self._may_wait = None
            else:
                self._start_on(number, tasks[number], slot, now)
        return taken

    def _answered(self, slot: Slot, _event: ev.Answered, now: float) -> None:
        self._began(slot, now)

    def _began(self, slot: Slot, now: float) -> None:
        """Note that the worker has come to the task that now runs, and see whether it lacks others behind it."""
        assert slot.task is not None
        self._actions.append(do.Began(slot.index, slot.generation, slot.task))
        if self.tasks[slot.task].unwanted:
            self._ask_to_kill(slot.task, slot, now)

    def _take_outcome(self, number: int, slot: Slot, event: ev.Finished, now: float) -> None:
        if event.failed and slot.cause in CONDEMNED:
            self._attempt_lost(number, slot.cause, now)  # it raised because SIGTERM made it
        elif event.failed and event.retryable and self._grants_another(self.tasks[number]):
            self._try_again(number, now)
        else:
            self._forget(number)
            self._actions.append(do.Deliver(number))

    def _send_refused(self, slot: Slot, _event: ev.SendRefused, now: float) -> None:
        self._requeue(slot, now)
        self._stop_clocks(slot)
        slot.cause = slot.cause or (Cause.TEMPLATE if slot.doomed else Cause.REFUSED)
        self._expect_end(slot, now)

    def _outdated(self, slot: Slot, _event: ev.Outdated, now: float) -> None:
        self._return(slot, len(slot.ahead))  # it begins none of these, and they come behind its task
        if slot.cause in CONDEMNED:  # too late for its task: the signal that is on its way was for that
            self._move(slot, State.STOPPING)
            return
        self._requeue(slot, now)
        self._stop_clocks(slot)
        slot.cause = slot.cause or (Cause.TEMPLATE if slot.doomed else Cause.SCRIPT)
        self._discount(slot)
        self._expect_end(slot, now)

    def _declined(self, slot: Slot, event: ev.Declined, now: float) -> None:
        self._take_from(slot)
        if event.task in self.tasks:
            self._forget(event.task)
        self._move_on(slot, now)

    # ---- what was sent ahead of its task ----------------------------------------------------------------------

    def _taken_back(self, slot: Slot, event: ev.TakenBack, now: float) -> None:
        slot.recalled = False
        slot.to_drop += event.count
        self._return(slot, event.count)
        self.withdrawn.difference_update(slot.ahead)  # they have begun, and nobody can tell them from running ones
        if slot.kill_for is not None:
            self._kill_if_alone(slot, now)
        if event.count and (slot.leaving or self.withdrawing):
            self._recall(slot)  # if less than all was asked back

    def _dropped(self, slot: Slot, event: ev.Dropped, now: float) -> None:
        if event.count > slot.to_drop:
            slot.detail = slot.detail or "it passed over tasks that nobody had taken back"
            self._distrust(slot)
            return
        slot.to_drop -= event.count
        if not slot.to_drop and slot.task is None:
            self._move_on(slot, now)

    def _ask_to_kill(self, number: int, slot: Slot, now: float) -> None:
        """Have a worker killed for a task that it has, as soon as that certainly hits no other."""
        slot.kill_for = number
        self.tasks[number].unwanted = True
        if slot.ahead:
            self._recall(slot)
        else:
            self._kill_if_alone(slot, now)

    def _kill_if_alone(self, slot: Slot, now: float) -> None:
        """Kill the worker if the task runs, and nothing that is ahead has begun.

        What is still ahead when all of it was to be taken back has begun, and so the task before it has ended: its
        outcome is in the channel. If it is the one that is ahead which is to be killed, its turn is about to come.
        """
        number, slot.kill_for = slot.kill_for, None
        if number is not None and number in self.queue:
            self._forget(number)
            self._actions.append(do.Fail(number, Cause.KILL))
        elif number == slot.task and number in self.running and not slot.ahead:
            self._condemn(slot, Cause.KILL, now)

    # ---- being condemned -----------------------------------------------------------------------------------

    def _condemn(self, slot: Slot, cause: Cause, now: float) -> None:
        """End a worker because of its task."""
        gently = cause in (Cause.TIMEOUT, Cause.HEARTBEAT)
        if slot.state is not State.BUSY or (slot.cause is not None and gently):
            return
        # The caller's word stands above all others: after it there is no other attempt.
        slot.cause = cause if cause is Cause.KILL else slot.cause or cause
        slot.doomed = True
        self._retire(slot, cause, now, at_once=True)
        self._stop_clocks(slot)
        if not gently or slot.task not in self.tasks:
            self._kill(slot, now)
            return
        # SIGTERM makes the worker write its stack and, unless the task has another mind, end. Who does not end is
        # asked for its stack once more, and killed.
        self._signal(slot, SIGTERM)
        grace = self.tasks[slot.task].policy.time_to_die
        self._timers.set((Timer.KILL, slot.generation), now + grace)
        if grace >= 2 * STACK_TIME:
            self._timers.set((Timer.STACK, slot.generation), now + grace - STACK_TIME)

    def _kill(self, slot: Slot, now: float) -> None:
        self._timers.cancel((Timer.STACK, slot.generation), (Timer.KILL, slot.generation))
        self._signal(slot, SIGKILL)
        if (Timer.GIVE_UP, slot.generation) not in self._timers:  # more reasons to kill it win it no time
            self._timers.set((Timer.GIVE_UP, slot.generation), now + GIVE_UP_AFTER)

    def _ask_stack(self, slot: Slot, _now: float) -> None:
        self._actions.append(do.AskStack(slot.index, slot.generation))

    def _give_up(self, slot: Slot, now: float) -> None:
        """Tell who waits for the task, though the process has not ended yet: it will never run user code again."""
        number = self._take_from(slot)
        if number is not None:
            self._move(slot, State.STOPPING)
            self._attempt_lost(number, _as_the_task_sees(slot.cause), now)

    def _timed_out(self, slot: Slot, now: float) -> None:
        self._condemn(slot, Cause.TIMEOUT, now)

    def _ask_heartbeat(self, slot: Slot, _now: float) -> None:
        self._actions.append(do.CheckHeartbeat(slot.index, slot.generation))

    def _last_beat(self, slot: Slot, event: ev.LastBeat, now: float) -> None:
        task = self.tasks.get(slot.task) if slot.task is not None else None
        if task is None or task.policy.heartbeat_timeout is None:
            return
        due = max(event.at or 0.0, slot.busy_since) + task.policy.heartbeat_timeout
        if now >= due:
            self._condemn(slot, Cause.HEARTBEAT, now)
        else:
            self._timers.set((Timer.HEARTBEAT, slot.generation), due)

    def _memory_found(self, slot: Slot, event: ev.MemoryFound, now: float) -> None:
        most = self.policy.hard_memory_per_child
        if most is not None and event.memory > most:
            self._condemn(slot, Cause.MEMORY, now)

    # ---- being replaced ------------------------------------------------------------------------------------

    def _unhealthy(self, slot: Slot, event: ev.Unhealthy, now: float) -> None:
        slot.detail = event.reason
        self._retire(slot, Cause.UNHEALTHY, now, at_once=True)

    def _too_old(self, slot: Slot, now: float) -> None:
        self._retire(slot, Cause.AGE, now)

    def _idle_too_long(self, slot: Slot, now: float) -> None:
        if slot.state is State.IDLE and slot.counted and self.level > self.policy.min_workers:
            self.level -= 1
            self._stop(slot, now, Cause.IDLE)

    def _stop_overdue(self, slot: Slot, _now: float) -> None:
        self._signal(slot, SIGKILL)

    # ---- death ---------------------------------------------------------------------------------------------

    def _died(self, slot: Slot, event: ev.Died, now: float) -> None:
        most = len(slot.ahead)
        self._return(slot, min(event.unbegun, most))
        # More than it was sent cannot be left: its task has put tokens down itself, and so has begun.
        if event.unbegun == most + 1 and slot.cause not in CONDEMNED:
            self._requeue(slot, now)
        cause = slot.cause or (Cause.TEMPLATE if slot.doomed else Cause.CRASH)
        tasks_done = slot.tasks_done
        green = slot.ready_at is None or now - slot.ready_at < self.policy.young_age
        lost = self._take_from(slot)
        torn = list(slot.ahead)  # none, unless not all was heard of what it wrote: who knows whether they ran
        self.deaths += 1
        self._actions.append(
            do.Report(
                slot=slot.index,
                generation=slot.generation,
                pid=slot.pid,
                cause=cause,
                status=event.status,
                uptime=now - slot.asked_at,
                tasks_done=tasks_done,
                task=lost,
                attempt=self.tasks[lost].attempt if lost is not None else 0,
                detail=slot.detail,
            )
        )
        told = f"worker {slot.index} (pid {slot.pid}) ended: {event.status}"
        self._bury(slot)
        if lost is not None:
            self._attempt_lost(lost, _as_the_task_sees(cause), now)
        for number in torn:
            del self.given[number]
            self.tasks[number].attempt += 1
            self._attempt_lost(number, Cause.CRASH, now)
        if self.phase is Phase.CLOSING:
            return
        young = green and lost is None and tasks_done == 0
        if self.policy.on_crash == "break" and (cause.unasked or (lost is not None and cause is Cause.TEMPLATE)):
            self._break(f"{told}; on_crash='break' makes every crash break the pool")
        elif young and (cause.unasked or cause in (Cause.START, Cause.BABBLE, Cause.HUNG_UP)):
            self._died_young(f"{told}, because {cause.value}" if cause is Cause.START else told, now)


def _as_the_task_sees(cause: Cause | None) -> Cause:
    """Return why its worker ended: whatever the task has no part in is a crash to it."""
    return cause if cause in CONDEMNED else Cause.CRASH
