"""Where and with what a run was made."""

from __future__ import annotations

import compileall
import datetime
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.contenders import CONTENDERS, LEFT_OUT
from benchmarks.documents import source


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model", "cpu model")):
            return line.partition(":")[2].strip()
    return platform.machine()


def compile_sources(*folders: Path) -> None:
    """Write the bytecode of what is run from its sources, as an installer does.

    Otherwise each process would compile what it imports, where PYTHONDONTWRITEBYTECODE is set; and only of ours,
    because the other pools were installed. A folder that cannot be written to is left alone.
    """
    for folder in folders:
        compileall.compile_dir(folder, quiet=2)


def available_memory() -> int:
    """Return how many bytes can be used without taking them from anybody."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def described(contenders: Iterable[str]) -> dict[str, Any]:
    """Return all that a reader needs to judge the figures."""
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: version for name in contenders if (version := CONTENDERS[name].version()) is not None},
        "documents": source(),
    }


def sentence(machine: Mapping[str, Any]) -> str:
    """Put it in words."""
    software = [f"Python {machine['python']}"]
    software += [
        f"{CONTENDERS[name].distribution} {version}"
        for name, version in machine["versions"].items()
        if name not in LEFT_OUT and name != "ours-fork"
    ]
    return (
        f"{machine['date']}; {machine['cpu']}, {machine['cores']} cores, load {machine['load']:g} at the start; "
        f"Linux {machine['kernel']}; {', '.join(software)}. "
        f"JSON documents: {machine['documents']}."
    )
