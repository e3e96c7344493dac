"""The functions that a task can call about itself: heartbeat, unhealthy, current_task.

Called by tasks, in workers, on any thread; and by the worker's loop (`install` and the functions after it), on the
worker's thread. In the host nothing is installed, and the functions for tasks do nothing. This module holds the state
of the process as a worker. It has no process, no channel and no clock of its own.

The running task is stored once per process, not once per thread, because a worker runs one task at a time, and the
threads that a task starts have to see it, too.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NamedTuple

    class CurrentTask(NamedTuple):
        """See `_current_task_class`."""

        id: int
        attempt: int
        deadline: float | None


class WorkerPlace:
    """A worker among others.

    pid: its own, also in what its tasks fork. siblings: how many workers share the CPUs, itself included: those for
    which its pool was made, times those of the pool around that one.
    """

    __slots__ = ("pid", "siblings")

    def __init__(self, pid: int, siblings: int) -> None:
        self.pid: int = pid
        self.siblings: int = siblings


_task: tuple[int, int, float | None] | None = None  # the fields of a CurrentTask, which is made only if asked for
_call_until: Callable[[], float] | None = None  # of a chunk: when the call under way has to be done
_end_chunk: Callable[[], None] | None = None
_beat: Callable[[], None] | None = None
_report: Callable[[str], None] | None = None
_loop: object = None  # the worker's, for tasks that stream
worker: WorkerPlace | None = None  # of this process, if it is a worker, or if a task of a worker has forked it
# Where calls run in the host (`SerialExecutor`): returns the fields of the calling thread's task, if it runs one.
task_of_thread: Callable[[], tuple[int, int, float | None] | None] | None = None


def heartbeat() -> None:
    """Tell the pool that the running task is alive (see the option heartbeat_timeout).

    Call it from any thread. It takes about as long as a system call. Does nothing outside of a worker.
    """
    beat = _beat
    if beat is not None:
        beat()


def unhealthy(reason: str) -> None:
    """Have the pool replace this worker after its current task. Does nothing outside of a worker.

    Call it from any thread. reason: why, as text.

    Raises:
        TypeError: the reason is no str.
    """
    if not isinstance(reason, str):
        from pidfdpool.process import describe

        raise TypeError(f"reason must be a str, not {describe.repr_of(reason)}")
    report, end_chunk = _report, _end_chunk
    if end_chunk is not None:
        end_chunk()
    if report is not None:
        report(str.__str__(reason))  # an instance of str itself, even if reason is of a subclass


def current_task() -> CurrentTask | None:
    """Return the task that this worker runs, whatever thread asks; None outside of a task.

    In a call of a `SerialExecutor` it is that call, for the thread that runs it.
    """
    task, until = _task, _call_until
    if task_of_thread is not None and (serial := task_of_thread()) is not None:
        task, until = serial, None
    if task is None:
        return None
    kind: type[CurrentTask] = globals().get("CurrentTask") or _current_task_class()
    return kind(*task) if until is None else kind(task[0], task[1], until())


def __getattr__(name: str) -> Any:
    """Make CurrentTask when somebody asks for it. Most workers never do, and it takes as long as all else in here."""
    if name == "CurrentTask":
        return _current_task_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _current_task_class() -> type[CurrentTask]:
    import collections

    make: Any = collections.namedtuple
    made = make("CurrentTask", ("id", "attempt", "deadline"), module=__name__)
    made.__doc__ = """The task that this worker runs.

    Attributes:
        id: the number that the pool gave it, as in `WorkerCrashed.task_id`.
        attempt: 1 for the first run, and one more for each retry.
        deadline: the time.monotonic() at which the task has to be done: the end of its `timeout`, or without one its
            `deadline`; None: there is neither.
    """
    return globals().setdefault("CurrentTask", made)  # type: ignore[no-any-return]


# ---- for the worker's loop -------------------------------------------------------------------------------------


def install(beat: Callable[[], None], report: Callable[[str], None], loop: object = None) -> None:
    """Connect the functions for tasks to the worker's loop.

    beat: writes a heartbeat. report: reports that this worker is unhealthy, with the reason.
    """
    global _beat, _report, _loop
    _beat, _report, _loop = beat, report, loop


def loop() -> object:
    """Return the worker's loop, a `streaming.Loop`; None: this is no worker, or a process that a task has forked."""
    return _loop


def enter(number: int, attempt: int, deadline: float | None) -> None:
    """Store the task that begins. The arguments are the fields of `CurrentTask`."""
    global _task  # noqa: PLW0603
    _task = number, attempt, deadline


def leave() -> None:
    """Store that the task is over."""
    global _task  # noqa: PLW0603
    _task = None


def running_task() -> int:
    """Return the number of the task that runs; 0: none does."""
    return 0 if _task is None else _task[0]


def enter_chunk(until: Callable[[], float] | None, end_early: Callable[[], None]) -> None:
    """Store that the task makes many calls, each of which is to find what a task of its own would.

    until: returns when the call under way has to be done, on the clock of time.monotonic(); None: the task knows.
    end_early: has the chunk end with the call that is under way.
    """
    global _call_until, _end_chunk
    _call_until, _end_chunk = until, end_early


def leave_chunk() -> None:
    """Store that the calls are made."""
    global _call_until, _end_chunk  # noqa: PLW0603
    _call_until = _end_chunk = None


def forget() -> None:
    """Disconnect the functions: in a process that a task has forked, which must not report for its parent."""
    global _task, _beat, _report, _loop  # noqa: PLW0603
    _task = _beat = _report = _loop = None
    leave_chunk()
