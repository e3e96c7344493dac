"""Makes a call with the values that context variables had where it was submitted.

The host makes an `InContext` in the thread that submits (`executor.context_vars`). In a worker it is the function of
the task, or of each call of a map, and runs on the worker's thread. A `ContextVar` does not pickle, so it travels as
the name under which a module has it.
"""

from __future__ import annotations

import sys
from _contextvars import ContextVar, copy_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Value: TypeAlias = tuple[str, str, Any]  # a module, the path of the variable in it, and the variable's value


class InContext:
    """A function that is called in a context of its own, in which these variables are set."""

    __slots__ = ("func", "values")

    def __init__(self, func: Callable[..., Any], values: tuple[Value, ...]) -> None:
        self.func = func  # as in functools.partial, so that a task is named after it
        self.values = values

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call the function. What it sets is forgotten afterwards."""
        context = copy_context()
        for module, path, value in self.values:
            context.run(_find(module, path).set, value)
        return context.run(self.func, *arguments, **keywords)

    def __reduce__(self) -> tuple[Any, ...]:
        return InContext, (self.func, self.values)


def _find(module: str, path: str) -> ContextVar[Any]:
    """Return a context variable of this process.

    Raises:
        LookupError: it is not there.
    """
    found: Any = sys.modules.get(module)
    try:
        if found is None:
            from importlib import import_module

            found = import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise LookupError(f"this worker has no context variable {module}.{path}: {error}") from error
    if not isinstance(found, ContextVar):
        from pidfdpool.serialization.placeholder import Placeholder

        if type(found) is Placeholder:
            raise LookupError(f"this worker has no context variable {module}.{path}: {found!r}")
        raise LookupError(f"in this worker {module}.{path} is no context variable but {type(found).__name__}")
    return found
