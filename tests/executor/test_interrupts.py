"""Ctrl-C, from a real terminal: the host decides, workers ignore it, nobody is left and nobody complains."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import wait

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.executor.futures import Future
from tests import calling_back, calls
from tests.conditions import ROOT, eventually, marked, processes_of_this_run, run_python

PRELUDE = """
import sys, time
from pidfdpool import PidfdPoolExecutor
from tests import calls

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
    "asyncio": """
import asyncio
async def main():
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        calls = [asyncio.get_running_loop().run_in_executor(pool, begin, 60) for _ in range(4)]
        await asyncio.gather(*calls)
asyncio.run(main())
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


def sleeps(pid):
    """Return whether a program's main thread waits for something, at each of a few looks.

    A signal that comes between Python's last look for one and its sleep in a lock is not noticed before the next
    one, with any pool. So that is not the moment for a test.
    """
    for _ in range(5):
        with open(f"/proc/{pid}/task/{pid}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] != "S":
                return False
        time.sleep(0.01)
    return True


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
        eventually(lambda: sleeps(program.pid), "it waits for its tasks")
        os.write(ours, b"\x03")
        output = read_rest(ours).decode()
        assert program.wait(20) in (-signal.SIGINT, 1, 0)
    finally:
        os.close(ours)
        if program.poll() is None:
            program.kill()
            program.wait()
    # asyncio.run shows how the main task was cancelled, before its own.
    assert output.count("Traceback") <= (2 if situation == "asyncio" else 1), output
    assert len(re.findall("^KeyboardInterrupt", output, re.MULTILINE)) <= 1, output
    if situation != "at exit":
        assert program.returncode == -signal.SIGINT, output
        assert "KeyboardInterrupt" in output
    eventually(lambda: not processes_of_this_run(environment["PIDFDPOOL_TEST_RUN"]), "nobody is left")


@pytest.mark.parametrize(
    "host",
    [
        'number, sys.ps1 = signal.SIGINT, ">>> "',  # by this a session is known
        "number = signal.SIGALRM; signal.signal(number, raise_it)",  # by this one that ends what takes too long
    ],
    ids=["session", "timers"],
)
def test_a_pool_survives_many_interrupts_where_they_are_usual(way, host):
    """Each comes between any two steps of the submits, or of the cancelling after them."""
    done = run_python(
        """
import random, signal, sys, threading, time
from pidfdpool import PidfdPoolExecutor
def raise_it(*_):
    raise KeyboardInterrupt
exec(sys.argv[2])
pool = PidfdPoolExecutor(2, mp_context=sys.argv[1])
pool.submit(abs, 0).result()

def interrupt_soon():
    time.sleep(random.uniform(0.003, 0.03))
    signal.pthread_kill(threading.main_thread().ident, number)

threads, interrupted = [], 0
for _ in range(30):
    futures = []
    threads.append(threading.Thread(target=interrupt_soon))
    try:
        threads[-1].start()
        end = time.monotonic() + 1  # one that comes in a finalizer is dropped by Python
        while time.monotonic() < end:
            futures += [pool.submit(abs, number) for number in range(20)]
            for future in futures[::2]:
                future.cancel()
    except KeyboardInterrupt:
        interrupted += 1
    for future in futures:
        future.cancel()
    assert pool.submit(abs, -3).result(timeout=20) == 3
    for future in futures:
        assert future.cancelled() or future.result(timeout=20) >= 0
pool.shutdown()
print(interrupted > 20)
""",
        way,
        host,
        timeout=50,
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert "pidfdpool" not in done.stderr


def test_what_is_put_off_is_decided_in_its_order(monkeypatch, tmp_path):
    """At a prompt the pool thread decides, when it gets to it."""
    begun, go_on = threading.Event(), threading.Event()

    def hold_up(_):
        begun.set()
        go_on.wait(20)

    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with PidfdPoolExecutor(1) as pool:
        calling_back.submit(pool, hold_up)
        assert begun.wait(20)
        futures = [pool.submit(calls.append, str(tmp_path / "ran"), number) for number in range(5)]
        go_on.set()
        assert [future.result(20) for future in futures] == [None] * 5
    assert (tmp_path / "ran").read_text().split() == ["0", "1", "2", "3", "4"]


def test_a_futures_lock_is_taken_without_a_step_at_which_an_interrupt_could_come():
    condition, called = Future()._condition, []
    sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_name) if event == "call" else None)
    try:
        with condition:
            pass
    finally:
        sys.setprofile(None)
    assert called == []


def interrupted_by(call, *futures):
    """Have a Ctrl-C come in a callback while the main thread makes a call; return what was called back."""
    called = []

    def interrupt(_):
        signal.raise_signal(signal.SIGINT)
        called.append("never")

    for future in futures:
        future.add_done_callback(lambda _: called.append("before"))
        future.add_done_callback(interrupt)
        future.add_done_callback(lambda _: called.append("behind"))
    with pytest.raises(KeyboardInterrupt):
        call()
    return called


def test_a_ctrl_c_that_comes_in_a_callback_is_raised_when_all_are_called(pool, held):
    """In the main thread, which calls them where it is what resolves the future."""
    blocked = pool.submit(calls.run_until, f"{held.release}2", held.release)
    waiting = [pool.submit(calls.double, number) for number in range(4)]
    assert interrupted_by(waiting[0].cancel, waiting[0]) == ["before", "behind"]
    assert waiting[0].cancelled()
    assert interrupted_by(lambda: waiting[1].set_result("by hand"), waiting[1]) == ["before", "behind"]
    assert interrupted_by(waiting[2].kill, waiting[2]) == ["before", "behind"]
    done = Future()
    done.set_result(1)
    with pytest.raises(KeyboardInterrupt):
        done.add_done_callback(lambda _: signal.raise_signal(signal.SIGINT))
    assert interrupted_by(lambda: pool.shutdown(wait=False, cancel_futures=True), waiting[3])[:1] == ["before"]
    eventually(waiting[3].cancelled, "it is told in any case")
    held.release.touch()
    assert held.result(20) == "value"
    assert wait([blocked], 20).done


def test_a_callback_that_exits_ends_nothing_in_the_pool_thread(pool):
    def leave(_):
        raise SystemExit

    assert calling_back.submit(pool, leave).result(20) == 0
    assert pool.submit(abs, -1).result(20) == 1
