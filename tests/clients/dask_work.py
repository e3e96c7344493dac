"""What the tests of the door for Dask compute on a cluster."""

from __future__ import annotations

import os
import time

import pidfdpool
from tests.conditions import processes_of_this_run


class Own(Exception):
    pass


def square(value):
    return value * value


def die_for_each_50th(value):
    if value % 50 == 7:
        os.kill(os.getpid(), 9)
    return value


def fail_for_three(value):
    if value == 3:
        raise Own(value)
    return value


def note_and_sleep(folder, number, seconds=0.02):
    """Leave a file for each time that this call runs."""
    path = os.path.join(folder, f"{number}-{time.monotonic_ns()}-{os.getpid()}")
    os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    time.sleep(seconds)
    return number


def attempt_that_succeeds(third):
    task = pidfdpool.current_task()
    if task.attempt < third:
        raise Own(task.attempt)
    return task.attempt


def pids():
    return os.getpid(), os.getppid()


class Unloadable:
    def __reduce__(self):
        return refuse, ()


def refuse():
    os.kill(os.getpid(), 9)


def unpicklable(_):
    return (lock for lock in ())


# ---- for the tests themselves ----------------------------------------------------------------------------------


def nodes(client) -> dict[str, int]:
    """Return the process of each dask worker."""
    return client.run(os.getpid)


def pool_processes() -> set[int]:
    """Return the processes of pools that this run has anywhere: in the nodes, too."""
    found = set()
    for pid in processes_of_this_run():
        try:
            with open(f"/proc/{pid}/comm") as file:
                if file.read().startswith("pidfd-"):
                    found.add(pid)
        except OSError:
            continue
    return found
