"""A host that may have few processes more, for a while, in the middle of its work.

Arguments: how many more, and by what they are limited: `rlimit`, or the folder of a cgroup that has `pids.max`.
Threads count, too. It prints what became of tasks under the limit, and after it was lifted.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
from concurrent.futures import wait
from contextlib import suppress
from pathlib import Path

from tests.conditions import processes
from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor


class ByCgroup:
    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        (self._folder / "cgroup.procs").write_text(str(os.getpid()))

    def allow(self, more: int) -> None:
        (self._folder / "pids.max").write_text(str(int((self._folder / "pids.current").read_text()) + more))

    def lift(self) -> None:
        (self._folder / "pids.max").write_text("max")


class ByUser:
    """RLIMIT_NPROC, which counts what runs under this process's user: this process alone, so far."""

    def allow(self, more: int) -> None:
        self._set(os.getpid(), threading.active_count() + more)

    def lift(self) -> None:
        """Lift it for every process that has inherited it: a limit is each process's own."""
        for pid in processes():
            with suppress(OSError):
                if os.stat(f"/proc/{pid}").st_uid == os.getuid():
                    self._set(pid, resource.getrlimit(resource.RLIMIT_NPROC)[1])

    def _set(self, pid: int, soft: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_NPROC, (soft, resource.getrlimit(resource.RLIMIT_NPROC)[1]))


def submit(pool, count: int):
    """Return the futures of so many tasks, and what submit raised instead."""
    futures, refused = [], []
    for _ in range(count):
        try:
            futures.append(pool.submit(tasks.pid))
        except (OSError, RuntimeError) as error:
            refused.append(error)
    return futures, refused


def main(more: str, limited_by: str) -> None:
    limit = ByUser() if limited_by == "rlimit" else ByCgroup(limited_by)
    pool = ProcessPoolExecutor(3)
    limit.allow(int(more))
    early, refused = submit(pool, 4)
    waiting = wait(early, timeout=1.0).not_done
    print(f"{len(refused)} refused, {len(waiting)} waiting", flush=True)
    limit.lift()
    # Backing off, the pool may have gone to sleep for some seconds before it tries again.
    if wait(early, timeout=10.0).not_done:
        print("tasks that were submitted under the limit hang after it is lifted", flush=True)
        os._exit(0)
    late, refused = submit(pool, 4)
    if refused:
        print(f"after the limit is lifted, submit raises {type(refused[0]).__name__}", flush=True)
    elif wait(late, timeout=10.0).not_done:
        print("tasks hang after the limit is lifted", flush=True)
        os._exit(0)
    else:
        errors = [type(future.exception()).__name__ for future in late if future.exception()]
        print(f"after the limit is lifted, tasks fail with {errors[0]}" if errors else "works again", flush=True)
    pool.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
