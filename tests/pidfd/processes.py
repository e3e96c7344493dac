"""Small processes that tests make, watch and end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


def fork(body: Callable[[], int | None]) -> int:
    """Run body in a forked child, which exits with what it returns; return the child's pid."""
    pid = os.fork()
    if not pid:
        status = 255
        try:
            status = body() or 0
        finally:
            os._exit(status)
    return pid


def sleep_long() -> None:
    time.sleep(60)


@contextmanager
def sleeper() -> Iterator[int]:
    """Provide a child that sleeps; afterwards it is gone and reaped, if nobody did that before."""
    pid = fork(sleep_long)
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        reap(pid)


def reap(pid: int) -> int | None:
    """Wait for the child and return its wait status; None if somebody else has."""
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return None


def wait_for_zombie(pid: int) -> None:
    """Return when the child has ended; it stays to be reaped."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def open_descriptors() -> set[int]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the directory's own
            os.fstat(int(name))
            found.add(int(name))
    return found
