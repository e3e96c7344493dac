"""Hosts and tasks that use shared memory and semaphores with names, which multiprocessing's resource tracker watches.

Each host runs in a process of its own, because its tracker stays until its end.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing import shared_memory

from pidfdpool import PidfdPoolExecutor, WorkerCrashed
from pidfdpool.pidfd import Pidfd
from tests import calls
from tests.conditions import MARK, eventually, processes_of_this_run

MODULE = "multiprocessing.resource_tracker"

# ---- tasks ---------------------------------------------------------------------------------------------------------


def tracker_pipe():
    """Return what identifies the pipe that the tracker of this process reads, after having it started if need be."""
    return os.fstat(importlib.import_module(MODULE).getfd()).st_ino


def uses_no_tracker():
    loaded = sys.modules.get(MODULE)
    return loaded is None or loaded._resource_tracker._fd is None


def attach(name):
    memory = shared_memory.SharedMemory(name=name)
    memory.buf[0] += 1
    value = memory.buf[0]
    memory.close()
    return value


def attach_and(name, path, then):
    attach(name)
    return calls.touch_and(path, then)


def attach_untracked(name):
    memory = shared_memory.SharedMemory(name=name, track=False)
    value = memory.buf[0]
    memory.close()
    return value, uses_no_tracker()


def create():
    memory = shared_memory.SharedMemory(create=True, size=100)
    memory.buf[0] = 9
    memory.close()
    return memory.name


def attach_in_processes(name):
    """Have processes that multiprocessing starts attach to it, as well as one that is simply forked."""
    values = []
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            values.append(pool.apply(attach, (name,)))
    pid = os.fork()
    if not pid:
        attach(name)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    return values


def pipe_in_a_pool(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        return pool.submit(tracker_pipe).result(), tracker_pipe()


def keep_lock(lock):
    global kept
    kept = lock


def use_lock():
    with kept:
        return True


def make_lock():
    with multiprocessing.get_context("spawn").Lock():
        return tracker_pipe()


# ---- hosts ---------------------------------------------------------------------------------------------------------


def trackers():
    """Return the trackers of this host and of its workers."""
    return [pid for pid in processes_of_this_run(os.environ[MARK]) if is_tracker(pid)]


def is_tracker(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"resource_tracker" in file.read()
    except OSError:
        return False


def exists(name):
    return os.path.exists(f"/dev/shm/{name}")


def share_one(way, moment):
    """Begin to use the host's tracker before the pool, after it, or not at all before a worker needs one."""
    ours = tracker_pipe() if moment == "before" else None
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        pool.submit(abs, -1).result()
        if moment == "after":
            ours = tracker_pipe()
        first = pool.submit(tracker_pipe).result()
        assert first == (ours or tracker_pipe())
        pool.submit(calls.die).exception()
        assert [pool.submit(tracker_pipe).result() for _ in range(4)] == [first] * 4
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert pool.submit(make_lock).result() == first
    eventually(lambda: len(trackers()) == 1, "the host's tracker has started")


def survive_recycling(way):
    with PidfdPoolExecutor(1, mp_context=way, max_tasks_per_child=1) as pool:
        pool.submit(abs, -1).result()
        memory = shared_memory.SharedMemory(create=True, size=100)
        assert [pool.submit(attach, memory.name).result() for _ in range(5)] == [1, 2, 3, 4, 5]
    assert len(trackers()) == 1
    assert memory.buf[0] == 5
    assert exists(memory.name)
    memory.close()
    memory.unlink()


def survive_deaths(way, folder):
    """End a worker when its template cannot kill what it has started."""
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        template = pool.submit(os.getppid).result()
        memory = shared_memory.SharedMemory(create=True, size=100)
        running = pool.submit(attach_and, memory.name, os.path.join(folder, "began"), "sleep")
        eventually(lambda: os.path.exists(os.path.join(folder, "began")), "the task runs")
        with Pidfd.open(template) as handle:
            handle.send_signal(signal.SIGSTOP)
            with open(os.path.join(folder, "began")) as file, Pidfd.open(int(file.read())) as worker:
                worker.send_signal(signal.SIGKILL)
                worker.wait()
            eventually(lambda: len(trackers()) == 1, "every tracker has ended but the host's")
            handle.send_signal(signal.SIGCONT)
        assert isinstance(running.exception(), WorkerCrashed)
        assert pool.submit(attach, memory.name).result() == 2
    assert exists(memory.name)
    memory.close()
    memory.unlink()


def take_from_worker(way):
    """Read what a worker has created when the worker is gone, and remove it."""
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        name = pool.submit(create).result()
    memory = shared_memory.SharedMemory(name=name)
    assert memory.buf[0] == 9
    memory.close()
    memory.unlink()


def leave_to_the_tracker(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        name = pool.submit(create).result()
    assert exists(name)
    print(name, flush=True)
    if sys.stdin.read(1):
        time.sleep(60)


def share_locks(way):
    lock = multiprocessing.get_context("fork" if way == "fork" else "spawn").Lock()
    with PidfdPoolExecutor(2, mp_context=way, initializer=keep_lock, initargs=(lock,)) as pool:
        assert pool.submit(use_lock).result()
        lock.acquire()
        waiting = pool.submit(use_lock)
        pool.submit(calls.die).exception()
        assert not waiting.done()
        lock.release()
        assert waiting.result()


def use_none(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert pool.submit(uses_no_tracker).result()
    assert uses_no_tracker()
    assert not trackers()


def attach_without_tracking(way):
    memory = shared_memory.SharedMemory(create=True, size=100, track=False)
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert pool.submit(attach_untracked, memory.name).result() == (0, True)
    assert exists(memory.name)
    assert not trackers()
    memory.close()
    memory.unlink()


def attach_in_what_a_task_starts(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.submit(abs, -1).result()
        memory = shared_memory.SharedMemory(create=True, size=100)
        assert pool.submit(attach_in_processes, memory.name).result() == [1, 2]
        assert len(trackers()) == 1
    assert memory.buf[0] == 3
    memory.close()
    memory.unlink()


def nest(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        for inner in ("spawn", "fork"):
            assert pool.submit(pipe_in_a_pool, inner).result() == (tracker_pipe(),) * 2


def keep_pipe():
    calls.marker = tracker_pipe()


def kept_pipe():
    return calls.marker, tracker_pipe()


def use_in_the_preload(way):
    with PidfdPoolExecutor(1, mp_context=way, preload=keep_pipe) as pool:
        assert pool.submit(kept_pipe).result() == (tracker_pipe(),) * 2


def lose_the_tracker(way):
    """Kill the tracker that the template has started: the next worker gets another one, which the host shares."""
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        first = pool.submit(tracker_pipe).result()
        (pid,) = eventually(trackers, "it has started")
        with Pidfd.open(pid) as handle:
            handle.send_signal(signal.SIGKILL)
            handle.wait()
        pool.submit(calls.die).exception()
        second = pool.submit(tracker_pipe).result()
        assert second == tracker_pipe() != first
        eventually(lambda: len(trackers()) == 1, "the next has started")
