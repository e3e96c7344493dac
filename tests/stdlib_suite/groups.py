"""Runs the suite's classes, each in a process of its own; collects what came of the tests.

A process whose test hangs is ended, and so is any that dies in the middle: another one goes on behind that test.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.stdlib_suite.child import ROOT, environment

MODULES = ("test_process_pool", "test_shutdown", "test_wait", "test_as_completed", "test_init", "test_deadlock")
SECONDS = 60.0  # for one test; the slowest takes 5 s on an idle machine
_AT_A_TIME = 4  # the classes sleep and wait far more than they compute


@dataclass(frozen=True)
class Outcome:
    """What became of one test: passed, skipped, failed, hung, or died together with its process."""

    word: str
    detail: str = ""


@functools.cache
def list_all(suite: Path, modules: tuple[str, ...] = MODULES) -> list[tuple[str, str, str]]:
    """Return (module, class, test) for each of the suite's tests that is about process pools."""
    found = []
    for module in modules:
        lines, ended = _run_child(suite, module, "*", "ours")
        if ended:
            raise RuntimeError(f"{module} of {suite} cannot be listed: {ended}")
        found += [(module, line["class"], test) for line in lines for test in line["tests"]]
    return found


@functools.cache
def run_all(
    suite: Path, against: str, modules: tuple[str, ...] = MODULES
) -> dict[tuple[str, str], dict[str, Outcome]]:
    """Return, by module and class, the outcome of each test. A second call only remembers.

    The outcome of "", where there is one, is that of a process that ended badly when no test was under way.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for module, group, test in list_all(suite, modules):
        groups.setdefault((module, group), []).append(test)
    with ThreadPoolExecutor(_AT_A_TIME) as threads:
        outcomes = threads.map(lambda group: _run_group(suite, *group, against, groups[group]), groups)
        return dict(zip(groups, outcomes, strict=True))


def _run_group(suite: Path, module: str, group: str, against: str, tests: Sequence[str]) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    while tests:
        lines, ended = _run_child(suite, module, group, against, tests)
        under_way = None
        for line in lines:
            if line["outcome"] == "begun":
                under_way = line["test"]
            elif line["outcome"] == "ended":
                under_way = None
            elif outcomes.get(line["test"], Outcome("passed")).word != "failed":  # one of its parts may have
                outcomes[line["test"]] = Outcome(line["outcome"], line["detail"])
        if under_way is not None and not ended:
            ended = "exited with 0, in the middle of it"
        if ended:
            outcomes[under_way or ""] = Outcome("hung" if ended.startswith("hung") else "died", ended)
        if under_way is None:
            break
        tests = tests[tests.index(under_way) + 1 :]
    return outcomes


def _run_child(
    suite: Path, module: str, group: str, against: str, tests: Sequence[str] = ()
) -> tuple[list[dict[str, str]], str]:
    """Return the child's report and how it ended; an empty text if all is well."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report")
        report.touch()
        command = [sys.executable, "-m", "tests.stdlib_suite.child", module, group, against, report, *tests]
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
            try:
                code = _wait(child, report)
            finally:
                if child.returncode is None:
                    _end(child)
            ended = f"hung for {SECONDS:.0f} s" if code is None else f"exited with {code}" if code else ""
            if ended:
                output.seek(0)
                ended += "\n" + output.read().decode(errors="replace")[-4000:]
        return [json.loads(line) for line in report.read_text().splitlines()], ended


def _wait(child: subprocess.Popen[bytes], report: Path) -> int | None:
    """Return the child's exit code, or None if nothing was added to its report for too long."""
    seen, since = 0, time.monotonic()
    while time.monotonic() - since < SECONDS:
        with suppress(subprocess.TimeoutExpired):
            return child.wait(0.5)
        size = report.stat().st_size
        if size != seen:
            seen, since = size, time.monotonic()
    return None


def _end(child: subprocess.Popen[bytes]) -> None:
    """Have the child write its stacks, if it still can, and kill it with all that it started."""
    child.send_signal(signal.SIGUSR1)
    time.sleep(1.0)  # not reaped before the group is killed: until then the number is that of the group
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
