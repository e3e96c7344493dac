"""What faulthandler wrote of a worker's stack, as a user wants to read it: the task's frames, with their source.

Text in, text out: knows no process and no pool. The format is CPython's (Python/traceback.c), from 3.11 to 3.15: per
thread a header that ends in "(most recent call first):", the frames, the innermost first, "  ..." where there are
more than 100 of them. From 3.14 on headers name the thread, and a crash is followed by the stack of C.

A worker's stack ends in a dozen frames of the pool's: the loop that runs tasks, below it the template that forked the
worker, and in the fork way the host's own call of `submit`. All of these are cut. Between them and the task's code
may be the pool's pickling; one frame of that is kept, which says so. Frames of the pool that the task itself has
called, because it uses one, are the task's. `worker.tracebacks` does the same to the traceback of an exception.

Nothing here raises. Lines that do not have the format, because the text is cut off or because a task has written it,
are passed on unchanged.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NO_FRAME = "  (no Python frame of the task)"

# `re` compiles them when they are used first: that takes as long as loading this module, and most pools have no use.
_FRAME = r'  File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.*)'
_ESCAPED = r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))"
_FATAL = "Fatal Python error: "
_IN_C = "  Binary file "
_FRAMES_IN_C = 8  # those around the crash; all of them are on the host's standard error
_ALIKE = 3  # frames in a row that are shown of a recursion, as in tracebacks


def _as_written(path: str) -> str:
    """Return a path as faulthandler writes it."""
    return path.encode("ascii", "backslashreplace").decode("ascii")


_PACKAGE = _as_written(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + "/"
_LOOP = (f"{_PACKAGE}worker/", f"{_PACKAGE}template/process.py", f"{_PACKAGE}swarm/node_process.py")


def told(text: str) -> str:
    """Return the stacks without the pool's frames, each frame followed by its line of source, if that is known.

    Reads source files, through linecache, which also knows the source of notebooks and prompts.
    """
    lines: list[str] = []
    checked: set[str] = set()
    for line, times in _counted(_shortened(text.rstrip().split("\n"))):
        source = _source(line, checked)
        for _ in range(min(times, _ALIKE)):
            lines.append(line)
            if source:
                lines.append(f"    {source}")
        if times > _ALIKE:
            more = times - _ALIKE
            lines.append(f"  [Previous line repeated {more} more time{'s' if more > 1 else ''}]")
    return "\n".join(lines)


def last_lines(lines: list[str], most: int) -> tuple[str, ...]:
    """Return the last lines of a worker's standard error; more than `most` if a crash was written there.

    Then they are all that was written of the crash, without the pool's frames and with few of C's.
    """
    shown = list(_shortened(lines))
    start = max(0, len(shown) - most)
    for index, line in enumerate(shown[:start]):
        if line.startswith(_FATAL):
            start = index
    return tuple(shown[start:])


# ---- cutting ---------------------------------------------------------------------------------------------------


def _shortened(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines, without the pool's frames at the end of each stack."""
    for indented, group in groupby(lines, lambda line: line.startswith("  ")):
        stack = list(group)
        yield from _cut(stack) if indented else stack


def _cut(stack: list[str]) -> list[str]:
    """Return one thread's stack without the pool's frames at its end."""
    if stack[0].startswith(_IN_C):
        return stack if len(stack) <= _FRAMES_IN_C else [*stack[:_FRAMES_IN_C], "  ..."]
    loop = next((index for index, line in enumerate(stack) if _file_of(line).startswith(_LOOP)), None)
    if loop is None:
        return stack
    inner = end = loop
    while inner and _file_of(stack[inner - 1]).startswith(_PACKAGE):
        inner -= 1
    if not any(map(_file_of, stack[:inner])):
        return [*stack[:inner], NO_FRAME, stack[inner]]
    return stack[: min(inner + 1, end)]


def _file_of(line: str) -> str:
    frame = re.match(_FRAME, line)
    return frame["file"] if frame else ""


def _counted(lines: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Yield each line with how often it is there in a row, where it is a frame."""
    for line, group in groupby(lines):
        times = sum(1 for _ in group)
        if re.match(_FRAME, line):
            yield line, times
        else:
            yield from ((line, 1) for _ in range(times))


# ---- source ----------------------------------------------------------------------------------------------------


def _source(line: str, checked: set[str]) -> str:
    """Return the line of source that a frame is at; "" if there is none, or it is not known."""
    frame = re.match(_FRAME, line)
    if frame is not None:
        # Whatever a notebook has put in the place of linecache's functions may raise, and a module's own loader.
        with suppress(BaseException):
            for name in dict.fromkeys((_as_it_is(frame["file"]), frame["file"])):
                found = _look_up(name, int(frame["line"]), frame["name"], checked)
                if found:
                    return found.strip()
    return ""


def _look_up(name: str, number: int, function: str, checked: set[str]) -> str:
    import linecache

    if name not in checked:
        checked.add(name)
        linecache.checkcache(name)
    # A script may have been read from a pipe or a terminal (/dev/stdin, /dev/fd/63): to open that might take forever.
    if name in linecache.cache or os.path.isfile(name):
        return linecache.getline(name, number)
    # From 3.14 on, what was typed at the prompt is kept by code object, and found in no other way.
    typed: dict[tuple[str, str, int], tuple[int, None, list[str], str]]
    typed = getattr(linecache, "_interactive_cache", {})
    for (file, qualname, _), entry in list(typed.items()):
        if file == name and qualname.rpartition(".")[2] == function:
            return "".join(entry[2][number - 1 : number])
    return ""


def _as_it_is(written: str) -> str:
    """Return the path that faulthandler wrote like that, most probably."""
    return re.sub(_ESCAPED, lambda match: chr(int(match[match.lastindex or 0], 16)), written)
