"""What the timeline draws, packed for the page: columns of numbers in one compressed block, names as JSON.

Pure. `assets/data.js` unpacks it. A million tasks take some 20 MB in the page and no object each.
"""

from __future__ import annotations

import base64
import json
import sys
import zlib
from array import array
from typing import TYPE_CHECKING, Any

from pidfdpool.cli.report.sections import COLOURS
from pidfdpool.cli.report.trace import OUTCOMES, Mark, Series

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pidfdpool.cli.report.analysis import Analysis
    from pidfdpool.cli.report.trace import Trace

MOST_MARKS = 20_000
MOST_PARTS = 20_000
MOST_ERRORS = 2_000
_LONGEST_TEXT = 300
_TYPES = {"d": "Float64Array", "f": "Float32Array", "I": "Uint32Array", "B": "Uint8Array"}
_LARGEST = {"I": 2**32 - 1, "B": 255}


def pack(trace: Trace, numbers: Analysis) -> tuple[str, str]:
    """Return the description as JSON that may stand in a page's script, and the columns as base64."""
    columns: dict[str, array[Any]] = {}
    lives = numbers.lives.lives
    tracks = sorted({life.track for life in lives} | {mark.track for mark in trace.marks if mark.track})
    places = {track: place for place, track in enumerate(tracks)}
    order = array("L", (row for life in lives for row in life.tasks))
    _add_tasks(columns, trace, numbers, order, places)
    columns["life.track"] = array("I", (places[life.track] for life in lives))
    columns["life.begin"] = array("d", (life.begin for life in lives))
    columns["life.ready"] = array("d", (life.ready for life in lives))
    columns["life.end"] = array("d", (life.end for life in lives))
    columns["life.pid"] = _clipped("I", (life.pid for life in lives))
    for name, series in _counters(trace).items():
        columns[f"{name}.time"] = series.time
        columns[f"{name}.value"] = series.value
    places_of_functions = {name: place for place, name in enumerate(trace.functions)}
    shown = sorted(columns, key=lambda name: -columns[name].itemsize)  # so that each begins where its type may
    described = {
        "columns": [[name, _TYPES[columns[name].typecode], len(columns[name])] for name in shown],
        "end": max(trace.end, 1.0),
        "tracks": [_cut(trace.name_of(track)) for track in tracks],
        "functions": [_cut(name) for name in trace.functions],
        "byTotal": [places_of_functions[function.name] for function in numbers.functions[:COLOURS]],
        "outcomes": OUTCOMES,
        "errors": _errors(trace, order),
        "allMarks": len(trace.marks),
        "marks": [_mark(mark, places) for mark in _chosen(trace.marks)],
        "parts": [
            [places[start.track], start.begin, start.duration, _cut(start.name)]
            for start in trace.starts[:MOST_PARTS]
            if start.name != "start" and start.track in places
        ],
    }
    packer = zlib.compressobj(6)
    packed = b"".join([*(packer.compress(_little(columns[name])) for name in shown), packer.flush()])
    return script_json(described), base64.b64encode(packed).decode()


def script_json(value: object) -> str:
    """Return JSON that ends no script element, whatever the texts in it are."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _add_tasks(
    columns: dict[str, array[Any]], trace: Trace, numbers: Analysis, order: array[int], places: dict[int, int]
) -> None:
    tasks = trace.tasks
    columns["begin"] = array("d", (tasks.begin[row] for row in order))
    columns["number"] = array("d", (tasks.number[row] for row in order))
    for name, column in (
        ("duration", tasks.duration),
        ("queued", tasks.queued),
        ("wait", numbers.lives.waits),
        ("request", tasks.request),
        ("result", tasks.result),
    ):
        columns[name] = array("f", (column[row] for row in order))
    columns["track"] = array("I", (places[tasks.track[row]] for row in order))
    columns["function"] = array("I", (tasks.function[row] for row in order))
    columns["calls"] = _clipped("I", (tasks.calls[row] for row in order))
    columns["attempt"] = _clipped("B", (tasks.attempt[row] for row in order))
    columns["outcome"] = array("B", (tasks.outcome[row] for row in order))


def _clipped(typecode: str, values: Iterable[int]) -> array[int]:
    most = _LARGEST[typecode]
    return array(typecode, (min(value, most) for value in values))


def _counters(trace: Trace) -> dict[str, Series]:
    found = {"queue": trace.queue, "busy": trace.busy, "memory": total_memory(trace)}
    return {name: series for name, series in found.items() if series.time}


def total_memory(trace: Trace) -> Series:
    """Return the memory of all workers together. A worker has none after its death, until it is measured again."""
    changes = [
        (time, name, value)
        for name, series in trace.memory.items()
        for time, value in zip(series.time, series.value, strict=True)
    ]
    changes += [
        (mark.time, f"worker {mark.track - 1}", 0.0)
        for mark in trace.marks
        if mark.kind == "death" and f"worker {mark.track - 1}" in trace.memory
    ]
    changes.sort(key=lambda change: change[0])
    total, now = Series(), dict.fromkeys(trace.memory, 0.0)
    whole = 0.0
    for time, name, value in changes:
        whole += value - now[name]
        now[name] = value
        if total.time and total.time[-1] == time:
            total.value[-1] = whole
        else:
            total.time.append(time)
            total.value.append(whole)
    return total


def _errors(trace: Trace, order: array[int]) -> dict[int, str]:
    """Return the errors by the place of their task in the columns."""
    if not trace.tasks.errors:
        return {}
    found: dict[int, str] = {}
    for place, row in enumerate(order):
        if row in trace.tasks.errors:
            found[place] = _cut(trace.tasks.errors[row])
            if len(found) == MOST_ERRORS:
                break
    return found


def _chosen(marks: list[Mark]) -> list[Mark]:
    """Return the marks to show. If there are too many: those that tell of a loss first, from everywhere alike."""
    if len(marks) <= MOST_MARKS:
        return marks
    urgent = [mark for mark in marks if mark.kind in {"death", "kill", "retry"} and not mark.args.get("expected")]
    known = set(map(id, urgent))
    chosen = _thinned(urgent, MOST_MARKS)
    chosen += _thinned([mark for mark in marks if id(mark) not in known], MOST_MARKS - len(chosen))
    return sorted(chosen, key=lambda mark: mark.time)


def _thinned(marks: list[Mark], most: int) -> list[Mark]:
    return [marks[place * len(marks) // most] for place in range(most)] if len(marks) > most else marks


def _mark(mark: Mark, places: dict[int, int]) -> list[object]:
    told = [
        f"{name.replace('_', ' ')}: {value}"
        for name, value in mark.args.items()
        if name not in {"expected", "tasks", "signal", "exit_code"} and value is not None
    ]
    text = f"{mark.name} ({', '.join(told)})" if told else mark.name
    return [places.get(mark.track, -1), mark.time, mark.kind, _cut(text), int(mark.args.get("expected") is True)]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."


def _little(column: array[Any]) -> bytes:
    if sys.byteorder == "big":
        column = array(column.typecode, column)
        column.byteswap()
    return column.tobytes()
