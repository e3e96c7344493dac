"""`map`, `map_unordered`, `amap` and `amap_unordered` on a cluster.

A `ClusterMap` belongs to one map. Without a buffersize it takes its whole input at once, and the client's thread
sends the calls, as chunks end, whether or not anybody takes the results. With one it takes `buffersize` inputs at
once, and one more whenever a result is asked for, in the thread or the event loop that asks.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pidfdpool
from pidfdpool import checks
from pidfdpool.integrations.dask_cluster import inputs
from pidfdpool.integrations.dask_cluster.chunks import Chunk, Chunks
from pidfdpool.integrations.dask_cluster.inputs import Inputs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from pidfdpool.integrations.dask_cluster.options import Rules
    from pidfdpool.integrations.dask_cluster.submission import Submission

ASYNC_BUFFER = 1000  # inputs taken ahead of asynchronous iterables, which may be endless, if no buffersize is given


class ClusterMap:
    """One map. One consumer takes its results; `finish` may be called by any thread."""

    def __init__(
        self,
        submission: Submission,
        rules: Rules,
        function: Callable[..., Any],
        iterables: tuple[Any, ...],
        *,
        timeout: float | None,
        chunksize: int | None,
        buffersize: int | None,
        return_exceptions: bool,
        star: bool,
        ordered: bool,
        asynchronous: bool = False,
    ) -> None:
        """Begin a map: take its first inputs, and send their calls.

        timeout: seconds from now until the iterator raises TimeoutError.

        Raises:
            TypeError, ValueError: an argument makes no sense; the message names it and its value.
            CallNotSendable: the function cannot be pickled.
            PoolBroken: the cluster is not there any more.
        """
        chunksize = checks.integer("chunksize", chunksize, least=1, optional=True)
        buffersize = checks.integer("buffersize", buffersize, least=1, optional=True)
        checks.boolean("return_exceptions", return_exceptions)
        checks.boolean("star", star)
        seconds = checks.wait_time("timeout", timeout)
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._awaits_inputs = asynchronous and inputs.are_asynchronous(iterables)
        if self._awaits_inputs and buffersize is None:
            buffersize = ASYNC_BUFFER
        self._return_exceptions = return_exceptions
        self._ordered = ordered
        self._done: queue.SimpleQueue[Chunk] = queue.SimpleQueue()
        self._waker: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        calls: Any = (
            inputs.asynchronous_calls(iterables, star=star)
            if self._awaits_inputs
            else inputs.calls_of(iterables, star=star)
        )
        submission.check()
        name = getattr(function, "__qualname__", None) or type(function).__qualname__
        name = f"{getattr(function, '__module__', None) or type(function).__module__}.{name}"
        self._chunks = Chunks(
            submission,
            rules,
            function,
            name,
            chunksize=chunksize,
            share=None if buffersize is None or chunksize is not None else buffersize,
            done=self._chunk_done,
        )
        self._inputs = Inputs(calls, self._chunks.add, self._chunks.complete)
        self._at_first = None if buffersize is None else buffersize * (chunksize or 1)
        self._each = chunksize or 1  # inputs that are taken for a result, or for the results of a chunk
        self._by_chunk = chunksize is not None
        if not self._awaits_inputs:
            self._inputs.take(self._at_first)
            if self._at_first is None and not self._chunks.added:
                self._inputs.raise_failure()
            self._chunks.send()

    def finish(self, *, cancel: bool) -> None:
        """Send what was taken, or drop it: soon nothing can be sent. Any thread."""
        if cancel and self._chunks.cancel():
            self._inputs.end(concurrent.futures.CancelledError())
        elif not self._inputs.are_over:
            self._inputs.end(RuntimeError("cannot schedule new futures after shutdown"))
        self._chunks.send(at_once=True)

    def _chunk_done(self, chunk: Chunk) -> None:
        if not self._ordered:
            self._done.put(chunk)
            waker = self._waker
            if waker is not None:
                with suppress(RuntimeError):  # the loop is closed: nobody waits
                    waker[0].call_soon_threadsafe(waker[1].set)

    # ---- results -------------------------------------------------------------------------------------------

    def results(self) -> Iterator[Any]:
        """Return an iterator over the results. When it is closed, chunks that have not begun are cancelled."""
        try:
            chunk: Chunk | None = None
            index = 0
            while True:
                is_new = chunk is None or not chunk.outcomes
                if self._at_first is not None and (is_new or not self._by_chunk):
                    self._inputs.take(self._each)
                    self._chunks.send()
                if is_new:
                    chunk = self._next_chunk()
                    if chunk is None:
                        break
                    index = chunk.first
                assert chunk is not None
                yield self._given(chunk, index)
                index += 1
            self._raise_failure()
        finally:
            self._chunks.cancel()

    async def asynchronous_results(self) -> AsyncIterator[Any]:
        """As `results`, for an event loop. It closes the asynchronous iterables of the input as well."""
        try:
            if self._awaits_inputs:
                assert self._at_first is not None
                await self._take(self._at_first)
            chunk: Chunk | None = None
            index = 0
            while True:
                is_new = chunk is None or not chunk.outcomes
                if self._at_first is not None and (is_new or not self._by_chunk):
                    await self._take(self._each)
                if is_new:
                    chunk = await self._await_chunk()
                    if chunk is None:
                        break
                    index = chunk.first
                assert chunk is not None
                yield self._given(chunk, index)
                index += 1
            self._raise_failure()
        finally:
            self._chunks.cancel()
            await self._inputs.close()

    async def _take(self, count: int) -> None:
        if self._awaits_inputs:
            await self._inputs.take_asynchronously(count)
        else:
            self._inputs.take(count)
        self._chunks.send()

    def _given(self, chunk: Chunk, index: int) -> Any:
        """Return what the consumer gets for the next call of a chunk."""
        value, error = chunk.take()
        try:
            if error is not None:
                gone = isinstance(error, pidfdpool.PoolBroken) and getattr(error, "node", None) is None
                if gone or not self._return_exceptions:
                    raise error
            return pidfdpool.Outcome(index, value, error) if self._return_exceptions else value
        finally:
            del error  # its traceback holds this frame

    @property
    def _is_over(self) -> bool:
        return self._inputs.are_over and self._chunks.are_taken

    def _raise_failure(self) -> None:
        """Raise what has ended the map early, behind all results."""
        if self._chunks.failure is not None:
            raise self._chunks.failure
        self._inputs.raise_failure()

    def _next_chunk(self) -> Chunk | None:
        """Wait for a chunk that has its outcomes; None: there are no more."""
        if self._is_over:
            return None
        first = self._chunks.sent.popleft()
        if self._ordered:
            first.finished.result(self._left())
            return first
        try:
            return self._done.get(timeout=self._left())
        except queue.Empty:
            raise TimeoutError from None

    async def _await_chunk(self) -> Chunk | None:
        if self._is_over:
            return None
        first = self._chunks.sent.popleft()
        if self._ordered:
            waiting = asyncio.wrap_future(first.finished)
            await asyncio.wait([waiting], timeout=self._left())
            if not waiting.done():
                raise TimeoutError
            return first
        while True:
            waker = asyncio.Event()
            self._waker = asyncio.get_running_loop(), waker
            try:
                return self._done.get_nowait()
            except queue.Empty:
                await asyncio.wait_for(waker.wait(), self._left())

    def _left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
