"""Whether this worker is rebuilding a call at the moment, and why no pool may be started meanwhile.

A call is rebuilt before it is run: its function's module is imported. A module that starts a pool when it is imported
would do so in each worker, and in each worker of those pools again: hundreds of processes after a few seconds. So
the worker notes when it rebuilds something (`note`, `during`), and a pool that is about to be started asks here.
Making a pool without using it starts nothing and stays allowed, and so does using one in a running task.

The note is kept once per process, not once per thread: threads that a module starts when it is imported are part of
the import. Threads that were there before have nothing to do with it and are let pass. A process that is forked
during an import is part of it, too. Does nothing in a process that is no worker.
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


class Note:
    """What is noted of this process.

    Attributes:
        doing: what it is rebuilding: a main clause that says which process does what. None: nothing.
        bystanders: the threads that were there before; `other_threads` tells them.
    """

    __slots__ = ("bystanders", "doing")

    def __init__(self) -> None:
        self.doing: str | None = None
        self.bystanders: Collection[int] = ()


note = Note()  # the worker's loop writes it by itself, for each task: a call would cost more than all of the rest


def other_threads() -> Collection[int]:
    """Return the idents of all threads but this one."""
    return sys._current_frames().keys() - {get_ident()} if count_threads() else ()


@contextmanager
def during(doing: str) -> Iterator[None]:
    """Note what the block is doing. May stand within another one, whose note holds again afterwards."""
    before = note.doing, note.bystanders
    note.bystanders = other_threads()
    note.doing = doing
    try:
        yield
    finally:
        note.doing, note.bystanders = before


def forget_in_forked_child() -> None:
    """Forget the note in a process that a bystander has forked."""
    if get_ident() in note.bystanders:
        note.doing = None


def check() -> None:
    """Look whether a pool may be started now; the caller is about to start one.

    Raises:
        RuntimeError: this process is rebuilding something. The message names the module that is being imported, the
            line that uses the pool, and what to do about it.
    """
    if note.doing is not None and get_ident() not in note.bystanders:
        raise RuntimeError(_refusal(note.doing, sys._getframe(1)))


# ---- what the error says ---------------------------------------------------------------------------------------


def _refusal(doing: str, frame: FrameType) -> str:
    import os

    from pidfdpool.worker import context

    task = context.current_task()
    which = f"pid {os.getpid()}" if task is None else f"task {task.id}, pid {os.getpid()}"
    return (
        f"a pool was used {_place(frame)} while {doing} ({which}). It is not started: each worker would start such a "
        "pool, and so would the workers of that pool. Use the pool in a function that is not called when the module "
        'is imported, or below `if __name__ == "__main__":`. The pool may be made anywhere.'
    )


def _place(frame: FrameType) -> str:
    """Say which code uses the pool: the innermost module that is being imported, or else the innermost function."""
    users = _frames_of_user(frame)
    for each in users:
        if each.f_code.co_name == "<module>":
            return f"by the import of module {each.f_globals.get('__name__')!r} ({_line(each)})"
    return f"by {users[0].f_code.co_qualname}() ({_line(users[0])})" if users else "by a thread"


def _line(frame: FrameType) -> str:
    return f'file "{frame.f_code.co_filename}", line {frame.f_lineno}'


def _frames_of_user(frame: FrameType | None) -> list[FrameType]:
    """Return the frames between the pool that is used and the worker that rebuilds, the innermost first."""
    found: list[FrameType] = []
    while frame is not None:
        if not _is_ours(frame):
            if not frame.f_code.co_filename.startswith("<frozen "):
                found.append(frame)
        elif found:
            break
        frame = frame.f_back
    return found


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and name.partition(".")[0] == "pidfdpool"
