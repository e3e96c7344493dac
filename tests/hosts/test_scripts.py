"""A program is run in each of the ways that Python knows; what it defines is used in workers."""

from __future__ import annotations

import sys
import zipapp

import pytest

from tests.conditions import marked
from tests.hosts.interactive import expect_fine, last_error
from tests.hosts.observing import expect, expect_nothing_left, run
from tests.hosts.programs import session

SECTION = "Scripts"


def as_file(folder):
    (folder / "program.py").write_text(session.script())
    return ["program.py"], None


def as_command(_folder):
    return ["-c", session.script()], None


def on_standard_input(_folder):
    return ["-"], session.script()


def as_module(folder):
    (folder / "program.py").write_text(session.script())
    return ["-m", "program"], None


def as_module_of_a_package(folder):
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").touch()
    (folder / "package" / "program.py").write_text(session.script())
    return ["-m", "package.program"], None


def as_package(folder):
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").touch()
    (folder / "package" / "parts.py").write_text("def double(number):\n    return 2 * number\n")
    program = f"{session.script()}\nfrom .parts import double\nassert pool.submit(double, 2).result(20) == 4\n"
    (folder / "package" / "__main__.py").write_text(program)
    return ["-m", "package"], None


def as_folder(folder):
    _with_parts(folder / "app")
    return ["app"], None


def as_zipapp(folder):
    _with_parts(folder / "app")
    zipapp.create_archive(folder / "app", folder / "app.pyz")
    return ["app.pyz"], None


def _with_parts(folder):
    folder.mkdir()
    (folder / "parts.py").write_text("def double(number):\n    return 2 * number\n")
    program = f"{session.script()}\nfrom parts import double\nassert pool.submit(double, 2).result(20) == 4\n"
    (folder / "__main__.py").write_text(program)


def by_runpy(folder):
    (folder / "program.py").write_text(session.script())
    return ["-c", "import runpy; runpy.run_path('program.py', run_name='__main__')"], None


def by_runpy_under_another_name(folder):
    (folder / "program.py").write_text(session.script())
    return ["-c", "import runpy; runpy.run_path('program.py')"], None


def by_exec(folder):
    (folder / "program.py").write_text(session.script())
    return ["-c", "exec(open('program.py').read(), {'__name__': 'a name that no module has'})"], None


WAYS = {
    "python program.py, without a guard": as_file,
    "python -c": as_command,
    "python - < program.py": on_standard_input,
    "python -m module": as_module,
    "python -m package.module": as_module_of_a_package,
    "python -m package": as_package,
    "python folder": as_folder,
    "python app.pyz": as_zipapp,
    "runpy.run_path, as __main__": by_runpy,
    "runpy.run_path": by_runpy_under_another_name,
    "exec": by_exec,
}


@pytest.mark.case(SECTION, "functions, classes and exceptions of the program itself go to workers and come back")
@pytest.mark.parametrize("way", WAYS)
def test_what_a_program_defines(contender, way, tmp_path):
    arguments, typed = WAYS[way](tmp_path)
    env = marked("script")
    command = [sys.executable, *arguments]
    options = {} if typed is None else {"stdin": _file(tmp_path, typed)}
    expect_fine(run(contender, command, env=env, cwd=tmp_path, **options))
    expect_nothing_left(env)


def _file(folder, text):
    (folder / "input").write_text(text)
    return (folder / "input").open()


MOVED = """
import os
import tools
from tests.hosts.programs.contender import ProcessPoolExecutor
os.mkdir("elsewhere")
os.chdir("elsewhere")
with ProcessPoolExecutor(1) as pool:
    print(pool.submit(tools.double, 4).result(20))
"""


@pytest.mark.case(
    SECTION, "python -c: a module of the current directory is imported, then os.chdir; then its function"
)
def test_the_current_directory_changes(contender, tmp_path):
    (tmp_path / "tools.py").write_text("from parts import double\n\ndef triple(number):\n    return 3 * number\n")
    (tmp_path / "parts.py").write_text("def double(number):\n    return 2 * number\n")
    done = run(contender, [sys.executable, "-c", MOVED], cwd=tmp_path)
    expect(done.stdout == "8\n", last_error(done.stderr) or "a wrong result", done.stderr)
