"""The code blocks of one page, and how each is run: as it is printed, in the order of the page.

All blocks of a page share one folder.

* `python`: a program of its own. It is pasted into a file and run.
* `console`: commands after `$ `, each with the lines that it prints below it. Where there are none, anything may be
  printed. A block that is indented, or is of `sh`, is a script. What a command starts in the background runs until
  the end of the page.
* A block of any language whose first line is a comment with nothing but the name of a file (`# tasks.py`) is that
  file, for what follows.
* If "It prints" stands alone between a block and a block of `text`, that is what the program prints.
* `<!-- port: NUMBER -->` anywhere in a page: where its blocks name this port, they get one that is free. So the page
  can name the port that readers expect, and runs beside whatever has that port.
* `<!-- not run: REASON -->` above a block is the one way to have it not run. Its syntax is checked all the same.
* `text` without any of this is a drawing or an output, which no test looks at.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.house.pages import ROOT, Block, name_of, pieces_of

# Libraries beyond the tests' own requirements. What uses one that is missing is left out; `tox -e pages` has them.
LIBRARIES = (
    "dask",
    "distributed",
    "fastapi",
    "joblib",
    "loguru",
    "loky",
    "mpire",
    "opentelemetry",
    "pebble",
    "prometheus_client",
    "structlog",
    "uvicorn",
)
SHELL = ("", "sh", "console")
SECONDS = 60.0
_END_OF_OUTPUT = "\036"
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
_PORT = re.compile(r"<!-- port: (\d+) -->")
_NAME_OF_FILE = re.compile(r"(?:#|//|<!--) ([\w-][\w./-]*\.\w+|(?:[\w-]+/)*Dockerfile)(?: -->)?")


class Example(NamedTuple):
    """A block of a page. why_not: the reason for which it is not run; prints: what the page says that it prints."""

    page: Path
    block: Block
    why_not: str | None = None
    prints: str | None = None

    @property
    def name(self) -> str:
        return f"{name_of(self.page)}:{self.block.line}"

    @property
    def file(self) -> str | None:
        """The name of the file that the block is."""
        named = _NAME_OF_FILE.fullmatch(self.block.text.partition("\n")[0])
        return named[1] if named is not None and self.block.language not in SHELL else None

    @property
    def is_output(self) -> bool:
        return self.block.language == "text" and self.file is None

    @property
    def missing(self) -> list[str]:
        """The libraries that the block uses and that are not installed."""
        if self.is_output:
            return []
        if self.block.language == "python":
            used = imported_by(self.block.text)
        else:
            used = set(re.findall(r"\w+", self.block.text))
        return [library for library in LIBRARIES if library in used and not _is_installed(library)]


class Command(NamedTuple):
    """A command of the shell, and what the page says that it prints: nothing, if it says nothing."""

    text: str
    prints: str


def examples_of(page: Path) -> list[Example]:
    """Return the blocks of a page in their order. What a program prints belongs to it, and is no block of its own."""
    found: list[Example] = []
    between: list[str] = []
    for piece in pieces_of(page.read_text()):
        if isinstance(piece, str):
            between += [piece.strip()] if piece.strip() else []
            continue
        if between == ["It prints"] and piece.language == "text" and found:
            found[-1] = found[-1]._replace(prints=piece.text)
        else:
            mark = _NOT_RUN.fullmatch(between[-1]) if between else None
            found.append(Example(page, piece, mark[1] if mark is not None else None))
        between = []
    return found


def commands_of(example: Example) -> list[Command]:
    """Return the commands of a block: of a console what stands behind each "$ ", otherwise the whole block as one."""
    if example.block.language != "console":
        return [Command(example.block.text, "")]
    assert example.block.text.startswith("$ "), f"{example.name}: a console begins with a command after '$ '"
    found: list[Command] = []
    for line in example.block.text.splitlines(keepends=True):
        if line.startswith("$ "):
            found.append(Command(line[2:], ""))
        elif not found[-1].prints and found[-1].text.endswith("\\\n"):
            found[-1] = Command(found[-1].text + line, "")
        else:
            found[-1] = Command(found[-1].text, found[-1].prints + line)
    return found


def check(example: Example) -> None:
    """Check that a block is of a kind that is known and well-formed."""
    language, text = example.block.language, example.block.text
    if language == "python":
        compile(text, example.name, "exec")
    elif language in SHELL:
        for command in commands_of(example):
            subprocess.run(["bash", "-n", "-c", command.text], check=True, capture_output=True)
    elif language == "json":
        json.loads(text)
    elif language == "toml":
        tomllib.loads(text)
    else:
        known = example.is_output or example.file is not None or example.why_not is not None
        assert known, f"{example.name}: {language} is neither run, nor a file, nor marked <!-- not run: REASON -->"


class Folder:
    """Where the blocks of one page run, one after the other. What they leave running is ended with it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._groups: list[int] = []
        self._free_port: socket.socket | None = None

    def run(self, example: Example) -> None:
        """Run a block, or write the file that it is."""
        for port in _PORT.findall(example.page.read_text()):
            text = re.sub(rf"\b{port}\b", str(self._port()), example.block.text)
            example = example._replace(block=example.block._replace(text=text))
        if example.file is not None:
            path = self._path / example.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(example.block.text)
        elif example.block.language == "python":
            (self._path / "example.py").write_text(example.block.text)
            printed = self._output([sys.executable, "example.py"], example)
            self._compare(example.prints, printed, example)
        elif example.block.language in SHELL:
            commands = commands_of(example)
            script = f"printf '{_END_OF_OUTPUT}'\n".join(command.text for command in commands)
            printed = self._output(["bash", "-e", "-o", "pipefail", "-c", script], example)
            for command, part in zip(commands, printed.split(_END_OF_OUTPUT), strict=True):
                self._compare(command.prints or example.prints, part, example)

    def _port(self) -> int:
        """Return a port that nobody else gets. It stays bound here, and a server may bind it nevertheless.

        That is so because nobody listens here, and because both allow the address to be used again.
        """
        if self._free_port is None:
            self._free_port = socket.socket()
            self._free_port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._free_port.bind(("127.0.0.1", 0))
        port: int = self._free_port.getsockname()[1]
        return port

    def _compare(self, said: str | None, printed: str, example: Example) -> None:
        if said is not None:
            assert is_said(said, printed), f"{example.name} says\n{said}\nand it prints\n{printed}"

    def _output(self, command: list[str], example: Example) -> str:
        """Run a command that must succeed, and return what it printed: in a console on both streams.

        The environment is that of a user who has installed the package: `python` is the interpreter of the tests.
        """
        path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                command,
                cwd=ROOT if example.page == ROOT / "CONTRIBUTING.md" else self._path,
                env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if example.block.language == "console" else errors,
                start_new_session=True,
            )
            self._groups.append(process.pid)
            try:
                code = process.wait(SECONDS)
            finally:
                process.kill()
                process.wait()
            output.seek(0)
            errors.seek(0)
            printed = output.read()
            assert code == 0, f"{example.name} ends with {code}:\n{printed}{errors.read()}"
        return printed

    def close(self) -> None:
        """End what the blocks have left running: servers that a command has started in the background."""
        for group in self._groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        if self._free_port is not None:
            self._free_port.close()


def is_said(said: str, printed: str) -> bool:
    """Return whether a page says what is printed; "..." is anything, and white space does not matter."""
    pieces = [re.escape(" ".join(piece.split())) for piece in said.split("...")]
    pattern = ".*".join(pieces).replace(r"\ .*", ".*").replace(r".*\ ", ".*")
    return re.fullmatch(pattern, " ".join(printed.split())) is not None


def imported_by(code: str) -> set[str]:
    """Return the outermost names of the modules that a program imports."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def _is_installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None
