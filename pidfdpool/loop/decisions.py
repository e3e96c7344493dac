"""What the threads of a host share of one pool, and the way from an event to everything that follows from it.

One lock guards the machine, the tasks and every write. It is held for decisions and for I/O that cannot block, never
while a user's code runs: pickles are rebuilt and futures resolved by the *resolutions* that `decide` returns. Its
caller hands these to the outbox after it released the lock. Reading and closing are the pool thread's alone.

A thread that submits carries out its own decision: it writes to the idle worker, or asks the template for a worker,
without waking the pool thread. The pool thread is woken only if it has something to start, or if the next deadline is
now earlier.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from pidfdpool.loop.backpressure import SLICE, Admission
from pidfdpool.loop.death_reports import MOST_IN_ERRORS, DeathReports
from pidfdpool.loop.dispatch import Dispatcher
from pidfdpool.loop.leader import Leadership
from pidfdpool.loop.outbox import Outbox
from pidfdpool.loop.poller import Poller
from pidfdpool.loop.pool_thread import PoolThread
from pidfdpool.loop.resolutions import Resolver
from pidfdpool.loop.segment_leases import SegmentLeases
from pidfdpool.loop.watchdog import Watchdog
from pidfdpool.process import describe, interruptible, native
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.machine import Machine
from pidfdpool.scheduler.states import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.deaths import Death
    from pidfdpool.loop.death_reports import Evidence
    from pidfdpool.loop.links import WorkerLink
    from pidfdpool.loop.log_relay import LogRelay
    from pidfdpool.loop.resolutions import Context, Resolution
    from pidfdpool.loop.task import Task
    from pidfdpool.loop.template_link import TemplateLink
    from pidfdpool.scheduler.policy import Policy
    from pidfdpool.template.recipe import Recipe


class Decisions:
    """The shared state of one pool, and its decisions. Thread-safe, except where the caller is to hold the lock."""

    def __init__(
        self, policy: Policy, recipe: Recipe, subscribers: list[Callable[[Death], object]], size: int
    ) -> None:
        self.lock: Any = native.reentrant_lock()
        self.readiness = interruptible.Condition(self.lock)  # notified when workers may be ready
        self.awaited = 0  # threads that wait for that, see `TemplateStarter.prestart`
        self.machine: Machine = Machine(policy, size)
        self.recipe = recipe
        self.poller: Poller = Poller()
        self.closed: bool = False
        self.abandoned = False  # by this process, which was forked from the pool's
        self.template_wanted: bool = False  # the machine has asked for one
        self.submitted = 0  # ever
        self.sleeps_until: float | None = 0.0  # when the pool thread's current wait ends; None: never
        self._deferred: deque[ev.Event] = deque()  # for the pool thread to decide upon
        remembered = min(policy.young_deaths_allowed, MOST_IN_ERRORS) + 1
        self.resolver: Resolver = Resolver(DeathReports(subscribers, remembered))
        self.tasks: dict[int, Task] = self.resolver.tasks
        self.undelivered: dict[int, Task] = self.resolver.undelivered
        self.workers: dict[int, WorkerLink] = {}  # by slot
        self.outbox: Outbox = Outbox(self)
        self.thread: PoolThread = PoolThread(self.poller, self.outbox)
        self.leadership: Leadership = Leadership(self, self.outbox, policy.spin)
        self.watchdog: Watchdog = Watchdog(self)
        self.poller.stands_back = self.watchdog.stands_back
        self.poller.read_in_loop = self.leadership.read_in_loop
        self.admission: Admission = Admission(self)
        self.leases: SegmentLeases = SegmentLeases(self, policy.segment_memory)
        self.dispatcher: Dispatcher = Dispatcher(self.machine, self.resolver, self.poller, self.leases, self.workers)
        self.logs: LogRelay | None = None  # None: workers keep what they log
        self._carry_out: dict[type[Any], Callable[[Any], ev.Event | Resolution | None]] = {
            **self.dispatcher.handlers,
            do.StartTemplate: self._start_template,
            do.Close: self._close,
        }

    @property
    def template(self) -> TemplateLink | None:
        """The template; None: there is none at the moment."""
        return self.dispatcher.template

    # ---- who may decide ------------------------------------------------------------------------------------

    @property
    def is_reentered(self) -> bool:
        """Whether the caller has interrupted this very thread's work on the pool.

        Signal handlers and finalizers run between any two steps of whatever the thread is doing, and may submit,
        cancel and shut down. They must not wait for a lock whose holder they have interrupted, and must not decide
        while a decision is half done. What they ask for is deferred, and the pool thread decides it in a moment.
        """
        return self.lock._is_owned()  # type: ignore[no-any-return]

    @property
    def defers(self) -> bool:
        """Whether the caller should leave decisions to the pool thread, which no signal handler interrupts."""
        return interruptible.handlers_may_raise_here() and self.thread.started and not self.thread.does_its_work

    @property
    def may_lead(self) -> bool:
        """Whether threads that wait for futures may read the channels meanwhile."""
        return self.thread.started and not self.poller.among_greenlets

    @property
    def is_at_work_here(self) -> bool:
        """Whether the caller has interrupted, or is doing, the work that brings results."""
        return self.lock._is_owned() or self.thread.does_its_work

    @property
    def has_waiting(self) -> bool:
        """Whether tasks wait for a worker, or for room; or somebody for the pool's end."""
        return bool(self.machine.queue or self.admission.waiting) or self.machine.phase is not Phase.OPEN

    def defer(self, event: ev.Event) -> None:
        """Have the pool thread decide upon an event. From any thread, at any time."""
        self._deferred.append(event)
        self.poller.wake()

    @property
    def has_deferred(self) -> bool:
        """Whether events wait for the pool thread to decide upon them."""
        return bool(self._deferred)

    def catch_up(self) -> None:
        """Decide what was deferred, and run what was left to the pool thread. In the pool thread."""
        while self._deferred:
            self.handle(self._deferred.popleft())
        self.outbox.run_left()

    def refusal(self) -> Exception | None:
        """Return why no task is accepted, as an error of its own each time; None: they are."""
        if self.machine.broken is not None:
            return self.resolver.broken_error(self.machine.broken)
        is_open = self.machine.phase is Phase.OPEN
        return None if is_open else RuntimeError("cannot schedule new futures after shutdown")

    def check_open(self) -> None:
        """Raise if no task is accepted. The caller holds the lock, or does not mind a stale answer."""
        if (error := self.refusal()) is not None:
            raise error

    # ---- deciding ------------------------------------------------------------------------------------------

    def handle(self, event: ev.Event, context: Context = None) -> None:
        """Take an event, carry out what follows from it, and resolve what is to be resolved."""
        if self.is_reentered:
            self.defer(event)
            return
        with self.lock:
            resolutions = self.decide_guarded(event, context)
        self.outbox.run(resolutions)

    def decide_guarded(self, event: ev.Event, context: Context = None) -> list[Resolution]:
        """Decide in a thread of the user's, which may be interrupted anywhere (Ctrl-C). The caller has the lock.

        What was being decided is then half done, and nothing can be trusted: the pool thread breaks the pool, which
        is better than a future that nobody resolves. Where that is to be expected, the pool thread decides.
        """
        if self.defers:
            self.defer(event)
            return []
        try:
            return self.decide(event, context)
        except BaseException as error:
            self.fail(error)
            raise

    def decide(self, event: ev.Event, context: Context = None) -> list[Resolution]:
        """Take an event and carry out what follows; return what to run without the lock. The caller has it."""
        resolutions: list[Resolution] = []
        resolver, admission, dispatcher = self.resolver, self.admission, self.dispatcher
        if self.closed or self.thread.failure is not None:
            if isinstance(event, ev.Submitted) and event.task in self.tasks:  # it was deferred until now
                resolutions.append(resolver.failing(event.task, resolver.broken_error("the pool is shut down")))
            return resolutions
        if admission.waiting and type(event) is ev.Cancelled and admission.withdraw(event.task):
            return resolutions
        events = deque([event])
        if dispatcher.deferred_spawns and not dispatcher.defers_spawns:
            events.extendleft(dispatcher.spawn_deferred())
        try:
            while events:
                happened = events.popleft()
                actions = self.machine.decide(happened, time.monotonic())
                if resolver.observation is not None:
                    resolver.observation.note_decision(happened, actions)
                for action in actions:
                    kind = type(action)
                    if kind in self._carry_out:
                        following = self._carry_out[kind](action)
                        if callable(following):
                            resolutions.append(following)
                        elif following is not None:
                            events.append(following)
                    else:
                        resolutions.append(resolver.handlers[kind](action, context))
                if not events and admission.waiting and (accepted := admission.next()) is not None:
                    events.append(accepted)
            if admission.waiting and self.machine.phase is not Phase.OPEN:
                resolutions += admission.refuse(SLICE)
                if admission.waiting:
                    self.poller.wake()  # for the next slice
        except BaseException:
            self.outbox.leave(resolutions)  # their tasks are not in `tasks` any more
            raise
        deadline = self.machine.deadline()
        if deadline is not None:
            self.wake_by(deadline)
        if self.awaited:
            self.readiness.notify_all()
        return resolutions

    def decide_death(self, event: ev.Died, evidence: Evidence) -> list[Resolution]:
        """Decide about a death, but ask for no worker yet: that wakes the template, which takes the processor away.

        The thread that waits for the dead worker's task gets its outcome before that. `spawn_deferred` has to follow;
        if anything else is decided sooner, the workers are asked for then. The caller has the lock.
        """
        self.dispatcher.defers_spawns = True
        try:
            return self.decide(event, evidence)
        finally:
            self.dispatcher.defers_spawns = False

    def spawn_deferred(self) -> None:
        """Ask for the workers that `decide_death` has put off, and that have not been asked for since."""
        if self.dispatcher.deferred_spawns:
            self.handle(ev.Tick(read_until=0.0))

    def fail(self, error: BaseException) -> None:
        """Have the pool broken by its thread: a decision was left half done, and none must follow it."""
        self.thread.failure = error
        self.machine.give_up(describe_failure(error))
        self.thread.start()
        self.poller.wake()

    def _start_template(self, _action: do.StartTemplate) -> None:
        # Not here, where the lock is held: starting takes as long as an interpreter takes to start.
        self.template_wanted = True
        if self.thread.started:
            self.poller.wake()

    def _close(self, _action: do.Close) -> None:
        self.closed = True
        self.poller.wake()

    # ---- the template and the pool thread ------------------------------------------------------------------

    def resume_template(self) -> None:
        """Let the template go on if somebody has stopped it: the pool is to end, and may need it for that.

        Takes the lock.
        """
        with self.lock:
            if self.template is not None:
                self.template.resume()

    def relay_logs(self) -> None:
        """Begin to take what workers log, if the template that is being started has them send it."""
        if self.logs is None and self.recipe.log_levels is not None:
            from pidfdpool.loop.log_relay import LogRelay  # most hosts have no use for it

            self.logs = self.dispatcher.logs = LogRelay(self.recipe, self)

    def want_script(self) -> None:
        """Have this pool's templates run the script again: the present one before it forks the next worker.

        Takes the lock.
        """
        with self.lock:
            self.recipe.runs_script = True
            if self.template is not None:
                self.template.want_script()

    def wake_by(self, at: float) -> None:
        """Have the pool thread look for something to do at this time at the latest. The caller has the lock."""
        if self.sleeps_until is None or at < self.sleeps_until:
            self.sleeps_until = at
            self.poller.wake()

    def wake_pool_thread(self) -> None:
        """Have the pool thread look for something to do. Any thread, at any point; needs no lock."""
        if not self.thread.is_current:  # it looks before it sleeps
            self.poller.wake()


def describe_failure(error: BaseException) -> str:
    """Return what is said of a pool whose own code failed."""
    return f"the pool's own machinery failed: {describe.repr_of(error)}"
