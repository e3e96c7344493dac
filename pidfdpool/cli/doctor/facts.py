"""What `doctor` has read of this machine, as data. Pure: `reading` fills it in, `rules` says what follows from it.

None stands for what could not be read. Sizes are in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python that runs this."""

    version: str
    implementation: str = "CPython"
    build: str = ""
    executable: str = ""
    free_threaded: bool = False  # it was built without the GIL
    gil: bool = True  # there is one now
    debug: bool = False
    virtual_environment: bool = False
    pidfdpool: str = ""
    cloudpickle: str | None = None


@dataclass(frozen=True, slots=True)
class Kernel:
    """The kernel, and what it granted when it was asked.

    pidfds: of each feature of `pidfdpool.pidfd.Capabilities`, whether it works; a text: the error that told nothing.
    forced: the environment says that pidfds are not to be used.
    needed: the error of the first system call that every pool needs and that is refused; None: all work.
    calls: of each system call that a pool can do without, whether it works.
    """

    system: str
    release: str
    machine: str
    pidfds: dict[str, bool | str] = field(default_factory=dict)
    forced: bool = False
    needed: str | None = None
    calls: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Container:
    """What bounds the processes here: the cgroup, the sandbox, the limits, the parents of orphans.

    cgroup: "v1", "v2", or None. cpu_quota: CPUs. The least of all cgroups above counts.
    limits: the soft and the hard value of each resource limit; -1: none.
    seccomp: 0: none, 1: strict, 2: filters. dev_shm: bytes that are free there.
    """

    cpus: int
    default_workers: int
    affinity: int | None = None
    cgroup: str | None = None
    cpu_quota: float | None = None
    pids_max: int | None = None
    pids_now: int | None = None
    memory_max: int | None = None
    memory_now: int | None = None
    seccomp: int | None = None
    no_new_privileges: bool | None = None
    dev_shm: int | None = None
    proc: bool = True
    limits: dict[str, tuple[int, int]] = field(default_factory=dict)
    pid: int = 0
    subreaper: bool | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the self-test: what was tried, whether it went as promised, and what happened."""

    name: str
    passed: bool
    seconds: float
    observed: str


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it. steps: of the self-test; empty if there was none."""

    interpreter: Interpreter
    kernel: Kernel
    container: Container
    steps: tuple[Step, ...] = ()
