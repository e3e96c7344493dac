"""Refuses to start a pool while a worker is unpickling ("rebuilding") a call or an initializer.

The worker's loop, `chunk`, `boot` and `script_module` record when they unpickle something (`state`, `during`), on the
worker's thread. The executor asks before it starts a pool (`check`), on any thread and in any process. In a process
that is no worker nothing is ever recorded.

To unpickle a call imports the module of its function. A module that starts a pool when it is imported would start one
in each worker, and in each worker of those pools again: hundreds of processes after a few seconds. To make a pool
without using it starts nothing and is allowed. To use a pool in a running task is allowed, too.

The state is stored once per process, not once per thread, because threads that a module starts when it is imported
are part of the import. Threads that existed before have nothing to do with it and are not refused. A process that is
forked during an import is part of it, too.
"""

from __future__ import annotations

import sys
from _thread import _count as count_threads
from _thread import get_ident
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import FrameType

CALL = "a worker was rebuilding a task"
INITIALIZER = "a worker was rebuilding its initializer"
TARGET = "a template was importing what its nodes need"


class State:
    """What this process is unpickling.

    Attributes:
        activity: a clause that says which process does what, for the error. None: nothing is being unpickled.
        unrelated_threads: the idents of threads that existed before it began; see `other_threads`.
    """

    __slots__ = ("activity", "unrelated_threads")

    def __init__(self) -> None:
        self.activity: str | None = None
        self.unrelated_threads: Collection[int] = ()


# The worker's loop sets its attributes for each task; a function call would take longer than that.
state: State = State()


def other_threads() -> Collection[int]:
    """Return the idents of all threads but this one."""
    return sys._current_frames().keys() - {get_ident()} if count_threads() else ()


@contextmanager
def during(activity: str) -> Iterator[None]:
    """Record what the block is doing. Blocks may be nested; the outer activity is restored at the end."""
    before = state.activity, state.unrelated_threads
    state.unrelated_threads = other_threads()
    state.activity = activity
    try:
        yield
    finally:
        state.activity, state.unrelated_threads = before


def forget_in_forked_child() -> None:
    """Clear the state in a process that an unrelated thread has forked."""
    if get_ident() in state.unrelated_threads:
        state.activity = None


def check(kind: str = "pool", of: str = "worker") -> None:
    """Raise if no pool may be started now. The caller is about to start one.

    kind, of: what it starts, and the processes of that: a swarm has nodes.

    Raises:
        RuntimeError: this process is unpickling something. The message names the module that is being imported, the
            line that uses the pool, and what to do about it.
    """
    if state.activity is not None and get_ident() not in state.unrelated_threads:
        raise RuntimeError(_message(state.activity, sys._getframe(1), kind, of))


# ---- the error's message ---------------------------------------------------------------------------------------


def _message(activity: str, frame: FrameType, kind: str, of: str) -> str:
    import os

    from pidfdpool.worker import context

    task = context.current_task()
    which = f"pid {os.getpid()}" if task is None else f"task {task.id}, pid {os.getpid()}"
    return (
        f"a {kind} was used {_place(frame)} while {activity} ({which}). It is not started: each {of} would start "
        f"such a {kind}, and so would the {of}s of that {kind}. Use the {kind} in a function that is not called when "
        f'the module is imported, or below `if __name__ == "__main__":`. The {kind} may be made anywhere.'
    )


def _place(frame: FrameType) -> str:
    """Return which code uses the pool: the innermost module that is being imported, or the innermost function."""
    users_frames = _frames_of_user(frame)
    for each in users_frames:
        if each.f_code.co_name == "<module>":
            return f"by the import of module {each.f_globals.get('__name__')!r} ({_line(each)})"
    innermost = users_frames[0] if users_frames else None
    return "by a thread" if innermost is None else f"by {innermost.f_code.co_qualname}() ({_line(innermost)})"


def _line(frame: FrameType) -> str:
    return f'file "{frame.f_code.co_filename}", line {frame.f_lineno}'


def _frames_of_user(frame: FrameType | None) -> list[FrameType]:
    """Return the frames of the user's code that lead to the use of the pool, the innermost first."""
    found: list[FrameType] = []
    while frame is not None:
        if not _is_of_package(frame):
            if not frame.f_code.co_filename.startswith("<frozen "):
                found.append(frame)
        elif found:
            break
        frame = frame.f_back
    return found


def _is_of_package(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and name.partition(".")[0] == "pidfdpool"
