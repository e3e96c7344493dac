"""`map --report`: the trace of a run, or its page."""

from __future__ import annotations

import json

import pytest

DOCUMENTS = b"".join(b'{"n": %d}\n' % number for number in range(100))


@pytest.mark.parametrize("name", ["run.json", "RUN.JSON"])
def test_the_trace_of_a_run(command, tmp_path, name):
    done = command.map("increment", "--report", str(tmp_path / name), input=DOCUMENTS)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout.splitlines()) == 100
    events = json.loads((tmp_path / name).read_bytes())
    assert events[0]["args"]["max_workers"] == 2
    assert {event["args"]["outcome"] for event in events if event.get("cat") == "task"} == {"done"}


def test_the_page_of_a_run(command, tmp_path):
    done = command.map("increment", "--report", str(tmp_path / "run.html"), input=DOCUMENTS)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout.splitlines()) == 100
    page = (tmp_path / "run.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "Timeline" in page
    assert [path.name for path in tmp_path.iterdir()] == ["run.html"]


@pytest.mark.parametrize("name", ["run.json", "run.html"])
def test_a_run_that_fails_has_its_report_too(command, tmp_path, name):
    done = command.map("die_always", "--report", str(tmp_path / name), input=b"1\n")
    assert done.returncode == 1
    text = (tmp_path / name).read_text()
    assert "exited with code 9" in text
    assert text.rstrip().endswith("]" if name.endswith("json") else "</html>")


@pytest.mark.parametrize("name", ["missing/run.json", "missing/run.html"])
def test_what_cannot_be_written_is_an_error_before_anything_is_done(command, tmp_path, name):
    path = tmp_path / name
    done = command.map("increment", "--report", str(path), input=DOCUMENTS)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().endswith(f"argument --report: '{path}': No such file or directory\n")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--report", "-"], "'-' is where --output writes, too"),
        (["--report", "x", "--output", "./x"], "'x' is where --output writes, too"),
        (["--report", "x", "--errors", "x"], "'x' is where --errors writes, too"),
        (["--report", "x", "--cluster", "tcp://127.0.0.1:1"], "not with --cluster"),
        (["jobs.json", "--report", "jobs.json"], "'jobs.json' is an input, too"),
    ],
)
def test_options_that_contradict_each_other(command, tmp_path, options, problem):
    (tmp_path / "jobs.json").write_text("1\n")
    done = command.run("map", "json:loads", *options, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert f"argument --report: {problem}" in done.stderr.decode()
    assert (tmp_path / "jobs.json").read_text() == "1\n"


def test_a_page_on_standard_output(command, tmp_path):
    done = command.map("increment", "--output", str(tmp_path / "out"), "--report", "-", input=DOCUMENTS)
    assert done.returncode == 0
    assert done.stdout.startswith(b"<!doctype html>")
