"""What must happen to every pool of this process when the interpreter ends or the process forks.

Both are hooks that CPython calls, registered once, when the executor is first imported in a process.

A fork may stay unknown to CPython, though: C code that has Python inside may fork by itself and not say so. uWSGI's
workers come into being like that, unless it is told otherwise. The copy of a pool would wait for a thread that was
not copied; worse, it would write into the channels of the parent's workers, and have them leave when the child ends.
So everything that a user can call begins with `notice_fork`.

At the interpreter's end tasks that were submitted are finished, as in the standard library: its hook runs before
threads are joined. After Ctrl-C has ended the program nobody wants to wait for them, so workers are killed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

from pidfdpool.process import native
from pidfdpool.typed import Protocol

if TYPE_CHECKING:
    from pidfdpool.loop.pool import Pool


class Executor(Protocol):
    """What an executor does at the two moments."""

    def _finish_maps(self, *, cancel: bool) -> None:
        """Submit the remaining calls of every map, or cancel them: soon nothing can be submitted any more."""

    def _forget_pool_of_parent(self) -> None:
        """Drop the copy of the parent's pool, in a forked child."""


_executors: weakref.WeakSet[Executor] = weakref.WeakSet()
# A pool outlives its executor while tasks are left; its thread is joined all the same.
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
# Of the pools: one that is made in a thread while the interpreter exits is not missed. Reentrant, because a signal
# handler may make a pool while its thread does.
_guard = threading.RLock()
_exiting = False
_process = os.getpid()  # whose pools these are
# By process. Held by a forked child's thread while it lets go of the parent's pools; a child of it has another one.
_noticing: dict[int, Any] = {}


def add_executor(executor: Executor) -> None:
    """Have the executor's pool let go of in forked children."""
    _executors.add(executor)


def add_pool(pool: Pool) -> None:
    """Have the pool finished before the interpreter ends.

    Raises:
        RuntimeError: the interpreter is on its way out.
    """
    with _guard:
        check_not_exiting()
        _pools.add(pool)


def is_exiting() -> bool:
    """Return whether the interpreter is on its way out."""
    return _exiting


def check_not_exiting() -> None:
    """Raise, in the standard's words, once the interpreter is on its way out."""
    if _exiting:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")


def notice_fork() -> None:
    """Catch up on a fork that CPython was not told of. Cheap, if there was none: it asks the kernel for the pid."""
    if os.getpid() != _process:
        with _noticing.setdefault(os.getpid(), threading.RLock()):
            if os.getpid() != _process:
                _after_fork_in_child()


def _at_exit() -> None:
    global _exiting  # noqa: PLW0603  one flag per process, set once
    notice_fork()
    unwanted = _ended_by_ctrl_c()
    for executor in list(_executors):
        executor._finish_maps(cancel=unwanted)
    with _guard:
        _exiting = True
        pools = list(_pools)
    for pool in pools:
        if unwanted:
            pool.kill(signal.SIGKILL)
        else:
            pool.shutdown(cancel=False)
    for pool in pools:
        try:
            pool.join()
        except KeyboardInterrupt:
            # Whoever presses it now means all of them, and has no use for a traceback.
            for other in pools:
                other.kill(signal.SIGKILL)
            pool.join()


def _ended_by_ctrl_c() -> bool:
    """Return whether an unhandled KeyboardInterrupt is why a program, not an interactive session, ends."""
    kind = getattr(sys, "last_type", None)
    return not native.is_interactive() and isinstance(kind, type) and issubclass(kind, KeyboardInterrupt)


def comes_of_ctrl_c(kind: type[BaseException] | None) -> bool:
    """Return whether an exception of this type, which ends a with block of the main thread, comes of Ctrl-C.

    asyncio.run cancels its main task upon Ctrl-C, and raises KeyboardInterrupt once that has ended. So the block is
    left with CancelledError, which may have other reasons, too. asyncio's Runner, whose method handles SIGINT for as
    long as it runs, counts what it has seen.
    """
    if kind is None or issubclass(kind, KeyboardInterrupt):
        return kind is not None
    exceptions = sys.modules.get("asyncio.exceptions")
    if exceptions is None or not issubclass(kind, exceptions.CancelledError):
        return False
    handler = getattr(signal.getsignal(signal.SIGINT), "func", None)  # it is a partial of that method
    return bool(getattr(getattr(handler, "__self__", None), "_interrupt_count", 0))


def _after_fork_in_child() -> None:
    global _process, _guard  # noqa: PLW0603  they are the process's own
    _guard = threading.RLock()  # another thread may have held it
    # The executors first: whatever state a pool was copied in, no executor may go on using it.
    for executor in list(_executors):
        executor._forget_pool_of_parent()
    pools = list(_pools)
    _pools.clear()
    for pool in pools:
        pool.abandon_in_forked_child()
    _process = os.getpid()  # at last, because this is what other threads of the child go by


# Private, but what concurrent.futures itself relies on (CPython issue 39812): functions registered with atexit run
# only after threads have been joined.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
os.register_at_fork(after_in_child=_after_fork_in_child)
