"""A `DaskExecutor` by the address of the cluster, with a client of its own, which is closed with the executor.

The client gets an event loop in a thread of ours. One that dask starts by itself would stay if the connection fails.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from distributed import Client
from distributed.comm.addressing import parse_address, parse_host_port
from distributed.comm.registry import get_backend
from tornado.ioloop import IOLoop

from pidfdpool import Future
from pidfdpool.integrations.dask_cluster import options as option_rules
from pidfdpool.integrations.dask_cluster.executor import DaskExecutor

CONNECT_TIMEOUT = 10.0  # seconds


class ClientThread:
    """An event loop for one client, in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        running: Future[IOLoop] = Future()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(running,), name="pidfdpool-dask", daemon=True)
        self._thread.start()
        self.loop: IOLoop = running.result()

    def _run(self, running: Future[IOLoop]) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(running))

    async def _serve(self, running: Future[IOLoop]) -> None:
        running.set_result(IOLoop.current())
        await self._stop.wait()

    def stop(self) -> None:
        """End the loop and the thread. Any other thread; it may be called again."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()


def open_cluster(address: str, *, connect_timeout: float = CONNECT_TIMEOUT, **options: Any) -> DaskExecutor:
    """Connect to the dask cluster with this address, and return an executor on it.

    The executor owns its client: `shutdown` closes it.

    Args:
        address: of the scheduler, such as "tcp://127.0.0.1:8786".
        connect_timeout: seconds after which it counts as unreachable.
        options: as `DaskExecutor` takes them.

    Raises:
        ConnectionError: no dask scheduler could be reached there in time; the message names the address.
        TypeError, ValueError: an argument makes no sense; the message names it and its value.
    """
    _check_address(address)
    option_rules.check_names("open_cluster", options, option_rules.OF_EXECUTOR)
    option_rules.check_values(None, options)
    thread = ClientThread()
    try:
        client = Client(address, loop=thread.loop, timeout=connect_timeout, set_as_default=False)
    except (TimeoutError, OSError, AssertionError) as error:
        thread.stop()
        raise ConnectionError(
            f"no dask scheduler could be reached at {address!r} within {connect_timeout:g} s: {error}"
        ) from error
    except BaseException:
        thread.stop()
        raise

    def close() -> None:
        client.close()
        thread.stop()

    try:
        executor = DaskExecutor(client, **options)
    except BaseException:
        close()
        raise
    executor._close_with(close)
    return executor


def _check_address(address: Any) -> None:
    example = "such as 'tcp://127.0.0.1:8786'"
    if not isinstance(address, str):
        raise TypeError(f"address must be that of a dask scheduler, {example}, not {address!r}")
    try:
        scheme, location = parse_address(address)
        get_backend(scheme)
        if scheme in ("tcp", "tls"):
            parse_host_port(location)
    except ValueError as error:
        raise ValueError(f"address must be that of a dask scheduler, {example}, not {address!r}: {error}") from error
