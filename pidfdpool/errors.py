"""The exceptions and warnings that a user of the pool can meet. Imported in the host only.

Every error says what was observed, and nothing that was guessed. A cause that is only likely is put as something to
look at. All can be pickled, because pools can be nested: a worker may have a pool that fails.
"""

from __future__ import annotations

import pickle
import signal
from concurrent.futures import BrokenExecutor
from typing import TYPE_CHECKING, Any

from pidfdpool.deaths import Death
from pidfdpool.pidfd import ExitStatus

if TYPE_CHECKING:
    from concurrent.futures.process import BrokenProcessPool
    from concurrent.futures.process import _RemoteTraceback as _RemoteTraceback
else:
    try:
        from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
    except ImportError:  # a system without processes, such as Emscripten

        class BrokenProcessPool(BrokenExecutor):
            """Takes the place of the standard library's class."""

        class _RemoteTraceback(Exception):
            """Takes the place of the standard library's class: the text of a traceback."""

            def __init__(self, text: str) -> None:
                self.tb = text

            def __str__(self) -> str:
                return self.tb


_NATIVE_CODE_FAILED = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT")
_CRASHES_IN_NATIVE_CODE = {each for each in signal.Signals if each.name in _NATIVE_CODE_FAILED}


class PidfdPoolError(Exception):
    """Base class of the errors that the standard library has no class for."""


class PoolBroken(BrokenProcessPool):
    """The pool is broken: no task can run in it any more.

    `__cause__` is the error that broke it, or describes the deaths that did, as that of WorkerCrashed does.

    Attributes:
        deaths: the workers' deaths that broke it, `pidfdpool.Death` each, the last one last.
    """

    deaths: tuple[Death, ...] = ()


class TemplateError(PidfdPoolError):
    """The template process could not be started, or it ended before it was ready."""


class InheritedFutureError(BrokenProcessPool):
    """The future was pending when the host forked: only the parent process gets its result."""


class PayloadError(PidfdPoolError):
    """A result or an exception arrived, but its pickle could not be loaded in the host.

    `__cause__` is the error of loading it. If the task raised an exception, the message has its traceback.
    """


class PayloadTooLarge(PayloadError, MemoryError):
    """A result or an exception did not fit into the host's memory. Only this future fails; the pool goes on."""


class CallNotSendable(PidfdPoolError, pickle.PicklingError, TypeError):
    """A call was not submitted, because its function or an argument cannot be pickled. The future has this error.

    The message names the function, the argument and the part of it, its type, why it cannot be sent, and what helps.
    `__cause__` is what pickling raised.
    """


class _OnlyInherited(CallNotSendable, RuntimeError):
    """The same for a lock or queue of multiprocessing's, for which the standard pool has a RuntimeError."""


class GlobalNotAvailable(NameError, PidfdPoolError):
    """A task used a global of the script that could not be sent to the worker.

    The message names the global, its type, who uses it, why it was not sent, and what helps.
    """


class QueueFull(PidfdPoolError):
    """`max_pending` tasks are pending, and with `block=False` submit does not wait."""


class DeadlineExceeded(TimeoutError, PidfdPoolError):
    """The task was not given to a worker within its `deadline`, and does not run."""


class _TaskEnded(Exception):
    """Base class of the errors of a task whose worker died or was killed.

    Each future has an instance of its own. `__cause__` describes the deaths: pids, exit codes, the stack of a worker
    that the pool ended, its last lines on standard error. It is of the same class as the `__cause__` of an exception
    that a task raised. It is None if no worker died.

    Attributes:
        death: the last death, a `pidfdpool.Death`; None if the worker had not ended when this error was made.
        deaths: the death of every worker that ran this task, the last one last.
        task: the function that was submitted, as "module.qualname". For a call of map that shared a task with others
            also which call it was, with its arguments, cut to 100 characters: "module.qualname, item 41 of map:
            'a.txt'". For many short calls only a range of calls may be known.
        task_id: the number of the task in its pool, from 1.
        attempt: the attempt that failed, 1 for the first.
        slot, generation, pid, exit_status, uptime, tasks_done, peak_rss, stack, stderr: those of `death`; None
            without one.
    """

    death: Death | None
    deaths: tuple[Death, ...]
    task: str
    task_id: int
    attempt: int
    message: str
    chunk: object  # the task's, see `loop.chunk_calls.describe`
    # Of the last death; found by __getattr__.
    slot: int | None
    generation: int | None
    pid: int | None
    exit_status: ExitStatus | None
    uptime: float | None
    tasks_done: int | None
    peak_rss: int | None
    stack: str | None
    stderr: tuple[str, ...] | None

    def __init__(
        self, message: str, *, task: str, task_id: int, attempt: int, deaths: tuple[Death, ...] = ()
    ) -> None:
        self.deaths = deaths
        self.death = deaths[-1] if deaths and deaths[-1].attempt == attempt else None
        self.task = task
        self.task_id = task_id
        self.attempt = attempt
        self.message = message
        super().__init__(message)
        self.__cause__: BaseException | None = cause_of(deaths)

    if not TYPE_CHECKING:  # which then finds fault with attributes that are not declared above

        def __getattr__(self, name: str) -> Any:
            death = self.__dict__.get("death")
            if name in _OF_DEATH:
                return None if death is None else getattr(death, name)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the fields. BaseException's own way would call the class with the message only."""
        fields = {name: value for name, value in self.__dict__.items() if name != "chunk"}
        return _rebuild, (type(self), fields)


_OF_DEATH = frozenset(
    {"slot", "generation", "pid", "exit_status", "uptime", "tasks_done", "peak_rss", "stack", "stderr"}
)


def _rebuild(kind: type[_TaskEnded], fields: dict[str, Any]) -> _TaskEnded:
    error = kind.__new__(kind)
    error.args = (fields["message"],)
    error.__dict__.update(fields)
    error.__cause__ = cause_of(error.deaths)  # which is not pickled
    return error


def cause_of(deaths: tuple[Death, ...]) -> Exception | None:
    """Return the `__cause__` that describes deaths, in the form of the standard library's since 3.15."""
    if not deaths:
        return None
    seen = "\n".join(death.as_seen() for death in deaths)
    return _RemoteTraceback(f"\n'''\n{seen}'''")  # type: ignore[arg-type]


class WorkerCrashed(_TaskEnded, BrokenProcessPool):
    """The worker that ran this task died before it wrote a result.

    Only this task is lost: the pool goes on with a new worker, unless it was made with on_crash="break". `death`
    describes the death. Some of its fields, such as pid, exit_status and uptime, are attributes of the error, too.
    """


class PoisonTask(WorkerCrashed):
    """The task ran more than once, each time its worker died, and it is not retried. `deaths` is the history."""


class MemoryExceeded(WorkerCrashed):
    """The task's worker was killed because its resident memory grew above `hard_memory_per_child`."""


class TaskTimeout(_TaskEnded, TimeoutError, PidfdPoolError):
    """The task ran for longer than its `timeout`, and its worker was killed."""


class HeartbeatLost(_TaskEnded, PidfdPoolError):
    """The task called no heartbeat() for longer than its `heartbeat_timeout`, and its worker was killed."""


class TaskKilled(_TaskEnded, PidfdPoolError):
    """The task was killed by `Future.kill`, or the pool was shut down between two of its attempts."""


class LargeGlobalWarning(UserWarning):
    """A large global of a script or notebook is pickled and sent with each submit of a function that uses it."""


def advice(status: ExitStatus) -> str:
    """Return what to look at next. It never says what happened: that is the exit status."""
    if status.signal == signal.SIGKILL:
        return "If nobody sent the signal, look for the out-of-memory killer in the kernel's log."
    if status.signal in _CRASHES_IN_NATIVE_CODE:
        return "Native code failed: faulthandler has written the Python stack to the worker's standard error."
    if status.signal is not None:
        return "Somebody sent the signal, or the task sent it to itself."
    if status.code is not None:
        return "The task ended its own process: look for os._exit(), or for exit() in native code."
    return "The kernel did not tell how: look at the worker's standard error and the kernel's log."
