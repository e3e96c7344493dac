"""docs/migration says where to find what other pools have: our names exist, and none of theirs is missing."""

from __future__ import annotations

import importlib
import inspect
import re
import types
from collections.abc import Iterator

import pytest

import pidfdpool
from pidfdpool import PidfdPoolExecutor
from pidfdpool.swarm import Swarm
from tests.house.pages import DOCS, section_of

PAGES = {
    "the standard pool": "standard-pool.md",
    "multiprocessing.Pool": "multiprocessing-pool.md",
    "loky": "loky.md",
    "Pebble": "pebble.md",
    "mpire": "mpire.md",
    "joblib": "joblib.md",
    "prefork code": "prefork.md",
}
FROM = tuple(PAGES)
OPTIONS = set(inspect.signature(PidfdPoolExecutor).parameters)
ARGUMENTS = set(inspect.signature(Swarm).parameters)  # those of docs/migration/prefork.md
# What is no name of a module: variables of the environment, and arguments of theirs that are mentioned again.
NO_NAMES = {"PYTHON_CPU_COUNT", "term_timeout", "sleep_unit", "python -m pidfdpool map", "python -m pidfdpool swarm"}


def rows(library: str) -> list[list[str]]:
    section = section_of((DOCS / "migration" / PAGES[library]).read_text(), "Name for name")
    tables = re.findall(r"^\|.*\n\|---.*\n((?:\|.*\n)+)", section, re.MULTILINE)
    lines = "".join(tables).splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def codes_of(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


OURS = sorted({(library, code) for library in FROM for row in rows(library) for code in codes_of(" ".join(row[1:]))})


def looked_up(name: str) -> object:
    """Return what a dotted name means: of the package, one of its modules, or another module."""
    first, *rest = name.split(".")
    if first in {*pidfdpool.__all__, *pidfdpool._STANDARD}:
        found: object = getattr(pidfdpool, first)
    else:
        found = importlib.import_module(first)
    for depth, part in enumerate(rest, 1):
        if isinstance(found, types.ModuleType) and not hasattr(found, part):
            importlib.import_module(".".join([first, *rest[:depth]]))
        if part in getattr(found, "__match_args__", ()):
            return found
        if not hasattr(found, part) and re.search(rf"^ +{part}: ", found.__doc__ or "", re.MULTILINE):
            return found  # an attribute of instances, which the docstring lists
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("library", "code"), OURS, ids=[f"{library}-{code}" for library, code in OURS])
def test_each_name_of_ours_exists(library, code):
    if code in NO_NAMES or code in (ARGUMENTS if library == "prefork code" else OPTIONS):
        return
    if code.startswith("pidfdpool.joblib"):
        pytest.importorskip("joblib")
    if code.startswith("tqdm"):
        pytest.importorskip("tqdm")
    name, _, arguments = code.rstrip(")").partition("(")
    found = looked_up(name)
    parameters = inspect.signature(found).parameters if arguments else ()
    for argument in filter(None, arguments.split(", ")):
        assert argument in parameters, f"{name} takes no {argument}"


def parameters_of(call: object) -> set[str]:
    return {name for name in inspect.signature(call).parameters if name not in ("self", "args", "kwargs")}


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def of_the_standard_library(futures) -> Iterator[set[str]]:
    yield {*futures.__all__}
    yield public(futures.ProcessPoolExecutor) | public(futures.Future)
    yield parameters_of(futures.ProcessPoolExecutor) | parameters_of(futures.ProcessPoolExecutor.map) - {
        "fn",
        "iterables",
    }
    yield parameters_of(futures.ProcessPoolExecutor.shutdown)


def of_loky(loky) -> Iterator[set[str]]:
    yield {*loky.__all__}
    yield parameters_of(loky.get_reusable_executor) | parameters_of(loky.ProcessPoolExecutor)


def of_pebble(pebble) -> Iterator[set[str]]:
    yield {*pebble.__all__} - {"concurrent", "asynchronous"}
    yield {f"{name}.{kind}" for name in ("concurrent", "asynchronous") for kind in ("process", "thread")}
    yield public(pebble.ProcessPool)
    yield parameters_of(pebble.ProcessPool)


def of_mpire(mpire) -> Iterator[set[str]]:
    yield public(mpire.WorkerPool) | {"WorkerPool", "cpu_count"}
    yield parameters_of(mpire.WorkerPool)
    yield parameters_of(mpire.WorkerPool.map) - {"func", "iterable_of_args"}
    yield parameters_of(mpire.WorkerPool.apply_async) - {"func"}


def of_multiprocessing(module) -> Iterator[set[str]]:
    yield public(module.Pool)
    yield parameters_of(module.Pool)


def of_joblib(joblib) -> Iterator[set[str]]:
    yield {*joblib.__all__}
    yield (parameters_of(joblib.Parallel) | parameters_of(joblib.parallel_config)) - {
        "backend_kwargs",
        "backend_params",
    }


THEIRS = {
    "the standard pool": ("concurrent.futures", of_the_standard_library),
    "loky": ("loky", of_loky),
    "Pebble": ("pebble", of_pebble),
    "mpire": ("mpire", of_mpire),
    "multiprocessing.Pool": ("multiprocessing.pool", of_multiprocessing),
    "joblib": ("joblib", of_joblib),
}


def test_settings_of_gunicorn_exist():
    config = pytest.importorskip("gunicorn.config")
    section = section_of((DOCS / "migration" / PAGES["prefork code"]).read_text(), "gunicorn and servers like it")
    told = {code for row in re.findall(r"^\| (.*?) \|", section, re.MULTILINE) for code in codes_of(row)}
    assert len(told) > 15
    assert told <= {setting.name for setting in config.KNOWN_SETTINGS}


@pytest.mark.parametrize("library", THEIRS)
def test_none_of_their_names_is_missing(library):
    module, names = THEIRS[library]
    told = {word for row in rows(library) for code in codes_of(row[0]) for word in re.findall(r"[\w.]+", code)}
    theirs = set().union(*names(pytest.importorskip(module)))
    assert theirs - told == set()


def test_the_tables_are_read():
    assert all(len(rows(library)) >= 7 for library in FROM)
    assert len(OURS) > 80
