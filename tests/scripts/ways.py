"""The ways in which Python runs a script: each lays the script into a folder and returns how to start it there."""

from __future__ import annotations

import zipapp
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Start:
    """How a script is started: the arguments of the interpreter, what it reads, and where it is."""

    arguments: tuple[str, ...]
    cwd: Path
    stdin: str = ""


def _as_file(folder: Path, text: str) -> Start:
    (folder / "script.py").write_text(text)
    return Start(("script.py",), folder)


def _by_path(folder: Path, text: str) -> Start:
    (folder / "app").mkdir()
    (folder / "elsewhere").mkdir()
    (folder / "app" / "script.py").write_text(text)
    return Start((str(folder / "app" / "script.py"),), folder / "elsewhere")


def _from_above(folder: Path, text: str) -> Start:
    (folder / "app").mkdir()
    (folder / "app" / "script.py").write_text(text)
    return Start(("app/script.py",), folder)


def _with_spaces(folder: Path, text: str) -> Start:
    place = folder / "My Documents (new)"
    place.mkdir()
    (place / "my script.py").write_text(text)
    return Start(("my script.py",), place)


def _dashed(folder: Path, text: str) -> Start:
    (folder / "2-run.jobs.py").write_text(text)
    return Start(("2-run.jobs.py",), folder)


def _without_suffix(folder: Path, text: str) -> Start:
    (folder / "run-jobs").write_text(f"#!/usr/bin/env python3\n{text}")
    return Start(("run-jobs",), folder)


def _as_module(folder: Path, text: str) -> Start:
    (folder / "script.py").write_text(text)
    return Start(("-m", "script"), folder)


def _as_module_of_package(folder: Path, text: str) -> Start:
    _package(folder / "package")
    (folder / "package" / "script.py").write_text(text)
    return Start(("-m", "package.script"), folder)


def _as_package(folder: Path, text: str) -> Start:
    _package(folder / "package")
    (folder / "package" / "__main__.py").write_text(text)
    return Start(("-m", "package"), folder)


def _package(folder: Path) -> None:
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "parts.py").write_text("def double(number):\n    return 2 * number\n")


def _as_folder(folder: Path, text: str) -> Start:
    (folder / "app").mkdir()
    (folder / "app" / "__main__.py").write_text(text)
    return Start(("app",), folder)


def _as_zipapp(folder: Path, text: str) -> Start:
    _as_folder(folder, text)
    zipapp.create_archive(folder / "app", folder / "app.pyz")
    return Start(("app.pyz",), folder)


def _as_link(folder: Path, text: str) -> Start:
    (folder / "app").mkdir()
    (folder / "app" / "script.py").write_text(text)
    (folder / "run").symlink_to("app/script.py")
    return Start(("run",), folder)


def _on_standard_input(folder: Path, text: str) -> Start:
    return Start(("-",), folder, text)


def _at_the_prompt(folder: Path, text: str) -> Start:
    return Start(("-i", "-q"), folder, text)


def _as_command(folder: Path, text: str) -> Start:
    return Start(("-c", text), folder)


def _by_runpy(folder: Path, text: str) -> Start:
    (folder / "script.py").write_text(text)
    return Start(("-c", "import runpy; runpy.run_path('script.py', run_name='__main__')"), folder)


_KERNEL = """
import sys
for cell in open("cells").read().split("\\n#%%\\n"):
    exec(compile(cell, f"<cell {cell[:9]!r}>", "exec"), vars(sys.modules["__main__"]))
"""


def _in_cells(folder: Path, text: str) -> Start:
    (folder / "cells").write_text(text)
    return Start(("-c", _KERNEL), folder)


WAYS: dict[str, Callable[[Path, str], Start]] = {
    "python script.py": _as_file,
    "python /path/to/script.py": _by_path,
    "python app/script.py": _from_above,
    'python "my script.py"': _with_spaces,
    "python 2-run.jobs.py": _dashed,
    "python run-jobs": _without_suffix,
    "python link-to-script": _as_link,
    "python -m script": _as_module,
    "python -m package.script": _as_module_of_package,
    "python -m package": _as_package,
    "python folder": _as_folder,
    "python app.pyz": _as_zipapp,
    "python - < script.py": _on_standard_input,
    "python -i": _at_the_prompt,
    "python -c": _as_command,
    "runpy.run_path": _by_runpy,
    "cells": _in_cells,
}
