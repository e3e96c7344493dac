"""One pool, as the executor and futures see it: submit, cancel, kill, resize, shut down.

It puts the parts together. What all of them share is in `decisions`; what the pool thread does is in `event_loop`.
"""

from __future__ import annotations

import itertools
import time
import weakref
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from pidfdpool.loop import teardown
from pidfdpool.loop.backpressure import Waiter
from pidfdpool.loop.decisions import Decisions
from pidfdpool.loop.event_loop import EventLoop
from pidfdpool.loop.resolutions import Delivery, deliver, set_aside
from pidfdpool.loop.task import Task
from pidfdpool.loop.template_events import TemplateEvents
from pidfdpool.loop.template_starter import TemplateStarter, check_startable
from pidfdpool.loop.worker_events import WorkerEvents
from pidfdpool.process import interruptible
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import Phase
from pidfdpool.transport import framing

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.deaths import Death
    from pidfdpool.loop.event_loop import Unsubmitted
    from pidfdpool.loop.leader import Leadership
    from pidfdpool.loop.observed import Observer
    from pidfdpool.loop.resolutions import Resolution
    from pidfdpool.loop.segment_leases import SegmentLeases
    from pidfdpool.loop.task import Recipient
    from pidfdpool.scheduler.machine import Machine
    from pidfdpool.scheduler.policy import Policy
    from pidfdpool.scheduler.states import Slot
    from pidfdpool.template.recipe import Recipe
    from pidfdpool.transport.framing import Buffer


class Pool:
    """One pool, from its first submit until everything of it is gone. Thread-safe; no method needs the lock."""

    def __init__(
        self, policy: Policy, recipe: Recipe, subscribers: list[Callable[[Death], object]], size: int
    ) -> None:
        check_startable()
        self._policy = policy
        self._numbers = itertools.count(1)
        core = Decisions(policy, recipe, subscribers, size)
        self.core: Decisions = core
        self.recipe = recipe
        self.machine: Machine = core.machine
        self.leases: SegmentLeases = core.leases
        self.leadership: Leadership = core.leadership
        core.admission.owner = self
        workers = WorkerEvents(core)
        core.dispatcher.on_channel, core.dispatcher.on_answers = workers.on_channel, workers.on_answers
        template = TemplateEvents(core, workers)
        self.starter: TemplateStarter = TemplateStarter(core, template)
        self._loop = EventLoop(core, workers, template, self.starter)
        core.thread.run = self._loop.run

    # ---- for the executor ----------------------------------------------------------------------------------

    def submit(
        self, future: Recipient, buffers: list[Buffer], what: object, policy: Policy, held: object, *, wait: bool
    ) -> None:
        """Accept a task and hand it to an idle worker, if there is one.

        wait: for room. Otherwise the task waits alone, and its recipient gets the error if it is refused later.

        Raises:
            QueueFull: max_pending tasks are pending, and the policy says not to wait.
            PoolBroken, RuntimeError: the pool is broken, or it is shut down.
        """
        core = self.core
        task = Task(next(self._numbers), future, buffers, what, policy, held)  # a handler may submit before and after
        if task.flags & framing.NEEDS_SCRIPT and not self.recipe.runs_script:
            core.want_script()
        chunk = task.chunk
        if policy is self._policy and (chunk is None or chunk.terms is None) and self._accept_quickly(task):
            return
        waiter = None if policy.max_pending is None else Waiter(task, blocks=wait)
        try:
            if core.thread.started:
                self._accept(task, waiter)
            else:
                self.starter.run_first(partial(self._accept, task, waiter), task.number)
            if waiter is not None and wait:
                core.admission.wait(waiter)
        except BaseException:
            if waiter is not None and waiter.entered:
                core.handle(ev.Cancelled(task.number))  # nobody gets its future
            raise

    def _accept_quickly(self, task: Task) -> bool:
        """Accept a task by one of the machine's short ways; return whether there was one.

        Where there are many tasks, most just have to wait; where there is one at a time, a worker is idle.
        """
        core = self.core
        if self._policy.max_pending is not None or core.lock._is_owned():  # as `is_reentered`
            return False
        if interruptible.handlers_may_raise() and core.defers:  # the first says no most cheaply, for each task
            return False
        number, heavy = task.number, type(task.buffers) is not list  # as `Task.heavy`
        try:
            with core.lock:
                machine, slot = self.machine, None
                if not machine.enqueue(number, heavy):
                    slot = machine.hand_over(number, time.monotonic(), heavy)
                    if slot is None:
                        return False
                core.submitted += 1
                if core.resolver.observation is not None:
                    task.queued_at = time.monotonic()  # for others it would take memory, and 3 % of a submit
                core.tasks[number] = task
                task.future._attach(self, number, task.policy.cancel_kills)
                resolutions = [] if slot is None else self._send_first(task, slot)
        except BaseException as error:
            core.fail(error)  # as in `decide_guarded`
            raise
        if core.poller.guarded and slot is None:
            core.watchdog.note_waiting(len(self.machine.queue))
        if resolutions:
            core.outbox.run(resolutions)
        return True

    def _send_first(self, task: Task, slot: Slot) -> list[Resolution]:
        """Send a task that was just accepted. The caller has the lock."""
        following = self.core.dispatcher.send(do.Send(slot.index, slot.generation, task.number))
        return [] if following is None else self.core.decide(following)

    def _accept(self, task: Task, waiter: Waiter | None) -> bool:
        """Accept a task, or have it wait; return whether it is for the caller to start the pool."""
        core = self.core
        reentered = core.is_reentered
        with core.lock:
            if core.machine.phase is not Phase.DRAINING or not task.follows:
                core.check_open()
            if waiter is not None and not reentered and core.admission.must_wait(waiter):
                return False
            event = core.admission.accept(task)
            if reentered:
                core.defer(event)
                return False
            resolutions = core.decide_guarded(event)
            first = not core.thread.started and self.starter.claim_first()
        if core.poller.guarded and core.has_waiting:
            core.watchdog.note_observer()
        core.outbox.run(resolutions)
        return first

    def note_observer(self) -> None:
        """Have no answer lie there until somebody waits for it as the leader; see `watchdog`."""
        if self.core.poller.guarded:
            self.core.watchdog.note_observer()

    def cancel(self, number: int, future: Recipient) -> bool:
        """Cancel a task that no worker has begun; return whether it is cancelled. The recipient is resolved then."""
        core = self.core
        reentered = core.lock._is_owned()  # as `is_reentered`
        later = reentered or (interruptible.handlers_may_raise() and core.defers)  # as in `_accept_quickly`
        if not later and self._cancel_quickly(number, future):
            return True
        with core.lock:
            if number in core.admission.waiting:
                core.defer(ev.Cancelled(number)) if reentered else core.admission.withdraw(number)
                return True
            machine = self.machine
            waits = number in machine.queue or number in machine.to_cancel
            if later and number in machine.tasks and not waits:
                return False  # it may have begun, or be about to, and this is not the moment to find out
            if number not in machine.prefetched and (number not in core.tasks or not future._mark_cancelled()):
                return False
            if later:
                core.defer(ev.Cancelled(number))
                return True
            resolutions = core.decide_guarded(ev.Cancelled(number))
            cancelled = number not in core.tasks
        core.outbox.run(resolutions)
        return cancelled

    def _cancel_quickly(self, number: int, future: Recipient) -> bool:
        """Cancel a task by the machine's short way, and resolve its future. False: that way is not open."""
        core, outbox = self.core, self.core.outbox
        undelivered = core.undelivered
        try:
            with core.lock:
                if number not in self.machine.queue.priority_of or not future._mark_cancelled():
                    return False
                if not self.machine.cancel(number):
                    return False  # it is the last one that waits; that it is marked already does no harm
                core.resolver.cancelled += 1
                task = core.tasks[number]
                if core.resolver.observation is not None:
                    core.resolver.observation.note_end(task, None, cancelled=True)
                set_aside(undelivered, task, None)
                del core.tasks[number]
                following = core.admission.fill() if core.admission.waiting else None
        except BaseException as error:
            core.fail(error)  # as in `decide_guarded`
            raise
        if (observation := core.resolver.observation) is not None:
            observation.tell_if_many()
        if following is not None or outbox.leader is not None:
            outbox.run([Delivery(undelivered, task), *(following or ())])
            return True
        try:
            deliver(undelivered, task)
        except BaseException:
            outbox.leave([Delivery(undelivered, task)])
            raise
        return True

    def kill_task(self, number: int) -> None:
        """End a task at once, by killing its worker if it has one."""
        self.core.handle(ev.TaskKillRequested(number))

    def hold(self, holder: object) -> None:
        """Do not end before `let_go`, though it is shut down: what follows from accepted tasks will be submitted."""
        with self.core.lock:
            self.machine.state.holds.add(holder)

    def let_go(self, holder: object) -> None:
        """End a `hold`. Calling it again does no harm."""
        with self.core.lock:
            self.machine.state.holds.discard(holder)
            is_open = self.machine.phase is Phase.OPEN
        if not is_open:
            self.core.handle(ev.Tick(read_until=0.0))

    def resize(self, size: int) -> None:
        """Have `size` workers at most."""
        self.core.handle(ev.ResizeRequested(size))

    def shutdown(self, *, cancel: bool) -> None:
        """Accept no more; finish the accepted tasks, or cancel those that no worker has been given."""
        self.core.resume_template()
        self.core.watchdog.note_observer()
        self.core.handle(ev.ShutdownRequested(cancel))
        self._close_unless_started()

    def kill(self, signal: int) -> None:
        """Shut down, cancel what is queued, signal every worker."""
        self.core.resume_template()
        self.core.handle(ev.KillRequested(signal))
        self._close_unless_started()

    def _close_unless_started(self) -> None:
        """Close the descriptors of a pool that has ended before it was started: no pool thread is going to."""
        core = self.core
        with core.lock:
            if core.closed and not (core.thread.started or core.abandoned or self.starter.is_starting):
                teardown.close_everything(core)

    def join(self) -> None:
        """Wait until everything is gone; not in a signal handler that has interrupted what it would wait for."""
        if not self.core.is_reentered:
            self.starter.wait_for_first()
            self.core.thread.join()
            self.core.watchdog.release()
            if self.core.logs is not None:
                self.core.logs.join()

    def check_open(self) -> None:
        """Raise if no task is accepted; the answer may be stale."""
        self.core.check_open()

    def observe(self, observer: Observer) -> None:
        """Tell an observer what happens from now on; see `observation`."""
        core = self.core
        with core.lock:
            observation = core.resolver.observation
            if observation is None:
                from pidfdpool.loop.observation import Observation  # most pools are not observed

                observation = Observation(core.machine, core.tasks, core.lock, core.wake_by)
                for link in core.workers.values():
                    observation.record_times(link)
                core.resolver.observation = observation
            observation.add(observer)
        core.poller.wake()

    def stop_observing(self, observer: Observer) -> None:
        """Tell an observer what was noted, and then nothing more. Does nothing if it is told nothing now."""
        core = self.core
        observation = core.resolver.observation
        if observation is None or observer not in observation.observers:
            return
        observation.tell(wait=True)
        with core.lock:
            with suppress(ValueError):
                observation.observers.remove(observer)
            if not observation.observers:
                core.resolver.observation = None
                for link in core.workers.values():
                    observation.record_times(link, on=False)

    def tell_observers(self, *, wait: bool = False) -> None:
        """Tell observers what was noted. wait: also if another thread is doing so, until it has."""
        observation = self.core.resolver.observation
        if observation is not None:
            observation.tell(wait=wait)

    # ---- the pool's life -----------------------------------------------------------------------------------

    def shut_down_with(self, owner: object, unsubmitted: Unsubmitted) -> None:
        """Shut down, after what was submitted, when the owner is collected: nobody can submit any more.

        unsubmitted: what is submitted then.
        """
        self._loop.unsubmitted = unsubmitted
        self._owner = weakref.ref(owner, self._note_lost_owner)

    def submit_for_lost_owner(self) -> None:
        """Submit what an owner that was collected has left, if the pool thread has not done so yet."""
        unsubmitted = self._loop.unsubmitted
        if unsubmitted is not None and self._owner() is None:
            unsubmitted.finish(cancel=False)

    def _note_lost_owner(self, _reference: object) -> None:
        # The collector calls this in any thread at any point, so it takes no lock.
        self._loop.owner_lost = True
        self.core.poller.wake()

    def abandon_in_forked_child(self) -> None:
        """Let go of everything in a process that was forked while the pool was alive; the parent goes on."""
        self.core.resolver.observation = None
        teardown.abandon_in_forked_child(self.core)
