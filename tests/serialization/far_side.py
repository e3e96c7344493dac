"""A worker's part of serialization, in this process: what it has received lies beside what the host has."""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cloudpickle import cloudpickle as internals

from pidfdpool.serialization import definitions, namespaces, payload, script_calls, scripts

_DICTIONARIES = (
    "globals_by_module",
    "_last_received",
    "_pending",
    "_loading",
    "_held",
    "_made_by_script",
)


class FarSide:
    """What one worker has. Only within `here` is it what this process has."""

    def __init__(self, script: Any = None) -> None:
        """script: the host's description of its script, which may be run again."""
        main = types.ModuleType("__main__")
        vars(main)[scripts.STAND_IN] = True
        self._kept: dict[tuple[Any, str], Any] = {
            **{(namespaces, name): {} for name in _DICTIONARIES},
            (namespaces, "_looking_up"): [],
            (namespaces, "_undecided"): set(),
            (namespaces, "_definition_ids"): weakref.WeakKeyDictionary(),
            (namespaces, "_pickle_value"): namespaces._pickle_value,
            (definitions, "_ids"): weakref.WeakKeyDictionary(),
            (definitions, "_sent"): weakref.WeakValueDictionary(),
            (internals, "_DYNAMIC_CLASS_TRACKER_BY_ID"): weakref.WeakValueDictionary(),
            (internals, "_DYNAMIC_CLASS_TRACKER_BY_CLASS"): weakref.WeakKeyDictionary(),
            (scripts, "ran_again"): False,
            (scripts, "received"): script or scripts.Script(None, None, "there is none"),
        }
        self._modules = {"__main__": main, "__mp_main__": main}
        self._is_here = False

    @contextmanager
    def here(self) -> Iterator[FarSide]:
        """Have this process be the worker."""
        if self._is_here:
            yield self
            return
        theirs = {at: getattr(*at) for at in self._kept}
        modules = {name: sys.modules.get(name) for name in self._modules}
        for (holder, name), value in self._kept.items():
            setattr(holder, name, value)
        sys.modules.update(self._modules)
        self._is_here = True
        try:
            yield self
        finally:
            self._is_here = False
            for (holder, name), value in theirs.items():
                self._kept[holder, name] = getattr(holder, name)
                setattr(holder, name, value)
            for name, module in modules.items():
                if module is None:
                    del sys.modules[name]
                else:
                    sys.modules[name] = module

    @property
    def names(self) -> dict[str, Any]:
        """The globals of the script's functions."""
        with self.here():
            return namespaces.module_globals("__main__")

    def state(self, name: str) -> Any:
        """Return what `namespaces` keeps under this name."""
        return self._kept[namespaces, name]

    def load(self, data: bytes) -> Any:
        """Rebuild what the host has pickled; return it as it is."""
        with self.here():
            return payload.loads([data])

    def call(self, data: bytes) -> Any:
        """Call what the host has pickled as a call; return the result as it is there."""
        with self.here():
            function, arguments, keywords = payload.loads([data])
            return function(*arguments, **keywords)

    def ask(self, function: Any, *arguments: Any) -> Any:
        """Send a call, and return its result as it comes back."""
        data = dumped(function, *arguments)
        with self.here():
            result = self.pickled(self.call(data))
        return payload.load_result(result)

    def pickled(self, value: Any) -> list[Any]:
        """Return the payload of a result."""
        with self.here():
            return payload.dumps(value, payload.ReceivedMain())

    def run_script(self, code: str) -> None:
        """Run the script again, as the template does before it forks a worker."""
        with self.here():
            scripts.ran_again = True
            names = namespaces.module_globals("__main__")
            names["__name__"] = "__mp_main__"
            exec(compile(code, "script", "exec", dont_inherit=True), names)
            namespaces.adopt_script_globals("__main__", script_calls.pickle_value)


def dumped(function: Any, *arguments: Any) -> bytes:
    """Return a call as the host sends it, by value."""
    return payload.dumps_by_value((function, arguments, {}), None)
