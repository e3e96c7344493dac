"""What one run saw of the scripts, in a file."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.scripts.kind import is_installed
from tests.scripts.kinds import SECTIONS

Key = tuple[str, str, str]  # the section, the title of the kind, the name of the contender


@dataclass
class Run:
    """All that one run saw, on one version of Python. seen: in a few words, by section, title and contender."""

    python: str
    kernel: str
    libraries: dict[str, str]
    seen: dict[Key, str] = field(default_factory=dict)

    @property
    def minor(self) -> tuple[int, int]:
        """The version of Python without the patch level."""
        major, minor, *_ = self.python.split(".")
        return int(major), int(minor)


def write(path: str, seen: list[dict[str, str]]) -> None:
    """Write what this process saw to a file."""
    needs = sorted({name for kinds in SECTIONS.values() for kind in kinds for name in kind.needs})
    content: dict[str, Any] = {
        "python": platform.python_version(),
        "kernel": platform.release().partition("-")[0],
        "libraries": {name: metadata.version(name) for name in needs if is_installed(name)},
        "rows": seen,
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content, indent=1) + "\n")


def read(path: str) -> Run:
    """Return what a file says."""
    content = json.loads(Path(path).read_text())
    run = Run(content["python"], content["kernel"], content["libraries"])
    for row in content["rows"]:
        run.seen[row["section"], row["title"], row["contender"]] = row["seen"]
    return run
