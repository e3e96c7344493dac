"""What proc(5) tells of processes: who descends from whom, memory, processor time, how often they slept."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """Return the fields of a process from its state on: state, parent, ..., or nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def children(parent: int) -> list[int]:
    """Return the children of a process, zombies included."""
    return [pid for pid, its in _parents().items() if its == parent]


def descendants(ancestor: int) -> list[int]:
    """Return the children of a process, and theirs, without zombies."""
    found: list[int] = []
    parents = _parents()
    generation = {ancestor}
    while generation := {pid for pid, parent in parents.items() if parent in generation}:
        found += generation
    return [pid for pid in found if _stat(pid)[:1] not in ([], ["Z"])]


def of_the_pool() -> list[int]:
    """Return all processes but the host that this measurement has brought about.

    Whatever is orphaned goes to the runner, which is the host's parent and has no children but those of one
    measurement at a time.
    """
    return [pid for pid in descendants(os.getppid()) if pid != os.getpid()]


def tracks_resources(pid: int) -> bool:
    """Return whether a process removes for others what has a name, after they have ended: multiprocessing, loky."""
    try:
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) * _TICK if fields else 0.0


def wanted_seconds(pid: int) -> float:
    """Return the processor time that a process has used or stood in line for, as on a busy machine."""
    total = 0
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            used, waited, _ = Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()
            total += int(used) + int(waited)
    return total / 1e9


def pss(pid: int) -> int:
    """Return the proportional set size in bytes: shared pages are divided among those that share them."""
    return _number_after(f"/proc/{pid}/smaps_rollup", "Pss:") * 1024


def rss() -> int:
    """Return the resident set size of this process, in bytes."""
    return _number_after("/proc/self/status", "VmRSS:") * 1024


def peak_rss() -> int:
    """Return the most that it was since `forget_peak`."""
    return _number_after("/proc/self/status", "VmHWM:") * 1024


def forget_peak() -> None:
    """Let the peak begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def threads() -> int:
    """Return how many threads this process has."""
    return len(os.listdir("/proc/self/task"))


def descriptors(pid: int) -> int:
    """Return how many descriptors a process holds."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def sleeps(pid: int, but: int | None = None) -> int:
    """Return how often the threads of a process, but one, went to sleep: how often they will have been woken."""
    total = 0
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            if int(task) != but:
                total += _number_after(f"/proc/{pid}/task/{task}/status", "voluntary_ctxt_switches:")
    return total


def _parents() -> dict[int, int]:
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat(int(name))):
            found[int(name)] = int(fields[1])
    return found


def _number_after(path: str, label: str) -> int:
    """Return the number that follows a label; sizes are in kilobytes there."""
    for line in Path(path).read_text().splitlines():
        if line.startswith(label):
            return int(line.split()[1])
    return 0
