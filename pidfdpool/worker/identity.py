"""Makes a worker, or the template, a process of `multiprocessing` that is not daemonic and whose parent is the host.

Called by the worker's loop and by the template, on their only thread.

A task may call `current_process()` and `parent_process()`, start processes of its own (even where the host is
daemonic and could not), and connect to managers with the host's authkey. `multiprocessing` has no function that makes
the calling process one of its processes. So this sets what its own bootstrap sets (multiprocessing/process.py,
BaseProcess._bootstrap).

Most tasks never ask, and `multiprocessing` takes as long to load as the interpreter itself. So if template and
preload have not loaded it, this is done later, at the moment in which any code loads it. `logging` is a special case:
its records have the process's name if `multiprocessing` is loaded, but `logging` does not load it. So a worker that
loads `logging` loads `multiprocessing`, too.
"""

from __future__ import annotations

import itertools
import sys

from pidfdpool.serialization import preparation
from pidfdpool.worker import import_hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pidfdpool.worker.boot import Boot


TEMPLATE = "PidfdPoolTemplate"


def become_process(name: str, place: tuple[int, ...], boot: Boot, host_fd: int) -> None:
    """Make this process one of multiprocessing's, now or when that is loaded.

    place: its number among the host's processes, if it is a worker; otherwise empty.
    host_fd: readable once the host is gone.
    """

    def become(process: Any) -> None:
        process._children = set()
        me = process.BaseProcess(name=name)
        process._process_counter = itertools.count(1)  # this object itself was counted
        me._identity = place
        me._start_method = None  # a task chooses its own
        me._parent_pid, me._parent_name = boot.host_pid, boot.host_name
        me._config = {"semprefix": "/mp", "authkey": process.AuthenticationString(boot.authkey)}
        process._current_process = me
        process._parent_process = process._ParentProcess(boot.host_name, boot.host_pid, host_fd)

    prepare()
    loaded = sys.modules.get("multiprocessing.process")
    if loaded is not None:
        become(loaded)
        return
    import_hook.when_loaded("multiprocessing.process", become)
    if "logging" not in sys.modules:
        import_hook.when_loaded("logging", _load_multiprocessing)


def bootstrap_is_replaced() -> bool:
    """Return whether a tool has replaced the function with which multiprocessing begins its processes.

    Tools that have to run in each process do that, such as coverage: theirs starts the tool, calls the original
    (BaseProcess._bootstrap), and stops the tool.
    """
    process: Any = sys.modules.get("multiprocessing.process")
    return process is not None and preparation.is_replaced(process.BaseProcess._bootstrap, process)


def run(work: Callable[[], int]) -> int:
    """Return work(), called within multiprocessing's bootstrap if a tool has replaced that.

    The original bootstrap is not called, because `become_process` has done its work.
    """
    if not bootstrap_is_replaced():
        return work()
    process: Any = sys.modules["multiprocessing.process"]
    status = 1

    def run() -> None:
        nonlocal status
        status = work()

    me = process.current_process()
    me.run = run
    me._bootstrap(parent_sentinel=process.parent_process()._sentinel)
    return status


def prepare() -> None:
    """Load what each worker would otherwise load for itself. In the template, after the preload."""
    if "logging" in sys.modules:
        _load_multiprocessing()


def _load_multiprocessing(_module: object = None) -> None:
    __import__("multiprocessing.process")
