"""The house: imports point strictly downward, and processes load no more than they need."""

from __future__ import annotations

import ast
import textwrap
from functools import cache
from pathlib import Path

import pytest

import pidfdpool
from tests.conditions import run_python

PACKAGE = Path(pidfdpool.__file__).parent

# The picture of docs/architecture.md: a room may import what lies below it, and only what is named here. Imports for
# type checkers count as well: a lower room that needs something of a higher one declares a Protocol of its own.
HOUSE = {
    "former_paths": {"executor", "scheduler", "worker"},
    "cli": {"_version", "process", "scheduler"},
    "integrations": {"process"},
    "swarm": {
        "executor",
        "loop",
        "template",
        "worker",
        "scheduler",
        "serialization",
        "transport",
        "pidfd",
        "process",
    },
    "executor": {"loop", "template", "worker", "scheduler", "serialization", "transport", "process"},
    "loop": {"template", "worker", "scheduler", "serialization", "transport", "pidfd", "process"},
    "template": {"worker", "serialization", "transport", "pidfd", "process"},
    "worker": {"serialization", "transport", "pidfd", "process"},
    "scheduler": {"pidfd"},
    "serialization": {"transport", "process"},
    "transport": {"process"},
    "pidfd": {"process"},
    "process": set(),
}
# Files in the root. Every room may import these, but for those that lie below them.
ROOT = {
    "__main__": {"cli"},
    "dask": {"integrations"},
    "joblib": {"integrations"},
    "metrics": {"integrations"},
    "multiprocessing": {"integrations"},
    "errors": {"deaths", "pidfd"},
    "deaths": {"records", "pidfd"},
    "checks": {"process"},
    "records": set(),
    "typed": set(),
    "_version": set(),
}
KNOWN_TO_ALL = {"errors", "deaths", "checks", "records", "typed"}
PUBLIC = {"cli": {"pidfd", "swarm"}, "integrations": {"pidfd", "swarm"}}  # the package itself, and these


FILES = {
    ".".join(("pidfdpool", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports_of(path: Path):
    """Yield the modules of the package that a file names in an import, wherever in the file that stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "pidfdpool":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in FILES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("pidfdpool."))


@cache
def arrows() -> dict[str, set[str]]:
    """Return what each file imports. Not at import: to read all files takes each process of a run a second."""
    return {
        name: {imported for imported in imports_of(path) if imported not in ("pidfdpool", name)}
        for name, path in FILES.items()
        if name != "pidfdpool"  # the front door names every room, and opens none before it is asked
    }


def room_of(name: str) -> str:
    return name.split(".")[1]


def test_imports_point_downward():
    upward = {}
    for name, imports in arrows().items():
        room = room_of(name)
        below = HOUSE.get(room, ROOT.get(room))
        assert below is not None, f"{room} is no room of the house"
        allowed = below | PUBLIC.get(room, set()) | (KNOWN_TO_ALL if room in HOUSE else set()) | {room}
        upward[name] = {room_of(imported) for imported in imports} - allowed
    assert len(upward) > 300
    assert {name: rooms for name, rooms in upward.items() if rooms} == {}


def circle_in(arrows: dict[str, set[str]]) -> list[str]:
    """Return names each of which leads to the next, and the last to the first; or nothing."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for following in sorted(arrows.get(name, ())):
            if circle := walk(following, [*way, name]):
                return circle
        done.add(name)
        return []

    return next((circle for name in arrows if (circle := walk(name, []))), [])


def test_no_file_imports_itself_by_way_of_others():
    assert circle_in(arrows()) == []


def test_no_room_imports_itself_by_way_of_others():
    rooms: dict[str, set[str]] = {}
    for name, imported in arrows().items():
        rooms.setdefault(room_of(name), set()).update(map(room_of, imported))
    assert circle_in({room: below - {room} for room, below in rooms.items()}) == []


def test_the_picture_names_no_arrow_that_is_not_there():
    """An arrow that nobody needs any more is taken out of the picture, too."""
    for room, below in HOUSE.items():
        used = {room_of(imported) for name, of in arrows().items() if room_of(name) == room for imported in of}
        assert below <= used, room


def test_the_root_can_be_read_at_a_glance():
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= 14


def test_every_room_says_what_it_is():
    for room in HOUSE.keys() - {"former_paths"}:  # no package: its files are found as the root's
        text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))
        assert text is not None
        assert len(text.splitlines()) >= 4, (
            f"{room}: what it owns, who calls it, on which thread, what it must not know"
        )


def test_every_file_is_short_enough_to_read():
    for path in FILES.values():
        assert len(path.read_text().splitlines()) <= 400, path


def test_every_file_says_what_it_is():
    for path in FILES.values():
        assert ast.get_docstring(ast.parse(path.read_text())), path


SWARM_RULES = (
    "actions", "endings", "fleet", "inputs", "machine", "options", "process_rules", "records", "restarts", "rolling",
    "states",
)  # fmt: skip


def test_decisions_touch_nothing():
    pure = [PACKAGE / "checks.py", PACKAGE / "executor/chunk_sizes.py", PACKAGE / "transport/framing.py"]
    pure += [PACKAGE / f"swarm/{name}.py" for name in SWARM_RULES]
    for path in [*pure, PACKAGE / "transport/frame_rules.py", *(PACKAGE / "scheduler").glob("*.py")]:
        tree = ast.parse(path.read_text())
        modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names} | {
            node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        }
        assert not modules & {"os", "time", "socket", "select", "signal", "threading", "subprocess"}, path


# If a signal handler raises in a Python method of one of these, its lock may be left held for ever.
UNSAFE = {"Barrier", "BoundedSemaphore", "Condition", "Event", "Queue", "LifoQueue", "PriorityQueue", "Semaphore"}


def test_what_a_signal_handler_may_leave_locked_is_not_used():
    made = {}
    for name, path in FILES.items():
        made[name] = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in UNSAFE
            and ast.unparse(node.func.value) in ("threading", "queue", "native")
        }
    probe = made.pop("pidfdpool.process.interruptible")
    assert probe == {"threading.Event"}, "it asks for what an event has"
    assert {name: found for name, found in made.items() if found} == {}


# Locks that no `with` enters: those that a thread sleeps in, which nobody else waits for; and those of others.
PLAIN_LOCKS = {
    "cli/progress.py": {"threading.RLock"},
    "loop/backpressure.py": {"threading.Lock"},
    "process/interruptible.py": {"threading.Lock"},
    "process/native.py": {"_threads().RLock", "_threads().allocate_lock", "module.allocate_lock"},
    "worker/shared_tracker.py": {"threading.RLock"},
    "worker/streaming.py": {"_thread.allocate_lock"},
}


def test_locks_are_those_that_no_handler_leaves_half_entered():
    made = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        found = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("Lock", "RLock", "allocate_lock")
        }
        if found:
            made[path.relative_to(PACKAGE).as_posix()] = found
    del made["process/locks.py"]
    assert made == PLAIN_LOCKS


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


def test_handles_do_not_load_the_module_that_their_annotations_name():
    assert loaded_by("from pidfdpool.pidfd import Pidfd, ChildHandle, ExitStatus", {"typing"}) == set()


def test_the_template_loads_nothing_heavy_before_its_first_worker():
    its_own = {"checks", "errors", "executor", "loop", "pidfd.base", "scheduler", "template.guard", "template.reaper"}
    its_own |= {"serialization.script_text", "transport.published", "transport.segments"}
    heavy = HEAVY | {f"pidfdpool.{name}" for name in its_own}
    assert loaded_by("import pidfdpool.template.process, pidfdpool.worker.process", heavy) == set()


def test_an_executor_loads_nothing_that_only_some_tasks_need():
    seldom = {"asyncio", "cloudpickle", "ctypes", "dataclasses", "difflib", "inspect", "numpy"}
    seldom |= {
        f"pidfdpool.executor.{name}" for name in ("adaptive_map", "async_calls", "async_map", "mapping", "options")
    }
    seldom |= {"pidfdpool.template.process"}
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
