"""`doctor PID`: which processes are whose, with processes that are made up and with real ones."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import textwrap

import pytest

from pidfdpool.cli.doctor import hosts, processes, report
from pidfdpool.cli.doctor.hosts import Process
from tests.conditions import eventually, is_zombie

PROGRAM = "python -c from pidfdpool.template.process import main"


def host(pid=1, *watches, **more):
    return Process(pid, 0, "python", "S", watches=frozenset(watches), **more)


def template(pid, of, *workers, parent=0, **more):
    more = {"name": "pidfd-template", "state": "S", "session": pid, **more}
    return Process(pid, parent, watches=frozenset((of, *workers)), **more)


def worker(pid, parent, slot=0, state="S", **more):
    return Process(pid, parent, f"pidfd-worker{slot}", state, **more)


def pools(arranged):
    return [
        (
            pool.template.pid,
            [(each.slot, each.process.pid) for each in pool.workers],
            [each.pid for each in pool.others],
        )
        for pool in arranged.pools
    ]


# ---- made up -----------------------------------------------------------------------------------------------


def test_several_pools_and_those_of_another_host():
    arranged = hosts.arrange(1, [
        host(1, 10, 11, 12, 20), host(2, 30),
        template(20, 1, started=2.0), template(10, 1, 11, 12, started=1.0), template(30, 2, 31, started=3.0),
        worker(12, 10, 1), worker(11, 10, 0), worker(31, 30),
    ])  # fmt: skip
    assert pools(arranged) == [(10, [(0, 11), (1, 12)], []), (20, [], [])]
    assert arranged.of is None


def test_a_process_that_has_inherited_descriptors_has_no_pool_of_them():
    """A fork of the host has its pidfds for a moment; a template that was forked may have those of its host."""
    known = [host(1, 10), host(2, 10), host(3), template(10, 1, 3)]
    assert pools(hosts.arrange(1, known)) == [(10, [], [])]
    assert pools(hosts.arrange(2, known)) == []
    assert pools(hosts.arrange(3, known)) == []


def test_a_worker_without_a_name_yet_and_one_that_has_changed_it():
    arranged = hosts.arrange(1, [
        host(1, 10, 12), template(10, 1),
        Process(11, 10, "pidfd-template", "R"), Process(12, 10, "renamed", "S"),
        Process(13, 10, "left", "S"), Process(14, 10, "pidfd-guard", "S"),
    ])  # fmt: skip
    assert pools(arranged) == [(10, [(None, 11), (None, 12)], [13, 14])]
    texts = [finding.text for finding in hosts.findings(arranged)]
    assert texts == ["process 13 (left) was left behind by a worker that has ended", "its preload runs"]


def test_a_pool_in_a_worker():
    """Its template is the child of the outer one, which is a subreaper."""
    known = [
        host(1, 10, 11), template(10, 1, 11), worker(11, 10, watches=frozenset({20, 21, 1})),
        template(20, 11, 21, parent=10), worker(21, 20),
    ]  # fmt: skip
    assert pools(hosts.arrange(1, known)) == [(10, [(0, 11)], [])]
    inner = hosts.arrange(11, known)
    assert (pools(inner), inner.of) == ([(20, [(0, 21)], [])], 1)


def test_a_template_that_is_taken_for_a_host():
    arranged = hosts.arrange(10, [host(1, 10), template(10, 1)])
    assert [finding.text for finding in hosts.findings(arranged)] == [
        "it is the template of a pool: look at its host, process 1"
    ]


def test_without_pidfds_the_lifeline_tells():
    known = [
        host(1, writes=frozenset({"pipe:[7]"})), host(2, writes=frozenset({"pipe:[8]"})),
        Process(10, 0, "pidfd-template", "S", session=10, reads=frozenset({"pipe:[7]"})), worker(11, 10),
    ]  # fmt: skip
    assert pools(hosts.arrange(1, known)) == [(10, [(0, 11)], [])]
    assert pools(hosts.arrange(2, known)) == []


def test_where_processes_may_not_name_themselves_the_command_line_tells():
    known = [
        host(1, 10, 11), template(10, 1, 11, name="python", command=PROGRAM),
        Process(11, 10, "python", "S", command=PROGRAM, session=10),
    ]  # fmt: skip
    arranged = hosts.arrange(1, known)
    assert pools(arranged) == [(10, [(None, 11)], [])]
    assert arranged.pools[0].way == "fresh interpreter"


@pytest.mark.parametrize(
    ("known", "text"),
    [
        ([host(1)], "it has no pool"),
        ([Process(1, 0, "python", "Z")], "it has ended, and its parent has not reaped it"),
        ([Process(1, 0, "python", "T", watches=frozenset({10})), template(10, 1)], "it is stopped: workers end"),
        ([host(1, 10), template(10, 1, state="T")], "the template 10 is stopped: no worker can be started"),
        ([host(1, 10), template(10, 1, state="Z")], "the template 10 has ended"),
        ([host(1, 10), template(10, 1)], "it has no worker now"),
        (
            [host(1, 10), template(10, 1), worker(11, 10, 4, "T")],
            "worker 4 (pid 11) is stopped: its task",
        ),
        ([host(1, 10), template(10, 1), worker(11, 10, 4, "t")], "worker 4 (pid 11) is traced"),
        ([host(1, 10), template(10, 1), worker(11, 10, 4, "Z")], "worker 4 (pid 11) has ended"),
        ([host(1, 10), template(10, 1), worker(11, 10, 4, "D")], "worker 4 (pid 11) waits for a disk"),
    ],
)
def test_what_follows_from_states(known, text):
    arranged = hosts.arrange(1, known)
    assert any(text in finding.text for finding in hosts.findings(arranged))
    report.of_host(arranged)
    json.loads(report.of_host_as_json(arranged))


# ---- real --------------------------------------------------------------------------------------------------

HOST = """
import os, sys, threading
from pidfdpool import PidfdPoolExecutor

def inner():
    global pool
    pool = PidfdPoolExecutor(1)
    return os.getpid(), pool.submit(os.getpid).result()

if __name__ == "__main__":
    with PidfdPoolExecutor(2) as one, PidfdPoolExecutor(1, mp_context="fork") as other:
        one.prestart()
        nested, innermost = one.submit(inner).result()
        print(nested, innermost, other.submit(os.getpid).result(), *(w.pid for w in one.workers()), flush=True)
        sys.stdin.read()
"""


@pytest.fixture(params=["", "1"], ids=["pidfds", "pipes"])
def running(request, tmp_path, command):
    """Give a host with two pools, one of which has a worker with a pool of its own."""
    script = tmp_path / "host.py"
    script.write_text(textwrap.dedent(HOST))
    options = command.options({"env": {"PIDFDPOOL_NO_PIDFD": request.param}})
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    ) as process:
        process.told = list(map(int, process.stdout.readline().split()))
        yield process
        process.stdin.close()


def test_the_pools_of_a_running_host(command, running):
    nested, innermost, forked, *workers = running.told
    done = command.run("doctor", str(running.pid), "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    told = json.loads(done.stdout)
    assert told["host"]["pid"] == running.pid
    one, other = told["pools"]
    assert [each["pid"] for each in one["workers"]] == workers
    assert [each["slot"] for each in one["workers"]] == [0, 1]
    assert [each["pid"] for each in other["workers"]] == [forked]
    assert (one["way"], other["way"]) == ("fresh interpreter", "fork of the host")
    for each in (told["host"], one["template"], *one["workers"]):
        assert each["resident"] > 1 << 20
        assert each["state"] in {"running", "sleeping", "waiting for a disk"}
    inner = json.loads(command.run("doctor", str(nested), "--json").stdout)
    assert [[each["pid"] for each in pool["workers"]] for pool in inner["pools"]] == [[innermost]]

    text = command.run("doctor", str(running.pid)).stdout.decode()
    assert f"host {running.pid}: " in text
    for pid in workers:
        assert f" {pid}  " in text


def test_watching_ends_with_the_host(command, running):
    process = command.start("doctor", str(running.pid), "--watch", "--every", "0.05", "--json")
    for _ in range(3):
        assert len(json.loads(process.stdout.readline())["pools"]) == 2
    running.stdin.close()
    running.wait()
    process.stdout.read()
    assert process.wait() == 0
    assert process.stderr.read() == f"process {running.pid} has ended\n".encode()


def test_watching_ends_at_ctrl_c(command):
    process = command.start("doctor", str(os.getpid()), "--watch")
    assert process.stdout.readline().startswith(b"host ")
    process.send_signal(signal.SIGINT)
    assert process.wait() == 0
    process.stdout.read()
    assert process.stderr.read() == b""


def test_on_a_terminal_it_is_drawn_again_in_the_same_place(command):
    ours, theirs = pty.openpty()
    process = command.start("doctor", str(os.getpid()), "--watch", "--every", "0.01", stdout=theirs)
    os.close(theirs)
    shown = b""
    while shown.count(b"\033[H\033[2Jhost ") < 3:
        shown += os.read(ours, 65536)
    process.send_signal(signal.SIGINT)
    try:
        while os.read(ours, 65536):
            pass
    except OSError:
        pass  # nobody has the other end any more
    assert process.wait() == 0
    os.close(ours)
    assert process.stderr.read() == b""


def test_a_reader_that_goes_away_ends_it_quietly(command):
    process = command.start("doctor", str(os.getpid()), "--watch", "--every", "0.01")
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait() == -signal.SIGPIPE
    assert process.stderr.read() == b""


def test_what_a_process_says_of_itself_is_one_line_without_orders_for_a_terminal(command):
    code = "import sys; sys.stdin.read()\n# \033[2J \x9b"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    eventually(lambda: "-c" in processes.read(process.pid)[0].command, "it has begun")
    told = processes.read(process.pid)[0].command
    text = command.run("doctor", str(process.pid)).stdout.decode()
    process.stdin.close()
    process.wait()
    assert told.endswith("-c import sys; sys.stdin.read() # ?[2J ?")
    assert all(line.isprintable() for line in text.splitlines())


# ---- where there is nothing to see -------------------------------------------------------------------------


def ended_pid():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_pid_that_does_not_exist(command):
    pid = ended_pid()
    for option in ([], ["--watch"]):
        done = command.run("doctor", str(pid), *option)
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr == f"there is no process {pid}\n".encode()


def test_a_process_that_has_ended_and_was_not_reaped():
    process = subprocess.Popen(["true"])
    eventually(lambda: is_zombie(process.pid), "it has ended")
    assert "it has ended" in hosts.findings(hosts.arrange(process.pid, processes.read(process.pid)))[0].text
    process.wait()


def test_a_thread(command):
    import threading

    told, go = [], threading.Event()
    thread = threading.Thread(target=lambda: (told.append(threading.get_native_id()), go.wait()))
    thread.start()
    eventually(lambda: told, "it runs")
    try:
        with pytest.raises(processes.CannotRead, match=f"is a thread of process {os.getpid()}: look at"):
            processes.read(told[0])
    finally:
        go.set()
        thread.join()


def test_another_users_process(monkeypatch):
    def refuse(path):
        raise PermissionError

    monkeypatch.setattr(processes.os, "listdir", refuse)
    with pytest.raises(processes.CannotRead, match=r"process 1 \(.*\) belongs to user .*, and may be looked at by"):
        processes.read(1)


def test_no_proc(tmp_path):
    with pytest.raises(processes.CannotRead, match="there is no .*: a host is looked at through it"):
        processes.read(1, str(tmp_path / "proc"))
