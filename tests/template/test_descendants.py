"""What a task started does not outlive its worker, wherever it went; unless it was to be spared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from pidfdpool import PidfdPoolExecutor, WorkerCrashed
from pidfdpool.pidfd import Pidfd
from pidfdpool.worker import shared_tracker
from tests import calls
from tests.conditions import (
    children,
    eventually,
    is_alive,
    is_zombie,
    marked,
    open_descriptors,
    processes_of_this_run,
    start_python,
)

SHELL = {
    "session": ("sleep 1000 & echo $!; wait", {"start_new_session": True}),
    "daemon": ("setsid setsid sh -c 'sleep 1000 & echo $!' & wait $!", {}),
    "group": ("sleep 1000 & echo $!; wait", {"process_group": 0}),
    "grandchild": ("setsid sh -c 'setsid sleep 1000 & echo $!; wait'", {}),
    "same group": ("sleep 1000 & echo $!; wait", {}),
}


def start(kind):
    """Start a process that goes away from its worker in one way or other; return its pid."""
    command, options = SHELL[kind]
    child = subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, **options)
    return int(child.stdout.readline())


def start_all():
    return os.getpid(), [start(kind) for kind in SHELL]


def start_all_and(path, then):
    calls_pids = " ".join(map(str, start_all()[1]))
    with open(path + ".part", "w") as file:
        file.write(calls_pids)
    os.rename(path + ".part", path)
    if then == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def read_pids(path):
    return [int(pid) for pid in path.read_text().split()]


def kill(pid):
    with Pidfd.open(pid) as handle:
        handle.send_signal(signal.SIGKILL)


def all_gone(pids):
    return not any(is_alive(pid) or is_zombie(pid) for pid in pids)


@pytest.mark.parametrize("kind", SHELL)
def test_a_killed_worker_takes_what_it_started_with_it(way, kind):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pid = pool.submit(start, kind).result()
        assert is_alive(pid)
        worker = pool.submit(os.getpid).result()
        if kind not in ("same group", "group"):
            assert os.getsid(pid) != os.getsid(worker), "or this tests nothing"
        kill(worker)
        eventually(lambda: all_gone([pid]), "what it started is dead and reaped")
        assert pool.submit(calls.double, 2).result() == 4


def test_a_crash_takes_everything_with_it_at_once(way, tmp_path):
    path = tmp_path / "pids"
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert isinstance(pool.submit(start_all_and, str(path), "die").exception(), WorkerCrashed)
        pids = read_pids(path)
        assert len(pids) == len(SHELL)
        eventually(lambda: all_gone(pids), "everything is dead and reaped")
        template = pool.submit(os.getppid).result()
        eventually(lambda: len(children(template)) == 1, "nothing else is left")


def test_a_long_chain_of_processes_dies_to_the_last(way):
    def start_chain():
        code = "import os, subprocess, sys, time; n = int(sys.argv[2]); print(os.getpid(), flush=True)\n"
        code += "if n: subprocess.Popen([sys.executable, '-c', sys.argv[1], sys.argv[1], str(n - 1)], "
        code += "start_new_session=True)\ntime.sleep(1000)"
        child = subprocess.Popen([sys.executable, "-c", code, code, "4"], stdout=subprocess.PIPE)
        return [int(child.stdout.readline()) for _ in range(5)]

    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pids = pool.submit(start_chain).result()
        kill(pool.submit(os.getpid).result())
        eventually(lambda: all_gone(pids), "the chain is dead and reaped")


def test_another_workers_daemons_survive(way, tmp_path):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        kept = tmp_path / "kept"
        running = pool.submit(start_all_and, str(kept), "sleep")
        eventually(kept.exists, "one worker has started everything")
        for number in range(3):
            lost = tmp_path / f"lost{number}"
            pool.submit(start_all_and, str(lost), "die").exception()
            eventually(lambda lost=lost: all_gone(read_pids(lost)), "the crashed worker's are gone")
        assert all(map(is_alive, read_pids(kept)))
        assert running.running()
        pool.kill_workers()
    eventually(lambda: all_gone(read_pids(kept)), "the other's are gone with it")


def test_a_recycled_worker_takes_what_it_started_with_it(way):
    with PidfdPoolExecutor(1, mp_context=way, max_tasks_per_child=1) as pool:
        worker, pids = pool.submit(start_all).result()
        eventually(lambda: all_gone([worker, *pids]), "the worker has left, and the rest with it")
        assert pool.submit(calls.double, 2).result() == 4


def test_nothing_is_left_when_shutdown_returns(way):
    pool = PidfdPoolExecutor(2, mp_context=way)
    _, pids = pool.submit(start_all).result()
    assert all(map(is_alive, pids))
    pool.shutdown()
    assert not any(map(is_alive, pids))


def test_nothing_is_left_when_running_workers_are_killed(way, tmp_path):
    pool = PidfdPoolExecutor(1, mp_context=way)
    pool.submit(start_all_and, str(tmp_path / "pids"), "sleep")
    eventually((tmp_path / "pids").exists, "everything runs")
    pool.kill_workers()
    pool.shutdown()
    assert not any(map(is_alive, read_pids(tmp_path / "pids")))


@pytest.mark.parametrize("pidfds", [True, False], ids=["pidfds", "pipes"])
def test_nothing_outlives_a_killed_host(way, tmp_path, pidfds):
    environment = marked("descendants")
    if not pidfds:
        environment["PIDFDPOOL_NO_PIDFD"] = "1"
    code = """
        import sys, time
        from pidfdpool import PidfdPoolExecutor
        from tests.template import test_descendants
        pool = PidfdPoolExecutor(2, mp_context=sys.argv[1])
        for name in sys.argv[2:]:
            pool.submit(test_descendants.start_all_and, name, "sleep")
        print("started", flush=True)
        time.sleep(60)
    """
    paths = [tmp_path / name for name in "ab"]
    with start_python(code, way, *map(str, paths), env=environment) as host:
        host.stdout.readline()
        eventually(lambda: all(path.exists() for path in paths), "everything runs")
        pids = [pid for path in paths for pid in read_pids(path)]
        assert all(map(is_alive, pids))
        host.kill()
        host.wait()
        eventually(lambda: not any(map(is_alive, pids)), "all that was started is gone")
        eventually(lambda: not processes_of_this_run(environment["PIDFDPOOL_TEST_RUN"]), "all is gone")


def test_a_pool_within_a_task_dies_with_the_worker_and_takes_everything_with_it(way, tmp_path):
    def run_pool(path):
        with PidfdPoolExecutor(1, mp_context=way) as inner:
            inner.submit(start_all_and, path, "sleep").result()

    path = tmp_path / "pids"
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        worker, template = pool.submit(calls.identify).result()
        future = pool.submit(run_pool, str(path))
        eventually(path.exists, "the inner worker has started everything")
        kill(worker)
        assert isinstance(future.exception(), WorkerCrashed)
        eventually(lambda: all_gone(read_pids(path)), "what the inner worker started is gone")
        eventually(lambda: len(children(template)) == 1, "and so is the inner pool")


def test_what_a_killed_inner_template_leaves_is_killed_by_the_outer_one(way, tmp_path):
    def lose_template(path):
        inner = PidfdPoolExecutor(1, mp_context=way)
        template = inner.submit(os.getppid).result()
        inner.submit(start_all_and, path, "sleep")
        eventually(lambda: os.path.exists(path), "the inner worker has started everything")
        kill(template)
        time.sleep(60)

    path = tmp_path / "pids"
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.submit(lose_template, str(path))
        eventually(path.exists, "the inner worker has started everything")
        eventually(lambda: all_gone(read_pids(path)), "what the inner worker started is gone")
        pool.kill_workers()


def test_a_low_hard_limit_costs_the_mark_and_nothing_else(way):
    code = """
        import resource, sys
        resource.setrlimit(10, (1000, 1000))
        from pidfdpool import PidfdPoolExecutor
        from tests import calls
        from tests.template import test_descendants
        with PidfdPoolExecutor(1, mp_context=sys.argv[1]) as pool:
            pid = pool.submit(test_descendants.start, "same group").result()
            assert pool.submit(resource.getrlimit, 10).result() == (1000, 1000)
        test_descendants.eventually(lambda: not test_descendants.is_alive(pid), "it is dead")
    """
    with start_python(code, way) as host:
        assert host.communicate(timeout=30)[1] == ""
        assert host.returncode == 0


def test_what_is_spared_lives_on_and_what_was_started_before_and_after_does_not(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        before = pool.submit(start, "daemon").result()
        spared = pool.options(kill_descendants=False).submit(start, "daemon").result()
        in_group = pool.options(kill_descendants=False).submit(start, "same group").result()
        after = pool.submit(start, "daemon").result()
        kill(pool.submit(os.getpid).result())
        eventually(lambda: all_gone([before, after, in_group]), "those not spared are gone")
        assert is_alive(spared), "it was spared"
    assert is_alive(spared), "by the shutdown, too"
    kill(spared)
    eventually(lambda: not is_alive(spared), "it is gone")


def test_what_a_worker_started_dies_though_its_template_was_stopped_and_then_killed(tmp_path):
    """Guards against burying a worker on which the template never said a word, and its children living on."""
    with PidfdPoolExecutor(1, spawn_timeout=2.0) as pool:
        worker, child = pool.submit(start_in_group).result()
        with Pidfd.open(pool._pool.core.template.handle.pid) as template:
            template.send_signal(signal.SIGSTOP)
            with Pidfd.open(worker) as handle:
                handle.send_signal(signal.SIGKILL)
            eventually(lambda: not any(info.pid == worker for info in pool.workers()), "the worker is buried")
            template.send_signal(signal.SIGKILL)
        eventually(lambda: not is_alive(child), "its child is dead")
        assert pool.submit(calls.double, 2).result(timeout=30) == 4


def start_in_group():
    return os.getpid(), subprocess.Popen(["sleep", "1000"]).pid


def descriptors_of_a_forked_child():
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(writer, "\n".join(open_descriptors().values()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as file:
        names = file.read().split("\n")
    os.waitpid(pid, 0)
    return names


def test_what_a_task_forks_holds_nothing_of_the_workers():
    """Neither channel nor tokens nor black box: who asks them is to learn of the worker, and of nobody else."""
    with PidfdPoolExecutor(1) as pool:
        of_worker = set(pool.submit(open_descriptors).result().values())
        asks = pool.submit(asks_with).result()
        of_child = set(pool.submit(descriptors_of_a_forked_child).result())
    own = {name for name in of_worker if name.startswith(("socket:", "/memfd:pidfdpool", "anon_inode:[eventfd]"))}
    assert len(own - {asks}) == 3
    assert own & of_child == {asks}, "by which it may ask for the host's resource tracker"


def asks_with():
    return os.readlink(f"/proc/self/fd/{shared_tracker.asking.requester._fd}")


def start_a_child_that_notes(path):
    import multiprocessing

    multiprocessing.get_context("fork").Process(target=sleep_and_note, args=(path,)).start()


def sleep_and_note(path):
    time.sleep(0.2)
    calls.note(path)


def test_a_worker_that_leaves_waits_for_processes_that_its_tasks_have_not_joined(tmp_path):
    with PidfdPoolExecutor(1) as pool:
        pool.submit(start_a_child_that_notes, str(tmp_path / "noted")).result()
    assert (tmp_path / "noted").exists()


def start_a_sleeper_and_die(path):
    sleeper = subprocess.Popen(["sleep", "60"])  # in the worker's group
    calls.note(path, sleeper.pid)
    calls.die()


def test_what_is_in_the_group_of_a_dead_worker_dies_also_where_descendants_are_spared(tmp_path):
    with PidfdPoolExecutor(1) as pool:
        future = pool.options(kill_descendants=False).submit(start_a_sleeper_and_die, str(tmp_path / "sleeper"))
        assert isinstance(future.exception(20), WorkerCrashed)
        pid = int((tmp_path / "sleeper").read_text())
        eventually(lambda: not is_alive(pid), "it died with the worker")
