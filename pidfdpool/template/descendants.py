"""Kills what a dead worker left behind, on kernels that cannot signal a process group through a pidfd.

When a worker dies its children become the template's, because that is a child subreaper (prctl(2)). They are then
its own to reap, so their numbers cannot be reused while it looks, and pidfds of them name the right processes.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress

from pidfdpool.pidfd import Pidfd


def kill_adopted(group: int) -> None:
    """Kill every child of this process that is in the process group, and theirs as they come to us."""
    known: set[int] = set()
    while True:
        found = [pid for pid in _children() if pid not in known and _group_of(pid) == group]
        if not found:
            return
        for pid in found:
            known.add(pid)
            with suppress(OSError), Pidfd.open(pid) as orphan:
                orphan.send_signal(signal.SIGKILL)
                # Its own children come to us when it is dead, and SIGKILL takes a moment.
                orphan.wait(timeout=1.0)


def _children() -> list[int]:
    """Return the children of this process's only thread (proc(5), Linux 3.5, CONFIG_PROC_CHILDREN)."""
    try:
        with open(f"/proc/self/task/{threading.get_native_id()}/children") as listing:
            return [int(pid) for pid in listing.read().split()]
    except OSError:
        return []


def _group_of(pid: int) -> int | None:
    with suppress(OSError):
        return os.getpgid(pid)
    return None
