"""What would be uploaded today: it holds what it should, an index takes it, and it works where nothing else is."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

from pidfdpool import __version__
from tests.house.pages import ROOT, blocks_of

# What is allowed, in bytes. Deflate makes a third of the source, comments and docstrings included, and each file adds
# 200 bytes of names. The limits are there to notice tests, pictures or data that have come in by mistake.
LARGEST_WHEEL = 1_100_000
LARGEST_SDIST = 3_000_000


def run(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(
        [str(each) for each in command],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, (command, done.stdout + done.stderr)
    return done.stdout


def test_an_index_takes_them(distributions, tmp_path):
    pytest.importorskip("twine")
    run(sys.executable, "-m", "twine", "check", "--strict", *distributions, folder=tmp_path)


def test_they_have_the_version_that_the_package_tells(distributions):
    assert distributions.wheel.name == f"pidfdpool-{__version__}-py3-none-any.whl"
    assert distributions.sdist.name == f"pidfdpool-{__version__}.tar.gz"


def test_neither_is_too_large(distributions):
    assert distributions.wheel.stat().st_size < LARGEST_WHEEL
    assert distributions.sdist.stat().st_size < LARGEST_SDIST


def test_the_wheel_holds_the_package_and_nothing_else(distributions):
    files = distributions.files_of_wheel()
    information = f"pidfdpool-{__version__}.dist-info/"
    assert all(name.startswith(("pidfdpool/", information)) for name in files)
    ours = {f"pidfdpool/{path.relative_to(ROOT / 'pidfdpool')}" for path in (ROOT / "pidfdpool").rglob("*")}
    packed = {name for name in files if name.startswith("pidfdpool/")}
    assert {name for name in ours if name.endswith(".py")} <= packed <= ours
    assert "pidfdpool/py.typed" in packed
    assert not [name for name in packed if name.endswith((".pyc", ".so"))]
    assert f"{information}licenses/LICENSE" in files


def test_the_source_distribution_holds_all_that_version_control_holds(distributions):
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this tree is not a checkout")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", folder=ROOT).split("\0")
    present = {name for name in listed if name and (ROOT / name).exists()}
    assert distributions.files_of_sdist() == present | {"PKG-INFO"}


def test_programs_in_the_source_distribution_can_be_started(distributions):
    with tarfile.open(distributions.sdist) as archive:
        modes = {member.name.partition("/")[2]: member.mode for member in archive.getmembers()}
    for path in (".ci/run", *(name for name in modes if name.startswith("findings/") and name.endswith(".sh"))):
        assert modes[path] & 0o111, path


def test_links_of_the_project_have_one_base(distributions):
    urls = dict(re.findall(r"^Project-URL: (\w+), (\S+)$", distributions.metadata(), re.MULTILINE))
    assert {"Documentation", "Source", "Changelog", "Issues"} <= set(urls)
    assert all(url.startswith(urls["Source"]) for url in urls.values())


def program() -> tuple[str, str | None]:
    """Return the first program of README.md, and what README says that it prints."""
    text = (ROOT / "README.md").read_text()
    blocks = blocks_of(text)
    number, block = next((number, block) for number, block in enumerate(blocks) if block.language == "python")
    following = blocks[number + 1]
    return block.text, following.text if following.language == "text" else None


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_the_program_of_the_readme_runs_where_nothing_else_is_installed(distributions, kind, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    file = getattr(distributions, kind)
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", file, folder=tmp_path)
    text, prints = program()
    (tmp_path / "program.py").write_text(text)
    printed = run(python, "program.py", folder=tmp_path)
    if prints is not None:
        first, *_, last = prints.split("\n")[:-1]
        assert (printed.split("\n")[0], printed.split("\n")[-2]) == (first, last)
    assert run(python, "-m", "pidfdpool", "--version", folder=tmp_path) == f"pidfdpool {__version__}\n"
    assert run(python, "-c", "import pidfdpool; print(pidfdpool.__file__)", folder=tmp_path).startswith(str(tmp_path))
