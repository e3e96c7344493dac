"""Reads the facts about this machine: by asking the kernel, and by trying what it grants.

Called by `doctor`, on the main thread of a process of its own. Nothing is changed, and nothing is left. Whatever
cannot be read is None, so that the rest is still told.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pidfdpool import PidfdPoolExecutor
from pidfdpool._version import __version__
from pidfdpool.cli.doctor.facts import Container, Interpreter, Kernel
from pidfdpool.cli.doctor.rules import FEATURES
from pidfdpool.pidfd import PidfdError, capabilities, prctl
from pidfdpool.process import sandbox

if TYPE_CHECKING:
    from collections.abc import Callable

_LIMITS = ("nofile", "nproc", "as", "memlock", "core", "fsize", "stack")
_UNLIMITED_V1 = 1 << 60  # memory.limit_in_bytes of a cgroup without a limit is a little less than 2**63


def interpreter() -> Interpreter:
    """Read what Python this is."""
    return Interpreter(
        version=platform.python_version(),
        implementation=platform.python_implementation(),
        build=" ".join(sys.version.split("(", 1)[-1].split(")", 1)[0].split()),
        executable=sys.executable or "",
        free_threaded=bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        gil=bool(getattr(sys, "_is_gil_enabled", lambda: True)()),
        debug=hasattr(sys, "gettotalrefcount"),
        virtual_environment=sys.prefix != sys.base_prefix,
        pidfdpool=__version__,
        cloudpickle=_version_of_cloudpickle(),
    )


def _version_of_cloudpickle() -> str | None:
    try:
        import cloudpickle
    except Exception:
        return None
    return str(getattr(cloudpickle, "__version__", "?"))


def kernel() -> Kernel:
    """Try what the kernel grants."""
    system = platform.uname()
    granted = capabilities()
    pidfds: dict[str, bool | str] = {}
    for name in FEATURES:
        try:
            pidfds[name] = getattr(granted, name)
        except (PidfdError, RuntimeError) as error:  # no descriptor is left, or no thread can be started
            pidfds[name] = str(error)
    needed = None
    try:
        sandbox.check()
    except OSError as error:
        needed = error.strerror or str(error)
    return Kernel(
        system.system,
        system.release,
        system.machine,
        pidfds,
        forced=bool(os.environ.get("PIDFDPOOL_NO_PIDFD")),
        needed=needed,
        calls={
            "memfd_create": _works(lambda: os.close(os.memfd_create("pidfdpool-doctor"))),
            "eventfd2": _works(lambda: os.close(os.eventfd(0))),
            "prctl": _works(prctl.get_child_subreaper),
            "sched_getaffinity": _works(lambda: os.sched_getaffinity(0)),
            "prlimit64": _works(lambda: resource.prlimit(0, resource.RLIMIT_NOFILE)),
        },
    )


def _works(call: Callable[[], object]) -> bool:
    try:
        call()
    except (OSError, AttributeError):
        return False
    return True


def container(root: str = "/") -> Container:
    """Read what bounds the processes here. root: where /proc and /sys are."""
    status = _status(os.path.join(root, "proc/self/status"))
    groups = Cgroups(root)
    seccomp = status.get("Seccomp", "")
    privileges = status.get("NoNewPrivs", "")
    affinity = subreaper = dev_shm = None
    with suppress(OSError):
        affinity = len(os.sched_getaffinity(0))
    with suppress(OSError):
        subreaper = prctl.get_child_subreaper()
    with suppress(OSError):
        free = os.statvfs(os.path.join(root, "dev/shm"))
        dev_shm = free.f_bavail * free.f_frsize
    return Container(
        cpus=os.cpu_count() or 1,
        default_workers=PidfdPoolExecutor()._max_workers,
        affinity=affinity,
        cgroup=groups.version,
        cpu_quota=groups.cpu_quota(),
        pids_max=groups.least("pids", "pids.max", "pids.max"),
        pids_now=groups.of_limit("pids", "pids.max", "pids.max", "pids.current", "pids.current"),
        memory_max=groups.least("memory", "memory.max", "memory.limit_in_bytes"),
        memory_now=groups.of_limit(
            "memory", "memory.max", "memory.limit_in_bytes", "memory.current", "memory.usage_in_bytes"
        ),
        seccomp=int(seccomp) if seccomp.isdigit() else None,
        no_new_privileges=privileges == "1" if privileges else None,
        dev_shm=dev_shm,
        proc=bool(status),
        limits=_limits(),
        pid=os.getpid(),
        subreaper=subreaper,
    )


def _limits() -> dict[str, tuple[int, int]]:
    found = {}
    for name in _LIMITS:
        with suppress(OSError, ValueError, AttributeError):
            found[name] = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))
    return found


def _status(path: str) -> dict[str, str]:
    lines = (line.partition(":") for line in _read(path).splitlines())
    return {name: value.strip() for name, _, value in lines}


def _read(path: str) -> str:
    with suppress(OSError):
        return os.fsdecode(Path(path).read_bytes())
    return ""


class Cgroups:
    """The cgroups of this process, v1 or v2, from its own up to the root. A limit of any of them holds."""

    def __init__(self, root: str = "/") -> None:
        self._mount = os.path.join(root, "sys/fs/cgroup")
        self._paths: dict[str, str] = {}  # of each controller of v1, and "" of v2
        for line in _read(os.path.join(root, "proc/self/cgroup")).splitlines():
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            self._paths.update(dict.fromkeys(controllers.split(","), path))
        self.version: str | None = None
        if os.path.exists(os.path.join(self._mount, "cgroup.controllers")):
            self.version = "v2"
        elif any(os.path.isdir(os.path.join(self._mount, name)) for name in ("memory", "pids", "cpu")):
            self.version = "v1"

    def cpu_quota(self) -> float | None:
        """Return the CPUs that the cgroups have time for; None: no limit."""
        quotas = []
        for folder in self._folders("cpu"):
            if self.version == "v2":
                quota, _, period = _read(f"{folder}/cpu.max").strip().partition(" ")
            else:
                quota, period = (_read(f"{folder}/cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
            if quota.isdigit() and period.isdigit() and int(period):
                quotas.append(int(quota) / int(period))
        return min(quotas, default=None)

    def least(self, controller: str, v2: str, v1: str) -> int | None:
        """Return the least limit of this name; None: no limit."""
        limit, _ = self._binding(controller, v2, v1)
        return limit

    def of_limit(self, controller: str, v2: str, v1: str, now_v2: str, now_v1: str) -> int | None:
        """Return what is in use where the least limit is; without a limit, in this process's own cgroup."""
        _, folder = self._binding(controller, v2, v1)
        text = _read(f"{folder}/{now_v2 if self.version == 'v2' else now_v1}").strip() if folder else ""
        return int(text) if text.isdigit() else None

    def _binding(self, controller: str, v2: str, v1: str) -> tuple[int | None, str | None]:
        best: tuple[int | None, str | None] = (None, None)
        for folder in self._folders(controller):
            text = _read(f"{folder}/{v2 if self.version == 'v2' else v1}").strip()
            limit = int(text) if text.isdigit() and int(text) < _UNLIMITED_V1 else None
            if best[1] is None or (limit is not None and (best[0] is None or limit < best[0])):
                best = limit, folder
        return best

    def _folders(self, controller: str) -> list[str]:
        """Return the folders of this process's cgroup and those above it, the nearest first."""
        if self.version is None:
            return []
        v2 = self.version == "v2"
        top = self._mount if v2 else os.path.join(self._mount, controller)
        path = self._paths.get("" if v2 else controller, "/")
        # In a container the path may be the one outside of it; then the mount itself is this process's cgroup.
        inner = os.path.normpath(f"{top}/{path}") if ".." not in path.split("/") else top
        found = []
        while inner != top and inner.startswith(f"{top}/"):
            if os.path.isdir(inner):
                found.append(inner)
            inner = os.path.dirname(inner)
        return [*found, top]
