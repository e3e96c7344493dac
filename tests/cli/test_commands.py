"""Which command runs, and what a mistake in the command line leads to."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess

import pytest

import pidfdpool
from pidfdpool.cli import COMMANDS, demo, main, pools
from pidfdpool.cli.swarm import arguments as of_swarm
from pidfdpool.process import cpus


def test_help_names_every_command(command):
    done = command.run("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"  {name} ".encode() in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(command, name):
    done = command.run(name, "--help")
    assert done.returncode == 0
    assert f"pidfdpool {name}".encode() in done.stdout
    assert b"exit codes" in done.stdout
    assert not done.stderr


def test_without_a_command_help_is_printed_and_the_exit_code_is_2(command):
    done = command.run()
    assert done.returncode == 2
    assert b"map" in done.stdout


class Asked(Exception):
    """A pool was asked for, of so many workers."""


@pytest.mark.parametrize(
    ("module", "command"), [(pools, ["map", "json:loads", os.devnull]), (demo, ["demo", "--documents", "1"])]
)
def test_a_limit_of_the_container_bounds_the_number_of_workers(monkeypatch, module, command):
    def ask(workers, *_, **__):
        raise Asked(workers)

    monkeypatch.setattr(cpus, "usable", lambda: 1234)
    monkeypatch.setattr(module, "PidfdPoolExecutor", ask)
    with pytest.raises(Asked, match="1234"):
        main(command)


def test_a_limit_of_the_container_bounds_the_number_of_nodes(monkeypatch):
    monkeypatch.setattr(cpus, "usable", lambda: 1234)
    parser = argparse.ArgumentParser()
    of_swarm.configure(parser)
    told = parser.parse_args(["module:function"])
    of_swarm.check(told)
    assert told.nodes == 1234


def test_version(command):
    done = command.run("--version")
    assert (done.returncode, done.stdout) == (0, f"pidfdpool {pidfdpool.__version__}\n".encode())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nonsense"], "there is no command 'nonsense': use one of map, swarm, report, doctor, demo"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["map"], "the following arguments are required: MODULE:FUNCTION"),
        (["map", "json:loads", "--workers", "0"], "argument --workers: must be at least 1, not 0"),
        (["map", "json:loads", "--workers", "two"], "argument --workers: must be a whole number, not 'two'"),
        (["map", "json:loads", "--on-error", "panic"], "argument --on-error: invalid choice: 'panic'"),
        (["map", "json:loads", "--work", "2"], "unrecognized arguments: --work"),
        (["map", "json:loads", "--worker=2"], "unrecognized arguments: --worker=2: did you mean --workers?"),
        (["map", "json:loads", "--unorderd", "--no-progres"], "did you mean --unordered or --no-progress?"),
        (["map", "json:loads", "--workers", "65536"], "argument --workers: must be at most 65535, not 65536"),
        (["map", "json:loads", "--workers", "9" * 5000], "argument --workers: must be at most 65535, not 9999"),
        (["map", "json:loads", "--workers", "x" * 5000], "argument --workers: must be a whole number, not 'xxxx"),
        (["demo", "--workers", "65536"], "argument --workers: must be at most 65535, not 65536"),
        (["demo", "--documents", "9" * 20], "argument --documents: must be at most 10000000, not 9999"),
        (["mapp"], "there is no command 'mapp': did you mean 'map'?"),
        (["demo", "--documents", "-3"], "argument --documents: must be at least 1, not -3"),
    ],
)
def test_a_mistake_is_told_in_one_line(capfd, arguments, complaint):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    out, err = capfd.readouterr()
    assert not out
    assert complaint in err
    assert err.count("\n") == 1


def test_options_may_stand_anywhere(command, tmp_path):
    file = tmp_path / "one.jsonl"
    file.write_bytes(b"1\n")
    done = command.run(
        "map", "--workers", "1", "jobs:same", "--unordered", str(file), "--no-progress", "-", input=b"2"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1\n2\n", b"")


def test_help_to_a_reader_that_went_away(command):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as closed:
        process = command.start("map", "--help", stdin=subprocess.DEVNULL, stdout=closed)
    assert process.stderr.read() == b""
    assert process.wait() in (0, -signal.SIGPIPE)  # argparse ignores what becomes of its help
