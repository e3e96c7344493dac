"""Running a script with a pool, and saying what was seen of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from pidfdpool.pidfd import Pidfd
from tests.conditions import MARK, ROOT, eventually, marked, processes_of_this_run
from tests.scripts.contenders import Contender
from tests.scripts.kind import Kind
from tests.scripts.ways import WAYS

WORKS = "works"
SECONDS = 30.0
_ERROR = re.compile(r"(?:\w+\.)*[A-Z]\w+(?:: .*)?")  # the last line of a traceback


class Seen(AssertionError):
    """What happened instead of what should have: a line for the table, then all that was written."""


def run(kind: Kind, contender: Contender, folder: Path) -> None:
    """Run the script of a kind with a pool; raise Seen unless it works. Nothing is left running either way."""
    place = folder / "place"
    place.mkdir()
    for name, text in kind.files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(contender.script(text))
    start = WAYS[kind.way](place, contender.script(kind.text))
    mark = marked("script")
    environment = {**os.environ, "PYTHONPATH": ROOT, **mark, **kind.env}
    command = [sys.executable, *kind.flags, *start.arguments, *kind.arguments]
    out, err, given = (folder / name for name in ("out", "err", "in"))
    given.write_text(start.stdin)
    try:
        with out.open("w") as stdout, err.open("w") as stderr, given.open() as stdin:
            code = _status(command, environment, start.cwd, stdin=stdin, stdout=stdout, stderr=stderr)
        seen = _judge(kind, code, out.read_text(), err.read_text())
    finally:
        left = _end(mark[MARK])
    if seen is None and left:
        seen = "leaves processes"
    if seen is not None:
        raise Seen(f"{seen}\n{kind.text}\n--- out\n{out.read_text()}\n--- err\n{err.read_text()}")


def _status(command: list[str], environment: dict[str, str], cwd: Path, **streams: object) -> int | None:
    """Run a command in a session of its own; return its exit code, None: it does not end."""
    process = subprocess.Popen(command, env=environment, cwd=cwd, start_new_session=True, **streams)
    try:
        return process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        return None
    finally:
        process.kill()
        process.wait()


def _judge(kind: Kind, code: int | None, out: str, err: str) -> str | None:
    """Return what was seen of a script that does not work, in a few words."""
    lines = err.splitlines()
    noise = [line for line in lines if line.strip() and not (kind.says and re.fullmatch(kind.says, line))]
    error = next((line for line in reversed(noise) if _ERROR.fullmatch(line)), None)
    if code is None:
        return f"hangs: {error}" if error else "hangs"
    if code:
        return error or (signal.Signals(-code).name if code < 0 else f"exit status {code}")
    if out.strip().splitlines() != kind.lines:
        printed = out.strip().splitlines()
        wrong = next((line for line, right in zip(printed, kind.lines, strict=False) if line != right), "")
        return error or (f"prints {wrong or printed[-1]}" if printed else "prints nothing")
    if noise:
        return f"prints, but says: {error or noise[-1].strip()}"
    return None


def _end(mark: str) -> bool:
    """Wait for all that the script has started; kill what is there after a while. Return whether there was any."""
    with suppress(AssertionError):
        eventually(lambda: not processes_of_this_run(mark), "nothing is left", seconds=3.0)
        return False
    for pid in processes_of_this_run(mark):
        with suppress(ProcessLookupError), Pidfd.open(pid) as process:
            process.send_signal(signal.SIGKILL)
            process.wait(5)
    return True
