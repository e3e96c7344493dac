"""What stands above a host: subreapers, inits, pid namespaces, and the programs that people start programs with."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
from contextlib import suppress

import pytest

from tests.conditions import MARK, ROOT, children, marked, processes_of_this_run
from tests.hosts.observing import CONTENDER, expect, expect_nothing_left, host, run, run_clean, within

SECTION = "Supervisors, pid 1, and what starts a host"

WORKDAY = [sys.executable, "-m", "tests.hosts.programs.workday"]
SUPERVISOR = [sys.executable, "-m", "tests.hosts.programs.supervisor"]
NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
SIGCHLD = ["leaves SIGCHLD alone", "reaps in a handler", "ignores SIGCHLD"]


@pytest.fixture
def namespace():
    """Return the command to put before another, which makes that pid 1 of a new pid namespace."""
    if os.geteuid() or shutil.which("unshare") is None:
        pytest.skip("a pid namespace needs root and unshare(1)")
    return NAMESPACE


def needs(program):
    if shutil.which(program) is None:
        pytest.skip(f"{program}(1) is not installed")


def until_staying(process):
    """Wait until the host's workers are busy."""
    line = process.stdout.readline()
    expect(line == "staying\n", f"the host does not get to work: {line.strip()}")


# ---- reapers -----------------------------------------------------------------------------------------------


@pytest.mark.case(SECTION, "beneath a subreaper that reaps everything: tasks, a crash, the end", ways="both")
def test_below_a_subreaper(contender):
    out = run_clean(contender, [*SUPERVISOR, *WORKDAY])
    expect("done\nno zombies\nended 0\n" in out, "the host does not end well", out)
    expect(out.endswith("all ended\n"), "the supervisor waits in vain for processes of the pool", out)


@pytest.mark.case(SECTION, "beneath a subreaper, the host is killed while tasks run", ways="both")
def test_killed_below_a_subreaper(contender, tmp_path):
    with host(contender, [*SUPERVISOR, *WORKDAY, "", "stay", str(tmp_path)]) as supervisor:
        pid = int(supervisor.stdout.readline().split()[1])
        until_staying(supervisor)
        os.kill(pid, signal.SIGKILL)
        out = supervisor.stdout.readline() + supervisor.stdout.readline()
        expect(out == "ended -9\nall ended\n", "the supervisor waits in vain for workers of the killed host", out)


@pytest.mark.case(SECTION, "the host is itself a subreaper: tasks, a crash, the end", ways="both")
@pytest.mark.parametrize("sigchld", SIGCHLD)
def test_a_host_that_is_a_subreaper(contender, sigchld):
    out = run_clean(contender, [*WORKDAY, f"subreaper, {sigchld}"])
    expect(out == "worked\nno zombies\ndone\nno zombies\n", "zombies are left in the host", out)


@pytest.mark.case(SECTION, "the host is pid 1 of a pid namespace: tasks, a crash, the end", ways="both")
@pytest.mark.parametrize("sigchld", SIGCHLD)
def test_a_host_that_is_pid_1(contender, sigchld, namespace):
    out = run_clean(contender, [*namespace, *WORKDAY, f"pid 1, {sigchld}"])
    expect(out == "worked\nno zombies\ndone\nno zombies\n", "zombies are left in the host", out)


@pytest.mark.case(SECTION, "the host is pid 1 and has no init; tasks leave processes behind, which end", ways="both")
def test_orphans_of_tasks_below_pid_1(contender, namespace):
    out = run_clean(contender, [*namespace, *WORKDAY, "pid 1", "orphans"])
    expect(out.startswith("no zombies\n"), "what tasks left behind become zombies of the host", out)


@pytest.mark.case(SECTION, "in a container with an init (pid 1), the host is killed while tasks run", ways="both")
def test_killed_in_a_container(contender, namespace, tmp_path):
    command = [*namespace, *SUPERVISOR, *WORKDAY, "", "stay", str(tmp_path)]
    with host(contender, command) as container:
        inner = int(container.stdout.readline().split()[1])
        until_staying(container)
        (init,) = children(container.pid)
        (killed,) = [pid for pid in children(init) if _number_inside(pid) == inner]
        os.kill(killed, signal.SIGKILL)
        out = container.stdout.readline() + container.stdout.readline()
        expect(out == "ended -9\nall ended\n", "workers of the killed host live on in the container", out)


def _number_inside(pid):
    """Return the number that a process has in its own pid namespace."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[-1]) for line in status if line.startswith("NSpid:"))


# ---- what people start hosts with --------------------------------------------------------------------------


@pytest.mark.case(SECTION, "a host that takes too long for")
@pytest.mark.parametrize("command", ["timeout", "timeout -s KILL", "timeout --foreground -s KILL"])
def test_timeout(contender, command, tmp_path):
    needs("timeout")
    environment = marked("timeout")
    with host(contender, [*command.split(), "600", *WORKDAY, "", "stay", str(tmp_path)], env=environment) as process:
        until_staying(process)
        process.send_signal(signal.SIGALRM)  # what comes to timeout(1) when the time is over
        process.wait(20)
        expect_nothing_left(environment)


@pytest.mark.case(SECTION, "under nohup, the terminal is closed: SIGHUP comes to the host's process group")
def test_nohup(contender):
    needs("nohup")
    out = run_clean(contender, ["nohup", *WORKDAY, "", "hangup"])
    expect(out.startswith("done\n"), "the host does not go on", out)


@pytest.mark.case(SECTION, "started by")
@pytest.mark.parametrize("command", ["setsid --wait", "nice -n 5", "env -i", "script"])
def test_started_by(contender, command, tmp_path):
    needs(command.split()[0])
    start = [*command.split(), *WORKDAY]
    if command == "env -i":
        kept = {name: os.environ[name] for name in (MARK,)} | {"PYTHONPATH": ROOT, CONTENDER: contender}
        start = ["env", "-i", *(f"{name}={value}" for name, value in kept.items()), *WORKDAY]
    elif command == "script":
        start = ["script", "--quiet", "--return", "--command", shlex.join(WORKDAY), str(tmp_path / "typescript")]
    out = run_clean(contender, start).replace("\r\n", "\n")
    expect(out == "worked\nno zombies\ndone\nno zombies\n", "the host does not get through its day", out)


@pytest.mark.case(SECTION, "`host | head -n 1`: the reader leaves while the host goes on printing")
def test_a_pipeline_whose_reader_leaves(contender):
    environment = marked("pipeline")
    command = ["sh", "-c", '"$@" | head -n 1', "sh", *WORKDAY, "", "talk"]
    done = run(contender, command, env=environment, hangs="the pipeline hangs")
    expect(done.stdout == "42\n", "the reader got nothing", done.stderr)
    expect("BrokenPipeError" in done.stderr, "the host is not told that its reader is gone", done.stderr)
    expect_nothing_left(environment)


@pytest.mark.case(SECTION, "the host is killed, and whoever reads its output waits for the end of it")
def test_the_reader_of_a_killed_host(contender, tmp_path):
    with host(contender, [*WORKDAY, "", "stay", str(tmp_path)]) as process:
        until_staying(process)
        process.kill()
        process.wait()
        os.set_blocking(process.stdout.fileno(), False)

        def ended():
            with suppress(BlockingIOError):
                return os.read(process.stdout.fileno(), 1) == b""

        within(5, ended, "its output never ends: workers live on and hold it", processes_of_this_run)
