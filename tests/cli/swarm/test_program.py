"""The supervisor as a program: what it does at each signal, what it tells, how it ends."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import threading

import pytest

from tests.cli.swarm.conftest import TARGETS
from tests.conditions import eventually, is_alive, open_descriptors
from tests.hosts.serving import free_port


def test_nodes_that_are_done_end_it_with_a_table(supervise):
    one = supervise("finish", "--nodes", "2", "a", "b c", noting=False)
    assert one.ends() == 0
    lines = one.out().splitlines()
    assert sorted(lines[:2]) == [f"node {number} finishes with a, b c" for number in range(2)]
    assert lines[2:] == [
        "node  attempts  state  deaths",
        "   0         1  done   exited with code 0",
        "   1         1  done   exited with code 0",
    ]


def test_a_request_to_stop_is_passed_on(supervise):
    one = supervise("live", "--nodes", "2")
    one.until_noted("lives", 2)
    one.send(signal.SIGTERM)
    assert one.ends() == 0
    assert one.notes("stopped") == one.notes("lives")
    assert one.out().count("stopped") == 2
    assert "SIGTERM: stop every node" in one.err()


def test_a_second_request_to_stop_kills(supervise):
    one = supervise("spin_deaf", "--nodes", "2")
    lives = one.until_noted("lives", 2)
    one.send(signal.SIGINT)
    one.until_said("SIGINT: stop every node")
    assert all(is_alive(pid) for *_, pid in lives)
    one.send(signal.SIGTERM)
    assert one.ends() == 2
    assert one.out().count("killed by SIGKILL") == 2


def test_a_node_that_does_not_stop_in_time_is_killed_and_told(supervise):
    one = supervise("spin_deaf", "--nodes", "1", "--stop-timeout", "0.3")
    one.until_noted("lives", 1)
    one.send(signal.SIGTERM)
    assert one.ends() == 2
    assert "killed by SIGKILL" in one.out()


def test_it_gives_up_when_nodes_die_young_too_often(supervise):
    one = supervise("raise_at_once", "--nodes", "1", "--intensity", "2", noting=False)
    assert one.ends() == 1
    assert "3 x exited with code 1" in one.out()
    assert "gave up" in one.out()
    assert "ValueError: no queue here" in one.err()


def test_a_module_that_cannot_be_preloaded_is_told(supervise):
    one = supervise("live", "--preload", "no_such_module_here")
    assert one.ends() == 1
    assert "no_such_module_here" in one.err()


def test_what_takes_no_new_work_is_told_so(supervise):
    one = supervise("live", "--nodes", "2")
    one.until_noted("lives", 2)
    one.send(signal.SIGTSTP)
    one.until_noted("quiet", 2)
    one.send(signal.SIGTERM)
    assert one.ends() == 0


def test_every_node_is_restarted_one_after_the_other(supervise):
    one = supervise("live", "--nodes", "2")
    one.until_noted("lives", 2)
    one.send(signal.SIGHUP)
    lives = one.until_noted("lives", 4)
    assert [(node, attempt) for node, attempt, _ in lives] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    one.send(signal.SIGTERM)
    assert one.ends() == 0


def test_the_stack_of_every_node_is_shown(supervise):
    one = supervise("hang_in_a_lock", "--nodes", "2")
    one.until_noted("lives", 2)
    one.send(signal.SIGTTIN)
    for number in range(2):
        stack = one.until_said(rf"Python stack of node {number} \(pid \d+\):\n((?:.+\n)+)")[1]
        assert "in sit_there_for_ever" in stack
    one.send(signal.SIGTERM)
    one.until_said("SIGTERM: stop every node")
    one.send(signal.SIGTERM)
    assert one.ends() == 2


def test_a_node_that_is_killed_from_outside_is_started_again(supervise):
    one = supervise("live", "--nodes", "1")
    ((_, _, pid),) = one.until_noted("lives", 1)
    os.kill(pid, signal.SIGKILL)
    assert [attempt for _, attempt, _ in one.until_noted("lives", 2)] == [1, 2]
    one.send(signal.SIGTERM)
    assert one.ends() == 0
    assert re.search(
        r"^ +0 +2  stopped  killed by SIGKILL, exited with code 0 \(shutdown\)$", one.out(), re.MULTILINE
    )


def test_nodes_do_not_outlive_the_supervisor(supervise):
    one = supervise("spin_deaf", "--nodes", "2")
    lives = one.until_noted("lives", 2)
    one.process.kill()
    one.process.wait()
    eventually(lambda: not any(is_alive(pid) for *_, pid in lives), "no node is left", seconds=5)


def test_each_event_is_told_once(supervise):
    one = supervise("raise_at_once", "--nodes", "1", "--intensity", "0", noting=False)
    assert one.ends() == 1
    assert len(re.findall("ended: exited with code 1", one.err())) == 2  # when it died, and in the history
    assert len(re.findall("gave up", one.err())) == 1


def test_a_module_that_sets_up_logging_has_events_told_its_way(command, tmp_path):
    setup = "logging.basicConfig(level='INFO', format='own way: %(message)s')"
    (tmp_path / "logs_itself.py").write_text(f"import logging\n{setup}\ndef run(node): node.healthy()\n")
    done = command.run("swarm", "logs_itself:run", "--nodes", "1", path=(str(tmp_path),))
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 0
    assert all(line.startswith("own way: ") for line in lines)
    assert sum("ended: exited with code 0" in line for line in lines) == 1


# ---- health checks --------------------------------------------------------------------------------------------


def test_health_checks_follow_the_nodes(supervise):
    one = supervise("live", "--nodes", "2", "--health-port", "0", "--min-healthy", "1")
    one.until_noted("lives", 2)
    one.until(lambda: one.get("/readyz")[0] == 200, "it is ready")
    assert one.get("/livez") == (200, {"live": True})
    one.until(lambda: one.get("/status")[1]["healthy"] == 2, "all are healthy")
    status, document = one.get("/status")
    assert (status, document["state"], document["needed"]) == (200, "running", 1)
    assert [(node["node"], node["state"]) for node in document["nodes"]] == [(0, "healthy"), (1, "healthy")]
    assert {node["pid"] for node in document["nodes"]} == {pid for *_, pid in one.notes("lives")}
    one.send(signal.SIGTSTP)
    one.until(lambda: one.get("/readyz") == (503, {**one.get("/readyz")[1], "why": "the swarm is quiet"}), "quiet")


def test_a_node_that_does_not_report_is_not_ready(supervise):
    one = supervise("never_report", "--nodes", "2", "--health-port", "0")
    one.until_noted("lives", 2)
    status, document = one.get("/readyz")
    assert (status, document["why"]) == (503, "0 of 2 nodes that are needed are healthy")
    assert one.get("/livez")[0] == 200


def test_clients_that_hang_stop_nothing(supervise):
    one = supervise("live", "--nodes", "1", "--health-port", "0")
    port = one.port()
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
    try:
        one.until(lambda: one.get("/readyz")[0] == 200, "it is ready")
        one.send(signal.SIGTERM)
        assert one.ends() == 0
    finally:
        for client in clients:
            client.close()


def test_checks_leave_no_descriptor_behind(supervise):
    one = supervise("live", "--nodes", "1", "--health-port", "0")
    one.until(lambda: one.get("/readyz")[0] == 200, "it is ready")
    before = len(open_descriptors(one.process.pid))
    for _ in range(100):
        one.get("/livez")
    one.until(lambda: len(open_descriptors(one.process.pid)) <= before, f"no more than {before}")
    assert len(os.listdir(f"/proc/{one.process.pid}/task")) < 50  # a thread pool of asyncio's, which is bounded


def test_a_port_in_use_is_told_before_anything_starts(command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command.run("swarm", f"{TARGETS}:finish", "--health-port", str(port))
    assert done.returncode == 2
    complaint = f"swarm: argument --health-port: cannot listen on port {port} of 127.0.0.1: it is in use\n"
    assert done.stderr.decode().endswith(complaint)
    assert done.stderr.count(b"\n") == 1


def test_a_supervisor_that_stands_still_is_not_alive(supervise):
    """Nobody reads its standard error, so it stops at the event for which that has no room."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    port = free_port()
    with open(reader, "rb") as errors, open(writer, "wb") as end:
        often = ("--intensity", "1000", "--restart-pause-limit", "0.05")
        one = supervise("die_at_once", "--nodes", "1", "--health-port", str(port), *often, stderr=end)
        end.close()
        one.until_noted("lives", 1)
        one.until(lambda: one.get("/livez", port)[0] == 503, "it stands still")
        assert one.get("/readyz", port)[1]["why"] == "the supervisor does not answer"
        drain = threading.Thread(target=errors.read)
        drain.start()
        one.until(lambda: one.get("/livez", port)[0] == 200, "it goes on")
        one.send(signal.SIGTERM)
        assert one.ends() == 0
        drain.join(30)


# ---- pid 1 ----------------------------------------------------------------------------------------------------


def test_it_can_be_pid_1(supervise):
    """In a pid namespace of its own, where orphans come to it, and signals of no handler are not delivered."""
    if os.geteuid() or shutil.which("unshare") is None:
        pytest.skip("a pid namespace needs root and unshare(1)")
    prefix = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]
    script = "sh -c 'sleep 0.3 & sleep 0.3 &'; exec \"$@\""
    one = supervise("leave_orphans", "--nodes", "2", prefix=[*prefix, script, "sh"])
    one.until_noted("lives", 2)
    (supervisor,) = _children(one.process.pid)
    eventually(lambda: not [pid for pid in _children(supervisor) if not is_alive(pid)], "no zombie stays")
    os.kill(supervisor, signal.SIGTERM)
    assert one.ends() == 0
    assert one.out().count("stopped") == 2


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(number) for number in file.read().split()]


# ---- mistakes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--nodes", "0"], "argument --nodes: must be at least 1, not 0"),
        (["--nodes", "-1"], "argument --nodes: must be at least 1, not -1"),
        (["--nodes", "65536"], "argument --nodes: must be at most 65535, not 65536"),
        (["--report-timeout", "0"], "argument --report-timeout: must be a number of seconds, more than 0, not '0'"),
        (["--stop-timeout", "soon"], "argument --stop-timeout: must be a number of seconds, more than 0, not 'soon'"),
        (["--restart", "never"], "argument --restart: invalid choice: 'never'"),
        (["--max-memory", "1M"], "argument --max-memory: must be at least 32M"),
        (["--health-port", "65536"], "argument --health-port: must be at most 65535, not 65536"),
        (["--health-port", "http"], "argument --health-port: must be a whole number, not 'http'"),
        (["--health-host", "0.0.0.0"], "argument --health-host: it is of no use without --health-port"),
        (["--min-healthy", "1"], "argument --min-healthy: it is of no use without --health-port"),
        (
            ["--health-port", "0", "--nodes", "2", "--min-healthy", "3"],
            "argument --min-healthy: 3 of 2 nodes cannot be healthy",
        ),
        (
            ["--health-port", "0", "--health-host", "192.0.2.1"],
            "argument --health-host: '192.0.2.1' is not an address",
        ),
        (["--no-reports", "--report-timeout", "5"], "argument --no-reports: not with --report-timeout"),
        (["--report_timeout", "5"], "did you mean --report-timeout?"),
        (["--period", "5", "--intensity", "-1"], "argument --intensity: must be at least 0, not -1"),
    ],
)
def test_a_mistake_is_told_in_one_line(capfd, arguments, complaint):
    from pidfdpool.cli import main

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(SystemExit) as exit_:
        main(["swarm", f"{TARGETS}:finish", *arguments])
    assert exit_.value.code == 2
    out, err = capfd.readouterr()
    assert not out
    assert complaint in err
    assert err.count("\n") == 1
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        ("tests.cli.swarm.targets:finsh", "has no attribute 'finsh': did you mean finish?"),
        ("no_such_module:run", "there is no module 'no_such_module'"),
        ("tests/cli/swarm/targets.py:finish", "did you mean tests.cli.swarm.targets:finish?"),
    ],
)
def test_a_function_that_is_not_there_is_told(command, function, complaint):
    done = command.run("swarm", function)
    assert done.returncode == 2
    assert complaint in done.stderr.decode()
