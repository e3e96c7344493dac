"""Every example of the documentation is run as it is printed, in the order of its page.

A block of Python is a program of its own: it is pasted into a file and run. If the page says what it prints, that is
compared; "..." there stands for anything. Commands are run in a folder that holds the files which they name.
"""

from __future__ import annotations

import ast
import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.house.pages import PAGES, ROOT, Block, blocks_of, name_of


class Example(NamedTuple):
    page: Path
    block: Block
    prints: str | None = None  # what the page says that it prints

    @property
    def name(self) -> str:
        return f"{name_of(self.page)}:{self.block.line}"


def examples() -> list[Example]:
    found = []
    for page in PAGES:
        text = page.read_text()
        lines = text.split("\n")
        blocks = blocks_of(text)
        for block, following in zip(blocks, [*blocks[1:], None], strict=False):
            between = lines[block.line + block.text.count("\n") : following.line - 2] if following is not None else []
            told = [line for line in between if line.strip()] == ["It prints"]
            found.append(Example(page, block, following.text if told and following is not None else None))
    return found


EXAMPLES = examples()
PYTHON = [example for example in EXAMPLES if example.block.language == "python"]
COMMANDS = [example for example in EXAMPLES if example.block.language in ("", "sh")]
OTHERS = {"text", "ini"}  # drawings and outputs; settings of coverage.py, which tests/worker/test_coverage.py uses

# Libraries beyond the tests' own requirements. A program that imports one is only compiled where it is missing.
NEEDS: dict[str, str] = {
    "dask": "its plugin",
    "distributed": "its executor",
    "joblib": "its backend",
    "loguru": "its messages",
    "opentelemetry": "its spans",
    "structlog": "its events",
}  # the name of the module: why a page uses it
# Commands that are not run here, and why.
NOT_RUN = {
    "python3 -m venv": "it installs from the network; the usual run begins in the same way",
    ".venv/bin/pip install": "it installs from the network",
    ".ci/run": "it runs all tests, this one included",
    ".venv/bin/pytest": "it runs tests from a test",
    ".venv/bin/ruff": "an environment of the usual run",
    ".venv/bin/mypy": "an environment of the usual run",
    "python -m benchmarks --quick": "it takes minutes",
    "python -m benchmarks --scenario": "it takes minutes",
    "python -m benchmarks --against": "it takes minutes, and another checkout",
}
IN_THE_PROJECT = ("python -m benchmarks",)  # commands that are run in the project's folder


def environment() -> dict[str, str]:
    """Return that of a user who has installed the package: `python` is the interpreter that runs the tests."""
    folder = os.path.dirname(sys.executable)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def run(command: list[str], folder: Path) -> str:
    """Run a command that must succeed, and return what it printed."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_printed(said: str, printed: str) -> None:
    """Compare what a page says that is printed; "..." is anything, and white space does not matter."""
    pieces = [re.escape(" ".join(piece.split())) for piece in said.split("...")]
    assert re.fullmatch(".*".join(pieces).replace(r"\ .*", ".*").replace(r".*\ ", ".*"), " ".join(printed.split())), (
        f"the page says\n{said}\nand it prints\n{printed}"
    )


def imported_by(code: str) -> set[str]:
    """Return the outermost names of the modules that a program imports."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("example", PYTHON, ids=[example.name for example in PYTHON])
def test_a_program_runs_as_it_is_printed(example, tmp_path):
    compile(example.block.text, example.name, "exec")
    for module in imported_by(example.block.text) & set(NEEDS):
        pytest.importorskip(module)
    path = tmp_path / "example.py"
    path.write_text(example.block.text)
    printed = run([sys.executable, str(path)], tmp_path)
    if example.prints is not None:
        assert_printed(example.prints, printed)


def commands_of(example: Example) -> list[str]:
    return example.block.text.replace("\\\n", " ").splitlines()


RUN = [
    (example, command)
    for example in COMMANDS
    for command in commands_of(example)
    if command and not command.startswith(tuple(NOT_RUN))
]


@pytest.fixture
def folder(tmp_path):
    """Give a folder with what the commands of the pages name."""
    events = "".join(json.dumps({"id": number}) + "\n" for number in range(20))
    with gzip.open(tmp_path / "events.jsonl.gz", "wt") as file:
        file.write(events)
    (tmp_path / "big.jsonl").write_text(events)
    consume = "def consume(node, *queues):\n    node.healthy()\n"  # nothing is in them
    (tmp_path / "mymodule.py").write_text(f"def clean(event):\n    return event\n\nscore = clean\n\n{consume}")
    return tmp_path


@pytest.mark.parametrize(
    ("example", "command"), RUN, ids=[f"{example.name}-{number}" for number, (example, _) in enumerate(RUN)]
)
def test_a_command_runs_as_it_is_printed(example, command, folder):
    place = ROOT if command.startswith(IN_THE_PROJECT) else folder
    run(["bash", "-e", "-o", "pipefail", "-c", command], place)


def test_no_reason_for_not_running_something_is_out_of_date():
    commands = [command for example in COMMANDS for command in commands_of(example)]
    for beginning in NOT_RUN:
        assert any(command.startswith(beginning) for command in commands), beginning
    assert set(NEEDS) <= set().union(*(imported_by(example.block.text) for example in PYTHON))


def test_files_that_commands_name_are_there():
    for example in COMMANDS:
        for command in commands_of(example):
            for word in re.findall(r"(?:tests|docs|benchmarks)/[\w/.]+", command):
                assert (ROOT / word).exists(), (example.name, command)


def test_every_block_is_of_a_kind_that_is_known():
    for example in EXAMPLES:
        assert example.block.language in {"python", "sh", "", *OTHERS}, example.name


def test_outputs_are_compared_loosely():
    assert_printed("a\n...\nc\n", "a\nb\nb2\nc\n")
    assert_printed("a ... c", "a c")
    with pytest.raises(AssertionError):
        assert_printed("a\n...\nc\n", "a\nb\n")
