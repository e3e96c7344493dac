"""The part that runs in dask workers: it makes the calls of requests in pools of ours, and answers.

All of it runs on the event loop of the dask worker, as coroutines, so no thread waits. A request holds one of the
places that the dask worker has for running tasks, as any task does. The pools are made at the first request that
needs them. They end with the executor that they are for; when nothing was asked of them for IDLE seconds, for that
executor's process may be gone; and with the dask worker.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from distributed import get_worker
from distributed.diagnostics.plugin import WorkerPlugin

import pidfdpool
from pidfdpool.integrations.dask_cluster import calls, payloads
from pidfdpool.integrations.dask_cluster.calls import Made
from pidfdpool.integrations.dask_cluster.node_pool import NodePool, lost
from pidfdpool.integrations.dask_cluster.requests import LOST, Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from pidfdpool.integrations.dask_cluster.requests import Key, PoolSettings, Request

IDLE = 300.0  # seconds without a call after which a pool is ended
TOLD_AFTER = 0.02  # seconds that a call runs before the client is told that it does; most are over by then
_REMEMBERED = 10_000  # requests that were killed before they came

NAME = "pidfdpool-node"


class _Shared:
    """A pool, and how many requests use it."""

    def __init__(self, pool: NodePool) -> None:
        self.pool = pool
        self.users = 0
        self.idle_timer: asyncio.TimerHandle | None = None


class Node(WorkerPlugin):  # type: ignore[misc]
    """What one dask worker has for requests. A plugin of it, so that it is told when the dask worker closes."""

    name = NAME

    def __init__(self) -> None:
        self._pools: dict[tuple[str, bytes], _Shared] = {}
        self._running: dict[Key, list[Any]] = {}  # requests, with what can be killed of each
        self._killed: OrderedDict[Key, None] = OrderedDict()

    def setup(self, worker: Any) -> None:
        """Take note of the dask worker."""
        self._worker = worker

    async def teardown(self, worker: Any) -> None:  # noqa: ARG002
        """End all pools, and what runs in them."""
        pools, self._pools = self._pools, {}
        for shared in pools.values():
            await _end(shared)

    async def close_pools(self, owner: str) -> None:
        """End the pools of an executor."""
        for found in [key for key in self._pools if key[0] == owner]:
            await _end(self._pools.pop(found))

    def kill(self, keys: list[Key]) -> None:
        """Kill requests, those that run and those that have not come yet."""
        for key in keys:
            self._killed[key] = None
            for running in self._running.get(key, ()):
                running.kill() if isinstance(running, pidfdpool.Future) else running.cancel()
        while len(self._killed) > _REMEMBERED:
            self._killed.popitem(last=False)

    def begin(self, settings: PoolSettings) -> _Shared:
        """Return the pool with these settings, for a request. `finish` has to follow."""
        found = settings.owner, bytes(settings.payload.frames[0])
        shared = self._pools.get(found)
        if shared is None:
            arguments = payloads.loads(settings.payload)
            shared = _Shared(NodePool(self._worker.address, max(1, self._worker.state.nthreads), arguments))
            self._pools[found] = shared
        shared.pool.replace_if_broken()
        shared.users += 1
        if shared.idle_timer is not None:
            shared.idle_timer.cancel()
            shared.idle_timer = None
        return shared

    def finish(self, settings: PoolSettings, shared: _Shared) -> None:
        """Take note that a request does not need its pool any more."""
        shared.users -= 1
        if not shared.users:
            found = settings.owner, bytes(settings.payload.frames[0])
            shared.idle_timer = asyncio.get_running_loop().call_later(IDLE, self._end_idle, found, shared)

    def _end_idle(self, found: tuple[str, bytes], shared: _Shared) -> None:
        if not shared.users and self._pools.get(found) is shared:
            del self._pools[found]
            shared.pool.shutdown(wait=False)

    async def answer(self, request: Request) -> Answer:
        """Make the calls of a request."""
        noted = self._worker.state.tasks[request.key].annotations or {}
        nodes = list(noted.get(LOST, ()))
        if nodes and (len(nodes) > request.retries or not request.survives_loss):
            failure = calls.dump_error(lost(request.name, request.key[1], nodes))
            return Answer(nodes[-1], [Made(False, failure, 0.0)] * len(request.calls), attempt=len(nodes))
        if request.key in self._killed:
            raise asyncio.CancelledError
        options = dict(request.options)
        if nodes:
            options["retries"] = request.retries - len(nodes)
        shared = self.begin(request.pool)
        try:
            if request.first is None:
                return await self._answer_single(request, shared.pool, options, len(nodes))
            waiting = [
                asyncio.ensure_future(_outcome(shared.pool, options, request, index))
                for index in range(len(request.calls))
            ]
            self._running[request.key] = waiting
            timer = asyncio.get_running_loop().call_later(
                TOLD_AFTER, self._worker.log_event, request.topic, {"number": request.key[1]}
            )
            try:
                return Answer(self._worker.address, await asyncio.gather(*waiting))
            finally:
                timer.cancel()
                for each in waiting:
                    each.cancel()
        finally:
            self._running.pop(request.key, None)
            self.finish(request.pool, shared)

    async def _answer_single(self, request: Request, pool: NodePool, options: dict[str, Any], before: int) -> Answer:
        """Make a call for which a future waits. before: how many attempts were lost with other nodes."""
        call = calls.Call(None, request.calls[0], request.retry_on, options.get("retries", 0), request.name)
        future = pool.submit_with(options, call)
        self._running[request.key] = [future]
        loop = asyncio.get_running_loop()
        timer = loop.call_later(TOLD_AFTER, self._tell, request, future, before)
        try:
            made = await _made(asyncio.wrap_future(future))
        except asyncio.CancelledError:  # the dask worker closes
            future.kill()
            raise
        finally:
            timer.cancel()
        ran_in = future.worker
        worker = None if ran_in is None else (ran_in.slot, ran_in.generation, ran_in.pid)
        return Answer(self._worker.address, [made], worker, before + future.attempt, future.started_at)

    def _tell(self, request: Request, future: pidfdpool.Future[Any], before: int) -> None:
        """Tell the client that a call runs, and where."""
        if future.done():
            return
        if future.worker is None:  # it waits for a worker to start
            asyncio.get_running_loop().call_later(TOLD_AFTER, self._tell, request, future, before)
            return
        begun = {
            "number": request.key[1],
            "node": self._worker.address,
            "slot": future.worker.slot,
            "generation": future.worker.generation,
            "pid": future.worker.pid,
            "attempt": before + future.attempt,
            "started_at": future.started_at,
        }
        self._worker.log_event(request.topic, begun)


async def _outcome(pool: NodePool, options: dict[str, Any], request: Request, index: int) -> Made:
    """Make one of the calls of a map."""
    assert request.first is not None
    name = f"{request.name}, item {request.first + index} of map"
    retries = options.get("retries", 0)
    call = calls.Call(request.function, request.calls[index], request.retry_on, retries, name)
    return await _made(pool.run_with({**options, "cancel_kills": True}, call))


async def _made(running: Awaitable[Any]) -> Made:
    """Return what becomes of a call. An error of the pool is an outcome, too."""
    try:
        made: Made = await running
        return made
    except Exception as error:
        return Made(False, calls.dump_error(error), 0.0)


async def _end(shared: _Shared) -> None:
    if shared.idle_timer is not None:
        shared.idle_timer.cancel()
    # In a thread, because a worker may take its time to die; the loop's own threads may be gone already.
    with suppress(RuntimeError):
        await asyncio.to_thread(shared.pool.kill)
        return
    shared.pool.kill()


# ---- what the client has dask call -----------------------------------------------------------------------------


async def answer(request: Request) -> Answer:
    """Answer a request. dask runs it as a task, on the event loop of a dask worker."""
    worker = get_worker()
    node = worker.plugins.get(NAME)
    if node is None:
        node = Node()
        await worker.plugin_add(node, NAME)  # does not yield to other coroutines: `setup` is an ordinary function
    result: Answer = await node.answer(request)
    return result


def kill(keys: list[Key], dask_worker: Any) -> None:
    """Kill requests. dask runs it on the event loop of each dask worker that it is told to."""
    node = dask_worker.plugins.get(NAME)
    if node is not None:
        node.kill(keys)


async def close_pools(owner: str, dask_worker: Any) -> None:
    """End the pools of an executor. dask runs it on the event loop of each dask worker."""
    node = dask_worker.plugins.get(NAME)
    if node is not None:
        await node.close_pools(owner)
