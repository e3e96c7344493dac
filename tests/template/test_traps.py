"""Hosts whose process-wide state would break a pool that relies on it, and what the pool must leave alone."""

from __future__ import annotations

import pytest

from tests.conditions import run_python

BODY = """
import os, signal, sys, threading, time
from pidfdpool import PidfdPoolExecutor, WorkerCrashed
from tests import calls

def check(way):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        assert [f.result() for f in [pool.submit(calls.double, n) for n in range(50)]] == [2 * n for n in range(50)]
        for code in (3, 0, 255):
            error = pool.submit(calls.leave, code).exception(timeout=20)
            assert isinstance(error, WorkerCrashed) and error.exit_status.code == code, error
        for number in (signal.SIGKILL, signal.SIGTERM):
            error = pool.submit(calls.die, number).exception(timeout=20)
            assert isinstance(error, WorkerCrashed) and error.exit_status.signal == number, error
        assert pool.submit(calls.double, 2).result(timeout=20) == 4
"""


def run_host(code, way):
    done = run_python(BODY + code, way)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_handler_that_loops_on_waitpid_sees_nothing_of_ours(way):
    out = run_host(
        """
seen = []
def reap(*_):
    while True:
        try:
            found = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not found[0]:
            return
        seen.append(found)
signal.signal(signal.SIGCHLD, reap)
for _ in range(5):
    check(sys.argv[1])
print(seen)
""",
        way,
    )
    assert out == "[]\n"


@pytest.mark.parametrize("disposition", ["SIG_IGN", "SIG_DFL"])
def test_an_ignored_sigchld_makes_no_difference(way, disposition):
    run_host(f"signal.signal(signal.SIGCHLD, signal.{disposition})\ncheck(sys.argv[1])", way)


def test_a_thread_that_sits_in_wait_sees_no_worker(way):
    out = run_host(
        """
import subprocess
held = subprocess.Popen(["sleep", "600"])  # so that os.wait() has something to wait for
seen = []
def sit():
    while True:
        pid, status = os.wait()
        seen.append((pid, status))
        if pid == held.pid:
            return
thread = threading.Thread(target=sit)
thread.start()
check(sys.argv[1])
check(sys.argv[1])
held.kill()
thread.join()
# The launcher is the host's child for a moment, and always ends with 0; a worker would show another status.
print([status for pid, status in seen if pid != held.pid and status != 0])
""",
        way,
    )
    assert out == "[]\n"


def test_nothing_of_the_host_is_touched(way):
    run_host(
        """
import multiprocessing, asyncio, subprocess
handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
def read_timers():
    return [signal.getitimer(n) for n in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)]
timers = read_timers()
wakeup = signal.set_wakeup_fd(-1); signal.set_wakeup_fd(wakeup)
check(sys.argv[1])
assert handlers == {number: signal.getsignal(number) for number in signal.valid_signals()}
assert mask == signal.pthread_sigmask(signal.SIG_BLOCK, ())
assert timers == read_timers()
now = signal.set_wakeup_fd(-1)
assert now == wakeup, (now, wakeup)
assert multiprocessing.get_start_method(allow_none=True) is None
import multiprocessing.resource_tracker as tracker
assert tracker._resource_tracker._fd is None
""",
        way,
    )


def test_a_signal_to_a_worker_does_not_reach_the_hosts_event_loop(way):
    run_host(
        """
import asyncio
from pidfdpool.pidfd import Pidfd

async def main():
    loop = asyncio.get_running_loop()
    got = []
    loop.add_signal_handler(signal.SIGTERM, got.append, "term")
    with PidfdPoolExecutor(1, mp_context=sys.argv[1]) as pool:
        pid = await loop.run_in_executor(pool, os.getpid)
        with Pidfd.open(pid) as worker:
            worker.send_signal(signal.SIGTERM)
            worker.wait(10)
        assert await loop.run_in_executor(pool, calls.double, 2) == 4
    await asyncio.sleep(0)
    assert got == []

asyncio.run(main())
""",
        way,
    )


def test_workers_have_default_handlers_whatever_the_host_has(way):
    out = run_host(
        """
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGALRM):
    signal.signal(number, lambda *_: print("the host's handler ran"))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2})
reader, writer = os.pipe2(os.O_NONBLOCK)
signal.set_wakeup_fd(writer)

def look():
    import signal
    told = {n.name for n in signal.Signals if signal.getsignal(n) not in (signal.SIG_DFL, signal.SIG_IGN, None)}
    ignored = {n.name for n in signal.Signals if signal.getsignal(n) == signal.SIG_IGN}
    return told, sorted(ignored), signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.set_wakeup_fd(-1)

with PidfdPoolExecutor(1, mp_context=sys.argv[1]) as pool:
    print(pool.submit(look).result())
""",
        way,
    )
    assert out == "(set(), ['SIGINT', 'SIGPIPE', 'SIGXFSZ'], set(), -1)\n"


def test_a_template_forked_from_an_executors_thread_has_workers_that_leave_in_peace(way):
    """Guards against workers that join the executor's threads as they leave, and themselves among them."""
    run_host(
        """
import tempfile
from concurrent.futures import ThreadPoolExecutor

def leave_a_word(path):
    import atexit
    atexit.register(lambda: open(path, "w").close())

with ThreadPoolExecutor(2) as threads:
    threads.submit(check, sys.argv[1]).result()
    with tempfile.TemporaryDirectory() as folder:
        word = os.path.join(folder, "word")
        with PidfdPoolExecutor(1, mp_context=sys.argv[1]) as pool:
            threads.submit(lambda: pool.submit(leave_a_word, word).result()).result()
        assert os.path.exists(word), "exit functions do not run"
""",
        way,
    )


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_a_host_with_closed_standard_streams_works(way, closed):
    done = run_python(
        f"""
import os, sys
{BODY}
for fd in {closed!r}:
    os.close(fd)
check(sys.argv[1])
with PidfdPoolExecutor(1, mp_context=sys.argv[1]) as pool:
    pool.submit(print, "from a worker").result()
os._exit(7)
""",
        way,
    )
    assert done.returncode == 7, done.stderr


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_nothing_takes_the_numbers_of_closed_standard_streams(way, closed):
    """Guards against what keeps a descriptor open once it is loaded, such as libffi 3.8, which ctypes uses."""
    done = run_python(
        f"""
{BODY}
def look(pid="self"):
    found = dict()
    for fd in {closed!r}:
        try:
            found[fd] = os.readlink(f"/proc/{{pid}}/fd/{{fd}}")
        except OSError:
            found[fd] = None
    return found

def look_behind():
    import ctypes
    ctypes.CFUNCTYPE(ctypes.c_int)(int)()
    for fd in {closed!r}:
        if fd:
            assert os.write(fd, b"printed") == 7
    return [look(), look(os.getppid())]

for fd in {closed!r}:
    os.close(fd)
from pidfdpool.process import native
before = look()
with PidfdPoolExecutor(1, mp_context=sys.argv[1]) as pool:
    for _ in range(4):
        pool.submit(bytes, 1 << 20).result()
    for seen in pool.submit(look_behind).result():
        assert set(seen.values()) == {{os.devnull}}, seen
native.load_ctypes()
assert look() == before, look()
os._exit(7)
""",
        way,
    )
    assert done.returncode == 7, done.stderr


def test_a_host_may_keep_every_other_thread_from_running_between_its_calls(way):
    """Servers with Python inside may keep the GIL while they wait for a request, and the pool thread stands still."""
    run_host(
        """
import ctypes
from pidfdpool.pidfd import Pidfd
keep_the_gil = ctypes.PyDLL(None).usleep
with PidfdPoolExecutor(2, mp_context=sys.argv[1]) as pool:
    for _ in range(3):
        pids = {pool.submit(os.getpid).result(timeout=20) for _ in range(4)}
        for pid in pids:
            with Pidfd.open(pid) as worker:
                worker.send_signal(signal.SIGKILL)
        keep_the_gil(100_000)
        assert [f.result(timeout=20) for f in [pool.submit(calls.double, n) for n in range(9)]] == [*range(0, 18, 2)]
        waiting = pool.submit(calls.double, 5)
        keep_the_gil(100_000)
        assert waiting.result(timeout=20) == 10
""",
        way,
    )


def test_few_descriptors_are_enough(way):
    run_host(
        """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
check(sys.argv[1])
""",
        way,
    )


def test_a_host_without_descriptors_left_gets_a_clear_error_and_recovers(way):
    run_host(
        """
import resource
pool = PidfdPoolExecutor(2, mp_context=sys.argv[1])
hold = []
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    while True:
        hold.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
try:
    error = pool.submit(calls.double, 2).exception(timeout=0.2)
except (OSError, TimeoutError) as refused:
    error = refused
assert isinstance(error, Exception), error
for fd in hold:
    os.close(fd)
with PidfdPoolExecutor(2, mp_context=sys.argv[1]) as pool:
    assert pool.submit(calls.double, 2).result(timeout=20) == 4
""",
        way,
    )


def test_the_current_directory_may_be_gone(way):
    run_host(
        """
import tempfile
folder = tempfile.mkdtemp()
os.chdir(folder)
os.rmdir(folder)
check(sys.argv[1])
""",
        way,
    )


@pytest.mark.costly_table
@pytest.mark.parametrize(
    "flags", [("-I",), ("-O",), ("-X", "dev"), ("-W", "error"), ("-S",), ("-B", "-s", "-u")], ids=" ".join
)
def test_interpreter_options_reach_the_workers(flags):
    done = run_python(
        f"""
import sys
sys.path[:] = {__import__("sys").path!r}
sys.path.insert(0, {__import__("tests.conditions").conditions.ROOT!r})
{BODY}
check("spawn")
def flags():
    import sys
    return tuple(sys.flags)[:8]
with PidfdPoolExecutor(1) as pool:
    assert pool.submit(flags).result() == flags()
""",
        flags=flags,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_default_timeout_for_sockets_is_not_for_ours(way):
    """A channel that inherits it does not block, and its worker ends as soon as it has waited for so long."""
    out = run_host(
        """
import socket
socket.setdefaulttimeout(0.2)
with PidfdPoolExecutor(1, mp_context=sys.argv[1]) as pool:
    first = pool.submit(os.getpid).result(timeout=20)
    time.sleep(0.5)  # longer than the timeout, with nothing to do
    print(pool.submit(os.getpid).result(timeout=20) == first)
check(sys.argv[1])
""",
        way,
    )
    assert out == "True\n"
