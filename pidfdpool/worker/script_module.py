"""The module that stands for the host's script in a template and its workers, as `__main__` and `__mp_main__`.

Its globals are those of the script's functions that travel by value (`namespaces`), so that what is looked up by name
is found: by pickle, by schedulers that store "__main__:work", by code that imports `__main__`.

The script itself is run here again when something needs it, and then once: in the template, from which all workers
inherit what it has made. It runs as `__mp_main__`, as in a process that multiprocessing spawns, so what it has behind
`if __name__ == "__main__":` does not run. Who asks `__main__` for a name that nobody has foreseen gets it from a
script that is run for that in the worker.

On the only thread of a template or worker; never in the host.
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

_real: list[ModuleType] = []  # what was `__main__` before; kept, because it holds the code that runs this process


class StandIn(ModuleType):
    """Stands for a script. Its attributes are the script's globals, as far as they are here."""

    @property
    def __spec__(self) -> ModuleSpec | None:
        """Say what multiprocessing goes by, should a task start processes: from where they run the script, or not."""
        script = scripts.current()
        if not script.can_run_again:
            return ModuleSpec("__main__", None)  # of which it knows that it cannot be run again
        return None if script.module is None else ModuleSpec(script.module, None)

    @__spec__.setter  # noqa: A003  it is the property that is meant
    def __spec__(self, _spec: object) -> None:
        pass  # every new module has it set

    def __getattr__(self, name: str) -> Any:
        """Run the script for a name that only it can tell."""
        script = scripts.current()
        if not name.startswith("__") and script.can_run_again and name in script.names and not scripts.ran_again:
            _run_late(self)
            if name in vars(self):
                return vars(self)[name]
        hint = f" ({script.obstacle})" if script.obstacle else ""
        raise AttributeError(f"module '__main__' has no attribute {name!r} in this worker{hint}")


def install(script: scripts.Script) -> None:
    """Put the stand-in in the place of this process's own `__main__`."""
    scripts.received = script
    module = StandIn("__main__")
    names = vars(module)
    names[scripts.STAND_IN] = True
    if script.path is not None:
        names["__file__"] = script.path
    _real.append(sys.modules["__main__"])
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


_signals: dict[int, Any] = {}  # handlers that the interpreter's start or the script has set, for workers


def run_script() -> None:
    """Run the script for all workers that are forked from now on, unless that was done. Raises nothing.

    What it raises is kept for those who ask for what it did not come to make.
    """
    module = sys.modules["__main__"]
    if scripts.ran_again or not isinstance(module, StandIn):
        return
    scripts.ran_again = True
    from pidfdpool.serialization import namespaces, script_calls

    names = namespaces.module_globals("__main__")
    before = _handlers()
    _run_into(names)
    for number, handler in _handlers().items():
        if handler is not before[number]:
            _signals[number] = handler
            native.set_signal(number, before[number])  # the template has handlers of its own
    namespaces.adopt_script_globals("__main__", script_calls.pickle_value)


def keep_signals() -> None:
    """Note the handlers that the start of this interpreter has set (a .pth file, sitecustomize), for workers."""
    _signals.update((number, handler) for number, handler in _handlers().items() if callable(handler))


def set_signals() -> None:
    """Set the handlers that were noted. In a worker; Ctrl-C is for the host to decide upon."""
    for number, handler in _signals.items():
        if number != native.signal.SIGINT:
            native.set_signal(number, handler)


def _handlers() -> dict[int, Any]:
    untouchable = native.signal.SIGKILL, native.signal.SIGSTOP
    return {int(n): native.get_signal(n) for n in native.signal.valid_signals() if n not in untouchable}


def _run_late(module: ModuleType) -> None:
    """Run the script beside what there is of it already, which stays as it is."""
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
    except BaseException as error:  # SystemExit as well: it is not this process that is to end
        import traceback

        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == names.get("__file__")]
        place = f" ({names['__file__']}, line {lines[-1]})" if lines else ""  # where the script was, not who raised
        names[scripts.FAILURE] = f"{type(error).__name__}: {error}{place}"


def _code_of(script: scripts.Script, names: dict[str, Any]) -> Any:
    """Return the script's code, having set what a module has before its code runs."""
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
