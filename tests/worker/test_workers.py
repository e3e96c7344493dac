"""What a worker is and may do."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest

from pidfdpool import PidfdPoolExecutor, PoolBroken
from pidfdpool.pidfd import Pidfd
from pidfdpool.scheduler.policy import Policy
from tests import calls
from tests.conditions import eventually, run_python

STATE: dict = {}


def initialize(*values):
    STATE["values"] = values


def get_state():
    return STATE.get("values")


def test_the_initializer_runs_in_each_worker_with_its_arguments(way):
    with PidfdPoolExecutor(2, mp_context=way, initializer=initialize, initargs=(1, "two")) as pool:
        assert {pool.submit(get_state).result() for _ in range(10)} == {(1, "two")}
        pool.submit(calls.die).exception()
        assert pool.submit(get_state).result() == (1, "two"), "in a replacement, too"


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_initializer_that_raises_breaks_the_pool_with_that_error_as_the_cause(way, kind, caplog):
    with PidfdPoolExecutor(2, mp_context=way, initializer=calls.raise_it, initargs=(kind("no"),)) as pool:
        future = pool.submit(calls.double, 2)
        with pytest.raises(PoolBroken, match="initializer") as caught:
            future.result(timeout=20)
        assert isinstance(caught.value.__cause__, kind)
        with pytest.raises(PoolBroken, match="initializer"):
            pool.submit(calls.double, 2)
    if way == "spawn":  # pytest has set up logging, so the host gets it; a forked worker has the host's handlers
        assert "Exception in initializer:" in caplog.text


def test_an_initializer_that_kills_its_worker_breaks_the_pool_in_the_end(way, monkeypatch):
    monkeypatch.setattr(Policy, "pause", lambda _self, _streak: 0.01)
    with PidfdPoolExecutor(1, mp_context=way, initializer=os._exit, initargs=(5,)) as pool:
        with pytest.raises(PoolBroken, match="died (within|8 times in a row).* exited with code 5"):
            pool.submit(calls.double, 2).result(timeout=50)


def test_an_initializer_that_cannot_be_sent_breaks_the_pool_at_once():
    with PidfdPoolExecutor(1, initializer=print, initargs=(calls.Unpicklable(),)) as pool:
        with pytest.raises(PoolBroken, match="does not pickle"):
            pool.submit(calls.double, 2).result(timeout=20)
    with PidfdPoolExecutor(1, mp_context="fork", initializer=print, initargs=(calls.Unpicklable(),)) as pool:
        assert pool.submit(calls.double, 2).result(timeout=20) == 4, "a fork needs no pickle"


def use_shared_objects(*shared):
    STATE["shared"] = shared


def work_on_shared_objects():
    lock, queue, event, value, connection = STATE["shared"]
    with lock:
        value.value += 1
    queue.put(os.getpid())
    # Its thread has written and let go of the queue's lock, which a worker that is killed would take along.
    queue.close()
    queue.join_thread()
    event.set()
    connection.send("hello")
    return multiprocessing.current_process().name


def share_objects(method):
    context = multiprocessing.get_context(method)
    lock, event, value = context.Lock(), context.Event(), context.Value("i", 0)
    queue = context.Queue()
    ours, theirs = context.Pipe()
    chosen = None if method is None else context
    initargs = (lock, queue, event, value, theirs)
    with PidfdPoolExecutor(1, mp_context=chosen, initializer=use_shared_objects, initargs=initargs) as pool:
        pool.submit(work_on_shared_objects).result(timeout=20)
        assert value.value == 1
        assert event.wait(10)
        assert queue.get(timeout=10)
        assert ours.poll(10)
        assert ours.recv() == "hello"
        pool.submit(calls.die).exception()
        assert pool.submit(work_on_shared_objects).result(timeout=20), "a replacement inherits them, too"
        assert value.value == 2
        queue.get(timeout=10)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver", None])
def test_multiprocessing_objects_are_inherited_through_initargs(method):
    # In a process of its own, because such objects leave multiprocessing's resource tracker running.
    done = run_python(f"from tests.worker.test_workers import share_objects; share_objects({method!r})")
    assert (done.returncode, done.stderr) == (0, "")


def refuse_lock(way):
    lock = multiprocessing.get_context("spawn").Lock()
    with PidfdPoolExecutor(1, mp_context=way) as pool, pytest.raises(RuntimeError, match="inheritance"):
        pool.submit(calls.double, lock).result()


def test_a_lock_as_an_argument_is_refused_as_the_standard_does(way):
    done = run_python(f"from tests.worker.test_workers import refuse_lock; refuse_lock({way!r})")
    assert (done.returncode, done.stderr) == (0, "")


def who_am_i():
    me, parent = multiprocessing.current_process(), multiprocessing.parent_process()
    return me.name, me.pid, me.daemon, parent.pid, parent.is_alive(), parent.name


def test_multiprocessing_knows_the_worker_and_its_parent(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pid = pool.submit(os.getpid).result()
        assert pool.submit(who_am_i).result() == ("PidfdPoolWorker-0", pid, False, os.getpid(), True, "MainProcess")


def start_a_process(method):
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    process = context.Process(target=queue.put, args=("from the child",))
    process.start()
    got = queue.get()
    process.join()
    return got, process.exitcode


@pytest.mark.usefixtures("tracker_ends")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_task_may_use_multiprocessing(way, method):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert pool.submit(start_a_process, method).result(timeout=30) == ("from the child", 0)


def use_everything():
    import asyncio
    import subprocess
    import threading
    from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

    out = [subprocess.run(["echo", "x"], capture_output=True, check=True).stdout]
    thread = threading.Thread(target=out.append, args=("thread",))
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as threads:
        out.append(threads.submit(calls.double, 1).result())

    async def main():
        process = await asyncio.create_subprocess_exec("true")
        return await process.wait()

    out.append(asyncio.run(main()))
    with ProcessPoolExecutor(1) as standard:
        out.append(standard.submit(calls.double, 2).result())
    with multiprocessing.Pool(1) as other:
        out.append(other.apply(calls.double, (3,)))
    return out


@pytest.mark.usefixtures("tracker_ends")
def test_a_task_may_use_subprocesses_threads_asyncio_and_other_pools(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert pool.submit(use_everything).result(timeout=30) == [b"x\n", "thread", 2, 0, 4, 6]
        assert pool.submit(use_everything).result(timeout=30) == [b"x\n", "thread", 2, 0, 4, 6]


def nest(depth, method):
    if not depth:
        return [os.getpid()]
    with PidfdPoolExecutor(1, mp_context=method) as pool:
        return [os.getpid(), *pool.submit(nest, depth - 1, method).result(timeout=30)]


def test_pools_nest(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert len(set(pool.submit(nest, 3, way).result(timeout=40))) == 4


def test_a_nested_pool_dies_with_the_worker_that_made_it(way, tmp_path):
    def make_pool_and_die():
        inner = PidfdPoolExecutor(1, mp_context=way)
        pids = inner.submit(calls.identify).result()
        (tmp_path / "pids").write_text(repr(pids))
        os._exit(1)

    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.submit(make_pool_and_die).exception(timeout=20)
        for pid in eval((tmp_path / "pids").read_text()):
            eventually(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), "the nested pool is gone and reaped")


def test_an_executor_of_the_host_works_inside_a_forked_worker():
    done = run_python(
        """
        from pidfdpool import PidfdPoolExecutor
        import os
        def inner():
            return pool.submit(os.getpid).result(timeout=20)
        pool = PidfdPoolExecutor(1, mp_context="fork")
        outer_pid = pool.submit(os.getpid).result()
        assert pool.submit(inner).result(timeout=20) != outer_pid
        pool.shutdown()
        """
    )
    assert (done.returncode, done.stderr) == (0, "")


def in_daemon(way, queue):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        queue.put(pool.submit(start_a_process, "fork").result(timeout=30))


def run_in_daemon(way, method):
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    process = context.Process(target=in_daemon, args=(way, queue), daemon=True)
    process.start()
    process.join(40)
    assert process.exitcode == 0
    assert queue.get() == ("from the child", 0)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_pool_works_inside_a_daemonic_process(way, method):
    # In a process of its own, because "spawn" leaves multiprocessing's resource tracker running.
    done = run_python(f"from tests.worker.test_workers import run_in_daemon; run_in_daemon({way!r}, {method!r})")
    assert (done.returncode, done.stderr) == (0, "")


def test_workers_are_replaced_after_their_share_of_tasks(way):
    with PidfdPoolExecutor(1, mp_context=way, max_tasks_per_child=3) as pool:
        pids = [pool.submit(os.getpid).result(timeout=20) for _ in range(9)]
    assert [len(set(pids[start : start + 3])) for start in (0, 3, 6)] == [1, 1, 1]
    assert len(set(pids)) == 3


@pytest.mark.many_times
def test_many_replacements_lose_no_task(way):
    with PidfdPoolExecutor(3, mp_context=way, max_tasks_per_child=1) as pool:
        assert list(pool.map(calls.double, range(100))) == [2 * n for n in range(100)]


def test_an_interrupt_is_ignored(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pid = pool.submit(os.getpid).result()
        future = pool.submit(calls.sleep, 0.3, "slept")
        with Pidfd.open(pid) as worker:
            worker.send_signal(signal.SIGINT)
        assert future.result() == "slept"


def test_a_native_crash_writes_the_python_stack(way, capfd):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.submit(calls.die, signal.SIGSEGV).exception()
    err = capfd.readouterr().err
    assert "Fatal Python error: Segmentation fault" in err
    assert "in die" in err


def test_functions_of_main_work_without_a_guard(way, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        """
import sys
from pidfdpool import PidfdPoolExecutor

class Thing:
    def __init__(self, value):
        self.value = value
    def __eq__(self, other):
        return type(self) is type(other) and self.value == other.value

FACTOR = 3
def triple(thing):
    return Thing(thing.value * FACTOR)

pool = PidfdPoolExecutor(2, mp_context=sys.argv[1])
result = pool.submit(triple, Thing(2)).result()
assert result == Thing(6) and isinstance(result, Thing), (result, Thing)
assert list(pool.map(triple, [Thing(1)])) == [Thing(3)]
error = pool.submit(lambda: 1 / 0).exception()
assert isinstance(error, ZeroDivisionError)
def later(x):
    return triple(Thing(x)).value
assert pool.submit(later, 5).result() == 15
FACTOR = 4
print("ok")
"""
    )
    import subprocess
    import sys

    from tests.conditions import ROOT

    for source in (str(script), "-"):
        done = subprocess.run(
            [sys.executable, source, way],
            input=script.read_text(),
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
            env={**os.environ, "PYTHONPATH": ROOT},
        )
        assert (done.stdout, done.stderr) == ("ok\n", ""), source


def test_a_forked_worker_finds_functions_of_main_by_name_not_by_value():
    done = run_python(
        """
        import threading
        from pidfdpool import PidfdPoolExecutor
        lock = threading.Lock()          # cannot be pickled, and need not be
        table = bytes(50_000_000)
        def size():
            with lock:
                return len(table)
        with PidfdPoolExecutor(1, mp_context="fork") as pool:
            assert pool.submit(size).result() == 50_000_000
            def size():
                return 1
            assert pool.submit(size).result() == 1, "a new function of an old name travels by value"
        """
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_time_is_on_nobodys_side_when_nothing_happens(way):
    """Neither the pool thread nor the template nor a worker wakes up while there is nothing to do."""
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        pids = {pool.submit(os.getpid).result() for _ in range(10)} | {pool.submit(os.getppid).result()}
        thread = pool._pool.core.thread._thread.native_id

        def switches():
            paths = [f"/proc/{pid}/status" for pid in pids] + [f"/proc/self/task/{thread}/status"]
            return [[line for line in open(path) if line.startswith("voluntary_ctxt_switches")] for path in paths]

        eventually(lambda: _settled(switches), "everything is asleep")


def _settled(read):
    before = read()
    time.sleep(1.0)
    return read() == before
