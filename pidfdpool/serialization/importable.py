"""Which modules of this process a fresh interpreter would not find by their names.

A function is pickled as the name of its module and its own, and a worker imports that module. But some modules were
never imported by name: a test module under pytest's importlib mode, a script that `runpy` or a server has run from
its file, a module that was made on the fly. A worker would say ModuleNotFoundError, so `payload` sends what belongs
to them by value, too.

In doubt a module can be found, and all is as in the standard library. No state but what is known of the names that
were looked at; thread- and fork-safe, because looking twice does no harm.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

_importable: dict[str, bool] = {"__main__": True, "__mp_main__": True}  # payload knows about these two
_unimportable: tuple[ModuleType, ...] = ()
_modules_seen: tuple[int, str | None] | None = None


def unimportable_modules() -> tuple[ModuleType, ...]:
    """Return the loaded modules that no other process would find. Cheap, unless modules were loaded since."""
    global _modules_seen, _unimportable  # noqa: PLW0603  the last look, per process
    try:
        # How many there are, and which came last: one may have come in the place of another.
        now = len(sys.modules), next(reversed(sys.modules), None)
    except RuntimeError:
        now = None  # another thread is importing
    if now is None or now != _modules_seen:
        _modules_seen = now
        _unimportable = tuple(_find_unimportable())
    return _unimportable


def _find_unimportable() -> list[ModuleType]:
    places = set(sys.path)
    found = []
    # Parents before what is in them.
    for name, module in sorted(sys.modules.copy().items()):
        if name not in _importable:
            parent = _importable.get(name.rpartition(".")[0], True)
            _importable[name] = parent and (_is_where_expected(name, module, places) or _can_be_found(name))
        if not _importable[name]:
            found.append(module)
    return found


def _dict_of(module: object) -> dict[str, Any]:
    """Return what a module holds, without waking one that loads itself at the first look."""
    try:
        names = object.__getattribute__(module, "__dict__")
    except AttributeError:
        return {}
    return names if isinstance(names, dict) else {}


def _is_where_expected(name: str, module: object, places: set[str]) -> bool:
    """Return whether the module plainly is where its name says. That is most of them, and takes a microsecond."""
    names = _dict_of(module)
    path = names.get("__path__")
    # Where Python code ran there are builtins, and a package has a path. What has neither was made by native code,
    # whose affair it is. And what goes by another name here than its own is pickled by its own.
    if ("__builtins__" not in names and path is None) or names.get("__name__") != name:
        return True
    origin = getattr(names.get("__spec__"), "origin", None)
    if origin in ("built-in", "frozen"):
        return True
    parent = name.rpartition(".")[0]
    around = _search_path_of(parent) or () if parent else places
    if path is not None:
        return any(os.path.dirname(folder) in around for folder in path)
    return isinstance(origin, str) and os.path.dirname(origin) in around


def _search_path_of(package: str) -> Any:
    # Asked in the plain way, because it may be a proxy; it has been loaded, or there would be nothing in it.
    return getattr(sys.modules.get(package), "__path__", None)


def _can_be_found(name: str) -> bool:
    """Return whether the import system would find a module of this name, were it not loaded."""
    parent = name.rpartition(".")[0]
    path = _search_path_of(parent) if parent else None
    if parent and path is None:
        # It lies in no package. Its parent, which is imported first, makes it, perhaps; unless it came from a file.
        return getattr(_dict_of(sys.modules.get(name)).get("__spec__"), "origin", None) is None
    try:
        return any(finder.find_spec(name, path) is not None for finder in sys.meta_path)
    except Exception:  # a finder of the host's, with a mind of its own
        return True
