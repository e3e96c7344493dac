"""Builds of ours: a checkout or a wheel, installed as a compiled copy into a virtual environment of its own.

Nothing is downloaded and no backend builds anything, because the package is pure Python: an installer would copy the
same files and compile them. What it needs is taken from the environment in which this runs, the same for all builds.
"""

from __future__ import annotations

import compileall
import shutil
import subprocess
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "pidfdpool"
_COPIED = ("cloudpickle",)  # each process loads it, so it is compiled like the rest
_LINKED = ("numpy", "numpy.libs")  # large, and there for scenarios with arrays only
_NOT_COPIED = shutil.ignore_patterns("__pycache__")
_PROBE = f"import benchmarks.measure, {PACKAGE} as build; print(build.__file__, build.__version__, sep=chr(10))"


class BadBuildError(Exception):
    """What was given is no build that can be measured; the message names it."""


@dataclass(frozen=True)
class Build:
    """A build that is installed: its interpreter, and the version that it gives itself."""

    python: str
    version: str


def checked(path: Path) -> Path:
    """Return the absolute path of a build's source: a checkout or a wheel.

    Raises:
        BadBuildError: it is neither.
    """
    path = path.absolute()
    if path.is_dir():
        if not (path / PACKAGE / "__init__.py").is_file():
            raise BadBuildError(f"{path} is no checkout: there is no {PACKAGE}/__init__.py in it")
    elif not path.exists():
        raise BadBuildError(f"{path} does not exist")
    elif not zipfile.is_zipfile(path):
        raise BadBuildError(f"{path} is neither a checkout's directory nor a wheel")
    elif f"{PACKAGE}/__init__.py" not in zipfile.ZipFile(path).namelist():
        raise BadBuildError(f"{path} is no wheel of ours: there is no {PACKAGE}/__init__.py in it")
    return path


def installed(source: Path, benchmarks: Path, folder: Path) -> Build:
    """Install a build and these benchmarks into a new virtual environment, which has this interpreter.

    Raises:
        BadBuildError: it cannot be imported there, or another one is.
    """
    venv.EnvBuilder(symlinks=True).create(folder)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    if source.is_dir():
        shutil.copytree(source / PACKAGE, site / PACKAGE, ignore=_NOT_COPIED)
    else:
        with zipfile.ZipFile(source) as wheel:
            wheel.extractall(site)
    shutil.copytree(benchmarks, site / "benchmarks", ignore=_NOT_COPIED)
    for name in _COPIED:
        if (there := _place_of(name)) is not None:
            shutil.copytree(there, site / name, ignore=_NOT_COPIED)
    for name in _LINKED:
        if (there := _place_of(name)) is not None:
            (site / name).symlink_to(there)
    compileall.compile_dir(site, quiet=2)
    return _probed(source, folder)


def _place_of(name: str) -> Path | None:
    """Return the folder of a package here, or one beside that, such as numpy.libs; nothing if it is not installed."""
    spec = find_spec(name.partition(".")[0])
    if spec is None or spec.origin is None:
        return None
    place = Path(spec.origin).parents[1] / name
    return place if place.is_dir() else None


def _probed(source: Path, folder: Path) -> Build:
    python = str(folder / "bin" / "python")
    done = subprocess.run([python, "-c", _PROBE], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BadBuildError(f"{source} cannot be measured: {reason}")
    file, version = done.stdout.splitlines()
    if not Path(file).is_relative_to(folder):
        raise BadBuildError(f"{source} cannot be measured: {file} is imported instead")
    return Build(python, version)
