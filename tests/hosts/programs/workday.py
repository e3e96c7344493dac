"""A plain host's day: tasks, a crash of a worker, more tasks, an orderly end. It prints how far it has come.

Arguments say what kind of process it is (`subreaper`), what it does about SIGCHLD (`reaps in a handler`, `ignores
SIGCHLD`), and what else happens in its day; see `main`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress

from pidfdpool.pidfd import prctl
from tests.conditions import children, is_zombie
from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor


def reap(*_: object) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def zombies() -> list[int]:
    return [pid for pid in children(os.getpid()) if is_zombie(pid)]


def no_zombies(seconds: float = 2.0) -> bool:
    """Return whether this process is, soon, the parent of no zombie."""
    deadline = time.monotonic() + seconds
    while zombies() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not zombies()


def leave_something_behind() -> None:
    """Start a process in the background whose parent ends at once, as shells and daemons do."""
    subprocess.run(["sh", "-c", "sleep 0.1 </dev/null >/dev/null 2>&1 &"], check=True)


def work() -> None:
    with ProcessPoolExecutor(2) as pool:
        assert list(pool.map(tasks.double, range(20))) == [2 * number for number in range(20)]
        print("worked", flush=True)
        with suppress(BrokenProcessPool):
            pool.submit(tasks.leave, 3).result()
            raise AssertionError("the crash is not told")
    print("no zombies" if no_zombies() else "zombies", flush=True)
    with ProcessPoolExecutor(2) as pool:
        assert pool.submit(tasks.double, 2).result() == 4


def stay(pool, folder: str) -> None:
    """Have both workers busy until somebody ends this."""
    for name in ("first", "second"):
        pool.submit(tasks.touch_and_sleep, f"{folder}/{name}", 600)
    while sum(os.path.exists(f"{folder}/{name}") for name in ("first", "second")) < 2:
        time.sleep(0.01)
    print("staying", flush=True)
    signal.pause()


def main(kind: str = "", chores: str = "work", folder: str = "") -> None:
    """Be a host of this kind and do these chores.

    work: the day as above.   orphans: tasks leave processes behind.   stay: work until somebody ends it.
    hangup: the terminal's hangup comes to the host's process group.   talk: print without end.
    """
    if kind.startswith("subreaper"):
        prctl.set_child_subreaper(True)
    if kind.endswith("reaps in a handler"):
        signal.signal(signal.SIGCHLD, reap)
    if kind.endswith("ignores SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if chores == "work":
        work()
    with ProcessPoolExecutor(2) as pool:
        if chores == "orphans":
            for _ in range(3):
                pool.submit(leave_something_behind).result()
            pool.submit(time.sleep, 0.5).result()  # by then they have ended
            print("no zombies" if no_zombies(1.0) else "zombies", flush=True)
        if chores == "hangup":
            pool.submit(tasks.pid).result()
            os.killpg(os.getpgrp(), signal.SIGHUP)
            assert list(pool.map(tasks.double, range(20))) == [2 * number for number in range(20)]
        if chores == "talk":
            while True:
                print(pool.submit(tasks.double, 21).result(), flush=True)
        if chores == "stay":
            stay(pool, folder)
    print("done", flush=True)
    print("no zombies" if no_zombies() else "zombies", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
