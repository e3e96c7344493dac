"""Functions that tests of maps with outcomes have workers call, and what they map over."""

from __future__ import annotations

import asyncio
import os
import sys
import time

import pidfdpool
from tests import calls

MAPS = ("map", "map_unordered", "amap", "amap_unordered")


def outcomes(submitter, name, function, *iterables, **keywords):
    """Return the outcomes of a map, by index; and in which order they came."""
    results = getattr(submitter, name)(function, *iterables, return_exceptions=True, **keywords)
    came = asyncio.run(all_of(results)) if name.startswith("a") else list(results)
    assert all(type(outcome) is pidfdpool.Outcome for outcome in came)
    indexes = [outcome.index for outcome in came]
    if "unordered" not in name:
        assert indexes == sorted(indexes)
    assert len(set(indexes)) == len(indexes), "each once"
    return sorted(came, key=lambda outcome: outcome.index)


async def all_of(results):
    return [result async for result in results]


async def append_to(came, results):
    """Append the results to a list, which has those that came before an error."""
    async for result in results:
        came.append(result)


def fail(path, number, at, how):
    """Note the call and its attempt; where the number is one of those, in its first attempt, fail in that way."""
    task = pidfdpool.current_task()
    calls.append(path, f"{number} {task.attempt}")
    if number in at and task.attempt == 1:
        return WAYS[how]()
    return number


def _die():
    os._exit(5)


def _raise():
    raise LookupError("as told")


def _exit():
    sys.exit(3)


def _no_memory():
    raise MemoryError


def _interrupt():
    raise KeyboardInterrupt


def _hang():
    time.sleep(1000)


WAYS = {
    "raise": _raise,
    "die": _die,
    "exit": _exit,
    "no memory": _no_memory,
    "interrupt": _interrupt,
    "hang": _hang,
    "unpicklable": calls.Unpicklable,
    "unloadable": calls.Unloadable,
}


def hang_at(path, number, at):
    """At one number, write the worker's pid into a file, and hang."""
    if number == at:
        calls.note(path)
        time.sleep(1000)
    return number


def half(number):
    """Return even numbers, and raise for odd ones."""
    if number % 2:
        raise ValueError(number)
    return number


def never(number):
    raise ValueError(number)


def made(path):
    """Return the calls that were made, as (number, attempt)."""
    return sorted(tuple(map(int, line.split())) for line in path.read_text().splitlines()) if path.exists() else []
