"""The steps of a worker's loop, each by itself: what it reads, how it runs a call, and what it writes of it."""

from __future__ import annotations

import os
from collections import deque
from types import SimpleNamespace

import pytest

from pidfdpool.process import native
from pidfdpool.serialization import payload, picklers, scripts
from pidfdpool.transport import framing
from pidfdpool.worker import process, rebuild_guard
from pidfdpool.worker.process import Worker
from tests.conditions import in_forked_child

EXIT = framing.Frame(framing.EXIT, 0, 0, 0, [])


def lean(number):
    return number, 0, 1, b"call"


def frame(kind, slot=0, value=0, buffers=()):
    return framing.Frame(kind, slot, 0, value, list(buffers))


@pytest.fixture
def worker():
    """Give a worker without a process of its own; `told` is what its parts were told, in order."""
    worker = Worker.__new__(Worker)
    told = worker.told = []
    worker._queue, worker.stream_orders, worker._unsent = deque(), deque(), deque()
    worker._logs, worker._statm, worker._pid = None, None, os.getpid()
    worker._outdated = False
    worker._send_lock = native.lock()
    worker._send_answer = lambda *answer: told.append(("answer", worker._send_lock.locked(), *answer))
    worker._answers = SimpleNamespace(
        send=lambda pieces: told.append(("send", worker._send_lock.locked(), header_of(pieces))),
        send_posted=lambda: told.append(("posted", worker._send_lock.locked())),
    )
    worker._segments = SimpleNamespace(
        active=False,
        expects_large=False,
        mapped_bytes=0,
        handle_frame=lambda each: told.append(("segment", each.kind)),
        dump_result=lambda result, shared: told.append(("large", result, shared)) or [b"large"],
    )
    worker._handover = SimpleNamespace(add_shared=lambda: told.append("shared"))
    worker._shared = None
    worker._channel = SimpleNamespace(
        receive_lean=lambda: [lean(5)], receive_lean_nowait=lambda: [lean(6)], fileno=lambda: -1
    )
    return worker


def header_of(pieces):
    """Return the kind, slot, generation and value of a frame, and the number of its buffers."""
    kind, count, slot, generation, value = framing.HEADER.unpack_from(pieces[0])
    return kind, slot, generation, value, count


def test_a_worker_goes_on_after_each_call_and_a_copy_of_it_does_not(worker):
    def run():
        worker._pid = os.getpid()
        for function, kind in ((nothing, framing.RESULT), (fail, framing.ERROR)):
            assert worker._run_call(call_of(function))[0] == kind
            pid = os.fork()
            if not pid:
                worker._run_call(call_of(function))
                os._exit(5)
            assert os.waitpid(pid, 0)[1] == 0

    assert in_forked_child(run) == "ok"


# ---- what is read ------------------------------------------------------------------------------------------------


def test_tasks_and_exit_are_queued_in_their_order_and_all_else_is_done_at_once(worker):
    task, order = frame(framing.TASK, value=2), frame(framing.STREAM, value=9)
    mapped = frame(framing.MAP_SEGMENT)
    worker._enqueue([lean(1), order, task, mapped, lean(3), frame(framing.EXPECT_DESCRIPTORS), EXIT])
    assert list(worker._queue) == [lean(1), task, lean(3), EXIT]
    assert list(worker.stream_orders) == [order]
    assert worker.told == [("segment", framing.MAP_SEGMENT), ("segment", framing.EXPECT_DESCRIPTORS)]


def test_small_tasks_are_queued_behind_the_others(worker):
    worker._enqueue([lean(1), lean(2)])
    worker._enqueue([])
    worker._enqueue([lean(3)])
    assert list(worker._queue) == [lean(1), lean(2), lean(3)]
    assert worker.told == []


@pytest.mark.parametrize("forwards", [False, True])
def test_new_levels_are_for_what_forwards_logs(worker, forwards):
    if forwards:
        worker._logs = SimpleNamespace(set_levels=worker.told.append)
    worker._enqueue([frame(framing.LOG_LEVELS, buffers=[b"levels"]), lean(1)])
    assert worker.told == ([b"levels"] if forwards else [])
    assert list(worker._queue) == [lean(1)]


@pytest.mark.parametrize(("wait", "number"), [(True, 5), (False, 6)])
def test_orders_of_a_stream_are_read_with_or_without_a_wait(worker, wait, number):
    worker.read_orders(wait=wait)
    assert list(worker._queue) == [lean(number)]


def test_where_nothing_has_come_nothing_is_read(worker):
    def refuse():
        raise BlockingIOError

    worker._channel.receive_lean_nowait = refuse
    worker.read_orders(wait=False)
    assert not worker._queue


# ---- a call ------------------------------------------------------------------------------------------------------


def call_of(function, *arguments, **keywords):
    return payload.dumps((function, arguments, keywords))


def joined(*arguments, **keywords):
    return arguments, keywords


def nothing():
    return None


def fail():
    raise LookupError("on purpose")


@pytest.mark.parametrize("named", [False, True])
def test_a_call_is_run_and_cleared_and_its_result_pickled(worker, named):
    from pidfdpool.serialization import named_calls

    call = [named_calls.dumps(joined, (1,))] if named else call_of(joined, 1, two=2)
    kind, buffers = worker._run_call(call)
    assert (kind, payload.loads(buffers)) == (framing.RESULT, ((1,), {} if named else {"two": 2}))
    assert call == []
    assert worker.told == []
    assert rebuild_guard.state.activity is None


@pytest.mark.parametrize("large", [False, True])
def test_a_result_that_is_probably_large_is_for_the_segments_but_none_is_not(worker, large):
    worker._segments.expects_large = large
    worker._shared = "shared"
    assert worker._run_call(call_of(nothing)) == (framing.RESULT, [payload.NONE])
    assert worker.told == []
    worker._shared = payload.ReceivedMain()
    _, buffers = worker._run_call(call_of(joined))
    assert worker.told == ([("large", ((), {}), worker._shared)] if large else [])
    assert (buffers == [b"large"]) is large


def test_a_call_that_fails_is_an_error_and_nothing_is_being_rebuilt_any_more(worker):
    kind, buffers = worker._run_call(call_of(fail))
    assert (kind, type(payload.load_error(buffers))) == (framing.ERROR, LookupError)
    assert rebuild_guard.state.activity is None
    kind, buffers = worker._run_call([b"no pickle"])
    assert kind == framing.ERROR
    assert rebuild_guard.state.activity is None, "though it could not be rebuilt"
    assert not getattr(payload.load_error(buffers), "__notes__", [])


def test_a_result_that_cannot_be_pickled_is_told_as_that(worker):
    kind, buffers = worker._run_call(call_of(native.lock))
    assert kind == framing.ERROR
    (note,) = [note for note in payload.load_error(buffers).__notes__ if "cannot be pickled" in note]
    assert "lock" in note


def test_a_call_that_needs_the_script_has_not_run(worker, monkeypatch):
    def load(_):
        raise scripts.NeedsScript

    monkeypatch.setattr(payload, "loads", load)
    assert worker._run_call([b"call."]) == (framing.OUTDATED, [])
    assert rebuild_guard.state.activity is None


@pytest.mark.parametrize("function", [nothing, fail])
def test_what_a_result_shares_is_kept_for_the_host_to_fetch(worker, monkeypatch, function):
    monkeypatch.setattr(picklers, "shared_resources", ["resource"])
    worker._run_call(call_of(function))
    assert worker.told == ["shared"]


@pytest.mark.parametrize("function", [nothing, fail])
def test_what_a_task_has_printed_is_flushed_before_the_answer(worker, monkeypatch, function):
    monkeypatch.setattr(process.hygiene, "flush_output", lambda: worker.told.append("flushed"))
    worker._run_call(call_of(function))
    assert worker.told == ["flushed"]


# ---- what is written ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("posted", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_an_answer_tells_flags_duration_and_memory_and_what_was_posted_follows_it(worker, count, posted):
    if posted:
        worker._unsent.append([b"posted"])
    worker._statm, worker._memory = 5, lambda: 77
    worker._write(framing.RESULT, 100.47, 100.5, framing.HAS_SEGMENT_FLAGS, 9, [b"part"] * count)
    slot = framing.encode_duration(100.5 - 100.47) | framing.HAS_SEGMENT_FLAGS
    assert slot >> 4 > 100
    if count == 1:
        written = ("answer", True, framing.RESULT, slot, 77, 9, b"part")
    else:
        written = ("send", True, (framing.RESULT, slot, 77, 9, count))
    assert worker.told == [written, *([("posted", False)] if posted else [])]
    assert not worker._send_lock.locked()


def test_without_a_look_at_memory_an_answer_tells_none(worker):
    worker._memory = lambda: 77
    worker._write(framing.ERROR, 100.5, 100.5, 0, 9, [b"part"])
    assert worker.told[0][4] == 0
    assert not worker._outdated


def test_a_task_that_needs_the_script_has_no_answer(worker):
    worker._statm, worker._memory = 5, lambda: 77
    worker._write(framing.OUTDATED, 100.0, 100.5, framing.HAS_SEGMENT_FLAGS, 9, [b"part"])
    assert worker.told == [("send", True, (framing.OUTDATED, 0, 0, 1, 0))]
    assert worker._outdated


def test_a_lock_is_released_though_the_host_is_gone(worker):
    def gone(*_):
        raise BrokenPipeError

    worker._send_answer = worker._answers.send = gone
    for count in (1, 2):
        with pytest.raises(BrokenPipeError):
            worker._write(framing.RESULT, 100.0, 100.5, 0, 9, [b"part"] * count)
        assert not worker._send_lock.locked()


def test_a_task_with_segments_that_could_not_be_received_is_answered_as_one(worker):
    answers = []
    worker._write = lambda kind, began, ended, flags, number, buffers: answers.append((kind, flags, number))
    for slot in (framing.HAS_LEASE, framing.CALL_IN_SEGMENT, framing.HAS_DEADLINE):
        task = framing.Frame(framing.TASK, slot, 1, 9, framing.MissingBuffers(10))
        worker._answer(task)
    with_flags = (framing.ERROR, framing.HAS_SEGMENT_FLAGS, 9)
    assert answers == [with_flags, with_flags, (framing.ERROR, 0, 9)]


def test_a_task_that_took_long_is_told_so_from_its_beginning(worker, monkeypatch):
    answers, now = [], iter([10.0, 11.0, 12.0, 13.0])
    monkeypatch.setattr(process.time, "monotonic", lambda: next(now))
    worker._write = lambda *answer: answers.append(answer)
    worker._run_call = lambda call: (framing.RESULT, call)
    worker._answer_usual(8, 1, [b"usual"])
    worker._answer(framing.Frame(framing.TASK, 0, 1, 9, [b"call"]))
    assert answers == [
        (framing.RESULT, 10.0, 11.0, 0, 8, [b"usual"]),
        (framing.RESULT, 12.0, 13.0, 0, 9, [b"call"]),
    ]


@pytest.mark.parametrize("attempt", [1, 3])
def test_a_task_without_flags_is_known_while_it_runs_and_forgotten_even_if_it_is_interrupted(worker, attempt):
    from pidfdpool.worker import context

    seen = []

    def interrupted(_call):
        seen.append(tuple(context.current_task()))
        raise KeyboardInterrupt

    worker._run_call = interrupted
    with pytest.raises(KeyboardInterrupt):
        worker._answer_usual(8, attempt, [b"usual"])
    assert seen == [(8, attempt, None)]
    assert context.current_task() is None


# ---- memory ------------------------------------------------------------------------------------------------------

KIB = os.sysconf("SC_PAGE_SIZE") // 1024


@pytest.mark.parametrize(
    ("text", "mapped", "kib"),
    [
        (b"900 100 20 1 0 9 0\n", 0, 100 * KIB),
        (b"900 100 20 1 0 9 0\n", 10 << 10, 100 * KIB - 10),
        (b"900 100 20 1 0 9 0\n", 1 << 30, 80 * KIB),
        (b"900 99999999999999 20 1\n", 0, 2**32 - 1),
        (b"900 1\n", 0, 0),
        (b"", 0, 0),
        (b"900 x y\n", 0, 0),
    ],
)
def test_memory_is_what_is_resident_without_the_pools_segments(worker, text, mapped, kib):
    worker._statm = os.memfd_create("statm")
    os.write(worker._statm, text)
    worker._segments.mapped_bytes = mapped
    assert worker._memory() == kib
    assert worker._memory() == kib, "it is read from the start each time"
    native.close(worker._statm)
    assert worker._memory() == 0
