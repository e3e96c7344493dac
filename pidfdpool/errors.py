"""The exceptions that a user of the pool can meet. Imported in the host only.

Every one carries what was observed and nothing that was guessed; causes that are merely likely are worded as
things to look at. All of them survive pickling, because pools can be nested and a worker's own pool may fail.
"""

from __future__ import annotations

import signal
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pidfdpool.pidfd import ExitStatus

_CRASHES_IN_NATIVE_CODE = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}


class PidfdPoolError(Exception):
    """Base of the errors that have no counterpart in the standard library."""


class PoolBroken(BrokenProcessPool):
    """The pool gave up: no task can run in it any more. The cause, where there is one, is `__cause__`."""


class TemplateError(PidfdPoolError):
    """The template process could not be started, or ended before it was ready."""


class InheritedFutureError(BrokenProcessPool):
    """A future that was pending when the host forked: only the parent process can learn its result."""


class PayloadError(PidfdPoolError):
    """A result or an exception arrived but could not be rebuilt from its pickle in the host.

    `__cause__` is what the rebuilding raised; the message holds the remote traceback where there was one.
    """


class WorkerCrashed(BrokenProcessPool):
    """The worker that ran this task died before it wrote a result.

    Only this task is lost; unless the pool was made with on_crash="break" it goes on with a new worker. Each
    future gets an instance of its own.

    Attributes:
        slot: the worker's slot, 0 to max_workers - 1.
        generation: counts the pool's workers; no two ever share it.
        pid: the worker's process id. It is history: by now the number may name another process.
        exit_status: how the process ended, a `pidfdpool.pidfd.ExitStatus`; it may be explicitly unknown.
        task: what was submitted, as "module.qualname".
        task_id: counts the pool's tasks, from 1.
        uptime: seconds from the request for the worker to the notice of its death.
        tasks_done: tasks that this worker had finished before.
    """

    def __init__(
        self,
        *,
        slot: int,
        generation: int,
        pid: int | None,
        exit_status: ExitStatus,
        task: str,
        task_id: int,
        uptime: float,
        tasks_done: int,
    ) -> None:
        self.slot = slot
        self.generation = generation
        self.pid = pid
        self.exit_status = exit_status
        self.task = task
        self.task_id = task_id
        self.uptime = uptime
        self.tasks_done = tasks_done
        tasks = "1 task" if tasks_done == 1 else f"{tasks_done} tasks"
        super().__init__(
            f"worker {slot} (pid {pid}) ended while it ran task {task_id} ({task}): {exit_status}, "
            f"{uptime:.3g} s after its start and with {tasks} finished before. {_advice(exit_status)}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from the fields: BaseException's own way would call the class with the message."""
        return _rebuild, (type(self), dict(self.__dict__))


def _rebuild(kind: type[WorkerCrashed], fields: dict[str, Any]) -> WorkerCrashed:
    known = ("slot", "generation", "pid", "exit_status", "task", "task_id", "uptime", "tasks_done")
    error = kind(**{name: fields[name] for name in known})
    error.__dict__.update(fields)
    return error


def _advice(status: ExitStatus) -> str:
    """Say what to look at next; never what happened, which only the exit status knows."""
    if status.signal == signal.SIGKILL:
        return "If nobody sent the signal, look for the out-of-memory killer in the kernel's log."
    if status.signal in _CRASHES_IN_NATIVE_CODE:
        return "Native code failed: faulthandler has written the Python stack to the worker's standard error."
    if status.signal is not None:
        return "Somebody sent the signal, or the task sent it to itself."
    if status.code is not None:
        return "The task ended its own process: look for os._exit(), or for exit() in native code."
    return "The kernel did not tell how: look at the worker's standard error and the kernel's log."
