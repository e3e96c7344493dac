"""Watching how a host ends: its status, what it said, and what it left behind.

Its output goes into files, not pipes: what a host leaves behind may hold a pipe open, and reading that to its end
would look as if the host itself had not ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.conditions import marked
from tests.hosts import observing
from tests.hosts.observing import Observed, expect, expect_nothing_left


@dataclass
class Host:
    """A host that runs, or has ended."""

    process: subprocess.Popen[str]
    folder: os.PathLike[str]
    env: dict[str, str]

    @property
    def out(self) -> str:
        """What it has written to its standard output so far."""
        return self._read("out")

    @property
    def err(self) -> str:
        """What it has written to its standard error so far."""
        return self._read("err")

    def _read(self, name: str) -> str:
        with open(os.path.join(self.folder, name), errors="replace") as file:
            return file.read()

    def report(self) -> Any:
        """Return the JSON that it has printed as its only line."""
        lines = self.out.splitlines()
        expect(len(lines) == 1, "the host does not say what it should", (self.out, self.err))
        return json.loads(lines[0])

    def wait(self, seconds: float = 25.0, hangs: str = "the host hangs") -> int:
        """Return its exit status; fail the case if it does not end in time."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Observed(f"{hangs}\nnot over within {seconds:g} s\n{self.out}\n{self.err}") from None

    def expect_end(
        self,
        status: int = 0,
        *,
        seconds: float = 25.0,
        hangs: str = "the host hangs",
        quiet: bool = True,
    ) -> None:
        """Fail the case unless it ends with this status, says nothing on standard error and leaves nothing."""
        code = self.wait(seconds, hangs)
        last = (self.err.strip().splitlines() or ["no word why"])[-1]
        expect(code == status, f"the host ends with {_status(code)}, not {_status(status)}: {last}", self.err)
        if quiet:
            expect(not self.err, f"noise on standard error: {last}", self.err)
        expect_nothing_left(self.env, 5.0)


def _status(code: int) -> str:
    return f"exit status {code}" if code >= 0 else signal.Signals(-code).name


@contextmanager
def started(
    contender: str, folder: os.PathLike[str], code: str, *arguments: str, flags: Sequence[str] = (), **options: Any
) -> Iterator[Host]:
    """Start a script in a session of its own, and end it with the block.

    Python 3.12 and newer warn of each fork beside other threads, whoever forks and whichever pool it has. These
    hosts fork on purpose, so that is no noise to look for.
    """
    env = {**marked("host"), "PYTHONWARNINGS": "ignore:This process:DeprecationWarning"}
    with (
        open(os.path.join(folder, "out"), "w") as out,
        open(os.path.join(folder, "err"), "w") as err,
        observing.host(
            contender,
            observing.python(code, *arguments, flags=flags),
            env=env,
            stdout=out,
            stderr=err,
            **options,
        ) as process,
    ):
        yield Host(process, folder, env)
