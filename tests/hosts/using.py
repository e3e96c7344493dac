"""What users do with a running server: many requests at once, tasks that take long, Ctrl-C, an edited file."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.hosts.observing import Observed, expect, within
from tests.hosts.serving import Server


def in_parallel(server: Server, paths: Sequence[str]) -> list[Any]:
    """Make these requests at the same time and return the answers."""
    with ThreadPoolExecutor(len(paths)) as threads:
        return list(threads.map(server.get, paths))


def begin(server: Server, request: str, file: Path) -> int:
    """Make a request that has a pool worker begin a task, and wait for that; return the worker's pid."""
    server.get(f"{request}{'&' if '?' in request else '?'}path={file}")
    return int(within(10, lambda: file.exists() and file.read_text(), "the task does not begin", server.log))


def holds(check: Callable[[], object]) -> Callable[[], bool]:
    """Return a condition for `within`: that the check, which may raise Observed, does not, and returns no False."""

    def condition() -> bool:
        try:
            return check() is not False
        except Observed:
            return False

    return condition


def press_ctrl_c(server: Server) -> None:
    """Press Ctrl-C in the server's terminal; fail the case unless the server stops, and nobody complains."""
    os.killpg(server.pid, signal.SIGINT)
    server.wait(5, "the server does not stop")
    expect("Traceback" not in server.log(), "tracebacks in the terminal", server.log())


def press_ctrl_c_again_and_again(server: Server) -> None:
    """Press Ctrl-C once a second until the server stops; fail the case if it does not, or if anybody complains."""

    def stops() -> None:
        os.killpg(server.pid, signal.SIGINT)
        within(1, lambda: server.process.poll() is not None, "the server goes on")

    within(8, holds(stops), "the server does not stop", server.log)
    expect("Traceback" not in server.log(), "tracebacks in the terminal", server.log())


def change(server: Server, file: Path) -> None:
    """Change a file of the application's, and wait until the server's reloader says so and another process answers.

    A reloader knows only what has changed since it first looked, which may be after the first answer. So the file is
    changed again if nothing is said: never after it was, because that would be a second reload.
    """
    before = server.get("/ready")["pid"]
    said = len(server.log())

    def noticed() -> bool:
        file.write_text(file.read_text() + "\nchanged = True\n")
        within(3, lambda: re.search("changed, reloading|etected change", server.log()[said:]), "no word of it")
        return True

    within(20, holds(noticed), "the server does not notice the change", server.log)
    within(15, holds(lambda: server.get("/ready", 2)["pid"] != before), "the server does not come back", server.log)
