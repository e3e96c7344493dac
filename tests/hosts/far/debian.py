"""What hosts from Debian's packages need: its own Python, and a copy of the pool that every user can read."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cloudpickle
import pytest

from tests.conditions import ROOT

PYTHON = "/usr/bin/python3"
# What an init gives its services. A development environment's own Python would come first otherwise.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def needs(*programs: str) -> None:
    """Skip the case unless these programs, or the files of these names, are there."""
    for program in programs:
        if shutil.which(program, path=PATH) is None and not os.path.exists(program):
            pytest.skip(f"{program} is not installed; tests/hosts/far/install does that")


def needs_root() -> None:
    if os.geteuid():
        pytest.skip("a server that runs as a user of its own needs root to start it")


@contextmanager
def installed() -> Iterator[Path]:
    """Make a folder for PYTHONPATH with the pool, what it needs, and the programs of these tests.

    Servers run as users that cannot read the checkout, or the folders that pytest makes.
    """
    with public_folder() as folder:
        without = shutil.ignore_patterns("__pycache__")
        for name in ("pidfdpool", "tests"):
            shutil.copytree(os.path.join(ROOT, name), folder / name, ignore=without)
        shutil.copytree(os.path.dirname(cloudpickle.__file__), folder / "cloudpickle", ignore=without)
        yield folder


@contextmanager
def public_folder(user: str | None = None) -> Iterator[Path]:
    """Make a folder that every user can read; user: whose it is to be."""
    with tempfile.TemporaryDirectory(prefix="far-", ignore_cleanup_errors=True) as name:
        os.chmod(name, 0o755)
        if user is not None:
            known = pwd.getpwnam(user)
            os.chown(name, known.pw_uid, known.pw_gid)
        yield Path(name)


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return what a host with Debian's Python finds in its environment, beside what every host finds."""
    return {"PYTHONPATH": str(home), "PATH": PATH, "HOME": "/nonexistent", **more}
