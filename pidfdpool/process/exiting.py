"""The end of a worker, and whose exit functions are whose.

A fork copies what its parent wanted done at *its* end: functions registered with `atexit`, finalizers, the last flush
of logging. The copy of a host's is forgotten in the template (`forget`), and what the template comes to register is
its own alone (`own`); each process that starts anew (`begin`) arranges the last flush of what it makes itself. So
workers do the same at their end, in whichever way they came to be: what the standard library's spawned workers do.

What the interpreter's start has registered (a .pth file, sitecustomize) is each worker's: a spawned process would
have it, too. In the exec way it is there before any code of ours runs.

On the only thread of a launcher, template or worker; never in the host. `atexit` tells nobody what is registered, so
the functions themselves know whose they are.
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


def forget() -> None:
    """Do as `begin`, and forget every function that is registered."""
    atexit._clear()
    begin()


def begin() -> None:
    """Leave to the parent what was made by then, and see to it that what is made from now on is ended in order."""
    atexit.register = _register
    standard = sys.modules.get("concurrent.futures.process")
    if standard is not None:
        # Its exit function would write into pipes that are shared with the host's own standard pools.
        standard._threads_wakeups.clear()
    threads = sys.modules.get("concurrent.futures.thread")
    if threads is not None:
        # Its exit function joins the threads of every ThreadPoolExecutor. The host's are not here, and the one that
        # forked is this process's only thread now: joining itself raises, and cuts off the exit functions after it.
        threads._threads_queues.clear()
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._finalizer_registry.clear()
        util._run_after_forkers()
    # Both register their exit functions once, when they are first used; that of logging is the first to be
    # registered here, so that it is run when the others can log no more.
    for leave_to_parent in (_leave_logs, _leave_finalizers):
        with suppress(AttributeError):  # these are private names
            leave_to_parent()


def _leave_logs() -> None:
    """Empty the handlers that collect records: whoever has collected them writes them."""
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
    """Do what `logging.shutdown` does, but for closing handlers that are copies. inherited: weak references."""
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


class _Own:
    """An exit function of this process, which those that are forked from it pass over."""

    __slots__ = ("_function", "_pid")

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function
        self._pid = os.getpid()

    def __call__(self, *arguments: object, **keywords: object) -> None:
        if os.getpid() == self._pid:
            self._function(*arguments, **keywords)

    def __eq__(self, other: object) -> bool:  # `atexit.unregister` asks
        return self._function == other

    __hash__ = None  # type: ignore[assignment]


def own() -> None:
    """Have what is registered from now on be this process's alone. Until the next `begin`, in a forked process."""
    home = os.getpid()

    def register(function: Callable[..., object], /, *arguments: object, **keywords: object) -> object:
        # Modules may have taken this function for `atexit.register`, and keep it in workers.
        if os.getpid() != home or not callable(function):
            return _register(function, *arguments, **keywords)
        _register(_Own(function), *arguments, **keywords)
        return function

    atexit.register = register  # type: ignore[assignment]


def run() -> None:
    """Do what an interpreter does at its end: join threads, call exit functions, end child processes, flush files."""
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
    """Write out what files still hold that this process has opened and not closed; the end itself would lose it."""
    import gc
    import io

    kinds = {io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom}
    # What was there before the fork is frozen, and not among these; its buffers are the parent's.
    for each in gc.get_objects():
        if type(each) in kinds:
            with suppress(Exception):  # closed, detached, or nobody reads the pipe any more
                each.flush()
