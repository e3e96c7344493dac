"""The template: how it is started, what it is to the host, and what happens when it dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys

import pytest

from pidfdpool import PidfdPoolExecutor, PoolBroken, TemplateError, WorkerCrashed
from pidfdpool.pidfd import Pidfd
from tests import calls
from tests.conditions import children, eventually, is_alive, open_descriptors, run_python


def test_the_host_has_no_child(way):
    before = children(os.getpid())
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        list(pool.map(calls.double, range(10)))
        assert children(os.getpid()) == before


def test_the_template_has_a_session_of_its_own_and_workers_their_groups(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        worker, template = pool.submit(calls.identify).result()
        assert os.getsid(template) == template != os.getsid(0)
        assert os.getpgid(worker) == worker
        assert os.getpgid(template) != os.getpgid(0)


@pytest.mark.parametrize(
    ("context", "forked"),
    [
        ("fork", True),
        ("spawn", False),
        ("forkserver", False),
        (multiprocessing.get_context("fork"), True),
        (multiprocessing.get_context("spawn"), False),
        (multiprocessing.get_context("forkserver"), False),
        (None, False),
    ],
    ids=lambda value: value if isinstance(value, str | bool) else type(value).__name__,
)
def test_the_context_decides_between_fork_and_exec(context, forked):
    marker = object()
    calls.marker = marker
    try:
        with PidfdPoolExecutor(1, mp_context=context) as pool:
            assert pool.submit(hasattr_of_calls, "marker").result() is forked
    finally:
        del calls.marker


def hasattr_of_calls(name):
    return hasattr(calls, name)


def test_asking_a_context_does_not_settle_the_default_start_method():
    done = run_python(
        """
        import multiprocessing
        from pidfdpool import PidfdPoolExecutor
        with PidfdPoolExecutor(1, mp_context=multiprocessing) as pool:
            pool.submit(abs, -1).result()
        assert multiprocessing.get_start_method(allow_none=True) is None
        import multiprocessing.resource_tracker as tracker
        assert tracker._resource_tracker._fd is None
        """
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("context", ["thread", "", "Fork"])
def test_an_unknown_context_is_refused_at_once(context):
    with pytest.raises(ValueError, match=f"mp_context.*not '{context}'"):
        PidfdPoolExecutor(1, mp_context=context)


def test_something_that_is_no_context_is_refused_at_once():
    with pytest.raises(TypeError, match="mp_context.*not 42"):
        PidfdPoolExecutor(1, mp_context=42)


def test_a_dead_template_is_replaced_and_every_future_resolves(tmp_path):
    with PidfdPoolExecutor(2) as pool:
        template = pool.submit(os.getppid).result()
        running = [pool.submit(calls.touch_and, str(tmp_path / name), "sleep") for name in "ab"]
        queued = [pool.submit(calls.double, number) for number in range(50)]
        eventually(lambda: len(os.listdir(tmp_path)) == 2, "the tasks run")
        with Pidfd.open(template) as handle:
            handle.send_signal(signal.SIGKILL)
        for future in running:
            error = future.exception(timeout=20)
            assert isinstance(error, WorkerCrashed)
            assert error.exit_status.unknown or error.exit_status.signal == signal.SIGKILL
        assert [future.result(timeout=20) for future in queued] == [number * 2 for number in range(50)]
        assert pool.submit(os.getppid).result() != template


def test_a_template_may_die_again_and_again():
    with PidfdPoolExecutor(1) as pool:
        for _ in range(5):
            template = pool.submit(os.getppid).result(timeout=20)
            with Pidfd.open(template) as handle:
                handle.send_signal(signal.SIGKILL)
                handle.wait()
        assert pool.submit(calls.double, 2).result(timeout=20) == 4


def test_nobody_waits_for_a_dead_templates_word_on_its_workers(monkeypatch, tmp_path):
    monkeypatch.setattr("pidfdpool.loop.links.REPORT_GRACE", 3600.0)
    with PidfdPoolExecutor(2) as pool:
        template = pool.submit(os.getppid).result(timeout=20)
        spinning = pool.submit(calls.touch_and, str(tmp_path / "begun"), "spin")
        eventually((tmp_path / "begun").exists, "the task runs")
        with Pidfd.open(template) as handle:
            handle.send_signal(signal.SIGKILL)
        assert isinstance(spinning.exception(timeout=20), WorkerCrashed)
        assert pool.submit(calls.double, 2).result(timeout=20) == 4


def test_a_dead_forked_template_breaks_the_pool_with_a_clear_error():
    with PidfdPoolExecutor(1, mp_context="fork") as pool:
        template = pool.submit(os.getppid).result()
        running = pool.submit(calls.sleep, 60)
        queued = pool.submit(calls.double, 2)
        eventually(running.running, "the task runs")
        with Pidfd.open(template) as handle:
            handle.send_signal(signal.SIGKILL)
        for future in (running, queued):
            with pytest.raises(PoolBroken, match="template .*forked from the host"):
                future.result(timeout=20)
        with pytest.raises(PoolBroken, match="template"):
            pool.submit(calls.double, 2)


def test_workers_die_with_their_template(way, tmp_path):
    pool = PidfdPoolExecutor(1, mp_context=way)
    worker, template = pool.submit(calls.identify).result()
    spinning = pool.submit(calls.touch_and, str(tmp_path / "begun"), "spin")
    # running() is true a moment earlier, but a task that nobody has read yet would spin on in the next worker.
    eventually((tmp_path / "begun").exists, "the task runs")
    with Pidfd.open(template) as handle:
        handle.send_signal(signal.SIGKILL)
    eventually(lambda: not is_alive(worker), "the worker is dead")
    assert spinning.exception(timeout=20) is not None
    pool.shutdown()


def test_modules_and_a_callable_are_preloaded_in_the_template():
    with PidfdPoolExecutor(1, preload=("wave", "tests.calls", fill_cache)) as pool:
        assert pool.submit(lambda: "wave" in __import__("sys").modules).result()
        assert pool.submit(read_cache).result() == 42
        assert pool.submit(preloaded_by).result() == pool.submit(os.getppid).result()
    with PidfdPoolExecutor(1) as pool:
        assert not pool.submit(lambda: "wave" in __import__("sys").modules).result()


CACHE: dict = {}


def fill_cache():
    CACHE["answer"] = 42
    CACHE["pid"] = os.getpid()


def read_cache():
    return CACHE.get("answer")


def leave_a_zombie():
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_a_child_of_the_preloads_that_has_died_meanwhile_is_reaped():
    with PidfdPoolExecutor(1, preload=leave_a_zombie) as pool:
        template, worker = pool.submit(os.getppid).result(20), pool.submit(os.getpid).result(20)
        assert children(template) == [worker]


def test_what_a_preload_prints_is_printed_once_and_where_the_host_prints(way):
    """Guards: each worker had a copy of what the template had not written yet, and wrote it, too.

    And the program that starts the template, which is to be silent, has another standard error.
    """
    done = run_python(
        """
        import sys
        from pidfdpool import PidfdPoolExecutor
        def preload():
            print("preloaded", end=" ")
            sys.stderr.write("a warning ")
        with PidfdPoolExecutor(2, mp_context=sys.argv[1], preload=preload) as pool:
            pool.prestart(wait=True)
            pool.submit(print, "worked", end=" ").result()
        """,
        way,
        flags=["-W", "ignore"],
        env={"PYTHONUNBUFFERED": ""},
    )
    assert (sorted(done.stdout.split()), done.stderr) == (["preloaded", "worked"], "a warning ")


def preloaded_by():
    return CACHE.get("pid")


@pytest.mark.parametrize("preload", ["no_such_module_anywhere", lambda: 1 / 0], ids=["module", "callable"])
def test_a_preload_that_fails_breaks_the_pool_with_that_error_as_the_cause(way, preload):
    with PidfdPoolExecutor(2, mp_context=way, preload=preload) as pool:
        future = pool.submit(calls.double, 2)
        with pytest.raises(PoolBroken, match="preload failed") as caught:
            future.result(timeout=20)
        assert isinstance(caught.value.__cause__, (ModuleNotFoundError, ZeroDivisionError))
        with pytest.raises(PoolBroken, match="preload failed"):
            pool.submit(calls.double, 2)


def test_bad_preloads_are_refused_at_once():
    with pytest.raises(TypeError, match="preload.*3"):
        PidfdPoolExecutor(1, preload=(3,))
    with pytest.raises(ValueError, match="at most one callable"):
        PidfdPoolExecutor(1, preload=(print, len))


@pytest.mark.parametrize("program", ["/bin/false", "/bin/true", "/no/such/program", "/etc/passwd"])
def test_a_program_that_is_no_python_is_named_in_the_error(program, monkeypatch):
    import multiprocessing.spawn

    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", os.fsencode(program))
    with PidfdPoolExecutor(1) as pool:
        future = pool.submit(calls.double, 2)
        with pytest.raises(PoolBroken, match="template") as caught:
            future.result(timeout=20)
        assert isinstance(caught.value.__cause__, (TemplateError, OSError))
        assert program in str(caught.value)


def test_workers_see_what_the_host_has_when_the_template_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OF_THE_HOST", "yes")
    monkeypatch.setattr(sys, "argv", ["program", "argument"])
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "module_beside.py").write_text("def get_answer():\n    return 42\n")
    import module_beside

    with PidfdPoolExecutor(1) as pool:
        assert pool.submit(os.getcwd).result() == str(tmp_path)
        assert pool.submit(os.getenv, "OF_THE_HOST").result() == "yes"
        assert pool.submit(lambda: __import__("sys").argv).result() == ["program", "argument"]
        assert pool.submit(module_beside.get_answer).result() == 42


def test_memory_is_frozen_before_the_first_fork(way):
    import gc

    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert pool.submit(gc.get_freeze_count).result() > 1000


def test_a_worker_has_nothing_open_of_the_templates_and_of_other_workers():
    with PidfdPoolExecutor(3) as pool:
        pool.prestart()
        pid = pool._pool.core.template.end.pid
        workers = [list(open_descriptors(worker.pid).values()) for worker in pool.workers()]

        def shared():
            """Return the one socket that the template has in common with workers, once it has closed theirs."""
            found = {name for name in open_descriptors(pid).values() if "socket:" in name} & set().union(*workers)
            return found.pop() if len(found) == 1 else None

        asks = eventually(shared, "the template closes what the last worker has got")
        template = list(open_descriptors(pid).values())
        sigchld_pipe = {name for name in template if template.count(name) == 2 and "pipe" in name}
        assert len(sigchld_pipe) == 1
        for names in workers:
            assert not sigchld_pipe & set(names)
            assert not {"anon_inode:[pidfd]", "anon_inode:[eventpoll]"} & set(names)
            assert names.count(asks) == 1
            assert sum("socket:" in name and name != asks for name in names) == 1
            assert names.count("anon_inode:[eventfd]") == 1


def test_a_worker_that_replaces_a_dead_one_has_nothing_open_of_the_others(way):
    with PidfdPoolExecutor(4, mp_context=way, intensity=100, backoff=0.0) as pool:
        pool.prestart()
        for _ in range(3):  # the dead one's number lies between those of the living
            victim = pool.workers()[1]
            os.kill(victim.pid, signal.SIGKILL)
            eventually(
                lambda dead=victim.pid: len({w.pid for w in pool.workers() if w.pid} - {dead}) == 4, "it is replaced"
            )
            pool.prestart()
        for worker in pool.workers():
            assert "anon_inode:[pidfd]" not in open_descriptors(worker.pid).values()


def test_a_template_keeps_nothing_open_of_workers_that_are_dead(way):
    with PidfdPoolExecutor(1, mp_context=way, intensity=100, backoff=0.0) as pool:

        def open_after_deaths(count):
            for _ in range(count):
                assert isinstance(pool.submit(calls.leave, 3).exception(20), WorkerCrashed)
            assert pool.submit(calls.double, 1).result(20) == 2
            return len(open_descriptors(pool._pool.core.template.end.pid))

        first = open_after_deaths(1)  # what deals with deaths is loaded by then; one may be about to be closed
        open_after_deaths(8)
        eventually(lambda: open_after_deaths(0) <= first, "those of the dead are closed")


def test_descriptors_of_the_host_do_not_leak_into_an_execed_template(tmp_path):
    with open(tmp_path / "file", "w") as file:
        os.set_inheritable(file.fileno(), True)
        with PidfdPoolExecutor(1) as pool:
            opened = pool.submit(
                lambda: [
                    os.readlink(f"/proc/self/fd/{n}")
                    for n in os.listdir("/proc/self/fd")
                    if os.path.exists(f"/proc/self/fd/{n}")
                ]
            ).result()
    assert str(tmp_path / "file") not in opened
    assert "/dev/null" in opened, "standard input belongs to the host"


IN_SUBINTERPRETER = """
import operator
from pidfdpool import PidfdPoolExecutor
for way in ("fork", "spawn"):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        print(way, pool.submit(operator.neg, 3).exception(30))
"""
SUBINTERPRETER = """
import sys
try:
    import _interpreters as interpreters
    made = interpreters.create("legacy")
except ImportError:  # before Python 3.13
    import _xxsubinterpreters as interpreters
    made = interpreters.create(isolated=False)
raised = interpreters.run_string(made, sys.argv[1])
interpreters.destroy(made)
assert raised is None, raised
"""


def test_a_subinterpreter_cannot_be_forked_and_is_told_so():
    done = run_python(SUBINTERPRETER, IN_SUBINTERPRETER)
    forked, _, spawned = done.stdout.rstrip().rpartition("\n")
    assert spawned == "spawn None", done.stderr
    assert forked.startswith("fork "), done.stderr
    assert "cannot go on with one in a forked process. Use mp_context='spawn'" in forked
