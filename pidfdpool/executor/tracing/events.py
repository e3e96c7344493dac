"""Turns what an observer of a pool is told into trace events. Pure: no clock, no file, no process.

Used by one thread at a time. An event is one line of JSON without the comma and the line break between events. Times
in the file are microseconds since the trace began; the track of a worker is its slot + 1, and 0 is that of the pool.
docs/tracing.md describes the events.
"""

from __future__ import annotations

import json
import math
from collections import deque
from typing import TYPE_CHECKING, Any

from pidfdpool.deaths import Cause
from pidfdpool.executor.tracing.lines import EventLines
from pidfdpool.loop.observed import Attempts, PoolLevel, TaskRetry, TemplateChange, WorkerChange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pidfdpool.loop.observed import Record

LINES_OF_ATTEMPT = 6  # at most, without what is said of the time before it
SHORTEST_GAP = 100e-6  # seconds between two tasks that are told as idle time
_ENDED_KEPT = 64
# Why a worker is told to leave that is no replacement.
_NO_RECYCLING = (Cause.SHUTDOWN.value, Cause.BROKEN.value, Cause.RESIZE.value, "")


class _Track:
    """What is known of a worker: enough to tell gaps, and not to let tasks overlap."""

    __slots__ = ("forked_at", "free_since", "generation", "pid", "requested_at")

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.pid: int | None = None
        self.requested_at: float | None = None
        self.forked_at: float | None = None
        self.free_since: float | None = None  # since when it has nothing to run, as far as is known


class TraceEvents:
    """The events of one trace."""

    def __init__(self, began_at: float, pid: int, *, initializes: bool = False, preloads: bool = False) -> None:
        """Begin a trace.

        began_at: when, on the clock of the records.
        pid: the host's.
        initializes, preloads: the pool has an initializer, or something to preload.
        """
        self._began_at, self._pid = began_at, pid
        self._lines = EventLines(began_at, pid)
        self._event = self._lines.event
        self._initializes, self._preloads = initializes, preloads
        self._tracks: dict[int, _Track] = {}  # by the worker's generation
        self._ended: deque[int] = deque()  # generations of ended workers, of which more may be told
        self._ended_at: dict[int, float] = {}  # by slot: when its last worker ended
        self._named: set[int] = set()  # the slots whose tracks have a name
        self._texts: dict[str, str] = {}  # as JSON
        self._queued = 0  # at the last level
        self._template_up_at: float | None = None
        self._preload: tuple[float, float] | None = None  # of the template whose first worker is still to come
        self._of: dict[type[Any], Callable[[Any], list[str]]] = {
            Attempts: self._attempts,
            TaskRetry: self._retry,
            WorkerChange: self._worker,
            TemplateChange: self._template,
            PoolLevel: self._level,
        }

    def header(self, name: str, **args: object) -> list[str]:
        """Return the first events: what the trace is of. args: as docs/tracing.md says."""
        return [*self._lines.header(name, **args), *self._lines.track(0, "pool")]

    def of(self, record: Record) -> list[str]:
        """Return the events of a record."""
        make = self._of.get(type(record))
        return [] if make is None else make(record)

    def of_some(self, record: Attempts, first: int, end: int) -> list[str]:
        """Return the events of some attempts of a record: in this order, from `first` on, those before `end`."""
        return self._attempts(record, first, end)

    def memory(self, at: float, sizes: Iterable[tuple[int, int]]) -> str:
        """Return the event with the resident memory of workers. sizes: slot and bytes of each."""
        return self._event("C", "memory", 0, at, args={f"worker {slot}": size for slot, size in sizes})

    def dropped(self, at: float, count: int) -> str:
        """Return the event that says how many attempts the trace does not tell of."""
        return self._event("i", "dropped", 0, at, cat="dropped", s="p", args={"count": count})

    # ---- tasks ---------------------------------------------------------------------------------------------

    def _attempts(self, record: Attempts, first: int = 0, end: int | None = None) -> list[str]:
        if record.worker is None:
            return self._never_begun(record)
        slot, generation, worker_pid = record.worker
        lines, track = self._track(slot, generation)
        track.pid = worker_pid
        text, micros, pid, taken_at = self._text, self._micros, self._pid, record.taken_at
        taken, trace_began_at = micros(taken_at), self._began_at
        columns = record.tasks, record.functions, record.queued_at, record.began_at, record.ended_at
        some = zip(*(column[first:end] for column in columns), strict=True)
        for index, (number, function, told_queued, told_begin, told_end) in enumerate(some, first):
            free_since = track.free_since
            # NaN: it waited already when the trace began.
            queued_at = told_queued if told_queued == told_queued else min(trace_began_at, told_begin)
            began_at, ended_at, estimated = told_begin, told_end, record.death is not None
            # A worker's task can write where its times are, so they must be possible to be believed.
            if not (queued_at <= began_at <= ended_at <= taken_at and (free_since is None or free_since <= began_at)):
                began_at = max(queued_at, self._began_at if free_since is None else free_since)
                ended_at, estimated = max(began_at, taken_at), True
            if free_since is not None and began_at - free_since > SHORTEST_GAP:
                lines += self._idle(slot, free_since, queued_at, began_at)
            track.free_since = ended_at
            name, began, queued = text(function), micros(began_at), micros(queued_at)
            more = ""
            if record.errors[index] is not None:
                more += f',"error":{json.dumps(record.errors[index])}'
            if record.retried:
                more += ',"retried":true'
            if estimated:
                more += ',"estimated":true'
            attempt = record.attempt if index == 0 else 1
            sent, size = record.request_bytes[index], record.result_bytes[index]
            lines += (
                f'{{"ph":"X","cat":"submit","name":{name},"pid":{pid},"tid":0,"ts":{queued},"dur":0}}',
                f'{{"ph":"s","cat":"flow","name":"task","id":{number},"pid":{pid},"tid":0,"ts":{queued}}}',
                f'{{"ph":"X","cat":"task","name":{name},"pid":{pid},"tid":{slot + 1},"ts":{began},'
                f'"dur":{max(0.0, ended_at - max(began_at, trace_began_at)) * 1e6:.3f},'
                f'"args":{{"task":{number},"attempt":{attempt},"calls":{record.calls[index]},'
                f'"queued_us":{(began_at - queued_at) * 1e6:.3f},'
                f'"request_bytes":{sent if sent >= 0 else "null"},"result_bytes":{size if size >= 0 else "null"},'
                f'"outcome":"{record.outcomes[index]}","worker_pid":{_or_null(worker_pid)}{more}}}}}',
                f'{{"ph":"t","cat":"flow","name":"task","id":{number},"pid":{pid},"tid":{slot + 1},"ts":{began}}}',
                f'{{"ph":"X","cat":"result","name":{name},"pid":{pid},"tid":0,"ts":{taken},"dur":0}}',
                f'{{"ph":"f","bp":"e","cat":"flow","name":"task","id":{number},"pid":{pid},"tid":0,"ts":{taken}}}',
            )
        if record.death is not None and track.free_since is not None:
            self._ended_at[slot] = track.free_since
        return lines

    def _never_begun(self, record: Attempts) -> list[str]:
        name, queued_at, size = record.functions[0], record.queued_at[0], record.request_bytes[0]
        if math.isnan(queued_at):
            queued_at = self._began_at
        args = {
            "task": record.tasks[0],
            "attempt": record.attempt,
            "calls": record.calls[0],
            "queued_us": round((record.taken_at - queued_at) * 1e6, 3),
            "request_bytes": size if size >= 0 else None,
            "result_bytes": None,
            "outcome": record.outcomes[0],
            "worker_pid": None,
            "error": record.errors[0],
        }
        return [
            self._event("X", name, 0, queued_at, cat="submit", dur=0),
            self._event("i", name, 0, record.taken_at, cat="task", s="p", args=args),
        ]

    def _idle(self, slot: int, since: float, queued_at: float, until: float) -> list[str]:
        """Tell a gap before a task: idle until the task was submitted, after that the worker waited for it."""
        since = max(since, self._began_at)
        lines, waits_since = [], max(since, min(queued_at, until))
        for begin, end, queued in ((since, waits_since, 0), (waits_since, until, max(1, self._queued))):
            if end - begin > SHORTEST_GAP:
                dur = round((end - begin) * 1e6, 3)
                lines.append(self._event("X", "idle", slot + 1, begin, cat="idle", dur=dur, args={"queued": queued}))
        return lines

    def _retry(self, record: TaskRetry) -> list[str]:
        args = {"task": record.task, "attempt": record.attempt, "why": record.why, "delay": record.pause}
        return [self._event("i", f"retry of {record.function}", 0, record.at, cat="retry", s="p", args=args)]

    # ---- workers and template ------------------------------------------------------------------------------

    def _worker(self, record: WorkerChange) -> list[str]:
        slot, at = record.slot, record.at
        if record.kind == "ended":
            return self._death(record)
        lines, track = self._track(slot, record.generation)
        track.pid = record.pid or track.pid
        if record.kind == "requested":
            track.requested_at = at
        elif record.kind == "forked":
            track.forked_at = at
        elif record.kind == "ready":
            lines += self._start(slot, track, at)
            track.free_since = at
        elif record.kind == "signalled":
            args = {"why": record.detail, "worker_pid": track.pid}
            lines.append(self._event("i", "kill", slot + 1, at, cat="kill", s="t", args=args))
        elif record.kind == "told to leave" and record.detail not in _NO_RECYCLING:
            args = {"why": record.detail, "worker_pid": track.pid}
            lines.append(self._event("i", "recycle", slot + 1, at, cat="recycle", s="t", args=args))
        elif record.kind == "not started":
            args = {"why": record.detail}
            lines.append(self._event("i", "not started", slot + 1, at, cat="start", s="t", args=args))
        return lines

    def _start(self, slot: int, track: _Track, at: float) -> list[str]:
        if track.requested_at is None:
            return []
        begin = max(track.requested_at, self._ended_at.get(slot, 0.0))  # it is requested just before the other's end
        args = {"worker_pid": track.pid, "generation": track.generation}
        spans = [("start", begin, at)]
        if self._preload is not None and begin <= self._preload[1]:
            spans.append(("preload", max(begin, self._preload[0]), self._preload[1]))
            self._preload = None
        if self._initializes and track.forked_at is not None:
            spans.append(("initializer", track.forked_at, at))
        return [
            self._event("X", name, slot + 1, first, cat="start", dur=round((end - first) * 1e6, 3), args=args)
            for name, first, end in spans
        ]

    def _death(self, record: WorkerChange) -> list[str]:
        death = record.death
        if death is None:
            return []
        lines, _ = self._track(record.slot, record.generation)  # what it has lost is told later, and overlaps nothing
        self._ended_at[record.slot] = record.at
        self._ended.append(record.generation)
        if len(self._ended) > _ENDED_KEPT:
            self._tracks.pop(self._ended.popleft(), None)
        args: dict[str, object] = {}
        if death.exit_status.signal is not None:
            args["signal"] = int(death.exit_status.signal)
        else:
            args["exit_code"] = death.exit_status.returncode
        args |= {
            "reason": death.cause.value,
            "worker_pid": death.pid,
            "expected": death.expected,
            "tasks": death.tasks_done,
        }
        lines.append(self._event("i", str(death), record.slot + 1, record.at, cat="death", s="t", args=args))
        return lines

    def _template(self, record: TemplateChange) -> list[str]:
        if record.kind == "up":
            self._template_up_at = record.at
        elif record.kind == "loaded" and self._preloads and self._template_up_at is not None:
            self._preload = self._template_up_at, record.at
        args = {"why": record.detail} if record.detail else {}
        return [self._event("i", f"template {record.kind}", 0, record.at, cat="template", s="p", args=args)]

    def _level(self, record: PoolLevel) -> list[str]:
        self._queued = record.queued
        return [
            self._event("C", "queue", 0, record.at, args={"queued": record.queued}),
            self._event("C", "busy", 0, record.at, args={"workers": record.busy}),
        ]

    # ---- one event -----------------------------------------------------------------------------------------

    def _track(self, slot: int, generation: int) -> tuple[list[str], _Track]:
        """Return what a worker's track is known by, and the events that name the track if it is new."""
        lines = []
        track = self._tracks.get(generation)
        if track is None:
            track = self._tracks[generation] = _Track(generation)
        if slot not in self._named:
            self._named.add(slot)
            lines += self._lines.track(slot + 1, f"worker {slot}")
        return lines, track

    def _micros(self, at: float) -> str:
        micros = (at - self._began_at) * 1e6
        return f"{micros:.3f}" if micros > 0 else "0"

    def _text(self, text: str) -> str:
        known = self._texts.get(text)
        if known is None:
            if len(self._texts) >= 1000:  # functions are few, unless they are made for each task
                self._texts.clear()
            known = self._texts[text] = json.dumps(text)
        return known


def _or_null(value: int | None) -> str:
    return "null" if value is None else str(value)
