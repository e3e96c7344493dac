"""A plugin of dask's scheduler: it notes on each request the nodes that it was lost on.

dask runs the tasks of a lost worker again, those that it was running as well as those whose results it held. The
scheduler decides that alone, and a task cannot tell whether it is the first time. So this adds the lost node to the
annotations of the request, which the next node gets with it and acts upon: by trying the call again if it may, and by
failing it otherwise.

Runs in the scheduler's process, on its event loop. Any number of clients may register it: there is one.
"""

from __future__ import annotations

from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin

from pidfdpool.integrations.dask_cluster.requests import LOST, is_ours

# What a dask worker says that gives a task back before it has begun it, because it closes.
_NOT_BEGUN = "worker-closing-"


class Reruns(SchedulerPlugin):  # type: ignore[misc]
    """Notes where requests were lost."""

    name = "pidfdpool-reruns"
    idempotent = True

    def __init__(self) -> None:
        self._scheduler: Any = None
        self._nodes: dict[Any, str] = {}  # where each request was sent

    async def start(self, scheduler: Any) -> None:
        """Take note of the scheduler. dask calls this when the plugin is registered."""
        self._scheduler = scheduler

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
            node = self._nodes.get(key, "")
            # One that is still there is not the one: the request was moved to another before it began.
            lost = "" if node in scheduler.workers else node
            noted = state.annotations or {}
            state.annotations = {**noted, LOST: [*noted.get(LOST, ()), lost]}
