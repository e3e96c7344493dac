"""The demo shows what it promises, and says so when a promise did not hold."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import tempfile
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from pidfdpool.cli import demo, hostility, sample
from pidfdpool.cli.hostility import Announcement, Descendants, ReapingHandler
from tests.conditions import eventually, run_python, start_python


def test_the_demonstration(command, tmp_path):
    done = command.run("demo", "--documents", "650", "--workers", "2", env={"TMPDIR": str(tmp_path)})
    shown = done.stdout.decode()
    assert done.returncode == 0, shown
    assert done.stderr == b""
    assert "650 in, 650 out; byte for byte what the inline run made" in shown
    assert re.search(r"^killed +worker process \d+,", shown, re.MULTILINE)
    assert re.search(r"^reported +WorkerCrashed: .*SIGKILL", shown, re.MULTILINE)
    assert "1 of 7 blocks" in shown
    assert re.search(r"^handler +saw nothing", shown, re.MULTILINE)
    assert re.search(r"^processes +\d+ of the pool's while it ran, 0 left", shown, re.MULTILINE)
    assert re.search(r"^speed +inline .* documents/s, pool .* documents/s", shown, re.MULTILINE)
    assert shown.endswith("every check held\n")
    assert "FAILED" not in shown
    assert not list(tmp_path.iterdir())


def test_the_smallest_demonstration(command):
    done = command.run("demo", "--documents", "1", "--workers", "1")
    assert done.returncode == 0, done.stdout.decode()


def test_ctrl_c_ends_it_quietly(command, tmp_path):
    process = command.start("demo", "--documents", "30000", env={"TMPDIR": str(tmp_path)})
    assert process.stdout.readline().startswith(b"events")
    process.send_signal(signal.SIGINT)
    assert process.wait() == -signal.SIGINT
    assert process.stderr.read() == b"interrupted\n"
    assert not list(tmp_path.iterdir())


def test_where_there_are_no_pidfds_nobody_is_killed_by_number(command):
    done = command.run("demo", env={"PIDFDPOOL_NO_PIDFD": "1"})
    assert done.returncode == 1
    assert done.stdout.startswith(b"FAILED       no signal can be sent through a pidfd here")


# ---- the checks --------------------------------------------------------------------------------------------

GOOD = {
    "output": b"a\nb\n",
    "victim": 7,
    "crashes": [SimpleNamespace(pid=7)],
    "processes": 3,
}


def problems(seen=(), left=(), inline=b"a\nb\n", documents=2, **changes):
    reaper = ReapingHandler()
    reaper.seen.extend(seen)
    observed = demo._Observations(**{**GOOD, **changes})
    return demo._report(documents, observed.output.count(b"\n"), inline, observed, reaper, list(left))


def test_no_problem():
    assert problems() == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"output": b"a\n"}, "2 documents went in, 1 came out"),
        ({"output": b"b\na\n"}, "the pool's output differs from the inline run's"),
        ({"crashes": []}, "the death of the killed worker was not reported"),
        ({"victim": None}, "the death of the killed worker was not reported"),
        ({"seen": [(99, 9)]}, "the host's SIGCHLD handler was shown a child"),
        ({"left": [99]}, "processes were left behind"),
        ({"processes": 0}, "could not be found in /proc"),
    ],
)
def test_whatever_did_not_hold_is_a_problem(capsys, change, problem):
    assert any(problem in found for found in problems(**change))


def test_what_the_handler_saw_is_shown(capsys):
    problems(seen=[(99, 9)])
    assert "saw process 99 (exit code -9)" in capsys.readouterr().out


# ---- the instruments, tried on things that are not the pool ------------------------------------------------


def test_the_reaper_sees_a_child_and_restores_the_handler_before():
    done = run_python(
        """
        import os, signal, time
        from pidfdpool.cli.hostility import ReapingHandler

        reaper = ReapingHandler()
        before = signal.getsignal(signal.SIGCHLD)
        with reaper.installed():
            child = os.fork()
            if not child:
                os._exit(3)
            while not reaper.seen:
                time.sleep(0.005)
        assert [(pid, os.waitstatus_to_exitcode(status)) for pid, status in reaper.seen] == [(child, 3)]
        assert signal.getsignal(signal.SIGCHLD) == before
        """
    )
    assert done.returncode == 0, done.stderr


def test_descendants_are_found_whoever_their_parent_is():
    descendants = Descendants()
    with descendants.marked():
        process = start_python(
            """
            import subprocess, sys
            print(subprocess.Popen([sys.executable, "-c", "input()"], stdin=0).pid, flush=True)
            """,
            stdin=-1,
        )
        orphan = int(process.stdout.readline())
        assert process.wait() == 0
    # While it is still in exec(), its environment cannot be read.
    eventually(lambda: descendants.alive() == [orphan], "the orphan is found")
    pidfd = os.pidfd_open(orphan)
    process.stdin.close()
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(30_000)
    os.close(pidfd)
    assert descendants.alive() == []
    process.stdout.close()
    process.stderr.close()


def test_a_task_that_ends_without_a_word_is_not_waited_for():
    with tempfile.TemporaryDirectory() as folder:
        announcement = Announcement(os.path.join(folder, "pipe"))
        task = Future()
        task.set_result(b"")
        assert announcement.wait(task) is None
        announcement.close()


def test_a_task_announces_its_process(monkeypatch):
    monkeypatch.setattr(hostility, "_KILL_TIMEOUT", 0.0)
    line = next(sample.generate(1, 1))
    with tempfile.TemporaryDirectory() as folder:
        announcement = Announcement(os.path.join(folder, "pipe"))
        assert hostility.work_until_killed(line, announcement.path) == sample.summarize_lines(line)
        assert announcement.wait(Future()) == os.getpid()
        announcement.close()


# ---- the events --------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_events():
    assert list(sample.generate(50, 1)) == list(sample.generate(50, 1))
    assert list(sample.generate(50, 1)) != list(sample.generate(50, 2))


def test_every_event_becomes_one_summary():
    lines = b"".join(sample.generate(200, 3))
    summaries = list(map(json.loads, sample.summarize_lines(lines).splitlines()))
    events = list(map(json.loads, lines.splitlines()))
    assert [summary["order"] for summary in summaries] == [event["id"] for event in events]
    for event, summary in zip(events, summaries, strict=True):
        kept = [item for item in event["items"] if item["state"] not in ("cancelled", "returned")]
        assert summary["pieces"] == sum(item["quantity"] for item in kept)
        assert summary["cents"] + summary["discount"] == sum(item["cents"] * item["quantity"] for item in kept)


def test_the_summary_is_a_function_for_map(command, tmp_path):
    file = tmp_path / "events.jsonl"
    lines = b"".join(sample.generate(20, 3))
    file.write_bytes(lines)
    done = command.run("map", "pidfdpool.cli.sample:summarize", str(file))
    assert (done.returncode, done.stdout) == (0, sample.summarize_lines(lines))
