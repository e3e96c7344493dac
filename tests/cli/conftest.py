"""The command line as its users have it: a process of its own, real pipes, real signals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conditions import ROOT

HERE = Path(__file__).parent


class Command:
    """Runs `python -m pidfdpool` in the directory of the tests' `jobs` module."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []

    def line(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "pidfdpool", *arguments]

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        path = os.pathsep.join(filter(None, (*options.pop("path", ()), ROOT, *inherited)))
        env = {**os.environ, "PYTHONPATH": path, **options.pop("env", {})}
        return {"cwd": HERE, "env": env, **options}

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end; `input` is its standard input, empty by default."""
        options = self.options({"input": b"", **options})
        return subprocess.run(self.line(*arguments), capture_output=True, timeout=50, check=False, **options)

    def map(self, function: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        return self.run("map", f"jobs:{function}", "--workers", "2", *arguments, **options)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start it with pipes, and see to it that it does not outlive the test."""
        for stream in ("stdin", "stdout", "stderr"):
            options.setdefault(stream, subprocess.PIPE)
        process = subprocess.Popen(self.line(*arguments), **self.options(options))
        self._started.append(process)
        return process

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


@pytest.fixture
def command():
    made = Command()
    yield made
    made.close()
