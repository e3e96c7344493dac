"""Raises an exception where a signal handler may raise one: in the calling thread, at each place in turn."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from types import CodeType, FrameType
from typing import Any


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
        if counts and (event == "call" or (event == "opcode" and frame.f_lasti in _offsets(frame.f_code))):
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
    """Return the offsets of instructions before which the interpreter looks for signals; it does so in calls, too.

    It looks before it jumps back, and at the end of each call. What is raised there belongs to the call. So the next
    instruction, before which this module can raise, counts only if the same handler protects both.
    """
    instructions = dis.Bytecode(code)
    handlers = {
        offset: entry.target for entry in instructions.exception_entries for offset in range(entry.start, entry.end)
    }
    jumps = {each.offset for each in instructions if each.opname.startswith("JUMP_BACKWARD")}
    ends = {
        after.offset
        for before, after in pairwise(instructions)
        if before.opname.startswith("CALL") and handlers.get(before.offset) == handlers.get(after.offset)
    }
    return frozenset(jumps | ends)
