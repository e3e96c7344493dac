"""Forks of the host while its pool is alive: the parent's pool is undisturbed, the child's works, nothing hangs."""

from __future__ import annotations

import os
import signal

import pytest

from tests.hosts.ending import started
from tests.hosts.observing import expect, expect_gone, within

SECTION = "Forks of the host"

BEGIN = """
import json, os, signal, subprocess, sys, threading, time
from tests.hosts.programs import lives, tasks
from tests.hosts.programs.contender import ProcessPoolExecutor

path = sys.argv[1]
pool = ProcessPoolExecutor(2)
lives.use(pool)
pending = [pool.submit(lives.append, path, number, 0.1) for number in range(6)]
"""

END = """
if pid:
    seen = {"child": lives.watch(pid), "parent": lives.seen_of_parent(pool, pending, path)}
    print(json.dumps(seen), flush=True)
    pool.shutdown()
"""

# What the forked child does; most of these then go on to the end of the script.
ACTS = {
    "uses the pool": "lives.use(pool)",
    "uses the pool and shuts it down": "lives.use(pool); pool.shutdown()",
    "shuts the pool down": "pool.shutdown()",
    "ignores the pool": "pass",
    "ignores it and calls os._exit": "os._exit(0)",
    "calls sys.exit": "sys.exit(0)",
    "raises": "raise ValueError('the child says so')",
    "uses the pool and raises": "lives.use(pool); raise ValueError('the child says so')",
    "execs another program": "os.execvp('true', ['true'])",
    "spawns another program": "subprocess.run(['true'], check=True)",
    "is killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "is terminated": "os.kill(os.getpid(), signal.SIGTERM)",
    "forks again, and that child uses the pool": "assert lives.in_child(lambda: lives.use(pool)) == 'works'",
    "uses it, forks again, and all of them use it": (
        "lives.use(pool); assert lives.in_child(lambda: lives.use(pool)) == 'works'; lives.use(pool)"
    ),
}
ENDINGS = {
    "raises": "ends with exit status 1",
    "uses the pool and raises": "ends with exit status 1",
    "is killed": "is killed by SIGKILL",
    "is terminated": "is killed by SIGTERM",
}


def expect_both_well(host, child="works", quiet=True):
    """Fail the case unless the host says that its child ended as it should and that its pool is undisturbed."""
    code = host.wait(40)
    expect(code == 0, f"the parent ends with {code}: {(host.err.strip().splitlines() or [''])[-1]}", host.err)
    seen = host.report()
    expect(seen["child"] == child, f"the child {seen['child']}", host.err)
    expect(seen["parent"] == "undisturbed", seen["parent"], host.err)
    host.expect_end(0, quiet=quiet)


@pytest.mark.costly_table
@pytest.mark.case(SECTION, "the host forks while tasks are pending; the child", ways="both")
@pytest.mark.parametrize("act", ACTS)
def test_what_the_child_does(contender, act, tmp_path):
    code = f"{BEGIN}pid = os.fork()\nif not pid:\n    {ACTS[act]}\n{END}"
    with started(contender, tmp_path, code, str(tmp_path / "done")) as host:
        raises = act.endswith("raises")
        expect_both_well(host, ENDINGS.get(act, "works"), quiet=not raises)
        if raises:
            expect(host.err.count("Traceback") == 1, "more tracebacks than the child's own", host.err)
            expect(
                host.err.strip().endswith("ValueError: the child says so"), "more than the child's error", host.err
            )


@pytest.mark.case(
    SECTION, "a child runs its parent's atexit functions at its end, and the parent its own", ways="both"
)
def test_exit_functions_run_once_in_each(contender, tmp_path):
    code = f"""{BEGIN}
import atexit
atexit.register(lambda: lives.append(path + "-exits", os.getpid()))
pid = os.fork()
{END}"""
    with started(contender, tmp_path, code, str(tmp_path / "done")) as host:
        expect_both_well(host)
        exits = (tmp_path / "done-exits").read_text().split()
        expect(len(exits) == 2 and len(set(exits)) == 2, "exit functions did not run once in each", exits)


@pytest.mark.case(SECTION, "a child waits for a task that was pending when it was forked", ways="both")
def test_a_child_waits_for_what_was_pending(contender, tmp_path):
    code = f"""{BEGIN}
pid = os.fork()
if not pid:
    try:
        pending[-1].result()
    except Exception:  # whatever it is told, as long as it is told something
        os._exit(0)
    os._exit(1)
{END}"""
    with started(contender, tmp_path, code, str(tmp_path / "done")) as host:
        expect_both_well(host)


@pytest.mark.case(SECTION, "a child waits for a task whose result its parent is just unpickling", ways="both")
def test_a_child_waits_for_what_is_being_unpickled(contender, tmp_path):
    code = f"""{BEGIN}
arriving = pool.submit(lives.Slow)
while not lives.arriving.is_set():
    time.sleep(0.01)
pid = os.fork()
if not pid:
    try:
        arriving.result()
    except Exception:
        pass
    os._exit(0)
{END}"""
    with started(contender, tmp_path, code, str(tmp_path / "done")) as host:
        expect_both_well(host)


@pytest.mark.case(SECTION, "the host forks between two results of map, and the child iterates on", ways="both")
def test_a_child_iterates_on(contender, tmp_path):
    code = f"""{BEGIN}
results = pool.map(tasks.sleep, [0.0] * 3 + [0.2] * 12)
next(results)
pid = os.fork()
if not pid:
    try:
        list(results)
    except Exception:
        os._exit(0)
    os._exit(1)
assert len(list(results)) == 14
{END}"""
    with started(contender, tmp_path, code, str(tmp_path / "done")) as host:
        expect_both_well(host)


@pytest.mark.case(SECTION, "the host forks in a with block, and the child leaves the block", ways="both")
@pytest.mark.parametrize("use", ["without using it", "after using it"])
def test_a_child_leaves_the_with_block(contender, use, tmp_path):
    code = f"""{BEGIN}
with pool:
    pid = os.fork()
    if not pid and {use == "after using it"}:
        lives.use(pool)
    if pid:
        seen = {{"child": lives.watch(pid), "parent": lives.seen_of_parent(pool, pending, path)}}
        print(json.dumps(seen), flush=True)
"""
    with started(contender, tmp_path, code, str(tmp_path / "done")) as host:
        expect_both_well(host)


@pytest.mark.case(
    SECTION, "the host forks in a thread while other threads submit; the children use the pool", ways="both"
)
def test_forks_in_a_thread_while_others_submit(contender, tmp_path):
    code = f"""{BEGIN}
stop = lives.in_threads(2, lambda: pool.submit(tasks.double, 1).result(lives.PATIENCE))
seen = []
def fork_in_a_row():
    while len(seen) < 8 and set(seen) <= {{"works"}}:
        seen.append(lives.in_child(lambda: (lives.use(pool), pool.shutdown())))
forker = threading.Thread(target=fork_in_a_row)
forker.start()
forker.join()
stop()
print(json.dumps({{"child": seen[-1], "parent": lives.seen_of_parent(pool, pending, path)}}), flush=True)
pool.shutdown()
"""
    with started(contender, tmp_path, code, str(tmp_path / "done")) as host:
        expect_both_well(host)


@pytest.mark.case(SECTION, "the host forks in a done-callback; the child", ways="both")
@pytest.mark.parametrize("act", ["uses the pool", "calls os._exit", "returns from the callback"])
def test_a_fork_in_a_callback(contender, act, tmp_path):
    code = f"""{BEGIN}
seen = {{}}
called = threading.Event()
def callback(future):
    pid = os.fork()
    if not pid:
        if {act!r} == "uses the pool":
            try:
                lives.use(pool)
                pool.shutdown()
            except BaseException:
                os._exit(1)
        if {act!r} != "returns from the callback":
            os._exit(0)
        return
    seen["child"] = lives.watch(pid)
    called.set()
pool.submit(tasks.sleep, 0.3).add_done_callback(callback)
assert called.wait(2 * lives.PATIENCE)
seen["parent"] = lives.seen_of_parent(pool, pending, path)
print(json.dumps(seen), flush=True)
pool.shutdown()
"""
    with started(contender, tmp_path, code, str(tmp_path / "done")) as host:
        expect_both_well(host)


@pytest.mark.case(SECTION, "a multiprocessing.Process is forked while tasks are pending; it", ways="both")
@pytest.mark.parametrize("act", ["uses the pool", "ignores the pool", "is a daemon and uses the pool"])
def test_a_process_of_multiprocessing(contender, act, tmp_path):
    code = f"""{BEGIN}
import multiprocessing
act = {act!r}
process = multiprocessing.get_context("fork").Process(
    target=lives.use if "uses" in act else int, args=(pool,) if "uses" in act else (), daemon="daemon" in act
)
process.start()
process.join(lives.PATIENCE)
child = "hangs" if process.exitcode is None else f"ends with {{process.exitcode}}" if process.exitcode else "works"
process.kill()
process.join()
print(json.dumps({{"child": child, "parent": lives.seen_of_parent(pool, pending, path)}}), flush=True)
pool.shutdown()
"""
    with started(contender, tmp_path, code, str(tmp_path / "done")) as host:
        expect_both_well(host)


@pytest.mark.case(SECTION, "the host forks by os.forkpty, and the child uses the pool", ways="both")
def test_forkpty(contender, tmp_path):
    code = f"""{BEGIN}
pid, terminal = os.forkpty()
if not pid:
    status = 1
    try:
        lives.use(pool)
        status = 0
    finally:
        os._exit(status)
{END}"""
    with started(contender, tmp_path, code, str(tmp_path / "done")) as host:
        expect_both_well(host)


DAEMON = """
import os, signal, sys
from tests.hosts.programs import lives, tasks
from tests.hosts.programs.contender import ProcessPoolExecutor

path = sys.argv[1]
pool = ProcessPoolExecutor(2)
workers = {pool.submit(tasks.pid).result() for _ in range(8)}
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
signal.alarm(30)
with open(path + "-pids", "w") as file:
    print(os.getpid(), *workers, file=file)
os.rename(path + "-pids", path + "-before")
lives.use(pool)
with open(path, "w") as file:
    file.write("done")
"""


@pytest.mark.case(SECTION, "the host makes itself a daemon, and uses there the pool that it had before", ways="both")
def test_a_daemon_uses_the_pool_that_was_made_before(contender, tmp_path):
    path = tmp_path / "done"
    with started(contender, tmp_path, DAEMON, str(path)) as host:
        host.wait()
        before = tmp_path / "done-before"
        daemon, *workers = map(int, within(10, lambda: before.exists() and before.read_text(), "no daemon").split())
        # After the parent's os._exit its pool has no owner any more.
        expect_gone(workers, "the parent's workers are left")
        within(5 if contender == "standard" else 20, path.exists, "the daemon hangs", lambda: host.err)
        expect_gone([daemon], "the daemon does not end", 10)
        host.expect_end(0)


OUTLIVED = """
import json, os, signal, sys, time
from tests.hosts.programs import lives, tasks
from tests.hosts.programs.contender import ProcessPoolExecutor

pool = ProcessPoolExecutor(2)
workers = sorted({pool.submit(tasks.pid).result() for _ in range(8)})
spinner = pool.submit(tasks.touch_and_spin, sys.argv[1])
while not (os.path.exists(sys.argv[1]) and os.path.getsize(sys.argv[1])):
    time.sleep(0.01)
workers.append(int(open(sys.argv[1]).read()))
child = os.fork()
if child:
    print(json.dumps({"child": child, "workers": workers}), flush=True)
signal.alarm(60)
signal.pause()
"""


@pytest.mark.case(SECTION, "the host forks and is killed while its workers spin; the child lives on", ways="both")
def test_a_child_outlives_its_parent(contender, tmp_path):
    with started(contender, tmp_path, OUTLIVED, str(tmp_path / "spins")) as host:
        within(20, lambda: host.out.endswith("\n"), "the host does not start", lambda: host.err)
        seen = host.report()
        host.process.kill()
        host.wait()
        try:
            expect_gone(seen["workers"], "the parent's workers are left")
        finally:
            os.kill(seen["child"], signal.SIGKILL)  # orphaned, and not reaped by anybody while it lives
        host.expect_end(-signal.SIGKILL)
