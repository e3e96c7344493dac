"""Runs the exit functions of a worker, and keeps those of its parent from running there.

Called on the only thread of a launcher, template or worker; never in the host.

A fork copies what its parent registered for *its* exit: functions of `atexit`, finalizers, the last flush of logging.
In the template the host's are removed (`discard_inherited`), and what the template registers is run by the template
alone (`mark_as_own`). Each new process (`leave_inherited`) registers the last flush of what it makes itself. So
workers do the same at their exit, whether they come from a fork of the host or from a fresh interpreter: what the
standard library's spawned workers do.

Functions that the interpreter's start has registered (a .pth file, sitecustomize) are run by each worker, because a
spawned process would have them, too. In the exec way they are registered before any code of ours runs.

`atexit` has no way to list what is registered. So the functions themselves store the process that they belong to.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress

from pidfdpool.process import hygiene

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

_register = atexit.register


def discard_inherited() -> None:
    """Remove every function that is registered, and do as `leave_inherited`."""
    atexit._clear()
    leave_inherited()


def leave_inherited() -> None:
    """Leave what exists already to the parent, and arrange the proper end of what this process makes from now on."""
    atexit.register = _register
    standard = sys.modules.get("concurrent.futures.process")
    if standard is not None:
        # Its exit function would write into pipes that the host's own standard pools share.
        standard._threads_wakeups.clear()
    threads = sys.modules.get("concurrent.futures.thread")
    if threads is not None:
        # Its exit function joins the threads of every ThreadPoolExecutor. The host's threads do not exist here. If
        # one of them has forked, it is this process's only thread now. To join itself would raise, and the exit
        # functions after it would not run.
        threads._threads_queues.clear()
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._finalizer_registry.clear()
        util._run_after_forkers()
    # Both modules register their exit functions once, when they are first used. That of logging is registered first
    # here, so that it runs last, when no other exit function can log any more.
    for leave_to_parent in (_leave_logs, _leave_finalizers):
        with suppress(AttributeError):  # these are private names
            leave_to_parent()


def _leave_logs() -> None:
    """Empty the handlers that buffer records: the process that has buffered them writes them."""
    logging: Any = sys.modules.get("logging")
    if logging is None:
        return
    inherited = list(logging._handlerList)
    handlers: Any = sys.modules.get("logging.handlers")
    for reference in inherited:
        handler = reference()
        if handlers is not None and isinstance(handler, handlers.BufferingHandler):
            handler.buffer.clear()
    for registered in (logging.shutdown, _end_logs):
        atexit.unregister(registered)
    atexit.register(_end_logs, inherited)


def _end_logs(inherited: Collection[Any]) -> None:
    """Do as `logging.shutdown`, but do not close handlers that are copies. inherited: weak references to these."""
    logging: Any = sys.modules["logging"]
    known = set(map(id, inherited))
    logging.shutdown([reference for reference in logging._handlerList if id(reference) not in known])
    for reference in inherited:
        handler = reference()
        if handler is not None and getattr(handler, "flushOnClose", True):
            with suppress(OSError, ValueError):  # its stream is closed
                handler.flush()


def _leave_finalizers() -> None:
    weakref: Any = sys.modules.get("weakref")
    if weakref is None:
        return
    for info in list(weakref.finalize._registry.values()):
        info.atexit = False
    atexit.unregister(weakref.finalize._exitfunc)
    weakref.finalize._registered_with_atexit = False


class _OwnExitFunction:
    """An exit function of this process. It does nothing in processes that are forked from this one."""

    __slots__ = ("_function", "_pid")

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function
        self._pid = os.getpid()

    def __call__(self, *arguments: object, **keywords: object) -> None:
        if os.getpid() == self._pid:
            self._function(*arguments, **keywords)

    def __eq__(self, other: object) -> bool:  # called by `atexit.unregister`
        return self._function == other

    __hash__ = None  # type: ignore[assignment]


def mark_as_own() -> None:
    """Have exit functions that are registered from now on run in this process alone.

    In a forked process this holds until it calls `leave_inherited`.
    """
    home = os.getpid()

    def register(function: Callable[..., object], /, *arguments: object, **keywords: object) -> object:
        # Modules may have imported this function as `atexit.register`, and still call it in workers.
        if os.getpid() != home or not callable(function):
            return _register(function, *arguments, **keywords)
        _register(_OwnExitFunction(function), *arguments, **keywords)
        return function

    atexit.register = register  # type: ignore[assignment]


def run() -> None:
    """Do what an interpreter does at its exit: join threads, run exit functions, end children, flush files."""
    for step in (_join_threads, atexit._run_exitfuncs, _end_multiprocessing, _flush_files):
        try:
            step()
        except BaseException:
            sys.excepthook(*sys.exc_info())
    hygiene.flush_output()


def _join_threads() -> None:
    threading: Any = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()


def _end_multiprocessing() -> None:
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._exit_function()


def _flush_files() -> None:
    """Flush the files that this process has opened and not closed. os._exit would lose what their buffers hold."""
    import gc
    import io

    kinds = {io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom}
    # Files that existed before the fork are frozen (gc.freeze), and not among these. Their buffers are the parent's.
    for each in gc.get_objects():
        if type(each) in kinds:
            with suppress(Exception):  # closed, detached, or nobody reads the pipe any more
                each.flush()
