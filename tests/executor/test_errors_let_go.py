"""Who was given an error and drops it has dropped everything: nothing is left to the garbage collector.

An error has a traceback, this has frames, and a frame has its variables. If one of these is the future that holds the
error, neither is freed until the collector runs, and with them whatever the task's error holds.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import suppress

import pytest

from pidfdpool import Policy
from pidfdpool.executor import async_calls, mapping
from pidfdpool.executor.futures import Future


@pytest.fixture(autouse=True)
def collector_is_off():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def failed():
    future = Future()
    future._resolve(None, LookupError("of the task"))
    return future


ASKING = {
    "result()": lambda held: held[0].result(0),
    "an iterator of map": lambda held: mapping._result_of(lambda: (0, held.pop()), 0),
    "an iterator over outcomes": lambda held: mapping._outcome_of(lambda: (0, held.pop()), 0) and None,
}


@pytest.mark.parametrize("ask", ASKING.values(), ids=ASKING)
def test_a_future_whose_error_was_raised_is_gone_when_it_is_dropped(ask):
    held = [failed()]
    gone = weakref.ref(held[0])
    with suppress(LookupError):
        ask(held)
    held.clear()
    assert gone() is None


class Raises:
    """An iterable that raises at once, and is to be gone when its error is dropped."""

    def __iter__(self):
        return self

    def __next__(self):
        raise LookupError("of the iterable")


class Submitter:
    _policy = Policy(2)

    def _sizes_chunks(self):
        return False

    def _submitter_ref(self, _lost=None):
        return lambda: self


@pytest.mark.parametrize("mapped", [mapping.in_order, mapping.as_they_come])
def test_so_is_an_iterable_whose_error_ended_a_map(mapped):
    source = Raises()
    gone = weakref.ref(source)
    results = mapped(Submitter(), abs, (source,), timeout=None, chunksize=None, buffersize=2)
    del source
    with suppress(LookupError, StopIteration):
        next(results)
    del results
    assert gone() is None


class Executor:
    """Resolves each call with an error, and notes the loop's future for it."""

    waiter = None

    def _submit_for(self, awaited, _policy, *_call, wait):
        assert not wait
        self.waiter = weakref.ref(awaited.waiter)
        awaited._resolve(None, LookupError("of the task"))


def test_so_is_what_an_event_loop_waits_for():
    async def main():
        executor = Executor()
        with suppress(LookupError):
            await async_calls.run(None, executor, len, (), {})
        await asyncio.sleep(0)  # the loop holds it until this turn is over
        return executor.waiter()

    assert asyncio.run(main()) is None
