"""Limits the threads that numerical libraries start in a worker. Runs in workers, before their first task.

Most of these libraries read an environment variable when they are loaded. Where they have been loaded before the
worker was forked, threadpoolctl can still limit them, if it is installed.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = bool()  # noqa: UP018
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LOADED_BEFORE = ("numpy", "scipy", "sklearn", "torch", "numexpr", "numba")


class Setup:
    """The initializer of a worker: sets variables of the environment and limits, then does what the user asks for."""

    def __init__(
        self,
        variables: dict[str, str],
        most: int,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
    ) -> None:
        """variables: of the environment. most: threads of each library. initializer, initargs: the user's own."""
        self._parts = variables, most, initializer, initargs

    def __eq__(self, other: object) -> bool:
        """Two that do the same are equal: calls with equal settings share a pool."""
        return isinstance(other, Setup) and self._parts == other._parts

    __hash__ = None  # type: ignore[assignment]

    def __call__(self) -> None:
        """Set up this process."""
        variables, most, initializer, initargs = self._parts
        os.environ.update(variables)
        if any(name in sys.modules for name in _LOADED_BEFORE):
            try:
                from threadpoolctl import threadpool_limits
            except ImportError:
                pass
            else:
                threadpool_limits(limits=most)
        if initializer is not None:
            initializer(*initargs)
