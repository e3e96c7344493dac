"""Reads processes from /proc, without touching them: no signal, no ptrace, no descriptor of theirs.

Called by `doctor`, on the main thread. See proc(5).
"""

from __future__ import annotations

import os
import pwd
from contextlib import suppress
from dataclasses import replace

from pidfdpool.cli.doctor.hosts import PREFIX, Process, templates_of

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_MAX_COMMAND = 4096  # characters that are kept of a command line
_WRITES = os.O_WRONLY


class CannotRead(Exception):
    """The process cannot be looked at; the message tells why."""


def read(pid: int, root: str = "/proc") -> list[Process]:
    """Return the process, all processes of pools, and the children of their templates.

    Raises:
        CannotRead: there is no /proc, no such process, or it is another user's.
    """
    if not os.path.exists(f"{root}/self/stat") and not os.path.exists(f"{root}/{pid}/stat"):
        raise CannotRead(f"there is no {root} here: a host is looked at through it")
    host = _host(pid, root)
    every = {pid: host}
    for name in os.listdir(root):
        if name.isdigit() and int(name) != pid and (process := _process(int(name), root)) is not None:
            every[process.pid] = process
    templates = templates_of(every)
    for template in templates:
        every[template] = _with_descriptors(every[template], root)
    # If the process belongs to a pool itself, the host of that is among those that its template watches.
    own = pid if pid in templates else host.parent
    for watched in every[own].watches if own in templates else ():
        if watched in every:
            every[watched] = _with_descriptors(every[watched], root)
    return [
        process
        for process in every.values()
        if process.watches or process.name.startswith(PREFIX) or process.parent in templates or process is every[pid]
    ]


def _host(pid: int, root: str) -> Process:
    process = _process(pid, root)
    if process is None:
        raise CannotRead(f"there is no process {pid}")
    leader = _leader(pid, root)
    if leader not in (None, pid):
        raise CannotRead(f"{pid} is a thread of process {leader}: look at {leader}")
    if process.state in "ZX":
        return process  # it has no descriptors any more
    try:
        os.listdir(f"{root}/{pid}/fd")
    except PermissionError:
        raise CannotRead(
            f"process {pid} ({process.name}) belongs to {_user(process.user)}, and may be looked at by that user or "
            "root only"
        ) from None
    except OSError:
        raise CannotRead(f"there is no process {pid}") from None
    return _with_descriptors(process, root)


def _user(number: int) -> str:
    try:
        return f"user {pwd.getpwuid(number).pw_name} ({number})"
    except KeyError:
        return f"user {number}"


def _leader(pid: int, root: str) -> int | None:
    with suppress(OSError), open(f"{root}/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"Tgid:"):
                return int(line.split()[1])
    return None


def _process(pid: int, root: str) -> Process | None:
    """Return what everybody may read of a process; None if there is none."""
    try:
        user = os.stat(f"{root}/{pid}").st_uid
        with open(f"{root}/{pid}/stat", "rb") as file:
            before, _, after = file.read().rpartition(b")")
        with open(f"{root}/{pid}/cmdline", "rb") as file:
            command = _shown(file.read().replace(b"\0", b" "))
        with open(f"{root}/uptime", "rb") as file:
            now = float(file.read().split()[0])
    except (OSError, ValueError):
        return None
    fields = after.split()
    if len(fields) < 22:
        return None
    started = int(fields[19]) / _TICKS
    return Process(
        pid=pid,
        parent=int(fields[1]),
        name=_shown(before.partition(b"(")[2]),
        state=fields[0].decode(),
        command=command[:_MAX_COMMAND],
        resident=int(fields[21]) * _PAGE,
        processor_time=(int(fields[11]) + int(fields[12])) / _TICKS,
        started=started,
        age=max(0.0, now - started),
        session=int(fields[3]),
        threads=int(fields[17]),
        user=user,
    )


def _shown(text: bytes) -> str:
    """Return text that a process has chosen as one line, without what a terminal would obey."""
    line = " ".join(text.decode(errors="replace").split())
    return "".join(character if character.isprintable() else "?" for character in line)


def _with_descriptors(process: Process, root: str) -> Process:
    """Return the process with what its descriptors tell. What may not be read is left out."""
    watches: set[int] = set()
    reads: set[str] = set()
    writes: set[str] = set()
    folder = f"{root}/{process.pid}"
    numbers: list[str] = []
    with suppress(OSError):
        numbers = os.listdir(f"{folder}/fd")
    for number in numbers:
        with suppress(OSError, ValueError):
            target = os.readlink(f"{folder}/fd/{number}")
            if target == "anon_inode:[pidfd]" or target.startswith("pidfd:"):
                pid = int(_info(f"{folder}/fdinfo/{number}").get("Pid", "-1"))
                if pid > 0:
                    watches.add(pid)
            elif target.startswith("pipe:") and int(number) > 2:
                flags = int(_info(f"{folder}/fdinfo/{number}").get("flags", "0"), 8)
                (writes if flags & os.O_ACCMODE == _WRITES else reads).add(target)
    return replace(process, watches=frozenset(watches), reads=frozenset(reads), writes=frozenset(writes))


def _info(path: str) -> dict[str, str]:
    with open(path, "rb") as file:
        lines = (line.partition(":") for line in file.read().decode(errors="replace").splitlines())
        return {name: value.strip() for name, _, value in lines}
