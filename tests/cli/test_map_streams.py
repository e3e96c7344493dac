"""`map` on endless, slow and broken streams, interrupted, and with workers that die."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import threading

import pytest

from pidfdpool.cli.map import BLOCKS_PER_WORKER
from pidfdpool.cli.source import READ_SIZE

LINE = json.dumps({"pad": "x" * 1000}).encode() + b"\n"


class Flood(threading.Thread):
    """Writes lines to a pipe until it is closed at the other end or told to stop."""

    def __init__(self, pipe):
        super().__init__()
        self._pipe = pipe
        self.start()

    def run(self):
        try:
            while True:
                os.write(self._pipe.fileno(), LINE * 50)
        except BrokenPipeError:
            pass


# ---- slow and endless --------------------------------------------------------------------------------------


def test_a_slow_producer_sees_each_line_come_out(command):
    process = command.start("map", "jobs:same", "--workers", "2")
    for number in range(20):
        line = b"%d\n" % number
        process.stdin.write(line)
        process.stdin.flush()
        assert process.stdout.readline() == line
    process.stdin.close()
    assert process.wait() == 0


def test_half_a_line_is_not_a_document(command):
    process = command.start("map", "jobs:same", "--workers", "1")
    process.stdin.write(b"1\n[2,")
    process.stdin.flush()
    assert process.stdout.readline() == b"1\n"
    process.stdin.write(b" 3]\n")
    process.stdin.close()
    assert process.stdout.read() == b"[2,3]\n"
    assert process.wait() == 0


def test_input_is_read_no_faster_than_output_is_taken(command):
    """Nobody takes the output, so at some point the input is not taken any more; nothing is lost by that."""
    process = command.start("map", "jobs:same", "--workers", "1")
    feed = process.stdin.fileno()
    os.set_blocking(feed, False)
    poll = select.poll()
    poll.register(feed, select.POLLOUT)
    written = 0
    limit = 64 * 1024 * 1024
    while written < limit and poll.poll(2000):
        try:
            written += os.write(feed, LINE[written % len(LINE) :] + LINE * 50)
        except BlockingIOError:
            continue
    # Blocks in every stage, what one is cut from, and two full pipes.
    assert written < (BLOCKS_PER_WORKER + 2) * 2 * READ_SIZE + 2 * 1024 * 1024

    os.set_blocking(feed, True)
    output = []
    drain = threading.Thread(target=lambda: output.append(process.stdout.read()))
    drain.start()
    os.write(feed, LINE[written % len(LINE) :])
    process.stdin.close()
    assert process.wait() == 0
    drain.join()
    lines = output[0].splitlines()
    assert len(lines) == written // len(LINE) + 1
    assert set(lines) == {json.dumps(json.loads(LINE), separators=(",", ":")).encode()}


@pytest.mark.many_times
def test_memory_does_not_grow_with_the_input(command):
    def peak(megabytes):
        process = command.start("map", "json:loads", "--workers", "2", stdout=subprocess.DEVNULL)
        block = LINE * 1000
        for _ in range(megabytes * 1_000_000 // len(block)):
            process.stdin.write(block)
        process.stdin.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return usage.ru_maxrss / 1024

    assert peak(80) - peak(8) < 40


# ---- readers that go away ----------------------------------------------------------------------------------


def test_a_reader_that_goes_away_ends_an_endless_run_quietly(command):
    process = command.start("map", "jobs:same", "--workers", "2")
    flood = Flood(process.stdin)
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait() == -signal.SIGPIPE
    assert process.stderr.read() == b""
    flood.join()


def test_a_reader_that_was_never_there(command):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as broken:
        process = command.start("map", "jobs:same", "--workers", "1", stdout=broken)
    process.stdin.write(b"1\n")
    process.stdin.flush()
    assert process.wait() == -signal.SIGPIPE
    assert process.stderr.read() == b""


def test_head_gets_what_it_asked_for(command):
    line = command.line("map", "jobs:same", "--workers", "2")
    script = 'seq 1000000 | "$@" | head -n 3'
    done = subprocess.run(["sh", "-c", script, "sh", *line], capture_output=True, check=False, **command.options({}))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1\n2\n3\n", b"")


# ---- Ctrl-C and other signals ------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", [False, True], ids=["input open", "input at its end"])
def test_ctrl_c_while_the_function_runs(command, closed):
    process = command.start("map", "jobs:hang", "--workers", "2")
    process.stdin.write(b"1\n")
    process.stdin.flush()
    if closed:
        process.stdin.close()
    assert process.stderr.readline() == b"hanging\n"
    process.send_signal(signal.SIGINT)
    assert process.wait() == -signal.SIGINT
    assert process.stderr.read() == b"interrupted\n"


def test_ctrl_c_while_the_input_is_idle(command):
    process = command.start("map", "jobs:same", "--workers", "2")
    process.stdin.write(b"1\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"1\n"
    process.send_signal(signal.SIGINT)
    assert process.wait() == -signal.SIGINT
    assert process.stderr.read() == b"interrupted\n"


def test_ctrl_c_while_nobody_takes_the_output(command):
    process = command.start("map", "jobs:same", "--workers", "2")
    flood = Flood(process.stdin)
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    assert poll.poll(30_000)
    process.send_signal(signal.SIGINT)
    assert process.wait() == -signal.SIGINT
    assert process.stderr.read() == b"interrupted\n"
    flood.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_signals_that_end_it_leave_nothing(command, number):
    """That nothing is left is checked after every test."""
    process = command.start("map", "jobs:hang", "--workers", "2")
    process.stdin.write(b"1\n2\n")
    process.stdin.flush()
    assert process.stderr.readline() == b"hanging\n"
    process.send_signal(number)
    assert process.wait() == -number


# ---- workers that die --------------------------------------------------------------------------------------


def test_only_the_document_that_kills_its_worker_fails(command):
    data = b"".join(b"%d\n" % number for number in range(4, 3000)) + b"3\n"
    data += b"".join(b"%d\n" % number for number in range(3000, 6000))
    done = command.map("die_on_three", "--on-error", "skip", input=data)
    assert done.returncode == 0
    assert done.stdout == data.replace(b"\n3\n", b"\n")
    assert b"1 of 5997 documents failed and were skipped; the first: <stdin>:2997: WorkerCrashed: " in done.stderr
    assert b"SIGKILL" in done.stderr


def test_a_document_that_kills_its_worker_ends_the_run(command):
    done = command.map("die_on_three", input=b"1\n2\n3\n4\n")
    assert (done.returncode, done.stdout) == (1, b"1\n2\n")
    assert done.stderr.startswith(b"<stdin>:3: WorkerCrashed: ")


def test_a_document_that_kills_its_worker_is_recorded(command):
    done = command.map("die_on_three", "--on-error", "record", input=b"1\n2\n3\n4\n")
    lines = list(map(json.loads, done.stdout.splitlines()))
    assert done.returncode == 0
    assert lines[:2] + lines[3:] == [1, 2, 4]
    assert lines[2]["error"]["type"] == "WorkerCrashed"
    assert (lines[2]["error"]["line"], lines[2]["input"]) == (3, "3")


def test_a_worker_that_died_of_something_else_costs_nothing(command, tmp_path):
    lines = [json.dumps({"n": number}) for number in range(100)]
    lines[50] = json.dumps({"die_once": str(tmp_path / "died")})
    data = "".join(line + "\n" for line in lines).encode()
    done = command.map("die_on_first_try", input=data)
    assert (done.returncode, done.stderr) == (0, b"")
    assert list(map(json.loads, done.stdout.splitlines())) == list(map(json.loads, lines))
    assert (tmp_path / "died").exists()


def test_a_function_that_always_kills_its_worker(command):
    done = command.map("die_always", "--on-error", "skip", input=b"1\n" * 40)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"40 of 40 documents failed and were skipped" in done.stderr


def test_a_pool_that_cannot_work_ends_the_run(command, tmp_path):
    """The module can be imported here, but not where workers come from: their template leads a session."""
    (tmp_path / "here_only.py").write_text(
        "import os\n"
        "if os.getsid(0) == os.getpid(): raise RuntimeError('not here')\n"
        "def f(document): return document\n"
    )
    done = command.run("map", "here_only:f", "--workers", "2", input=b"1\n", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"the pool broke: " in done.stderr
    assert b"not here" in done.stderr
