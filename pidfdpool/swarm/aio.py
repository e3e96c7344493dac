"""The asyncio forms of a swarm: nothing here blocks the event loop, but the start of the template (about 20 ms).

Runs in the thread of the event loop that awaits. No thread waits along.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from pidfdpool import checks
from pidfdpool.executor.wakeup import Wakeup
from pidfdpool.swarm import async_ping, snapshots, trace

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from typing import TextIO

    from pidfdpool.swarm.records import NodeEvent, SwarmStatus
    from pidfdpool.swarm.supervisor import Supervisor
    from pidfdpool.swarm.trace import SwarmTrace


class AsyncSwarm:
    """A running swarm, for coroutines: what `async with Swarm(...) as swarm` gives.

    Methods that wait are coroutines here. The others are those of `Swarm`, which do not wait.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def wait(self, timeout: float | None = None) -> bool:
        """As `Swarm.wait`."""
        wakeup = Wakeup()
        unwatch = self._supervisor.watch(wakeup.tell)
        try:
            await wakeup.wait(lambda: self._supervisor.is_over, _deadline(timeout))
        except TimeoutError:
            return False
        finally:
            unwatch()
        self._supervisor.join()  # the thread has nothing more to do
        return True

    async def wait_until_healthy(self, nodes: int | None = None, timeout: float | None = None) -> bool:
        """As `Swarm.wait_until_healthy`."""
        wanted = checks.integer("nodes", nodes, least=1, optional=True)
        answer = snapshots.Answer(lambda: self._supervisor.outlook(wanted))
        wakeup = Wakeup()
        unwatch = self._supervisor.watch(wakeup.tell)
        try:
            await wakeup.wait(answer.is_known, _deadline(timeout))
        except TimeoutError:
            return False
        finally:
            unwatch()
        return bool(answer.value)

    async def stop(self) -> None:
        """As `Swarm.stop`. If the wait is cancelled, the swarm goes on stopping."""
        self._supervisor.stop(now=False)
        await self.wait()

    async def kill(self) -> None:
        """As `Swarm.kill`."""
        self._supervisor.stop(now=True)
        await self.wait()

    async def ping(self, timeout: float | None = 1.0) -> bool:
        """As `Swarm.ping`."""
        return await async_ping.ping(self._supervisor, _deadline(timeout))

    def quiet(self) -> None:
        """As `Swarm.quiet`."""
        self._supervisor.quiet()

    def resize(self, nodes: int) -> None:
        """As `Swarm.resize`."""
        self._supervisor.resize(nodes)

    def restart(self, *, rolling: bool = True) -> None:
        """As `Swarm.restart`."""
        self._supervisor.restart(rolling=rolling)

    def signal(self, sig: int, value: int | None = None, *, node: int | None = None) -> int:
        """As `Swarm.signal`."""
        return self._supervisor.signal(sig, value, node)

    def status(self, *, measure_memory: bool = False) -> SwarmStatus:
        """As `Swarm.status`."""
        return self._supervisor.status(measure_memory=measure_memory)

    def subscribe(self, callback: Callable[[NodeEvent], object]) -> Callable[[], None]:
        """As `Swarm.subscribe`."""
        return self._supervisor.subscribe(callback)

    def events(self) -> AsyncIterator[NodeEvent]:
        """As `Swarm.events`."""
        return Events(self._supervisor)

    def trace(self, path: str | os.PathLike[str] | TextIO, *, max_events: int = 1_000_000) -> SwarmTrace:
        """As `Swarm.trace`, for `async with`, whose end waits without blocking the event loop, or `with`."""
        return trace.made(self._supervisor, path, max_events)


def _deadline(timeout: float | None) -> float | None:
    seconds = checks.wait_time("timeout", timeout)
    return None if seconds is None else time.monotonic() + seconds


class Events(AsyncIterator["NodeEvent"]):
    """The events of a swarm from the moment on in which this is made, until the swarm has ended."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        wakeup = self._wakeup = Wakeup()
        waiting: deque[NodeEvent] = deque()
        self._waiting = waiting

        def take(event: NodeEvent) -> None:  # it does not refer to this object, which is let go when nobody iterates
            waiting.append(event)
            wakeup.tell()

        self._unsubscribe = supervisor.subscribe(take)
        self._unwatch: Callable[[], None] | None = None

    async def __anext__(self) -> NodeEvent:
        """Return the next event, when it comes."""
        if self._unwatch is None:
            self._unwatch = self._supervisor.watch(self._wakeup.tell)
        await self._wakeup.wait(lambda: self._waiting or self._supervisor.is_over)
        if not self._waiting:
            self._close()
            raise StopAsyncIteration
        return self._waiting.popleft()

    def _close(self) -> None:
        self._unsubscribe()
        if self._unwatch is not None:
            self._unwatch()

    def __del__(self) -> None:
        self._close()
