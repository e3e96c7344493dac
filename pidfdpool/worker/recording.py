"""What a worker's loop does otherwise while its pool is observed: it notes when each task ran, and its sizes.

Used by the loop (`process`), on the worker's thread. The host asks for it by a frame (RECORD_TIMES). Then these
functions take the places of the loop's own steps. So a worker of a pool that nobody observes does not even pay a
test. `run_times` has the place where it is noted.
"""

from __future__ import annotations

import time

from pidfdpool.transport import framing, run_times
from pidfdpool.worker import context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from pidfdpool.transport.framing import Buffer

    Run: TypeAlias = Callable[[list[Buffer]], tuple[int, list[Buffer]]]
    Write: TypeAlias = Callable[[int, float, float, int, int, list[Buffer]], None]

_STEPS = ("_answer_usual", "_run_call", "_write")  # of the loop: its methods


def switch(loop: Any, fd: int, *, on: bool) -> None:
    """Have a worker note that of each task from now on, or no longer. loop: its `Worker`. fd: its black box."""
    own = vars(loop)
    for step in _STEPS:
        own.pop(step, None)
    if on:
        own.update(steps(loop._run_call, loop._write, fd))


def steps(run: Run, write: Write, fd: int) -> dict[str, Callable[..., Any]]:
    """Return what to do in the place of the steps, by their names. Empty if there is no room to note anything.

    run, write: the loop's own `_run_call` and `_write`.
    fd: the worker's black box.
    """
    ring = run_times.ring(fd)
    if ring is None:
        return {}
    put, place = ring
    outdated = framing.OUTDATED  # which is no answer: the task has not begun
    size = -1  # of the call that runs

    # As the loop's own. To let that call the other two would cost a tiny task 0.3 us more.
    def answer_usual(number: int, attempt: int, buffers: list[Buffer]) -> None:
        size = len(buffers[0])
        began = time.monotonic()
        context.enter(number, attempt, None)
        try:
            kind, buffers = run(buffers)
        finally:
            context.leave()
        ended = time.monotonic()
        if kind != outdated:
            put(place(), number, began, ended, size, len(buffers[0]) if len(buffers) == 1 else _size_of(buffers))
        write(kind, began, ended, 0, number, buffers)

    def run_and_measure(call: list[Buffer]) -> tuple[int, list[Buffer]]:
        nonlocal size
        size = _size_of(call)
        return run(call)

    def note_and_write(kind: int, began: float, ended: float, flags: int, number: int, buffers: list[Buffer]) -> None:
        nonlocal size
        if kind != outdated:
            put(place(), number, began, ended, size, _size_of(buffers))
        size = -1
        write(kind, began, ended, flags, number, buffers)

    return dict(zip(_STEPS, (answer_usual, run_and_measure, note_and_write), strict=True))


def _size_of(buffers: list[Buffer]) -> int:
    return sum(map(len, buffers))
