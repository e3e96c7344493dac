"""Running a script inside a host, and killing the host amid its work.

A host is told by a function from the script's file to the command that runs it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conditions import marked
from tests.hosts import observing
from tests.hosts.far import debian
from tests.hosts.forking import kill
from tests.hosts.observing import expect_nothing_left, within
from tests.hosts.trapping import PRELUDE, watch

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

# It has both workers compute for ever, and waits for them.
STAY = """
import tempfile
pool = ProcessPoolExecutor(2)
begun = [tempfile.mktemp() for _ in range(2)]
futures = [pool.submit(tasks.touch_and_spin, path) for path in begun]
while not all(os.path.exists(path) for path in begun):
    time.sleep(0.01)
for path in begun:
    os.unlink(path)
tell(os.getpid())
futures[0].result()
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
        told = watch(contender, command(file), env=env, cwd=home, **options)
    expect_nothing_left(env)
    return told


@contextmanager
def staying(contender: str, home: Path, command: Command, **env: str) -> Iterator[tuple[int, int, dict[str, str]]]:
    """Run a host whose script waits for workers that compute for ever.

    Yield the pid of the process that was started, the pid that the script has (in its own pid namespace, if it is in
    one), and the environment that all of it can be known by.
    """
    with (
        script(STAY) as file,
        tempfile.NamedTemporaryFile("r+", prefix="told-") as told,
        tempfile.TemporaryFile("w+") as out,
    ):
        os.chmod(told.name, 0o666)
        mark = {**debian.environment(home), **marked("far"), "PIDFDPOOL_TOLD": told.name, **env}
        with observing.host(contender, command(file), env=mark, cwd=home, stdout=out, stderr=out) as process:
            said = within(20, told.read, "the host does not get to work", lambda: _all(out))
            yield process.pid, json.loads(said.splitlines()[0]), mark


def _all(file: Any) -> str:
    file.seek(0)
    return file.read()


def be_killed(contender: str, home: Path, command: Command, **env: str) -> None:
    """Kill the host while workers compute; fail the case if anything of it lives on."""
    with staying(contender, home, command, **env) as (started, _, mark):
        kill(started)
        expect_nothing_left(mark)
