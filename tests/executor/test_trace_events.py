"""How records become trace events. No pool, no process."""

from __future__ import annotations

import json
import math

import pytest

from pidfdpool.deaths import Cause, Death
from pidfdpool.executor.tracing.events import TraceEvents
from pidfdpool.loop.observed import Attempts, PoolLevel, TaskRetry, TemplateChange, WorkerChange
from pidfdpool.pidfd import ExitStatus

BEGAN = 100.0
WORKER = (1, 7, 4242)


def attempts(*times, worker=WORKER, taken_at=None, function="module.function", **others):
    """Make a record of attempts. times: queued, begin and end of each, in seconds since the trace began."""
    count = len(times)
    queued, began, ended = ([BEGAN + each for each in column] for column in zip(*times, strict=True))
    fields = {
        "calls": (1,) * count,
        "attempt": 1,
        "request_bytes": (10,) * count,
        "result_bytes": (20,) * count,
        "outcomes": ("done",) * count,
        "errors": (None,) * count,
        **others,
    }
    return Attempts(
        worker=worker,
        tasks=tuple(range(1, count + 1)),
        functions=(function,) * count,
        queued_at=queued,
        began_at=began,
        ended_at=ended,
        taken_at=BEGAN + (times[-1][2] if taken_at is None else taken_at),
        **fields,
    )


def change(kind, at, slot=1, generation=7, pid=4242, **others):
    return WorkerChange(BEGAN + at, slot, generation, pid, kind, **others)


def death(cause=Cause.CRASH, status=9):
    status = ExitStatus.from_wait_status(status)
    return Death(slot=1, generation=7, pid=4242, cause=cause, exit_status=status, uptime=1.0, tasks_done=3)


def events_of(*records, **options):
    made = TraceEvents(BEGAN, 55, **options)
    return [json.loads(line) for record in records for line in made.of(record)]


def spans(events, cat):
    """Return name, begin and end of each complete event, in microseconds."""
    return [
        (event["name"], event["ts"], round(event["ts"] + event["dur"], 3))
        for event in events
        if event["ph"] == "X" and event["cat"] == cat
    ]


def test_a_task_has_a_span_in_its_workers_track_and_a_flow_from_its_submit_to_its_result():
    events = events_of(attempts((0.001, 0.002, 0.0035), taken_at=0.004))
    task = next(event for event in events if event.get("cat") == "task")
    assert task == {
        "ph": "X", "cat": "task", "name": "module.function", "pid": 55, "tid": 2, "ts": 2000.0, "dur": 1500.0,
        "args": {
            "task": 1, "attempt": 1, "calls": 1, "queued_us": 1000.0, "request_bytes": 10, "result_bytes": 20,
            "outcome": "done", "worker_pid": 4242,
        },
    }  # fmt: skip
    flow = [(event["ph"], event["tid"], event["ts"], event["id"]) for event in events if event.get("cat") == "flow"]
    assert flow == [("s", 0, 1000.0, 1), ("t", 2, 2000.0, 1), ("f", 0, 4000.0, 1)]
    assert spans(events, "submit") == [("module.function", 1000.0, 1000.0)]
    assert spans(events, "result") == [("module.function", 4000.0, 4000.0)]


def test_a_record_may_be_told_in_parts():
    record = attempts((0.0, 0.001, 0.002), (0.0, 0.003, 0.004), (0.0, 0.005, 0.006), attempt=2)
    whole = events_of(record)
    made = TraceEvents(BEGAN, 55)
    parts = made.of_some(record, 0, 1) + made.of_some(record, 1, 3)
    assert [json.loads(line) for line in parts] == whole
    assert [event["args"]["attempt"] for event in whole if event.get("cat") == "task"] == [2, 1, 1]


@pytest.mark.parametrize(
    "times",
    [
        (0.001, math.nan, math.nan),
        (0.001, 0.0, 0.002),  # before it was queued
        (0.001, 0.003, 0.002),
        (0.001, 0.002, 9.0),  # after its result came
        (0.001, -math.inf, math.inf),
    ],
    ids=repr,
)
def test_times_that_cannot_be_are_replaced_by_what_the_host_knows(times):
    events = events_of(change("ready", 0.0), attempts(times, taken_at=0.004))
    (task,) = [event for event in events if event.get("cat") == "task"]
    assert (task["ts"], task["dur"]) == (1000.0, 3000.0)
    assert task["args"]["estimated"] is True


def test_tasks_of_a_worker_never_overlap():
    events = events_of(attempts((0.0, 0.001, 0.003), (0.0, 0.002, 0.004), taken_at=0.005))
    assert spans(events, "task") == [("module.function", 1000.0, 3000.0), ("module.function", 3000.0, 5000.0)]


def test_what_began_before_the_trace_begins_with_it():
    events = events_of(attempts((-2.0, -1.0, 0.5)))
    assert spans(events, "task") == [("module.function", 0.0, 500000.0)]
    assert spans(events, "submit") == [("module.function", 0.0, 0.0)]
    (task,) = [event for event in events if event.get("cat") == "task"]
    assert task["args"]["queued_us"] == 1e6


def test_what_waited_already_when_the_trace_began_has_waited_since_then():
    """Guards: nobody keeps when a task was submitted before the pool was observed, and NaN is no number in JSON."""
    events = events_of(attempts((math.nan, 0.002, 0.003), (math.nan, 0.003, 0.004)))
    assert spans(events, "submit") == [("module.function", 0, 0)] * 2
    assert [event["args"]["queued_us"] for event in events if event.get("cat") == "task"] == [2000.0, 3000.0]
    assert [event["ts"] for event in events if event.get("cat") == "task" and event["ph"] == "X"] == [2000.0, 3000.0]
    early = events_of(attempts((math.nan, -0.001, 0.002)))
    assert [(event["ts"], event["dur"]) for event in early if event.get("cat") == "task"] == [(0, 2000.0)]
    cancelled = events_of(
        attempts((math.nan, math.nan, math.nan), worker=None, outcomes=("cancelled",), taken_at=0.005)
    )
    assert [event["args"]["queued_us"] for event in cancelled if event["cat"] == "task"] == [5000.0]


def test_what_ended_before_the_trace_takes_no_time_in_it():
    """Its answer was taken when the trace had begun. The gap that follows begins with the trace, too."""
    events = events_of(attempts((-0.3, -0.2, -0.1), (-0.05, 0.02, 0.03), taken_at=0.04))
    assert spans(events, "task") == [("module.function", 0, 0), ("module.function", 20000.0, 30000.0)]
    assert spans(events, "idle") == [("idle", 0, 20000.0)]


@pytest.mark.parametrize(
    ("queued", "gaps"),
    [
        (0.0, [(1, 10000.0, 20000.0)]),
        (0.015, [(0, 10000.0, 15000.0), (1, 15000.0, 20000.0)]),
        (0.01995, [(0, 10000.0, 19950.0)]),
        (0.01005, [(1, 10050.0, 20000.0)]),
    ],
)
def test_a_gap_is_split_where_the_next_task_was_submitted(queued, gaps):
    """Before that the worker had nothing to do; after that it waited for the host."""
    events = events_of(attempts((0.0, 0.005, 0.01)), attempts((queued, 0.02, 0.03)))
    idle = [event for event in events if event.get("cat") == "idle"]
    assert [(e["args"]["queued"], e["ts"], round(e["ts"] + e["dur"], 3)) for e in idle] == gaps
    assert {event["tid"] for event in idle} == {2}


@pytest.mark.parametrize(("gap", "told"), [(99e-6, 0), (101e-6, 1)])
def test_short_gaps_are_not_told(gap, told):
    events = events_of(attempts((0.0, 0.001, 0.002), (0.0, 0.002 + gap, 0.003)))
    assert len(spans(events, "idle")) == told


def test_the_level_tells_how_many_tasks_waited():
    level = PoolLevel(BEGAN + 0.001, 17, 2)
    events = events_of(attempts((0.0, 0.0, 0.001)), level, attempts((0.0, 0.002, 0.003)))
    assert [event["args"] for event in events if event.get("cat") == "idle"] == [{"queued": 17}]
    counters = {event["name"]: event["args"] for event in events if event["ph"] == "C"}
    assert counters == {"queue": {"queued": 17}, "busy": {"workers": 2}}


def test_a_start_has_its_parts():
    records = (
        TemplateChange(BEGAN + 0.001, "up"),
        change("requested", 0.002, pid=None),
        TemplateChange(BEGAN + 0.01, "loaded"),
        change("forked", 0.02),
        change("ready", 0.03),
        change("requested", 0.04, slot=0, generation=8, pid=None),
        change("forked", 0.05, slot=0, generation=8, pid=5),
        change("ready", 0.06, slot=0, generation=8, pid=5),
    )
    events = events_of(*records, initializes=True, preloads=True)
    first = [event for event in events if event["tid"] == 2]
    assert spans(first, "start") == [
        ("start", 2000.0, 30000.0),
        ("preload", 2000.0, 10000.0),
        ("initializer", 20000.0, 30000.0),
    ]
    second = [event for event in events if event["tid"] == 1]
    assert spans(second, "start") == [("start", 40000.0, 60000.0), ("initializer", 50000.0, 60000.0)]
    assert spans(events_of(*records), "start") == [("start", 2000.0, 30000.0), ("start", 40000.0, 60000.0)]
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert names == {1: "worker 0", 2: "worker 1"}


def test_a_death_is_told_and_its_successors_start_comes_after_it():
    events = events_of(
        attempts((0.0, 0.001, 0.002)),
        change("requested", 0.009, generation=8, pid=None),
        change("ended", 0.01, death=death()),
        attempts((0.0, 0.003, 0.0105), outcomes=("crashed",), errors=("gone",), death=death()),
        change("forked", 0.02, generation=8, pid=9),
        change("ready", 0.03, generation=8, pid=9),
    )
    (told,) = [event for event in events if event.get("cat") == "death"]
    assert told["name"] == str(death())
    assert (told["ph"], told["s"], told["tid"]) == ("i", "t", 2)
    assert told["args"] == {
        "signal": 9, "reason": "not asked to end", "worker_pid": 4242, "expected": False, "tasks": 3,
    }  # fmt: skip
    assert spans(events, "start") == [("start", 10500.0, 30000.0)]
    lost = [event["args"] for event in events if event.get("cat") == "task"][1]
    assert (lost["outcome"], lost["error"], lost["estimated"]) == ("crashed", "gone", True)


def test_what_a_worker_has_lost_overlaps_neither_its_start_nor_that_of_its_successor():
    """The host knows less exactly than the worker when it began, and notices the loss a little after the death."""
    events = events_of(
        change("requested", 0.001, pid=None),
        change("ready", 0.0031),
        change("requested", 0.0095, generation=8, pid=None),
        change("ended", 0.01, death=death()),
        attempts((0.0, 0.003, 0.0105), outcomes=("crashed",), errors=("gone",), death=death()),
        change("ready", 0.03, generation=8, pid=9),
    )
    assert spans(events, "start") == [("start", 1000.0, 3100.0), ("start", 10500.0, 30000.0)]
    assert spans(events, "task") == [("module.function", 3100.0, 10500.0)]


def test_an_end_with_an_exit_code_has_that():
    (told,) = [
        event
        for event in events_of(change("ended", 0.01, death=death(Cause.AGE, 3 << 8)))
        if event.get("cat") == "death"
    ]
    assert told["args"] == {
        "exit_code": 3, "reason": "it was too old", "worker_pid": 4242, "expected": True, "tasks": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("record", "cat", "name", "args"),
    [
        (
            change("signalled", 1, detail="signal 9: why"),
            "kill",
            "kill",
            {"why": "signal 9: why", "worker_pid": 4242},
        ),
        (
            change("told to leave", 1, detail=Cause.TASKS.value),
            "recycle",
            "recycle",
            {"why": "it had run its share of tasks", "worker_pid": 4242},
        ),
        (change("told to leave", 1, detail=Cause.SHUTDOWN.value), "recycle", None, None),
        (
            TaskRetry(BEGAN + 1, 3, "module.function", 2, 0.5, "crashed"),
            "retry",
            "retry of module.function",
            {"task": 3, "attempt": 2, "why": "crashed", "delay": 0.5},
        ),
        (TemplateChange(BEGAN + 1, "lost", "why"), "template", "template lost", {"why": "why"}),
    ],
    ids=["kill", "recycle", "shutdown", "retry", "template"],
)
def test_what_happens_at_a_moment_is_an_instant(record, cat, name, args):
    events = [event for event in events_of(record) if event.get("cat") == cat]
    assert [(event["ph"], event["name"], event["ts"], event["args"]) for event in events] == (
        [] if name is None else [("i", name, 1e6, args)]
    )


def test_a_task_that_never_began_is_an_instant_of_the_pool():
    record = attempts(
        (0.001, math.nan, math.nan),
        worker=None, taken_at=0.003, attempt=0, outcomes=("cancelled",), errors=("why",), result_bytes=(-1,),
    )  # fmt: skip
    events = events_of(record)
    assert spans(events, "submit") == [("module.function", 1000.0, 1000.0)]
    (told,) = [event for event in events if event.get("cat") == "task"]
    assert (told["ph"], told["tid"], told["ts"]) == ("i", 0, 3000.0)
    assert told["args"] == {
        "task": 1, "attempt": 0, "calls": 1, "queued_us": 2000.0, "request_bytes": 10, "result_bytes": None,
        "outcome": "cancelled", "worker_pid": None, "error": "why",
    }  # fmt: skip


@pytest.mark.parametrize("name", ['a"quote', "back\\slash", "<lambda>", "näme\n", "\udcff", "</script>"])
def test_every_name_is_valid_in_json(name):
    events = events_of(attempts((0, 0.1, 0.2), function=name, outcomes=("failed",), errors=(name,)))
    (task,) = [event for event in events if event.get("cat") == "task"]
    assert task["name"] == task["args"]["error"] == name


def test_many_workers_that_have_ended_are_forgotten():
    made = TraceEvents(BEGAN, 55)
    for generation in range(1000):
        made.of(change("requested", generation, generation=generation))
        made.of(change("ended", generation, generation=generation, death=death()))
    assert len(made._tracks) < 100


def test_what_a_later_version_may_tell_is_skipped():
    assert events_of(object(), change("something new", 1.0)) == events_of(change("ready", 1.0))[:2]
