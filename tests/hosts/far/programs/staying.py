"""Having workers compute until somebody ends them."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress

from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor
from tests.hosts.programs.trapped import tell


def written_pid(path: str) -> int:
    """Return the pid that a task has written to this file, or 0."""
    with suppress(OSError, ValueError), open(path) as file:
        return int(file.read())
    return 0


def begin(pool) -> list[str]:
    """Have two tasks begin that never end; return the files that they write their pids to."""
    files = [tempfile.mktemp(prefix="begun-") for _ in range(2)]
    for path in files:
        pool.submit(tasks.touch_and_spin, path)
    return files


def told(files: list[str]) -> bool:
    """Tell this process's pid and those of the workers, if both tasks have begun; return whether they have."""
    pids = [written_pid(path) for path in files]
    if all(pids):
        tell([os.getpid(), *pids])
        for path in files:
            os.unlink(path)
    return all(pids)


def stay() -> None:
    """Compute until somebody ends this."""
    pool = ProcessPoolExecutor(2)
    files = begin(pool)
    while not told(files):
        time.sleep(0.01)
    time.sleep(600)
