"""A signal handler raises at places of a swarm's start, in a program that catches it and goes on.

All signals are blocked in most of it. But another thread of the host's may take one, and its handler runs in the main
thread all the same.
"""

from __future__ import annotations

import signal
import threading
from itertools import islice

import pytest

from pidfdpool.loop.pool_thread import PoolThread
from pidfdpool.swarm import Phase, Swarm
from pidfdpool.swarm.starting import Starter
from pidfdpool.swarm.supervisor import Supervisor
from tests.interrupting import places
from tests.swarm import nodes


@pytest.mark.parametrize("begin", [Supervisor.start, Starter.start_first, PoolThread.start])
def test_a_swarm_has_ended_or_can_be_started_again_wherever_its_start_is_interrupted(begin):
    swarms = []

    def attempt():
        swarm = Swarm(nodes.serve, 1, mp_context="fork")
        swarms.append(swarm)
        return swarm.start

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for place in islice(places(attempt, lambda code: code is begin.__code__), 60):
        assert signal.pthread_sigmask(signal.SIG_SETMASK, before) == before, place
        whole, interrupted = swarms
        whole.kill()
        if interrupted.status().phase is Phase.NEW:
            with pytest.raises(RuntimeError, match="was not started"):
                interrupted.stop()
            interrupted.start()
        interrupted.kill()  # what is raised in a finalizer interrupts nothing
        assert interrupted.status().phase is Phase.ENDED, place
        swarms.clear()
    for swarm in swarms:
        swarm.kill()
    threading._limbo.clear()  # it keeps threads whose start was interrupted before they were there
