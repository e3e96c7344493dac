"""Takes the values of context variables where a call is submitted, so that they travel with it.

Called by the threads that submit, only where the option `context_vars` is given. `worker.task_context` sets the
values in the worker.
"""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from pidfdpool.errors import CallNotSendable
from pidfdpool.executor.futures import Future
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.worker.task_context import InContext

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pidfdpool.scheduler.policy import ContextVars
    from pidfdpool.worker.task_context import Value

T = TypeVar("T")

# Where each variable was found, and how many modules there were when it was looked for in vain.
_places: dict[contextvars.ContextVar[Any], tuple[str, str] | int] = {}


def in_context(function: Callable[..., Any], chosen: ContextVars) -> Callable[..., Any]:
    """Return the function with the values that the chosen variables have here. What has them already stays.

    Raises:
        CallNotSendable: a variable is no global of a module, so that workers cannot find it.
    """
    if type(function) is InContext or type(function) is Chunk:
        return function
    values = tuple(_all_values() if chosen is True else _values(tuple(chosen or ())))
    return InContext(function, values)


def _values(variables: tuple[contextvars.ContextVar[Any], ...]) -> Iterator[Value]:
    context = contextvars.copy_context()
    for variable in variables:
        if variable in context:
            place = _place_of(variable)
            if place is None:
                raise CallNotSendable(
                    f"the context variable {variable.name!r} cannot be sent to a worker: no module has it as a "
                    "global, or as an attribute of a class, by which the worker could find it. Make it a global of a "
                    "module."
                )
            yield (*place, context[variable])


def _all_values() -> Iterator[Value]:
    """Yield the values of all that are set, but for those that no code of a task could name, and Python's own."""
    for variable, value in contextvars.copy_context().items():
        place = _place_of(variable)
        if place is not None and place[0].partition(".")[0] not in sys.stdlib_module_names:
            yield (*place, value)


def _place_of(variable: contextvars.ContextVar[Any]) -> tuple[str, str] | None:
    known = _places.get(variable)
    if isinstance(known, tuple):
        return known
    if known == len(sys.modules):
        return None
    found = sorted(_search(variable), key=lambda place: place[0] in ("__main__", "__mp_main__"))  # these come last
    _places[variable] = found[0] if found else len(sys.modules)
    return found[0] if found else None


def _search(variable: contextvars.ContextVar[Any]) -> Iterator[tuple[str, str]]:
    """Yield the places of a variable. Takes some milliseconds where there are a thousand modules."""
    for module, content in list(sys.modules.items()):
        names = getattr(content, "__dict__", None)
        if type(names) is not dict:
            continue
        for name, value in list(names.items()):
            if value is variable:
                yield module, name
            elif type(value) is type and type.__getattribute__(value, "__module__") == module:
                yield from ((module, f"{name}.{key}") for key, held in list(vars(value).items()) if held is variable)


class ContextFuture(Future[T]):
    """A future whose callbacks see the context of the thread that has submitted, as it was then."""

    _context: contextvars.Context

    @classmethod
    def here(cls) -> ContextFuture[Any]:
        """Return a new one, for a call that is submitted here and now."""
        future: ContextFuture[Any] = cls()
        future._context = contextvars.copy_context()
        return future

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """As in the base class. Each callback has a copy of the context of its own."""
        super().add_done_callback(_Callback(self._context, fn))


class _Callback:
    """A callback of a future, in a context."""

    __slots__ = ("_context", "_function")

    def __init__(self, context: contextvars.Context, function: Callable[[Any], object]) -> None:
        self._context = context
        self._function = function

    def __call__(self, future: Any) -> None:
        self._context.copy().run(self._function, future)
