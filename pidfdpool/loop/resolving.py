"""What futures are told when the machine has decided, and what is counted and reported of it.

Each action leads to a *resolution*: what is to be run when the pool's lock has been released, because it runs pickles
and callbacks of the user's.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from pidfdpool import actions as do
from pidfdpool import journal
from pidfdpool.errors import PoolBroken, cause_of
from pidfdpool.loop import outcomes
from pidfdpool.loop.outcomes import Outcome, Recipient, Task
from pidfdpool.loop.witness import Evidence, Witness

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from pidfdpool.deaths import Death

    Resolution: TypeAlias = Callable[[], None]
    Context: TypeAlias = Outcome | Evidence | None  # what came with the event, for who resolves futures and reports

_log = logging.getLogger("pidfdpool.tasks")


class Resolving:
    """The tasks of a pool. The caller of every method holds the pool's lock."""

    def __init__(self, witness: Witness) -> None:
        self.tasks: dict[int, Task] = {}
        # Taken out of `tasks`, and about to be told: rebuilding a result takes as long as it takes, and a process
        # that is forked meanwhile must find these futures, too, because nobody else in there will resolve them.
        self.untold: dict[int, Recipient] = {}
        self.finished = self.failed = self.cancelled = self.crashes = 0  # ever
        self.cause: BaseException | None = None  # of the break
        # The last deaths that an error told of, and its cause: shared, for there may be as many errors as tasks.
        self._deaths_told: tuple[tuple[Death, ...], Exception | None] = (), None
        self.witness = witness
        self._resolve: dict[type[Any], Callable[[Any, Any], Resolution]] = {
            do.Deliver: self._deliver,
            do.Withdraw: self._withdraw,
            do.Fail: self._fail,
            do.Expire: self._expire,
            do.Retry: self._retry,
            do.FailBroken: self._fail_broken,
            do.Report: self._report,
        }

    def _deliver(self, action: do.Deliver, outcome: Outcome) -> Resolution:
        self.finished += 1
        future = self.tasks.pop(action.task).future
        return self._telling(action.task, future, partial(outcome.deliver, future))

    def _withdraw(self, action: do.Withdraw, _context: Context) -> Resolution:
        self.cancelled += 1
        future = self.tasks.pop(action.task).future
        future._mark_cancelled()  # now: whoever asks when the lock is released is to see it
        return self._telling(action.task, future, future._resolve_cancelled)

    def _fail(self, action: do.Fail, _context: Context) -> Resolution:
        return self.failing(action.task, outcomes.failed(self.tasks[action.task], action.cause))

    def _expire(self, action: do.Expire, _context: Context) -> Resolution:
        return self.failing(action.task, outcomes.expired(self.tasks[action.task]))

    def _fail_broken(self, action: do.FailBroken, _context: Context) -> Resolution:
        return self.failing(action.task, self.broken_error(action.reason))

    def failing(self, number: int, error: BaseException) -> Resolution:
        """Take a task out, and return what tells its future of the error."""
        self.failed += 1
        future = self.tasks.pop(number).future
        return self._telling(number, future, partial(future._resolve, None, error))

    def _telling(self, number: int, future: Recipient, tell: Resolution) -> Resolution:
        return Telling(self.untold, number, future, tell)

    def _retry(self, action: do.Retry, _context: Context) -> Resolution:
        message = "task %d (%s) is tried again, attempt %d, after %.3g s"
        name = self.tasks[action.task].name
        return partial(journal.write, _log, logging.INFO, message, action.task, name, action.attempt, action.pause)

    def _report(self, action: do.Report, evidence: Evidence | None) -> Resolution:
        task = self.tasks.get(action.task) if action.task is not None else None
        death = self.witness.record(action, evidence or Evidence(), task.name if task is not None else None)
        self.crashes += death.cause.unasked
        if task is not None:
            task.deaths = (*task.deaths, death)
        return partial(self.witness.tell, death)

    def broken_error(self, reason: str) -> PoolBroken:
        """Return a new instance of the error that tells why the pool is broken."""
        error = PoolBroken(f"the pool is broken and runs no more tasks: {reason}")
        error.deaths = deaths = tuple(self.witness.recent)
        if self.cause is not None:
            error.__cause__ = self.cause
            return error
        if deaths != self._deaths_told[0]:
            self._deaths_told = deaths, cause_of(deaths)
        error.__cause__ = self._deaths_told[1]
        return error


class Telling:
    """The resolution of one future."""

    __slots__ = ("_number", "_tell", "_untold", "future")

    def __init__(self, untold: dict[int, Recipient], number: int, future: Recipient, tell: Resolution) -> None:
        self._untold = untold
        self._number = number
        self.future = future
        self._tell = tell
        untold[number] = future

    def __call__(self) -> None:
        """Tell it."""
        try:
            self._tell()
        finally:
            self._untold.pop(self._number, None)


def run(resolutions: Sequence[Resolution]) -> None:
    """Resolve futures, without the lock: this runs pickles and callbacks of the user's."""
    for resolution in resolutions:
        resolution()
