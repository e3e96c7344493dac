"""A notebook as its user sees it: cells, what they show, and the buttons. See programs/notebook.py."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.hosts.interactive import last_error
from tests.hosts.observing import Observed, expect, host


class Notebook:
    """What a test does with a notebook."""

    def __init__(self, front_end: subprocess.Popen[str], log: str) -> None:
        self._front_end = front_end
        self._log = log

    def log(self) -> str:
        """Return what the kernel and its front end have said on their standard output and error."""
        with open(self._log) as file:
            return file.read()

    def ask(self, name: str, *arguments: Any, seconds: float = 60.0) -> Any:
        """Have the front end do something, and return its answer."""
        front_end = self._front_end
        front_end.stdin.write(json.dumps([name, *arguments]) + "\n")
        front_end.stdin.flush()
        if not select.select([front_end.stdout], [], [], seconds)[0]:
            raise Observed(f"the front end hangs\n{name} {arguments}")
        line = front_end.stdout.readline()
        if not line:
            raise Observed(f"the front end fails\n{self.log()}")
        return json.loads(line)

    def run(self, cell: str, *, seconds: float = 20.0) -> dict[str, Any]:
        """Run a cell that must come to its end without an error, and return what it shows."""
        return self.ended_well(self.ask("execute", cell, seconds))

    @staticmethod
    def ended_well(shown: dict[str, Any]) -> dict[str, Any]:
        expect(shown["ended"], "a cell hangs", shown)
        said = f"{shown['error']}\n"
        expect(not shown["error"], last_error(said) or said, shown)
        return shown


@contextmanager
def notebook(contender: str, folder: os.PathLike[str], env: dict[str, str]) -> Iterator[Notebook]:
    """Open a notebook with a kernel of its own, whose settings and files are in the folder."""
    pytest.importorskip("ipykernel")
    pytest.importorskip("jupyter_client")
    places = {
        name: os.path.join(folder, name) for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")
    }
    command = [sys.executable, "-m", "tests.hosts.programs.notebook"]
    log = os.path.join(folder, "notebook.log")
    with open(log, "w") as said:
        options = {"stdin": subprocess.PIPE, "stderr": said, "cwd": folder}
        with host(contender, command, env={**env, **places}, **options) as front_end:
            yield Notebook(front_end, log)
            # Whatever was being tested, its kernel must not outlive the case: the front end ends it.
            front_end.stdin.close()
            front_end.wait(30)
