"""A worker from its first frame to its exit, with the test as its host."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from multiprocessing import current_process, parent_process

import pytest

from pidfdpool import current_task, heartbeat, unhealthy
from pidfdpool.process import native
from pidfdpool.serialization import payload, scripts
from pidfdpool.transport import black_box, framing, run_times
from pidfdpool.worker import chunk, context, mark, rebuild_guard
from tests.conditions import eventually, open_descriptors
from tests.worker.own_worker import MARK, OwnWorker


@pytest.fixture
def worker():
    with OwnWorker() as worker:
        assert worker.receive().kind == framing.READY
        yield worker


def who_am_i():
    with open("/proc/self/comm") as name:
        me = current_process()
        return (
            name.read().strip(),
            me.name,
            me._identity,
            parent_process().pid,
            parent_process().name,
            bytes(me.authkey),
        )


def double(number):
    return 2 * number


def fail(what):
    raise LookupError(what)


def test_it_is_ready_runs_its_tasks_in_their_order_and_exits_when_it_is_told_to(worker):
    assert worker.run(1, who_am_i) == (
        "pidfd-worker3", "PidfdPoolWorker-3", (4,), os.getpid(), "TheHost", b"k",
    )  # fmt: skip
    for number in range(2, 6):
        worker.send_task(number, double, number)
    assert [worker.result() for _ in range(4)] == [(number, 2 * number) for number in range(2, 6)]
    worker.send_exit()
    assert worker.status() == 0


def test_it_exits_when_the_host_is_gone(worker):
    worker.channel.close()
    assert worker.status() == 0


def test_it_exits_when_nobody_reads_its_answers_any_more(worker):
    worker.answers.close()
    worker.send_task(1, double, 1)
    assert worker.status() == 0


@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt, SystemExit])
def test_an_error_of_a_task_is_its_answer_and_not_the_workers_end(worker, error):
    worker.send_task(1, raise_it, error)
    frame = worker.receive()
    assert (frame.kind, frame.value) == (framing.ERROR, 1)
    assert type(payload.load_error(frame.buffers)) is error
    assert worker.run(2, double, 2) == 4


def raise_it(error):
    raise error("on purpose")


@pytest.mark.parametrize("value", [None, 0, "text", [1, 2], b"x" * 100_000])
def test_results_of_all_kinds_arrive(worker, value):
    assert worker.run(1, return_it, value) == value


def return_it(value):
    return value


# ---- what a task finds ---------------------------------------------------------------------------------------------


def task_and_state():
    state = rebuild_guard.state
    return (
        tuple(current_task()),
        state.activity,
        mark.of(0),
        context.worker.pid == os.getpid(),
        context.worker.siblings,
    )


def test_a_task_finds_what_the_host_has_told_of_it():
    with OwnWorker(pool_size=4) as worker:
        assert worker.receive().kind == framing.READY
        assert worker.run(7, task_and_state, attempt=2) == ((7, 2, None), None, MARK, True, 4)
        until = framing.DEADLINE.pack(5.5)
        found = worker.run(8, task_and_state, flags=framing.HAS_DEADLINE, more=[until])
        assert found == ((8, 1, 5.5), None, MARK, True, 4)
        assert worker.run(9, task_and_state, flags=framing.SPARE_DESCENDANTS)[2] != MARK
        assert worker.run(10, task_and_state)[2] == MARK


class Activity:
    """When it is rebuilt, it is what the worker was recorded to be doing then."""

    def __reduce__(self):
        return activity, ()


def activity():
    return rebuild_guard.state.activity, len(rebuild_guard.state.unrelated_threads)


def seen(first):
    return first, rebuild_guard.state.activity


def start_thread():
    threading.Thread(target=threading.Event().wait, args=(60,), daemon=True).start()


class FailsAtRebuilding:
    def __reduce__(self):
        return fail, ("at rebuilding",)


def test_it_is_recorded_while_a_call_is_rebuilt_and_which_threads_have_nothing_to_do_with_it(worker):
    assert worker.run(1, seen, Activity()) == ((rebuild_guard.CALL, 0), None)
    worker.run(2, start_thread)
    assert worker.run(3, seen, Activity()) == ((rebuild_guard.CALL, 1), None)
    worker.send_task(4, seen, FailsAtRebuilding())
    assert worker.receive().kind == framing.ERROR
    assert (
        worker.run(5, eval, "__import__('pidfdpool.worker.rebuild_guard').worker.rebuild_guard.state.activity")
        is None
    )


def test_what_chunks_need_of_the_worker_is_there(worker):
    assert worker.run(1, parts_for_chunks) == ("InheritedMain", True)


def parts_for_chunks():
    return type(chunk.shared_main).__name__, os.fstat(chunk.black_box_fd).st_size > 0


def test_a_fresh_interpreter_shares_nothing_of_the_hosts_main():
    initializer = payload.dumps((note, ("set up",)))
    with OwnWorker(forked=False, initializer=initializer) as worker:
        assert worker.receive().kind == framing.READY
        assert worker.run(1, parts_for_chunks) == ("ReceivedMain", True)
        assert worker.run(2, noted) == ["set up"]


NOTED: list = []


def note(what):
    NOTED.append(what)


def noted():
    return NOTED


# ---- what a worker says beside its answers -----------------------------------------------------------------------


def test_a_heartbeat_is_recorded(worker):
    assert black_box.last_heartbeat(worker.box) is None
    worker.run(1, heartbeat)
    assert black_box.last_heartbeat(worker.box) > 0


def test_an_unhealthy_worker_says_why_answers_and_begins_nothing_more(worker):
    worker.send_task(1, unhealthy, "tired \ud800")
    worker.send_task(2, double, 2)
    reason = worker.receive()
    assert (reason.kind, bytes(reason.buffers[0])) == (framing.UNHEALTHY, b"tired \\ud800")
    assert worker.result() == (1, None)
    worker.send_exit()
    assert worker.result() == (2, 4), "nobody has taken its token back"
    assert worker.status() == 0


@pytest.mark.parametrize("watched", [False, True])
def test_an_answer_tells_the_memory_if_that_is_watched(watched):
    with OwnWorker(watch_memory=watched) as worker:
        assert worker.receive().kind == framing.READY
        for number, function in ((1, double), (2, fail)):
            worker.send_task(number, function, 1)
            found = worker.receive().generation
            assert (1 << 12 < found < 1 << 22) if watched else found == 0, "in KiB"


def test_a_closed_statm_makes_no_answer_fail():
    with OwnWorker(watch_memory=True) as worker:
        assert worker.receive().kind == framing.READY
        worker.send_task(1, close_statm)
        assert worker.receive().generation == 0
        assert worker.run(2, double, 2) == 4


def close_statm():
    for fd, path in open_descriptors().items():
        if path.endswith("/statm"):
            native.close(fd)


def test_when_tasks_run_is_recorded_as_long_as_that_is_wanted(worker):
    def entries():
        data = os.pread(worker.box, run_times.ENTRY.size * 4, black_box.RUN_TIMES_OFFSET)
        return [entry[0] for entry in run_times.ENTRY.iter_unpack(data) if entry[0]]

    worker.run(1, double, 1)
    worker.send(framing.RECORD_TIMES, 1)
    worker.run(2, double, 1)
    worker.run(3, double, 1)
    assert entries() == [2, 3]
    worker.send(framing.RECORD_TIMES, 0)
    worker.run(4, double, 1)
    assert entries() == [2, 3]


def test_what_a_task_writes_is_there_when_its_answer_is(worker, tmp_path):
    worker.run(1, print_into, str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "printed\n"


def print_into(path):
    sys.stdout = open(path, "w")  # it stays open, and is not flushed
    print("printed")


def test_the_stack_of_a_task_is_written_when_it_is_ended(worker, tmp_path):
    worker.send_task(1, hang, str(tmp_path / "hangs"))
    eventually((tmp_path / "hangs").exists, "it runs")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(40)
    assert "in hang" in black_box.read_stack(worker.box)


def hang(path):
    os.mkdir(path)
    threading.Event().wait(60)


# ---- the initializer -----------------------------------------------------------------------------------------------


def fail_and_log(path):
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logging.getLogger("concurrent.futures").addHandler(handler)
    fail("set up")


def test_an_initializer_that_fails_is_told_and_logged_and_ends_the_worker_with_an_error_code(tmp_path):
    with OwnWorker(initializer=(fail_and_log, (str(tmp_path / "log"),))) as worker:
        frame = worker.receive()
        assert frame.kind == framing.INITIALIZER_FAILED
        error = payload.load_error(frame.buffers)
        assert (type(error), error.args) == (LookupError, ("set up",))
        assert worker.status() == 1
    told, logged = str(error.__cause__), (tmp_path / "log").read_text()
    assert logged.startswith("CRITICAL Exception in initializer:\nTraceback (most recent call last):\n")
    for text in (told, logged):
        assert "in run_initializer" in text
        assert "in fail_and_log" in text
        assert "in _initialize" not in text, "the loop's own frames are cut"


def test_an_initializer_that_needs_the_script_is_told_so():
    def initialize():
        raise scripts.NeedsScript

    with OwnWorker(initializer=(initialize, ())) as worker:
        frame = worker.receive()
        assert (frame.kind, frame.value) == (framing.OUTDATED, 1)
        assert worker.status() == 1


def test_a_call_that_needs_the_script_is_told_and_ends_the_worker(worker):
    worker.send_task(1, seen, NeedsScriptWhenRebuilt())
    frame = worker.receive()
    assert (frame.kind, frame.value) == (framing.OUTDATED, 1)
    assert worker.status() == 0


class NeedsScriptWhenRebuilt:
    def __reduce__(self):
        return need_script, ()


def need_script():
    raise scripts.NeedsScript
