"""A `multiprocessing` context whose Pool is ours, and whose rest is the standard library's."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Any

from pidfdpool.integrations.process_pool.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.context import BaseContext


def get_context(method: str | None = None) -> BaseContext:
    """Return a context: what `multiprocessing.get_context(method)` returns, but its `Pool` makes a pool of ours.

    method: "fork", "spawn" or "forkserver". Default: the start method that `multiprocessing` uses.

    Raises:
        ValueError: there is no such start method.
    """
    standard = type(multiprocessing.get_context(method))
    made: type[BaseContext] = type(
        f"PidfdPool{standard.__name__}", (standard,), {"Pool": pool_of, "__module__": __name__}
    )
    return made()


def pool_of(
    context: Any,
    processes: int | None = None,
    initializer: Callable[..., object] | None = None,
    initargs: Iterable[Any] = (),
    maxtasksperchild: int | None = None,
) -> Pool:
    """Return a pool of ours: what takes the place of the method `Pool` of a context."""
    # The default context, which `multiprocessing.Pool` belongs to, would settle the start method if it were asked.
    own = None if hasattr(context, "_default_context") else context
    return Pool(processes, initializer, initargs, maxtasksperchild, own)
