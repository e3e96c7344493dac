"""What an observer of a pool is told: attempts of tasks that have ended, and what happened to workers and template.

Made in the host, by `loop.observation`, while somebody observes the pool; nothing is made otherwise. Plain data: no
record holds a task, a future, an argument or a result.

All times are seconds of `time.monotonic()`, which host and workers share. When a task began and ended is what its
worker has measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import TypeAlias, TypeVar, overload

from pidfdpool.deaths import Death
from pidfdpool.records import dataclass
from pidfdpool.typed import Protocol

# Outcomes of an attempt.
T = TypeVar("T")

DONE, FAILED, CANCELLED = "done", "failed", "cancelled"
KILLED, TIMED_OUT, CRASHED = "killed", "timed out", "crashed"


class Same(Sequence[T]):
    """A column in which every item is the same. It takes no memory for them."""

    __slots__ = ("_count", "_value")

    def __init__(self, value: T, count: int) -> None:
        self._value, self._count = value, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Same[T]: ...
    def __getitem__(self, index: int | slice) -> T | Same[T]:
        if isinstance(index, slice):
            return Same(self._value, len(range(*index.indices(self._count))))
        if not -self._count <= index < self._count:
            raise IndexError(index)
        return self._value

    def __iter__(self) -> Iterator[T]:
        return repeat(self._value, self._count)

    def count(self, value: object) -> int:
        """Return how many items are equal to this one."""
        return self._count if value == self._value else 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._value!r}, {self._count})"


@dataclass(slots=True, eq=False)
class Attempts:
    """Attempts that have ended: of one worker and in the order in which it made them, or a single one.

    Every sequence has one item for each attempt. Most have several, because answers are read several at a time. They
    are sequences of several types, and some convert an item each time that it is read.

    Attributes:
        worker: slot, generation and pid; None: it was given to no worker.
        tasks: the numbers of the tasks, from 1.
        functions: their functions, as "module.qualname".
        calls: how many calls of a map the task makes; 1: it is one call.
        attempt: which attempt the first one is, from 1; of all others it is the first. 0: none has begun.
        queued_at: when the task was submitted, or the attempt before this one had ended. NaN: it was submitted before
            the pool was observed.
        began_at, ended_at: when the worker began and ended it; NaN: it is not known, or it never began. If it was
            lost, what the host knows: when the worker was to begin it, and when the loss was noticed. Code of a task
            can falsify the times of its worker, so they may be impossible.
        request_bytes, result_bytes: sizes of the pickled call and of the pickled result or exception; -1: not known,
            as of most tasks that were under way when the first observer came. Code of a task can falsify these, too.
        outcomes: "done"; "failed": an exception; "cancelled": in time; "killed": by `Future.kill`, for its memory, or
            with all workers, or because the pool was shut down between two attempts; "timed out": by timeout,
            heartbeat or deadline; "crashed": lost with its worker.
        errors: a line of text if the outcome is not "done", otherwise None.
        taken_at: when the host took the outcomes, to a millisecond: the last of them.
        retried: the task is tried again; only of single attempts.
        death: of its worker, if the attempt was lost with it and that is known.
    """

    worker: tuple[int, int, int | None] | None
    tasks: Sequence[int]
    functions: Sequence[str]
    calls: Sequence[int]
    attempt: int
    queued_at: Sequence[float]
    began_at: Sequence[float]
    ended_at: Sequence[float]
    request_bytes: Sequence[int]
    result_bytes: Sequence[int]
    outcomes: Sequence[str]
    errors: Sequence[str | None]
    taken_at: float
    retried: bool = False
    death: Death | None = None


@dataclass(slots=True, eq=False)
class TaskRetry:
    """A task is to be tried again. The `Attempts` with the attempt before comes first.

    Attributes:
        at: when that was decided.
        task, function: which task.
        attempt: the number of the next attempt.
        pause: seconds until it may begin.
        why: the outcome of the attempt before.
    """

    at: float
    task: int
    function: str
    attempt: int
    pause: float
    why: str


@dataclass(slots=True, eq=False)
class WorkerChange:
    """Something happened to a worker.

    Attributes:
        at: when.
        slot, generation, pid: which worker; the pid is None until it is forked.
        kind: "requested", "forked", "ready", "not started", "told to leave", "signalled" or "ended".
        detail: for people: why it is told to leave, which signal it is sent and why, why it was not started.
        death: the record, if it has ended.
    """

    at: float
    slot: int
    generation: int
    pid: int | None
    kind: str
    detail: str = ""
    death: Death | None = None


@dataclass(slots=True, eq=False)
class TemplateChange:
    """Something happened to the template.

    Attributes:
        at: when.
        kind: "wanted", "up" (it takes requests), "loaded" (its preload is done), "killed", "lost" or "unusable".
        detail: for people.
    """

    at: float
    kind: str
    detail: str = ""


@dataclass(slots=True, eq=False)
class PoolLevel:
    """How much the pool had to do at one moment. Noted when that may have changed, every 10 ms at most.

    Attributes:
        at: when.
        queued: tasks that wait for a worker, including those that are ahead of one.
        busy: workers that run a task.
    """

    at: float
    queued: int
    busy: int


Record: TypeAlias = Attempts | TaskRetry | WorkerChange | TemplateChange | PoolLevel


class Observer(Protocol):
    """Who is told what happens in a pool, by `PidfdPoolExecutor.observe`.

    Nothing of it is called while a lock of the pool's is held. `take` and `work` are called in the pool thread, or in
    another thread that reads answers or calls `stats`, but never twice at a time. What they raise is logged, and ends
    the observation. They should be quick: results wait for them.
    """

    def take(self, records: Sequence[Record]) -> None:
        """Take what has happened, in the order in which the host came to know of it.

        records: each is an `Attempts`, a `TaskRetry`, a `WorkerChange`, a `TemplateChange` or a `PoolLevel`. Others
            may be added, so skip what is not known.
        """

    def work(self, now: float, *, idle: bool) -> float | None:
        """Do a slice of one's own work before the pool thread sleeps; return when to be called again at the latest.

        now: time.monotonic(). idle: the pool has no task. The answer is on the same clock; None: when something
        happens.
        """

    def pool_ended(self) -> None:
        """Take note that the pool has ended: everything was told."""

    def follows_into_forked_child(self) -> bool:
        """In a process that was forked: forget what was taken, and return whether to observe its own pool there.

        Other threads of the parent may have been in the middle of `take` or `work`.
        """
