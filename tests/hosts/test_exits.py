"""The end of the host: what was submitted is finished where the standard does so, and nothing hangs or is left."""

from __future__ import annotations

import os
import signal

import pytest

from tests.hosts.ending import started
from tests.hosts.observing import expect, within

SECTION = "The end of the host"
COUNT = 20

BEGIN = f"""
import atexit, faulthandler, gc, os, signal, subprocess, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from tests.hosts.programs import lives, tasks
from tests.hosts.programs.contender import ProcessPoolExecutor

path = sys.argv[1]

def submit_all(pool):
    return [pool.submit(lives.append, path, number, 0.02) for number in range({COUNT})]

pool = ProcessPoolExecutor(2)
"""

# How a script ends that does not wait for its tasks; its exit status, if it is not 0.
ENDS = {
    "the script ends": ("submit_all(pool)", 0),
    "sys.exit(3)": ("submit_all(pool); sys.exit(3)", 3),
    "an exception": ("submit_all(pool); raise ValueError('its own')", 1),
    "sys.exit in a thread": ("submit_all(pool); threading.Thread(target=sys.exit, args=(3,)).start()", 0),
    "del pool": ("submit_all(pool); del pool", 0),
    "del pool and all futures are kept": ("kept = submit_all(pool); del pool", 0),
    "the pool in a cycle": ("submit_all(pool); cycle = [pool]; cycle.append(cycle); del pool, cycle", 0),
    "the pool in a cycle that is collected": (
        "submit_all(pool); cycle = [pool]; cycle.append(cycle); del pool, cycle; gc.collect()",
        0,
    ),
    "the pool is a thread's own, which has ended": (
        "local = threading.local(); del pool\n"
        "def work():\n    local.pool = ProcessPoolExecutor(2); submit_all(local.pool)\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()",
        0,
    ),
    "the pool was made in a thread that has ended": (
        "pools = []\n"
        "def work():\n    pools.append(ProcessPoolExecutor(2)); submit_all(pools[0])\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()",
        0,
    ),
    "shutdown(wait=False)": ("submit_all(pool); pool.shutdown(wait=False)", 0),
    "faulthandler is on": ("faulthandler.enable(); submit_all(pool)", 0),
    "the pool hangs on a module": ("import types; sys.modules['m'] = types.ModuleType('m')\nimport m\n"
                                   "m.pool = pool; del pool; submit_all(m.pool)", 0),
    "an exit function of its own": ("atexit.register(lambda: None); submit_all(pool)", 0),
    "a multiprocessing.Process that still runs": (
        "import multiprocessing; submit_all(pool)\n"
        "multiprocessing.get_context('fork').Process(target=time.sleep, args=(0.3,)).start()",
        0,
    ),
    "a standard pool beside it": (
        "from concurrent.futures import ProcessPoolExecutor as Standard\n"
        "other = Standard(1); other.submit(tasks.sleep, 0.2); submit_all(pool)",
        0,
    ),
}  # fmt: skip


def lines(path):
    return sorted(map(int, path.read_text().split())) if path.exists() else []


@pytest.mark.costly_table
@pytest.mark.case(
    SECTION, f"a script submits {COUNT} tasks and ends without waiting; all of them are done", ways="both"
)
@pytest.mark.parametrize("end", ENDS)
def test_what_was_submitted_is_done(contender, end, tmp_path):
    code, status = ENDS[end]
    path = tmp_path / "done"
    with started(contender, tmp_path, f"{BEGIN}{code}\n", str(path)) as host:
        raises = end == "an exception"
        host.expect_end(status, quiet=not raises)
        expect(lines(path) == list(range(COUNT)), "not all tasks are done", lines(path))
        if raises:
            expect(host.err.count("Traceback") == 1, "more than the script's own traceback", host.err)


@pytest.mark.case(
    SECTION, "a thread submits the pool's first tasks as the main thread ends; what is accepted is done", ways="both"
)
@pytest.mark.parametrize("seconds", [0.002, 0.01, 0.03])
def test_a_thread_submits_as_the_main_thread_ends(contender, seconds, tmp_path):
    code = f"""{BEGIN}
begun = threading.Event()
def work():
    begun.set()
    for number in range({COUNT}):
        try:
            pool.submit(lives.append, path, number)
        except RuntimeError:
            break
        lives.append(path + "-accepted", number)
threading.Thread(target=work).start()
begun.wait()
time.sleep({seconds})  # into the start of the pool, most often; wherever it gets to, no accepted task may be lost
"""
    path = tmp_path / "done"
    with started(contender, tmp_path, code, str(path)) as host:
        host.expect_end(0)
        expect(lines(path) == lines(tmp_path / "done-accepted"), "not all accepted tasks are done", lines(path))


@pytest.mark.case(SECTION, "futures have done-callbacks as the script ends; all of them are called", ways="both")
def test_callbacks_are_called(contender, tmp_path):
    code = f"""{BEGIN}
for future in submit_all(pool):
    future.add_done_callback(lambda future: lives.append(path + "-told", future.result()))
"""
    with started(contender, tmp_path, code, str(tmp_path / "done")) as host:
        host.expect_end(0)
        expect(lines(tmp_path / "done-told") == list(range(COUNT)), "not all callbacks are called")


@pytest.mark.case(SECTION, "tasks of a thread pool wait for the process pool as the script ends", ways="both")
def test_a_thread_pool_beside_it(contender, tmp_path):
    code = f"""{BEGIN}
threads = ThreadPoolExecutor(4)
for future in submit_all(pool):
    threads.submit(lambda future=future: lives.append(path + "-told", future.result()))
"""
    with started(contender, tmp_path, code, str(tmp_path / "done")) as host:
        host.expect_end(0)
        expect(lines(tmp_path / "done-told") == list(range(COUNT)), "not all threads are told")


@pytest.mark.case(
    SECTION, "SIGTERM's handler raises SystemExit as the script waits for a result; all tasks are done", ways="both"
)
def test_a_handler_raises_system_exit(contender, tmp_path):
    code = f"""{BEGIN}
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
futures = submit_all(pool)
os.kill(os.getpid(), signal.SIGTERM)
futures[-1].result()
"""
    path = tmp_path / "done"
    with started(contender, tmp_path, code, str(path)) as host:
        host.expect_end(7)
        expect(lines(path) == list(range(COUNT)), "not all tasks are done", lines(path))


HANDLED = {
    "shuts the pool down": ("pool.shutdown()", 0),
    "shuts the pool down without waiting": ("pool.shutdown(wait=False, cancel_futures=True)", 0),
    "calls sys.exit": ("sys.exit(7)", 7),
    "calls os._exit": ("os._exit(7)", 7),
}


@pytest.mark.costly_table
@pytest.mark.case(
    SECTION, "SIGTERM comes while the script submits one task after the other; its handler", ways="both"
)
@pytest.mark.parametrize("handler", HANDLED)
def test_a_handler_interrupts_submit(contender, handler, tmp_path):
    act, status = HANDLED[handler]
    code = f"""{BEGIN}
def handle(*_):
    {act}
signal.signal(signal.SIGTERM, handle)
pool.submit(int).result()
lives.append(path, 1)
try:
    while True:
        pool.submit(int)
except RuntimeError as error:
    if "after shutdown" not in str(error):
        raise
"""
    # The handler has to come in the middle of a submit, and not between two: several attempts make that likely.
    for attempt in range(4):
        path = tmp_path / str(attempt)
        with started(contender, tmp_path, code, str(path)) as host:
            within(20, lambda: path.exists() or host.process.poll() is not None, "the host does not start")
            host.process.send_signal(signal.SIGTERM)
            host.expect_end(status, seconds=6 if contender == "standard" else 25)


@pytest.mark.costly_table
@pytest.mark.case(SECTION, "both workers spin for ever, and the host ends by", ways="both")
@pytest.mark.parametrize(
    "end",
    [
        "os._exit",
        "SIGTERM",
        "SIGHUP",
        "SIGKILL",
        "SIGABRT",
        "os._exit in a handler of SIGTERM",
        "os._exit in a thread",
    ],
)
def test_spinning_workers_end_with_the_host(contender, end, tmp_path):
    code = f"""{BEGIN}
signal.signal(signal.SIGTERM, lambda *_: os._exit(5)) if "handler" in {end!r} else None
for number in (1, 2):
    pool.submit(tasks.touch_and_spin, f"{{path}}-{{number}}")
while not all(os.path.exists(f"{{path}}-{{number}}") for number in (1, 2)):
    time.sleep(0.01)
with open(path, "w"):
    pass
if {end == "os._exit"}:
    os._exit(5)
if {end == "os._exit in a thread"}:
    threading.Thread(target=os._exit, args=(5,)).start()
time.sleep(60)
"""
    with started(contender, tmp_path, code, str(tmp_path / "path")) as host:
        within(20, lambda: (tmp_path / "path").exists() or host.process.poll() is not None, "the host does not start")
        name = end.split()[-1]
        status = 5
        if name.startswith("SIG"):
            number = signal.Signals[name]
            host.process.send_signal(number)
            status = 5 if "handler" in end else -number
        host.expect_end(status)


@pytest.mark.case(SECTION, "Ctrl-C while the script waits for a task that runs for ever", ways="both")
def test_ctrl_c_while_a_task_spins(contender, tmp_path):
    code = f"""{BEGIN}
with pool:
    pool.submit(tasks.touch_and_spin, path).result()
"""
    with started(contender, tmp_path, code, str(tmp_path / "path")) as host:
        within(20, (tmp_path / "path").exists, "the host does not start", lambda: host.err)
        os.killpg(host.process.pid, signal.SIGINT)
        host.expect_end(-signal.SIGINT, seconds=6 if contender == "standard" else 20, quiet=False)
        expect(host.err.count("Traceback") == 1, "more tracebacks than the host's own", host.err)


@pytest.mark.case(
    SECTION, "the script ends while a task sleeps for ever: it is waited for, and Ctrl-C ends that", ways="both"
)
def test_ctrl_c_at_exit(contender, tmp_path):
    code = f"""{BEGIN}
pool.submit(tasks.touch_and_sleep, path, 3600)
atexit.register(lambda: lives.append(path + "-over", 1))
"""
    with started(contender, tmp_path, code, str(tmp_path / "path")) as host:
        within(20, (tmp_path / "path").exists, "the host does not start", lambda: host.err)
        expect(host.process.poll() is None, "the host does not wait for its task")
        os.killpg(host.process.pid, signal.SIGINT)
        host.wait(6 if contender == "standard" else 20, "Ctrl-C does not end the host")
        host.expect_end(0)
        expect((tmp_path / "path-over").exists(), "exit functions are not run")


LATE = {
    "an exit function": "pool.submit(int).result(); atexit.register(late, pool)",
    "an exit function that makes the pool": "atexit.register(lambda: late(ProcessPoolExecutor(1)))",
    "a finalizer at the interpreter's end": (
        "pool.submit(int).result()\n"
        "class Late:\n    def __del__(self, late=late, pool=pool): late(pool)\n"
        "import types; sys.modules['m'] = types.ModuleType('m'); sys.modules['m'].late = Late()"
    ),
    "a daemon thread": (
        "pool.submit(int).result(); refused = threading.Event()\n"
        "def submit_on():\n"
        "    while not refused.is_set():\n"
        "        late(pool, 'quiet'); time.sleep(0.001)\n"
        "threading.Thread(target=submit_on, daemon=True).start()\n"
        "atexit.register(lambda: late(pool))"
    ),
}


@pytest.mark.case(SECTION, "a task is submitted when the interpreter is on its way out; by", ways="both")
@pytest.mark.parametrize("by", LATE)
def test_late_submits(contender, by, tmp_path):
    code = f"""{BEGIN}
def late(pool, quiet=None):
    try:
        pool.submit(int)
    except RuntimeError as error:
        if quiet is None:
            print(error, flush=True)
{LATE[by]}
"""
    with started(contender, tmp_path, code, str(tmp_path / "path")) as host:
        host.expect_end(0)
        expect("cannot schedule new futures after" in host.out, "it is not refused", host.out)


@pytest.mark.case(
    SECTION, "an object that owns a pool shuts it down in its finalizer, at the interpreter's end", ways="both"
)
def test_shutdown_in_a_finalizer(contender, tmp_path):
    code = f"""{BEGIN}
class Owner:
    def __init__(self):
        self.pool = ProcessPoolExecutor(2)
        submit_all(self.pool)
    def __del__(self):
        self.pool.shutdown(wait=True)
import types
sys.modules["m"] = types.ModuleType("m")
sys.modules["m"].owner = Owner()
"""
    path = tmp_path / "done"
    with started(contender, tmp_path, code, str(path)) as host:
        host.expect_end(0)
        expect(lines(path) == list(range(COUNT)), "not all tasks are done", lines(path))


@pytest.mark.case(SECTION, "the host is killed at some moment of the pool's start", ways="both")
@pytest.mark.parametrize("seconds", [0.002, 0.01, 0.03, 0.08])
def test_the_host_is_killed_during_the_start(contender, seconds, tmp_path):
    code = f"""{BEGIN}
def kill():
    time.sleep({seconds})
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=kill).start()
submit_all(pool)
time.sleep(60)
"""
    with started(contender, tmp_path, code, str(tmp_path / "path")) as host:
        host.expect_end(-signal.SIGKILL)


@pytest.mark.case(SECTION, "the script ends while a daemon thread starts the pool", ways="both")
def test_the_script_ends_while_a_daemon_thread_starts_the_pool(contender, tmp_path):
    code = f"""{BEGIN}
begun = threading.Event()
def work():
    begun.set()
    try:
        submit_all(pool)
    except RuntimeError:
        pass
threading.Thread(target=work, daemon=True).start()
begun.wait()
time.sleep(0.005)
"""
    with started(contender, tmp_path, code, str(tmp_path / "path")) as host:
        host.expect_end(0)


BROKEN = {
    "a failing initializer": "pool = ProcessPoolExecutor(1, initializer=tasks.fail, initargs=('out of order',))",
    "a worker that was killed": "",
}


@pytest.mark.case(SECTION, "the script ends with a pool that has seen", ways="both")
@pytest.mark.parametrize("reason", BROKEN)
def test_the_script_ends_with_a_pool_in_trouble(contender, reason, tmp_path):
    code = f"""{BEGIN}
{BROKEN[reason]}
futures = []
try:
    for _ in range(3):
        futures.append(pool.submit(tasks.die))
except BrokenProcessPool:
    assert futures
for future in futures:
    assert future.exception(lives.PATIENCE) is not None
"""
    with started(contender, tmp_path, code, str(tmp_path / "path")) as host:
        # What the initializer raised is logged, by both pools; a worker's death is no noise of its own.
        host.expect_end(0, quiet=not reason.endswith("initializer"))
