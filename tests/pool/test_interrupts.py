"""Ctrl-C, from a real terminal: the host decides, workers ignore it, nobody is left and nobody complains."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import textwrap

import pytest

from tests.conditions import ROOT, eventually, marked, processes_of_this_run

PRELUDE = """
import sys, time
from pidfdpool import PidfdPoolExecutor
from tests.pool import calls

def begin(seconds):
    print("begun", flush=True)
    time.sleep(seconds)

way = sys.argv[1]
"""

SITUATIONS = {
    "map in with": """
with PidfdPoolExecutor(2, mp_context=way) as pool:
    list(pool.map(begin, [60] * 10))
""",
    "leaving with": """
with PidfdPoolExecutor(2, mp_context=way) as pool:
    for _ in range(10):
        pool.submit(begin, 60)
""",
    "as_completed": """
from concurrent.futures import as_completed
with PidfdPoolExecutor(2, mp_context=way) as pool:
    for future in as_completed([pool.submit(begin, 60) for _ in range(4)]):
        future.result()
""",
    "no with": """
pool = PidfdPoolExecutor(2, mp_context=way)
pool.submit(begin, 60).result()
""",
    "at exit": """
pool = PidfdPoolExecutor(2, mp_context=way)
pool.submit(begin, 60)
""",
    "busy workers": """
def spin():
    print("begun", flush=True)
    while True:
        pass
with PidfdPoolExecutor(2, mp_context=way) as pool:
    pool.submit(spin).result()
""",
}


def read_until(terminal, text):
    seen = b""
    while text not in seen:
        seen += os.read(terminal, 4096)
    return seen


def read_rest(terminal):
    seen = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # EIO: the last one has closed the terminal
            return seen
        if not piece:
            return seen
        seen += piece


@pytest.mark.parametrize("situation", SITUATIONS)
def test_one_ctrl_c_ends_the_program_and_everything_of_it(way, situation):
    ours, theirs = pty.openpty()
    environment = marked("ctrl-c")
    program = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(SITUATIONS[situation]), way],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
        env={**os.environ, **environment, "PYTHONPATH": ROOT},
    )
    os.close(theirs)
    try:
        read_until(ours, b"begun")
        os.write(ours, b"\x03")
        output = read_rest(ours).decode()
        assert program.wait(20) in (-signal.SIGINT, 1, 0)
    finally:
        os.close(ours)
        if program.poll() is None:
            program.kill()
            program.wait()
    assert output.count("Traceback") <= 1, output
    assert output.count("KeyboardInterrupt") <= 1, output
    if situation != "at exit":
        assert program.returncode == -signal.SIGINT
        assert "KeyboardInterrupt" in output
    eventually(lambda: not processes_of_this_run(environment["PIDFDPOOL_TEST_RUN"]), "nobody is left")
