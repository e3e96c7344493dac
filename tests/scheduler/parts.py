"""The parts of a machine, each with those that it needs and none of those that need it."""

from __future__ import annotations

from pidfdpool.scheduler.breaker import Breaker
from pidfdpool.scheduler.commands import Commands
from pidfdpool.scheduler.fast_path import FastPath
from pidfdpool.scheduler.limits import TaskLimits
from pidfdpool.scheduler.policy import Policy
from pidfdpool.scheduler.pool_rules import PoolRules
from pidfdpool.scheduler.pool_state import PoolState
from pidfdpool.scheduler.prefetch import Prefetcher
from pidfdpool.scheduler.queue import TaskQueue
from pidfdpool.scheduler.restart_limits import RestartLimiter
from pidfdpool.scheduler.states import Slot, State, Task
from pidfdpool.scheduler.tasks import TaskRules
from pidfdpool.scheduler.timers import Timers
from pidfdpool.scheduler.workers import WorkerRules
from pidfdpool.scheduler.workforce import Workforce


class Parts:
    """What holds facts, of a pool that has done nothing; other parts are made when a test asks for them."""

    def __init__(self, workers: int = 2, **policy) -> None:
        self.policy = Policy(max_workers=workers, **policy)
        self.state = PoolState(self.policy)
        self.queue, self.timers = TaskQueue(), Timers()
        self.workforce = Workforce(self.timers)
        self.limiter = RestartLimiter(self.policy)
        self.commands = Commands(self.state, self.timers, self.workforce)

    def breaker(self) -> Breaker:
        return Breaker(self.state, self.queue, self.timers, self.workforce, self.commands, self.limiter)

    def prefetcher(self, pace: float | None = None) -> Prefetcher:
        prefetcher = Prefetcher(self.state, self.queue, self.timers, self.workforce, self.commands)
        prefetcher.pace = pace
        return prefetcher

    def tasks(self) -> TaskRules:
        return TaskRules(self.state, self.queue, self.timers, self.commands, self.prefetcher())

    def limits(self) -> TaskLimits:
        return TaskLimits(self.state, self.queue, self.timers, self.workforce, self.commands, self.tasks())

    def worker_rules(self, pace: float | None = None) -> WorkerRules:
        prefetcher = self.prefetcher(pace)
        tasks = TaskRules(self.state, self.queue, self.timers, self.commands, prefetcher)
        limits = TaskLimits(self.state, self.queue, self.timers, self.workforce, self.commands, tasks)
        return WorkerRules(
            self.state,
            self.queue,
            self.timers,
            self.workforce,
            self.commands,
            self.limiter,
            self.breaker(),
            prefetcher,
            tasks,
            limits,
        )

    def pool_rules(self) -> PoolRules:
        return PoolRules(
            self.state,
            self.queue,
            self.timers,
            self.workforce,
            self.commands,
            self.limiter,
            self.breaker(),
            self.tasks(),
        )

    def fast_path(self, pace: float | None = None) -> FastPath:
        prefetcher = self.prefetcher(pace)
        tasks = TaskRules(self.state, self.queue, self.timers, self.commands, prefetcher)
        return FastPath(self.state, self.queue, self.workforce, self.limiter, prefetcher, tasks)

    # ---- facts ---------------------------------------------------------------------------------------------

    def worker(self, state: State = State.IDLE, task: int | None = None, ahead: tuple[int, ...] = ()) -> Slot:
        """Add a worker that was forked, in a state, and with the tasks that it runs and has ahead."""
        slot = self.workforce.occupy(0.0)
        slot.pid = 100 + slot.index
        if state is not State.STARTING:
            slot.ready_at = 0.0
            self.workforce.move(slot, state)
        if task is not None:
            self.add_task(task).attempt = 1
            slot.task = task
            self.state.running[task] = slot.index
        for number in ahead:
            self.add_task(number)
            slot.ahead.append(number)
            self.state.prefetched[number] = slot.index
        return slot

    def add_task(self, number: int, now: float = 0.0, *, queued: bool = False, **options) -> Task:
        """Add a task, which is in the queue if that is said."""
        policy = self.policy.refined(options)
        task = self.state.tasks[number] = Task(policy, now)
        if queued:
            self.queue.add(number, policy.priority)
        return task

    def actions(self) -> list:
        """Return what was decided since the last call."""
        actions, self.state.actions = self.state.actions, []
        return actions
