"""Decides what follows when a task of `flow` has ended: nothing, or further tasks for its documents. Pure.

Used by `flow`, in the host, on its main thread.

If a worker dies, its whole block is lost, and it is not known which line was the cause. So the lines are submitted
again, one by one, in place of the block. If a function fails and is to be tried again, the block ends there, and only
that line is submitted again; what comes after it becomes a block of its own. A line that fails when it is alone has
failed: further attempts at it, and the pauses before them, are the pool's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pidfdpool import MemoryExceeded, TaskTimeout, WorkerCrashed
from pidfdpool.cli import transform
from pidfdpool.cli.transform import FunctionFailed

if TYPE_CHECKING:
    from pidfdpool.cli.transform import Block, How, Job, Outcome

# What a task of the flow may end with, beside its outcome. Any other error ends the run.
ERRORS = (WorkerCrashed, TaskTimeout, FunctionFailed)


@dataclass(slots=True, eq=False)
class Task:
    """One task: a block in its first try, or one line of it that is tried again."""

    block: Block
    again: bool = False
    outcome: Outcome | None = None


class Attempts:
    """The rules of a run.

    retries: how often a document that failed is tried again, as the user said. preloaded: whether workers have the
    function from their start. Otherwise they import it in their first task, and what takes too long may be that.
    """

    def __init__(self, job: Job, retries: int = 0, *, preloaded: bool = True) -> None:
        self._job = job
        self._retries = retries
        self._preloaded = preloaded

    @property
    def retries_alone(self) -> int:
        """How often a line that is submitted alone is tried again. The block before counts as its first attempt."""
        return max(0, self._retries - 1)

    def after_outcome(self, task: Task, outcome: Outcome) -> list[Task]:
        """Return the tasks that stand for this one now: those without an outcome are to be submitted."""
        if outcome.stopped is None:
            return [Task(task.block, task.again, outcome)]
        line, rest = transform.split_at(task.block, outcome.stopped)
        following = [Task(task.block, outcome=outcome), Task(line, again=True)]
        return following if rest is None else [*following, Task(rest)]

    def after_error(self, task: Task, error: BaseException) -> list[Task]:
        """As `after_outcome`, for a task that ended with one of ERRORS."""
        if isinstance(error, FunctionFailed):
            return [Task(task.block, True, transform.failed_outcome(self._job, task.block, error.failure))]
        lines = transform.split(task.block)
        blamed = isinstance(error, TaskTimeout) and len(lines) == 1 and not self._retries and self._preloaded
        if not task.again and not blamed:
            return [Task(line, again=True) for line in lines]
        failure = transform.death_of(self._job, task.block, _how(error), error)
        return [Task(task.block, True, transform.failed_outcome(self._job, task.block, failure))]


def _how(error: BaseException) -> How:
    if isinstance(error, TaskTimeout):
        return "timeout"
    return "memory" if isinstance(error, MemoryExceeded) else "crash"
