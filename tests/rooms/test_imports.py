"""The house: imports point strictly downward, and processes load no more than they need."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

import pytest

import pidfdpool
from tests.conditions import run_python

PACKAGE = Path(pidfdpool.__file__).parent

# A room may import rooms of lower storeys, and of its own only where that is named.
STOREYS = {
    "cli": 5,
    "__main__": 5,
    "__init__": 5,
    "executor": 3,
    "arguments": 3,
    "explaining": 3,
    "lifecycle": 3,
    "mapping": 3,
    "guided": 3,
    "awaiting": 3,
    "amapping": 3,
    "options": 3,
    "futures": 3,
    "loop": 2,
    "template": 2,
    "worker": 2,
    "hygiene": 2,
    "exiting": 2,
    "lifeline": 0,
    "channel": 2,
    "tokens": 2,
    "chunks": 2,
    "blackbox": 1,
    "chunking": 1,
    "machine": 1,
    "policy": 1,
    "rules": 1,
    "wire": 1,
    "grammar": 1,
    "payload": 1,
    "plain": 1,
    "salvage": 1,
    "segments": 1,
    "inheritance": 1,
    "preparation": 1,
    "context": 0,
    "actions": 0,
    "chains": 0,
    "checks": 0,
    "deaths": 0,
    "events": 0,
    "records": 0,
    "typed": 0,
    "errors": 0,
    "findable": 0,
    "picklers": 0,
    "rebuilding": 0,
    "definitions": 0,
    "namespaces": 0,
    "naming": 0,
    "entries": 0,
    "leftouts": 0,
    "reducing": 0,
    "remaking": 0,
    "scripts": 0,
    "main_module": 0,
    "unavailable": 0,
    "origins": 0,
    "keeping": 0,
    "misspelt": 0,
    "pidfd": 0,
    "native": 0,
    "counters": 0,
    "sandbox": 1,
    "spinning": 0,
    "describing": 0,
    "interruptible": 0,
    "journal": 0,
    "_version": 0,
}
BESIDE = {
    ("pidfd", "describing"),
    ("context", "describing"),
    ("origins", "keeping"),
    ("__main__", "cli"),
    ("pidfd", "checks"),
    ("checks", "describing"),
    ("loop", "chunks"),
    ("chunks", "worker"),  # for how a position is to be read
    ("salvage", "payload"),
    ("executor", "arguments"),
    ("executor", "explaining"),
    ("guided", "explaining"),
    ("executor", "lifecycle"),
    ("executor", "mapping"),
    ("executor", "options"),
    ("options", "mapping"),
    ("mapping", "guided"),
    ("awaiting", "lifecycle"),
    ("amapping", "awaiting"),
    ("amapping", "guided"),
    ("amapping", "mapping"),
    ("executor", "amapping"),
    ("executor", "awaiting"),
    ("options", "amapping"),
    ("options", "awaiting"),
    ("executor", "futures"),
    ("options", "futures"),
    ("futures", "lifecycle"),
    ("loop", "template"),  # its client half
    ("loop", "worker"),  # for the names of what runs there
    ("loop", "channel"),
    ("loop", "hygiene"),
    ("template", "worker"),
    ("template", "hygiene"),
    ("template", "exiting"),
    ("worker", "exiting"),
    ("exiting", "hygiene"),
    ("template", "channel"),
    ("loop", "tokens"),
    ("worker", "tokens"),
    ("worker", "hygiene"),
    ("worker", "channel"),
    ("grammar", "wire"),
    ("inheritance", "payload"),
    ("rebuilding", "context"),
    ("entries", "definitions"),
    ("entries", "leftouts"),
    ("entries", "namespaces"),
    ("entries", "naming"),
    ("entries", "origins"),
    ("entries", "picklers"),
    ("entries", "scripts"),
    ("leftouts", "describing"),
    ("leftouts", "errors"),
    ("leftouts", "namespaces"),
    ("naming", "namespaces"),
    ("naming", "origins"),
    ("naming", "picklers"),
    ("naming", "reducing"),
    ("naming", "remaking"),
    ("naming", "scripts"),
    ("definitions", "reducing"),
    ("reducing", "remaking"),
    ("remaking", "namespaces"),
    ("origins", "namespaces"),
    ("main_module", "entries"),
    ("main_module", "native"),
    ("interruptible", "native"),
    ("main_module", "rebuilding"),
    ("main_module", "namespaces"),
    ("namespaces", "describing"),
    ("namespaces", "scripts"),
    ("main_module", "scripts"),
    ("namespaces", "unavailable"),
    ("unavailable", "errors"),
    ("segments", "payload"),
    ("payload", "plain"),
    ("segments", "plain"),
    ("pidfd", "native"),
    ("lifeline", "native"),
    ("pidfd", "counters"),
    ("counters", "native"),
    ("deaths", "records"),
    ("actions", "records"),
    ("events", "records"),
    ("machine", "policy"),
    ("machine", "rules"),
}
# Only for type checkers: what a lower storey is told of a higher one by name.
TYPES = {
    ("keeping", "namespaces"),
    ("salvage", "wire"),
    ("lifecycle", "executor"),
    ("options", "executor"),
    ("options", "guided"),
    ("executor", "guided"),
    ("loop", "futures"),
    ("worker", "template"),
    ("payload", "wire"),
    ("definitions", "namespaces"),
    ("definitions", "naming"),
    ("segments", "wire"),
    ("inheritance", "wire"),
    ("rules", "policy"),
    ("deaths", "actions"),
    ("deaths", "pidfd"),
    ("errors", "deaths"),
    ("errors", "pidfd"),
    ("actions", "pidfd"),
    ("events", "pidfd"),
    ("events", "policy"),
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path):
    """Yield (imported room, whether it is for type checkers only)."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "pidfdpool":
            names = [node.module] if "." in node.module else [f"pidfdpool.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("pidfdpool.")]
        for name in names:
            yield name.split(".")[1], id(node) in typing_only


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downward(path):
    room = room_of(path)
    if room == "__init__":
        return  # the front door names every room, and opens none before it is asked
    for imported, typing_only in imports_of(path):
        if imported == room or imported not in STOREYS:
            assert imported in STOREYS or imported in pidfdpool.__all__, f"{imported} is no room"
            continue
        allowed = (
            STOREYS[imported] < STOREYS[room]
            or (room, imported) in BESIDE
            or (typing_only and (room, imported) in TYPES)
        )
        assert allowed, f"{room} (storey {STOREYS[room]}) imports {imported} (storey {STOREYS[imported]})"


def test_every_file_is_short_enough_to_read():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 400, path


def test_every_file_says_what_it_is():
    for path in FILES:
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_pure_rooms_touch_nothing():
    pure = [PACKAGE / f"{name}.py" for name in ("rules", "policy", "chunking", "checks", "events", "actions", "wire")]
    for path in [*pure, *(PACKAGE / "machine").glob("*.py")]:
        tree = ast.parse(path.read_text())
        modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names} | {
            node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        }
        assert not modules & {"os", "time", "socket", "select", "signal", "threading", "subprocess"}, path


# What costs more to load than all of ours together, or makes a start slow in other ways.
HEAVY = {
    "asyncio", "cloudpickle", "concurrent.futures", "ctypes", "dataclasses", "difflib", "enum", "inspect", "logging",
    "multiprocessing", "numpy", "pickle", "queue", "random", "re", "selectors", "signal", "socket", "subprocess",
    "tempfile", "threading", "traceback", "typing", "weakref",
}  # fmt: skip


def loaded_by(code: str, names: set[str]) -> set[str]:
    """Return which of these a fresh interpreter has loaded after the code, and had not before."""
    done = run_python(
        f"import sys; before = set(sys.modules)\n{code}\nprint(*sorted({names} & (set(sys.modules) - before)))"
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def test_the_package_itself_loads_nothing():
    assert loaded_by("import pidfdpool", HEAVY) == set()
    assert loaded_by("import pidfdpool.pidfd", HEAVY) == set()


def test_the_template_loads_nothing_heavy_before_its_first_worker():
    its_own = {
        "executor",
        "machine",
        "loop",
        "errors",
        "policy",
        "template.undertaker",
        "template.guard",
        "pidfd.base",
    }
    heavy = HEAVY | {f"pidfdpool.{name}" for name in its_own}
    assert loaded_by("import pidfdpool.template.process, pidfdpool.worker.process", heavy) == set()


def test_an_executor_loads_nothing_that_only_some_tasks_need():
    seldom = {"asyncio", "cloudpickle", "ctypes", "dataclasses", "difflib", "inspect", "numpy"}
    seldom |= {
        f"pidfdpool.{name}" for name in ("amapping", "awaiting", "guided", "mapping", "options", "template.process")
    }
    assert loaded_by("from pidfdpool import PidfdPoolExecutor; PidfdPoolExecutor(1)", seldom) == set()


def test_a_worker_has_no_more_loaded_than_its_task_asks_for():
    code = """
        from pidfdpool import PidfdPoolExecutor
        with PidfdPoolExecutor(1) as pool:
            print(*pool.submit(eval, f"sorted({heavy} & set(__import__('sys').modules))").result())
    """
    done = run_python(f"heavy = {HEAVY}\n{textwrap.dedent(code)}")
    assert (set(done.stdout.split()), done.stderr) == (loaded_at_start(), "")


def loaded_at_start() -> set[str]:
    return set(run_python(f"import sys; print(*sorted({HEAVY} & set(sys.modules)))").stdout.split())


def test_the_public_names_are_all_there():
    for name in pidfdpool.__all__:
        assert getattr(pidfdpool, name) is not None
    assert set(pidfdpool.__all__) <= set(dir(pidfdpool))
    with pytest.raises(AttributeError, match="no_such_name"):
        pidfdpool.no_such_name  # noqa: B018
