"""Running a script inside a host, and killing the host amid its work.

A host is told by a function from the script's file to the command that runs it.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tests.conditions import marked
from tests.hosts import observing
from tests.hosts.far import debian
from tests.hosts.forking import kill
from tests.hosts.observing import expect_nothing_left, within
from tests.hosts.trapping import PRELUDE, watch

SECONDS = 45.0  # after which a host hangs
Command = Callable[[Path], Sequence[str]]

# What a script does: it works with pools, some workers of which die, and gives them what it has defined itself.
WORK = """
factor = 3

def scaled(number):
    return number * factor

with ProcessPoolExecutor(2) as pool:
    found = [result(pool.submit(scaled, number)) for number in range(4)]
expect(found == [0, 3, 6, 9], "a wrong result", found)
use()
tell("worked")
"""

# Its workers compute until somebody ends it.
STAY = """
from tests.hosts.far.programs.staying import stay
stay()
"""


@contextmanager
def script(code: str) -> Iterator[Path]:
    """Write a script to a file that every user can read."""
    with debian.public_folder() as folder:
        (folder / "script.py").write_text(PRELUDE + code)
        yield folder / "script.py"


def work(contender: str, home: Path, command: Command, code: str = WORK, **options: Any) -> list[Any]:
    """Run a script in the host to its end; return what it told. Nothing of it may be left."""
    env = {**debian.environment(home), **marked("far"), **options.pop("env", {})}
    with script(code) as file:
        told = watch(contender, command(file), env=env, cwd=home, seconds=SECONDS, **options)
    expect_nothing_left(env)
    return told


class Staying:
    """A host that runs a script whose workers compute for ever."""

    def __init__(self, process: subprocess.Popen[str], env: dict[str, str], told: IO[str], said: IO[str]) -> None:
        self.process = process
        self.env = env
        self._told = told
        self._said = said

    def next_told(self) -> list[int]:
        """Wait for the next script to get to work; return its pid and those of its workers."""
        return json.loads(within(20, self._told.readline, "the host does not get to work", self.said))

    def said(self) -> str:
        """Return all that the host has written to its standard output and error."""
        self._said.seek(0)
        return self._said.read()


@contextmanager
def staying(contender: str, home: Path, command: Command, code: str = STAY, **env: str) -> Iterator[Staying]:
    """Run a host whose script waits for workers that compute for ever."""
    with (
        script(code) as file,
        tempfile.NamedTemporaryFile("r+", prefix="told-") as told,
        tempfile.TemporaryFile("w+", errors="replace") as said,
    ):
        os.chmod(told.name, 0o666)
        whole = {**debian.environment(home), **marked("far"), "PIDFDPOOL_TOLD": told.name, **env}
        with observing.host(contender, command(file), env=whole, cwd=home, stdout=said, stderr=said) as process:
            yield Staying(process, whole, told, said)


def be_killed(contender: str, home: Path, command: Command, **env: str) -> None:
    """Kill the host while workers compute; fail the case if anything of it lives on."""
    with staying(contender, home, command, **env) as host:
        host.next_told()
        kill(host.process.pid)
        expect_nothing_left(host.env)
