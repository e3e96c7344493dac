"""A template or worker that somebody has stopped (SIGSTOP): nothing outlives the host, and nothing waits for it."""

from __future__ import annotations

import os
import signal

import pytest

from pidfdpool import PidfdPoolExecutor, WorkerCrashed
from tests import calls
from tests.conditions import eventually, is_alive, marked, processes_of_this_run, start_python

HOST = """
    import os, signal, subprocess, sys, time
    from pidfdpool import PidfdPoolExecutor
    from tests import calls
    way, folder, stopped = sys.argv[1:]
    pool = PidfdPoolExecutor(2, mp_context=way)
    template = pool.submit(os.getppid).result()
    pool.submit(calls.touch_and, f"{folder}/regex", "regex")
    while not (os.path.exists(f"{folder}/regex") and os.path.getsize(f"{folder}/regex")):
        time.sleep(0.01)
    worker = pool.submit(os.getpid).result()
    if "worker" in stopped:
        os.kill(worker, signal.SIGSTOP)
    if "template" in stopped:
        os.kill(template, signal.SIGSTOP)
    print(template, flush=True)
    time.sleep(60)
"""


def state(pid):
    """Return the letter by which the kernel tells what a process is doing: T, if it is stopped."""
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0]


def stop(pid):
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: state(pid) == "T", "it is stopped")


@pytest.mark.parametrize("stopped", ["template", "template and worker"])
def test_nothing_outlives_the_host_beside_a_stopped_template(way, stopped, tmp_path):
    """Guards against a template as the only one that sees the host's end, and a worker stuck in C living on."""
    environment = marked("stopped")
    with start_python(HOST, way, str(tmp_path), stopped, env=environment) as host:
        assert int(host.stdout.readline())
        host.kill()
        host.wait()
        mark = environment["PIDFDPOOL_TEST_RUN"]
        eventually(lambda: not processes_of_this_run(mark), "everything is gone")


def hold_the_template():
    """Have another process trace the template, as a debugger does: it stands still, and SIGCONT is nothing to it."""
    import ctypes

    template = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, template, None, None):  # PTRACE_ATTACH
        return os.strerror(ctypes.get_errno())
    return None


def test_a_worker_sees_the_hosts_end_by_itself(way, tmp_path):
    """Guards against workers that live for as long as their template is in the hands of a debugger."""
    code = """
        import os, subprocess, sys, time
        from pidfdpool import PidfdPoolExecutor
        from tests import calls
        from tests.template import test_stopped
        way, path = sys.argv[1:]
        pool = PidfdPoolExecutor(2, mp_context=way)
        pool.prestart()
        worker, template = pool.submit(calls.identify).result()
        refused = pool.submit(test_stopped.hold_the_template).result()
        pool.submit(calls.touch_and, path, "regex")
        pool.submit(calls.touch_and, path, "regex")
        while not (os.path.exists(path) and len(open(path).read().split()) == 2):
            time.sleep(0.01)
        print(template, *open(path).read().split(), flush=True)
        print(refused, flush=True)
        time.sleep(60)
    """
    with start_python(code, way, str(tmp_path / "regex")) as host:
        _template, *workers = map(int, host.stdout.readline().split())
        refused = host.stdout.readline().strip()
        host.kill()
        host.wait()
        # One of these is the tracer; when it is gone the template goes on, and sees to the rest.
        eventually(lambda: not any(map(is_alive, workers)), "the workers are gone")
        if refused != "None":
            pytest.skip(f"ptrace: {refused}")


@pytest.mark.parametrize("wait", ["idle", "task", "kill_workers", "terminate_workers"])
def test_a_stopped_template_does_not_hold_up_the_shutdown(way, wait):
    """Guards against waiting for a template that nobody lets go on; an hour, if the limits are that high."""
    pool = PidfdPoolExecutor(2, mp_context=way, stop_grace=3600.0, spawn_timeout=3600.0)
    template = pool.submit(os.getppid).result(timeout=20)
    stop(template)
    # The second of two needs a worker that only the template can fork.
    futures = [pool.submit(calls.sleep, 0.05, number) for number in range(2)] if wait == "task" else []
    if wait.endswith("_workers"):
        getattr(pool, wait)()
    pool.shutdown()
    assert [future.result(timeout=0) for future in futures] == list(range(len(futures)))
    eventually(lambda: not is_alive(template), "the template is gone")


def test_a_stopped_worker_does_not_hold_up_the_shutdown(way):
    """Guards against killing a worker after its whole grace, though it would leave if it were let."""
    with PidfdPoolExecutor(1, mp_context=way, stop_grace=3600.0) as pool:
        deaths = []
        pool.subscribe(deaths.append)
        stop(pool.submit(os.getpid).result(timeout=20))
    assert [death.exit_status.code for death in deaths] == [0]


def test_a_stopped_worker_takes_sigterm(way, tmp_path):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        path = tmp_path / "pid"
        future = pool.submit(calls.touch_and, str(path), "sleep")
        stop(int(eventually(lambda: path.exists() and path.read_text(), "the task runs")))
        pool.terminate_workers()
        error = future.exception(timeout=20)
        assert isinstance(error, WorkerCrashed)
        assert error.exit_status.signal == signal.SIGTERM


def test_a_death_is_noticed_though_a_stopped_template_does_not_tell_of_it(way, tmp_path):
    """Guards against waiting for the template's word until something else happens, which may be never."""
    path = tmp_path / "pid"
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        future = pool.submit(calls.touch_and, str(path), "sleep")
        worker = int(eventually(lambda: path.exists() and path.read_text(), "the task runs"))
        stop(pool._pool.core.template.end.pid)
        os.kill(worker, signal.SIGKILL)
        assert isinstance(future.exception(timeout=20), WorkerCrashed)
