"""What each worker did with its time. Pure: a trace -> lives of workers, in microseconds as there.

A life is that of one process: it begins at the request for it, and ends at its death, or at the trace's end. A part
of it is one of these:

    start  until it was ready
    work   a task runs
    wait   nothing runs, although tasks waited in the queue, or the task that ran next had been submitted already:
           the worker waited for the host, or it and the host handed a task over
    idle   nothing runs, and there was nothing to run
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pidfdpool.cli.report.trace import Mark, Trace


@dataclass(slots=True)
class Split:
    """How long something took, by its parts."""

    start: float = 0.0
    wait: float = 0.0
    work: float = 0.0
    idle: float = 0.0

    @property
    def total(self) -> float:
        """The sum of the parts."""
        return self.start + self.wait + self.work + self.idle

    def add(self, other: Split) -> None:
        """Add the parts of another one."""
        self.start += other.start
        self.wait += other.wait
        self.work += other.work
        self.idle += other.idle

    def share(self, part: str) -> float:
        """Return a part as a share of the total, from 0 to 1; 0 of nothing."""
        return float(getattr(self, part)) / self.total if self.total > 0 else 0.0


@dataclass(slots=True)
class Life:
    """One worker process. tasks: rows of the trace's tasks, in the order of time. death: its mark in the trace."""

    track: int
    pid: int
    generation: int
    begin: float
    ready: float
    end: float
    started: bool  # its start is in the trace
    death: Mark | None = None
    tasks: array[int] = field(default_factory=lambda: array("L"))
    split: Split = field(default_factory=Split)


@dataclass(slots=True)
class Lives:
    """All lives, by track and time. waits: of each row of the trace's tasks, the wait directly before it."""

    lives: list[Life]
    waits: array[float]


def arrange(trace: Trace) -> Lives:
    """Find the lives in a trace, and split the time of each."""
    lives = _begun(trace)
    _end(lives, trace)
    _give_tasks(lives, trace)
    every = sorted((life for group in lives.values() for life in group), key=lambda life: (life.track, life.begin))
    waits = array("d", bytes(8 * len(trace.tasks)))
    queued = _Queued(trace)
    for life in every:
        _divide(life, trace, queued, waits)
    return Lives(every, waits)


_Key = tuple[int, int]  # track, pid


def _begun(trace: Trace) -> dict[_Key, list[Life]]:
    """Return a life for each start, and for each worker that was there before the trace began."""
    lives: dict[_Key, list[Life]] = {}
    for start in trace.starts:
        if start.name == "start":
            ready = start.begin + start.duration
            life = Life(start.track, start.pid, start.generation, start.begin, ready, trace.end, started=True)
            lives.setdefault((start.track, start.pid), []).append(life)
    for key in zip(trace.tasks.track, trace.tasks.pid, strict=True):
        if key not in lives:
            lives[key] = [_earlier(key, trace)]
    tracks = {track for track, _ in lives}
    for track in sorted(set(trace.idles.track) - tracks):  # it was there, and ran nothing
        lives[track, 0] = [_earlier((track, 0), trace)]
    return lives


def _earlier(key: _Key, trace: Trace) -> Life:
    return Life(key[0], key[1], 0, 0.0, 0.0, trace.end, started=False)


def _end(lives: dict[_Key, list[Life]], trace: Trace) -> None:
    by_track: dict[int, list[Life]] = {}
    for (track, _), group in lives.items():
        by_track.setdefault(track, []).extend(group)
    for mark in trace.marks:
        if mark.kind != "death":
            continue
        pid = mark.args.get("worker_pid")
        group = lives.get((mark.track, pid), []) if isinstance(pid, int) else by_track.get(mark.track, [])
        living = [life for life in group if life.death is None and life.begin <= mark.time]
        if living:
            living[0].end = max(mark.time, living[0].begin)
            living[0].ready = min(living[0].ready, living[0].end)
            living[0].death = mark
    for group in by_track.values():
        group.sort(key=lambda life: life.begin)
        for life, following in pairwise(group):
            if life.death is None:  # the trace lost its death
                life.end = max(life.ready, following.begin)


def _give_tasks(lives: dict[_Key, list[Life]], trace: Trace) -> None:
    tasks = trace.tasks
    for row in sorted(range(len(tasks)), key=tasks.begin.__getitem__):
        group = lives[tasks.track[row], tasks.pid[row]]
        life = group[0]
        for later in group[1:]:  # a number that was given to two processes
            if later.begin <= tasks.begin[row]:
                life = later
        life.tasks.append(row)
    for group in lives.values():
        for life in group:
            if life.tasks:
                life.end = max(life.end, tasks.end(life.tasks[-1]))


class _Queued:
    """When workers ran nothing although tasks were queued, as the trace says."""

    def __init__(self, trace: Trace) -> None:
        idles = trace.idles
        self._gaps: dict[int, list[tuple[float, float]]] = {}
        for track, begin, duration, queued in zip(
            idles.track, idles.begin, idles.duration, idles.queued, strict=True
        ):
            if queued:
                self._gaps.setdefault(track, []).append((begin, begin + duration))
        for gaps in self._gaps.values():
            gaps.sort()

    def within(self, track: int, begin: float, end: float) -> float:
        """Return for how long that was so between two times."""
        gaps = self._gaps.get(track)
        if not gaps:
            return 0.0
        total = 0.0
        at = max(0, bisect_left(gaps, (begin,)) - 1)
        while at < len(gaps) and gaps[at][0] < end:
            total += max(0.0, min(end, gaps[at][1]) - max(begin, gaps[at][0]))
            at += 1
        return total


def _divide(life: Life, trace: Trace, queued: _Queued, waits: array[float]) -> None:
    """Split the time of a life, and note the wait before each task."""
    tasks, split = trace.tasks, life.split
    split.start = life.ready - life.begin
    at = life.ready
    for row in life.tasks:
        begin, end = tasks.begin[row], tasks.end(row)
        if begin > at:
            wait = queued.within(life.track, at, begin)
            if tasks.attempt[row] == 1:  # a later one may have paused
                wait = max(wait, begin - max(at, begin - tasks.queued[row]))
            split.wait += wait
            split.idle += begin - at - wait
            waits[row] = wait
        split.work += max(0.0, end - max(at, begin))
        at = max(at, end)
    if life.end > at:
        wait = queued.within(life.track, at, life.end)
        split.wait += wait
        split.idle += life.end - at - wait
