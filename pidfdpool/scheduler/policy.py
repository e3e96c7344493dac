"""What a pool was asked to do, as data. Pure: no clock, no process, no I/O.

One frozen `Policy` belongs to each pool, and a refined copy of it to each task that was submitted with options of
its own. The parts of the machine read them, and nobody changes them. Values outside of their range, and values that
contradict each other, are refused when a Policy is made, with the name and the value of the option.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from typing import Any, Literal

from pidfdpool import checks, records
from pidfdpool.deaths import Cause
from pidfdpool.errors import HeartbeatLost, MemoryExceeded, TaskTimeout, WorkerCrashed
from pidfdpool.records import dataclass, field
from pidfdpool.typed import TypedDict

OnCrash = Literal["isolate", "break"]
RetryOn = type[BaseException] | tuple[type[BaseException], ...]
ContextVars = bool | Collection[ContextVar[Any]]
ForwardLogs = bool | int | str | Collection[str] | None

_POSITIONAL = ("max_workers", "mp_context", "initializer", "initargs", "preload")  # of the constructor
MOST_WORKERS = 65535  # what a frame's slot can count
STACK_TIME = 0.05  # seconds that a worker gets to write its Python stack; what `grace` is at least


class TaskOptions(TypedDict, total=False):
    """What can be said of single tasks, by `options()`, or of all of them, to the constructor."""

    timeout: float | None
    grace: float | None
    deadline: float | None
    retries: int
    retry_on: RetryOn
    retry_backoff: float
    retry_backoff_limit: float
    poison_after: int | None
    priority: int
    heartbeat_timeout: float | None
    cancel_kills: bool
    kill_descendants: bool
    block: bool
    context_vars: ContextVars


class PoolOptions(TaskOptions, total=False):
    """What else the constructor takes by keyword."""

    on_crash: OnCrash
    max_tasks_per_child: int | None
    max_memory_per_child: int | None
    hard_memory_per_child: int | None
    memory_interval: float
    max_age: float | None
    min_workers: int
    idle_timeout: float | None
    max_pending: int | None
    capture_stderr: bool
    forward_logs: ForwardLogs
    threads_per_worker: int | None
    segment_memory: int
    young_age: float
    intensity: int | None
    period: float
    backoff: float
    backoff_limit: float
    start_timeout: float | None
    spawn_timeout: float
    stop_grace: float
    prefetch: float
    spin: float


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules that a pool's decisions follow. Immutable, so any thread may use it, in a forked process, too.

    Times are in seconds, sizes in bytes; None means no limit, unless the option says what else it means.
    docs/options.md has all of this as a table, with ranges and examples.

    For each task; `options()` refines them:

    Attributes:
        timeout: a task that has run for this long is ended: SIGTERM, `grace`, SIGKILL to the worker's process group.
            Time in the queue does not count. The future gets TaskTimeout, or the result if it was written in time.
            Default: None.
        grace: the time from SIGTERM to SIGKILL, for a timeout and for a lost heartbeat. At least 0.05 s are given, in
            which the worker's Python stack is written. Must not exceed `timeout`; a grace for all tasks is cut to the
            shorter timeout of a refined policy.
            Default: None, which means 1 s, or the timeout if that is shorter.
        deadline: a task that no worker was given within this time after its submission never runs. The future gets
            DeadlineExceeded. Default: None.
        retries: the number of further attempts. Default: 0.
        retry_on: the exceptions after which a task is tried again, a class or a tuple of classes: those of the pool
            (WorkerCrashed, MemoryExceeded, TaskTimeout, HeartbeatLost) and those that tasks raise.
            Default: (WorkerCrashed,), which includes MemoryExceeded.
        retry_backoff: the pause before the second attempt. It doubles with each further attempt. Default: 0.1.
        retry_backoff_limit: the longest such pause. Default: 30.0.
        poison_after: a task under which this many workers have died is not tried again, whatever retries are left.
            Default: None, which means that `retries` alone decides.
        priority: a waiting task of a higher priority is begun first. Tasks of one priority begin in the order of
            their submission. Default: 0.
        heartbeat_timeout: a task that has neither begun nor called `pidfdpool.heartbeat()` for this long is ended as
            by a timeout. The future gets HeartbeatLost. Default: None.
        cancel_kills: whether `Future.cancel()`, and so the cancellation of an asyncio task that awaits it, also stops
            a running task by killing its worker. Default: False.
        kill_descendants: whether processes that the task has started, and that have left the worker's process group,
            are killed when the worker ends. Those in its group always are. Default: True.
        block: whether `submit` waits while `max_pending` tasks are pending. False: it raises QueueFull.
            Default: True.
        context_vars: the context variables whose values travel with a task: those that they have in the code that
            submits, if they are set there. True: all that are set. Default: (), which means none.

    For the pool:

    Attributes:
        max_workers: the number of workers at most. Workers that are being replaced do not count. No default here.
        on_crash: "isolate": a worker's death fails only the task that ran in it. "break": it breaks the pool, as it
            does in the standard library. Default: "isolate".
        max_tasks_per_child: a worker runs this many tasks and no more. Its replacement is started along with the
            last. Default: None.
        max_memory_per_child: a worker whose resident memory is larger after a task is replaced, once the replacement
            is ready. Default: None.
        hard_memory_per_child: a worker whose resident memory grows larger while a task runs is killed. The future
            gets MemoryExceeded. Default: None.
        memory_interval: the time between two measurements for that. Default: 0.1.
        max_age: a worker is replaced this long after it became ready, once the replacement is. Default: None.
        min_workers: the number of workers to keep, from the first submit on. Default: 0.
        idle_timeout: a worker that was idle for this long is ended, down to min_workers. Default: None.
        max_pending: the number of accepted tasks at most that have not ended; see `block`. Default: None.
        capture_stderr: whether the last lines that a worker wrote to standard error are part of the record of its
            death. All of it is passed on to the host's standard error. Default: False.
        forward_logs: whether the host's loggers get the records of workers: True, False, a level (all from it on), or
            names of loggers (these and those below them). docs/logging.md has the details.
            Default: None, which means what no handler of a worker gets, where the host has set up logging; with
            mp_context="fork", where workers have the host's handlers: False.
        threads_per_worker: the number of threads that numerical libraries may use in each worker. The environment
            variables that they read are set in the template before its preload, and so in the workers; the host's
            stay as they are. What was loaded before (in a host that is forked) is limited by threadpoolctl, if that
            is installed. Default: None, which means that the libraries decide.
        segment_memory: the shared memory at most, for large calls and results together. What finds no room goes
            through sockets, which takes several times as long; 0: everything does. Room is needed only for what is
            under way: what was not used for 5 s is given back, and a result that somebody keeps makes room when it is
            needed. Default: 536870912, which is 512 MiB: enough for 16 MB each way and a dozen workers.
        young_age: a worker died young if it died by itself, before it had finished a task, and within this time after
            it became ready (or before it did). A template died young if no task was finished before. Default: 1.0.
        intensity: the number of young deaths within `period` that the pool survives; one more breaks it.
            Default: None, which means 5 plus twice max_workers, so that the death of all workers at once does not
            break it; and at most 7 in a row that come one at a time.
        period: the time for which young deaths are counted. The pool also breaks if no process could be started for
            this long, and none is there to go on. Default: 30.0.
        backoff: the pause before the next start after a young death. It doubles with each in a row. Default: 0.05.
        backoff_limit: the longest such pause. Default: 5.0.
        start_timeout: a worker that is not ready this long after its fork, initializer included, is killed.
            Default: None.
        spawn_timeout: a template that is asked for workers and has forked none for this long is killed and replaced.
            Its preload does not count. Default: 30.0.
        stop_grace: a worker that was told to stop is killed if it has not left after this time. Default: 10.0.
        prefetch: the amount of work, in seconds at the pace of the tasks before, that a worker is sent ahead of the
            task that it runs; 0: none. A task that is ahead can be cancelled, overtaken by one of a higher priority,
            and taken back for another worker. Tasks with a timeout, deadline or heartbeat_timeout are never sent
            ahead, and no task of a pool with max_tasks_per_child or a limit of memory is.
            Default: 0.1.
        spin: the time for which a worker that waits for a task looks for it before it sleeps. It does so only if its
            last wait was as short and there are processors to spare. A thread that waits for a result looks for
            0.0001 s at most, and only if that has made waits shorter before. 0: neither does. Default: 0.0002.
    """

    max_workers: int
    timeout: float | None = None
    grace: float | None = None
    deadline: float | None = None
    retries: int = 0
    retry_on: RetryOn = (WorkerCrashed,)
    retry_backoff: float = 0.1
    retry_backoff_limit: float = 30.0
    poison_after: int | None = None
    priority: int = 0
    heartbeat_timeout: float | None = None
    cancel_kills: bool = False
    kill_descendants: bool = True
    block: bool = True
    context_vars: ContextVars = ()
    on_crash: OnCrash = "isolate"
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    hard_memory_per_child: int | None = None
    memory_interval: float = 0.1
    max_age: float | None = None
    min_workers: int = 0
    idle_timeout: float | None = None
    max_pending: int | None = None
    capture_stderr: bool = False
    forward_logs: ForwardLogs = None
    threads_per_worker: int | None = None
    segment_memory: int = 512 << 20
    young_age: float = 1.0
    intensity: int | None = None
    period: float = 30.0
    backoff: float = 0.05
    backoff_limit: float = 5.0
    start_timeout: float | None = None
    spawn_timeout: float = 30.0
    stop_grace: float = 10.0
    prefetch: float = 0.1
    spin: float = 0.0002
    sends_ahead: bool = field(init=False)  # see `prefetch`

    def __post_init__(self) -> None:
        """Refuse values of a wrong type or outside of their range, with name and value.

        Raises:
            TypeError, ValueError: one value is wrong, or two contradict each other.
        """
        for name in ("timeout", "deadline", "heartbeat_timeout", "max_age", "start_timeout"):
            self._take(name, checks.seconds, optional=True, zero=False)
        for name in ("grace", "idle_timeout"):
            self._take(name, checks.seconds, optional=True)
        for name in ("memory_interval", "period", "spawn_timeout"):
            self._take(name, checks.seconds, zero=False)
        for name in (
            "retry_backoff", "retry_backoff_limit", "young_age", "backoff", "backoff_limit", "stop_grace",
            "prefetch", "spin",
        ):  # fmt: skip
            self._take(name, checks.seconds)
        for name in (
            "poison_after", "max_tasks_per_child", "max_memory_per_child", "hard_memory_per_child", "max_pending",
            "threads_per_worker",
        ):  # fmt: skip
            self._take(name, checks.integer, least=1, optional=True)
        self._take("intensity", checks.integer, least=0, optional=True)
        for name in ("retries", "min_workers", "segment_memory"):
            self._take(name, checks.integer, least=0)
        self._take("max_workers", checks.integer, least=1, most=MOST_WORKERS)
        self._take("priority", checks.integer)
        for name in ("cancel_kills", "kill_descendants", "block", "capture_stderr"):
            checks.boolean(name, getattr(self, name))
        self._take("forward_logs", checks.log_choice)
        self._take("context_vars", checks.context_vars)
        self._take("on_crash", checks.text, known=("isolate", "break"))
        object.__setattr__(self, "retry_on", checks.exceptions("retry_on", self.retry_on))
        checks.not_above("grace", self.grace, "timeout", self.timeout, "a task would get longer to die than to run")
        checks.not_above("min_workers", self.min_workers, "max_workers", self.max_workers)
        checks.not_above(
            "max_memory_per_child",
            self.max_memory_per_child,
            "hard_memory_per_child",
            self.hard_memory_per_child,
            "no worker would live to be replaced for the former",
        )
        checks.not_above("retry_backoff", self.retry_backoff, "retry_backoff_limit", self.retry_backoff_limit)
        checks.not_above("backoff", self.backoff, "backoff_limit", self.backoff_limit)
        each_matters = (
            self.timeout, self.deadline, self.heartbeat_timeout,
            self.max_tasks_per_child, self.max_memory_per_child, self.hard_memory_per_child,
        )  # fmt: skip
        object.__setattr__(self, "sends_ahead", self.prefetch > 0 and all(limit is None for limit in each_matters))

    def _take(self, name: str, check: Callable[..., object], **kind: Any) -> None:
        """Check a field, and keep what the check returns."""
        object.__setattr__(self, name, check(name, getattr(self, name), **kind))

    def refined(self, options: Mapping[str, Any]) -> Policy:
        """Return a copy of this policy with other options for tasks, or this policy if there are none.

        Raises:
            TypeError: there is no such option, or it is one of the whole pool's.
            ValueError, TypeError: a value is wrong, or contradicts another.
        """
        check_names("options", options, TaskOptions.__annotations__)
        if not options:
            return self
        timeout = checks.to_number(options.get("timeout"))
        if "grace" not in options and self.grace is not None and timeout is not None:
            # Who shortens the timeout of some tasks need not know the grace that is meant for all of them.
            options = {**options, "grace": min(self.grace, max(0.0, timeout))}
        refined: Policy = records.replace(self, **options)
        return refined

    @property
    def sizes_chunks(self) -> bool:
        """Whether calls of map may share a task unasked: no rule is about how many tasks are pending."""
        return self.max_pending is None

    @property
    def counts_calls(self) -> bool:
        """Whether each of the calls that share a task has to count for itself, because a rule is about it."""
        about_calls = self.timeout, self.deadline, self.heartbeat_timeout, self.max_tasks_per_child
        return self.retries > 0 or any(limit is not None for limit in about_calls)

    @property
    def of_workers(self) -> dict[str, Any]:
        """What workers themselves have to know, as `template.recipe.Recipe` takes it."""
        return {
            "watch_memory": self.max_memory_per_child is not None,
            "capture_stderr": self.capture_stderr,
            "spin": self.spin,
            "forward_logs": self.forward_logs,
            "threads": self.threads_per_worker,
            "pool_size": self.max_workers,
        }

    @property
    def young_deaths_allowed(self) -> int:
        """The number of young deaths within `period` that the pool survives."""
        return self.intensity if self.intensity is not None else 5 + 2 * self.max_workers

    @property
    def young_rounds_allowed(self) -> int | None:
        """The number of pauses for young deaths that the pool survives, if no task finishes in between; None: any."""
        return 7 if self.intensity is None else None

    @property
    def time_to_die(self) -> float:
        """The seconds between SIGTERM and SIGKILL."""
        if self.grace is not None:
            return max(STACK_TIME, self.grace)
        return 1.0 if self.timeout is None else max(STACK_TIME, min(1.0, self.timeout))

    @property
    def retries_errors(self) -> bool:
        """Whether an exception that a task raised may lead to another attempt."""
        return self.retries > 0 and any(not issubclass(kind, _OF_THE_POOL) for kind in _tuple(self.retry_on))

    def retries_after(self, cause: Cause) -> bool:
        """Return whether the death of a worker for this cause may lead to another attempt."""
        kind = _ERROR_OF.get(cause)
        # By identity: whether it is a subclass would be for a metaclass of the user's to say.
        return kind is not None and any(base is wanted for base in kind.__mro__ for wanted in _tuple(self.retry_on))

    def retries_lost(self, error: BaseException) -> bool:
        """Return whether there may be another attempt after a first one that was lost with this error of the pool."""
        poison = self.poison_after is not None and self.poison_after <= 1
        cause = next((cause for cause, kind in _ERROR_OF.items() if kind is type(error)), None)
        return self.retries > 0 and not poison and cause is not None and self.retries_after(cause)

    def pause(self, streak: int) -> float:
        """Return the seconds to wait after the streak-th young death in a row; 0.0 for none."""
        return _growing(self.backoff, self.backoff_limit, streak)

    def retry_pause(self, attempt: int) -> float:
        """Return the seconds to wait after the attempt of this number failed."""
        return _growing(self.retry_backoff, self.retry_backoff_limit, attempt)


_OF_THE_POOL = (WorkerCrashed, TaskTimeout, HeartbeatLost)

_ERROR_OF: dict[Cause, type[Exception]] = {
    Cause.CRASH: WorkerCrashed,
    Cause.MEMORY: MemoryExceeded,
    Cause.TIMEOUT: TaskTimeout,
    Cause.HEARTBEAT: HeartbeatLost,
}


def check_names(of: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raise TypeError for an option that does not exist, naming it, its value and what may have been meant."""
    for name, value in given.items():
        if name in known:
            continue
        from pidfdpool.scheduler import suggestions

        of_pool = [*_POSITIONAL, *PoolOptions.__annotations__]
        here = known if known is TaskOptions.__annotations__ else of_pool
        if name in of_pool:
            hint = "it is one of the whole pool, for the constructor"
        elif not suggestions.suggestions(name, here) and (likely := suggestions.suggestions(name, of_pool)):
            hint = f"{likely[0]!r} is one of the whole pool, for the constructor"
        else:
            hint = suggestions.hint(name, here)
        problem = f"got an unexpected keyword argument {name!r} (its value is {checks.short_repr(value)})"
        raise TypeError(f"{of}() {problem}; {hint}")


def _tuple(kinds: RetryOn) -> tuple[type[BaseException], ...]:
    return kinds if isinstance(kinds, tuple) else (kinds,)


def _growing(first: float, limit: float, count: int) -> float:
    if count <= 0:
        return 0.0
    # The exponent is capped: a float overflows after a thousand doublings.
    return min(limit, first * 2.0 ** min(count - 1, 60))
