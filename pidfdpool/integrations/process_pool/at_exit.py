"""Terminates the pools that are open when the interpreter ends, as the standard library does.

An executor would finish what was submitted first. `multiprocessing` does not: calls that nobody has waited for are
dropped. The hook has to run before that of the executors, which was registered before it, and hooks run in the
reverse order.
"""

from __future__ import annotations

import multiprocessing.pool
import threading
import weakref
from typing import Any

import pidfdpool

pidfdpool.PidfdPoolExecutor  # noqa: B018  loaded here, so that its hook is the one that was registered before

_pools: weakref.WeakSet[Any] = weakref.WeakSet()


def add(pool: object) -> None:
    """Have the pool terminated when the interpreter ends."""
    _pools.add(pool)


def _terminate_open() -> None:
    for pool in list(_pools):
        if pool._state == multiprocessing.pool.RUN or pool._inputs:
            pool.terminate()


# Private, but concurrent.futures itself uses it (CPython issue 39812).
threading._register_atexit(_terminate_open)  # type: ignore[attr-defined]
