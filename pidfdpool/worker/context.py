"""What a task may say to its pool and ask about itself: heartbeat, unhealthy, current_task.

Owns the state of this process as a worker. Imported by tasks, wherever they run, and so also in the host, where
nothing is installed and the functions do nothing; the worker's loop installs what they need. Holds no process, no
channel and no clock of its own.

The running task is kept once per process, not once per thread: a worker runs one task at a time, and the threads
that a task starts are to see it, too.
"""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NamedTuple

    class _Fields(NamedTuple):
        id: int
        attempt: int
        deadline: float | None

else:
    _Fields = namedtuple("_Fields", ("id", "attempt", "deadline"))


class CurrentTask(_Fields):
    """The task that this worker runs.

    id: the number that the pool gave it, as in `WorkerCrashed.task_id`.
    attempt: 1, and more where it is run again.
    deadline: the time.monotonic() by which the caller wants it done: the end of its `timeout`, or without one its
        `deadline`; None: whenever.
    """

    __slots__ = ()


_task: tuple[int, int, float | None] | None = None  # not yet a CurrentTask: few ask
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
        from pidfdpool.process import describe

        raise TypeError(f"reason must be a str, not {describe.repr_of(reason)}")
    report = _report
    if report is not None:
        report(str.__str__(reason))  # of a subclass only the characters


def current_task() -> CurrentTask | None:
    """Return the task that this worker runs, in whichever of its threads; None outside of a task."""
    task = _task
    return None if task is None else CurrentTask(*task)


# ---- for the worker's loop -------------------------------------------------------------------------------------


def install(beat: Callable[[], None], report: Callable[[str], None]) -> None:
    """Make this process a worker, as far as tasks can tell."""
    global _beat, _report
    _beat, _report = beat, report


def enter(number: int, attempt: int, deadline: float | None) -> None:
    """Note the task that begins: the fields of `CurrentTask`."""
    global _task  # noqa: PLW0603
    _task = number, attempt, deadline


def leave() -> None:
    """Note that it is over."""
    global _task  # noqa: PLW0603
    _task = None


def forget() -> None:
    """Be no worker any more: in a process that a task has forked, which must not speak for its parent."""
    global _task, _beat, _report  # noqa: PLW0603
    _task = _beat = _report = None
