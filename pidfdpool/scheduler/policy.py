"""What a pool was asked to do, as data. Pure: no clock, no process, no I/O.

One frozen `Policy` belongs to each pool, and a refined copy of it to each task that was submitted with options of
its own. `machine` reads them, nobody writes them. Whatever makes no sense is refused here, when a Policy is made,
with the name and the value of what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pidfdpool import checks, records
from pidfdpool.deaths import Cause
from pidfdpool.errors import HeartbeatLost, MemoryExceeded, TaskTimeout, WorkerCrashed
from pidfdpool.records import dataclass, field
from pidfdpool.typed import TypedDict

OnCrash = Literal["isolate", "break"]
RetryOn = type[BaseException] | tuple[type[BaseException], ...]

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
    """The rules that a pool's decisions follow. Times are seconds, sizes are bytes; None means no limit.

    For each task; `options()` refines them:

    Attributes:
        timeout: a task that has run for so long, waiting not counted, is ended: SIGTERM, `grace`, SIGKILL to the
            worker's process group. Its future gets TaskTimeout, or its result if that was written in time after all.
            Default: None.
        grace: seconds from SIGTERM to SIGKILL, for a timeout and for a lost heartbeat; at least 0.05 s are given, in
            which the worker's Python stack is written. Not longer than `timeout`; a default for all tasks is cut to
            the shorter timeout of one.
            Default: None, which means 1 s, or the timeout if that is shorter.
        deadline: a task that no worker was given within so many seconds of its submission is failed unrun, with
            DeadlineExceeded. Default: None.
        retries: how many more times a task is tried. Default: 0.
        retry_on: the exceptions after which it is, a class or a tuple of them: those of the pool (WorkerCrashed,
            MemoryExceeded, TaskTimeout, HeartbeatLost) and those that tasks raise.
            Default: (WorkerCrashed,), which MemoryExceeded is, too.
        retry_backoff: the pause before the second attempt; it doubles with each. Default: 0.1.
        retry_backoff_limit: the longest such pause. Default: 30.0.
        poison_after: a task under which so many workers died is never tried again, whatever retries are left.
            Default: None, which means that `retries` alone decides.
        priority: waiting tasks of a higher priority go first; within one, first come, first served. Default: 0.
        heartbeat_timeout: a task that neither started nor called `pidfdpool.heartbeat()` for so long is ended as
            by a timeout; its future gets HeartbeatLost. Default: None.
        cancel_kills: whether `Future.cancel()`, and so the cancellation of an asyncio task that awaits it, also stops
            a running task by killing its worker. Default: False.
        kill_descendants: whether processes that the task started, and that left the worker's process group, die with
            the worker. Those in its group do in any case. Default: True.
        block: whether `submit` waits while `max_pending` tasks are pending, or raises QueueFull. Default: True.

    For the pool:

    Attributes:
        max_workers: workers at most, not counting those that are being replaced. No default here.
        on_crash: "isolate": a worker's death fails only the task that ran in it. "break": it breaks the pool, as it
            does in the standard library. Default: "isolate".
        max_tasks_per_child: a worker runs so many tasks and no more; its replacement is started along with the last.
            Default: None.
        max_memory_per_child: a worker whose resident memory is larger after a task is replaced, once the replacement
            is ready. Default: None.
        hard_memory_per_child: a worker whose resident memory grows larger while a task runs is killed; the future
            gets MemoryExceeded. Default: None.
        memory_interval: how often that is looked at. Default: 0.1.
        max_age: a worker is replaced so many seconds after it became ready, once the replacement is. Default: None.
        min_workers: so many workers are kept, from the first submit on. Default: 0.
        idle_timeout: a worker that was idle for so long is ended, down to min_workers. Default: None.
        max_pending: accepted tasks that have not ended, at most; see `block`. Default: None.
        capture_stderr: whether the last lines that a worker wrote to standard error go into the report of its death;
            all of it is passed on to the host's standard error. Default: False.
        segment_memory: bytes of shared memory at most, for large calls and results together. What finds no room goes
            through sockets, which takes several times as long; 0: everything does. Only what is under way at a time
            needs room; what was not used for 5 s is given back, and a result that somebody keeps makes room when it
            is needed. Default: 536870912, which is 512 MiB: enough for 16 MB each way and a dozen workers.
        young_age: a worker that dies unasked before it finished a task, and within so many seconds of being ready (or
            before it was), died young. So does a template that dies before any task was finished. Default: 1.0.
        intensity: more than so many young deaths within `period` break the pool.
            Default: None, which means 5 plus twice max_workers, so that one blow to all of them at once does not; or
            8 in a row, if they come one at a time.
        period: see intensity. If for so many seconds no process could be started, and none is there to go on, the
            pool breaks, too. Default: 30.0.
        backoff: the pause before a refill after the first young death in a row; it doubles with each. Default: 0.05.
        backoff_limit: the longest such pause. Default: 5.0.
        start_timeout: a worker that is not ready so many seconds after its fork, initializer included, is killed.
            Default: None.
        spawn_timeout: a template that has not forked a worker so many seconds after it was asked to, its preload not
            counted, is killed and replaced. Default: 30.0.
        stop_grace: a worker that was told to stop has so many seconds to leave before it is killed. Default: 10.0.
        prefetch: so many seconds of work, at the pace of the tasks before, are sent to a worker ahead of the task
            that it runs; 0: none is. A task that is ahead can be cancelled, overtaken by one of a higher priority,
            and taken back for another worker, as one that waits; tasks with a timeout, deadline, heartbeat_timeout,
            and those of a pool with max_tasks_per_child or a limit of memory, are never sent ahead.
            Default: 0.1.
        spin: a worker that waits for a task looks for it for so many seconds before it sleeps, if its last wait was
            as short, and there are processors to spare; a thread that waits for a result does so for 0.0001 s at
            most, if that has made waits shorter before. 0: neither does. Default: 0.0002.
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
        """Refuse what makes no sense, with its name and value.

        Raises:
            TypeError, ValueError: a value, or two of them together.
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
        ):  # fmt: skip
            self._take(name, checks.integer, least=1, optional=True)
        self._take("intensity", checks.integer, least=0, optional=True)
        for name in ("retries", "min_workers", "segment_memory"):
            self._take(name, checks.integer, least=0)
        self._take("max_workers", checks.integer, least=1, most=MOST_WORKERS)
        self._take("priority", checks.integer)
        for name in ("cancel_kills", "kill_descendants", "block", "capture_stderr"):
            checks.boolean(name, getattr(self, name))
        if self.on_crash not in ("isolate", "break"):
            raise ValueError(f"on_crash must be 'isolate' or 'break', not {checks.short_repr(self.on_crash)}")
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
        """Return this policy with other options for tasks.

        Raises:
            TypeError: there is no such option, or it is one of the whole pool's.
            ValueError, TypeError: a value makes no sense, or not together with the others.
        """
        check_names("options", options, TaskOptions.__annotations__)
        if not options:
            return self
        timeout = checks.to_number(options.get("timeout"))
        if "grace" not in options and self.grace is not None and timeout is not None:
            # Whoever shortens the timeout of a few tasks need not know of the grace that all of them have.
            options = {**options, "grace": min(self.grace, max(0.0, timeout))}
        refined: Policy = records.replace(self, **options)
        return refined

    @property
    def sizes_chunks(self) -> bool:
        """Whether calls of map may share a task unasked: no rule is about the time, number or attempts of tasks."""
        about_tasks = (
            self.timeout, self.deadline, self.heartbeat_timeout, self.max_tasks_per_child, self.max_pending
        )  # fmt: skip
        return not self.retries and all(limit is None for limit in about_tasks)

    @property
    def of_workers(self) -> dict[str, Any]:
        """What workers themselves have to know, as `template.recipe.Recipe` takes it."""
        return {
            "watch_memory": self.max_memory_per_child is not None,
            "capture_stderr": self.capture_stderr,
            "spin": self.spin,
        }

    @property
    def young_deaths_allowed(self) -> int:
        """The number of young deaths within `period` that the pool survives."""
        return self.intensity if self.intensity is not None else 5 + 2 * self.max_workers

    @property
    def young_rounds_allowed(self) -> int | None:
        """The number of pauses for young deaths, with no task finished in between, that the pool survives."""
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
        told = f"got an unexpected keyword argument {name!r} (its value is {checks.short_repr(value)})"
        raise TypeError(f"{of}() {told}; {hint}")


def _tuple(kinds: RetryOn) -> tuple[type[BaseException], ...]:
    return kinds if isinstance(kinds, tuple) else (kinds,)


def _growing(first: float, limit: float, count: int) -> float:
    if count <= 0:
        return 0.0
    # The exponent is capped: a float overflows after a thousand doublings.
    return min(limit, first * 2.0 ** min(count - 1, 60))
