"""As tests.hosts.programs.commanded, with a swarm of two nodes in the place of a pool."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from pidfdpool.swarm import Swarm
from tests.hosts.programs.obeying import obey


def live(node: Any) -> None:
    """Live on, whatever it is told to."""
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    while True:
        node.healthy()
        time.sleep(0.05)


class Host:
    def __init__(self) -> None:
        way = "fork" if os.environ["PIDFDPOOL_CONTENDER"] == "fork" else None
        options: dict[str, Any] = {"restart_pause": 0.01, "stop_timeout": 0.1, "intensity": None}
        self._swarm = Swarm(live, 2, mp_context=way, **options).start()

    def nodes(self) -> list[int]:
        """Return the numbers of both nodes' processes, once both are healthy."""
        assert self._swarm.wait_until_healthy(timeout=20), self._swarm.status()
        return [node.pid for node in self._swarm.status().nodes if node.pid is not None]

    def ask_everything(self) -> None:
        """Ask for all that has signals sent to nodes."""
        self._swarm.signal(signal.SIGUSR2, node=1)
        self._swarm.quiet()
        self._swarm.resize(1)
        self._swarm.stacks(0.05)

    def stop(self) -> None:
        self._swarm.stop()

    def kill(self) -> None:
        self._swarm.kill()


if __name__ == "__main__":
    obey(Host, *sys.argv[1:])
