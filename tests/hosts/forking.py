"""What the cases of application servers that fork have in common: using the pool over HTTP, and long tasks."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from pidfdpool.pidfd import Pidfd
from tests.conditions import is_alive
from tests.hosts.observing import Observed, expect, expect_gone, within
from tests.hosts.programs.web import SUM
from tests.hosts.serving import Server


def patience(contender: str) -> float:
    """Return for how many seconds to wait for an answer: the standard pool hangs in many of these cases."""
    return 5.0 if contender == "standard" else 20.0


def use(server: Server, times: int = 4, seconds: float = 20.0) -> list[dict[str, Any]]:
    """Have the application use its pool, and return what it says each time: its pid, and that of a pool worker."""
    said = []
    for _ in range(times):
        said.append(server.get("/", seconds))
        expect(said[-1]["sum"] == SUM, "a wrong result")
    return said


def crash(server: Server, code: int, seconds: float = 20.0) -> None:
    """Have a pool worker exit with this code in the middle of a task; the task's failure must be told."""
    expect(server.get(f"/crash?code={code}", seconds)["error"], "the crash is not told")


def begin_request(
    clients: ThreadPoolExecutor, server: Server, folder: Path, task_takes: float, wait: float
) -> tuple[Future[Any], int]:
    """Begin a request that waits for a task; return its answer to come, and the pid of the task's worker."""
    begun = folder / "begun"
    asked = clients.submit(server.get, f"/sleep?seconds={task_takes}&path={begun}", wait)
    return asked, _written_pid(begun)


def begin_task(server: Server, folder: Path) -> tuple[int, int]:
    """Begin a task that nobody waits for and that never ends; return the application's pid and the worker's."""
    begun = folder / "spins"
    return server.get(f"/spin?path={begun}")["pid"], _written_pid(begun)


def _written_pid(path: Path) -> int:
    def read() -> int | None:
        with suppress(OSError, ValueError):
            return int(path.read_text())
        return None

    return within(10, read, "a task does not begin")


def outcome(asked: Future[Any]) -> Any:
    """Return the answer of a request that was begun, or None if there was none."""
    try:
        return asked.result(30)
    except Observed:
        return None


def kill(pid: int) -> None:
    """Kill a process of the server's at once, and wait until it is dead."""
    with Pidfd.open(pid) as process:
        process.send_signal(9)
    within(5, lambda: not is_alive(pid), "a killed process does not die")


def expect_replaced(server: Server, number: int) -> None:
    """Fail the case unless so many application workers answer and end, and their pools with them.

    One that has had its share may answer on for a second, and perhaps it alone: so requests go on.
    """
    said: list[dict[str, Any]] = []

    def gone() -> list[dict[str, Any]]:
        return [one for one in said if not is_alive(one["pid"])]

    def are_replaced() -> bool:
        said.extend(use(server, 1))
        return len({one["pid"] for one in gone()}) >= number

    within(20, are_replaced, "application workers are not replaced")
    expect_gone([one["worker"] for one in gone()], "the pool of a replaced application worker is left", seconds=5)
