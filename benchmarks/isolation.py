"""A measurement in a fresh process, within a bound, of which nothing is left afterwards.

The runner is a child subreaper: whatever a measurement leaves behind becomes the runner's child. So each number
that is looked up here is that of an unreaped child, which cannot be given to anybody else, and killing children until
there are none takes the whole tree.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import tempfile
import time
from contextlib import suppress
from typing import Any

from benchmarks import processes
from pidfdpool.pidfd import Pidfd
from pidfdpool.pidfd.prctl import set_child_subreaper

_PATIENCE = 2.0  # seconds
_BUSY = 0.2  # processors wanted; less than that is waiting


def adopt_orphans() -> None:
    """Make this process the one to whom orphans are given; to be called once, before the first measurement."""
    set_child_subreaper(True)


def measured(
    scenario: str, contender: str, bound: float, quick: bool, python: str = sys.executable
) -> dict[str, Any]:
    """Run `benchmarks.measure` with these arguments and return its answer, or what became of it instead."""
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as errors, open(os.devnull, "r+b") as nothing:
        command = [python, "-m", "benchmarks.measure", scenario, contender, str(writer)]
        os.set_inheritable(writer, True)
        files = ((nothing, 0), (nothing, 1), (errors, 2))
        actions = [(os.POSIX_SPAWN_DUP2, file.fileno(), target) for file, target in files]
        try:
            pid = os.posix_spawn(
                python,
                [*command, *(["--quick"] if quick else [])],
                os.environ,
                file_actions=actions,
                setsid=True,
            )
            os.close(writer)
            line = _line(reader, pid, bound)
            if line is None:
                return _given_up(bound)
            if not line:
                return {"verdict": "fails", "reason": _last_line(errors) or "the host ended without an answer"}
            answer: dict[str, Any] = json.loads(line)
            return answer
        finally:
            end_children()
            os.close(reader)


def _line(reader: int, pid: int, bound: float) -> bytes | None:
    """Return what is written in time; nothing if the process ends without; None if neither happens.

    The end of the file says nothing: others may have inherited the other end.
    """
    poller = select.poll()
    poller.register(reader, select.POLLIN)
    with Pidfd.open(pid) as process:
        poller.register(process, select.POLLIN)
        ready = {fd for fd, _ in poller.poll(bound * 1000)}
    if not ready:
        return None
    os.set_blocking(reader, False)
    with suppress(BlockingIOError):
        return os.read(reader, 65536)
    return b""


def _given_up(bound: float) -> dict[str, Any]:
    """Tell those that hang from those that are only slow, which still compute."""
    before = _wanted()
    time.sleep(0.5)
    if (_wanted() - before) / 0.5 > _BUSY:
        return {"verdict": "slow", "reason": f"still at work after {bound:g} s"}
    return {"verdict": "hangs", "reason": f"not done after {bound:g} s, and waiting"}


def _wanted() -> float:
    return sum(map(processes.wanted_seconds, processes.descendants(os.getpid())))


def _last_line(errors: Any) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").split("\n")
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")


def end_children() -> None:
    """Kill all children, and theirs as they become ours, until there are none.

    Resource trackers end by themselves, after those that they track for, and first remove what these have left in
    /dev/shm. They are given a little time for that.
    """
    deadline = time.monotonic() + _PATIENCE
    while pids := processes.children(os.getpid()):
        for pid in pids:
            if not processes.tracks_resources(pid) or time.monotonic() > deadline:
                with Pidfd.open(pid) as process:
                    process.send_signal(signal.SIGKILL)
        time.sleep(0.002)
        with suppress(ChildProcessError):
            while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG):
                pass
