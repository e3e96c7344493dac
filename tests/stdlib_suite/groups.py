"""Runs the suite's classes, each in a process of its own that is ended if it hangs; collects what came of them."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.stdlib_suite.child import ROOT, environment

MODULES = ("test_process_pool", "test_shutdown", "test_wait", "test_as_completed", "test_init", "test_deadlock")
SECONDS = 120.0  # for one class; the slowest takes 12 s on an idle machine
_AT_A_TIME = 4  # the classes sleep and wait far more than they compute


@dataclass(frozen=True)
class Outcome:
    """What became of one test: passed, skipped, failed, hung, or died together with its process."""

    word: str
    detail: str = ""


@functools.cache
def list_all(suite: Path) -> list[tuple[str, str, str]]:
    """Return (module, class, test) for each of the suite's tests that is about process pools."""
    found = []
    for module in MODULES:
        lines, ended = _run_child(suite, module, "*", "ours")
        if ended:
            raise RuntimeError(f"{module} of {suite} cannot be listed: {ended}")
        found += [(module, line["class"], test) for line in lines for test in line["tests"]]
    return found


@functools.cache
def run_all(suite: Path, against: str) -> dict[tuple[str, str], dict[str, Outcome]]:
    """Return, by module and class, the outcome of each test that began. A second call only remembers."""
    groups = sorted({(module, group) for module, group, _ in list_all(suite)})
    with ThreadPoolExecutor(_AT_A_TIME) as threads:
        return dict(zip(groups, threads.map(lambda group: _run_group(suite, *group, against), groups), strict=True))


def _run_group(suite: Path, module: str, group: str, against: str) -> dict[str, Outcome]:
    lines, ended = _run_child(suite, module, group, against)
    outcomes = {}
    for line in lines:
        outcomes[line["test"]] = Outcome(line["outcome"], line["detail"])
    for test, outcome in outcomes.items():
        if outcome.word == "begun":
            outcomes[test] = Outcome("hung" if ended.startswith("hung") else "died", ended)
    if ended:
        outcomes[""] = Outcome("died", ended)
    return outcomes


def _run_child(suite: Path, module: str, group: str, against: str) -> tuple[list[dict], str]:
    """Return the child's report and how it ended; an empty text if all is well."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report")
        report.touch()
        command = [sys.executable, "-m", "tests.stdlib_suite.child", module, group, against, report]
        # Output goes to a file: a pipe would stay open, and be waited for, as long as anything that a test left.
        with open(Path(folder, "output"), "w+b") as output:
            child = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment(str(suite)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            ended = ""
            try:
                if child.wait(SECONDS):
                    ended = f"exited with {child.returncode}"
            except subprocess.TimeoutExpired:
                ended = f"hung for {SECONDS:.0f} s"
            finally:
                if child.returncode is None:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.wait()
            if ended:
                output.seek(0)
                ended += "\n" + output.read().decode(errors="replace")[-4000:]
        return [json.loads(line) for line in report.read_text().splitlines()], ended
