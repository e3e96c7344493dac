"""What the template does before it forks the first worker: it limits the threads of libraries, and loads modules.

Most numerical libraries read an environment variable when they are loaded, so the variables are set first. Where they
were loaded before (a template that is a fork of the host), threadpoolctl limits them, if it is installed. What is
loaded here is shared by all workers, and none of them spends the time for it.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

TYPE_CHECKING = bool()  # noqa: UP018
if TYPE_CHECKING:
    from collections.abc import Callable

_WITH_THREADS = ("numpy", "scipy", "sklearn", "torch", "numexpr", "numba")


class Preload:
    """Sets the variables, loads what is to be loaded, and does what the user asks for. Runs in the template."""

    def __init__(
        self, variables: dict[str, str], most: int, modules: tuple[str, ...], call: Callable[[], object] | None
    ) -> None:
        """variables: of the environment. most: threads of each library. modules, call: the user's own preload."""
        self._parts = variables, most, modules, call

    def __call__(self) -> None:
        """Set up this process."""
        variables, most, modules, call = self._parts
        os.environ.update(variables)
        if any(name in sys.modules for name in _WITH_THREADS):
            try:
                from threadpoolctl import threadpool_limits
            except ImportError:
                pass
            else:
                threadpool_limits(limits=most)
        for name in modules:
            import_module(name)
        if call is not None:
            call()

    def __eq__(self, other: object) -> bool:
        """Two that do the same are equal: calls with equal settings share a pool."""
        return isinstance(other, Preload) and self._parts == other._parts

    __hash__ = None  # type: ignore[assignment]
