"""The module that takes the place of the host's script, as `__main__` and `__mp_main__`, in template and workers.

Used on the only thread of a template or worker; never in the host.

Its globals are those of the script's functions that are sent by value (`namespaces`). So a look-up by name finds
them: by pickle, by schedulers that store "__main__:work", by code that imports `__main__`.

The script itself is run again if something needs it, but only once: in the template, from which all workers inherit
the result. It runs as `__mp_main__`, as in a process that multiprocessing spawns, so the code below
`if __name__ == "__main__":` does not run. If a worker looks up a name of `__main__` that no call needed before, the
script is run in that worker.
"""

from __future__ import annotations

import sys
from types import ModuleType

from pidfdpool.process import native
from pidfdpool.serialization import scripts
from pidfdpool.worker import rebuild_guard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any
else:
    ModuleSpec = type(sys.__spec__)  # `importlib.machinery` loads `warnings`, which template and workers do not need

_original: list[ModuleType] = []  # the process's own `__main__`, kept alive because its code runs this process


class ScriptModule(ModuleType):
    """Takes the place of the script. Its attributes are those of the script's globals that this process has."""

    @property
    def __spec__(self) -> ModuleSpec | None:
        """Tell multiprocessing where processes that a task starts run the script from, or that they must not."""
        script = scripts.current()
        if not script.can_run_again:
            return ModuleSpec("__main__", None)  # multiprocessing does not run a module of this name again
        return None if script.module is None else ModuleSpec(script.module, None)

    @__spec__.setter  # noqa: A003  it is the property that is meant
    def __spec__(self, _spec: object) -> None:
        pass  # the interpreter sets it in every new module

    def __getattr__(self, name: str) -> Any:
        """Run the script for a name that only the script can define."""
        script = scripts.current()
        if not name.startswith("__") and script.can_run_again and name in script.names and not scripts.ran_again:
            _run_in_worker(self)
            if name in vars(self):
                return vars(self)[name]
        hint = f" ({script.obstacle})" if script.obstacle else ""
        raise AttributeError(f"module '__main__' has no attribute {name!r} in this worker{hint}")


def install(script: scripts.Script) -> None:
    """Replace this process's own `__main__`."""
    scripts.received = script
    module = ScriptModule("__main__")
    names = vars(module)
    names[scripts.STAND_IN] = True
    if script.path is not None:
        names["__file__"] = script.path
    _original.append(sys.modules["__main__"])
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


_worker_handlers: dict[int, Any] = {}  # signal handlers that the interpreter's start or the script has set


def run_script() -> None:
    """Run the script for all workers that are forked from now on, unless that was done. Raises nothing.

    An exception of the script is stored. It is the reason that is given when a task looks up a global that the script
    did not define.
    """
    module = sys.modules["__main__"]
    if scripts.ran_again or not isinstance(module, ScriptModule):
        return
    scripts.ran_again = True
    from pidfdpool.serialization import namespaces, script_calls

    names = namespaces.module_globals("__main__")
    before = _handlers()
    _run_into(names)
    for number, handler in _handlers().items():
        if handler is not before[number]:
            _worker_handlers[number] = handler
            native.set_signal(number, before[number])  # the template has handlers of its own
    namespaces.adopt_script_globals("__main__", script_calls.pickle_value)


def keep_signals() -> None:
    """Store the handlers that the start of this interpreter has set (a .pth file, sitecustomize), for workers."""
    _worker_handlers.update((number, handler) for number, handler in _handlers().items() if callable(handler))


def set_signals() -> None:
    """Set the handlers that were stored, but for SIGINT: the host decides what Ctrl-C does. In a worker."""
    for number, handler in _worker_handlers.items():
        if number != native.signal.SIGINT:
            native.set_signal(number, handler)


def _handlers() -> dict[int, Any]:
    fixed = native.signal.SIGKILL, native.signal.SIGSTOP
    return {int(n): native.get_signal(n) for n in native.signal.valid_signals() if n not in fixed}


def _run_in_worker(module: ModuleType) -> None:
    """Run the script in a worker. Globals that exist already are not changed."""
    scripts.ran_again = True
    names: dict[str, Any] = dict(vars(ModuleType("__main__")))
    _run_into(names)
    for name, value in names.items():
        vars(module).setdefault(name, value)


def _run_into(names: dict[str, Any]) -> None:
    script = scripts.current()
    try:
        code = _code_of(script, names)
        names["__name__"] = "__mp_main__"
        with rebuild_guard.during("the script was run again for workers"):
            exec(code, names)
    except BaseException as error:  # SystemExit as well: it must not end this process
        import traceback

        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == names.get("__file__")]
        place = f" ({names['__file__']}, line {lines[-1]})" if lines else ""  # the script's line, not a callee's
        names[scripts.FAILURE] = f"{type(error).__name__}: {error}{place}"


def _code_of(script: scripts.Script, names: dict[str, Any]) -> Any:
    """Return the script's code. Before that, set the attributes that a module has before its code runs."""
    if script.module is None:
        assert script.path is not None
        with open(script.path, "rb") as file:
            source = file.read()
        names.update(__file__=script.path, __package__="", __spec__=None, __builtins__=__builtins__)
        return compile(source, script.path, "exec", dont_inherit=True)
    from importlib.util import find_spec

    spec: Any = find_spec(script.module)
    code = spec.loader.get_code(script.module)
    names.update(
        __file__=spec.origin,
        __package__=spec.parent,
        __spec__=spec,
        __loader__=spec.loader,
        __cached__=spec.cached,
        __builtins__=__builtins__,
    )
    return code
