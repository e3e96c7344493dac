"""A host whose workers use pools: `python -m tests.hosts.programs.nesting STORY ARGUMENTS`.

Prints what came of it as JSON. An exception is how a story ends, too: {"error": ...}.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from tests.conditions import is_alive
from tests.hosts.programs import nested


def each(what: str, kind: str, method: str = "fork") -> object:
    """Have workers do something four times."""
    with nested.workers(kind, method) as outer:
        return [_take(get) for get in [outer.call(getattr(nested, what)) for _ in range(4)]]


def inherited(kind: str) -> object:
    """Use a pool, then in workers that were forked from here, then here again."""
    return [nested.use_shared(), *each("use_shared", kind), nested.use_shared()]


def inside(kind: str, method: str) -> object:
    """Have workers of the pool use workers of another kind."""
    with nested.workers("the same pool") as outer:
        return [_take(get) for get in [outer.call(nested.use_others, kind, method) for _ in range(2)]]


def deep(levels: str) -> object:
    return nested.go_down(int(levels))


def kill_the_outer_worker(kind: str, method: str, path: str) -> object:
    """Kill a worker whose own pool is at work; tell whether that lives on."""
    with nested.workers(kind, method) as outer:
        inner = _begun(outer.call(nested.stay_at_work, path), path)
        os.kill(nested.written(f"{path}.outer"), signal.SIGKILL)
        lives_on = _lives_on(inner)
        outer.end()
    return {"inner": lives_on}


def end_the_outer_workers(kind: str, method: str, path: str) -> object:
    """Terminate workers whose own pool is at work; tell whether that lives on."""
    with nested.workers(kind, method) as outer:
        inner = _begun(outer.call(nested.stay_at_work, path), path)
        outer.end()
    return {"inner": _lives_on(inner)}


def shut_down_with_work_inside(kind: str, method: str, path: str) -> object:
    """Shut workers down in the way that waits for them, while their own pools have tasks; tell which were done."""
    with nested.workers(kind, method) as outer:
        _take(outer.call(nested.leave_work, path))
    return [os.path.exists(f"{path}{number}") for number in range(4)]


def hold_on(levels: str, path: str) -> None:
    nested.hold_on(int(levels), path)


def _lives_on(pid: int) -> bool:
    deadline = time.monotonic() + 3.0
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return is_alive(pid)


def _take(get: Callable[[float], Any]) -> Any:
    try:
        return get(nested.PATIENCE)
    except Exception as error:
        _leave({"error": f"{type(error).__name__}: {error}".rstrip(": ")})


def _begun(get: Callable[[float], Any], path: str) -> int:
    """Return the pid that a task writes to the path when it has begun."""
    deadline = time.monotonic() + nested.PATIENCE
    while not (pid := nested.written(path)):
        try:
            get(0.02)
        except (TimeoutError, multiprocessing.TimeoutError):
            if time.monotonic() > deadline:
                _leave({"error": "TimeoutError"})
        except Exception as error:
            _leave({"error": f"{type(error).__name__}: {error}"})
    return pid


def _leave(told: object) -> NoReturn:
    """End at once: who has workers that hang would wait for them for ever."""
    print(json.dumps(told), flush=True)
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(0)


def main(story: str, *arguments: str) -> None:
    print(json.dumps(globals()[story](*arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
