"""The inputs of an `amap` some of whose iterables are asynchronous.

One task of the event loop reads them (`Reader`), one item at a time, and no further ahead than the map allows. The
same task closes them, because an asynchronous generator may have to be closed by the task that has entered it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pidfdpool.executor.async_items import Items
from pidfdpool.executor.wakeup import Wakeup
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.process import describe
from pidfdpool.worker.chunk import call_each

if TYPE_CHECKING:
    from pidfdpool.executor.awaited_calls import AwaitedCalls
    from pidfdpool.executor.map_request import MapRequest

AHEAD = 4  # calls for each worker, if no buffersize is given: an input may have no end
TURN = 16  # calls that are taken from inputs which need not be waited for, until others in the loop have their turn


class Reader:
    """Takes the calls from the inputs of a map, in a task of its own, from the first result on."""

    def __init__(self, request: MapRequest, calls: AwaitedCalls) -> None:
        self._request = request
        self._calls = calls
        self.is_refused: bool = False
        self._room = Wakeup()
        self._inputs: Items | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._is_over = False  # nothing is read any more

    def more(self) -> None:
        """Have the task take calls, if there is room for them."""
        if self._inputs is None:
            self._inputs = Items(self._request)
            reading = self._read(self._inputs)
            # With eager tasks it runs at once, up to where it waits for the first time.
            self._task = asyncio.get_running_loop().create_task(reading, name="inputs of a map of pidfdpool")
        elif self._calls.has_room():
            self._room.tell_here()

    async def close(self) -> None:
        """Take no more, and wait until the inputs are closed."""
        self._closing = True
        task, self._task = self._task, None
        if task is not None:
            if not self._is_over:
                task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()  # raises what closing an input has raised
        if self._inputs is not None:
            await self._inputs.close()  # the task may have been cancelled before it ran

    async def _read(self, inputs: Items) -> None:
        calls = self._calls
        try:
            await self._submit_all(inputs)
        except (Exception, asyncio.CancelledError) as error:
            if self._closing:
                raise
            self._is_over = True
            calls.end(error)
        else:
            self._is_over = True
            calls.end()
        finally:
            await inputs.close()

    async def _submit_all(self, inputs: Items) -> None:
        """Submit the calls, as there is room for them; those that share a task when they are complete."""
        request, calls, room, taken = self._request, self._calls, self._room, 0
        size, name = request.calls_per_task, describe.name_of(request.function)
        chunk: list[tuple[Any, ...]] = []
        while True:
            await room.wait(calls.has_room)
            try:
                call = await inputs.next()
            except (Exception, asyncio.CancelledError):
                if chunk and not self._closing:
                    self._submit_chunk(chunk, taken, name)  # what was taken before an input has raised
                raise
            if call is not None:
                taken += 1
                if size == 1:
                    calls.submit(request.function, call)
                else:
                    chunk.append(call)
            if chunk and (call is None or len(chunk) == size):
                self._submit_chunk(chunk, taken, name)
                chunk = []
            if call is None:
                return
            del call
            if taken % TURN == 0:
                await asyncio.sleep(0)

    def _submit_chunk(self, chunk: list[tuple[Any, ...]], taken: int, name: str) -> None:
        call = Chunk(call_each, name, taken - len(chunk), chunk, func=self._request.function)
        self._calls.submit(call, (chunk,))
