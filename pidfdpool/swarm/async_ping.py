"""How a coroutine asks a swarm's thread for an answer, without blocking its event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool.executor.wakeup import Wakeup

if TYPE_CHECKING:
    from pidfdpool.swarm.supervisor import Supervisor


async def ping(supervisor: Supervisor, deadline: float | None) -> bool:
    """As `Supervisor.ping`. deadline: as time.monotonic() tells it."""
    wakeup = Wakeup()
    unwatch = supervisor.watch(wakeup.tell)
    try:
        answers = supervisor.ask_for_answer()
        await wakeup.wait(lambda: answers or supervisor.is_over, deadline)
    except TimeoutError:
        return False
    finally:
        unwatch()
    return not supervisor.is_over
