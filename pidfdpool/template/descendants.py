"""Kills the processes that dead workers left behind.

Called by `reaper`, in the template, on its only thread.

When a process dies, its children become children of the nearest subreaper above it, and that is the template
(prctl(2)). The template alone can reap them, so no number is reused while it looks: pidfds that are opened by number
name the right processes, and where there are no pidfds even the numbers do.

There are two ways to tell whose descendants they were. One is their mark (`worker.mark`), which they inherit and
cannot leave. It does not find a process that changed its user, reset its limits, or lives below an init of its own (a
pid namespace). The other, on kernels that cannot signal a process group through a pidfd, is their process group.
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


def kill_orphans(workers: Collection[int], marks: Collection[int | None]) -> bool:
    """Kill each child whose mark is none of these; return whether there was one. Never waits.

    Called whenever a child has died, because only then there can be new ones: the children of a dying process become
    the template's before the kernel reports the death.

    workers: pids of children that are not looked at.
    marks: of the living workers, and of this process, if it has one. A process with that one belongs to a worker of
        the outer template, which decides about it.
    """
    found = False
    for pid in children():
        if pid not in workers and (its_mark := mark.of(pid)) is not None and its_mark not in marks:
            found = True
            _kill(pid)
    return found


def kill_adopted(group: int) -> None:
    """Kill every child of this process that is in the process group, and their children as they are adopted."""
    known: set[int] = set()
    while True:
        found = [pid for pid in children() if pid not in known and _group_of(pid) == group]
        if not found:
            return
        for pid in found:
            known.add(pid)
            with suppress(OSError), Pidfd.open(pid) as orphan:
                orphan.send_signal(signal.SIGKILL)
                # Its own children are adopted when it is dead, and SIGKILL takes a moment.
                orphan.wait(timeout=1.0)


def _kill(pid: int) -> None:
    """Kill a child that is not yet reaped."""
    try:
        with Pidfd.open(pid) as orphan:
            orphan.send_signal(signal.SIGKILL)
    except ProcessLookupError:
        pass
    except OSError:  # no pidfds here, or no descriptor number left for one
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def children() -> list[int]:
    """Return the children of this process's only thread (proc(5), Linux 3.5, CONFIG_PROC_CHILDREN).

    A child that dies while the list is read may hide another. But that death is reported, and the list is read again.
    """
    try:
        with open(f"/proc/self/task/{_thread.get_native_id()}/children", "rb") as listing:
            return list(map(int, listing.read().split()))
    except OSError:
        return []


def _group_of(pid: int) -> int | None:
    with suppress(OSError):
        return os.getpgid(pid)
    return None


def kill_group(handle: ProcessHandle) -> None:
    """Kill a worker, and all that it started that is still in its process group."""
    with suppress(ProcessLookupError):
        try:
            handle.send_signal(signal.SIGKILL, group=True)
        except ProcessLookupError:
            raise
        except OSError:  # before Linux 6.9 a pidfd cannot name a group
            with suppress(ProcessLookupError):
                handle.send_signal(signal.SIGKILL)
            kill_adopted(handle.pid)
