"""A trace, as data. Pure: `reading` fills it in, `analysis` and `page` read it.

Times and durations are in microseconds since the trace began. A track is a number: 0 is the pool, a worker's is its
slot + 1. What there may be a million of is in columns, arrays of one length, and not in objects.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

POOL_TRACK = 0
OUTCOMES = ("done", "failed", "cancelled", "killed", "timed out", "crashed")  # a column has the index
UNKNOWN = -1  # a size that the trace does not tell


@dataclass(slots=True)
class Tasks:
    """One row for each attempt at a task that began.

    function: index into `Trace.functions`. calls: how many calls the task had, 1 if it was no chunk. queued: time
    from the submission until it began. request, result: bytes, or UNKNOWN. pid: that of the worker, 0 if unknown.
    """

    track: array[int] = field(default_factory=lambda: array("L"))
    pid: array[int] = field(default_factory=lambda: array("L"))
    begin: array[float] = field(default_factory=lambda: array("d"))
    duration: array[float] = field(default_factory=lambda: array("d"))
    queued: array[float] = field(default_factory=lambda: array("d"))
    function: array[int] = field(default_factory=lambda: array("L"))
    number: array[int] = field(default_factory=lambda: array("Q"))
    attempt: array[int] = field(default_factory=lambda: array("L"))
    calls: array[int] = field(default_factory=lambda: array("L"))
    request: array[int] = field(default_factory=lambda: array("q"))
    result: array[int] = field(default_factory=lambda: array("q"))
    outcome: array[int] = field(default_factory=lambda: array("B"))
    errors: dict[int, str] = field(default_factory=dict)  # row -> the error, where there is one

    def __len__(self) -> int:
        return len(self.begin)

    def end(self, row: int) -> float:
        """Return when that attempt ended."""
        return self.begin[row] + self.duration[row]


@dataclass(slots=True)
class Idles:
    """One row for each gap in which a worker ran nothing. queued: how many tasks waited when it began."""

    track: array[int] = field(default_factory=lambda: array("L"))
    begin: array[float] = field(default_factory=lambda: array("d"))
    duration: array[float] = field(default_factory=lambda: array("d"))
    queued: array[int] = field(default_factory=lambda: array("L"))


@dataclass(frozen=True, slots=True)
class Start:
    """The start of a worker, from the request until it was ready; or a part of it: "preload", "initializer"."""

    track: int
    begin: float
    duration: float
    name: str = "start"
    pid: int = 0
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at one time: a death, kill, retry, recycling, or news of the template."""

    kind: str
    track: int
    time: float
    name: str
    args: dict[str, Any]


@dataclass(slots=True)
class Series:
    """What a counter showed, and when, in the order of time."""

    time: array[float] = field(default_factory=lambda: array("d"))
    value: array[float] = field(default_factory=lambda: array("d"))


@dataclass(slots=True)
class Trace:
    """All that a trace file tells.

    is_of_swarm: its workers are nodes, and its tasks their processes while they were healthy. complete: whether the
    file has its end. dropped: events that were not kept, because there were too many.
    started: unix seconds. end: the time of the last event's end. unrun: how many tasks ended without having run, by
    outcome. counters: by their names; the memory of workers is under "memory", and there by the names of the series,
    such as "worker 3".
    """

    pool: str = "pidfdpool"
    is_of_swarm: bool = False
    version: str = "?"
    python: str = "?"
    started: float | None = None
    max_workers: int | None = None
    start_method: str = "?"
    complete: bool = False
    dropped: int = 0
    end: float = 0.0
    unrun: dict[str, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)  # track -> name
    functions: list[str] = field(default_factory=list)
    tasks: Tasks = field(default_factory=Tasks)
    idles: Idles = field(default_factory=Idles)
    starts: list[Start] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    queue: Series = field(default_factory=Series)
    busy: Series = field(default_factory=Series)
    memory: dict[str, Series] = field(default_factory=dict)

    def name_of(self, track: int) -> str:
        """Return the name of a track."""
        return self.names.get(track) or ("pool" if track == POOL_TRACK else f"worker {track - 1}")
