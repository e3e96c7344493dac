"""Starting PostgreSQL with a database of its own, and talking to it by psql. It listens at a file only."""

from __future__ import annotations

import glob
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pidfdpool.pidfd import Pidfd
from tests.conditions import describe, is_alive, processes
from tests.hosts.far import debian
from tests.hosts.observing import Observed, end, environment, within

USER = "postgres"  # the server refuses to run as root
AS_USER: dict[str, Any] = {"user": USER, "group": USER, "extra_groups": []}
PROGRAMS = next(iter(sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)), "/usr/lib/postgresql")
FUNCTIONS = """
CREATE EXTENSION plpython3u;

-- A session has an interpreter of its own, and GD lives as long.
CREATE FUNCTION answer(path text, query text) RETURNS text LANGUAGE plpython3u AS $$
import json
from tests.hosts.programs.contender import ProcessPoolExecutor
from tests.hosts.programs.web import answer
if "pool" not in GD:
    GD["pool"] = ProcessPoolExecutor(2)
return json.dumps(answer(GD["pool"], path, query))
$$;

-- The server keeps the interpreter's lock between two calls, so that no thread of Python's runs: this waits for it.
CREATE FUNCTION begin_task(path text) RETURNS text LANGUAGE plpython3u AS $$
import json, os, time
from tests.hosts.programs.contender import ProcessPoolExecutor
from tests.hosts.programs.tasks import touch_and_spin
GD["pool"] = ProcessPoolExecutor(2)
GD["pool"].submit(touch_and_spin, path)
while not (os.path.exists(path) and os.path.getsize(path)):
    time.sleep(0.01)
with open(path) as file:
    return json.dumps([os.getpid(), int(file.read())])
$$;

CREATE FUNCTION squares(count int) RETURNS text LANGUAGE plpython3u AS $$
import json
from tests.hosts.programs.contender import ProcessPoolExecutor
def square(number):
    return number * number * factor
factor = 2
with ProcessPoolExecutor(2) as pool:
    return json.dumps(list(pool.map(square, range(count))))
$$;
"""


class Database:
    """A server that runs."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.folder = folder

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def session(self, *statements: str) -> subprocess.Popen[str]:
        """Start a session that makes these statements one after the other, and ends."""
        command = [f"{PROGRAMS}/psql", "-XAtq", "-h", str(self.folder), "-U", USER, "-v", "ON_ERROR_STOP=1"]
        for statement in statements:
            command += ["-c", statement]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*command, "postgres"], text=True, **pipes)

    def ask(self, *statements: str, seconds: float = 20.0) -> list[Any]:
        """Make these statements in one session; return what each says, which is JSON."""
        return [json.loads(line) for line in self.say(*statements, seconds=seconds).splitlines()]

    def say(self, *statements: str, seconds: float = 20.0) -> str:
        """Make these statements in one session, and return what psql prints."""
        session = self.session(*statements)
        try:
            out, err = session.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise Observed(f"a statement hangs\n{statements}\n{self.log()}") from None
        finally:
            end(session)
        if session.returncode:
            raise Observed(f"a statement fails: {_error(err)}\n{err}\n{self.log()}")
        return out

    def answers(self) -> bool:
        """Return whether the server takes statements."""
        with suppress(Observed):
            return self.say("SELECT 1", seconds=5.0) == "1\n"
        return False

    def running(self) -> list[int]:
        """Return its processes, and those of pools in it: all that work in its folder.

        What is forked from a session shows the session's title where its environment was.
        """
        return [pid for pid in processes() if is_alive(pid) and _works_in(self.folder / "data", pid)]

    def expect_nothing_left(self, seconds: float = 3.0) -> None:
        """Fail the case unless all processes have ended, or soon do."""

        def left() -> str:
            titles = [describe(pid).partition(") ")[2].strip() for pid in self.running()]
            return f"{len(titles)} processes are left: {', '.join(titles)}"

        with suppress(Observed):
            within(seconds, lambda: not self.running(), "processes are left")
        if self.running():
            raise Observed(left())


def _error(said: str) -> str:
    lines = [line for line in said.splitlines() if line.startswith(("ERROR", "server closed", "psql"))]
    return lines[0].removeprefix("ERROR:").strip() if lines else "no word why"


def _works_in(folder: Path, pid: int) -> bool:
    with suppress(OSError):
        return Path(os.readlink(f"/proc/{pid}/cwd")) == folder
    return False


@contextmanager
def cluster() -> Iterator[Path]:
    """Make the files of a database, to be copied for each server."""
    debian.needs_root()
    debian.needs(f"{PROGRAMS}/postgres", f"{PROGRAMS}/../lib/plpython3.so")
    with debian.public_folder(USER) as folder:
        data = folder / "data"
        command = [f"{PROGRAMS}/initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", str(data)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, **AS_USER)
        assert done.returncode == 0, done.stderr
        yield data


@contextmanager
def database(contender: str, home: Path, made: Path) -> Iterator[Database]:
    """Start a server on a copy of what `cluster` has made, and end all that runs in it with the block."""
    with debian.public_folder(USER) as folder:
        subprocess.run(["cp", "-a", str(made), str(folder / "data")], check=True)
        command = [f"{PROGRAMS}/postgres", "-D", str(folder / "data"), "-k", str(folder), "-h", "", "-F"]
        with open(folder / "log", "wb") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment(contender, **debian.environment(home)),
                start_new_session=True,
                text=True,
                **AS_USER,
            )
        server = Database(process, folder)
        try:
            within(20, server.answers, "the server does not start", server.log)
            server.say(FUNCTIONS)
            yield server
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGQUIT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            end(process)
            for pid in server.running():
                with suppress(ProcessLookupError), Pidfd.open(pid) as left:
                    left.send_signal(9)
                    left.wait(5)
