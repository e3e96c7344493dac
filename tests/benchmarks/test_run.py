"""The whole way, with the cheapest scenario."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.machine import compile_sources
from tests.conditions import ROOT


def runner(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ours_and_the_standard_pool_are_measured_and_written(tmp_path):
    file, page = tmp_path / "run.json", tmp_path / "page.md"
    chosen = ("--contender", "ours", "--contender", "standard", "--scenario", "first-result")
    printed = runner("--quick", "--no-limits", "--rounds", 1, *chosen, "--json", file)
    assert "| pidfdpool " in printed
    run = json.loads(file.read_text())
    assert set(run["results"]) == {"first-result"}
    for name in ("ours", "standard"):
        (answer,) = run["results"]["first-result"][name]
        assert answer["values"]["first"] > 0
    runner("--from", file, "--page", page)
    text = page.read_text()
    assert text.startswith("# Performance\n")
    assert "## Start\n" in text
    assert "| ProcessPoolExecutor (fork) |" in text
    runner("--from", file, "--page", tmp_path / "other.md", "--of", page)
    other = (tmp_path / "other.md").read_text()
    assert other.startswith(f"# Performance on Python {sys.version_info[0]}.{sys.version_info[1]}\n")
    assert "[page.md](page.md) says how to read the figures." in other
    assert text[text.index("## Start\n") :].strip() in other


def test_scenarios_and_contenders_are_listed():
    printed = runner("--list")
    assert "first-result" in printed
    assert "mp-pool: multiprocessing.Pool (fork)" in printed


def test_sources_are_compiled_whatever_the_environment_says(tmp_path, monkeypatch):
    """Guards: each process compiled all of ours anew, and the pool's start looked three times as long as it is."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text("value = 1\n")
    compile_sources(tmp_path / "package")
    assert [path.suffix for path in (tmp_path / "package" / "__pycache__").iterdir()] == [".pyc"]
