"""Another build is installed beside this one, and both are measured. What is no build is named at once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks import builds
from benchmarks.builds import BadBuildError, checked, installed
from tests.conditions import ROOT

PACKAGE = Path(ROOT) / "pidfdpool"


def runner(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def wheel(tmp_path):
    """Return a wheel of this tree, under another version."""
    path = tmp_path / "pidfdpool-0.0.1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in PACKAGE.rglob("*.py"):
            archive.write(file, file.relative_to(ROOT))
        archive.writestr("pidfdpool-0.0.1.dist-info/METADATA", "Name: pidfdpool\n")
    other = tmp_path / "other.whl"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            text = '__version__ = "0.0.1"\n' if name == "pidfdpool/_version.py" else old.read(name)
            new.writestr(name, text)
    return other


def test_both_builds_are_measured_in_turn_and_written(tmp_path, wheel):
    file, page = tmp_path / "run.json", tmp_path / "page.md"
    chosen = ("--scenario", "first-result", "--quick", "--rounds", 1)
    done = runner("--against", wheel, *chosen, "--json", file, "--page", page, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    run = json.loads(file.read_text())
    assert run["against"]["other"] == {"path": str(wheel), "version": "0.0.1"}
    assert run["against"]["this"]["path"] == ROOT
    assert run["against"]["this"]["version"] != "0.0.1"
    assert set(run["results"]["first-result"]) == {"ours@this", "ours@other"}
    for (answer,) in run["results"]["first-result"].values():
        assert 0 < answer["values"]["submitted"] <= answer["values"]["first"]
    row = next(line for line in done.stdout.splitlines() if line.startswith("| first-result"))
    assert row in page.read_text()


def test_a_path_that_is_no_build_is_named_at_once(tmp_path):
    done = runner("--against", tmp_path, cwd=ROOT)
    assert done.returncode == 2
    assert f"--against: {tmp_path} is no checkout: there is no pidfdpool/__init__.py in it" in done.stderr


def test_only_a_checkout_or_a_wheel_is_a_build(tmp_path, wheel):
    assert checked(Path(ROOT)) == Path(ROOT)
    assert checked(wheel) == wheel
    text = tmp_path / "notes.txt"
    text.write_text("no build")
    with pytest.raises(BadBuildError, match="notes.txt is neither a checkout's directory nor a wheel"):
        checked(text)
    stranger = tmp_path / "stranger-1-py3-none-any.whl"
    with zipfile.ZipFile(stranger, "w") as archive:
        archive.writestr("stranger.py", "")
    with pytest.raises(BadBuildError, match=r"stranger-1-py3-none-any.whl is no wheel of ours"):
        checked(stranger)


def test_what_is_installed_is_compiled_and_is_a_copy(tmp_path, wheel):
    build = installed(wheel, Path(ROOT) / "benchmarks", tmp_path / "venv")
    assert build.version == "0.0.1"
    files = list((tmp_path / "venv").rglob("pidfdpool/**/*.py"))
    assert len(files) == len(list(PACKAGE.rglob("*.py")))
    for file in files:
        assert list((file.parent / "__pycache__").glob(f"{file.stem}.*.pyc")), file
        assert not file.is_symlink()


def test_a_build_that_cannot_be_imported_is_named_with_the_reason(tmp_path):
    checkout = tmp_path / "broken"
    shutil.copytree(PACKAGE, checkout / builds.PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / builds.PACKAGE / "__init__.py").write_text("import no_such_module\n")
    with pytest.raises(BadBuildError, match="broken cannot be measured: ModuleNotFoundError.*no_such_module"):
        installed(checkout, Path(ROOT) / "benchmarks", tmp_path / "venv")
