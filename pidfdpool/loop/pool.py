"""What the threads that submit and the pool thread share: one pool, and the way to its decisions.

One lock guards the machine, the tasks and every write. It is held for decisions and for I/O that cannot block, never
while a user's code runs: pickles are rebuilt and futures resolved by the *resolutions* that `decide` returns, which
its caller runs after it released the lock. Reading and closing are the pool thread's alone.

A thread that submits carries out its own decision: it writes to the idle worker, or asks the template for a worker,
without waking the pool thread. That is woken only where it has something to start, or a deadline has come closer.
"""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from pidfdpool import actions as do
from pidfdpool import events as ev
from pidfdpool import hygiene, interruptible, native
from pidfdpool.loop import outcomes
from pidfdpool.loop.carrying import Carrying
from pidfdpool.loop.leading import Leading
from pidfdpool.loop.lending import Lender
from pidfdpool.loop.outcomes import Recipient, Task
from pidfdpool.loop.poller import Poller
from pidfdpool.loop.room import Line, Place
from pidfdpool.loop.starting import Starter, check_startable
from pidfdpool.loop.thread import PoolThread
from pidfdpool.loop.witness import MOST_TOLD, Witness
from pidfdpool.machine import Machine
from pidfdpool.rules import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.deaths import Death
    from pidfdpool.loop.resolving import Context, Resolution
    from pidfdpool.loop.witness import Evidence
    from pidfdpool.policy import Policy
    from pidfdpool.rules import Slot
    from pidfdpool.template.client import Recipe
    from pidfdpool.wire import Buffer


class Pool(Carrying):
    """One pool, from its first submit until everything of it is gone.

    How actions are carried out is in `carrying`, what futures are told in `resolving`. Every method takes the lock
    itself, except where it says that the caller holds it.
    """

    def __init__(
        self, policy: Policy, recipe: Recipe, subscribers: list[Callable[[Death], object]], size: int
    ) -> None:
        check_startable()
        super().__init__(Witness(subscribers, remembered=min(policy.young_deaths_allowed, MOST_TOLD) + 1))
        self.lock = native.reentrant_lock()
        self.readiness = threading.Condition(self.lock)  # for who waits for workers to be ready
        self._policy = policy
        self.machine = Machine(policy)
        self.machine.size = size
        self.submitted = 0  # ever
        self._numbers = itertools.count(1)
        self.recipe = recipe
        self.poller = Poller()
        self.closed = False
        self.abandoned = False  # by this process, which was forked from the pool's
        self.stillborn = False  # closed because its thread could not be started
        self.owner_lost = False  # set without the lock, by the collector
        self.awaited = 0  # threads that wait for workers to be ready, see `Starter.prestart`
        self.sleeps_until: float | None = 0.0  # what the pool thread's current wait ends at; None: nothing
        self._put_off: deque[ev.Event] = deque()  # for the pool thread to decide upon
        self.leading = Leading(self, policy.spin)
        self._thread = PoolThread(self)
        self.lender = Lender(self, policy.segment_memory)
        self.starter = Starter(self, self._thread)
        self.line = Line(self, self._thread)

    # ---- for the executor ----------------------------------------------------------------------------------

    def submit(
        self, future: Recipient, buffers: list[Buffer], what: object, policy: Policy, held: object, *, wait: bool
    ) -> None:
        """Accept a task and hand it to an idle worker, if there is one.

        wait: for room. Otherwise the task waits alone, and its recipient is told if it is refused in the end.

        Raises:
            QueueFull: max_pending tasks are pending, and the policy says not to wait.
            PoolBroken, RuntimeError: the pool is broken, or it is shut down.
        """
        task = Task(next(self._numbers), future, buffers, what, policy, held)  # a handler may submit before and after
        if task.needs_script and not self.recipe.runs_script:
            self.want_script()
        if policy is self._policy and self._take_quickly(task):
            return
        place = None if policy.max_pending is None else Place(task, blocks=wait)
        try:
            if self._thread.started:
                self._accept(task, place)
            else:
                with hygiene.signals_blocked() as mask:
                    if self._accept(task, place):
                        self.starter.first(task.number, mask)
            if place is not None and wait:
                self.line.wait(place)
        except BaseException:
            if place is not None and place.entered:
                self.withdraw(task.number)  # nobody gets its future
            raise

    def _take_quickly(self, task: Task) -> bool:
        """Accept a task by one of the machine's short ways; return whether there was one.

        Where there are many tasks, most just have to wait; where there is one at a time, a worker is idle.
        """
        if task.policy.max_pending is not None or self._interrupted:
            return False
        if interruptible.by_raising() and self._decides_later:  # the first says no most cheaply, for each task
            return False
        number, heavy = task.number, task.heavy
        try:
            with self.lock:
                machine, now = self.machine, time.monotonic()
                slot = None
                if not machine.enqueue(number, now, heavy):
                    slot = machine.hand_over(number, now, heavy)
                    if slot is None:
                        return False
                self.submitted += 1
                self.tasks[number] = task
                task.future._attach(self, number, task.policy.cancel_kills)
                resolutions = [] if slot is None else self._send_first(task, slot)
        except BaseException as error:
            self.fail(error)  # as in `decide_guarded`
            raise
        if resolutions:
            self.leading.run(resolutions)
        return True

    def _send_first(self, task: Task, slot: Slot) -> list[Resolution]:
        """Send a task that was just accepted. The caller has the lock."""
        following = self._send(do.Send(slot.index, slot.generation, task.number))
        return [] if following is None else self.decide(following)

    def _accept(self, task: Task, place: Place | None) -> bool:
        """Accept a task, or have it wait in its place; return whether it is for the caller to start the pool."""
        interrupted = self._interrupted
        with self.lock:
            self.check_open()
            if place is not None and not interrupted and self.line.enter_unless_room(place):
                return False
            event = self.line.taken_in(task)
            if interrupted:
                self._decide_later(event)
                return False
            resolutions = self.decide_guarded(event)
            first = not self._thread.started and self.starter.claim_first()
        self.leading.run(resolutions)
        return first

    def check_open(self) -> None:
        """Raise if no task is accepted. The caller holds the lock, or does not mind a stale answer."""
        if (error := self.refusal()) is not None:
            raise error

    def refusal(self) -> Exception | None:
        """Return why no task is accepted, as an error of its own each time; None: they are."""
        if self.machine.broken is not None:
            return self.broken_error(self.machine.broken)
        is_open = self.machine.phase is Phase.OPEN
        return None if is_open else RuntimeError("cannot schedule new futures after shutdown")

    def cancel(self, number: int, future: Recipient) -> bool:
        """Cancel a task that no worker has begun; return whether it is cancelled. The recipient is told of it."""
        interrupted = self._interrupted
        with self.lock:
            later = interrupted or self._decides_later
            if number in self.line.places:
                self._decide_later(ev.Cancelled(number)) if interrupted else self.line.withdraw(number)
                return True
            if later and number in self.machine.tasks and number not in self.machine.queue:
                return False  # it may have begun, or be about to, and this is not the moment to find out
            if number not in self.machine.given and (number not in self.tasks or not future._mark_cancelled()):
                return False
            if later:
                self._decide_later(ev.Cancelled(number))
                return True
            resolutions = self.decide_guarded(ev.Cancelled(number))
            cancelled = number not in self.tasks
        self.leading.run(resolutions)
        return cancelled

    def withdraw(self, number: int) -> None:
        """Take a task out of the queue of which nobody knows."""
        self.happen(ev.Cancelled(number))

    def kill_task(self, number: int) -> None:
        """End a task at once, by killing its worker if it has one."""
        self.happen(ev.TaskKillAsked(number))

    def resize(self, size: int) -> None:
        """Have so many workers at most."""
        self.happen(ev.Resized(size))

    def shutdown(self, *, cancel: bool) -> None:
        """Accept no more; finish what is there, or cancel what no worker has been given."""
        self.resume_template()
        self.happen(ev.ShutdownAsked(cancel))

    def kill(self, signal: int) -> None:
        """Shut down, cancel what is queued, signal every worker."""
        self.resume_template()
        self.happen(ev.KillAsked(signal))

    def join(self) -> None:
        """Wait until everything is gone; not in a signal handler that has interrupted what it would wait for."""
        if not self._interrupted:
            self.starter.wait()
            self._thread.join()

    def wake_unless_awake(self) -> None:
        """Have the pool thread look for something to do. Any thread, at any point; needs no lock."""
        if not self._thread.is_itself:  # it looks before it sleeps
            self.poller.wake()

    def live_as_long_as(self, owner: object) -> None:
        """Shut down, after what was submitted, when the owner is collected: nobody can submit any more."""
        self._owner = weakref.ref(owner, self._owner_is_lost)

    def _owner_is_lost(self, _reference: object) -> None:
        # The collector calls this in any thread at any point, so it takes no lock.
        self.owner_lost = True
        self.poller.wake()

    def abandon_in_forked_child(self) -> None:
        """Let go of everything in a process that was forked while the pool was alive; the parent goes on.

        No lock is taken and nothing unregistered: locks may have been copied while held, and what epoll watches is
        the parent's too.
        """
        self.closed = self.abandoned = True
        # A child that was forked in a callback comes back to the pool thread's work, to find out that it is over.
        self.lock = native.reentrant_lock()
        self.readiness = threading.Condition(self.lock)
        self.leading = Leading(self, 0.0)
        self.lender.abandon_in_forked_child()
        self.poller.close_in_forked_child()
        for link in [*self.workers.values(), self.template]:
            # The fork may have come between any two steps of the pool thread's.
            with suppress(OSError):
                if link is not None:
                    link.close_in_forked_child()
        self.tasks.update(self.line.abandon_in_forked_child())
        for task in [*self.tasks.values(), *self.untold.values()]:
            task.future._fail_in_forked_child(outcomes.inherited())

    # ---- deciding ------------------------------------------------------------------------------------------

    def happen(self, event: ev.Event, context: Context = None) -> None:
        """Take an event, carry out what follows from it, and resolve what is to be resolved."""
        if self._interrupted:
            self._decide_later(event)
            return
        with self.lock:
            resolutions = self.decide_guarded(event, context)
        self.leading.run(resolutions)

    @property
    def _interrupted(self) -> bool:
        """Whether the caller has interrupted this very thread's work on the pool.

        Signal handlers and finalizers run between any two steps of whatever the thread is doing, and may submit,
        cancel and shut down. They must not wait for a lock that they interrupted the holder of, nor decide anything
        amid a decision: what they ask for is put off, and the pool thread decides it in a moment.
        """
        return self.lock._is_owned()  # type: ignore[no-any-return]

    @property
    def _decides_later(self) -> bool:
        """Whether the caller had better leave decisions to the pool thread, which nothing interrupts."""
        return interruptible.is_usual_here() and self._thread.started and not self._thread.is_current

    def _decide_later(self, event: ev.Event) -> None:
        self._put_off.append(event)
        self.poller.wake()

    def fail(self, error: BaseException) -> None:
        """Break the pool, because something was left half done."""
        self._thread.fail(error)

    @property
    def may_be_led(self) -> bool:
        """Whether threads that wait for futures may read the channels meanwhile."""
        return self._thread.started and not self.poller.among_greenlets

    @property
    def is_at_work_here(self) -> bool:
        """Whether the caller is amid the work that brings results."""
        return self.lock._is_owned() or self._thread.is_current

    def catch_up(self) -> None:
        """Decide what was put off, and call what is not for the leader to call. In the pool thread."""
        while self._put_off:
            self.happen(self._put_off.popleft())
        self.leading.catch_up()

    def decide_guarded(self, event: ev.Event, context: Context = None) -> list[Resolution]:
        """Decide in a thread of the user's, which may be interrupted anywhere (Ctrl-C). The caller has the lock.

        What was being decided is then half done, and nothing can be trusted: the pool thread breaks the pool, which
        is better than a future that nobody resolves. Where that is to be expected, it decides itself.
        """
        if self._decides_later:
            self._decide_later(event)
            return []
        try:
            return self.decide(event, context)
        except BaseException as error:
            self.fail(error)
            raise

    def decide(self, event: ev.Event, context: Context = None) -> list[Resolution]:
        """Take an event and carry out what follows; return what to run without the lock. The caller has it."""
        resolutions: list[Resolution] = []
        if self.closed or self._thread.has_failed:
            if isinstance(event, ev.Submitted) and event.task in self.tasks:  # it was put off until now
                resolutions.append(self.failing(event.task, self.broken_error("the pool is shut down")))
            return resolutions
        if self.line.places and type(event) is ev.Cancelled and self.line.withdraw(event.task):
            return resolutions
        events = deque([event])
        if self._spawns and not self._puts_off_spawns:
            spawns, self._spawns = self._spawns, []
            events.extendleft(failure for spawn in spawns if (failure := self._spawn(spawn)) is not None)
        try:
            while events:
                for action in self.machine.decide(events.popleft(), time.monotonic()):
                    kind = type(action)
                    if kind in self._carry_out:
                        following = self._carry_out[kind](action)
                        if callable(following):
                            resolutions.append(following)
                        elif following is not None:
                            events.append(following)
                    else:
                        resolutions.append(self._resolve[kind](action, context))
                if not events and self.line.places and (accepted := self.line.next()) is not None:
                    events.append(accepted)
            if self.line.places and self.machine.phase is not Phase.OPEN:
                resolutions += self.line.refuse_all()
        except BaseException:
            self.leading.leave(resolutions)  # their tasks are not in `tasks` any more
            raise
        deadline = self.machine.deadline()
        if deadline is not None and (self.sleeps_until is None or deadline < self.sleeps_until):
            self.sleeps_until = deadline
            self.poller.wake()
        if self.awaited:
            self.readiness.notify_all()
        return resolutions

    def decide_death(self, event: ev.Died, evidence: Evidence) -> list[Resolution]:
        """Decide about a death, but ask for no worker yet: that wakes the template, which takes the processor away.

        Whoever waits for the dead worker's task is told before that. `spawn_put_off` has to follow; if anything else
        is decided sooner, the workers are asked for then. The caller has the lock.
        """
        self._puts_off_spawns = True
        try:
            return self.decide(event, evidence)
        finally:
            self._puts_off_spawns = False

    def spawn_put_off(self) -> None:
        """Ask for the workers that were put off by `decide_death`, and have not been asked for since."""
        if self._spawns:
            self.happen(ev.Tick(heard_until=0.0))
