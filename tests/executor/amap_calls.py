"""A submitter for an `amap` that keeps each call until the test resolves it, and turns of the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from types import SimpleNamespace

from pidfdpool import Policy


class Submitter:
    """Takes the calls of an `amap` one by one, and runs none.

    Attributes:
        taken: the calls, with `fn`, `args`, `policy`, and `end` that resolves it: `end(result)`, `end(error=...)`.
        cancelled: the numbers of those that were taken back, in that order.
        refusals: errors to be raised in the place of taking a call, by its number.
    """

    def __init__(self, **options):
        self._policy = Policy(2, **options)
        self.taken, self.cancelled, self.refusals = [], [], {}
        self.by_submit = False  # it has a `submit` of its own, which is to be called

    def _sizes_chunks(self):
        return self._policy.sizes_chunks and not self.by_submit

    def _submitter_ref(self, _lost=None):
        return lambda: self

    def _submit_for(self, recipient, policy, fn, args, kwargs, *, wait):
        assert not self.by_submit
        assert (kwargs, wait) == ({}, False)
        number = self._take(fn, args, policy, lambda result=None, error=None: recipient._resolve(result, error))
        recipient._attach(self, number, False)

    def submit(self, fn, *args):
        assert self.by_submit
        future = Future()

        def end(result=None, error=None):
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        number = self._take(fn, args, None, end)
        future.add_done_callback(lambda it: self.cancelled.append(number) if it.cancelled() else None)
        return future

    def _take(self, fn, args, policy, end):
        number = len(self.taken)
        if number in self.refusals:
            raise self.refusals.pop(number)
        self.taken.append(SimpleNamespace(fn=fn, args=args, policy=policy, end=end))
        return number

    # ---- as the pool of its calls ---------------------------------------------------------------------------

    def cancel(self, number, _recipient):
        self.cancelled.append(number)

    def note_observer(self):
        """Nobody looks at these calls in another way."""

    core = SimpleNamespace(watchdog=SimpleNamespace(offered=None))

    # ---- for tests ------------------------------------------------------------------------------------------

    @property
    def inputs(self):
        """What the calls were made with, if each has one argument."""
        return [each.args[0] for each in self.taken]


async def turns(count=10):
    """Let everything in the event loop come to where it waits."""
    for _ in range(count):
        await asyncio.sleep(0)


def begun(results):
    """Have the next result be waited for."""
    return asyncio.ensure_future(anext(results))


def run(coroutine, *, eager=False):
    """Run it in an event loop, not for ever, and fail if something is left or complained of.

    eager: tasks run at once, up to where they wait for the first time.
    """
    complaints = []

    async def main():
        if eager:
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        try:
            return await asyncio.wait_for(coroutine, 20)
        finally:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not [task for task in left if "inputs of a map" in task.get_name()]

    result = asyncio.run(main())
    assert complaints == []
    return result


def function(*_):
    """Be what a map calls."""
    raise AssertionError("it is run by workers only")


def submitter_of(by_submit):
    """Return a submitter with a `submit` of its own, or one whose pool takes the calls."""
    made = Submitter() if by_submit else Submitter(max_pending=50)
    made.by_submit = by_submit
    return made


class Inputs:
    """An asynchronous iterable of 0, 1, 2 and so on that waits at `gate`, if that is some number."""

    def __init__(self, end=None, error=None, gate=None, close_error=None):
        self.taken, self.closed, self.gate = 0, 0, gate
        self.opened = asyncio.Event()
        self._end, self._error, self._close_error = end, error, close_error

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self.taken == self.gate:
            await self.opened.wait()
        if self.taken == self._end:
            raise self._error or StopAsyncIteration
        self.taken += 1
        return self.taken - 1

    async def aclose(self):
        await asyncio.sleep(0)
        self.closed += 1
        if self._close_error is not None:
            raise self._close_error


async def of(*items):
    """Yield these items."""
    for item in items:
        yield item
