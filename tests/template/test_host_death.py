"""Nobody outlives the host, however it goes and whatever its workers are doing."""

from __future__ import annotations

import os
import signal

import pytest

from tests.conditions import eventually, marked, processes_of_this_run, run_python, start_python

HOST = """
    import os, sys, time
    from pidfdpool import PidfdPoolExecutor
    from tests import calls
    way, folder, end = sys.argv[1:]
    pool = PidfdPoolExecutor(3, mp_context=way)
    pool.submit(calls.double, 1).result()
    for kind in ("sleep", "spin", "regex"):
        pool.submit(calls.touch_and, f"{folder}/{kind}", kind)
    while sum(os.path.getsize(f"{folder}/{name}") > 0 for name in os.listdir(folder)) < 3:
        time.sleep(0.01)
    print(os.getpid(), flush=True)
    if end == "wait":
        time.sleep(60)
    elif end == "os._exit":
        os._exit(0)
    elif end == "abort":
        os.abort()
    elif end == "exec":
        os.execvp("true", ["true"])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_killed_host_takes_everything_with_it(way, number, tmp_path):
    environment = marked("host-death")
    mark = environment["PIDFDPOOL_TEST_RUN"]
    with start_python(HOST, way, str(tmp_path), "wait", env=environment) as host:
        pid = int(host.stdout.readline())
        workers = [int((tmp_path / kind).read_text()) for kind in ("sleep", "spin", "regex")]
        assert pid == host.pid
        host.send_signal(number)
        host.wait()
        gone = lambda: not [w for w in workers if os.path.exists(f"/proc/{w}") and _is_running(w)]  # noqa: E731
        eventually(gone, "workers are gone")
        eventually(lambda: not processes_of_this_run(mark), "everything is gone")


def _is_running(pid):
    from tests.conditions import is_alive

    return is_alive(pid)


@pytest.mark.parametrize("end", ["os._exit", "abort", "exec"])
def test_a_host_that_ends_without_saying_so_takes_everything_with_it(way, end, tmp_path):
    environment = marked("host-end")
    run_python(HOST, way, str(tmp_path), end, env=environment)
    workers = [int((tmp_path / kind).read_text()) for kind in ("sleep", "spin", "regex")]
    eventually(lambda: not any(map(_is_running, workers)), "workers are gone")
    eventually(lambda: not processes_of_this_run(environment["PIDFDPOOL_TEST_RUN"]), "all is gone")


def test_a_forked_child_of_the_host_that_lives_on_keeps_nothing_alive(way, tmp_path):
    code = """
        import os, sys, time
        from pidfdpool import PidfdPoolExecutor
        from tests import calls
        pool = PidfdPoolExecutor(1, mp_context=sys.argv[1])
        worker = pool.submit(os.getpid).result()
        pool.submit(calls.touch_and, sys.argv[2], "spin")
        child = os.fork()
        if not child:
            time.sleep(60)
        print(worker, child, flush=True)
        time.sleep(60)
    """
    with start_python(code, way, str(tmp_path / "runs")) as host:
        worker, child = map(int, host.stdout.readline().split())
        host.kill()
        host.wait()
        eventually(lambda: not _is_running(worker), "the worker is gone")
        assert _is_running(child)
        from pidfdpool.pidfd import Pidfd

        with Pidfd.open(child) as handle:
            handle.send_signal(signal.SIGKILL)


def test_a_host_that_dies_during_the_preload_takes_the_template_with_it(way, tmp_path):
    code = """
        import sys, threading
        from pidfdpool import PidfdPoolExecutor
        from tests import calls
        from functools import partial
        way, path = sys.argv[1:]
        pool = PidfdPoolExecutor(1, mp_context=way, preload=partial(calls.touch_and, path, "regex"))
        pool.submit(calls.double, 1)
        print("submitted", flush=True)
        threading.Event().wait(60)
    """
    path = tmp_path / "preload"
    with start_python(code, way, str(path)) as host:
        host.stdout.readline()
        template = int(eventually(lambda: path.exists() and path.read_text(), "the preload runs"))
        host.kill()
        host.wait()
        eventually(lambda: not _is_running(template), "the template is gone")
