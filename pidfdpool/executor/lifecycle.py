"""What happens to every pool of this process when the interpreter ends, and when the process forks.

CPython calls a hook for each of the two. Both are registered once, when the first executor of a process is imported.

CPython does not notice every fork: C code that embeds Python may call fork() itself. uWSGI's workers are forked like
that, unless it is configured otherwise. In such a child the copy of a pool would wait for a thread that was not
copied, and it would write into the channels of the parent's workers. So everything that a user can call begins with
`detect_fork`.

When the interpreter ends, the submitted tasks are finished first, as in the standard library: its hook runs before
threads are joined. After Ctrl-C has ended the program, nobody wants to wait for them, so workers are killed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import weakref
from typing import Any

from pidfdpool.process import locks, native
from pidfdpool.typed import Protocol


class OwnPool(Protocol):
    """What the pool of an executor does when the interpreter ends, and after a fork."""

    def finish_maps(self, *, cancel: bool) -> None:
        """Submit the remaining calls of every map, or cancel them: soon nothing can be submitted any more."""

    def stop_reading_here(self) -> None:
        """End the streams that the calling thread reads, which waits for the pool's end now."""

    def forget_pool_of_parent(self) -> None:
        """Drop the copy of the parent's pool, in a forked child."""


class Pool(Protocol):
    """What a pool does when the interpreter ends, and after a fork."""

    def shutdown(self, *, cancel: bool) -> None:
        """Accept no more tasks, and end when the accepted ones have finished, or with `cancel` those that run."""

    def kill(self, number: int) -> None:
        """Shut down, and send a signal to every worker."""

    def submit_for_lost_owner(self) -> None:
        """Submit what an executor that was collected has left: soon nothing can be submitted any more."""

    def join(self) -> None:
        """Wait until every process has ended."""

    def abandon_in_forked_child(self) -> None:
        """Drop what belongs to the parent, in a forked child."""


_own_pools: weakref.WeakSet[OwnPool] = weakref.WeakSet()
# A pool outlives its executor while tasks are left; its thread is joined all the same.
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
# Guards `_pools` and `_exiting`, so that no pool is missed which a thread makes while the interpreter exits. It is
# reentrant because a signal handler can interrupt code that makes a pool, and make one itself.
_lock = locks.reentrant()
_exiting = False
_owner = os.getpid()  # the process that the pools belong to
# A lock for each process: held while a forked child drops the copies of the parent's pools. A child's child must not
# use a copy of it, which may be held.
_fork_locks: dict[int, Any] = {}


def add_own_pool(own: OwnPool) -> None:
    """Have forked children drop their copy of the executor's pool."""
    _own_pools.add(own)


def add_pool(pool: Pool) -> None:
    """Have the pool finished before the interpreter ends.

    Raises:
        RuntimeError: the interpreter is shutting down.
    """
    with _lock:
        check_not_exiting()
        _pools.add(pool)


def check_not_exiting() -> None:
    """Raise RuntimeError, with the standard library's text, once the interpreter is shutting down."""
    if _exiting:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")


def detect_fork() -> None:
    """Do what is to be done after a fork, if CPython has not noticed it. Costs one system call, getpid."""
    if os.getpid() != _owner:
        with _fork_locks.setdefault(os.getpid(), locks.reentrant()):
            if os.getpid() != _owner:
                _after_fork_in_child()


def is_usable() -> bool:
    """Return whether tasks may be submitted: the interpreter is not shutting down. Detects a fork, too."""
    if os.getpid() != _owner:  # as `detect_fork`
        detect_fork()
    return not _exiting


def _at_exit() -> None:
    global _exiting  # noqa: PLW0603  one flag for each process, set once
    detect_fork()
    interrupted = _is_ended_by_ctrl_c()
    for own in list(_own_pools):
        own.finish_maps(cancel=interrupted)
        own.stop_reading_here()
    for pool in list(_pools):
        pool.submit_for_lost_owner()
    with _lock:
        _exiting = True
        pools = list(_pools)
    for pool in pools:
        if interrupted:
            pool.kill(signal.SIGKILL)
        else:
            pool.shutdown(cancel=False)
    for pool in pools:
        try:
            pool.join()
        except KeyboardInterrupt:
            # Pressed once more, Ctrl-C means all pools, and a traceback is of no use.
            for other in pools:
                other.kill(signal.SIGKILL)
            pool.join()


def _is_ended_by_ctrl_c() -> bool:
    """Return whether an unhandled KeyboardInterrupt is why a program, not an interactive session, ends."""
    kind = getattr(sys, "last_type", None)
    return not native.is_interactive() and isinstance(kind, type) and issubclass(kind, KeyboardInterrupt)


def is_caused_by_ctrl_c(kind: type[BaseException] | None) -> bool:
    """Return whether Ctrl-C is the cause of an exception of this type, which ends a with block of the main thread.

    asyncio.run cancels its main task upon Ctrl-C, and raises KeyboardInterrupt when that task has ended. So the block
    is left by a CancelledError, which can have other causes, too. asyncio's Runner, a method of which is the handler
    of SIGINT while it runs, counts the signals.
    """
    if kind is None or issubclass(kind, KeyboardInterrupt):
        return kind is not None
    exceptions = sys.modules.get("asyncio.exceptions")
    if exceptions is None or not issubclass(kind, exceptions.CancelledError):
        return False
    handler = getattr(signal.getsignal(signal.SIGINT), "func", None)  # the handler is a partial of that method
    return bool(getattr(getattr(handler, "__self__", None), "_interrupt_count", 0))


def _after_fork_in_child() -> None:
    global _owner, _lock  # noqa: PLW0603  the child has its own
    _lock = locks.reentrant()  # another thread may have held it
    # The executors first: a pool may have been copied in any state, so no executor may go on using it.
    for own in list(_own_pools):
        own.forget_pool_of_parent()
    pools = list(_pools)
    _pools.clear()
    for pool in pools:
        pool.abandon_in_forked_child()
    _owner = os.getpid()  # last, because other threads of the child look at it in `detect_fork`


# Private, but concurrent.futures itself uses it (CPython issue 39812): functions that are registered with atexit run
# only after threads have been joined, and so after the pool threads.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
os.register_at_fork(after_in_child=_after_fork_in_child)
