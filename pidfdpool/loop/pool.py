"""What the threads that submit and the pool thread share: one pool, and the carrying out of its decisions.

One lock guards the machine, the tasks and every write. It is held for decisions and for I/O that cannot block, never
while a user's code runs: pickles are rebuilt and futures resolved by the *resolutions* that `decide` returns, which
its caller runs after it released the lock. Reading and closing are the pool thread's alone.

A thread that submits carries out its own decision: it writes to the idle worker, or asks the template for a worker,
without waking the pool thread. That is woken only where it has something to start, or a deadline has come closer.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from pidfdpool import actions as do
from pidfdpool import channel as channels
from pidfdpool import events as ev
from pidfdpool import hygiene, journal, native, wire
from pidfdpool.loop import outcomes
from pidfdpool.loop.links import WorkerLink
from pidfdpool.loop.outcomes import Recipient, Task
from pidfdpool.loop.poller import Poller
from pidfdpool.loop.resolving import Resolving, run
from pidfdpool.loop.starting import Starter, check_startable
from pidfdpool.loop.thread import PoolThread
from pidfdpool.loop.witness import Witness
from pidfdpool.machine import Machine
from pidfdpool.rules import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.deaths import Death
    from pidfdpool.loop.links import TemplateLink
    from pidfdpool.loop.resolving import Context, Resolution
    from pidfdpool.policy import Policy
    from pidfdpool.template.client import Recipe
    from pidfdpool.wire import Buffer

_log = logging.getLogger("pidfdpool.tasks")


class Pool(Resolving):
    """One pool, from its first submit until everything of it is gone. What futures are told is in `resolving`.

    Every method takes the lock itself, except where it says that the caller holds it.
    """

    def __init__(
        self, policy: Policy, recipe: Recipe, subscribers: list[Callable[[Death], object]], size: int
    ) -> None:
        check_startable()
        super().__init__(Witness(subscribers, remembered=policy.young_deaths_allowed + 1))
        self.lock = native.reentrant_lock()
        self.room = threading.Condition(self.lock)  # for who waits until fewer than max_pending tasks are pending
        self._policy = policy
        self.machine = Machine(policy)
        self.machine.size = size
        self.submitted = 0  # ever
        self.recipe = recipe
        self.poller = Poller()
        self.workers: dict[int, WorkerLink] = {}  # by slot
        self.template: TemplateLink | None = None
        self.closed = False
        self.abandoned = False  # by this process, which was forked from the pool's
        self.stillborn = False  # closed because its thread could not be started
        self.owner_lost = False  # set without the lock, by the collector
        self.sleeps_until: float | None = 0.0  # what the pool thread's current wait ends at; None: nothing
        self.unrun: list[Resolution] = []
        self._put_off: deque[ev.Event] = deque()  # for the pool thread to decide upon
        self._thread = PoolThread(self)
        self.starter = Starter(self, self._thread)
        self._carry_out: dict[type[Any], Callable[[Any], ev.Event | None]] = {
            do.Send: self._send,
            do.Spawn: self._spawn,
            do.Stop: self._stop,
            do.Signal: self._signal,
            do.AskStack: self._ask_stack,
            do.CheckHeartbeat: self._check_heartbeat,
            do.CheckMemory: self._check_memory,
            do.StartTemplate: self._start_template,
            do.KillTemplate: self._kill_template,
            do.StopTemplate: self._stop_template,
            do.Close: self._close,
        }

    # ---- for the executor ----------------------------------------------------------------------------------

    def submit(self, future: Recipient, buffers: list[Buffer], name: str, policy: Policy, *, wait: bool) -> None:
        """Accept a task and hand it to an idle worker, if there is one.

        Raises:
            QueueFull: max_pending tasks are pending, and the policy or the caller says not to wait.
            PoolBroken: the pool is broken.
            RuntimeError: it is shut down.
        """
        if self._thread.started:
            self._accept(future, buffers, name, policy, wait=wait)
            return
        with hygiene.signals_blocked() as mask:
            number = self._accept(future, buffers, name, policy, wait=wait)
            if number is not None:
                self.starter.first(number, mask)

    def _accept(
        self, future: Recipient, buffers: list[Buffer], name: str, policy: Policy, *, wait: bool
    ) -> int | None:
        """Accept a task; return its number if it is for the caller to start the pool."""
        interrupted = self._interrupted
        with self.lock:
            self.check_open()
            if policy.max_pending is not None and not interrupted:
                self._wait_for_room(policy.max_pending, wait=wait and policy.block)
            self.submitted += 1
            number = self.submitted
            self.tasks[number] = Task(number, future, buffers, name, policy)
            future._attach(self, number, policy.cancel_kills)
            event = ev.Submitted(number, None if policy is self._policy else policy)
            if interrupted:
                self._decide_later(event)
                return None
            resolutions = self.decide_guarded(event)
            first = not self._thread.started and self.starter.claim_first()
        run(resolutions)
        return number if first else None

    def _wait_for_room(self, most: int, *, wait: bool) -> None:
        """Wait until fewer tasks are pending. The caller has the lock, which is released meanwhile."""
        while len(self.tasks) >= most:
            if not wait:
                raise outcomes.refused(len(self.tasks), most)
            if self._thread.is_current:
                return  # a callback that waited would wait for itself: only this thread makes room
            self.room.wait()
            self.check_open()

    def check_open(self) -> None:
        """Raise if no task is accepted. The caller holds the lock, or does not mind a stale answer."""
        if self.machine.broken is not None:
            raise self.broken_error(self.machine.broken)
        if self.machine.phase is not Phase.OPEN:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def withdraw(self, number: int) -> None:
        """Take a cancelled task out of the queue."""
        self.happen(ev.Cancelled(number))

    def kill_task(self, number: int) -> None:
        """End a task at once, by killing its worker if it has one."""
        self.happen(ev.TaskKillAsked(number))

    def resize(self, size: int) -> None:
        """Have so many workers at most."""
        self.happen(ev.Resized(size))

    def shutdown(self, *, cancel: bool) -> None:
        """Accept no more; finish what is there, or cancel what no worker has been given."""
        self.happen(ev.ShutdownAsked(cancel))

    def kill(self, signal: int) -> None:
        """Shut down, cancel what is queued, signal every worker."""
        self.happen(ev.KillAsked(signal))

    def join(self) -> None:
        """Wait until everything is gone; not in a signal handler that has interrupted what it would wait for."""
        if not self._interrupted:
            self.starter.wait()
            self._thread.join()

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
        self.room = threading.Condition(self.lock)
        self.poller.close_in_forked_child()
        for link in [*self.workers.values(), self.template]:
            # The fork may have come between any two steps of the pool thread's.
            with suppress(OSError):
                if link is not None:
                    link.close_in_forked_child()
        for future in [*(task.future for task in list(self.tasks.values())), *list(self.untold.values())]:
            future._fail_in_forked_child(outcomes.inherited())

    # ---- deciding ------------------------------------------------------------------------------------------

    def happen(self, event: ev.Event, context: Context = None) -> None:
        """Take an event, carry out what follows from it, and resolve what is to be resolved."""
        if self._interrupted:
            self._decide_later(event)
            return
        with self.lock:
            resolutions = self.decide_guarded(event, context)
        run(resolutions)

    @property
    def _interrupted(self) -> bool:
        """Whether the caller has interrupted this very thread's work on the pool.

        Signal handlers and finalizers run between any two steps of whatever the thread is doing, and may submit,
        cancel and shut down. They must not wait for a lock that they interrupted the holder of, nor decide anything
        amid a decision: what they ask for is put off, and the pool thread decides it in a moment.
        """
        return self.lock._is_owned()  # type: ignore[no-any-return]

    def _decide_later(self, event: ev.Event) -> None:
        self._put_off.append(event)
        self.poller.wake()

    def catch_up(self) -> None:
        """Decide what was put off. In the pool thread."""
        while self._put_off:
            self.happen(self._put_off.popleft())

    def decide_guarded(self, event: ev.Event, context: Context = None) -> list[Resolution]:
        """Decide in a thread of the user's, which may be interrupted anywhere (Ctrl-C). The caller has the lock.

        What was being decided is then half done, and nothing can be trusted: the pool thread breaks the pool, which
        is better than a future that nobody resolves. Where that is to be expected, it decides itself.
        """
        if _interrupts_are_usual() and self._thread.started and not self._thread.is_current:
            self._decide_later(event)
            return []
        try:
            return self.decide(event, context)
        except BaseException as error:
            self._thread.fail(error)
            raise

    def decide(self, event: ev.Event, context: Context = None) -> list[Resolution]:
        """Take an event and carry out what follows; return what to run without the lock. The caller has it."""
        resolutions: list[Resolution] = []
        if self.closed:
            if isinstance(event, ev.Submitted) and event.task in self.tasks:  # it was put off until now
                resolutions.append(self.failing(event.task, self.broken_error("the pool is shut down")))
            return resolutions
        events = deque([event])
        try:
            while events:
                for action in self.machine.decide(events.popleft(), time.monotonic()):
                    kind = type(action)
                    if kind in self._carry_out:
                        following = self._carry_out[kind](action)
                        if following is not None:
                            events.append(following)
                    else:
                        resolutions.append(self._resolve[kind](action, context))
        except BaseException:
            self.unrun += resolutions  # for the last resort: their tasks are not in `tasks` any more
            raise
        deadline = self.machine.deadline()
        if deadline is not None and (self.sleeps_until is None or deadline < self.sleeps_until):
            self.sleeps_until = deadline
            self.poller.wake()
        if self._policy.max_pending is not None:
            self.room.notify_all()
        return resolutions

    # ---- actions on processes ------------------------------------------------------------------------------

    def _send(self, action: do.Send) -> ev.Event | None:
        task = self.tasks[action.task]
        link = self.workers[action.slot]
        if not task.begun:
            if not task.future._begin():
                del self.tasks[action.task]
                self.cancelled += 1
                return ev.Declined(action.slot, action.generation, action.task)
            task.begun = True
        task.attempt = action.attempt
        task.future._note_attempt(action.slot, action.generation, link.pid, action.attempt)
        try:
            link.post(task.frame(action.deadline))
        except OSError:
            return ev.SendRefused(action.slot, action.generation, action.task)
        return None

    def _spawn(self, action: do.Spawn) -> ev.Event | None:
        assert self.template is not None
        try:
            ours, theirs = channels.pair()
        except OSError as error:
            return ev.SpawnFailed(action.slot, action.generation, f"socketpair: {error}")
        link = WorkerLink(action.slot, action.generation, ours, self.poller)
        self.workers[action.slot] = link
        link.watch_channel(partial(self._thread.on_channel, link))
        self.template.tell(wire.encode(wire.SPAWN, action.slot, action.generation), theirs.detach())
        return None

    def _stop(self, action: do.Stop) -> None:
        self.workers[action.slot].leave()

    def _signal(self, action: do.Signal) -> None:
        self.workers[action.slot].signal(action.signal)

    def _ask_stack(self, action: do.AskStack) -> None:
        self.workers[action.slot].ask_stack()

    def _check_heartbeat(self, action: do.CheckHeartbeat) -> ev.Event:
        return ev.LastBeat(action.slot, action.generation, self.workers[action.slot].last_beat())

    def _check_memory(self, action: do.CheckMemory) -> ev.Event:
        return ev.MemoryFound(action.slot, action.generation, self.workers[action.slot].memory())

    def _kill_template(self, _action: do.KillTemplate) -> None:
        assert self.template is not None
        message = "the template (pid %s) does not answer and is killed"
        journal.write(_log, logging.WARNING, message, self.template.end.pid)
        self.template.kill()

    def _start_template(self, _action: do.StartTemplate) -> None:
        # Not here, where the lock is held: starting takes as long as an interpreter takes to start.
        self.starter.wanted = True
        if self._thread.started:
            self.poller.wake()

    def _stop_template(self, _action: do.StopTemplate) -> None:
        assert self.template is not None
        self.template.tell(wire.encode(wire.STOP))

    def _close(self, _action: do.Close) -> None:
        self.closed = True
        self.poller.wake()


def _interrupts_are_usual() -> bool:
    """Return whether a signal's handler may raise in this thread, between any two steps, and the session goes on.

    Handlers run in the main thread. A program mostly ends with its KeyboardInterrupt. At a prompt or in a notebook it
    is a way to work: who has submitted too much presses Ctrl-C, and submits again.
    """
    return native.is_interactive() and native.in_main_thread()
