"""What the futures are told. Everything here that runs code of the user's runs without the pool's lock."""

from __future__ import annotations

import os
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from pidfdpool.deaths import Cause, Death, history
from pidfdpool.errors import (
    DeadlineExceeded,
    HeartbeatLost,
    InheritedFutureError,
    MemoryExceeded,
    PayloadError,
    PayloadTooLarge,
    PoisonTask,
    QueueFull,
    TaskKilled,
    TaskTimeout,
    WorkerCrashed,
    advice,
)
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.process import describe
from pidfdpool.serialization import kept_definitions, payload
from pidfdpool.transport import framing
from pidfdpool.typed import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from pidfdpool.loop.pool import Pool
    from pidfdpool.scheduler.policy import Policy
    from pidfdpool.transport.framing import Buffer, Frame

    WorkerName: TypeAlias = tuple[int, int, int | None]  # slot, generation, pid
    # What a future is to be told: what a worker wrote, an error of the pool's own, or None: that it was cancelled.
    Verdict: TypeAlias = "Frame | Outcome | BaseException | None"


class Recipient(Protocol):
    """Who is told the outcome of a task: a future, or what stands for one. Told once; never with the pool's lock."""

    def _attach(self, pool: Pool, number: int, cancel_kills: bool, /) -> None:
        """Take note of the task; with the lock."""

    def _is_wanted(self) -> bool:
        """Return whether anybody still waits for the outcome; with the lock."""

    def _begin(self) -> bool:
        """Return whether the task is still wanted, now that a worker is to have it; with the lock."""

    def _note_attempt(self, worker: WorkerName, attempt: int, at: float, /) -> None:
        """Take note of the worker, and of when it was given the task (time.time()); with the lock."""

    def _has_callbacks(self) -> bool:
        """Return whether telling it calls something of the user's; without the lock."""

    def _mark_cancelled(self) -> bool:
        """Take note that the task is cancelled, if it waits, but tell nobody yet; with the lock."""

    def _resolve(self, result: Any, error: BaseException | None, /) -> None:
        """Take the outcome."""

    def _resolve_cancelled(self) -> None:
        """Take note that the task was cancelled and does not run."""

    def _fail_in_forked_child(self, error: BaseException, /) -> None:
        """Take note that the task is another process's."""


class Task:
    """What the host keeps of an accepted task until its future is told.

    `verdict` is what it is to be told: set when the task is decided about, and told without the pool's lock.
    """

    __slots__ = (
        "attempt", "begun", "buffers", "deaths", "definitions", "flags", "future", "held", "needs_script", "number",
        "policy", "verdict", "what",
    )  # fmt: skip

    verdict: Verdict

    def __init__(
        self,
        number: int,
        future: Recipient,
        buffers: list[Buffer],
        what: object,
        policy: Policy,
        held: object = None,
    ) -> None:
        # Only to a worker that has what running the host's script again makes.
        self.needs_script = payload.needs_script(buffers) or (type(what) is Chunk and what.of_script)
        self.flags = framing.NEEDS_SCRIPT if self.needs_script else 0
        if not policy.kill_descendants:
            self.flags |= framing.SPARE_DESCENDANTS
        self.number = number
        self.future = future
        self.buffers = buffers
        self.what = what  # the function, or its name; or which calls of a map
        self.policy = policy
        self.held = held  # what lives for as long as the task; see `held_arguments`
        self.definitions = kept_definitions.definitions_for_task() if kept_definitions.large else None  # the same
        self.begun = False
        self.attempt = 0
        self.deaths: tuple[Death, ...] = ()

    @property
    def name(self) -> str:
        """The name of the function that it calls."""
        return self.what if type(self.what) is str else name_of(self.what)

    @property
    def label(self) -> str:
        """What to call the task in messages."""
        return self.what.label if type(self.what) is Chunk else self.name

    @property
    def heavy(self) -> bool:
        """Whether its call is large: it lies in a segment, or is to."""
        return type(self.buffers) is not list

    def frame(
        self, attempt: int, deadline: float | None, flags: int = 0, buffers: list[Buffer] | None = None
    ) -> list[Buffer]:
        """Return the frame that hands this attempt to a worker. buffers: what to send in the place of the call."""
        if buffers is None:
            buffers = self.buffers
        if attempt > framing.MOST_ATTEMPTS:
            attempt = framing.MOST_ATTEMPTS
        if deadline is not None:
            flags |= framing.HAS_DEADLINE
            buffers = [*buffers, framing.DEADLINE.pack(deadline)]
        return framing.encode(framing.TASK, flags | self.flags, attempt, self.number, buffers)


def kept(function: object) -> object:
    """Return what a task keeps of a function, to be named by: itself, or its name if it may be something large."""
    kind = type(function)
    if kind is FunctionType or kind is Chunk:
        return function
    # A method of a list is of this type, too, and holds the list.
    if kind is BuiltinFunctionType and type(function.__self__) is ModuleType:  # type: ignore[attr-defined]
        return function
    return name_of(function)


def unfolded(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """Return what is sent of a call: of a chunk the plain function that makes it, and nothing of the host's."""
    return (fn.call, fn.bound + args, kwargs) if type(fn) is Chunk else (fn, args, kwargs)


def name_of(function: object) -> str:
    """Return what to call a task that calls this function."""
    return function.name if type(function) is Chunk else describe.name_of(function)


class Outcome:
    """What a worker wrote of a task. `error` is there already if it had to be looked at, to decide on a retry."""

    __slots__ = ("buffers", "error", "kind")

    def __init__(self, frame: Frame) -> None:
        self.kind = frame.kind
        self.buffers, frame.buffers = frame.buffers, []  # its own: those in a segment are let go of when it is read
        self.error: BaseException | None = None

    def matches(self, policy: Policy) -> bool:
        """Return whether it is an exception after which the task is to be tried again. Rebuilds the exception."""
        if self.kind != framing.ERROR or not policy.retries_errors:
            return False
        self.error = told_error(self.buffers)
        try:
            return isinstance(self.error, policy.retry_on)
        except BaseException:  # raised by one of the classes: what it is no instance of nobody can tell
            return False


def told(verdict: Frame | Outcome) -> tuple[Any, BaseException | None]:
    """Return the result or the error that a worker wrote, and let go of its buffers before that is told."""
    buffers, verdict.buffers = verdict.buffers, []
    if verdict.kind == framing.ERROR:
        known = verdict.error if type(verdict) is Outcome else None
        return None, told_error(buffers) if known is None else known
    try:
        return payload.load_result(buffers), None
    except BaseException as failure:
        return None, _not_made(buffers, failure)


def _not_made(buffers: Sequence[Buffer], failure: BaseException) -> PayloadError:
    """Return the error of a result that cannot be had here. failure: what its rebuilding has raised."""
    if type(buffers) is framing.Lost:
        return _too_large("result", "receive", buffers.size)
    if issubclass(type(failure), MemoryError):
        return _too_large("result", "rebuild", sum(map(len, buffers)))
    return unreadable(failure)


def unreadable(failure: BaseException) -> PayloadError:
    """Return the error of a result whose rebuilding raised this."""
    kind = PayloadTooLarge if issubclass(type(failure), MemoryError) else PayloadError
    error = kind(f"the result cannot be unpickled in the host: {describe.said(failure)}")
    error.__cause__ = failure
    return error


def rebuilt(buffers: Sequence[Buffer]) -> Any:
    """Return the result that a worker wrote.

    Raises:
        PayloadError: it cannot be rebuilt here, or there is not enough memory.
    """
    try:
        return payload.load_result(buffers)
    except BaseException as failure:
        error = _not_made(buffers, failure)
    raise error


def told_error(buffers: list[Buffer]) -> BaseException:
    """Return the exception that a worker or the template wrote, or one that says why it cannot be had."""
    if type(buffers) is framing.Lost:
        return _too_large("exception", "receive", buffers.size)
    try:
        return payload.load_error(buffers)
    except MemoryError:
        return _too_large("exception", "rebuild", sum(map(len, buffers)))


def _too_large(what: str, to_do: str, size: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"the host (pid {os.getpid()}) has not enough memory to {to_do} the {what} of this task, which came in "
        f"{size / 1e6:.3g} MB. The worker goes on. Return less, return it in parts, or write it to a file."
    )


def expired(task: Task) -> DeadlineExceeded:
    """Return the error of a task that waited for too long."""
    return DeadlineExceeded(
        f"task {task.number} ({task.label}) was given to no worker within its deadline of {task.policy.deadline:g} s "
        "and did not run. Use more workers, a longer deadline, or a higher priority."
    )


def failed(task: Task, cause: Cause) -> Exception:
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
    if type(task.what) is Chunk:
        error.chunk = task.what
    return error


def refused(pending: int, most: int) -> QueueFull:
    """Return the error of a task that was not accepted."""
    return QueueFull(
        f"{pending} tasks are pending and max_pending is {most}: wait for results, or let submit wait with block=True"
    )


def inherited() -> InheritedFutureError:
    """Return the error of a copied future, whose task another process goes on with."""
    return InheritedFutureError(
        "this future was pending when its process was forked: the task runs on for the parent process, and only "
        "there its result will arrive. Submit again in the child, whose executor has workers of its own."
    )
