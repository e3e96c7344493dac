"""Finds the folders of the cgroups that this process is in, from what the kernel tells in /proc. Holds no state.

Called in the host: for the default number of workers (`cpus`), and for what the kernel counts (`loop.cgroup`). Any
thread. See cgroups(7), and section 3.5 of Documentation/filesystems/proc.rst in the kernel for mountinfo.

Version 2 has one hierarchy for all controllers, version 1 has one for each controller or for some together, and a
machine may have both. A limit holds for a cgroup and all below it, so those above are of interest, too.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

V1, V2 = 1, 2
_PART = 1 << 16  # bytes that are read at a time


class Mount:
    """A place where a hierarchy of cgroups, or a part of it, is mounted.

    controllers: those of version 1; version 2 names none. root: the cgroup that is seen there. point: the folder.
    """

    __slots__ = ("controllers", "point", "root", "version")

    def __init__(self, version: int, controllers: frozenset[str], root: str, point: str) -> None:
        self.version: int = version
        self.controllers: frozenset[str] = controllers
        self.root: str = root
        self.point: str = point

    def has(self, version: int, controller: str) -> bool:
        """Return whether this is a mount of the hierarchy that the controller is in."""
        return self.version == version and (version == V2 or controller in self.controllers)

    def folders(self, path: str) -> list[str] | None:
        """Return the folders of a cgroup and of those above it, itself first. None: it is not below the root."""
        names, above = path.split("/"), self.root.rstrip("/")
        if ".." in names or ".." in above.split("/") or not f"{path}/".startswith(f"{above}/"):
            return None
        inner = [name for name in path[len(above) :].split("/") if name]
        return ["/".join([self.point.rstrip("/"), *inner[:depth]]) for depth in range(len(inner), -1, -1)]


def memberships(text: str) -> Iterator[tuple[int, frozenset[str], str]]:
    """Yield version, controllers and path of each hierarchy that /proc/PID/cgroup names."""
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, found, path = rest.partition(":")
        if found and controllers:
            yield V1, frozenset(controllers.split(",")), path
        elif found and number == "0":
            yield V2, frozenset(), path


def mounts(text: str) -> Iterator[Mount]:
    """Yield the mounts of cgroups that /proc/PID/mountinfo names."""
    for line in text.splitlines():
        before, found, after = line.partition(" - cgroup")
        if not found:
            continue  # most lines
        after = f"cgroup{after}"
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        root, point = map(_unescaped, fields[3:5])
        version = V2 if kind[0] == "cgroup2" else V1
        yield Mount(version, frozenset(kind[2].split(",")) if version == V1 else frozenset(), root, point)


def folders_of(controller: str, membership: str, mountinfo: str) -> Iterator[tuple[int, list[str]]]:
    """Yield version and folders of each cgroup of this process that may have limits of this controller.

    A container may see a path that is valid outside of it only. Then what is mounted there is its own cgroup, or one
    above it.
    """
    known = list(mounts(mountinfo))
    for version, controllers, path in memberships(membership):
        if version == V1 and controller not in controllers:
            continue
        here = [mount for mount in known if mount.has(version, controller)]
        found = [folders for mount in here if (folders := mount.folders(path)) is not None]
        for folders in found or [[mount.point] for mount in here[:1]]:
            yield version, folders


def read(path: str) -> str:
    """Return the text of a file; nothing, if it cannot be read."""
    parts = []
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while part := os.read(fd, _PART):
                parts.append(part)
        finally:
            os.close(fd)
    except OSError:
        return ""
    return os.fsdecode(b"".join(parts))


def _unescaped(field: str) -> str:
    """Return a path of mountinfo, in which space, tab, line feed and backslash are octal numbers."""
    if "\\" not in field:
        return field
    for code in ("\\040", "\\011", "\\012", "\\134"):  # the backslash last: it may be what stands before digits
        field = field.replace(code, chr(int(code[1:], 8)))
    return field
