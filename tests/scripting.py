"""Real scripts, run as processes of their own, that note each time their top level runs."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.conditions import ROOT

NOTES = """
import os, threading
from pidfdpool import PidfdPoolExecutor
with open("runs", "a") as file:
    file.write(f"{os.getpid()} {__name__}\\n")
"""


def start(folder: Path, text: str, *, note: bool = True, name: str = "script.py", flags=(), env=None):
    """Start a script in a folder; return its process, with pipes to its standard output and error."""
    (folder / name).write_text((NOTES if note else "") + textwrap.dedent(text))
    environment = {**os.environ, "PYTHONPATH": ROOT, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
    return subprocess.Popen(
        [sys.executable, *flags, name],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, text: str, **options) -> list[str]:
    """Run a script to its end, which has to be a good one without words on stderr; return what it printed."""
    with start(folder, text, **options) as process:
        try:
            out, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert (process.returncode, err) == (0, ""), f"{out}\n{err}"
    return out.splitlines()


def runs(folder: Path) -> list[str]:
    """Return the names under which the script has run, in the order in which it did."""
    return [line.split()[1] for line in (folder / "runs").read_text().splitlines()]


def pids(folder: Path) -> list[int]:
    """Return in which processes the script has run."""
    return [int(line.split()[0]) for line in (folder / "runs").read_text().splitlines()]
