"""The pools of a running host, as data, and what follows from how its processes are. Pure.

Called by `doctor`, on the main thread; `processes` reads what is arranged here. A *template* belongs to the host
whose pidfd it holds, and which holds the template's. Where there are no pidfds, the two share the lifeline: a pipe
that only the host writes to and the template reads. Workers are children of their template.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pidfdpool.cli.doctor.rules import Finding, size_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PREFIX = "pidfd-"
TEMPLATE = "pidfd-template"  # the names that the processes of a pool give themselves
GUARD = "pidfd-guard"
_WORKER = re.compile(r"pidfd-worker(\d+)")
_PROGRAM = "pidfdpool.template.process"  # in the command line of a template that was started as a fresh interpreter
STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting for a disk",
    "T": "stopped",
    "t": "traced",
    "Z": "zombie",
    "X": "dead",
    "I": "idle",
}


@dataclass(frozen=True, slots=True)
class Process:
    """One process at one moment. Sizes in bytes, times in seconds.

    watches: the processes whose pidfds it holds. reads, writes: the pipes of which it holds that end.
    """

    pid: int
    parent: int
    name: str
    state: str  # a letter, as in ps
    command: str = ""
    resident: int = 0
    processor_time: float = 0.0
    started: float = 0.0  # since the machine was started
    age: float = 0.0
    session: int = 0
    threads: int = 1
    user: int = 0
    watches: frozenset[int] = frozenset()
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()

    @property
    def looks_like_template(self) -> bool:
        """Whether it is the template of a pool, or was forked by one and has not taken its own name yet."""
        return self.name == TEMPLATE or (_PROGRAM in self.command and not self.name.startswith(PREFIX))


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker. slot: None if it has another name than workers give themselves."""

    slot: int | None
    process: Process


@dataclass(frozen=True, slots=True)
class Pool:
    """The processes of a pool. way: how its template was started. others: what else has the template as its parent.

    Such a process was left behind by a worker, or guards the preload.
    """

    template: Process
    way: str
    workers: tuple[Worker, ...] = ()
    others: tuple[Process, ...] = ()


@dataclass(frozen=True, slots=True)
class Host:
    """A process with its pools.

    is_template: it is the template of a pool. of: the host of the pool that it belongs to, as template or worker.
    """

    process: Process
    pools: tuple[Pool, ...] = ()
    is_template: bool = False
    of: int | None = None


def templates_of(known: Mapping[int, Process]) -> set[int]:
    """Return which of the processes are templates.

    A template leads a session, unless a sandbox forbids that. It may be the child of another one: that of a pool in
    whose worker its own host runs.
    """
    alike = {pid for pid, process in known.items() if process.looks_like_template}
    return {pid for pid in alike if known[pid].session == pid or known[pid].parent not in alike}


def arrange(pid: int, processes: Iterable[Process]) -> Host:
    """Return the pools of the process, by what is known of all processes; it must be one of them."""
    known = {process.pid: process for process in processes}
    host, templates = known[pid], templates_of(known)
    pools = [_pool(known[each], host, known, templates) for each in templates if _belongs(known[each], host)]
    pools.sort(key=lambda pool: (pool.template.started, pool.template.pid))
    own = pid if pid in templates else host.parent
    owners = [each.pid for each in known.values() if own in templates and _belongs(known[own], each)]
    return Host(host, tuple(pools), pid in templates, owners[0] if owners else None)


def _belongs(template: Process, host: Process) -> bool:
    if template.pid == host.pid or host.parent == template.pid:
        return False
    if template.watches:
        return host.pid in template.watches and template.pid in host.watches
    return bool(template.reads & host.writes)


def _pool(template: Process, host: Process, known: Mapping[int, Process], templates: set[int]) -> Pool:
    workers, others = [], []
    for process in known.values():
        if process.parent != template.pid or process.pid in templates:
            continue
        named = _WORKER.fullmatch(process.name)
        if named:
            workers.append(Worker(int(named[1]), process))
        elif process.pid in host.watches or process.looks_like_template:
            workers.append(Worker(None, process))
        else:
            others.append(process)
    workers.sort(key=lambda worker: (worker.slot is None, worker.slot or 0, worker.process.pid))
    way = "fresh interpreter" if _PROGRAM in template.command else "fork of the host"
    return Pool(template, way, tuple(workers), tuple(sorted(others, key=lambda process: process.pid)))


def findings(host: Host) -> list[Finding]:
    """Return what follows from the states of the processes."""
    found = [*_of_host(host)]
    for number, pool in enumerate(host.pools, 1):
        found += _of_pool(f"pool {number}", pool)
    return found


def _of_host(host: Host) -> Iterator[Finding]:
    state = host.process.state
    if state == "Z":
        yield Finding("host", "note", "it has ended, and its parent has not reaped it: its pools are gone")
    elif state in "Tt":
        yield Finding(
            "host", "note", f"it is {STATES[state]}: workers end what they have, and nobody takes the results"
        )
    if host.is_template:
        yield Finding("host", "note", f"it is the template of a pool: look at its host, process {host.of or '?'}")
    elif host.of is not None:
        yield Finding("host", "note", f"it belongs to a pool itself, that of process {host.of}")
    if not host.pools and state != "Z" and not host.is_template:
        text = "it has no pool: there is none before the first submit, and none after the shutdown"
        yield Finding("host", "note", text)


def _of_pool(name: str, pool: Pool) -> Iterator[Finding]:
    if pool.template.state in "Tt":
        text = (
            f"the template {pool.template.pid} is {STATES[pool.template.state]}: no worker can be started or replaced"
        )
        yield Finding(name, "note", text)
    elif pool.template.state == "Z":
        yield Finding(name, "note", f"the template {pool.template.pid} has ended; the host is about to notice")
    if not pool.workers:
        yield Finding(name, "ok", "it has no worker now; they are started when tasks wait")
    for worker in pool.workers:
        process = worker.process
        label = f"worker {'?' if worker.slot is None else worker.slot} (pid {process.pid})"
        if process.state in "Tt":
            text = f"{label} is {STATES[process.state]}: its task stands still, and its timeout still counts"
            yield Finding(name, "note", text)
        elif process.state == "Z":
            yield Finding(name, "note", f"{label} has ended; the template is about to reap it")
        elif process.state == "D":
            text = f"{label} waits for a disk or a file system: it can be killed only when that has answered"
            yield Finding(name, "note", text)
    for process in pool.others:
        if process.name == GUARD:
            yield Finding(name, "ok", "its preload runs")
        elif process.state != "Z":
            text = f"process {process.pid} ({process.name}) was left behind by a worker that has ended"
            yield Finding(name, "note", text)


def total(pool: Pool) -> str:
    """Return the resident memory of all processes of a pool, as text."""
    parts = [pool.template, *(worker.process for worker in pool.workers)]
    return size_text(sum(process.resident for process in parts))
