"""What becomes of tasks when the machine has decided: futures to be resolved, counts, and reports of deaths.

Each action leads to a *resolution*: a callable that is to run when the pool's lock has been released, because it runs
pickles and callbacks of the user's. For a task that is the `Delivery` of its outcome. From the decision on until the
future is resolved, the task is in `undelivered`. A thread that cannot run all the resolutions that it has taken
leaves the rest to the pool thread (`Outbox.run`). So no future is lost in between, whatever the user's code does.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from pidfdpool.errors import PoolBroken, cause_of
from pidfdpool.loop import outcomes, task_errors
from pidfdpool.loop.death_reports import DeathReports, Evidence
from pidfdpool.loop.outcomes import Outcome
from pidfdpool.process import safe_logging
from pidfdpool.scheduler import actions as do
from pidfdpool.serialization import payload
from pidfdpool.serialization.picklers import STACK_GLOBAL
from pidfdpool.transport.framing import RESULT, Frame

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from pidfdpool.deaths import Death
    from pidfdpool.loop.observation import Observation
    from pidfdpool.loop.task import Task, Verdict
    from pidfdpool.transport.framing import Buffer

    Resolution: TypeAlias = Callable[[], None]
    Context: TypeAlias = Outcome | Evidence | None  # what came with the event, for who resolves futures and reports

_log = logging.getLogger("pidfdpool.tasks")


class Resolver:
    """The tasks of a pool, and what becomes of them. The caller of every method holds the pool's lock."""

    def __init__(self, deaths: DeathReports) -> None:
        self.tasks: dict[int, Task] = {}
        # Taken out of `tasks`, their futures not yet resolved. Rebuilding a result takes as long as it takes. A
        # process that is forked meanwhile must find these futures, too: nobody else in there will resolve them.
        self.undelivered: dict[int, Task] = {}
        self.finished: int = 0  # ever; as the three below
        self.failed: int = 0
        self.cancelled: int = 0
        self.crashes: int = 0
        self.cause: BaseException | None = None  # of the break
        # The last deaths that an error told of, and its cause: shared, for there may be as many errors as tasks.
        self._deaths_told: tuple[tuple[Death, ...], Exception | None] = (), None
        self.deaths = deaths
        # None: nobody observes the pool. It is read and set with the lock; who reads it without may use what it was.
        self.observation: Observation | None = None
        self.handlers: dict[type[Any], Callable[[Any, Any], Resolution]] = {
            do.Deliver: self._deliver,
            do.Cancel: self._cancel,
            do.Fail: self._fail,
            do.Expire: self._expire,
            do.Retry: self._retry,
            do.FailBroken: self._fail_broken,
            do.ReportDeath: self._report_death,
        }

    def _deliver(self, action: do.Deliver, outcome: Outcome) -> Resolution:
        self.finished += 1
        if self.observation is not None:
            self.observation.note_end(self.tasks[action.task], None)
        return self._delivery(action.task, outcome)

    def _cancel(self, action: do.Cancel, _context: Context) -> Resolution:
        self.cancelled += 1
        if self.observation is not None:
            self.observation.note_end(self.tasks[action.task], None, cancelled=True)
        self.tasks[action.task].future._mark_cancelled()  # now, so that it is seen as soon as the lock is released
        return self._delivery(action.task, None)

    def _fail(self, action: do.Fail, _context: Context) -> Resolution:
        return self.failing(action.task, task_errors.attempt_error(self.tasks[action.task], action.cause))

    def _expire(self, action: do.Expire, _context: Context) -> Resolution:
        return self.failing(action.task, task_errors.deadline_error(self.tasks[action.task]))

    def _fail_broken(self, action: do.FailBroken, _context: Context) -> Resolution:
        return self.failing(action.task, self.broken_error(action.reason))

    def failing(self, number: int, error: BaseException) -> Resolution:
        """Take a task out, and return what resolves its future with the error."""
        self.failed += 1
        if self.observation is not None:
            self.observation.note_end(self.tasks[number], error)
        return self._delivery(number, error)

    def _delivery(self, number: int, verdict: Verdict) -> Resolution:
        task = self.tasks.pop(number)
        set_aside(self.undelivered, task, verdict)
        return Delivery(self.undelivered, task)

    def _retry(self, action: do.Retry, _context: Context) -> Resolution:
        message = "task %d (%s) is tried again, attempt %d, after %.3g s"
        name = self.tasks[action.task].label
        if self.observation is not None:
            self.observation.note_retry(self.tasks[action.task], action.attempt, action.pause)
        return partial(safe_logging.log, _log, logging.INFO, message, action.task, name, action.attempt, action.pause)

    def _report_death(self, action: do.ReportDeath, evidence: Evidence | None) -> Resolution:
        task = self.tasks.get(action.task) if action.task is not None else None
        evidence = evidence or Evidence()
        if task is not None and task.chunk is not None:
            task.chunk.narrow(evidence.marks)
            if evidence.published is not None and evidence.published.task == task.number:
                task.chunk.take(evidence.published)
        death = self.deaths.record(action, evidence, task.label if task is not None else None)
        self.crashes += death.cause.unasked
        if self.observation is not None:
            self.observation.note_death(death)
        if task is not None:
            task.deaths = (*task.deaths, death)
        return partial(self.deaths.publish, death)

    def broken_error(self, reason: str) -> PoolBroken:
        """Return a new instance of the error that tells why the pool is broken."""
        error = PoolBroken(f"the pool is broken and runs no more tasks: {reason}")
        error.deaths = deaths = tuple(self.deaths.recent)
        if self.cause is not None:
            error.__cause__ = self.cause
            return error
        if deaths != self._deaths_told[0]:
            self._deaths_told = deaths, cause_of(deaths)
        error.__cause__ = self._deaths_told[1]
        return error


QUICK = 4096  # bytes of a pickle, which take some microseconds
NO_BUFFERS: list[Buffer] = []


def is_quickly_rebuilt(verdict: Verdict) -> bool:
    """Return whether a future is resolved with this in no time, and without any code of the user's or a library's."""
    if isinstance(verdict, tuple):  # lean
        data: Buffer = verdict[3]
    elif isinstance(verdict, (Frame, Outcome)):
        if verdict.kind != RESULT or len(verdict.buffers) != 1:
            return False
        data = verdict.buffers[0]
    else:
        return True  # cancelled, or an error of the pool's own
    # A pickle calls something only if it names it before.
    return type(data) is bytes and len(data) <= QUICK and data[-1] > payload.HIGHEST_MARK and STACK_GLOBAL not in data


class Delivery:
    """The resolution of one future."""

    __slots__ = ("_task", "_undelivered")

    def __init__(self, undelivered: dict[int, Task], task: Task) -> None:
        self._undelivered = undelivered
        self._task = task

    @property
    def task(self) -> Task:
        """The task whose future is resolved."""
        return self._task

    def __call__(self) -> None:
        """Resolve it."""
        deliver(self._undelivered, self._task)


def set_aside(undelivered: dict[int, Task], task: Task, verdict: Verdict) -> None:
    """Note what a task's future is to be resolved with. It is out of `tasks`; the caller holds the pool's lock.

    The task itself is kept until then, because only without the lock may what it holds of the user's be let go of.
    """
    task.verdict = verdict
    task.buffers = NO_BUFFERS  # its call's segment is wanted for those that are sent now
    undelivered[task.number] = task


def deliver(undelivered: dict[int, Task], task: Task) -> None:
    """Resolve a task's future: the one place where that is done. Without the lock.

    Pickles and callbacks of the user's run in here, and do what they like. If the outcome cannot be rebuilt, the
    future gets that error. What is raised here comes from elsewhere (a signal handler in the main thread); then the
    task is still in `undelivered`, and this may be called again.
    """
    if task.number not in undelivered:
        return
    verdict, future = task.verdict, task.future
    kind = type(verdict)
    if kind is tuple and verdict[3] == payload.NONE:  # type: ignore[index]
        future._resolve(None, None)  # what many tasks return; to rebuild it takes 0.6 us
    elif kind is tuple or kind is Frame or kind is Outcome:
        result: Any = None
        error: BaseException | None
        try:
            result, error = outcomes.load(verdict)  # type: ignore[arg-type]
        except BaseException as failure:  # there is no memory left even to say that there is none
            error = failure
        future._resolve(result, error)
    elif verdict is None:
        future._resolve_cancelled()
    else:
        future._resolve(None, verdict)  # type: ignore[arg-type]
    undelivered.pop(task.number, None)
