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


@pytest.mark.costly_table
@pytest.mark.case(SECTION, "functions, classes and exceptions of the program itself go to workers and come back")
@pytest.mark.parametrize("way", WAYS)
def test_what_a_program_defines(contender, way, tmp_path):
    arguments, typed = WAYS[way](tmp_path)
    env = marked("script")
    command = [sys.executable, *arguments]
    options = {} if typed is None else {"stdin": _file(tmp_path, typed)}
    expect_fine(run(contender, command, env=env, cwd=tmp_path, **options))
    expect_nothing_left(env)


ADDING = """
def init(value):
    global base
    base = value

def work(number):
    return base + number
"""
ADDED = "init, (5,)", "[pool.submit(work, 1).result(20), *pool.map(work, [2, 3])]", [6, 7, 8]

LASTING = {
    "what an initializer sets": (ADDING, *ADDED),
    "what an initializer sets over a value of the script": ("base = None\n" + ADDING, *ADDED),
    "a counter": (
        """
calls = 0

def count():
    global calls
    calls += 1
    return calls
""",
        "None, ()",
        "[pool.submit(count).result(20) for _ in range(3)]",
        [1, 2, 3],
    ),
    "a cache that is filled when first used": (
        """
cache = {}
loaded = []

def load(name):
    if name not in cache:
        loaded.append(name)
        cache[name] = object()
    return list(loaded)
""",
        "None, ()",
        "[pool.submit(load, name).result(20) for name in 'aba']",
        [["a"], ["a", "b"], ["a", "b"]],
    ),
    "functools.lru_cache": (
        """
import functools

calls = []

@functools.lru_cache
def square(number):
    calls.append(number)
    return number * number

def all_calls():
    return calls
""",
        "None, ()",
        "[*pool.map(square, [2, 3, 2, 3]), pool.submit(all_calls).result(20)]",
        [4, 9, 4, 9, [2, 3]],
    ),
    "an attribute of a class": (
        """
class Model:
    loaded = 0

    @classmethod
    def use(cls):
        cls.loaded += 1
        return cls.loaded
""",
        "None, ()",
        "[pool.submit(Model.use).result(20) for _ in range(3)]",
        [1, 2, 3],
    ),
}

LASTING_PROGRAM = """
from tests.hosts.programs.contender import ProcessPoolExecutor
{definitions}
if __name__ in ("__main__", "<run_path>"):
    initializer, initargs = {initializer}
    with ProcessPoolExecutor(1, initializer=initializer, initargs=initargs) as pool:
        print({uses})
"""


@pytest.mark.costly_table
@pytest.mark.case(
    SECTION, "in the globals of the program there lasts, from one task of a worker to the next", ways="both"
)
@pytest.mark.parametrize("what", LASTING)
def test_what_a_worker_keeps(contender, what, tmp_path):
    definitions, initializer, uses, results = LASTING[what]
    program = LASTING_PROGRAM.format(definitions=definitions, initializer=initializer, uses=uses)
    (tmp_path / "program.py").write_text(program)
    for arguments in (["program.py"], ["-m", "program"], *by_runpy_of("program.py")):
        done = run(contender, [sys.executable, *arguments], cwd=tmp_path)
        expect(done.stdout == f"{results}\n", last_error(done.stderr) or "a wrong result", done.stdout + done.stderr)


def by_runpy_of(path):
    run_it = f"import runpy; runpy.run_path({path!r}"
    return ["-c", f"{run_it}, run_name='__main__')"], ["-c", f"{run_it})"]


CHANGES = """
from tests.hosts.programs.contender import ProcessPoolExecutor

limit = 1

def look():
    return limit

if __name__ == "__main__":
    with ProcessPoolExecutor(1) as pool:
        futures = [pool.submit(look)]
        futures[0].result(20)
        for limit in (2, 2, 3):
            futures.append(pool.submit(look))
        limit = 4
        print([future.result(20) for future in futures])
"""


@pytest.mark.case(
    SECTION, "the program changes a global between two submits: each task sees what there was at its own"
)
def test_the_program_changes_a_global(contender, tmp_path):
    (tmp_path / "program.py").write_text(CHANGES)
    done = run(contender, [sys.executable, "program.py"], cwd=tmp_path)
    expect(done.stdout == "[1, 2, 2, 3]\n", last_error(done.stderr) or f"they see {done.stdout.strip()}", done.stderr)


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
