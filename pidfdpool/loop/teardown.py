"""The end of a pool in this process: what is left is closed; where its machinery has failed, futures are told before.

In the pool thread, or in the thread that could not start it.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from pidfdpool.process import describe

if TYPE_CHECKING:
    from pidfdpool.loop.pool import Pool


def last_resort(pool: Pool, error: BaseException) -> None:
    """Fail every future and kill every worker, because the pool can no longer be trusted to do either."""
    with pool.lock:
        pool.closed = True
        pool.cause = pool.cause or error
        reason = told(error)
        pool.machine.give_up(reason)
        failing = [pool.failing(number, pool.broken_error(reason)) for number in list(pool.tasks)]
        failing += pool.line.refuse_all()
        pool.readiness.notify_all()
        for link in pool.workers.values():
            with suppress(Exception):
                link.signal(signal.SIGKILL)
    pool.leading.leave(failing)  # behind those that were left before: they are told how they ended


def close_everything(pool: Pool) -> None:
    """Close what is left; the template sees its channel close, and ends. The caller has the lock."""
    for link in pool.workers.values():
        link.close()
    pool.workers.clear()
    pool.lender.close()
    if pool.template is not None:
        pool.template.close()
        pool.template = None
    pool.leading.close()


def told(error: BaseException) -> str:
    """Return what is said of a pool that failed."""
    return f"the pool's own machinery failed: {describe.repr_of(error)}"
