"""The pools that calls of joblib share: one for each set of settings, kept for the calls that follow.

A pool has as many workers as the latest call asked for; while other calls use it, none is taken away. It is replaced
when it is broken, and ends with the interpreter. Workers leave when they were idle for IDLE seconds, as with joblib's
own backend. Thread-safe; in a forked child, pools start workers of the child's own.
"""

from __future__ import annotations

import os
from typing import Any

from pidfdpool import PidfdPoolExecutor
from pidfdpool.process import locks

IDLE = 300.0

_lock = locks.plain()
_pools: list[tuple[dict[str, Any], PidfdPoolExecutor]] = []


def shared(workers: int, settings: dict[str, Any]) -> PidfdPoolExecutor:
    """Return the pool with these arguments of its constructor, and have it as many workers.

    Raises:
        TypeError, ValueError: an argument does not exist, or makes no sense.
    """
    with _lock:
        for kept, pool in list(_pools):
            if not _are_equal(kept, settings):
                continue
            state = pool.stats()
            if state.broken is None and state.state in ("IDLE", "OPEN"):
                if state.size < workers or (state.size > workers and not state.pending):
                    pool.resize(workers)
                return pool
            # By identity: to compare settings may raise, see `_are_equal`.
            _pools[:] = [each for each in _pools if each[1] is not pool]
        pool = PidfdPoolExecutor(workers, **{"idle_timeout": IDLE, **settings})
        _pools.append((settings, pool))
        return pool


def _are_equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    try:
        return bool(one == other)
    except Exception:  # an initarg that is an array, say
        return False


def _forget_lock() -> None:
    global _lock  # noqa: PLW0603  another thread may have held it when the process was forked
    _lock = locks.plain()


os.register_at_fork(after_in_child=_forget_lock)
