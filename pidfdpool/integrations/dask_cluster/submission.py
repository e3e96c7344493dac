"""Sends requests to the cluster and passes their answers on: the only part that talks to dask's client.

Any thread sends. What is sent in one go becomes one message for the scheduler. Everything that waits for dask runs as
a coroutine in the loop of the client's own thread. A request is pending from when it is sent until its recipient has
an answer or an error; nothing else keeps it.

When the scheduler goes away, dask's client forgets all of its futures. Then all that is pending fails with
PoolBroken, and nothing more can be sent.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import os
import re
import uuid
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from distributed import KilledWorker
from distributed.utils import TimeoutError as DaskTimeout

import pidfdpool
from pidfdpool.integrations.dask_cluster import node, requests
from pidfdpool.integrations.dask_cluster.node_pool import lost
from pidfdpool.integrations.dask_cluster.requests import PoolSettings, Request
from pidfdpool.integrations.dask_cluster.reruns import Reruns
from pidfdpool.process import locks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from distributed import Client

    from pidfdpool.integrations.dask_cluster.options import Rules
    from pidfdpool.integrations.dask_cluster.payloads import Payload
    from pidfdpool.integrations.dask_cluster.requests import Answer, Key

AT_ONCE = 500  # requests in one message
HEAVIEST = 5_000_000  # bytes of calls in one message, unless a single request has more: dask warns of 10 MB
PATIENCE = 10.0  # seconds for what the cluster is told at the end


class Recipient(Protocol):
    """What gets the answer to a request. Called in the client's thread, without a lock."""

    def _sent(self, key: Key) -> None:
        """Take note of the key, before the request is sent."""

    def _begun(self, told: dict[str, Any]) -> None:
        """Take note that the call runs."""

    def _take(self, answer: Answer) -> None:
        """Take the answer."""

    def _fail(self, error: BaseException) -> None:
        """Take an error of the cluster's instead, which is no one else's."""


class Submission:
    """The requests of one executor. Thread-safe."""

    def __init__(self, client: Client, settings: Payload) -> None:
        """Prepare the cluster. Waits for the scheduler.

        Raises:
            PoolBroken: the client is closed, or has lost its scheduler.
        """
        self.client = client
        self.owner = uuid.uuid4().hex
        self.address = str(getattr(getattr(client, "scheduler", None), "address", "an unknown address"))
        self.threads = 1  # of all nodes together, by the latest that is known
        self._topic = f"pidfdpool-{self.owner}"
        self._settings = PoolSettings(self.owner, settings)
        self._numbers = itertools.count(1)
        self._lock = locks.plain()
        self._pending: dict[int, tuple[Key, Recipient]] = {}  # by the number of the request
        self._futures: dict[Key, Any] = {}  # dask's
        self._outbox: deque[tuple[int, Request]] = deque()
        self._failure: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._emptied: Callable[[], None] | None = None
        self._pid = os.getpid()
        self.check()
        client.register_plugin(Reruns())
        client.subscribe_topic(self._topic, self._on_begun)
        self.count_threads()

    def check(self) -> None:
        """Raise the error of a cluster that cannot be used.

        Raises:
            PoolBroken: the scheduler has gone away, or the client is closed.
            RuntimeError: this is a forked child of the process whose client it is.
        """
        if self._pid != os.getpid():
            raise RuntimeError(
                "a DaskExecutor cannot be used in a forked child: the connection is its parent's. Make a client and "
                "an executor in the child"
            )
        if self._failure is None and self.client.status not in ("running", "connecting"):
            self._failure = f"the client of the dask cluster at {self.address} is {self.client.status}"
        if self._failure is not None:
            raise pidfdpool.PoolBroken(self._failure)

    def count_threads(self, *, wait: bool = True) -> None:
        """Ask how many threads the nodes have. wait: for the answer, unless this is the client's own thread."""
        if self.client.asynchronous or not wait:
            self._in_loop(lambda: self._spawn(self._count_threads()))
        else:
            with suppress(OSError):  # what is sent next will fail
                self.threads = max(1, sum(self.client.nthreads().values()))

    async def _count_threads(self) -> None:
        with suppress(OSError, asyncio.TimeoutError):
            self.threads = max(1, sum((await self.client.nthreads()).values()))

    # ---- sending -------------------------------------------------------------------------------------------

    def send(
        self,
        recipient: Recipient,
        rules: Rules,
        name: str,
        function: Payload | None,
        calls: tuple[Payload, ...],
        *,
        first: int | None = None,
    ) -> None:
        """Send a request. Its recipient gets an answer or an error in any case.

        first: which call of its map the first is; None: it is no map.

        Raises:
            PoolBroken, RuntimeError: as `check`.
        """
        self.check()
        key = (f"{_as_prefix(name)}{requests.MARK}{self.owner}", next(self._numbers))
        recipient._sent(key)
        request = Request(
            key, self._topic, self._settings, rules.options, rules.retries, rules.survives_loss, rules.retry_on,
            name, function, calls, first,
        )  # fmt: skip
        with self._lock:
            self._pending[key[1]] = key, recipient
            self._outbox.append((rules.priority, request))
            is_first = len(self._outbox) == 1
        if self._failure is not None:  # since it was looked at
            self._break(self._failure)
        if is_first:
            self._in_loop(self._flush)

    def _flush(self) -> None:
        """Send what lies in the outbox. In the client's thread."""
        while self._outbox:
            batch: list[Request] = []
            priority, size = self._outbox[0][0], 0
            while self._outbox and self._outbox[0][0] == priority and len(batch) < AT_ONCE:
                size += sum(call.__sizeof__() for call in self._outbox[0][1].calls)
                if batch and size > HEAVIEST:
                    break
                with self._lock:
                    request = self._outbox.popleft()[1]
                if request.key[1] in self._pending:
                    batch.append(request)
            if batch:
                self._send(batch, priority)

    def _send(self, batch: list[Request], priority: int) -> None:
        keys = [request.key for request in batch]
        try:
            futures = self.client.map(node.answer, batch, key=keys, pure=False, priority=priority)
        except Exception as error:
            for key in keys:
                self._fail(key, error)
            return
        for key, future in zip(keys, futures, strict=True):
            self._futures[key] = future
            self._spawn(self._follow(key, future))

    async def _follow(self, key: Key, future: Any) -> None:
        """Wait for the answer to a request, and pass it on."""
        try:
            answer = await future.result()
        except (asyncio.CancelledError, concurrent.futures.CancelledError) as error:
            self._on_cancelled(key, str(getattr(error, "reason", None)))
        except KilledWorker as error:
            ended = getattr(error.last_worker, "address", "")
            self._fail(key, lost(key[0].partition(requests.MARK)[0], key[1], [ended]))
        except Exception as error:
            self._fail(key, error)
        else:
            self._finish(key, lambda recipient: recipient._take(answer))
        finally:
            self._futures.pop(key, None)

    def _on_cancelled(self, key: Key, reason: str) -> None:
        """Fail a request that dask has cancelled, if nobody here has asked for it."""
        if key[1] not in self._pending:
            return
        if reason == "scheduler-connection-lost":
            self._break(f"the scheduler of the dask cluster at {self.address} went away: its connection was closed")
        elif reason == "scheduler-restart":
            self._fail(key, pidfdpool.PoolBroken(f"the dask cluster at {self.address} was restarted"))
        elif self.client.status != "running":
            self._break(f"the client of the dask cluster at {self.address} was closed")
        else:
            self._fail(key, concurrent.futures.CancelledError(f"the request was cancelled in dask: {reason}"))

    def _on_begun(self, event: tuple[Any, dict[str, Any]]) -> None:
        """Take note that a call runs. dask calls this in the client's thread."""
        told = event[1]
        found = self._pending.get(told["number"])
        if found is not None:
            found[1]._begun(told)

    # ---- ending --------------------------------------------------------------------------------------------

    def cancel(self, key: Key) -> bool:
        """Have a request not begin, if it has not, and drop its answer. Any thread. False: it had its answer."""
        if not self._finish(key, lambda _: None):
            return False
        self._in_loop(self._cancel, key)
        return True

    def _cancel(self, key: Key) -> None:
        future = self._futures.get(key)
        if future is not None:
            self._spawn(self._tell(self.client.cancel, [future]))

    def kill(self, key: Key, where: str | None) -> None:
        """Kill a request on its node; None: wherever it is. Any thread."""
        self.kill_all([key], where)

    def kill_all(self, keys: Iterable[Key], where: str | None = None) -> None:
        """Kill requests. Any thread."""
        nodes = None if where is None else [where]
        self._in_loop(
            lambda: self._spawn(self._tell(self.client.run, node.kill, list(keys), workers=nodes, on_error="ignore"))
        )

    def pending(self) -> list[tuple[Key, Recipient]]:
        """Return the requests that have no answer yet, with their recipients."""
        with self._lock:
            return list(self._pending.values())

    def end(self, ended: concurrent.futures.Future[None]) -> None:
        """When nothing is pending any more, end what the nodes have for this executor, and then resolve a future.

        Any thread. Nothing must be sent from now on but what maps have accepted.
        """
        self._call_when_empty(lambda: self._in_loop(lambda: self._spawn(self._end(ended)), or_else=ended))

    async def _end(self, ended: concurrent.futures.Future[None]) -> None:
        try:
            with suppress(Exception):
                self.client.unsubscribe_topic(self._topic)
            await self._tell(self.client.run, node.close_pools, self.owner, on_error="ignore")
        finally:
            _resolve(ended)

    async def _tell(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        """Have dask's client do something, if there is still a cluster to do it."""
        if self.client.status == "running":
            with suppress(OSError, DaskTimeout, asyncio.TimeoutError):
                await asyncio.wait_for(function(*arguments, **named), PATIENCE)

    def _call_when_empty(self, callback: Callable[[], None]) -> None:
        """Call back when nothing is pending, in whatever thread that happens; at once if nothing is."""
        with self._lock:
            if self._pending:
                self._emptied = callback
                return
        callback()

    def _finish(self, key: Key, act: Callable[[Recipient], None]) -> bool:
        """Act on the recipient of a request, which is pending no more. Return False if it was not."""
        with self._lock:
            found = self._pending.pop(key[1], None)
        if found is None:
            return False
        try:
            act(found[1])
        finally:
            with self._lock:
                emptied = None
                if not self._pending:
                    emptied, self._emptied = self._emptied, None
            if emptied is not None:
                emptied()
        return True

    def _fail(self, key: Key, error: BaseException) -> None:
        self._finish(key, lambda recipient: recipient._fail(error))

    def _break(self, why: str) -> None:
        """Fail all that is pending: there is no cluster any more."""
        self._failure = why
        for key, _ in self.pending():
            self._fail(key, pidfdpool.PoolBroken(why))

    def _in_loop(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        or_else: concurrent.futures.Future[None] | None = None,
    ) -> None:
        """Call a function in the client's thread. or_else: resolved if that thread has ended."""
        if self.client.status != "closed":
            with suppress(RuntimeError):  # the loop is closed
                self.client.loop.add_callback(function, *arguments)
                return
        self._break(f"the client of the dask cluster at {self.address} was closed")
        if or_else is not None:
            _resolve(or_else)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _resolve(future: concurrent.futures.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _as_prefix(name: str) -> str:
    """Return what dask's dashboard shows of a function."""
    return re.sub(r"\W", "", name.rpartition(".")[2]) or "call"
