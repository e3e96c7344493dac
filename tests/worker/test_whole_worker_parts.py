"""What a whole worker sets up before its first task, does at its exit, and says without being asked."""

from __future__ import annotations

import atexit
import faulthandler
import itertools
import logging
import os
import pickle
import signal
import threading
from multiprocessing.process import BaseProcess

import pytest

from pidfdpool.serialization import payload
from pidfdpool.transport import framing, tokens
from pidfdpool.worker import script_module, streaming
from tests import calls
from tests.worker.own_worker import OwnWorker

NAME = "whole.worker"


def ready(**options):
    worker = OwnWorker(**options)
    try:
        assert worker.receive().kind == framing.READY
    except BaseException:
        worker.__exit__()
        raise
    return worker


def double(number):
    return 2 * number


# ---- set up --------------------------------------------------------------------------------------------------------


def handler(_number, _frame):
    """Stand for one that the script has set."""


def signals():
    return signal.getsignal(signal.SIGUSR2) is handler, faulthandler.is_enabled()


def test_handlers_of_the_script_are_set_and_crashes_are_told():
    def prepare():
        faulthandler.disable()
        script_module._worker_handlers[int(signal.SIGUSR2)] = handler

    with ready(prepare=prepare) as worker:
        assert worker.run(1, signals) == (True, True)


@pytest.mark.parametrize("spin", [0.0, 0.05])
def test_tasks_are_found_whether_it_spins_for_them_or_not(spin):
    with ready(spin=spin) as worker:
        for number in range(1, 20):
            assert worker.run(number, double, number) == 2 * number
        worker.send_exit()
        assert worker.status() == 0


@pytest.mark.parametrize("replaced", [False, True])
def test_exit_functions_are_run_at_the_end_and_where_a_tool_runs_in_each_process_its_own_only(tmp_path, replaced):
    path = str(tmp_path / "words")

    def bootstrap(me, parent_sentinel):
        calls.append(path, "tool")
        me.run()
        return 0

    def prepare():
        if replaced:
            BaseProcess._bootstrap = bootstrap
        atexit.register(calls.append, path, "inherited")

    with ready(prepare=prepare) as worker:
        worker.run(1, register, path)
        worker.send_exit()
        assert worker.status() == 0
    with open(path) as file:
        assert file.read().split() == (["tool", "own"] if replaced else ["own", "inherited"])


def register(path):
    atexit.register(calls.append, path, "own")


def test_threads_of_tasks_are_waited_for_at_the_end(tmp_path):
    with ready() as worker:
        worker.run(1, start_thread, str(tmp_path / "go"), str(tmp_path / "done"))
        worker.send_exit()
        (tmp_path / "go").touch()
        assert worker.status() == 0
    assert (tmp_path / "done").exists()


def start_thread(go, done):
    def work():
        calls.wait_for(go)
        calls.note(done)

    threading.Thread(target=work).start()


# ---- records -------------------------------------------------------------------------------------------------------

LOGS = (True, 0, None, (0, {"": (20, False)}))


def log(level, text):
    logging.getLogger(NAME).log(level, text)


def logged(frame):
    assert frame.kind == framing.LOG
    return frame.value, pickle.loads(frame.buffers[0])["msg"]


def test_records_of_a_task_come_before_its_answer_and_new_levels_count_from_the_next_task_on():
    with ready(logs=LOGS) as worker:
        worker.send_task(7, log, 20, "first")
        assert logged(worker.receive()) == (7, "first")
        assert worker.result() == (7, None)
        worker.send(framing.LOG_LEVELS, buffers=[pickle.dumps((0, {"": (30, False)}))])
        assert worker.run(8, log, 20, "second") is None, "nothing comes before the answer"
        worker.send_task(9, log, 30, "third")
        assert logged(worker.receive()) == (9, "third")


def test_records_of_the_initializer_are_of_no_task():
    with OwnWorker(logs=LOGS, initializer=(log, (40, "set up"))) as worker:
        assert logged(worker.receive()) == (0, "set up")
        assert worker.receive().kind == framing.READY


def log_in_copy():
    pid = os.fork()
    if not pid:
        logging.getLogger(NAME).addHandler(logging.NullHandler())
        logging.getLogger(NAME).propagate = False
        log(40, "of the copy")
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def test_a_copy_of_a_worker_sends_no_records():
    with ready(logs=LOGS) as worker:
        assert worker.run(1, log_in_copy) == 0
        assert worker.run(2, double, 1) == 2


# ---- streams -------------------------------------------------------------------------------------------------------


def items_of(frame):
    assert frame.kind == framing.ITEMS
    data = pickle.loads(frame.buffers[0])
    return [pickle.loads(item) for item in data] if frame.slot else [data]


def test_a_task_streams_its_items_and_then_answers():
    with ready() as worker:
        worker.send_task(5, streaming.run, range, (3,), 10)
        found = []
        while (frame := worker.receive()).kind == framing.ITEMS:
            assert frame.value == 5
            found += items_of(frame)
        assert (found, frame.kind, frame.value) == ([0, 1, 2], framing.RESULT, 5)


def test_a_stream_goes_on_when_there_is_room_and_ends_when_nobody_reads():
    with ready() as worker:
        worker.send_task(5, streaming.run, itertools.count, (), 2)
        found = []
        while len(found) < 2:
            found += items_of(worker.receive())
        worker.send(framing.STREAM, framing.STREAM_ROOM, 1, 5)
        found += items_of(worker.receive())
        assert found == [0, 1, 2]
        worker.send(framing.STREAM, framing.STREAM_END, 1, 5)
        assert worker.result() == (5, None)
        assert worker.run(6, double, 1) == 2


# ---- tasks that cannot be run ----------------------------------------------------------------------------------


def test_a_call_whose_segment_has_not_come_is_asked_for_and_run_once_before_the_next():
    with ready() as worker:
        tokens.put(worker.tokens, 1)
        reference = bytes(16)
        worker.send(framing.TASK, framing.CALL_IN_SEGMENT, 1, 5, [reference])
        frame = worker.receive()
        assert (frame.kind, frame.value) == (framing.CALL_NOT_RECEIVED, 5)
        worker.send_task(6, double, 1)
        worker.send(framing.TASK, 0, 1, 5, payload.dumps((double, (4,), {})))
        assert [worker.result(), worker.result()] == [(5, 8), (6, 2)]
        worker.send_exit()
        assert worker.status() == 0


def test_tasks_without_a_token_are_dropped_and_counted():
    with ready() as worker:
        call = payload.dumps((double, (4,), {}))
        worker.send(framing.TASK, 0, 1, 5, call)
        frame = worker.receive()
        assert (frame.kind, frame.value) == (framing.DROPPED, 1)
        assert worker.run(6, double, 1) == 2


def test_a_task_that_needs_the_script_is_not_begun_where_it_was_not_run():
    with ready() as worker:
        worker.send_task(5, double, 1, flags=framing.NEEDS_SCRIPT)
        frame = worker.receive()
        assert (frame.kind, frame.value) == (framing.OUTDATED, 0)
        assert worker.status() == 0
