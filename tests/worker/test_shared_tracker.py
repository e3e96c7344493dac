"""Workers use the host's resource tracker, so what the host has in shared memory stays when they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.conditions import eventually, marked, processes_of_this_run, run_python, start_python
from tests.worker import tracked


def run(host, *arguments):
    """Run one of the hosts; return what it wrote to its standard error."""
    name = marked(host)
    text = ", ".join(map(repr, arguments))
    done = run_python(f"from tests.worker import tracked; tracked.{host}({text})", env=name)
    assert done.returncode == 0, done.stderr
    eventually(lambda: not processes_of_this_run(*name.values()), "the tracker ends with its host")
    return done.stderr


@pytest.mark.parametrize("moment", ["before", "after", "never"])
def test_workers_use_the_tracker_of_the_host_whenever_that_begins(way, moment):
    assert run("share_one", way, moment) == ""


def test_memory_of_the_host_survives_workers_that_are_replaced(way):
    assert run("survive_recycling", way) == ""


def test_memory_of_the_host_survives_a_worker_that_dies(way, tmp_path):
    assert run("survive_deaths", way, str(tmp_path)) == ""


def test_what_a_worker_has_created_is_the_hosts_to_remove(way):
    assert run("take_from_worker", way) == ""


@pytest.mark.parametrize("killed", [False, True])
def test_what_nobody_removes_is_removed_when_the_host_ends(way, killed):
    name = marked("left")
    code = f"from tests.worker import tracked; tracked.leave_to_the_tracker({way!r})"
    host = start_python(code, env=name, stdin=subprocess.PIPE)
    memory = host.stdout.readline().strip()
    assert memory
    if killed:
        host.send_signal(signal.SIGKILL)
    _, errors = host.communicate("", timeout=50)
    assert host.returncode == (-signal.SIGKILL if killed else 0)
    assert "1 leaked shared_memory object" in errors, "the same warning as with the standard pool"
    eventually(lambda: not tracked.exists(memory), "it is removed")
    eventually(lambda: not processes_of_this_run(*name.values()), "the tracker ends with its host")


def test_locks_are_shared_through_initargs(way):
    assert run("share_locks", way) == ""


def test_who_needs_no_tracker_starts_none(way):
    assert run("use_none", way) == ""


def test_who_needs_no_tracker_does_not_load_it_either(way):
    done = run_python(
        f"""
        import sys
        from pidfdpool import PidfdPoolExecutor

        def has_loaded_it():
            return "multiprocessing.resource_tracker" in sys.modules

        with PidfdPoolExecutor(1, mp_context={way!r}) as pool:
            assert not pool.submit(has_loaded_it).result()
        assert not has_loaded_it()
        """
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.version_info < (3, 13), reason="SharedMemory has `track` since Python 3.13")
def test_memory_that_is_not_tracked_needs_no_tracker(way):
    assert run("attach_without_tracking", way) == ""


def test_processes_that_a_task_starts_use_it_as_well(way):
    run("attach_in_what_a_task_starts", way)  # a fork beside threads is warned of


def test_a_pool_in_a_worker_uses_it_as_well(way):
    assert run("nest", way) == ""


def test_the_preload_uses_it_as_well(way):
    assert run("use_in_the_preload", way) == ""


def test_one_that_was_killed_is_replaced_for_workers_to_come(way):
    assert run("lose_the_tracker", way) == ""


def test_no_descriptor_is_left_by_requests(way):
    code = f"""
        import os
        from pidfdpool import PidfdPoolExecutor
        from tests.conditions import eventually
        from tests.worker import tracked
        with PidfdPoolExecutor(1, mp_context={way!r}, max_tasks_per_child=1) as pool:
            counts = []
            for _ in range(12):
                pool.submit(tracked.tracker_pipe).result()
                eventually(lambda: len(pool.workers()) == 1, "the worker was replaced")
                counts.append(len(os.listdir("/proc/self/fd")))
            eventually(lambda: len(os.listdir("/proc/self/fd")) <= max(counts[:4]), "no more are open than at first")
    """
    done = run_python(code)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_task_that_has_closed_everything_has_a_tracker_of_its_own(way):
    done = run_python(
        f"""
        import os
        from pidfdpool import PidfdPoolExecutor
        from tests.worker import tracked
        from tests.worker.test_shared_tracker import pipe_without_the_host
        with PidfdPoolExecutor(1, mp_context={way!r}) as pool:
            assert pool.submit(pipe_without_the_host).result() != tracked.tracker_pipe()
        """
    )
    assert (done.returncode, done.stderr) == (0, "")


def pipe_without_the_host():
    from pidfdpool.worker import shared_tracker

    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, shared_tracker.asking.requester._fd)
    os.close(null)
    return tracked.tracker_pipe()
