"""What a user sees of where a task was: its own frames, with their source, and the pool's only where they help."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import signal
import threading
import time
import traceback

import pytest

from pidfdpool import PidfdPoolExecutor, PoolBroken, TaskTimeout, WorkerCrashed
from pidfdpool.loop.stacks import NO_FRAME
from tests import calls
from tests.conditions import eventually


def fail(value):
    return divide(value)


def divide(value):
    return value / 0  # on purpose


def frames(text):
    """Return (file, function) of each frame of a traceback or stack, in its order."""
    found = []
    for line in text.splitlines():
        if line.startswith('  File "'):
            file, _, rest = line.removeprefix('  File "').partition('", line ')
            found.append((file, rest.replace(", in ", " in ").partition(" in ")[2]))
    return found


def remote(error):
    return str(error.__cause__)


OWN = [(__file__, "fail"), (__file__, "divide")]


@pytest.mark.parametrize("submit", ["submit", "map", "map in chunks", "imap"])
def test_a_remote_traceback_has_the_tasks_frames_and_their_source(pool, submit):
    try:
        if submit == "submit":
            pool.submit(fail, 3).result(timeout=20)
        elif submit == "imap":
            list(pool.map_unordered(fail, [3, 4]))
        else:
            list(pool.map(fail, [3, 4, 5], chunksize=2 if submit == "map in chunks" else None))
    except ZeroDivisionError as error:
        text = remote(error)
    assert frames(text) == OWN
    assert "\n    return value / 0  # on purpose\n" in text
    assert text.startswith("Traceback (most recent call last):\n")


def test_a_function_in_c_is_told_by_the_frame_that_calls_it(pool):
    text = remote(pool.submit(int, "x").exception(timeout=20))
    assert [function for _, function in frames(text)] == ["_run_call"]


class Unreducible:
    def __reduce__(self):
        raise KeyError("reduce")


class Unrestorable:
    def __init__(self):
        self.value = 1

    def __setstate__(self, state):
        raise KeyError("restore")


def make_unreducible(_=None):
    return Unreducible()


def is_pickling(frame):
    return "/pidfdpool/" in frame[0] and "/pidfdpool/worker/" not in frame[0]


def test_of_pickling_one_frame_of_the_pools_is_kept(pool):
    """It tells that not the task has failed but its result, or its call."""
    text = remote(pool.submit(fail, Unrestorable()).exception(timeout=20))
    assert [os.path.basename(file) for file, _ in frames(text)] == ["named_calls.py", os.path.basename(__file__)]
    text = remote(pool.submit(make_unreducible).exception(timeout=20))
    found = frames(text)
    assert is_pickling(found[0])
    assert not is_pickling(found[1]), "of the pool's frames that lead there"
    assert found[-1] == (__file__, "__reduce__")


def test_of_a_chunk_that_does_not_pickle_the_result_that_is_to_blame_is_told_once(pool):
    with pytest.raises(KeyError) as caught:
        list(pool.map(make_unreducible, [1, 2, 3]))
    text = remote(caught.value)
    assert text.count("Traceback (most recent call last):") == 1
    assert frames(text)[-1] == (__file__, "__reduce__")


def test_an_initializers_error_starts_at_its_call(way, caplog):
    with PidfdPoolExecutor(1, mp_context=way, initializer=fail, initargs=(1,)) as pool:
        with pytest.raises(PoolBroken) as caught:
            pool.submit(calls.double, 1).result(timeout=20)
    text = remote(caught.value.__cause__)
    assert [function for _, function in frames(text)] == ["run_initializer", "fail", "divide"]


def test_a_preloads_error_starts_at_its_call(way):
    with PidfdPoolExecutor(1, mp_context=way, preload=functools.partial(fail, 1)) as pool:
        with pytest.raises(PoolBroken) as caught:
            pool.submit(calls.double, 1).result(timeout=20)
    text = remote(caught.value.__cause__)
    assert [function for _, function in frames(text)] == ["run_preload", "fail", "divide"]


# ---- stacks ----------------------------------------------------------------------------------------------------


def hang(path):
    os.mkdir(path) or time.sleep(60)  # in one line, so that its number is known as soon as the folder is there


def hang_below(path):
    hang(path)


@pytest.fixture
def stack_of(way, tmp_path):
    """Give a function that returns the stack of a task, stopped once it has made the folder that it is given."""
    with PidfdPoolExecutor(1, mp_context=way) as pool:

        def stack(function):
            path = str(tmp_path / "hangs")
            future = pool.submit(function, path)
            eventually(lambda: os.path.exists(path), "it runs")
            os.kill(pool.workers()[0].pid, signal.SIGTERM)  # what a timeout sends as well
            error = future.exception(timeout=20)
            assert type(error) is WorkerCrashed
            assert error.death.stack == error.stack
            return error.stack

        yield stack


def test_a_stack_has_the_tasks_frames_and_their_source(stack_of):
    line = inspect.getsourcelines(hang)[1] + 1
    lines = stack_of(hang_below).splitlines()
    assert lines[0].endswith("(most recent call first):")
    assert lines[1:] == [
        f'  File "{__file__}", line {line} in hang',
        f"    {inspect.getsource(hang).splitlines()[1].strip()}",
        f'  File "{__file__}", line {inspect.getsourcelines(hang_below)[1] + 1} in hang_below',
        "    hang(path)",
    ]


def hang_in_a_thread(path):
    thread = threading.Thread(target=hang, args=(path,), daemon=True)
    thread.start()
    thread.join()


def test_the_stack_of_each_thread_is_told(stack_of):
    found = frames(stack_of(hang_in_a_thread))
    assert (__file__, "hang") in found
    assert found[-1] == (__file__, "hang_in_a_thread")
    assert not [file for file, _ in found if "/pidfdpool/" in file]


def test_a_task_without_a_frame_is_told_by_the_frame_that_calls_it(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.submit(abs, -1).result(timeout=20)
        error = pool.options(timeout=1, grace=1).submit(time.sleep, 60).exception(timeout=20)
    assert type(error) is TaskTimeout
    lines = error.stack.splitlines()
    assert lines[1] == NO_FRAME
    assert lines[2].endswith("in _run_call")
    assert lines[3:] == ["    result = function(*arguments, **keywords)"]


def hang_in_a_nested_pool(path):
    with PidfdPoolExecutor(1) as pool:
        pool.submit(hang, path).result()


def test_a_nested_pool_is_told_as_the_task_uses_it(stack_of):
    stack = stack_of(hang_in_a_nested_pool)
    own = stack[stack.index("Current thread") :].partition("\n\n")[0]
    assert frames(own)[-1] == (__file__, "hang_in_a_nested_pool"), "and nothing of the worker's below"
    assert "/pidfdpool/" in frames(own)[0][0]


class HangsWhenPickled:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        hang(self.path)


def test_a_task_that_hangs_when_its_result_is_pickled_is_told_so(stack_of):
    found = frames(stack_of(HangsWhenPickled))
    assert found[:2] == [(__file__, "hang"), (__file__, "__reduce__")]
    assert is_pickling(found[-1])
    assert not is_pickling(found[-2]), "of the pool's frames that lead there"


# ---- a crash ---------------------------------------------------------------------------------------------------


def crash_below():
    crash()


def crash():
    import ctypes

    ctypes.string_at(0)


def test_a_captured_crash_tells_the_tasks_frames(way, capfd):
    """From 3.14 on the stack of C alone is longer than what is told of other lines."""
    with PidfdPoolExecutor(1, mp_context=way, capture_stderr=True) as pool:
        error = pool.submit(crash_below).exception(timeout=20)
    assert type(error) is WorkerCrashed
    assert error.stderr[0] == "Fatal Python error: Segmentation fault"
    assert [found for found in frames("\n".join(error.stderr)) if "ctypes" not in found[0]] == [
        (__file__, "crash"),
        (__file__, "crash_below"),
    ]
    assert len(error.stderr) < 20
    assert "worker/process.py" in capfd.readouterr().err, "all of it is passed on"


# ---- what reads the code's own file name -----------------------------------------------------------------------


def log_and_tell():
    records = []
    logger = logging.Logger("of the task")
    handler = logging.Handler()
    handler.emit = records.append
    logger.addHandler(handler)
    logger.warning("here")
    record = records[0]
    return record.filename, record.pathname, record.lineno, record.funcName


def test_records_of_a_task_name_its_file(pool):
    line = inspect.getsourcelines(log_and_tell)[1] + 6
    expected = os.path.basename(__file__), __file__, line, "log_and_tell"
    assert pool.submit(log_and_tell).result(timeout=20) == expected
    assert pool.submit(functools.partial(log_and_tell)).result(timeout=20) == expected


def format_own_stack():
    return traceback.format_stack(limit=1)[0]


def test_a_task_finds_its_own_source(pool):
    assert "return traceback.format_stack(limit=1)[0]" in pool.submit(format_own_stack).result(timeout=20)
    assert pool.submit(inspect.getsource, hang_below).result(timeout=20) == inspect.getsource(hang_below)
