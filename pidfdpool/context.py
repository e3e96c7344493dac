"""What a task may say to its pool and ask about itself: heartbeat, unhealthy, current_task.

Owns the state of this process as a worker. Imported by tasks, wherever they run, and so also in the host, where
nothing is installed and the functions do nothing; the worker's loop installs what they need. Holds no process, no
channel and no clock of its own.

The running task is kept once per process, not once per thread: a worker runs one task at a time, and the threads
that a task starts are to see it, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class CurrentTask(NamedTuple):
    """The task that this worker runs.

    id: the number that the pool gave it, as in `WorkerCrashed.task_id`.
    attempt: 1, and more where it is run again.
    deadline: the time.monotonic() by which the caller wants it done: the end of its `timeout`, or without one its
        `deadline`; None: whenever.
    """

    id: int
    attempt: int
    deadline: float | None


_task: CurrentTask | None = None
_beat: Callable[[], None] | None = None
_report: Callable[[str], None] | None = None


def heartbeat() -> None:
    """Tell the pool that the running task is alive (see the option heartbeat_timeout).

    From any thread, at about the price of a system call. Does nothing outside of a worker.
    """
    beat = _beat
    if beat is not None:
        beat()


def unhealthy(reason: str) -> None:
    """Have this worker finish its task and then be replaced. From any thread. Does nothing outside of a worker.

    Raises:
        TypeError: the reason is no text.
    """
    if not isinstance(reason, str):
        raise TypeError(f"reason must be a str, not {reason!r}")
    report = _report
    if report is not None:
        report(reason)


def current_task() -> CurrentTask | None:
    """Return the task that this worker runs, in whichever of its threads; None outside of a task."""
    return _task


# ---- for the worker's loop -------------------------------------------------------------------------------------


def install(beat: Callable[[], None], report: Callable[[str], None]) -> None:
    """Make this process a worker, as far as tasks can tell."""
    global _beat, _report
    _beat, _report = beat, report


def enter(task: CurrentTask | None) -> None:
    """Note the task that begins; None: it is over."""
    global _task  # noqa: PLW0603
    _task = task


def forget() -> None:
    """Be no worker any more: in a process that a task has forked, which must not speak for its parent."""
    global _task, _beat, _report  # noqa: PLW0603
    _task = _beat = _report = None
