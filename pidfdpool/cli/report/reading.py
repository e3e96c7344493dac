"""Reads a trace file, line by line: one event at a time is held as an object, and a million fit into columns.

A file may lack its end, if its host was killed or is still running. Anything else that is no event is an error that
names the line. Kinds of events that are not known are passed over, as a later version may write them.
"""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any

from pidfdpool.cli.report.trace import OUTCOMES, POOL_TRACK, UNKNOWN, Mark, Series, Start, Trace

if TYPE_CHECKING:
    from collections.abc import Callable

FORMAT = 1
_FIRST_LINE = 64  # bytes that are read to see whether it is "["
_LONGEST_LINE = 1 << 24
_MOST = 1e17  # microseconds, which are 3,000 years; or bytes
_MARKS = {"death", "kill", "retry", "recycle", "template"}
_PROBLEMS = (KeyError, TypeError, ValueError, OverflowError)


class TraceError(Exception):
    """A file cannot be read as a trace. The message names the file, and the line if it is one."""


def read(path: str) -> Trace:
    """Read a trace file.

    Raises:
        TraceError: it cannot be read, is no trace of this package, or a line of it is broken.
    """
    try:
        with open(path, "rb") as file:
            return _read(file, path)
    except (OSError, ValueError) as error:  # a ValueError: there is a null character in the name
        raise TraceError(f"cannot read {path!r}: {getattr(error, 'strerror', None) or error}") from None


def _read(file: IO[bytes], path: str) -> Trace:
    first = file.readline(_FIRST_LINE)
    if not first:
        raise TraceError(f"{path!r} is empty: it is not a trace of pidfdpool")
    if first.strip() != b"[":
        raise TraceError(f"{path!r} is not a trace of pidfdpool: its first line is not '['")
    lines = _Lines(file, path)
    head = lines.next()
    if head is None:
        raise TraceError(f"{path!r} ends after its first line: it tells nothing")
    reader = _Reader()
    if not reader.take_head(head):
        raise TraceError(f"{path!r} is not a trace of pidfdpool: its first event is not the one that says so")
    if reader.format != FORMAT:
        raise TraceError(f"{path!r} has the format {reader.format!r}: this version reads format {FORMAT}")
    while (event := lines.next()) is not None:
        try:
            reader.take(event)
        except _PROBLEMS as error:
            raise TraceError(f"{path!r}, line {lines.number}: {_explained(error)}") from None
    reader.trace.complete = lines.complete
    return reader.finished()


def _explained(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"the event has no {error.args[0]!r}"
    return f"the event has a value that it cannot have: {error}"


class _Lines:
    """The events of a file behind its first line."""

    def __init__(self, file: IO[bytes], path: str) -> None:
        self.number = 1
        self.complete = False
        self._file = file
        self._path = path

    def next(self) -> dict[str, Any] | None:
        """Return the next event; None at the end."""
        while True:
            line = self._file.readline(_LONGEST_LINE)
            self.number += 1
            text = line.strip()
            if not line or text == b"]":
                self.complete = bool(line)
                self._see_that_nothing_follows()
                return None
            if text:
                break
        try:
            event = json.loads(text.removesuffix(b","))
        except (ValueError, RecursionError):
            if not line.endswith(b"\n") and not self._file.read(1):
                return None  # the line was being written when its host was killed
            raise TraceError(f"{self._path!r}, line {self.number}: it is not a trace event") from None
        if not isinstance(event, dict):
            raise TraceError(f"{self._path!r}, line {self.number}: it is not a trace event")
        return event

    def _see_that_nothing_follows(self) -> None:
        while line := self._file.readline(_LONGEST_LINE):
            self.number += 1
            if line.strip():
                raise TraceError(f"{self._path!r}, line {self.number}: something follows the end of the trace")


class _Reader:
    """Puts events where they belong."""

    def __init__(self) -> None:
        self.trace = Trace()
        self.format: object = None
        self._functions: dict[str, int] = {}
        self._handlers: dict[tuple[str, str], Callable[[dict[str, Any]], None]] = {
            ("X", "task"): self._task,
            ("X", "node"): self._task,
            ("X", "idle"): self._idle,
            ("X", "start"): self._start,
            ("i", "task"): self._unrun,
            **{("i", kind): self._mark for kind in _MARKS},
            ("i", "dropped"): self._dropped,
        }

    def take_head(self, event: dict[str, Any]) -> bool:
        """Take the first event; return whether it is that of a trace of ours."""
        told = event.get("args")
        if event.get("ph") != "M" or event.get("name") != "pidfdpool" or not isinstance(told, dict):
            return False
        trace = self.trace
        self.format = told.get("format")
        trace.is_of_swarm = told.get("kind") == "swarm"
        trace.version = str(told.get("version", "?"))
        trace.python = str(told.get("python", "?"))
        trace.start_method = str(told.get("start_method", "?"))
        started, most = told.get("started"), told.get("max_workers")
        trace.started = started if isinstance(started, int | float) and abs(started) <= _MOST else None
        trace.max_workers = most if isinstance(most, int) else None
        return True

    def take(self, event: dict[str, Any]) -> None:
        """Take any other event."""
        phase = event["ph"]
        if phase == "M":
            self._name(event)
        elif phase == "C":
            self._counter(event)
        elif (handler := self._handlers.get((phase, event.get("cat", "")))) is not None:
            handler(event)

    def finished(self) -> Trace:
        """Return the trace, when all events were taken."""
        trace = self.trace
        trace.functions = list(self._functions)
        trace.marks.sort(key=lambda mark: mark.time)
        trace.starts.sort(key=lambda start: start.begin)
        return trace

    def _until(self, time: float) -> None:
        self.trace.end = max(self.trace.end, time)

    def _name(self, event: dict[str, Any]) -> None:
        told = event.get("args") or {}
        if event.get("name") == "process_name":
            self.trace.pool = str(told["name"])
        elif event.get("name") == "thread_name":
            self.trace.names[_whole(event, "tid")] = str(told["name"])

    def _task(self, event: dict[str, Any]) -> None:
        told = event["args"]
        outcome = OUTCOMES.index(told["outcome"])
        begin, duration = _time(event, "ts"), _duration(event)
        name = str(event["name"])
        row = (  # before any column grows: a broken event leaves nothing
            _track(event),
            _whole(told, "worker_pid", 0),
            begin,
            duration,
            max(0.0, _time(told, "queued_us", 0.0)),
            self._functions.setdefault(name, len(self._functions)),
            _whole(told, "task"),
            _whole(told, "attempt", 1),
            _whole(told, "calls", 1),
            _whole(told, "request_bytes", UNKNOWN, least=UNKNOWN),
            _whole(told, "result_bytes", UNKNOWN, least=UNKNOWN),
            outcome,
        )
        tasks = self.trace.tasks
        if told.get("error") is not None:
            tasks.errors[len(tasks)] = str(told["error"])
        columns: tuple[Any, ...] = (
            tasks.track, tasks.pid, tasks.begin, tasks.duration, tasks.queued, tasks.function, tasks.number,
            tasks.attempt, tasks.calls, tasks.request, tasks.result, tasks.outcome,
        )  # fmt: skip
        for column, value in zip(columns, row, strict=True):
            column.append(value)
        self._until(begin + duration)

    def _idle(self, event: dict[str, Any]) -> None:
        begin, duration = _time(event, "ts"), _duration(event)
        track, queued = _track(event), _whole(event.get("args") or {}, "queued", 0)
        idles = self.trace.idles
        idles.track.append(track)
        idles.begin.append(begin)
        idles.duration.append(duration)
        idles.queued.append(queued)
        self._until(begin + duration)

    def _start(self, event: dict[str, Any]) -> None:
        told = event.get("args") or {}
        pid, generation = _whole(told, "worker_pid", 0), _whole(told, "generation", 0)
        start = Start(_track(event), _time(event, "ts"), _duration(event), str(event["name"]), pid, generation)
        self.trace.starts.append(start)
        self._until(start.begin + start.duration)

    def _unrun(self, event: dict[str, Any]) -> None:
        outcome = OUTCOMES[OUTCOMES.index(event["args"]["outcome"])]
        self.trace.unrun[outcome] = self.trace.unrun.get(outcome, 0) + 1
        self._until(_time(event, "ts"))

    def _mark(self, event: dict[str, Any]) -> None:
        track = _whole(event, "tid", POOL_TRACK)
        told = event.get("args") or {}
        if not isinstance(told, dict):
            raise TypeError("'args' is no object")
        mark = Mark(str(event["cat"]), track, _time(event, "ts"), str(event.get("name", "")), told)
        self.trace.marks.append(mark)
        self._until(mark.time)

    def _dropped(self, event: dict[str, Any]) -> None:
        self.trace.dropped += _whole(event.get("args") or {}, "count", 0)

    def _counter(self, event: dict[str, Any]) -> None:
        time, name, told = _time(event, "ts"), event["name"], event["args"]
        if name == "queue":
            _extend(self.trace.queue, time, _time(told, "queued"))
        elif name == "busy":
            _extend(self.trace.busy, time, _time(told, "workers"))
        elif name == "memory":
            for each in told:
                _extend(self.trace.memory.setdefault(str(each), Series()), time, _time(told, each))
        self._until(time)


def _extend(series: Series, time: float, value: float) -> None:
    series.time.append(max(time, series.time[-1]) if series.time else time)
    series.value.append(value)


def _time(values: dict[str, Any], name: str, default: float | None = None) -> float:
    """Return a number, in microseconds for instance."""
    value = values.get(name, default) if default is not None else values[name]
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ValueError(f"{name!r} is {value!r:.50}, and not a number")
    if not -_MOST <= value <= _MOST:
        raise ValueError(f"{name!r} is {value!r:.50}, which is more than any trace has")
    return float(value)


def _duration(event: dict[str, Any]) -> float:
    duration = _time(event, "dur")
    if duration < 0:
        raise ValueError(f"'dur' is {duration}, and less than 0")
    return duration


def _whole(values: dict[str, Any], name: str, default: int | None = None, least: int = 0) -> int:
    """Return a number that is whole, and not less than the least. None and what is missing are the default."""
    value = values.get(name)
    if value is None and default is not None:
        return default
    if value is None:
        raise KeyError(name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 63:
        raise ValueError(f"{name!r} is {value!r:.50}, and not a whole number of {least} or more")
    return value


def _track(event: dict[str, Any]) -> int:
    track = _whole(event, "tid")
    if track == POOL_TRACK:
        raise ValueError("'tid' is 0, which is no worker")
    return track
