"""Calls functions with a module when some code of this process loads it: at the end of that import, once.

Used by the worker's loop and by the template (`identity`), and by `log_forwarding`, on the process's only thread, for
modules that most tasks never need. The other finders find the module, and its own loader loads it.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


def when_loaded(name: str, call: Callable[[Any], None]) -> None:
    """Have call(module) called when the module of this name, which is not loaded yet, is loaded.

    Calls for one module are made in the order in which they were given.
    """
    for finder in sys.meta_path:
        if isinstance(finder, _Finder) and finder.name == name:
            finder.calls.append(call)
            return
    sys.meta_path.insert(0, _Finder(name, [call]))


class _Finder:
    """A finder that only adds a step to the load of one module."""

    def __init__(self, name: str, calls: list[Callable[[Any], None]]) -> None:
        self.name = name
        self.calls = calls

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec that another finder returns, with a loader that makes the calls."""
        if name != self.name:
            return None
        for finder in sys.meta_path:
            if not isinstance(finder, _Finder):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    loader: Any = _Loader(self, spec.loader)
                    spec.loader = loader
                    return spec
        return None


class _Loader:
    """Takes the place of another loader, loads with it, and then restores it."""

    def __init__(self, finder: _Finder, original: Any) -> None:
        self._finder = finder
        self._original = original

    def create_module(self, spec: ModuleSpec) -> Any:
        """Have the original loader create the module."""
        return self._original.create_module(spec)

    def exec_module(self, module: Any) -> None:
        """Have the original loader run the module, then make the calls."""
        module.__loader__ = module.__spec__.loader = self._original
        self._original.exec_module(module)
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        for call in self._finder.calls:
            call(module)
