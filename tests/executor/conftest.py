"""Event loops of several kinds, for tests of what runs in them."""

from __future__ import annotations

import asyncio
import sys

import pytest


@pytest.fixture(scope="module")
def uvloops_pipe():
    """Have uvloop open, before a test looks around, the pipe that it keeps for the rest of the process."""
    try:
        import uvloop
    except ImportError:
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.sleep(0))


@pytest.fixture(params=["plain", "eager", "uvloop"])
def run(request, uvloops_pipe):
    """Return a function that runs a coroutine, in loops of several kinds."""
    if request.param == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop
    elif request.param == "eager":
        if sys.version_info < (3, 12):
            pytest.skip("eager tasks came with Python 3.12")

        def factory():
            loop = asyncio.new_event_loop()
            loop.set_task_factory(asyncio.eager_task_factory)
            return loop

    else:
        factory = None

    def run(coroutine):
        with asyncio.Runner(loop_factory=factory) as runner:

            async def and_nothing_is_left():
                try:
                    return await asyncio.wait_for(coroutine, 60)
                finally:
                    left = asyncio.all_tasks() - {asyncio.current_task()}
                    assert not [task for task in left if "inputs of a map" in task.get_name()]

            return runner.run(and_nothing_is_left())

    return run
