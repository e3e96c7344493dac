"""The numbers of a report: how workers' time is split, and what is counted."""

from __future__ import annotations

import json

import pytest

from pidfdpool.cli.report import words
from pidfdpool.cli.report.analysis import BOUNDS, analyse, quantile
from pidfdpool.cli.report.encoding import total_memory
from pidfdpool.cli.report.reading import read
from tests.cli.traces import TraceFile, simulated


@pytest.fixture
def numbers_of(tmp_path):
    def numbers(trace):
        return analyse(read(str(trace.write(tmp_path / "run.json"))))

    return numbers


def split_of(worker):
    split = worker.split
    return [round(part * 1e6) for part in (split.start, split.wait, split.work, split.idle)]


def test_a_workers_time_is_split(numbers_of):
    trace = TraceFile()
    trace.start(0, 0, 1000)
    trace.task(0, 1500, 2000, queued=1400)  # submitted at 100, before the worker was ready
    trace.task(0, 5000, 1000, queued=400)  # submitted at 4600, 1100 after the task before
    trace.idle(0, 3500, 1500)
    trace.death(0, 7000, expected=True)
    [worker] = numbers_of(trace).workers
    assert split_of(worker) == [1000, 500 + 400, 3000, 1100 + 1000]
    assert (worker.tasks, worker.starts, worker.deaths) == (2, 1, 1)


def test_idle_although_tasks_were_queued_is_a_wait(numbers_of):
    trace = TraceFile()
    trace.start(0, 0, 100)
    trace.idle(0, 100, 900, queued=3)
    trace.task(0, 1000, 1000, queued=10)
    trace.idle(0, 2000, 500, queued=1)
    trace.idle(0, 2500, 500)
    trace.counter("queue", 3000, queued=0)
    [worker] = numbers_of(trace).workers
    assert split_of(worker) == [100, 900 + 500, 1000, 500]


def test_the_pause_before_a_later_attempt_is_no_wait(numbers_of):
    trace = TraceFile()
    trace.start(0, 0, 100)
    number = trace.task(0, 100, 100, queued=10, outcome="failed", error="ValueError")
    trace.mark("retry", 200, task=number, attempt=2, why="ValueError", delay=0.01)
    trace.task(0, 10_200, 100, number=number, attempt=2, queued=10_000)
    told = numbers_of(trace)
    assert split_of(told.workers[0])[1:] == [0, 200, 10_000]
    assert (told.tasks, told.attempts, told.retried, told.outcomes) == (1, 2, 1, {"done": 1})


def test_a_worker_that_was_there_before_the_trace(numbers_of):
    trace = TraceFile()
    trace.pids[0] = 77
    trace.task(0, 1000, 500, queued=200)
    [worker] = numbers_of(trace).workers
    assert split_of(worker) == [0, 200, 500, 800]
    assert worker.starts == 0


def test_workers_of_one_slot_are_told_apart_by_their_numbers(numbers_of):
    trace = TraceFile()
    trace.start(0, 0, 100)
    trace.task(0, 100, 900, queued=50)
    first = trace.pids[0]
    trace.start(0, 800, 100)  # the replacement is ready before the one that it replaces has ended
    trace.add("i", 1, 1200, cat="death", name="ended", s="t", args={"worker_pid": first, "expected": True})
    trace.task(0, 1000, 200, queued=100)
    told = numbers_of(trace)
    assert split_of(told.workers[0]) == [200, 100, 1100, 200]
    assert [(life.begin, life.end, len(life.tasks)) for life in told.lives.lives] == [(0, 1200, 1), (800, 1200, 1)]


def test_a_worker_that_died_while_it_started(numbers_of):
    trace = TraceFile()
    trace.start(0, 0, 500)
    trace.death(0, 300, exit_code=1)
    trace.counter("busy", 900, workers=0)
    told = numbers_of(trace)
    assert split_of(told.workers[0]) == [300, 0, 0, 0]
    assert told.deaths[0].how == "exit code 1"


def test_functions_are_counted_and_measured(numbers_of):
    trace = TraceFile()
    trace.start(0, 0, 10)
    for duration in range(1, 101):
        trace.task(0, duration * 1000, duration, "a:f", calls=2)
    trace.task(0, 200_000, 9000, "a:g", outcome="failed", error="x")
    told = numbers_of(trace)
    g, f = told.functions
    assert (g.name, f.name) == ("a:g", "a:f")
    assert (f.count, f.calls, f.failed, g.failed) == (100, 200, 0, 1)
    assert [round(each * 1e6) for each in (f.total, f.median, f.p95, f.longest)] == [5050, 50, 95, 100]
    filled = {BOUNDS[index]: count for index, count in enumerate(f.buckets) if count}
    assert filled == {1: 1, 2: 3, 5: 5, 10: 10, 20: 30, 50: 50, 100: 1}
    assert (told.tasks, told.calls, told.outcomes) == (101, 201, {"done": 100, "failed": 1})
    assert told.throughput == pytest.approx(201 / 0.209)
    assert [task.duration for task in told.slowest[:2]] == pytest.approx([0.009, 100e-6])
    assert told.slowest[0].error == "x"


@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_quantiles_are_values_that_were_measured(count):
    values = [float(each) for each in range(count)]
    assert quantile(values, 0.0) == 0
    assert quantile(values, 1.0) == count - 1
    assert sum(value <= quantile(values, 0.5) for value in values) >= count / 2


def test_a_death_names_the_task_that_was_lost(numbers_of):
    trace = TraceFile()
    for slot, signal in ((0, 9), (1, "SIGSEGV")):
        trace.start(slot, 0, 10)
        trace.memory(slot, 20, 50e6)
        trace.task(slot, 20, 10, "a:before")
        trace.task(slot, 100, 900, "a:<lambda>", outcome="crashed", error="WorkerCrashed")
        trace.memory(slot, 900, 800e6)
        trace.death(
            slot, 1000 + slot, "ended", signal=signal, reason="not asked to end", tasks=[2] if slot == 0 else None
        )
    trace.start(0, 2000, 10)
    trace.mark("kill", 3000, 1, why="timeout")
    trace.death(0, 3001, "ended", signal=15, reason="timeout")
    first, second, third = numbers_of(trace).deaths
    assert (first.lost, second.lost, third.lost) == (("2 (a:<lambda>)",), ("4 (a:<lambda>)",), ())
    assert [death.how for death in (first, second, third)] == ["SIGKILL", "SIGSEGV", "SIGTERM"]
    assert (first.memory_first, first.memory_last) == (50e6, 800e6)
    assert [death.asked for death in (first, second, third)] == [False, False, True]


def test_the_memory_of_all_workers_lacks_that_of_the_dead(tmp_path):
    trace = TraceFile()
    for slot in (0, 1):
        trace.start(slot, 0, 10)
        trace.memory(slot, 20 + slot, 100.0)
    trace.death(0, 50)
    trace.memory(0, 60, 30.0)
    series = total_memory(read(str(trace.write(tmp_path / "run.json"))))
    assert (list(series.time), list(series.value)) == ([20, 21, 50, 60], [100, 200, 100, 130])


def test_the_tail_is_the_time_of_the_last_worker_alone(numbers_of):
    trace = TraceFile()
    for slot, end in ((0, 1000), (1, 4000)):
        trace.start(slot, 0, 0)
        trace.task(slot, 0, end, f"a:f{slot}", queued=0)
    tail = numbers_of(trace).tail
    assert (tail.seconds, tail.share, tail.function, tail.number) == (pytest.approx(0.003), 0.75, "a:f1", 2)
    alone = TraceFile()
    alone.task(0, 0, 100, queued=0)
    assert numbers_of(alone).tail is None


def test_the_parts_of_a_simulated_run_add_up(numbers_of):
    told = numbers_of(simulated(2000))
    for life in told.lives.lives:
        assert life.split.total == pytest.approx(life.end - life.begin)
        assert min(life.split.start, life.split.wait, life.split.work, life.split.idle) >= 0
    assert told.split.work == pytest.approx(sum(function.total for function in told.functions))
    assert sum(sum(function.buckets) for function in told.functions) == told.attempts == 2000 + told.retried
    assert len(told.deaths) == told.retried == 13


def test_tasks_that_ended_without_having_run(numbers_of):
    trace = TraceFile()
    trace.start(0, 0, 0)
    trace.task(0, 100, 10)
    for number, outcome in enumerate(("cancelled", "timed out", "cancelled"), 2):
        trace.mark("task", 200, task=number, attempt=0, outcome=outcome, worker_pid=None)
    told = numbers_of(trace)
    assert (told.tasks, told.outcomes, told.unrun) == (1, {"done": 1}, {"cancelled": 2, "timed out": 1})


def test_a_trace_without_tasks(numbers_of):
    trace = TraceFile()
    trace.start(0, 0, 100)
    told = numbers_of(trace)
    assert (told.tasks, told.throughput, told.functions, told.slowest, told.tail) == (0, 0, [], [], None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (2.5e-7, "0.25 µs"), (12e-6, "12 µs"), (0.0034, "3.4 ms"), (0.9994, "999 ms"), (0.9996, "1 s"),
        (1.204, "1.2 s"), (99.4, "99.4 s"), (99.6, "1 min 40 s"), (200, "3 min 20 s"), (7265, "2 h 1 min"),
    ],
)  # fmt: skip
def test_durations_in_words(seconds, text):
    assert words.duration(seconds) == text


def test_other_numbers_in_words():
    assert [words.size(number) for number in (0, 1, 999, 1000, 80_400_000)] == [
        "0 bytes", "1 byte", "999 bytes", "1 kB", "80.4 MB",
    ]  # fmt: skip
    assert [words.share(number) for number in (0, 0.001, 0.62, 0.999, 1)] == ["0 %", "<1 %", "62 %", "99 %", "100 %"]
    assert words.moment(json.loads("1e300")) == "?"
