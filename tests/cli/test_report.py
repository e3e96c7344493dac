"""`report`: the command, its messages and exit codes, and what the page holds as text."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html import unescape

import pytest

from pidfdpool.cli.outputs import WriteError
from pidfdpool.cli.report import TraceError, write_page
from pidfdpool.cli.usage import UsageError
from tests.cli.traces import TraceFile, simulated

EARLY = "The trace ends early: its host was killed or is still running."


@pytest.fixture
def path(tmp_path):
    return simulated(300).write(tmp_path / "run.json")


def test_the_page_is_next_to_the_trace(command, path):
    done = command.run("report", str(path))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    page = path.with_suffix(".html").read_text()
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")


def test_the_page_on_standard_output_and_in_a_file_are_the_same(command, path, tmp_path):
    printed = command.run("report", str(path), "-o", "-")
    assert (printed.returncode, printed.stderr) == (0, b"")
    assert command.run("report", str(path), "--output", str(tmp_path / "page")).returncode == 0
    assert (tmp_path / "page").read_bytes() == printed.stdout
    assert not path.with_suffix(".html").exists()


def test_a_trace_that_ends_early_has_a_page_that_says_so(command, path):
    path.write_bytes(path.read_bytes()[:-200])
    done = command.run("report", str(path), "-o", "-")
    assert (done.returncode, done.stderr.decode()) == (0, f"{path}: {EARLY}\n")
    assert EARLY in done.stdout.decode()


def test_what_had_no_room_is_said(tmp_path):
    trace = TraceFile()
    trace.mark("dropped", 5, count=1234)
    notices = write_page(str(trace.write(tmp_path / "run.json")), str(tmp_path / "page.html"))
    assert notices == [
        "1,234 events had no room in the trace, so the numbers lack them.",
        "No task has ended in this trace.",
    ]
    assert all(notice in (tmp_path / "page.html").read_text() for notice in notices)


@pytest.mark.parametrize("way", ["same", "link", "default"])
def test_the_trace_is_never_overwritten(command, path, way):
    before = path.read_bytes()
    if way == "default":
        path = path.rename(path.with_suffix(".html"))
    target = path
    if way == "link":
        target = path.with_name("link.html")
        target.symlink_to(path)
    given = [] if way == "default" else ["-o", str(target)]
    done = command.run("report", str(path), *given)
    assert done.returncode == 2
    assert f"{str(target)!r} is the trace itself: it would be overwritten" in done.stderr.decode()
    assert path.read_bytes() == before


def test_foreign_and_broken_files_leave_the_page_that_is_there(command, path, tmp_path):
    page = tmp_path / "run.html"
    page.write_text("before")
    lines = path.read_text().split("\n")
    for text, message in (
        ('{"traceEvents": []}', "is not a trace of pidfdpool: its first line is not '['"),
        ("\n".join([*lines[:6], "?", *lines[6:]]), "line 7: it is not a trace event"),
        ("", "is empty"),
    ):
        path.write_text(text)
        done = command.run("report", str(path))
        assert (done.returncode, done.stdout) == (1, b"")
        assert message in done.stderr.decode()
        assert len(done.stderr.splitlines()) == 1
        assert page.read_text() == "before"


def test_a_trace_that_is_not_there(command, tmp_path):
    done = command.run("report", str(tmp_path / "none.json"))
    assert (done.returncode, done.stderr.decode()) == (
        1,
        f"cannot read '{tmp_path}/none.json': No such file or directory\n",
    )


def test_a_page_that_cannot_be_written(command, path, tmp_path):
    done = command.run("report", str(path), "-o", "/dev/full")
    assert (done.returncode, done.stderr.decode()) == (1, "cannot write /dev/full: No space left on device\n")
    for target, message in (
        (str(tmp_path), "is a directory"),
        ("", "the name is empty"),
        ("/none/page", "No such file"),
    ):
        done = command.run("report", str(path), "-o", target)
        assert done.returncode == 2
        assert message in done.stderr.decode()


def test_as_a_function(path, tmp_path):
    page = str(tmp_path / "page.html")
    assert write_page(str(path), page) == []
    assert os.path.getsize(page) > 10_000
    with pytest.raises(UsageError, match="is the trace itself"):
        write_page(str(path), str(path))
    with pytest.raises(WriteError, match="No space left"):
        write_page(str(path), "/dev/full")
    path.write_text("[]")
    with pytest.raises(TraceError, match="not a trace of pidfdpool"):
        write_page(str(path), page)


def test_the_page_asks_for_nothing_and_every_text_is_escaped(path, tmp_path):
    evil = "a:</script><img src=https://example.org/ onerror=alert(1)>&\ud800\u202e"
    trace = TraceFile(python=evil, version=evil, start_method=evil)
    trace.start(0, 0, 10)
    trace.name(1, evil)
    trace.task(0, 10, 100, evil, outcome="crashed", error=evil)
    trace.death(0, 110, evil, reason=evil, signal=evil, tasks=[1])
    trace.mark("kill", 105, 1, evil, why=evil)
    write_page(str(trace.write(tmp_path / "evil.json")), str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert "<img" not in page
    assert page.count("</script>") == 3
    assert "a:</script><img" in unescape(page)
    assert not re.findall(r'(?:src|href)="(?!data:,")', page)
    assert "default-src 'none'" in page
    assert not re.search(r"\b(?:fetch|XMLHttpRequest|WebSocket|sendBeacon|import)\s*\(|@import|url\(", page)


@pytest.mark.many_times
def test_a_million_events_need_little_memory(tmp_path):
    """Of 50,000 tasks there are a quarter of a million events."""
    path = simulated(50_000, tiny=True, workers=8).write(tmp_path / "run.json")
    assert path.read_bytes().count(b"\n") > 250_000
    code = f"""
from pidfdpool.cli import main
code = main(["report", {str(path)!r}])
print(code, *(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=100, check=True)
    code, kilobytes = map(int, done.stdout.split())
    assert code == 0
    assert kilobytes * 1024 < 100_000_000
    assert path.with_suffix(".html").stat().st_size < 3_000_000


def test_a_pool_of_a_thousand_workers(tmp_path):
    trace = TraceFile(max_workers=1000)
    for slot in range(1000):
        trace.start(slot, 0, 100)
        trace.task(slot, 100, 50)
    write_page(str(trace.write(tmp_path / "run.json")), str(tmp_path / "page.html"))
    assert "936 more workers are in the first row only." in (tmp_path / "page.html").read_text()


def test_of_too_many_marks_those_that_tell_of_a_loss_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("pidfdpool.cli.report.encoding.MOST_MARKS", 30)
    trace = TraceFile()
    for each in range(100):
        trace.start(0, each * 100, 10)
        trace.death(0, each * 100 + 50, f"wanted {each}", expected=True, exit_code=0)
        if each % 5 == 0:
            trace.mark("kill", each * 100 + 40, 1, f"kill {each}")
    write_page(trace.write(tmp_path / "run.json"), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    described = json.loads(re.search(r'id="described">(.*?)</script>', page)[1])
    assert described["allMarks"] == 120
    kills = [mark[3] for mark in described["marks"] if mark[2] == "kill"]
    assert kills == [f"kill {each}" for each in range(0, 100, 5)]
    wanted = [mark for mark in described["marks"] if mark[2] == "death"]
    assert [mark[1] for mark in wanted] == [each * 1000 + 50 for each in range(10)]
