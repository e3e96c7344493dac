"""A pool of ours in each dask worker, as one of its executors, for tasks that dask itself submits.

Made and checked in the client. `setup` and `teardown` run on the event loop of each dask worker, those that join the
cluster later included.
"""

from __future__ import annotations

import asyncio
from typing import Any

from distributed.diagnostics.plugin import WorkerPlugin

from pidfdpool.integrations.dask_cluster import options as option_rules
from pidfdpool.integrations.dask_cluster import payloads
from pidfdpool.integrations.dask_cluster.node_pool import NodePool

_DASKS_OWN = ("actor", "offload")  # executors that dask needs as they are


class PidfdPoolPlugin(WorkerPlugin):  # type: ignore[misc]
    """Gives each dask worker a pool, as the executor "pidfdpool" or as its default one.

        client.register_plugin(PidfdPoolPlugin(timeout=60))
        with dask.annotate(executor="pidfdpool"):
            future = client.submit(work, 1)

    A task that crashes, leaks or hangs then costs that task, and not the dask worker with its data. A pool that
    breaks is replaced at the next task. When the plugin is removed, or the dask worker closes, nothing of it is left.

    Args:
        workers: the workers of each pool. Default: as many as the dask worker has threads.
        executor: the name of the executor. "default": tasks that name no executor run in the pool, too.
        options: those of `PidfdPoolExecutor`, and initializer, initargs, preload and mp_context. max_pending and
            block are refused: dask itself limits what it submits.

    Raises:
        TypeError, ValueError: an argument makes no sense; the message names it and its value.
    """

    def __init__(self, workers: int | None = None, *, executor: str = "pidfdpool", **options: Any) -> None:
        if not isinstance(executor, str) or not executor:
            raise TypeError(f"executor must be the name of an executor, not {executor!r}")
        if executor in _DASKS_OWN:
            raise ValueError(f"executor must not be {executor!r}, which dask needs as it is")
        option_rules.check_names(type(self).__name__, options, option_rules.OF_PLUGIN)
        option_rules.check_values(workers, options)
        self.name = f"pidfdpool-{executor}"  # by which dask replaces an earlier one
        self._executor = executor
        self._workers = workers
        self._options = payloads.dumps(options)  # opened where the pool is made, as the executor's are

    def setup(self, worker: Any) -> None:
        """Give a dask worker its pool. No process is started before the first task."""
        if not hasattr(worker, "executors"):
            raise TypeError(f"pidfdpool.dask gives pools to dask workers, and this is a {type(worker).__name__}")
        workers = max(1, worker.state.nthreads) if self._workers is None else self._workers
        pool = NodePool(worker.address, workers, payloads.loads(self._options))
        self._pool, self._former = pool, worker.executors.get(self._executor)
        worker.executors[self._executor] = pool

    async def teardown(self, worker: Any) -> None:
        """Take the pool away, and end it with what runs in it."""
        pool, former = self._pool, self._former
        if worker.executors.get(self._executor) is pool:
            if former is None:
                del worker.executors[self._executor]
            else:
                worker.executors[self._executor] = former
        try:
            await asyncio.to_thread(pool.kill)
        except RuntimeError:  # the loop's threads are gone already
            pool.kill()
