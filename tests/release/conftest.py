"""Both distributions, built once for all tests of this folder; `tox -e release` has what they need."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.house.pages import ROOT


class Distributions(NamedTuple):
    sdist: Path
    wheel: Path

    def files_of_sdist(self) -> set[str]:
        """Return the files' paths below the one folder that it holds."""
        with tarfile.open(self.sdist) as archive:
            return {name.partition("/")[2] for name in archive.getnames()}

    def files_of_wheel(self) -> set[str]:
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())

    def metadata(self) -> str:
        with zipfile.ZipFile(self.wheel) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            return archive.read(name).decode()


@pytest.fixture(scope="session")
def distributions(tmp_path_factory) -> Distributions:
    """Build the source distribution of this tree, and of that the wheel, as `python -m build` does."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    assert len([*folder.iterdir()]) == 2
    return Distributions(sdist, wheel)
