"""The numbers of a report. Pure: a trace -> `Analysis`. Times are in seconds here, sizes in bytes."""

from __future__ import annotations

import math
import signal
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pidfdpool.cli.report import lives as lives_of
from pidfdpool.cli.report.lives import Life, Lives, Split
from pidfdpool.cli.report.trace import OUTCOMES, POOL_TRACK, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pidfdpool.cli.report.trace import Mark, Tasks, Trace

MICROSECOND = 1e-6
MOST_SLOW = 20
# Bounds of the buckets of a histogram, in microseconds: 1, 2, 5, 10, 20, 50, ... up to four months.
BOUNDS = tuple(factor * 10.0**power for power in range(13) for factor in (1, 2, 5))
_DONE = OUTCOMES.index("done")
_AT_ITS_END = 0.05  # seconds: a task that ended in the last of them before a death ran then


@dataclass(slots=True)
class WorkerTime:
    """One track: all workers of a slot. Durations in seconds."""

    name: str
    split: Split
    tasks: int = 0
    starts: int = 0
    deaths: int = 0


@dataclass(frozen=True, slots=True)
class Function:
    """The attempts at tasks of one function. Durations in seconds.

    buckets: how many took BOUNDS[i] or more, and less than BOUNDS[i + 1]; the first has those below, too.
    """

    name: str
    count: int
    calls: int
    failed: int
    total: float
    median: float
    p95: float
    longest: float
    buckets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SlowTask:
    """One of the attempts that took longest. Times in seconds, `begin` since the trace began."""

    function: str
    number: int
    attempt: int
    worker: str
    begin: float
    duration: float
    queued: float
    request: int | None
    result: int | None
    outcome: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Death:
    """One worker's death. `lost`: the tasks that were lost with it. Memory in bytes, None if it was not seen."""

    time: float
    worker: str
    pid: int | None
    text: str
    reason: str
    how: str  # "SIGKILL", "exit code 3", or ""
    expected: bool
    asked: bool  # the pool had sent a signal before
    lost: tuple[str, ...] = ()
    memory_first: float | None = None
    memory_last: float | None = None


@dataclass(frozen=True, slots=True)
class Tail:
    """The time at the end in which one worker ran a task and no other ran any."""

    seconds: float
    share: float  # of the time from the first task's begin to the last one's end
    function: str
    number: int


@dataclass(slots=True)
class Analysis:
    """All numbers of a report.

    tasks: that began. calls: in them. outcomes: of their last attempts. retried: attempts that were not the last.
    unrun: tasks that ended without having run, by outcome.
    """

    duration: float
    tasks: int
    calls: int
    outcomes: dict[str, int]
    retried: int
    unrun: dict[str, int]
    attempts: int
    split: Split
    workers: list[WorkerTime]
    functions: list[Function]
    slowest: list[SlowTask]
    deaths: list[Death]
    starts: int
    recycled: int
    payload: int
    median: float = 0.0
    tail: Tail | None = None
    lives: Lives = field(default_factory=lambda: Lives([], array("d")))

    @property
    def throughput(self) -> float:
        """Calls per second, over the whole trace."""
        return self.calls / self.duration if self.duration > 0 else 0.0


def analyse(trace: Trace) -> Analysis:
    """Compute the numbers of a report."""
    tasks = trace.tasks
    lives = lives_of.arrange(trace)
    workers = _workers(trace, lives.lives)
    whole = Split()
    for worker in workers:
        whole.add(worker.split)
    last = {
        tasks.number[row]: max(tasks.attempt[row], 1) for row in range(len(tasks)) if tasks.attempt[row] > 1
    }  # of tasks with several attempts
    for row in range(len(tasks)):
        if (number := tasks.number[row]) in last:
            last[number] = max(last[number], tasks.attempt[row])
    outcomes = dict.fromkeys(OUTCOMES, 0)
    final = calls = 0
    for row in range(len(tasks)):
        if tasks.attempt[row] >= last.get(tasks.number[row], 0):
            outcomes[OUTCOMES[tasks.outcome[row]]] += 1
            final += 1
            calls += tasks.calls[row]
    durations = sorted(tasks.duration)
    return Analysis(
        duration=trace.end * MICROSECOND,
        tasks=final,
        calls=calls,
        outcomes={name: count for name, count in outcomes.items() if count},
        retried=len(tasks) - final,
        unrun=trace.unrun,
        attempts=len(tasks),
        split=whole,
        workers=workers,
        functions=_functions(trace),
        slowest=_slowest(trace),
        deaths=_deaths(trace, lives.lives),
        starts=sum(life.started for life in lives.lives),
        recycled=sum(mark.kind == "recycle" for mark in trace.marks),
        payload=sum(size for size in tasks.request if size > 0) + sum(size for size in tasks.result if size > 0),
        median=quantile(durations, 0.5) * MICROSECOND if durations else 0.0,
        tail=_tail(trace, lives.lives),
        lives=lives,
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the least value that at least that share of them does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _in_seconds(split: Split) -> Split:
    return Split(*(part * MICROSECOND for part in (split.start, split.wait, split.work, split.idle)))


def _workers(trace: Trace, lives: list[Life]) -> list[WorkerTime]:
    found: dict[int, WorkerTime] = {}
    for life in lives:
        worker = found.setdefault(life.track, WorkerTime(trace.name_of(life.track), Split()))
        worker.split.add(_in_seconds(life.split))
        worker.tasks += len(life.tasks)
        worker.starts += life.started
        worker.deaths += life.death is not None
    return [found[track] for track in sorted(found)]


def _functions(trace: Trace) -> list[Function]:
    tasks = trace.tasks
    durations = [array("d") for _ in trace.functions]
    calls, failed = [0] * len(durations), [0] * len(durations)
    for row, function in enumerate(tasks.function):
        durations[function].append(tasks.duration[row])
        calls[function] += tasks.calls[row]
        failed[function] += tasks.outcome[row] != _DONE
    found = []
    for index, name in enumerate(trace.functions):
        ordered = sorted(durations[index])
        below = [0, *(bisect_left(ordered, bound) for bound in BOUNDS[1:]), len(ordered)]
        found.append(
            Function(
                name=name,
                count=len(ordered),
                calls=calls[index],
                failed=failed[index],
                total=sum(ordered) * MICROSECOND,
                median=quantile(ordered, 0.5) * MICROSECOND,
                p95=quantile(ordered, 0.95) * MICROSECOND,
                longest=ordered[-1] * MICROSECOND,
                buckets=tuple(after - before for before, after in pairwise(below)),
            )
        )
    return sorted(found, key=lambda function: function.total, reverse=True)


def _slowest(trace: Trace) -> list[SlowTask]:
    tasks = trace.tasks
    rows = sorted(range(len(tasks)), key=tasks.duration.__getitem__, reverse=True)[:MOST_SLOW]
    return [
        SlowTask(
            function=trace.functions[tasks.function[row]],
            number=tasks.number[row],
            attempt=tasks.attempt[row],
            worker=trace.name_of(tasks.track[row]),
            begin=tasks.begin[row] * MICROSECOND,
            duration=tasks.duration[row] * MICROSECOND,
            queued=tasks.queued[row] * MICROSECOND,
            request=None if tasks.request[row] == UNKNOWN else tasks.request[row],
            result=None if tasks.result[row] == UNKNOWN else tasks.result[row],
            outcome=OUTCOMES[tasks.outcome[row]],
            error=tasks.errors.get(row, ""),
        )
        for row in rows
    ]


def _deaths(trace: Trace, lives: list[Life]) -> list[Death]:
    functions = {  # of the tasks that were not done; a later attempt has the same one
        trace.tasks.number[row]: trace.functions[trace.tasks.function[row]]
        for row in range(len(trace.tasks))
        if trace.tasks.outcome[row] != _DONE
    }
    kills: dict[int, list[float]] = {}
    for mark in trace.marks:
        if mark.kind == "kill":
            kills.setdefault(mark.track, []).append(mark.time)
    owners = {id(life.death): life for life in lives if life.death is not None}
    found = []
    for mark in trace.marks:
        if mark.kind != "death" or mark.track == POOL_TRACK:
            continue
        pid = mark.args.get("worker_pid")
        own = owners.get(id(mark))
        begin = own.begin if own is not None else 0.0
        asked = kills.get(mark.track, [])
        first, last = _memory(trace, mark, begin)
        found.append(
            Death(
                time=mark.time * MICROSECOND,
                worker=trace.name_of(mark.track),
                pid=pid if isinstance(pid, int) else None,
                text=mark.name,
                reason=str(mark.args.get("reason") or ""),
                how=_how(mark.args),
                expected=mark.args.get("expected") is True,
                asked=bisect_left(asked, begin) < bisect_right(asked, mark.time),
                lost=_lost(trace, mark, own, functions),
                memory_first=first,
                memory_last=last,
            )
        )
    return found


def _how(told: dict[str, Any]) -> str:
    number, code = told.get("signal"), told.get("exit_code")
    if isinstance(number, int) and number:
        try:
            return signal.Signals(number).name
        except ValueError:
            return f"signal {number}"
    if isinstance(number, str) and number:
        return number
    return f"exit code {code}" if isinstance(code, int) else ""


def _lost(trace: Trace, mark: Mark, life: Life | None, functions: dict[int, str]) -> tuple[str, ...]:
    """Return the tasks that a death has cost: those that the mark names, or the one that ended then."""
    told = mark.args.get("tasks")
    numbers = [number for number in told if isinstance(number, int)] if isinstance(told, list) else []
    tasks: Tasks = trace.tasks
    if not numbers and life is not None and life.tasks:
        row = life.tasks[-1]
        if tasks.outcome[row] != _DONE and tasks.end(row) >= mark.time - _AT_ITS_END / MICROSECOND:
            numbers = [tasks.number[row]]
    return tuple(f"{number} ({functions[number]})" if number in functions else str(number) for number in numbers)


def _memory(trace: Trace, mark: Mark, begin: float) -> tuple[float | None, float | None]:
    """Return what memory the worker had first and last, as far as it was sampled."""
    series = trace.memory.get(f"worker {mark.track - 1}")
    if series is None:
        return None, None
    first = bisect_left(series.time, begin)
    last = bisect_left(series.time, mark.time) - 1
    while last >= first and series.value[last] == 0:  # it was gone already
        last -= 1
    return (series.value[first], series.value[last]) if first <= last else (None, None)


def _tail(trace: Trace, lives: list[Life]) -> Tail | None:
    tasks = trace.tasks
    ends = sorted((tasks.end(life.tasks[-1]), life.tasks[-1]) for life in lives if life.tasks)
    tracks = {life.track for life in lives if life.tasks}
    if len(tracks) < 2:
        return None
    end, row = ends[-1]
    others = max(time for time, other in ends if tasks.track[other] != tasks.track[row])
    seconds = (end - max(others, tasks.begin[row])) * MICROSECOND
    span = (end - min(tasks.begin)) * MICROSECOND
    return (
        Tail(seconds, seconds / span, trace.functions[tasks.function[row]], tasks.number[row]) if span > 0 else None
    )
