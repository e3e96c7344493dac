"""What keeps the processes of a host program alive: a swarm of ours, or what a program writes by hand.

The body of a case is the same for both: `Swarm(nodes, folder)` starts so many nodes that say in the folder that they
live, and keeps them alive until `stop`.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import Any

STANDARD = os.environ["PIDFDPOOL_CONTENDER"] == "standard"


def say(number: int, folder: str) -> None:
    Path(folder, f"{number}-{os.getpid()}").touch()


def live(node: Any, folder: str) -> None:
    """Live until it is told to end."""
    say(node.id, folder)
    while not node.stopping.wait(0.05):
        node.healthy()


def linger(node: Any, folder: str) -> None:
    """Take half a second to end."""
    live(node, folder)
    time.sleep(0.5)


def spin(node: Any, folder: str) -> None:
    """Never look at what it is told."""
    say(node.id, folder)
    while True:
        node.healthy()


def live_by_hand(number: int, folder: str) -> None:
    say(number, folder)
    while True:
        time.sleep(0.05)


def spin_by_hand(number: int, folder: str) -> None:
    say(number, folder)
    while True:
        pass


class ByHand:
    """Processes of multiprocessing, and a thread that starts those that have ended again."""

    def __init__(self, nodes: int, folder: str, *, target: Any = live_by_hand) -> None:
        self._target = target
        self._folder = folder
        self._processes = [self._started(number) for number in range(nodes)]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._thread.start()

    def _started(self, number: int) -> Any:
        process = multiprocessing.Process(target=self._target, args=(number, self._folder), daemon=True)
        process.start()
        return process

    def _supervise(self) -> None:
        while not self._ended.wait(0.05):
            for number, process in enumerate(self._processes):
                if not process.is_alive():
                    process.join()
                    self._processes[number] = self._started(number)

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()


def ours(nodes: int, folder: str, *, target: Any = live) -> Any:
    from pidfdpool.swarm import Swarm

    way = "fork" if os.environ["PIDFDPOOL_CONTENDER"] == "fork" else None
    return Swarm(target, nodes, args=(folder,), restart_pause=0.05, mp_context=way).start()


if STANDARD:
    Swarm: Any = ByHand
    SPIN: Any = spin_by_hand
    LINGER: Any = live_by_hand
else:
    Swarm = ours
    SPIN = spin
    LINGER = linger
