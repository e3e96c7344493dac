"""Finds the loaded modules that a fresh interpreter could not import by their names.

A function is pickled as its module's name and its own name, and a worker imports that module. But some modules were
never imported by name: a test module under pytest's importlib mode, a script that `runpy` or a server has run from
its file, a module that was made at run time. A worker would raise ModuleNotFoundError. So `payload` also sends the
contents of such modules by value.

To look at all modules of a program takes half a millisecond, a tenth of what a host does to start a pool. So the
first call of a program, if it is a small one, has only those looked at that it may mention. The next call has all.

In doubt a module counts as importable, and is treated as in the standard library. Called on any thread. The only
state is what was found out about each module name. Thread-safe and fork-safe, because to look twice does no harm.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from types import ModuleType
    from typing import Any

_importable: dict[str, bool] = {"__main__": True, "__mp_main__": True}  # `payload` handles these two itself
_unimportable: tuple[ModuleType, ...] = ()
_modules_seen: tuple[int, str | None] | None = None
_few_looked_at = False  # by the first call
_QUICKLY_SEARCHED = 1 << 13  # bytes: hundreds of searches through more take longer than to look at all modules


def unimportable_modules() -> tuple[ModuleType, ...]:
    """Return the loaded modules that no other process could import. Cheap, unless modules were loaded since."""
    global _modules_seen, _unimportable  # noqa: PLW0603  the last result, per process
    try:
        # The number of modules, and which was loaded last: one module may have replaced another.
        now = len(sys.modules), next(reversed(sys.modules), None)
    except RuntimeError:
        now = None  # another thread is importing
    if now is None or now != _modules_seen:
        _modules_seen = now
        _unimportable = tuple(_find_unimportable())
    return _unimportable


def mentions_unimportable(data: bytes) -> bool:
    """Return whether the name of a module that no other process could import occurs in a pickle."""
    global _few_looked_at  # noqa: PLW0603  per process
    if not _few_looked_at and len(data) < _QUICKLY_SEARCHED:
        _few_looked_at = True
        places, loaded = set(sys.path), sys.modules.copy()
        return any(
            not is_importable(name, module, places)
            for name, module in loaded.items()
            if name.encode("utf-8", "replace") in data
        )
    modules = unimportable_modules()
    return bool(modules) and any(encoded_name(module) in data for module in modules)


def encoded_name(module: ModuleType) -> bytes:
    """Return a module's name as it stands in a pickle."""
    return module.__name__.encode("utf-8", "replace")


def _find_unimportable() -> list[ModuleType]:
    places = set(sys.path)
    loaded = sorted(sys.modules.copy().items())
    return [module for name, module in loaded if not is_importable(name, module, places)]


def is_importable(name: str, module: ModuleType, places: Collection[str] | None = None) -> bool:
    """Return whether a loaded module, and the package that it is in, could be imported. places: sys.path."""
    known = _importable.get(name)
    if known is not None:
        return known
    places = sys.path if places is None else places
    parent = name.rpartition(".")[0]
    package = sys.modules.get(parent) if parent else None
    found = package is None or is_importable(parent, package, places)
    found = _importable[name] = found and (_is_where_expected(name, module, places) or _can_be_found(name))
    return found


def _dict_of(module: object) -> dict[str, Any]:
    """Return a module's dictionary, without triggering a lazy module that loads itself at attribute access."""
    try:
        names = object.__getattribute__(module, "__dict__")
    except AttributeError:
        return {}
    return names if isinstance(names, dict) else {}


def _is_where_expected(name: str, module: object, places: Collection[str]) -> bool:
    """Return whether the module is where its name says. This is quick (a microsecond), and true of most modules."""
    names = _dict_of(module)
    path = names.get("__path__")
    # A module in which Python code ran has `__builtins__`, and a package has a path. A module with neither was made
    # by native code, which is responsible for it. And a module that is registered under another name than its own is
    # pickled by its own name.
    if ("__builtins__" not in names and path is None) or names.get("__name__") != name:
        return True
    origin = getattr(names.get("__spec__"), "origin", None)
    if origin in ("built-in", "frozen"):
        return True
    parent = name.rpartition(".")[0]
    around = _search_path_of(parent) or () if parent else places
    # Not os.path.dirname: with hundreds of modules it takes half of the time.
    if path is not None:
        return any(folder.rpartition("/")[0] in around for folder in path)
    return isinstance(origin, str) and origin.rpartition("/")[0] in around


def _search_path_of(package: str) -> Any:
    # An ordinary attribute access, because the package may be a proxy. It is loaded already, or nothing could be in
    # it.
    return getattr(sys.modules.get(package), "__path__", None)


def _can_be_found(name: str) -> bool:
    """Return whether the import system would find a module of this name if it were not loaded."""
    parent = name.rpartition(".")[0]
    path = _search_path_of(parent) if parent else None
    if parent and path is None:
        # The parent is not a package. Importing the parent may make this module, unless the module came from a file.
        return getattr(_dict_of(sys.modules.get(name)).get("__spec__"), "origin", None) is None
    try:
        return any(finder.find_spec(name, path) is not None for finder in sys.meta_path)
    except Exception:  # a finder of the host's or of a library's
        return True
