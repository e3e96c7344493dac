"""A host that does what it is told, line by line: `[name, argument, ...]` on standard input, the answer as JSON.

The first argument says what it does about SIGCHLD.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from concurrent.futures.process import BrokenProcessPool

from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor
from tests.hosts.programs.obeying import obey


class Host:
    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(2)
        self._futures: list = []
        self._deaths: list = []

    def workers(self) -> list[int]:
        """Return the numbers of both workers, once there are two."""
        while True:
            futures = [self._pool.submit(tasks.sleep, 0.2) for _ in range(2)]
            found = {future.result() for future in futures}
            if len(found) == 2:
                return sorted(found)

    def work(self) -> bool:
        """Return whether tasks are done; with a new pool if this one is broken."""
        try:
            return list(self._pool.map(tasks.double, range(20))) == [2 * number for number in range(20)]
        except BrokenProcessPool:
            self._pool = ProcessPoolExecutor(2)
            return list(self._pool.map(tasks.double, range(20))) == [2 * number for number in range(20)]

    def end(self) -> None:
        self._pool.shutdown()

    # ---- what only our pool can do -------------------------------------------------------------------------

    def watch(self) -> None:
        self._pool.subscribe(self._deaths.append)

    def deaths(self) -> list:
        """Return which workers have died so far: their numbers, and why."""
        return [(death.pid, str(death.exit_status)) for death in self._deaths]

    def occupy(self) -> list[int]:
        """Give each worker a task without an end; return their numbers when both tasks run."""
        with tempfile.TemporaryDirectory() as folder:
            paths = [f"{folder}/{number}" for number in range(2)]
            self._futures = [self._pool.submit(tasks.touch_and_sleep, path, 600) for path in paths]
            while not all(os.path.exists(path) for path in paths):
                time.sleep(0.005)
        return [future.worker.pid for future in self._futures]

    def outcomes(self) -> list:
        """Return what became of those tasks, and in which worker: its number and its generation."""
        return [
            (type(future.exception(20)).__name__, future.worker.pid, future.worker.generation)
            for future in self._futures
        ]

    def time_out(self) -> str:
        future = self._pool.options(timeout=0.2, grace=0.0).submit(time.sleep, 600)
        return type(future.exception(20)).__name__

    def kill_tasks(self) -> list[bool]:
        return [future.kill() for future in self._futures]

    def kill_workers(self) -> None:
        self._pool.kill_workers()
        self._pool.shutdown()

    def terminate_workers(self) -> None:
        self._pool.terminate_workers()
        self._pool.shutdown()


if __name__ == "__main__":
    obey(Host, *sys.argv[1:])
