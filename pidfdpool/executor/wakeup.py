"""How a coroutine waits for what other threads do: for a result of a map, or for the end of a pool.

`Wakeup.wait` runs in the thread of the event loop that waits, `tell` in any thread. No thread waits along.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from pidfdpool.loop.pool import Pool

_LOOK = 0.005  # seconds between two looks at a pool that another thread is starting


class Wakeup:
    """Has one coroutine look again whether there is something for it to do."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None  # of the coroutine that waits

    def tell(self, _event: object = None) -> None:
        """Have the coroutine that waits look again. Any thread."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            with suppress(RuntimeError):  # the loop is closed, so nobody waits any more
                waiter.get_loop().call_soon_threadsafe(_set, waiter)

    def tell_here(self) -> None:
        """As `tell`, in the thread of the event loop that waits."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            _set(waiter)

    async def wait(self, ready: Callable[[], Any], deadline: float | None = None) -> None:
        """Wait until ready() is true. Whoever makes it true calls `tell` afterwards.

        deadline: as time.monotonic() tells it.

        Raises:
            TimeoutError: it is not true at the deadline.
        """
        import asyncio

        if ready():
            return
        loop = asyncio.get_running_loop()
        while True:
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiter = waiter
            if ready():  # looked at after `_waiter` was set, so that who makes it true from now on finds the waiter
                return
            if deadline is None:
                await waiter
            else:
                await asyncio.wait([waiter], timeout=max(0.0, deadline - time.monotonic()))
            if ready():
                return
            if not waiter.done():
                raise TimeoutError


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def wait_for_end(pool: Pool) -> None:
    """Wait until everything of a pool that is shut down is gone. At once where `Pool.join` would not wait."""
    import asyncio

    thread = pool.core.thread
    while pool.starter.starts_elsewhere:
        await asyncio.sleep(_LOOK)
    if thread.started and not (thread.does_its_work or pool.core.is_reentered):
        wakeup = Wakeup()
        thread.tell_end(wakeup.tell)
        await wakeup.wait(lambda: thread.is_over)
    pool.join()  # the thread has nothing more to do
