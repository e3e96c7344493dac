"""A pool that takes notes of what a stream asks of it, and what comes of a stream without a worker."""

from __future__ import annotations

import asyncio
import pickle
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from pidfdpool.executor.stream import Feed, Stream
from pidfdpool.transport import framing

TASK = 7


class StreamPool:
    """Runs one task, as far as a stream can tell, and takes notes.

    Attributes:
        asked: what it was asked for, and what the worker was told: ("room", items) or ("end", items).
    """

    def __init__(self, *, cancels: bool = False) -> None:
        self.cancels, self.asked = cancels, []
        self.core = SimpleNamespace(
            is_reentered=False,
            defers=False,
            lock=nullcontext(),
            machine=SimpleNamespace(slots=[SimpleNamespace(index=0, task=TASK, ahead=())]),
            tasks={TASK: object()},
            workers={0: SimpleNamespace(post=self._post)},
        )

    def _post(self, pieces):
        kind, count, slot, taken, task = framing.HEADER.unpack(pieces[0])
        assert (kind, count, task) == (framing.STREAM, 0, TASK)
        self.asked.append(({framing.STREAM_ROOM: "room", framing.STREAM_END: "end"}[slot], taken))

    def cancel(self, number, recipient):
        assert number == TASK
        self.asked.append("cancel")
        if self.cancels:
            recipient._resolve_cancelled()
        return self.cancels

    def kill_task(self, number):
        assert number == TASK
        self.asked.append("kill")

    def note_observer(self):
        self.asked.append("observed")

    def told(self):
        """Return how many items the worker was told of, each time."""
        return [each[1] for each in self.asked if each[0] == "room"]


def attached(pool=None, *, cancel_kills=False, begun=True):
    """Return a feed whose task the pool has."""
    feed = Feed()
    pool = StreamPool() if pool is None else pool
    feed._attach(pool, TASK, cancel_kills)
    pool.asked.clear()
    if begun:
        assert feed._begin()
    return feed


def bring(feed, *items, together=False):
    """Have items come, in one payload or each in its own."""
    pickled = [pickle.dumps(item) for item in items]
    if together:
        feed.take_payload([pickle.dumps(pickled)], together=True)
    else:
        for each in pickled:
            feed.take_payload([each], together=False)


class Owner:
    """The executor of a stream."""


def opened(pool=None, buffersize=1000):
    """Return a stream whose task the pool has, and its feed."""
    feed = attached(StreamPool() if pool is None else pool)
    return Stream(Owner(), feed, buffersize), feed


def by_loop(stream):
    return next(stream)


def by_coroutine(stream):
    async def read():
        return await anext(stream)

    return asyncio.run(read())


read_in_each_form = pytest.mark.parametrize("read", [by_loop, by_coroutine])
END = {by_loop: StopIteration, by_coroutine: StopAsyncIteration}
