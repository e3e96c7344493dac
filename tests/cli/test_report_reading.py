"""How trace files are read: what is broken, foreign or cut off is said."""

from __future__ import annotations

import json
import re

import pytest

from pidfdpool.cli.report.reading import TraceError, read
from tests.cli.traces import TraceFile, simulated


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.json"


def small() -> TraceFile:
    trace = TraceFile()
    trace.start(0, 0, 100)
    trace.task(0, 200, 50, "a:f", queued=80, calls=3, request_bytes=1000, result_bytes=None)
    return trace


def test_all_that_a_file_tells_is_read(path):
    trace = small()
    trace.mark("dropped", 900, count=7)
    trace.counter("queue", 950, queued=4)
    trace.add("i", 1, 960, cat="news of a later version", name="?")
    trace.add("q", 1, 960)
    trace.write(path)
    told = read(str(path))
    assert (told.complete, told.dropped, told.end) == (True, 7, 950)
    assert (told.pool, told.python, told.max_workers, told.start_method) == ("pidfdpool sample", "3.15.2", 2, "exec")
    assert told.started == 1_796_000_000.25
    assert told.functions == ["a:f"]
    tasks = told.tasks
    assert (tasks.begin[0], tasks.duration[0], tasks.queued[0], tasks.calls[0]) == (200, 50, 80, 3)
    assert (tasks.request[0], tasks.result[0], tasks.number[0], tasks.attempt[0]) == (1000, -1, 1, 1)
    assert told.name_of(1) == "worker 0"


def test_the_simulated_trace_is_what_other_readers_take_too(path):
    events = json.loads(simulated(200).write(path).read_text())
    assert all({"ph", "ts", "pid", "tid"} <= event.keys() for event in events)
    assert len(read(str(path)).tasks) == sum(event.get("cat") == "task" for event in events)


def test_a_file_that_ends_early_is_read_as_far_as_it_goes(path):
    lines = small().lines()
    task = next(index for index, line in enumerate(lines) if '"outcome"' in line)
    whole = "\n".join(lines)
    seen = set()
    for length in range(len("\n".join(lines[:2])), len(whole)):
        path.write_text(whole[:length])
        told = read(str(path))
        assert not told.complete
        assert len(told.tasks) == (length >= len("\n".join(lines[: task + 1]).removesuffix(",")))
        seen.add(len(told.tasks))
    assert seen == {0, 1}


FOREIGN = {
    "another tool's": '{"traceEvents":[{"ph":"X"}]}',
    "an array in one line": '[{"ph":"M","name":"process_name"}]',
    "of Chrome": '[\n{"ph":"M","name":"process_name","args":{"name":"Browser"}},\n{"ph":"X"}\n]',
    "without arguments": '[\n{"ph":"M","name":"pidfdpool"}\n]',
    "no text": b"\x89PNG\r\n\x1a\n\x00\x00",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_refused(path, name):
    text = FOREIGN[name]
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TraceError, match="is not a trace of pidfdpool"):
        read(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "is empty"), ("[\n", "ends after its first line"), ("[\n]\n", "ends after its first line")],
)
def test_a_file_with_nothing_in_it(path, text, message):
    path.write_text(text)
    with pytest.raises(TraceError, match=message):
        read(str(path))


def test_a_later_format_is_refused(path):
    TraceFile(format=2).write(path)
    with pytest.raises(TraceError, match="has the format 2: this version reads format 1"):
        read(str(path))


HEAD = TraceFile().lines()[1]
TASK = next(line for line in small().lines() if '"outcome"' in line).removesuffix(",")
TASK_EVENT = json.loads(TASK)


def changed(**given):
    args = {**TASK_EVENT["args"], **given.pop("args", {})}
    event = {**TASK_EVENT, "args": args, **given}
    return json.dumps({name: value for name, value in event.items() if value is not ...})


BROKEN = {
    "no JSON": ('{"ph":', "it is not a trace event"),
    "no object": ("[1, 2]", "it is not a trace event"),
    "a number": ("17", "it is not a trace event"),
    "nested too deeply": ("[" * 200_000, "it is not a trace event"),
    "no kind": ("{}", "the event has no 'ph'"),
    "no time": (changed(ts=...), "the event has no 'ts'"),
    "a time that is none": (changed(ts="now"), "'ts' is 'now', and not a number"),
    "a time that is no number": (changed(ts=float("nan")), "'ts' is nan"),
    "a time that is too large": (changed(ts=10**400), "more than any trace has"),
    "a time that cannot be added to": (changed(ts=-1e308), "'ts' is -1e+308, which is more than any trace has"),
    "a duration that is too long": (changed(dur=1e308), "'dur' is 1e+308, which is more than any trace has"),
    "an infinite duration": (changed(dur=float("inf")), "'dur' is inf, which is more than any trace has"),
    "a duration below 0": (changed(dur=-1), "'dur' is -1.0, and less than 0"),
    "the pool's track": (changed(tid=0), "'tid' is 0, which is no worker"),
    "a strange track": (changed(tid="1"), "'tid' is '1', and not a whole number"),
    "a strange outcome": (changed(args={"outcome": "fine"}), "a value that it cannot have"),
    "a huge number": (changed(args={"calls": 10**30}), "'calls' is 1000000"),
    "a size below 0": (changed(args={"request_bytes": -2}), "'request_bytes' is -2"),
    "no arguments": (changed().replace('"args"', '"arguments"'), "the event has no 'args'"),
    "a counter of words": ('{"ph":"C","ts":1,"name":"queue","args":{"queued":"many"}}', "'queued' is 'many'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_line_is_named(path, name):
    text, message = BROKEN[name]
    path.write_text(f"[\n{HEAD}\n{TASK},\n{text},\n{TASK}\n]\n")
    with pytest.raises(TraceError, match=f"run.json', line 4: .*{re.escape(message)}"):
        read(str(path))


def test_what_stands_behind_the_end_is_an_error(path):
    path.write_text(f"[\n{HEAD}\n{TASK}\n]\n\n{TASK}\n")
    with pytest.raises(TraceError, match=r"line 6: something follows the end of the trace"):
        read(str(path))


def test_a_broken_event_at_the_end_of_a_file_is_no_early_end(path):
    path.write_text(f'[\n{HEAD}\n{{"ph":\n')
    with pytest.raises(TraceError, match="line 3: it is not a trace event"):
        read(str(path))


def test_files_that_cannot_be_read(tmp_path):
    for name, message in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory"), ("a\0b", "null")):
        with pytest.raises(TraceError, match=f"cannot read .*{message}"):
            read(str(name))
