"""What a worker is to `multiprocessing`: a process that is not daemonic and whose parent is the host.

A task may ask `current_process()` and `parent_process()`, start processes of its own (even where the host is
daemonic and could not), and talk to managers with the host's authkey. `multiprocessing` has no call for becoming one
of its processes, so this sets what its own bootstrap sets (multiprocessing/process.py, BaseProcess._bootstrap).

Most tasks never ask, and `multiprocessing` takes as long to load as the interpreter itself. So where template and
preload have not loaded it, the worker becomes one of its processes at the moment in which it is loaded, by whomever.
`logging` is a special case: it tells the process's name if `multiprocessing` is loaded, and does not load it.
"""

from __future__ import annotations

import itertools
import sys

from pidfdpool.serialization import preparation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    from pidfdpool.worker.boot import Boot


TEMPLATE = "PidfdPoolTemplate"


def become_process(name: str, place: tuple[int, ...], boot: Boot, host_fd: int) -> None:
    """Make this process known to its own multiprocessing, now or later.

    place: its number among the host's processes, if it is a worker. host_fd: readable once the host is gone.
    """

    def become(process: Any) -> None:
        process._process_counter = itertools.count(1)
        process._children = set()
        me = process.BaseProcess(name=name)
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
    sys.meta_path.insert(0, _Waiting("multiprocessing.process", become))
    if "logging" not in sys.modules:
        sys.meta_path.insert(0, _Waiting("logging", _load_multiprocessing))


def bootstrap_is_replaced() -> bool:
    """Return whether somebody has put something in the place of what multiprocessing begins its processes with.

    Tools that are to be in each process do: theirs begins, calls the original (BaseProcess._bootstrap), and ends.
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
    """Load what each worker would have to: in the template, after the preload."""
    if "logging" in sys.modules:
        _load_multiprocessing()


def _load_multiprocessing(_module: object = None) -> None:
    __import__("multiprocessing.process")


class _Waiting:
    """A finder of modules that finds one, once: where the others do. It then has something done with that module."""

    def __init__(self, name: str, then: Callable[[Any], None]) -> None:
        self._name = name
        self._then = then

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return what the finders behind this one find, with a loader that calls `then`."""
        if name != self._name:
            return None
        for finder in sys.meta_path:
            if not isinstance(finder, _Waiting):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    loader: Any = _Loader(self, spec.loader, self._then)
                    spec.loader = loader
                    return spec
        return None


class _Loader:
    """Loads with another loader, in whose place it is, and puts that back in its place."""

    def __init__(self, finder: _Waiting, real: Any, then: Callable[[Any], None]) -> None:
        self._finder = finder
        self._real = real
        self._then = then

    def create_module(self, spec: ModuleSpec) -> Any:
        """Leave it to the other one."""
        return self._real.create_module(spec)

    def exec_module(self, module: Any) -> None:
        """Run the module, then what was waiting for it."""
        module.__loader__ = module.__spec__.loader = self._real
        self._real.exec_module(module)
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        self._then(module)
