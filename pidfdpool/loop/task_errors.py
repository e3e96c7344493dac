"""The errors that futures get from the pool itself, because a task did not run or its attempt was lost.

Pure: each function returns a new exception whose message says what happened, to which task, and what to try.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool.deaths import Cause, history
from pidfdpool.errors import (
    DeadlineExceeded,
    HeartbeatLost,
    InheritedFutureError,
    MemoryExceeded,
    PoisonTask,
    QueueFull,
    TaskKilled,
    TaskTimeout,
    WorkerCrashed,
    advice,
)

if TYPE_CHECKING:
    from pidfdpool.loop.task import Task


def deadline_error(task: Task) -> DeadlineExceeded:
    """Return the error of a task that waited for too long."""
    if task.chunk is not None:
        task.chunk.narrow_to_first()
    return DeadlineExceeded(
        f"task {task.number} ({task.label}) was given to no worker within its deadline of {task.policy.deadline:g} s "
        "and did not run. Use more workers, a longer deadline, or a higher priority."
    )


def attempt_error(task: Task, cause: Cause) -> Exception:
    """Return the error of a task whose last attempt ended for this cause."""
    policy = task.policy
    last = task.deaths[-1] if task.deaths and task.deaths[-1].attempt == task.attempt else None
    label = task.label
    what = f"task {task.number} ({label})"
    ended = f" Its {last}." if last is not None else " Its worker had not ended by then."
    kind: type[WorkerCrashed | TaskTimeout | HeartbeatLost | TaskKilled] = WorkerCrashed
    if cause is Cause.TIMEOUT:
        kind, told = TaskTimeout, f"{what} ran for longer than its timeout of {policy.timeout:g} s.{ended}"
    elif cause is Cause.HEARTBEAT:
        kind = HeartbeatLost
        told = f"{what} gave no heartbeat for longer than {policy.heartbeat_timeout:g} s.{ended}"
    elif cause is Cause.KILL:
        kind = TaskKilled
        told = f"{what} was killed by Future.kill().{ended if task.begun and last else ''}"
    elif cause is Cause.SHUTDOWN:
        kind = TaskKilled
        told = f"{what} was waiting for attempt {task.attempt + 1} when the pool was shut down."
    elif cause is Cause.MEMORY:
        kind = MemoryExceeded
        told = f"{what} took more memory than hard_memory_per_child={policy.hard_memory_per_child} allows.{ended}"
    elif last is None:
        told = f"{what} was lost with its worker."
    else:
        told = f"{last}."
        if last.cause.unasked:
            told += f" {advice(last.exit_status)}"
    crashes = [death for death in task.deaths if death.attempt]
    if len(crashes) > 1:
        if kind is WorkerCrashed:
            kind = PoisonTask
        told += f" It is not tried again after {len(crashes)} deaths:\n{history(task.deaths)}"
    error = kind(told, task=label, task_id=task.number, attempt=task.attempt, deaths=task.deaths)
    if task.chunk is not None:
        error.chunk = task.chunk
    return error


def queue_full_error(pending: int, most: int) -> QueueFull:
    """Return the error of a task that was not accepted."""
    return QueueFull(
        f"{pending} tasks are pending and max_pending is {most}: wait for results, or let submit wait with block=True"
    )


def inherited_error() -> InheritedFutureError:
    """Return the error of a copied future, whose task another process goes on with."""
    return InheritedFutureError(
        "this future was pending when its process was forked: the task runs on for the parent process, and only "
        "there its result will arrive. Submit again in the child, whose executor has workers of its own."
    )
