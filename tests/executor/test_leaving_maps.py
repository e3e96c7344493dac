"""Who leaves a map early withdraws the calls that have not begun, whichever way the map works and is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import sys

import pytest

from pidfdpool import PidfdPoolExecutor
from tests import calls
from tests.conditions import eventually

COUNT = 40


class Left(Exception):
    """What a loop's body raises."""


class Map:
    """A map of whose calls the first of the second task is held, so that those behind it have not begun."""

    def __init__(self, pool, folder, options=None, **keywords):
        self.pool = pool
        self._log, self._release = folder / "log", folder / "release"
        self._submitter = pool.options(**options) if options else pool
        self._keywords = keywords
        self.in_a_task = keywords.get("chunksize") or 1
        self.held = self.in_a_task

    def begin(self, name="map", *, failing=None, **keywords):
        given = str(self._log), str(self._release)
        columns = *map(itertools.repeat, given), range(COUNT), itertools.repeat(self.held), itertools.repeat(failing)
        return getattr(self._submitter, name)(calls.append_and_stay, *columns, **self._keywords, **keywords)

    def begun(self):
        """Return the calls that have begun."""
        return [int(line) for line in self._log.read_text().split()] if self._log.exists() else []

    def hold(self):
        """Hold the worker by another task."""
        self.held, self.in_a_task = -1, 0
        future = self.pool.submit(calls.append_and_stay, str(self._log), str(self._release), -1, -1)
        self.wait_until_held()
        return future

    def wait_until_held(self):
        eventually(lambda: self.held in self.begun(), "the call is held")

    def check(self):
        """Assert that no further call runs, now that the map was left."""
        eventually(lambda: self.pool.stats().pending == 1, "all that is left is what has begun")
        submitted = self.pool.stats().submitted
        self._release.touch()
        assert self.pool.submit(calls.double, 1).result(20) == 2  # it comes after whatever has waited longer
        eventually(lambda: not self.pool.stats().pending, "nothing is left")
        # One more may have been on its way, to be cancelled at once, when the map was left.
        assert self.pool.stats().submitted <= submitted + 2
        assert self.begun() == (list(range(self.held + self.in_a_task)) if self.held >= 0 else [-1])

    def end(self):
        """Have nothing left of a test that failed."""
        self._release.touch()
        eventually(lambda: not self.pool.stats().pending, "nothing is left")


TIMED = {"timeout": 60}  # each call is a task: the pool sizes no chunks
KINDS = {
    "adaptive": {},
    "single": {"chunksize": 1},
    "chunks": {"chunksize": 3},
    "timed": {"options": TIMED},
    "buffered": {"buffersize": 3},
    "buffered and adaptive": {"buffersize": 12},
    "buffered chunks": {"buffersize": 3, "chunksize": 2},
    "buffered and timed": {"buffersize": 3, "options": TIMED},
}
LIMITED = {
    "limited": {},
    "limited chunks": {"chunksize": 2},
    "limited and buffered": {"buffersize": 3},
    "limited and timed": {"options": TIMED},
}


@pytest.fixture(scope="module")
def pool():
    with PidfdPoolExecutor(1) as pool:
        pool.submit(calls.double, 1).result()
        yield pool


@pytest.fixture(scope="module")
def limited():
    with PidfdPoolExecutor(1, max_pending=4) as pool:
        pool.submit(calls.double, 1).result()
        yield pool


@pytest.fixture(params=KINDS)
def mapping(request, pool, tmp_path):
    mapping = Map(pool, tmp_path, **KINDS[request.param])
    yield mapping
    mapping.end()


@pytest.fixture(params=[*KINDS, *LIMITED])
def amapping(request, pool, limited, tmp_path):
    pool = limited if request.param in LIMITED else pool
    amapping = Map(pool, tmp_path, **(KINDS | LIMITED)[request.param])
    yield amapping
    amapping.end()


# ---- map and map_unordered -------------------------------------------------------------------------------------


def by_close(begin, mapping):
    results = begin()
    assert next(results) == 0
    mapping.wait_until_held()
    results.close()


def by_letting_go(begin, mapping):
    for result in begin():
        assert result == 0
        mapping.wait_until_held()
        break


def by_letting_go_of_a_cycle(begin, mapping):
    holder = [begin()]
    holder.append(holder)
    assert next(holder[0]) == 0
    mapping.wait_until_held()
    del holder
    gc.collect()


def by_an_exception(begin, mapping):
    with contextlib.suppress(Left):
        for _ in begin():
            mapping.wait_until_held()
            raise Left


def by_a_call_that_fails(begin, mapping):
    results = begin(failing=mapping.in_a_task - 1)
    with pytest.raises(LookupError):
        list(results)


def by_the_time(begin, mapping):
    results = begin(timeout=0.05)
    mapping.wait_until_held()
    with pytest.raises(TimeoutError):
        list(results)


@pytest.mark.parametrize("name", ["map", "map_unordered"])
@pytest.mark.parametrize(
    "leave", [by_close, by_letting_go, by_letting_go_of_a_cycle, by_an_exception, by_a_call_that_fails, by_the_time]
)
def test_who_leaves_a_map_withdraws_what_has_not_begun(mapping, leave, name):
    def begin(**keywords):
        return mapping.begin(name, **keywords)

    leave(begin, mapping)
    mapping.wait_until_held()
    mapping.check()


@pytest.mark.parametrize("name", ["map", "map_unordered"])
def test_a_map_that_waits_for_a_call_that_has_not_begun_withdraws_that_too(mapping, name):
    mapping.hold()
    with pytest.raises(TimeoutError):
        next(mapping.begin(name, timeout=0.05))
    mapping.check()


# ---- amap ------------------------------------------------------------------------------------------------------


async def by_aclose(mapping):
    results = mapping.begin("amap")
    async for _ in results:
        mapping.wait_until_held()
        break
    await results.aclose()


async def by_an_exception_within_aclosing(mapping):
    with contextlib.suppress(Left):
        async with contextlib.aclosing(mapping.begin("amap")) as results:
            async for _ in results:
                mapping.wait_until_held()
                raise Left


async def by_an_exception_in_the_body(mapping):
    with contextlib.suppress(Left):
        async for _ in mapping.begin("amap"):
            mapping.wait_until_held()
            raise Left


async def by_break(mapping):
    async for _ in mapping.begin("amap"):
        mapping.wait_until_held()
        break


async def by_a_cycle_that_is_collected(mapping):
    holder = [mapping.begin("amap")]
    holder.append(holder)
    assert await anext(holder[0]) == 0
    mapping.wait_until_held()
    del holder
    gc.collect()


async def by_cancelling_who_waits(mapping):
    taken = []

    async def consume():
        async for result in mapping.begin("amap"):
            taken.append(result)  # noqa: PERF401

    consuming = asyncio.ensure_future(consume())
    while len(taken) < mapping.held:
        await asyncio.sleep(0.001)
    await asyncio.to_thread(mapping.wait_until_held)
    consuming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consuming


async def by_cancelling_who_works(mapping):
    works = asyncio.Event()

    async def consume():
        async for _ in mapping.begin("amap"):
            works.set()
            await asyncio.Event().wait()

    consuming = asyncio.ensure_future(consume())
    await works.wait()
    await asyncio.to_thread(mapping.wait_until_held)
    consuming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consuming


async def by_closing_who_waits(mapping):
    """As the collector does with a task that nobody holds."""
    if sys.version_info < (3, 13):
        pytest.skip("Python leaves the generator as if somebody still waited for it")

    async def consume():
        async for _ in mapping.begin("amap"):
            raise AssertionError("the first call is held")

    mapping.held = 0
    consuming = consume()
    consuming.send(None)
    mapping.wait_until_held()
    consuming.close()


async def by_a_failed_call(mapping):
    with pytest.raises(LookupError):
        async for _ in mapping.begin("amap", failing=mapping.in_a_task - 1):
            pass


async def by_a_timeout_of_asyncio(mapping):
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None) as timeout:
            async for result in mapping.begin("amap"):
                if result == mapping.held - 1:
                    await asyncio.to_thread(mapping.wait_until_held)
                    timeout.reschedule(asyncio.get_running_loop().time())


async def by_its_own_timeout(mapping):
    results = mapping.begin("amap", timeout=0.05)
    mapping.wait_until_held()
    with pytest.raises(TimeoutError):
        async for _ in results:
            pass


@pytest.mark.parametrize(
    "leave",
    [
        by_aclose, by_an_exception_within_aclosing, by_an_exception_in_the_body, by_break,
        by_a_cycle_that_is_collected, by_cancelling_who_waits, by_cancelling_who_works, by_closing_who_waits,
        by_a_failed_call, by_a_timeout_of_asyncio, by_its_own_timeout,
    ],
)  # fmt: skip
def test_who_leaves_an_amap_withdraws_what_has_not_begun(amapping, leave):
    async def main():
        await leave(amapping)
        await asyncio.to_thread(amapping.wait_until_held)
        await asyncio.to_thread(amapping.check)  # while there is a loop that could go on

    asyncio.run(main())


async def by_cancelling(waiting):
    task = asyncio.ensure_future(waiting)
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_wait_for(waiting):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(waiting, 0.01)


async def by_closing(waiting):
    if sys.version_info < (3, 13):
        waiting.close()
        pytest.skip("Python leaves the generator as if somebody still waited for it")
    waiting.send(None)
    waiting.close()


@pytest.mark.parametrize("leave", [by_cancelling, by_wait_for, by_closing])
def test_an_amap_that_waits_for_a_call_that_has_not_begun_withdraws_that_too(amapping, leave):
    async def main():
        async def consume():
            async for _ in amapping.begin("amap"):
                pass

        amapping.hold()
        await leave(consume())
        await asyncio.to_thread(amapping.check)

    asyncio.run(main())


def test_the_end_of_the_loop_withdraws_what_has_not_begun(amapping):
    async def main():
        results.append(amapping.begin("amap"))
        assert await anext(results[0]) == 0
        amapping.wait_until_held()

    results = []
    asyncio.run(main())
    amapping.check()
