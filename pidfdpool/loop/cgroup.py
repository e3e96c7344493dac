"""Reads what the kernel counts for the memory of the host's cgroup, which its workers share. For `death_reports`.

cgroup v2 has memory.events, v1 has the same counter oom_kill in memory.oom_control. Where neither is readable,
the kernel's count is not known. See Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of the kernel.
"""

from __future__ import annotations

import os

from pidfdpool.process import cgroups


class MemoryEvents:
    """The counters as they were when they were last read. Not thread-safe: the caller holds the pool's lock."""

    def __init__(self, root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> None:
        self._path = find(root, cgroups.read(membership))
        self._last = self._counters()

    @property
    def readable(self) -> bool:
        """Whether there is anything to tell."""
        return self._path is not None

    def risen(self) -> dict[str, int]:
        """Return which counters rose since the last call, and by how much."""
        before, now = self._last, self._counters()
        self._last = now or before  # no descriptor was left, perhaps: that is no reason to begin from nothing
        changes = {name: count - before.get(name, 0) for name, count in now.items()}
        return {name: change for name, change in changes.items() if change > 0}

    def _counters(self) -> dict[str, int]:
        return parse(cgroups.read(self._path)) if self._path is not None else {}


def find(root: str, membership: str) -> str | None:
    """Return the file with the counters of the cgroup that /proc/PID/cgroup tells, or None."""
    for version, controllers, path in cgroups.memberships(membership):
        if "memory" in controllers:
            folders, name = (f"{root}/memory{path}", f"{root}/memory"), "memory.oom_control"
        elif version == cgroups.V2:
            folders, name = (f"{root}{path}", root), "memory.events"
        else:
            continue
        for folder in folders:  # in a container, the path may be the one outside of it
            if os.access(f"{folder}/{name}", os.R_OK):
                return f"{folder}/{name}"
    return None


def parse(text: str) -> dict[str, int]:
    """Return the counters of memory.events or memory.oom_control; of the latter only those that count."""
    pairs = (line.split() for line in text.splitlines())
    found = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
    return {name: count for name, count in found.items() if name not in ("oom_kill_disable", "under_oom")}
