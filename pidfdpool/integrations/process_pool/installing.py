"""Has a program that says `multiprocessing.Pool` use ours, without a change to it.

The standard library makes its pools in two ways: by `multiprocessing.pool.Pool(...)`, and by the method `Pool` of a
context, which `multiprocessing.Pool` is one of. Both names are replaced. A program that has imported one of them
before keeps what it has. In the host, on any thread. A forked child inherits it, and workers do not have it.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import multiprocessing.pool
from typing import Any

from pidfdpool.integrations.process_pool import contexts
from pidfdpool.integrations.process_pool.pool import Pool
from pidfdpool.process import locks

_lock = locks.plain()
_replaced: list[tuple[Any, str, Any]] = []  # owner, name and value, as they were before


class _InstalledPool(Pool):
    """What `multiprocessing.pool.Pool` is meanwhile."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if isinstance(self, _InstalledPool):
            super().__init__(*args, **kwargs)
        else:  # the constructor of ThreadPool calls this by the name that was replaced
            multiprocessing.pool.Pool.__mro__[-2].__init__(self, *args, **kwargs)


def install() -> None:
    """Have `multiprocessing.Pool`, and the Pool of every context, make pools of ours. It may be called again."""
    default = multiprocessing.context._default_context
    with _lock:
        if _replaced:
            return
        for owner, name, value in (
            (multiprocessing.pool, "Pool", _InstalledPool),
            (multiprocessing.context.BaseContext, "Pool", contexts.pool_of),
            (multiprocessing, "Pool", contexts.pool_of.__get__(default)),
        ):
            _replaced.append((owner, name, getattr(owner, name)))
            setattr(owner, name, value)


def uninstall() -> None:
    """Undo `install`. Pools that were made meanwhile stay as they are."""
    with _lock:
        _put_back()


def _put_back() -> None:
    while _replaced:
        owner, name, value = _replaced.pop()
        setattr(owner, name, value)
