"""Raises an exception where a signal handler may raise one: in the calling thread, at each place in turn."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from types import CodeType, FrameType
from typing import Any

# After these instructions, and after the first one of a function, the interpreter looks for signals.
_LOOKS_AFTER = ("RESUME", "CALL", "JUMP_BACKWARD")


class Interrupted(BaseException):
    """What the handler raises."""


def places(
    attempt: Callable[[], Callable[[], object]], begins: Callable[[CodeType], bool] = lambda code: True
) -> Iterator[str]:
    """Interrupt a call once at each of its places, one after the other; yield the name of each, when that is over.

    attempt: returns what is called, made anew for each place. begins: the places count from the first function with
    such a code on. Only places in functions of Python's count, and not those of `attempt` itself.
    """
    place = 0
    while True:
        # Newer Pythons trace no instruction in the first call of a function, and begin anew where it was called
        # without a tracer meanwhile.
        _interrupted(attempt(), sys.maxsize, begins)
        name = _interrupted(attempt(), place, begins)
        if name is None:
            break
        yield name
        place += 1
    assert place, "nothing was interrupted"


def _interrupted(call: Callable[[], object], place: int, begins: Callable[[CodeType], bool]) -> str | None:
    """Call it, interrupted at the place of this number; return its name, None if there are fewer places."""
    name: str | None = None
    counts = False

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal counts, name, place
        if name is not None:
            return None
        if event == "call":
            counts = counts or begins(frame.f_code)
            frame.f_trace_lines, frame.f_trace_opcodes = False, True
        elif event == "opcode" and counts and frame.f_lasti in _offsets(frame.f_code):
            if not place:
                name = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                raise Interrupted(name)
            place -= 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Interrupted:
        pass
    finally:
        sys.settrace(before)
    return name


@cache
def _offsets(code: CodeType) -> frozenset[int]:
    """Return the offsets of the instructions before which the interpreter looks for signals."""
    pairs = pairwise(dis.get_instructions(code))
    return frozenset(after.offset for before, after in pairs if before.opname.startswith(_LOOKS_AFTER))
