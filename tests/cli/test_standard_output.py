"""What commands print: what becomes of it where it cannot be written, or where the encoding lacks a character."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from pidfdpool import cli
from pidfdpool.cli.doctor import processes
from tests.conditions import eventually

FULL = b"cannot write to standard output: No space left on device\n"
NAME = "caf\N{LATIN SMALL LETTER E WITH ACUTE}"


def output_of(command, *arguments, stdout=subprocess.PIPE, **environment):
    """Run a command to its end, and return its exit code, what it has printed, and its standard error."""
    process = command.start(*arguments, stdout=stdout, env={**os.environ, **environment})
    printed, errors = process.communicate()
    return process.returncode, printed, errors


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["doctor", "--no-self-test"],
        ["doctor", "--no-self-test", "--json"],
        ["doctor", str(os.getpid())],
        ["doctor", str(os.getpid()), "--watch"],
        ["demo", "--documents", "100"],
    ],
)
def test_a_full_disk_is_told_in_one_line(command, arguments, unbuffered):
    with open("/dev/full", "w") as full:
        code, _, errors = output_of(command, *arguments, stdout=full, PYTHONUNBUFFERED=unbuffered)
    assert (code, errors) == (1, FULL)


def test_a_full_disk_is_told_of_the_help_as_well(command):
    with open("/dev/full", "w") as full:
        assert output_of(command, "report", "--help", stdout=full, PYTHONUNBUFFERED="")[::2] == (1, FULL)


def test_an_interrupt_goes_before_what_cannot_be_written(command):
    """It is the signal that the shell has to see."""
    code = """
import sys
from pidfdpool import cli
def interrupted(given):
    sys.stdout.write("a beginning")
    raise KeyboardInterrupt
cli._dispatch = interrupted
cli.main([])
"""
    with open("/dev/full", "w") as full:
        options = command.options({"stdout": full, "stderr": subprocess.PIPE, "env": {"PYTHONUNBUFFERED": ""}})
        ended = subprocess.run([sys.executable, "-c", code], check=False, **options)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, b"interrupted\n")


@pytest.fixture
def named():
    """Start a process whose command line has a character that not every encoding has."""
    with subprocess.Popen(["sh", "-c", "read line", NAME], stdin=subprocess.PIPE) as process:
        eventually(lambda: NAME in processes.read(process.pid)[0].command, "it has begun")
        yield process


@pytest.mark.parametrize(
    ("encoding", "shown"), [("utf-8", NAME.encode()), ("latin-1", NAME.encode("latin-1")), ("ascii", rb"caf\xe9")]
)
def test_what_the_encoding_does_not_have_is_escaped(command, named, encoding, shown):
    code, printed, errors = output_of(command, "doctor", str(named.pid), PYTHONIOENCODING=encoding)
    assert (code, errors) == (0, b"")
    assert printed.splitlines()[0] == b"host %d: sh -c read line %b" % (named.pid, shown)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_json_is_json_in_every_encoding(command, named, encoding):
    code, printed, errors = output_of(command, "doctor", str(named.pid), "--json", PYTHONIOENCODING=encoding)
    assert (code, errors) == (0, b"")
    assert json.loads(printed)["host"]["command"].endswith(NAME)


def test_it_may_watch_very_seldom(monkeypatch, capsys):
    """The system cannot sleep for so long at a time."""
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    assert cli.main(["doctor", str(os.getpid()), "--watch", "--every", "1e300"]) == 0
    assert capsys.readouterr().out.startswith("host ")
    assert 0 < slept[0] < threading.TIMEOUT_MAX
