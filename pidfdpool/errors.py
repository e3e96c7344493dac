"""The exceptions and warnings that a user of the pool can meet. Imported in the host only.

Every error carries what was observed and nothing that was guessed; causes that are merely likely are worded as
things to look at. All survive pickling, because pools can be nested and a worker's own pool may fail.
"""

from __future__ import annotations

import pickle
import signal
from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from typing import TYPE_CHECKING, Any

from pidfdpool.deaths import Death
from pidfdpool.pidfd import ExitStatus

_CRASHES_IN_NATIVE_CODE = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}


class PidfdPoolError(Exception):
    """Base of the errors that have no counterpart in the standard library."""


class PoolBroken(BrokenProcessPool):
    """The pool gave up: no task can run in it any more.

    `__cause__` is the error that led to it, or tells of the deaths that did, as that of WorkerCrashed does.

    Attributes:
        deaths: the workers' deaths that led to it, `pidfdpool.Death` each, the last one last.
    """

    deaths: tuple[Death, ...] = ()


class TemplateError(PidfdPoolError):
    """The template process could not be started, or ended before it was ready."""


class InheritedFutureError(BrokenProcessPool):
    """A future that was pending when the host forked: only the parent process can learn its result."""


class PayloadError(PidfdPoolError):
    """A result or an exception arrived but could not be rebuilt from its pickle in the host.

    `__cause__` is what the rebuilding raised; the message holds the remote traceback where there was one.
    """


class PayloadTooLarge(PayloadError, MemoryError):
    """A result or an exception did not fit into the host's memory. Only this future lacks it; the pool goes on."""


class CallNotSendable(PidfdPoolError, pickle.PicklingError, TypeError):
    """A call was not submitted, because its function or an argument cannot be pickled. It is the future's exception.

    The message names the function, the argument and the part of it, its type, why it cannot be sent, and what helps.
    `__cause__` is what pickling raised.
    """


class GlobalNotAvailable(NameError, PidfdPoolError):
    """A task used a global of the script that could not be sent to its worker.

    The message names the global, its type, who uses it, why it did not travel, and what helps.
    """


class QueueFull(PidfdPoolError):
    """As many tasks are pending as `max_pending` allows, and `block=False` asked not to wait."""


class DeadlineExceeded(TimeoutError, PidfdPoolError):
    """The task waited for longer than its `deadline` allows, and did not run."""


class _Ended(Exception):
    """What the errors have in common that tell of a task whose worker died or was killed.

    Each future gets an instance of its own. `__cause__` tells what was seen of the deaths: pids, exit codes, the
    stack of a worker that was told to end, what it wrote to standard error. It has the class of the cause of an
    exception that a task raised, and is None if nobody died.

    Attributes:
        death: the last death, a `pidfdpool.Death`; None if the worker had not ended yet when the future was told.
        deaths: every death that this task had a part in, the last one last.
        task: what was submitted, as "module.qualname"; of a call of map that shared a task with others also which
            call it was, and its arguments, cut to 100 characters: "module.qualname, item 41 of map: 'a.txt'". Of many
            short calls it may be known only between which the worker was.
        task_id: counts the pool's tasks, from 1.
        attempt: the attempt that failed, 1 for the first.
        slot, generation, pid, exit_status, uptime, tasks_done, peak_rss, stack, stderr: those of `death`; None
            without one.
    """

    death: Death | None
    deaths: tuple[Death, ...]
    task: str
    task_id: int
    attempt: int
    told: str
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

    def __init__(self, told: str, *, task: str, task_id: int, attempt: int, deaths: tuple[Death, ...] = ()) -> None:
        self.deaths = deaths
        self.death = deaths[-1] if deaths and deaths[-1].attempt == attempt else None
        self.task = task
        self.task_id = task_id
        self.attempt = attempt
        self.told = told
        super().__init__(told)
        self.__cause__ = cause_of(deaths)

    if not TYPE_CHECKING:  # which then finds fault with attributes that are not declared above

        def __getattr__(self, name: str) -> Any:
            death = self.__dict__.get("death")
            if name in _OF_DEATH:
                return None if death is None else getattr(death, name)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from the fields: BaseException's own way would call the class with the message."""
        fields = {name: value for name, value in self.__dict__.items() if name != "chunk"}
        return _rebuild, (type(self), fields)


_OF_DEATH = frozenset(
    {"slot", "generation", "pid", "exit_status", "uptime", "tasks_done", "peak_rss", "stack", "stderr"}
)


def _rebuild(kind: type[_Ended], fields: dict[str, Any]) -> _Ended:
    error = kind.__new__(kind)
    error.args = (fields["told"],)
    error.__dict__.update(fields)
    error.__cause__ = cause_of(error.deaths)  # no pickle holds it
    return error


def cause_of(deaths: tuple[Death, ...]) -> Exception | None:
    """Return what tells of these deaths as the cause of an error, in the way of the standard library since 3.15."""
    if not deaths:
        return None
    seen = "\n".join(death.as_seen() for death in deaths)
    return _RemoteTraceback(f"\n'''\n{seen}'''")  # type: ignore[arg-type]


class WorkerCrashed(_Ended, BrokenProcessPool):
    """The worker that ran this task died before it wrote a result.

    Only this task is lost; unless the pool was made with on_crash="break" it goes on with a new worker. What is known
    of the death is in `death`; its fields pid, exit_status, uptime and others can be read from the error, too.
    """


class PoisonTask(WorkerCrashed):
    """The task was tried more than once, its workers died, and it is not tried again; `deaths` is the history."""


class MemoryExceeded(WorkerCrashed):
    """The task's worker was killed because its resident memory grew over `hard_memory_per_child`."""


class TaskTimeout(_Ended, TimeoutError, PidfdPoolError):
    """The task ran for longer than its `timeout` allows, and was ended."""


class HeartbeatLost(_Ended, PidfdPoolError):
    """The task gave no heartbeat for longer than its `heartbeat_timeout` allows, and was ended."""


class TaskKilled(_Ended, PidfdPoolError):
    """The task was ended by `Future.kill`, or the pool was shut down between two of its attempts."""


class LargeGlobalWarning(UserWarning):
    """A large global of a script or notebook is pickled and sent with each submit of a function that mentions it."""


def advice(status: ExitStatus) -> str:
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
