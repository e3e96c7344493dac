"""Keeps a worker alive until the host has fetched the resources that the worker's results share with it.

Called by the worker's loop (`process`), on its thread.

A pipe end, a socket or a tensor in a result is a duplicate. A thread of multiprocessing's hands it over when the host
rebuilds the result (multiprocessing/resource_sharer.py). The host may tell the worker to leave before that.
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

FETCH_TIMEOUT = 5.0  # seconds; what the host has not fetched by then, it never will
_POLL_INTERVAL = 2  # milliseconds


class Handover:
    """The resources that results of this worker share, and that are not yet fetched."""

    def __init__(self) -> None:
        self._pending: list[Any] = []
        self._used = False
        picklers.shared_resources.clear()  # of the process that this one was forked from

    def add_shared(self) -> None:
        """Add what the last pickled result shares. The caller has looked whether there is anything."""
        self._used = True
        pending = [resource for resource in self._pending if not picklers.are_fetched(resource)]
        self._pending = pending + picklers.pop_shared_resources()

    def wait_until_fetched(self, channel: int) -> None:
        """Wait until everything is fetched, or the host is gone. channel: the descriptor of the worker's channel."""
        if not self._used:
            return
        deadline = time.monotonic() + FETCH_TIMEOUT
        poller = native.poll()
        poller.register(channel, 0)  # for no event; that the other end is closed is reported all the same
        while not picklers.are_fetched(self._pending) and time.monotonic() < deadline:
            if poller.poll(_POLL_INTERVAL):
                return
        sharing: Any = sys.modules.get("multiprocessing.resource_sharer")
        with suppress(Exception):  # the task has stopped it
            sharing.stop(1.0)  # it first completes the transfer that is under way
