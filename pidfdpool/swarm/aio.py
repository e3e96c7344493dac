"""The asyncio forms of a swarm: nothing here blocks the event loop, but the start of the template (about 20 ms).

Runs in the thread of the event loop that awaits. No thread waits along.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pidfdpool.swarm.records import NodeEvent, SwarmStatus
    from pidfdpool.swarm.supervisor import Supervisor
    from pidfdpool.swarm.swarm import Swarm


class AsyncSwarm:
    """A running swarm, for coroutines: what `async with Swarm(...) as swarm` gives.

    Methods that wait are coroutines here. The others are those of `Swarm`, which do not wait.
    """

    def __init__(self, swarm: Swarm) -> None:
        self.swarm = swarm

    async def wait(self, timeout: float | None = None) -> bool:
        """As `Swarm.wait`."""
        raise NotImplementedError

    async def wait_until_healthy(self, nodes: int | None = None, timeout: float | None = None) -> bool:
        """As `Swarm.wait_until_healthy`."""
        raise NotImplementedError

    async def stop(self) -> None:
        """As `Swarm.stop`. If the wait is cancelled, the swarm goes on stopping."""
        raise NotImplementedError

    async def kill(self) -> None:
        """As `Swarm.kill`."""
        raise NotImplementedError

    def quiet(self) -> None:
        """As `Swarm.quiet`."""
        self.swarm.quiet()

    def resize(self, nodes: int) -> None:
        """As `Swarm.resize`."""
        self.swarm.resize(nodes)

    def restart(self, *, rolling: bool = True) -> None:
        """As `Swarm.restart`."""
        self.swarm.restart(rolling=rolling)

    def signal(self, sig: int, value: int | None = None, *, node: int | None = None) -> int:
        """As `Swarm.signal`."""
        return self.swarm.signal(sig, value, node=node)

    def status(self) -> SwarmStatus:
        """As `Swarm.status`."""
        return self.swarm.status()

    def events(self) -> AsyncIterator[NodeEvent]:
        """As `Swarm.events`."""
        return self.swarm.events()


async def events(supervisor: Supervisor) -> AsyncIterator[NodeEvent]:
    """Yield the events of a swarm from now on, until it has ended."""
    raise NotImplementedError
    yield  # type: ignore[unreachable]  an async generator
