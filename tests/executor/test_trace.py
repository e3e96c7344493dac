"""Traces of real pools: what is in the file, and what becomes of it and of the pool when something goes wrong."""

from __future__ import annotations

import gc
import io
import json
import logging
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest

import pidfdpool
from pidfdpool import PidfdPoolExecutor, PoolBroken, SerialExecutor
from pidfdpool.executor.tracing.sink import Sink
from tests import calls, observed_calls
from tests.conditions import eventually, run_python


def lines_of(path):
    """Return the events of a file that may lack its end, as a tolerant reader does."""
    lines = pathlib.Path(path).read_text().splitlines()
    assert lines[0] == "["
    events = []
    for line in lines[1:]:
        if line == "]":
            break
        try:
            events.append(json.loads(line.removesuffix(",")))
        except ValueError:
            assert line is lines[-1], "only the last line may be cut off"
    return events


def whole(path):
    """Return the events of a complete file, which is valid JSON with an event in each line."""
    text = pathlib.Path(path).read_text()
    events = json.loads(text)
    assert len(text.splitlines()) == len(events) + 2
    assert events == lines_of(path)
    return events


def tasks_in(events):
    return [event for event in events if event.get("cat") == "task"]


def check(events):
    """Hold what every trace has to be like."""
    header = events[0]
    assert (header["ph"], header["name"], header["tid"]) == ("M", "pidfdpool", 0)
    assert header["args"]["format"] == 1
    assert {event["pid"] for event in events} == {os.getpid()}
    flows, ends = {}, {}
    for event in events:
        assert event.get("ts", 0) >= 0
        if event.get("cat") == "flow":
            flows.setdefault(event["id"], []).append((event["ph"], event["ts"]))
        if event.get("cat") == "task" and event["ph"] == "X":
            assert ends.get(event["tid"], 0.0) <= event["ts"] + 0.002, "tasks of a worker do not overlap"
            ends[event["tid"]] = event["ts"] + event["dur"]
    for number, steps in flows.items():
        assert [kind for kind, _ in steps] == ["s", "t", "f"] * (len(steps) // 3), number
        times = [at for _, at in steps]
        assert times == sorted(times), number
    named = {event["tid"] for event in events if event["name"] == "thread_name"}
    assert {event["tid"] for event in events} <= named


def observation_of(pool):
    return pool._pool.core.resolver.observation


def test_everything_that_happens_is_in_the_file(way, tmp_path, sure_of_deaths):
    path, held = tmp_path / "run.json", str(tmp_path / "held")
    options = {"retry_backoff": 0.0, "initializer": time.sleep, "initargs": (0.001,), "preload": "json"}
    with PidfdPoolExecutor(2, mp_context=way, **options) as pool:
        with pool.trace(path) as trace:
            futures = [pool.submit(abs, -index) for index in range(500)]
            assert [future.result() for future in futures] == list(range(500))
            assert sum(pool.map(calls.double, range(100), chunksize=10)) == 9900
            bad = [
                pool.submit(int, "no number"),
                pool.submit(calls.die),
                pool.options(timeout=0.1, grace=0.1).submit(time.sleep, 60),
                pool.options(retries=1).submit(calls.fail_until, str(tmp_path / "path"), 2, "crash"),
            ]
            assert [future.exception() is None for future in bad] == [False, False, False, True]
            killed = [pool.submit(calls.run_until, f"{held}{index}", f"{held}.release") for index in (0, 1)]
            waiting = pool.submit(abs, 1)
            eventually(lambda: os.path.exists(f"{held}0") and os.path.exists(f"{held}1"), "both run")
            assert waiting.cancel()
            for future in killed:
                future.kill()
                assert future.exception() is not None
        assert observation_of(pool) is None
        assert (trace.dropped, trace.error) == (0, None)
        pool.submit(abs, 1).result()
    events = whole(path)
    check(events)
    args = events[0]["args"]
    assert args["version"] == pidfdpool.__version__
    assert args["max_workers"] == 2
    assert args["start_method"] == ("fork" if way == "fork" else "exec")
    assert abs(args["started"] - time.time()) < 600
    tasks = tasks_in(events)
    outcomes = [task["args"]["outcome"] for task in tasks]
    assert {outcome: outcomes.count(outcome) for outcome in outcomes} == {
        "done": 500 + 10 + 1, "failed": 1, "crashed": 2, "timed out": 1, "killed": 2, "cancelled": 1,
    }  # fmt: skip
    assert len({(task["args"]["task"], task["args"]["attempt"]) for task in tasks}) == len(tasks)
    chunks = [task["args"]["calls"] for task in tasks if task["name"] == "tests.calls.double"]
    assert chunks == [10] * 10
    assert all(task["args"]["request_bytes"] > 0 for task in tasks)
    for cat, least in {"start": 2, "death": 4, "kill": 3, "retry": 1, "template": 2}.items():
        assert len([event for event in events if event.get("cat") == cat]) >= least, cat
    starts = {event["name"] for event in events if event.get("cat") == "start"}
    assert starts == {"start", "preload", "initializer"}
    counters = {event["name"] for event in events if event["ph"] == "C"}
    assert {"queue", "busy"} <= counters <= {"queue", "busy", "memory"}


def test_a_trace_may_begin_midway_and_there_may_be_several(pool, tmp_path):
    paths = [tmp_path / name for name in ("first", "second", "third")]
    futures = [pool.submit(abs, -index) for index in range(2000)]
    with pool.trace(str(paths[0])):
        futures += [pool.submit(abs, -index) for index in range(2000)]
        with pool.trace(os.fsencode(paths[1])):
            futures += [pool.submit(abs, -index) for index in range(2000)]
            for future in futures:
                future.result()
        pool.submit(abs, 1).result()
    with pool.trace(paths[2]):
        pass
    counts = []
    for path in paths:
        events = whole(path)
        check(events)
        counts.append(len(tasks_in(events)))
    assert 4001 <= counts[0] <= 6002
    assert 2000 <= counts[1] <= counts[0] - 1
    assert counts[2] == 0


def test_workers_that_are_recycled_are_told(tmp_path):
    with PidfdPoolExecutor(1, max_tasks_per_child=2) as pool, pool.trace(tmp_path / "run.json"):
        for _ in range(5):
            pool.submit(abs, 1).result()
    events = whole(tmp_path / "run.json")
    check(events)
    assert [event["args"]["why"] for event in events if event.get("cat") == "recycle"] == [
        "it had run its share of tasks"
    ] * 2
    assert len([event for event in events if event.get("cat") == "start"]) >= 3


def test_the_file_grows_while_the_pool_runs(pool, tmp_path):
    path = tmp_path / "run.json"
    with pool.trace(path):
        pool.submit(abs, 1).result()
        eventually(lambda: tasks_in(lines_of(path)), "the task is in the file")
        assert "]" not in path.read_text().splitlines()
        eventually(
            lambda: any(event["name"] == "memory" for event in lines_of(path)), "the workers' memory is in the file"
        )


def test_the_file_of_a_host_that_was_killed_can_be_read(tmp_path):
    path = tmp_path / "run.json"
    code = f"""
        import sys, time
        from pidfdpool import PidfdPoolExecutor
        if __name__ == "__main__":
            with PidfdPoolExecutor(2) as pool, pool.trace({str(path)!r}):
                print("begun", flush=True)
                while True:
                    for future in [pool.submit(abs, -1) for _ in range(100)]:
                        future.result()
    """
    script = tmp_path / "script.py"
    script.write_text("\n".join(line[8:] for line in code.splitlines()))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as host:
        assert host.stdout.readline() == b"begun\n"
        eventually(lambda: path.stat().st_size > 100_000, "it has written some")
        host.kill()
    events = lines_of(path)
    assert len(tasks_in(events)) > 10
    assert events[0]["args"]["format"] == 1


def test_a_text_file_of_the_users_is_written_and_left_open(pool, tmp_path):
    buffer = io.StringIO()
    with pool.trace(buffer):
        pool.submit(abs, -1).result()
    assert len(tasks_in(json.loads(buffer.getvalue()))) == 1
    with open(tmp_path / "run.json", "w") as file, pool.trace(file):
        pool.submit(abs, -1).result()
    assert len(tasks_in(whole(tmp_path / "run.json"))) == 1


def test_a_pipe_is_written_when_the_trace_is_left(pool):
    read, write = os.pipe()
    with open(read) as reader:
        with pool.trace(f"/proc/self/fd/{write}"):
            pool.submit(abs, -1).result()
        os.close(write)
        assert len(tasks_in(json.loads(reader.read()))) == 1


# ---- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "error", "text"),
    [
        ("{tmp}/missing/run.json", FileNotFoundError, "missing/run.json"),
        ("{tmp}", IsADirectoryError, "{tmp}"),
        ("/dev/full", OSError, "No space left on device: '/dev/full'"),
        (7, TypeError, "path must be a path or a text file that is open for writing, not 7"),
        (None, TypeError, "not None"),
        (io.BytesIO(), TypeError, "path must be a file that takes text, not <_io.BytesIO"),
        ("a\0b", ValueError, "null"),
    ],
    ids=["missing", "directory", "full", "number", "nothing", "binary", "null"],
)
def test_what_cannot_be_written_is_said_when_the_block_is_entered(pool, tmp_path, path, error, text):
    if isinstance(path, str):
        path = path.format(tmp=tmp_path)
    with pytest.raises(error, match=text.format(tmp=tmp_path)), pool.trace(path):
        pytest.fail("it was entered")
    assert observation_of(pool) is None
    assert pool.submit(abs, -1).result() == 1


def test_a_closed_file_and_one_for_reading_are_refused(pool, tmp_path):
    (tmp_path / "read").write_text("what is here stays")
    closed = io.StringIO()
    closed.close()
    with pytest.raises(ValueError, match="cannot be written: I/O operation on closed file"), pool.trace(closed):
        pytest.fail("it was entered")
    with (
        open(tmp_path / "read") as file,
        pytest.raises(ValueError, match="read.* cannot be written: not writable"),
        pool.trace(file),
    ):
        pytest.fail("it was entered")
    assert (tmp_path / "read").read_text() == "what is here stays"


@pytest.mark.parametrize("limit", [0, -1, 1.5, "many", True])
def test_a_limit_that_makes_no_sense_is_refused(pool, limit):
    with pytest.raises((TypeError, ValueError), match="max_events must be"):
        pool.trace("run.json", max_events=limit)


def test_two_traces_do_not_write_one_file(pool, tmp_path):
    path = tmp_path / "run.json"
    (tmp_path / "link").symlink_to(path)
    with pool.trace(path):
        pool.submit(abs, -1).result()
        with pytest.raises(ValueError, match="is written by another trace of this process"):
            pool.trace(tmp_path / "link").__enter__()
        with PidfdPoolExecutor(1) as other, pytest.raises(ValueError, match="is written by another"):
            other.trace(path).__enter__()
    assert len(tasks_in(whole(path))) == 1
    with pool.trace(path):
        pass
    assert tasks_in(whole(path)) == [], "the next one may"


def test_two_traces_do_not_write_one_file_that_the_user_has_opened(pool, tmp_path):
    path = tmp_path / "run.json"
    for opened in (io.StringIO, lambda: path.open("w")):
        with opened() as file:
            for _ in range(2):
                with pool.trace(file):
                    with (
                        PidfdPoolExecutor(1) as other,
                        pytest.raises(ValueError, match="is written by another trace"),
                    ):
                        other.trace(file).__enter__()
    with path.open("a") as file, pool.trace(file), pytest.raises(ValueError, match="is written by another trace"):
        pool.trace(path).__enter__()
    with pool.trace(io.StringIO()), pool.trace(io.StringIO()):
        pass


def test_a_trace_that_was_forgotten_leaves_its_file_to_the_next():
    """Its file's address may be that of another file by then."""
    file = io.StringIO()
    forgotten = Sink(file)
    with pytest.raises(ValueError, match="is written by another trace"):
        Sink(file)
    del forgotten
    gc.collect()
    Sink(file).close()


def test_a_trace_in_another_has_only_what_ends_after_its_begin(pool, tmp_path):
    with pool.trace(tmp_path / "outer.json"):
        for _ in range(50):
            pool.submit(abs, -1).result()
        with pool.trace(tmp_path / "inner.json"):
            pool.submit(abs, -1).result()
    assert len(tasks_in(whole(tmp_path / "inner.json"))) == 1
    assert len(tasks_in(whole(tmp_path / "outer.json"))) == 51


def test_a_trace_is_used_once(pool, tmp_path):
    trace = pool.trace(tmp_path / "run.json")
    assert (trace.dropped, trace.error) == (0, None)
    with trace:
        with pytest.raises(RuntimeError, match="a trace is used once"):
            trace.__enter__()
        pool.submit(abs, -1).result()
    with pytest.raises(RuntimeError, match="a trace is used once"):
        trace.__enter__()
    assert len(tasks_in(whole(tmp_path / "run.json"))) == 1


def test_a_pool_that_is_shut_down_or_broken_is_not_traced(tmp_path):
    pool = PidfdPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        pool.trace(tmp_path / "run.json").__enter__()
    with PidfdPoolExecutor(1, on_crash="break") as pool:
        assert pool.submit(calls.die).exception() is not None
        eventually(lambda: pool.stats().broken, "it is broken")
        with pytest.raises(PoolBroken):
            pool.trace(tmp_path / "run.json").__enter__()
    assert not (tmp_path / "run.json").exists()


def test_a_serial_executor_refuses(tmp_path):
    with SerialExecutor() as executor, pytest.raises(RuntimeError, match="nothing to trace to .*run.json"):
        executor.trace(tmp_path / "run.json")


def test_the_shared_pool_is_traced_as_any_other(tmp_path):
    pool = pidfdpool.get_shared_executor(1)
    with pool.trace(tmp_path / "run.json"):
        pool.submit(abs, -1).result()
    pool.shutdown()
    assert len(tasks_in(whole(tmp_path / "run.json"))) == 1


# ---- what goes wrong meanwhile -----------------------------------------------------------------------------------


def test_a_full_disk_ends_the_trace_and_nothing_else(tmp_path):
    done = run_python(
        f"""
        import resource
        from pidfdpool import PidfdPoolExecutor
        if __name__ == "__main__":
            with PidfdPoolExecutor(2) as pool:
                pool.prestart()
                resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
                with pool.trace({str(tmp_path / "run.json")!r}) as trace:
                    futures = [pool.submit(abs, -index) for index in range(1000)]
                    assert [future.result() for future in futures] == list(range(1000))
                assert pool._pool.core.resolver.observation is None
                assert pool.submit(abs, -1).result() == 1
                print(type(trace.error).__name__, trace.error.strerror)
        """
    )
    assert done.stdout == "OSError File too large\n"
    assert done.stderr.startswith("the trace '")
    assert "run.json' ends early, because it cannot be written: [Errno 27] File too large\n" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert lines_of(tmp_path / "run.json")


def test_a_file_that_its_owner_closes_ends_the_trace_and_nothing_else(pool, caplog):
    buffer = io.StringIO()
    with caplog.at_level(logging.WARNING, logger="pidfdpool"), pool.trace(buffer) as trace:
        pool.submit(abs, -1).result()
        buffer.close()
        assert pool.submit(abs, -1).result() == 1
    assert isinstance(trace.error, ValueError)
    (record,) = [record for record in caplog.records if "ends early" in record.message]
    assert "I/O operation on closed file" in record.message
    assert observation_of(pool) is None


def test_what_is_beyond_the_limit_is_counted_and_said(pool, tmp_path, caplog):
    with (
        caplog.at_level(logging.WARNING, logger="pidfdpool"),
        pool.trace(tmp_path / "run.json", max_events=600) as trace,
    ):
        for future in [pool.submit(abs, -index) for index in range(1000)]:
            future.result()
    events = whole(tmp_path / "run.json")
    told = len(tasks_in(events))
    assert told <= 100
    assert trace.dropped == 1000 - told
    assert [event["args"] for event in events if event.get("cat") == "dropped"] == [{"count": trace.dropped}]
    assert f"does not tell of {trace.dropped} tasks: it is limited to 600 events" in caplog.text


@pytest.mark.parametrize("how", ["shutdown", "kill", "break", "collect"])
def test_a_pool_may_end_inside_the_block(tmp_path, how):
    path = tmp_path / "run.json"
    pool = PidfdPoolExecutor(1, on_crash="break")
    trace = pool.trace(path)
    with trace:
        for future in [pool.submit(abs, -index) for index in range(100)]:
            future.result()
        if how == "shutdown":
            pool.shutdown()
        elif how == "kill":
            future = pool.submit(time.sleep, 60)
            eventually(future.running, "it runs")
            pool.kill_workers()
            assert future.exception() is not None
            pool.shutdown()
        elif how == "break":
            assert pool.submit(calls.die).exception() is not None
        else:
            del pool
    if how == "break":
        pool.shutdown()
    events = whole(path)
    check(events)
    outcomes = [task["args"]["outcome"] for task in tasks_in(events)]
    assert outcomes == ["done"] * 100 + {"kill": ["killed"], "break": ["crashed"]}.get(how, [])
    del trace
    gc.collect()


def test_a_child_that_is_forked_inside_writes_nothing(pool, tmp_path):
    path = tmp_path / "run.json"
    with pool.trace(path) as trace:
        pool.submit(abs, -1).result()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                assert pool.submit(abs, -2).result() == 2
                trace.__exit__(None, None, None)
                with pool.trace(tmp_path / "child.json"):
                    pool.submit(abs, -2).result()
                pool.shutdown()
                assert len(tasks_in(json.loads((tmp_path / "child.json").read_text()))) == 1
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        pool.submit(abs, -1).result()
    events = whole(path)
    check(events)
    assert len(tasks_in(events)) == 2


@pytest.mark.parametrize("how", ["sys.exit(3)", "os.kill(os.getpid(), signal.SIGINT)", "stack.pop_all()"])
def test_the_interpreter_may_end_inside_the_block(tmp_path, how):
    path = tmp_path / "run.json"
    done = run_python(
        f"""
        import contextlib, os, signal, sys
        from pidfdpool import PidfdPoolExecutor
        if __name__ == "__main__":
            with contextlib.ExitStack() as stack:
                pool = stack.enter_context(PidfdPoolExecutor(1))
                stack.enter_context(pool.trace({str(path)!r}))
                for future in [pool.submit(abs, -index) for index in range(100)]:
                    future.result()
                kept = {how}
                if kept is None:
                    signal.pause()
        """
    )
    assert "trace" not in done.stderr
    events = lines_of(path)
    assert [task["args"]["outcome"] for task in tasks_in(events)] == ["done"] * 100
    assert path.read_text().endswith("\n]\n")


def test_nothing_is_held_that_the_pool_would_let_go(pool, tmp_path):
    with pool.trace(tmp_path / "run.json"):
        argument = observed_calls.Referable()
        future = pool.submit(observed_calls.same, argument)
        result = future.result()
        references = [weakref.ref(each) for each in (argument, result, future)]
        del argument, result, future
        eventually(
            lambda: gc.collect() is not None and not any(reference() for reference in references),
            "all is let go when the thread that has read the answer is done with it",
        )


def test_no_thread_is_added(pool, tmp_path):
    before = set(threading.enumerate())
    with pool.trace(tmp_path / "run.json"):
        pool.submit(abs, -1).result()
        assert set(threading.enumerate()) <= before


def test_a_slow_reader_of_the_users_does_not_hold_up_the_pool(pool):
    class Slow(io.StringIO):
        def write(self, text):
            assert threading.current_thread() is threading.main_thread()
            return super().write(text)

    slow = Slow()
    with pool.trace(slow):
        for future in [pool.submit(abs, -index) for index in range(1000)]:
            future.result()
        time.sleep(0.01)
    assert len(tasks_in(json.loads(slow.getvalue()))) == 1000


def test_the_executor_lives_as_long_as_its_trace():
    buffer = io.StringIO()
    with PidfdPoolExecutor(1).trace(buffer) as trace:
        executor = trace._executor
        assert executor.submit(abs, -1).result() == 1
        executor.shutdown()
        del executor
    assert len(tasks_in(json.loads(buffer.getvalue()))) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
