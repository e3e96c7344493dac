"""Finds what a module imports for type checkers only, so that tests can tell that it is not loaded at run time."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType


def modules_of(room: ModuleType) -> list[str]:
    """Return the names of all modules of a room."""
    return [room.__name__, *(f"{room.__name__}.{each.name}" for each in pkgutil.iter_modules(room.__path__))]


def loaded_in_vain(name: str) -> set[str]:
    """Return what a module has in it that only type checkers need."""
    module = importlib.import_module(name)
    with open(str(module.__file__)) as file:
        tree = ast.parse(file.read())
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            found |= _imported(node.body) - _imported(node.orelse)
    return found & vars(module).keys() - (set(getattr(module, "_HOME", ())) | _imported(tree.body))


def _imported(nodes: Iterable[ast.stmt]) -> set[str]:
    return {
        alias.asname or alias.name.partition(".")[0]
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
