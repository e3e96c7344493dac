"""`doctor`: the report of this machine, its exit codes, and what it says in sandboxes."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from pidfdpool.cli.doctor import rules
from tests.house.pages import DOCS, blocks_of


def test_the_report_of_this_machine(command):
    done = command.run("doctor")
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b""), text
    for topic in ("kernel", "interpreter", "container", "self-test"):
        assert re.search(rf"^{topic}: ", text, re.MULTILINE)
    for step in ("crash", "timeout", "kill", "host death"):
        assert f"  ok       {step}: " in text
    assert "everything that a pool needs is here" in text.splitlines()[-1]


def test_the_same_as_json(command):
    done = command.run("doctor", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    told = json.loads(done.stdout)
    assert told["ok"] is True
    assert told["interpreter"]["version"] == "{}.{}.{}".format(*sys.version_info)
    assert set(told["kernel"]["pidfds"]) == set(rules.FEATURES)
    assert [step["name"] for step in told["steps"]] == ["crash", "timeout", "kill", "host death"]
    assert all(finding["level"] in {"ok", "note"} for finding in told["findings"])


def test_without_the_self_test(command):
    done = command.run("doctor", "--no-self-test", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["steps"] == []


def test_where_pidfds_are_not_used_a_pool_works_nevertheless(command):
    done = command.run("doctor", "--json", env={"PIDFDPOOL_NO_PIDFD": "1"})
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr, told["ok"]) == (0, b"", True)
    assert not any(told["kernel"]["pidfds"].values())
    assert all(step["passed"] for step in told["steps"])


def in_sandbox(command, calls, *arguments):
    code = f"""
import errno, sys
from tests.seccomp import deny
from pidfdpool.cli import main
deny({calls}, errno.EPERM)
sys.exit(main(["doctor", *sys.argv[1:]]))
"""
    line = [sys.executable, "-c", code, *arguments]
    return subprocess.run(line, capture_output=True, check=False, timeout=50, **command.options({}))


def test_a_sandbox_that_a_pool_can_do_with(command):
    done = in_sandbox(command, {319, 434})  # memfd_create, pidfd_open, on x86-64
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b""), text
    assert re.search(r"note +memfd_create is refused: large payloads travel through sockets", text)
    assert re.search(r"note +pidfd_open \(Linux 5.3\) is not granted: pipes take the place", text)
    assert re.search(r"ok +a seccomp filter is in force", text)
    assert re.search(r"ok +host death: ", text)


def test_a_sandbox_that_no_pool_can_do_with(command):
    done = in_sandbox(command, {291})  # epoll_create1, on x86-64
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (1, b""), text
    assert re.search(r"missing +no pool works here: this process may not call epoll_create1", text)
    assert text.splitlines()[-1].startswith("pools do not work here as they should: ")


@pytest.mark.parametrize(
    ("sabotage", "observed"),
    [
        ("selftest._HOST = 'raise SystemExit(1)'", "a host in a process of its own could not use a pool"),
        (
            "sys.executable = '/no/such/python'",
            "no process can be started: No such file or directory: /no/such/python",
        ),
    ],
)
def test_a_self_test_that_fails_is_told_and_hangs_nothing(command, sabotage, observed):
    code = f"""
import sys
from pidfdpool.cli import main
from pidfdpool.cli.doctor import selftest
{sabotage}
sys.exit(main(["doctor"]))
"""
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, check=False, timeout=50, **command.options({}))
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (1, b""), text
    assert re.search(f"missing +host death: {observed}", text)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["zero"], "argument PID: must be a whole number, not 'zero'"),
        (["0"], "argument PID: must be at least 1, not 0"),
        (["99999999"], "argument PID: must be at most 4194304, not 99999999"),
        (["--watch"], "argument --watch: name the PID of a process to watch"),
        (["1", "--every", "2"], "argument --every: it says how often --watch looks"),
        (["1", "--watch", "--every", "0"], "argument --every: must be a number of seconds, more than 0, not '0'"),
        (["1", "--no-self-test"], "argument --no-self-test: there is no self-test with a PID"),
    ],
)
def test_a_mistake_is_told_in_one_line(capfd, arguments, complaint):
    from pidfdpool.cli import main

    with pytest.raises(SystemExit) as exit_:
        main(["doctor", *arguments])
    assert exit_.value.code == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert complaint in err


# ---- the page ----------------------------------------------------------------------------------------------


def shape_of(report):
    """Return the lines with what differs between machines left out: what comes after a colon, and all numbers."""
    lines = [line.partition(": ")[0] for line in report.splitlines() if not re.match(r"  (ok|note) ", line)]
    return [re.sub(r"\d+(\.\d+)?", "0", line) for line in lines]


def reports_on_the_page(beginning):
    blocks = [block.text for block in blocks_of((DOCS / "command-line.md").read_text())]
    return [text for text in blocks if text.startswith(beginning)]


def test_the_report_on_the_page_has_the_form_that_is_printed(command):
    (page,) = reports_on_the_page("kernel: ")
    printed = command.run("doctor").stdout.decode()
    assert shape_of(page)[:-1] == shape_of(printed)[:-1]
    for feature in rules.FEATURES.values():
        assert f"  ok       {feature.call} (Linux {feature.since}): {feature.granted}\n" in page
    steps = [re.findall(r"^  ok +(crash|timeout|kill|host death): ", text, re.MULTILINE) for text in (page, printed)]
    assert steps[0] == steps[1]
    assert len(steps[0]) == 4


def test_the_report_of_a_host_on_the_page_has_the_form_that_is_printed(command, tmp_path):
    (page,) = reports_on_the_page("host 4711: ")
    script = """
import os, subprocess, sys
from pidfdpool import PidfdPoolExecutor
with PidfdPoolExecutor(2) as pool:
    pool.prestart()
    subprocess.run([sys.executable, "-m", "pidfdpool", "doctor", str(os.getpid())])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, **command.options({}))

    def form_of(text):
        lines = re.sub(r"[\d.]+", "0", text.partition("\n")[2]).splitlines()
        varying = re.compile(r"(running|sleeping|waiting for a disk|[KMG]B|min|h|days|s(?=$))\b")
        return [" ".join(varying.sub("x", line).split()) for line in lines]

    assert form_of(page) == form_of(done.stdout.decode())
