"""Keeps a worker there until the host has fetched what its results share with it.

A pipe end, a socket or a tensor in a result is a duplicate that a thread of multiprocessing's hands over when the
result is rebuilt (multiprocessing/resource_sharer.py). The host may tell the worker to leave before it comes to that.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress

from pidfdpool.process import native
from pidfdpool.serialization import picklers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PATIENCE = 5.0  # seconds; what nobody has rebuilt by then, nobody will
_LOOK = 2  # milliseconds


class Handing:
    """What the results of this worker have shared. On its only thread."""

    def __init__(self) -> None:
        self._waiting: list[Any] = []
        self._began = False
        picklers.shared_resources.clear()  # of the process that this one was forked from

    def note(self) -> None:
        """Note what the result that was just pickled shares. For who first looks whether there is anything."""
        self._began = True
        waiting = [shared for shared in self._waiting if not picklers.are_fetched(shared)]
        self._waiting = waiting + picklers.pop_shared_resources()

    def see_fetched(self, channel: int) -> None:
        """Wait until all of it is fetched, or there is nobody left who would. channel: its descriptor."""
        if not self._began:
            return
        deadline = time.monotonic() + PATIENCE
        poller = native.poll()
        poller.register(channel, 0)  # its end is told all the same
        while not picklers.are_fetched(self._waiting) and time.monotonic() < deadline:
            if poller.poll(_LOOK):
                return
        sharing: Any = sys.modules.get("multiprocessing.resource_sharer")
        with suppress(Exception):  # it was stopped by the task
            sharing.stop(1.0)  # when it has handed over what it is at
