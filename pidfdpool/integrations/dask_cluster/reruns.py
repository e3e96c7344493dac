"""A plugin of dask's scheduler: it notes on each request the nodes that it was lost on, and ends what nobody wants.

dask runs the tasks of a lost worker again, those that it was running as well as those whose results it held. The
scheduler decides that alone, and a task cannot tell whether it is the first time. So this adds the lost node to the
annotations of the request, which the next node gets with it and acts upon: by trying the call again if it may, and by
failing it otherwise.

When a client is gone, whether it has said so or its process has died, nobody waits for the answers to its requests
any more. Then the nodes end the pools of its executors, and with them what still runs.

Runs in the scheduler's process, on its event loop. Any number of clients may register it: there is one.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.protocol.pickle import dumps

from pidfdpool.integrations.dask_cluster import node
from pidfdpool.integrations.dask_cluster.requests import LOST, is_ours, owner_of

# What a dask worker says that gives a task back before it has begun it, because it closes.
_NOT_BEGUN = "worker-closing-"


class Reruns(SchedulerPlugin):  # type: ignore[misc]
    """Notes where requests were lost."""

    name = "pidfdpool-reruns"
    idempotent = True

    def __init__(self) -> None:
        self._scheduler: Any = None
        self._nodes: dict[Any, str] = {}  # where each request was sent
        self._owners: dict[str, set[str]] = {}  # by client: the executors that it has had requests of
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, scheduler: Any) -> None:
        """Take note of the scheduler. dask calls this when the plugin is registered."""
        self._scheduler = scheduler

    def update_graph(self, scheduler: Any, *, client: str = "", tasks: Any = (), **_: Any) -> None:  # noqa: ARG002
        """Take note of which client requests come from. All of one message are those of one executor."""
        key: Any = next(iter(tasks), None)
        if is_ours(key):
            self._owners.setdefault(client, set()).add(owner_of(key))

    def remove_client(self, scheduler: Any, client: str) -> None:
        """Have the nodes end the pools of a client that is gone."""
        for owner in self._owners.pop(client, ()):
            task = asyncio.ensure_future(_close_pools(scheduler, owner))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def transition(self, key: Any, start: str, finish: str, *_: Any, stimulus_id: str = "", **__: Any) -> None:
        """Follow a request through the states that dask's scheduler has for it."""
        if not is_ours(key):
            return
        scheduler = self._scheduler
        state = scheduler.tasks.get(key)
        if finish == "processing":
            if state is not None and state.processing_on is not None:
                self._nodes[key] = state.processing_on.address
        elif finish == "forgotten":
            self._nodes.pop(key, None)
        elif (
            state is not None
            and start in ("processing", "memory")
            and finish not in ("memory", "erred")
            and not stimulus_id.startswith(_NOT_BEGUN)
        ):
            # It is to run once more, if anybody still wants it.
            former = self._nodes.get(key, "")
            # One that is still there is not the one: the request was moved to another before it began.
            lost = "" if former in scheduler.workers else former
            noted = state.annotations or {}
            state.annotations = {**noted, LOST: [*noted.get(LOST, ()), lost]}


async def _close_pools(scheduler: Any, owner: str) -> None:
    """Have all nodes end the pools of an executor, as `Client.run` would."""
    message = {
        "op": "run",
        "function": dumps(node.close_pools),
        "args": dumps((owner,)),
        "kwargs": dumps({}),
        "wait": True,
    }
    with suppress(OSError):
        await scheduler.broadcast(msg=message, on_error="ignore")
