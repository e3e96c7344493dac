"""What follows from the facts for a pool, in a sentence each. Pure.

Called by `doctor`, on the main thread. A finding is "ok", a "note" (a pool works, with what the sentence says), or
"missing": something that a pool needs is not there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pidfdpool.cli.doctor.facts import Container, Facts, Interpreter, Kernel

Level = Literal["ok", "note", "missing"]
OLDEST_PYTHON = (3, 11)
DESCRIPTORS_PER_WORKER = 5  # of the host's
FEW_DESCRIPTORS = 50  # what a program has open beside those of the pool
FREE_MEMORY_PER_WORKER = 32 << 20  # what a worker has at its start, and some work
LITTLE_SPACE = 4 << 30  # addresses of a process that has segments, threads and a heap
_KB, _MB, _GB = 1 << 10, 1 << 20, 1 << 30


class Finding(NamedTuple):
    """A sentence, and what it is about."""

    topic: str
    level: Level
    text: str


class Feature(NamedTuple):
    """Something that kernels have since a version, and what follows if it works, or does not."""

    call: str
    since: str
    granted: str  # what follows if it works
    refused: str


_PIPES = "pipes take the place of pidfds, and the template sends the signals"
FEATURES = {
    "open": Feature("pidfd_open", "5.3", "each process is named by a descriptor, which tells of its end", _PIPES),
    "send_signal": Feature("pidfd_send_signal", "5.1", "no signal can reach a wrong process", _PIPES),
    "waitid": Feature("waitid(P_PIDFD)", "5.4", "workers are reaped by their descriptors", _PIPES),
    "group_signal": Feature(
        "PIDFD_SIGNAL_PROCESS_GROUP",
        "6.9",
        "what a task started dies with its worker in one call",
        "the template kills the process group of a worker by its number, before it reaps the worker",
    ),
    "info": Feature(
        "PIDFD_GET_INFO", "6.13", "a descriptor tells whose it is", "who owns a process is read from /proc"
    ),
    "info_exit": Feature(
        "PIDFD_INFO_EXIT",
        "6.15",
        "a host learns how a process ended, whoever reaped it",
        "how a process ended is known where the template reaped it: the pool's own always are",
    ),
    "queue_value": Feature(
        "a signal with a value", "5.1", "Pidfd.send_signal can send a value", "Pidfd.send_signal can send no value"
    ),
}
_WITHOUT = {
    "memfd_create": "large payloads travel through sockets, which takes several times as long",
    "eventfd2": "pipes take its place",
    "prctl": "processes have no names of their own, and what left its worker's process group is not found",
    "sched_getaffinity": "workers do not spin while they wait for a task",
    "prlimit64": "what a task has started is found in its process group only",
}


def findings(facts: Facts) -> list[Finding]:
    """Return what follows, in the order of the report."""
    return [
        *_of_kernel(facts.kernel),
        *_of_interpreter(facts.interpreter),
        *_of_container(facts.container),
        *(Finding("self-test", "ok" if s.passed else "missing", f"{s.name}: {s.observed}") for s in facts.steps),
    ]


def is_missing_something(found: list[Finding]) -> bool:
    """Return whether something that a pool needs is missing."""
    return any(finding.level == "missing" for finding in found)


def _of_kernel(kernel: Kernel) -> Iterator[Finding]:
    if kernel.system != "Linux":
        yield Finding("kernel", "missing", f"{kernel.system} is not Linux: there are no pidfds, and no pool")
    if kernel.forced:
        yield Finding("kernel", "note", f"PIDFDPOOL_NO_PIDFD is set, so pidfds are not used: {_PIPES}")
    for name, granted in kernel.pidfds.items():
        feature = FEATURES[name]
        label = f"{feature.call} (Linux {feature.since})"
        if granted is True:
            yield Finding("kernel", "ok", f"{label}: {feature.granted}")
        elif granted:
            yield Finding("kernel", "note", f"{label} could not be tried ({granted}): try again")
        elif not kernel.forced:
            yield Finding("kernel", "note", f"{label} is not granted: {feature.refused}")
    for name, works in kernel.calls.items():
        if not works:
            yield Finding("kernel", "note", f"{name} is refused: {_WITHOUT[name]}")
    if kernel.needed is None:
        yield Finding("kernel", "ok", "every system call that a pool needs is allowed")
    else:
        yield Finding("kernel", "missing", f"no pool works here: {kernel.needed}")


def _of_interpreter(interpreter: Interpreter) -> Iterator[Finding]:
    numbers = interpreter.version.split(".")
    try:
        version = int(numbers[0]), int(numbers[1])
    except (ValueError, IndexError):
        version = (0, 0)
    if version < OLDEST_PYTHON:
        oldest = "{}.{}".format(*OLDEST_PYTHON)
        yield Finding("interpreter", "missing", f"Python {interpreter.version} is older than {oldest}")
    if interpreter.implementation != "CPython":
        yield Finding("interpreter", "note", f"{interpreter.implementation}: tests run on CPython only")
    if not interpreter.free_threaded:
        text = "it has a GIL: threads share one CPU for Python code, and a pool's workers have one each"
        yield Finding("interpreter", "ok", text)
    elif interpreter.gil:
        text = "it was built without the GIL, but has one now (PYTHON_GIL, or a module asked for it)"
        yield Finding("interpreter", "note", text)
    else:
        text = "it has no GIL: threads may do instead of a pool where crashes, memory and timeouts do not matter"
        yield Finding("interpreter", "note", text)
    if interpreter.debug:
        yield Finding("interpreter", "note", "it is a debug build: everything takes several times as long")
    if interpreter.cloudpickle is None:
        text = "cloudpickle cannot be imported: python -m pip install cloudpickle"
        yield Finding("interpreter", "missing", text)


def _of_container(container: Container) -> Iterator[Finding]:
    yield from _of_cpus(container)
    yield from _of_processes(container)
    yield from _of_memory(container)
    yield from _of_descriptors(container)
    if container.seccomp == 1:
        yield Finding("container", "missing", "strict seccomp: this process may not even open a file")
    elif container.seccomp:
        text = "a seccomp filter is in force: the system calls above were tried under it, and workers inherit it"
        yield Finding("container", "ok", text)
    elif container.seccomp == 0:
        yield Finding("container", "ok", "no seccomp filter")
    if not container.proc:
        text = (
            "there is no /proc: what a task started is found in its process group only, and workers() tells no memory"
        )
        yield Finding("container", "note", text)
    yield from _of_shared_memory(container)
    if container.pid == 1:
        text = (
            "this process is pid 1: the template becomes its child, and the pool reaps it; orphans of tasks as well"
        )
        yield Finding("container", "note", text)
    elif container.subreaper:
        text = "this process is a subreaper: the template becomes its child, and the pool reaps it"
        yield Finding("container", "note", text)
    elif container.subreaper is False:
        yield Finding("container", "ok", "neither pid 1 nor a subreaper: a host here never has a child of the pool")


def _of_cpus(container: Container) -> Iterator[Finding]:
    usable = container.affinity or container.cpus
    workers = container.default_workers
    size = f"a pool has {counted(workers, 'worker')} by default"
    if container.cpu_quota is not None and math.ceil(container.cpu_quota) < workers:  # Python was told a number
        text = (
            f"{counted(usable, 'CPU')} may be used, but the cgroup has the time of {container.cpu_quota:g} only: "
            f"{size}; make it with max_workers={max(1, math.ceil(container.cpu_quota))}"
        )
        yield Finding("container", "note", text)
    elif container.cpu_quota is not None:
        text = f"{counted(usable, 'CPU')} may be used, and the cgroup has the time of {container.cpu_quota:g}: {size}"
        yield Finding("container", "ok", text)
    else:
        yield Finding("container", "ok", f"{usable} of {counted(container.cpus, 'CPU')} may be used: {size}")


def _of_processes(container: Container) -> Iterator[Finding]:
    wanted = container.default_workers + 1
    left = _left(container.pids_max, container.pids_now)
    if left is None:
        yield Finding("container", "ok", "the cgroup does not limit the number of processes")
    elif left < 2:
        text = f"pids.max is {container.pids_max}, and {container.pids_now} are in use: not even one worker can start"
        yield Finding("container", "missing", text)
    elif left < wanted:
        text = (
            f"pids.max is {container.pids_max}, and {container.pids_now} are in use: {left} more processes and "
            f"threads, and a pool of the default size needs {wanted}"
        )
        yield Finding("container", "note", text)
    else:
        yield Finding("container", "ok", f"pids.max is {container.pids_max}, and {container.pids_now} are in use")
    processes = container.limits.get("nproc", (-1, -1))[0]
    if 0 <= processes < 4 * wanted:
        text = f"the user may have {processes} processes and threads (ulimit -u), those of other programs included"
        yield Finding("container", "note", text)


def _of_memory(container: Container) -> Iterator[Finding]:
    left = _left(container.memory_max, container.memory_now)
    if left is None:
        yield Finding("container", "ok", "the cgroup does not limit memory")
    else:
        used = f"memory.max is {size_text(container.memory_max)}, and {size_text(container.memory_now)} are in use"
        share = size_text(left // container.default_workers)
        follows = f"{share} are left for each of {counted(container.default_workers, 'worker')}"
        advice = "hard_memory_per_child below that keeps the kernel from killing one that it chooses"
        level: Level = "note" if left < container.default_workers * FREE_MEMORY_PER_WORKER else "ok"
        yield Finding("container", level, f"{used}: {follows}; {advice}")
    space = container.limits.get("as", (-1, -1))[0]
    if 0 <= space < LITTLE_SPACE:
        text = f"a process may have {size_text(space)} of addresses (ulimit -v): large shared memory may not fit"
        yield Finding("container", "note", text)


def _of_descriptors(container: Container) -> Iterator[Finding]:
    soft, hard = container.limits.get("nofile", (-1, -1))
    if soft < 0:
        return
    workers = max(0, (soft - FEW_DESCRIPTORS) // DESCRIPTORS_PER_WORKER)
    text = f"{soft} descriptors (ulimit -n): enough for about {counted(workers, 'worker')}"
    if workers >= container.default_workers:
        yield Finding("container", "ok", text)
    else:
        more = f"; ulimit -n {hard} would allow more" if hard > soft or hard < 0 else ""
        yield Finding("container", "note" if workers else "missing", text + more.replace("-1", "unlimited"))


def _of_shared_memory(container: Container) -> Iterator[Finding]:
    if container.dev_shm is None:
        yield Finding("container", "ok", "there is no /dev/shm: a pool needs none, but multiprocessing's locks do")
    elif container.dev_shm < _MB:
        text = f"/dev/shm has {size_text(container.dev_shm)} left: a pool needs none, but multiprocessing's locks do"
        yield Finding("container", "note", text)
    else:
        text = f"/dev/shm has {size_text(container.dev_shm)} left: a pool needs none, its segments have no names"
        yield Finding("container", "ok", text)


def _left(most: int | None, now: int | None) -> int | None:
    return None if most is None else max(0, most - (now or 0))


def counted(number: int, noun: str) -> str:
    """Return "1 worker", "2 workers"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def size_text(size: int | None) -> str:
    """Return a number of bytes in the unit that fits; "?" if it is not known."""
    if size is None:
        return "?"
    for unit, name in ((_GB, "GB"), (_MB, "MB"), (_KB, "KB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}" if size < 10 * unit else f"{size // unit} {name}"
    return f"{size} bytes"
