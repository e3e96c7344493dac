"""The machine: all parts of the scheduler, built and connected. Pure; see the room's docstring."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.breaker import Breaker
from pidfdpool.scheduler.commands import Commands
from pidfdpool.scheduler.fast_path import FastPath
from pidfdpool.scheduler.limits import TaskLimits
from pidfdpool.scheduler.pool_rules import PoolRules
from pidfdpool.scheduler.pool_state import PoolState
from pidfdpool.scheduler.prefetch import Prefetcher
from pidfdpool.scheduler.queue import TaskQueue
from pidfdpool.scheduler.restart_limits import RestartLimiter
from pidfdpool.scheduler.states import RULES, Phase, Template
from pidfdpool.scheduler.tasks import TaskRules
from pidfdpool.scheduler.timers import Timer, Timers
from pidfdpool.scheduler.workers import WorkerRules
from pidfdpool.scheduler.workforce import Workforce

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from typing import Final

    from pidfdpool.scheduler.policy import Policy
    from pidfdpool.scheduler.states import Slot, State, Task


class Machine:
    """The decisions of one pool. Not thread-safe: the caller holds the pool's lock.

    Its parts are attributes; the room's docstring says what each one owns. `enqueue`, `hand_over`, `cancel` and
    `take_answers` are those of `FastPath`, and `held` is that of `Workforce`. The containers below are those of the
    parts, to be read only.

    Attributes:
        policy: what the pool was asked to do.
        tasks: number -> task, for each task that is accepted and not resolved.
        queue: the tasks that wait for a worker.
        running, prefetched: number -> index of the slot, for each task that runs in a worker or is ahead of one.
        delayed, to_cancel: the tasks that wait for their next attempt, and those that wait to be cancelled.
        slots: the workers, by slot.
        counts: state -> number of slots.
    """

    def __init__(self, policy: Policy, size: int | None = None) -> None:
        """Make the machine of a new pool, of the policy's max_workers unless another size is given."""
        self.policy = policy
        state, queue, timers = PoolState(policy, size), TaskQueue(), Timers()
        workforce, limiter = Workforce(timers), RestartLimiter(policy)
        commands = Commands(state, timers, workforce)
        breaker = Breaker(state, queue, timers, workforce, commands, limiter)
        prefetcher = Prefetcher(state, queue, timers, workforce, commands)
        tasks = TaskRules(state, queue, timers, commands, prefetcher)
        limits = TaskLimits(state, queue, timers, workforce, commands, tasks)
        workers = WorkerRules(state, queue, timers, workforce, commands, limiter, breaker, prefetcher, tasks, limits)
        pool = PoolRules(state, queue, timers, workforce, commands, limiter, breaker, tasks)

        self.state: PoolState = state
        self.queue: TaskQueue = queue
        self.timers: Timers = timers
        self.workforce: Workforce = workforce
        self.restart_limiter: RestartLimiter = limiter
        self.commands: Commands = commands
        self.breaker: Breaker = breaker
        self.prefetcher: Prefetcher = prefetcher
        self.task_rules: TaskRules = tasks
        self.limits: TaskLimits = limits
        self.workers: WorkerRules = workers
        self.pool: PoolRules = pool
        self.fast_path: FastPath = FastPath(state, queue, workforce, limiter, prefetcher, tasks)

        self.tasks: dict[int, Task] = state.tasks
        self.running: dict[int, int] = state.running
        self.prefetched: dict[int, int] = state.prefetched
        self.delayed: TaskQueue = state.delayed
        self.to_cancel: TaskQueue = state.to_cancel
        self.slots: list[Slot] = workforce.slots
        self.counts: Counter[State] = workforce.counts
        self.held: Callable[[int, int], list[int]] = workforce.held
        # Not methods of this class that call those: each task has two such calls, and one takes 0.1 to 0.4 us (Python
        # 3.15, busy machine), of the 2 us that all decisions about a tiny task take.
        self.enqueue: Final = self.fast_path.enqueue
        self.hand_over: Final = self.fast_path.hand_over
        self.cancel: Final = self.fast_path.cancel
        self.take_answers: Final = self.fast_path.take_answers

        self._worker_events: dict[tuple[type[Any], State], Callable[[Slot, Any, float], None]] = {}
        for rule in RULES:
            handler = attrgetter(rule.handler)(self)
            for each in rule.states:
                self._worker_events[rule.event, each] = handler
        self._pool_events: dict[type[Any], Callable[[Any, float], None]] = {
            ev.Submitted: tasks.on_submitted,
            ev.Cancelled: tasks.on_cancelled,
            ev.TaskKillRequested: limits.on_task_kill_requested,
            ev.ResizeRequested: pool.on_resize_requested,
            ev.PrestartRequested: pool.on_prestart_requested,
            ev.TemplateUp: pool.on_template_up,
            ev.TemplateBooted: pool.on_template_booted,
            ev.TemplateLost: pool.on_template_lost,
            ev.TemplateUnusable: pool.on_template_unusable,
            ev.ShutdownRequested: pool.on_shutdown_requested,
            ev.KillRequested: pool.on_kill_requested,
        }
        self._worker_timers: dict[Timer, Callable[[Slot, float], None]] = {
            Timer.STOP: workers.on_stop_overdue,
            Timer.TIMEOUT: limits.on_timeout,
            Timer.HEARTBEAT: limits.on_heartbeat_due,
            Timer.STACK: limits.on_stack_due,
            Timer.KILL: limits.kill,
            Timer.GIVE_UP: limits.on_give_up,
            Timer.AGE: workers.on_too_old,
            Timer.IDLE: workers.on_idle_too_long,
            Timer.FORK: workers.on_fork_overdue,
            Timer.START: workers.on_start_overdue,
            Timer.EXIT: workers.on_exit_overdue,
        }
        self._other_timers: dict[Timer, Callable[[int, float], None]] = {
            Timer.DEADLINE: tasks.on_deadline,
            Timer.RETRY: tasks.on_retry_due,
            Timer.MEMORY: limits.on_memory_due,
            Timer.TEMPLATE: pool.on_template_overdue,
            Timer.BALANCE: _look_again,
            Timer.CANCEL: tasks.on_cancel_due,
        }

    # ---- what changes, for the host to read ----------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """Whether the pool is open, draining, closing or closed."""
        return self.state.phase

    @property
    def broken(self) -> str | None:
        """Why the pool is broken, for people; None: it is not."""
        return self.state.broken

    @property
    def template(self) -> Template:
        """What is known of the template."""
        return self.state.template

    @property
    def size(self) -> int:
        """The number of workers at most, not counting those that are being replaced."""
        return self.state.size

    @property
    def level(self) -> int:
        """The number of workers that the pool is to hold now."""
        return self.state.level

    @property
    def deaths(self) -> int:
        """How many workers have died."""
        return self.state.deaths

    @property
    def restarts(self) -> int:
        """How many workers were started in the place of others."""
        return self.state.restarts

    @property
    def retries(self) -> int:
        """How many further attempts tasks were granted."""
        return self.state.retries

    @property
    def template_restarts(self) -> int:
        """How many templates were started in the place of others."""
        return max(0, self.state.template_starts - 1)

    # ---- decisions -----------------------------------------------------------------------------------------

    def decide(self, event: ev.Event, now: float) -> list[do.Action]:
        """Take one event and return the actions to carry out, in order."""
        self.fast_path.queue_limit = None
        kind = type(event)
        pool_event = self._pool_events.get(kind)
        if pool_event is not None:
            pool_event(event, now)
        elif kind is ev.Tick:
            self._on_tick(event, now)
        else:
            self._on_worker_event(event, now)
        self._settle(now)
        state = self.state
        actions, state.actions = state.actions, []
        return actions

    def deadline(self) -> float | None:
        """Return when a Tick is due, or None: then nothing happens unless something else does."""
        at, spawn = self.timers.next(), self.pool.next_spawn()
        if at is None or spawn is None:
            return spawn if at is None else at
        return min(at, spawn)

    def give_up(self, reason: str) -> None:
        """Note that a decision was left half done. Nothing in here can be relied on any more."""
        self.state.broken = self.state.broken or reason
        self.state.phase = Phase.CLOSED

    def _on_worker_event(self, event: Any, now: float) -> None:
        slot = self.workforce.by_generation.get(event.generation)
        if slot is None or slot.index != event.slot:
            return  # late news of a worker that is gone
        handler = self._worker_events.get((type(event), slot.state))
        if handler is None:
            # Only a task that writes into the worker's channel can make a worker speak out of turn. Whatever it
            # says next cannot be trusted either.
            self.commands.kill_for_violation(slot)
            return
        handler(slot, event, now)

    def _on_tick(self, event: Any, now: float) -> None:
        by_generation = self.workforce.by_generation
        while (key := self.timers.pop_due(min(now, event.read_until))) is not None:
            timer, whose = key
            if timer in self._other_timers:
                self._other_timers[timer](whose, now)
            elif whose in by_generation:
                self._worker_timers[timer](by_generation[whose], now)

    def _settle(self, now: float) -> None:
        """Bring the pool forward as a whole, after every event."""
        state, workforce = self.state, self.workforce
        if state.phase in (Phase.OPEN, Phase.DRAINING):
            self.workers.hand_out(now)
            if self.queue:
                self.prefetcher.send_ahead()
            elif workforce.idle and state.prefetched:
                self.prefetcher.rebalance(now)
            self.pool.refill(now)
            if workforce.retiring:
                self.pool.let_replaced_leave(now)
        if state.phase is not Phase.OPEN:
            self.pool.close_if_done(now)


def _look_again(_pool: int, _now: float) -> None:
    """Do nothing: a Tick alone makes `Machine._settle` rebalance."""
