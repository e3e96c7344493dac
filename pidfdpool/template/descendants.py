"""Kills what dead workers left behind.

When a process dies its children go to the nearest subreaper above, and that is the template (prctl(2)). They are then
its own to reap, so no number can be reused while it looks: pidfds of them name the right processes, and where there
are no pidfds even the numbers do.

Two ways of telling whose they were: by their mark (`worker.mark`), which they cannot leave; and, on kernels that
cannot signal a process group through a pidfd, by their group. What changed its user, or reset its limits, or lives
below an init of its own (a pid namespace), is out of reach of the first.
"""

from __future__ import annotations

import _thread
import os
from contextlib import suppress

from pidfdpool.pidfd import Pidfd
from pidfdpool.process.native import signal
from pidfdpool.worker import mark

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from pidfdpool.pidfd import ProcessHandle


def kill_strays(workers: Collection[int], marks: Collection[int | None]) -> bool:
    """Kill each child that carries a mark which is none of these; return whether there was one. Never waits.

    Called whenever a child has died, because only then can there be new ones: a stray's own children come to us
    before the kernel tells us of its death.

    workers: the pids not to look at.
    marks: of the living workers, and of this process, if it has one: what else carries that is for the template
        around this one to judge.
    """
    found = False
    for pid in children():
        if pid not in workers and (its := mark.of(pid)) is not None and its not in marks:
            found = True
            _kill(pid)
    return found


def kill_adopted(group: int) -> None:
    """Kill every child of this process that is in the process group, and theirs as they come to us."""
    known: set[int] = set()
    while True:
        found = [pid for pid in children() if pid not in known and _group_of(pid) == group]
        if not found:
            return
        for pid in found:
            known.add(pid)
            with suppress(OSError), Pidfd.open(pid) as orphan:
                orphan.send_signal(signal.SIGKILL)
                # Its own children come to us when it is dead, and SIGKILL takes a moment.
                orphan.wait(timeout=1.0)


def _kill(pid: int) -> None:
    """Kill a child that is not yet reaped."""
    try:
        with Pidfd.open(pid) as stray:
            stray.send_signal(signal.SIGKILL)
    except ProcessLookupError:
        pass
    except OSError:  # no pidfds here, or no descriptor number left for one
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def children() -> list[int]:
    """Return the children of this process's only thread (proc(5), Linux 3.5, CONFIG_PROC_CHILDREN).

    A child that dies while the list is read may hide another; but then we are told of that death, and look again.
    """
    try:
        with open(f"/proc/self/task/{_thread.get_native_id()}/children", "rb") as listing:
            return [int(pid) for pid in listing.read().split()]
    except OSError:
        return []


def _group_of(pid: int) -> int | None:
    with suppress(OSError):
        return os.getpgid(pid)
    return None


def kill_group(handle: ProcessHandle) -> None:
    """Kill a worker with all that it started, as far as that is still in its process group."""
    with suppress(ProcessLookupError):
        try:
            handle.send_signal(signal.SIGKILL, group=True)
        except ProcessLookupError:
            raise
        except OSError:  # before Linux 6.9 a pidfd cannot name a group
            with suppress(ProcessLookupError):
                handle.send_signal(signal.SIGKILL)
            kill_adopted(handle.pid)
