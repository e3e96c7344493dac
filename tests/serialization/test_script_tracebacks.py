"""Tracebacks, stacks and log records name files and show sources that a worker cannot import: scripts, notebooks."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conditions import ROOT

SCRIPT = '''
import inspect, json, linecache, logging, os, signal, sys, time
from pidfdpool import PidfdPoolExecutor

FACTOR = 0

def fail(value):
    return value / FACTOR  # this fails

class Work:
    def fail(self, value):
        return fail(value)  # in a method

def hang(path):
    os.mkdir(path) or time.sleep(60)  # this hangs

def log(_):
    records = []
    logger = logging.Logger("of the task")
    handler = logging.Handler()
    handler.emit = records.append
    logger.addHandler(handler)
    logger.warning("here")  # this logs
    return [records[0].filename, records[0].pathname, records[0].lineno]

def source(_):
    try:
        return inspect.getsource(fail)
    except Exception as error:
        return repr(error)

CELL = """
def fail_in_cell(value):
    return value / 0  # this fails in a cell

def hang_in_cell(path):
    os.mkdir(path) or time.sleep(60)  # this hangs in a cell
"""

def run_cell(name="<cell-1>"):
    linecache.cache[name] = len(CELL), None, CELL.splitlines(keepends=True), name
    exec(compile(CELL, name, "exec"), globals())

def stack_of(pool, function, path):
    future = pool.submit(function, path)
    while not os.path.exists(path):
        time.sleep(0.005)
    os.kill(pool.workers()[0].pid, signal.SIGTERM)  # what a timeout sends as well
    return future.exception(timeout=20).stack

def main(way, folder):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.submit(abs, -1).result()
        run_cell()
        calls = [fail, Work().fail, lambda value: fail(value), fail_in_cell]
        told = {"tracebacks": [str(pool.submit(call, 1).exception(timeout=20).__cause__) for call in calls]}
        told["log"], told["source"] = (pool.submit(call, 1).result(timeout=20) for call in (log, source))
        told["mapped"] = ""
        try:
            list(pool.map(fail, [1, 2]))
        except ZeroDivisionError as error:
            told["mapped"] = str(error.__cause__)
        told["stacks"] = [stack_of(pool, call, f"{folder}/{call.__name__}") for call in (hang, hang_in_cell)]
    print(json.dumps(told))

if __name__ == "__main__":
    main(*sys.argv[1:])
'''


@pytest.fixture(scope="module", params=["spawn", "fork"])
def told(request, tmp_path_factory):
    """Run the script once; give its path and its output."""
    folder = tmp_path_factory.mktemp("script")
    path = folder / "a_script.py"
    path.write_text(SCRIPT)
    command = [sys.executable, str(path), request.param, str(folder)]
    environment = {**os.environ, "PYTHONPATH": ROOT}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return str(path), json.loads(done.stdout)


def line_of(code):
    return next(number for number, line in enumerate(SCRIPT.split("\n"), 1) if code in line)


def shown(path, code, function, between=", in "):
    """Return a frame of the script, with its source."""
    source = SCRIPT.split("\n")[line_of(code) - 1].strip()
    return f'  File "{path}", line {line_of(code)}{between}{function}\n    {source}\n'


def frame_count(text):
    return text.count('  File "')


def test_a_remote_traceback_shows_the_scripts_file_line_and_source(told):
    path, found = told
    for text in (found["tracebacks"][0], found["mapped"]):
        assert shown(path, "# this fails", "fail") in text
        assert frame_count(text) == 1
    for text, function in zip(found["tracebacks"][1:3], ("fail", "<lambda>"), strict=True):
        assert f'  File "{path}", line ' in text
        assert f", in {function}\n" in text
        assert shown(path, "# this fails", "fail") in text
        assert frame_count(text) == 2


def test_a_remote_traceback_shows_the_cells_name_line_and_source(told):
    text = told[1]["tracebacks"][3]
    assert '  File "<cell-1>", line 3, in fail_in_cell\n    return value / 0  # this fails in a cell\n' in text
    assert frame_count(text) == 1


def test_a_stack_shows_the_scripts_file_line_and_source(told):
    path, found = told
    assert shown(path, "# this hangs", "hang", " in ") in found["stacks"][0] + "\n"
    assert frame_count(found["stacks"][0]) == 1


def test_a_stack_shows_the_cells_name_line_and_source(told):
    lines = told[1]["stacks"][1].splitlines()
    assert lines[1:] == [
        '  File "<cell-1>", line 6 in hang_in_cell',
        "    os.mkdir(path) or time.sleep(60)  # this hangs in a cell",
    ]


def test_a_workers_log_record_names_the_scripts_file(told):
    path, found = told
    assert found["log"] == ["a_script.py", path, line_of("# this logs")]


def test_a_task_finds_the_source_of_the_scripts_functions(told):
    assert told[1]["source"] == "def fail(value):\n    return value / FACTOR  # this fails\n"
