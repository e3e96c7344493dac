"""A batch of joblib's calls as it travels. A worker that runs one does not need joblib, unless a call does.

joblib and numpy, which it loads, take several times as long to load as a template to start. So a batch holds what is
joblib's own as a pickle, and it is read only where joblib is loaded: by the functions of the batch, by an earlier
one, by the preload, or while the batch runs.

Made by the backend in the host, on joblib's threads. Called by the worker's main thread.
"""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import sys

TYPE_CHECKING = bool()  # noqa: UP018
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from typing import Any

_PARALLEL = "joblib.parallel"


class Batch:
    """Calls that a worker runs one after the other. Its result is a list of theirs."""

    def __init__(
        self, calls: Sequence[tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]], nested: bytes
    ) -> None:
        """nested: a pickle of the arguments of `joblib.parallel_config` for uses of joblib within the calls."""
        self._calls = calls
        self._nested = nested

    def __call__(self) -> list[Any]:
        """Run the calls. The first that raises ends the batch."""
        with _Nested(self._nested):
            return [function(*arguments, **keywords) for function, arguments, keywords in self._calls]


class _Nested:
    """Configures joblib for calls within a batch, at once or as soon as it is loaded. Undone when the batch ends.

    While joblib is not loaded, this is a finder in `sys.meta_path` that waits for it. joblib's configuration belongs
    to one thread. So joblib should be loaded by the thread that runs the batch; what another thread loads is
    configured for that thread.
    """

    def __init__(self, nested: bytes) -> None:
        self._nested = nested
        self._config: Any = None

    def __enter__(self) -> None:
        if _PARALLEL in sys.modules:
            self._configure(importlib.import_module(_PARALLEL))  # another thread may be about to load it
        else:
            sys.meta_path.insert(0, self)

    def __exit__(self, *_exception: object) -> None:
        self._stop_waiting()
        if self._config is not None:
            self._config.unregister()

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Have joblib configured when it has been loaded."""
        if name != _PARALLEL:
            return None
        self._stop_waiting()
        spec = importlib.util.find_spec(name)
        loader: Any = None if spec is None else spec.loader
        if loader is not None:
            execute = loader.exec_module

            def execute_and_configure(module: Any) -> None:
                execute(module)
                self._configure(module)

            loader.exec_module = execute_and_configure  # a loader serves one module
        return spec

    def _stop_waiting(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def _configure(self, parallel: Any) -> None:
        self._config = parallel.parallel_config(**pickle.loads(self._nested))
