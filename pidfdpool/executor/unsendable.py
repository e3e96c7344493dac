"""Which part of a call cannot be sent to a worker, told to whoever wrote it.

In the host, on the submitting thread, after the pickling of a call has failed. pickle's own error names a type and
nothing else, so the parts of the call are tried one by one. Runs the objects' own code.
"""

from __future__ import annotations

import pickle
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any

from pidfdpool.errors import CallNotSendable
from pidfdpool.loop import held_arguments
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.serialization import exception_chains, payload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_REDUCE: Any = object.__reduce_ex__
_DEEPEST = 6  # levels of containers and attributes
_MOST = 100  # parts of each that are tried
# What pickle and its like raise for what they cannot do. Anything else was raised by an object's own code.
_OF_PICKLERS = (TypeError, AttributeError, pickle.PicklingError, NotImplementedError, ValueError)


def explained(
    error: Exception,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    shared: payload.SharedMain | None,
) -> Exception:
    """Return the error to tell for a call that could not be pickled: it, or one that names the part and what helps.

    error: what pickling the whole raised. An object's own exception stays as it is, but for its traceback: that holds
        the frames of everybody who had a part in it, and so the arguments, and the future that is to hold the error.
        It comes as text, as those of exceptions do that tasks raise.
    shared: what host and workers have in common, see `payload`.
    """
    if type(error) not in _OF_PICKLERS and not issubclass(type(error), pickle.PicklingError):
        return _told_as_text(error)
    try:
        refused = _named(error, function, arguments, keywords, shared)
    except Exception:  # raised by the code of one of the parts
        refused = None
    finally:
        held_arguments.let_go()
    return _told_as_text(error) if refused is None else refused


def _named(
    error: Exception,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    shared: payload.SharedMain | None,
) -> CallNotSendable | None:
    """Return the error that names the part which cannot be pickled; None: each part can, alone."""
    from pidfdpool.serialization import omitted_globals
    from pidfdpool.serialization.placeholder import REMEDIES

    parts: dict[str, Any] = {}
    if type(function) is Chunk and function.func is not None:
        parts, function, arguments = function.named(), function.func, ()
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    parts |= {f"argument {index} of {name}()": value for index, value in enumerate(arguments, 1)}
    parts |= {f"argument {key!r} of {name}()": value for key, value in keywords.items()}
    parts[f"the function {name}"] = function
    for what, value in parts.items():
        reason = _refusal(value, shared)
        if reason is not None:
            path, culprit, reason = _narrowed("", value, reason, shared, _DEEPEST)
            where = f"{what}, in it {path.removeprefix(', ')}" if path else what
            kind, why = omitted_globals.describe_type(culprit), omitted_globals.reason_of(reason)
            told = f"{where} ({kind}) cannot be sent to a worker: {why}."
            refused = CallNotSendable(f"{told} {REMEDIES}")
            exception_chains.drop_tracebacks(error)
            refused.__cause__ = error
            return refused
    return None


def _told_as_text(error: Exception) -> Exception:
    from concurrent.futures.process import _RemoteTraceback

    text = exception_chains.format_exception(error)
    exception_chains.drop_tracebacks(error)
    exception_chains.with_cause(error, _RemoteTraceback(f'\n"""\n{text}"""'))  # type: ignore[arg-type]
    return error


def _refusal(value: Any, shared: payload.SharedMain | None) -> Exception | None:
    """Return why a part of a call cannot be pickled; None: it can."""
    try:
        payload.dumps(value, shared)
    except Exception as error:
        exception_chains.drop_tracebacks(error)
        return error
    return None


def _narrowed(
    path: str, value: Any, reason: Exception, shared: payload.SharedMain | None, depth: int
) -> tuple[str, Any, Exception]:
    """Return the innermost part that cannot be pickled, where it is, and why."""
    if depth:
        for step, part in _parts(value):
            why = _refusal(part, shared)
            if why is not None:
                return _narrowed(path + step, part, why, shared, depth - 1)
    return path, value, reason


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the first parts of an object, each with what to write behind the object to get at it."""
    kind = type(value)
    if kind in (list, tuple):
        yield from ((f"[{index}]", part) for index, part in enumerate(value[:_MOST]))
    elif kind is dict:
        yield from ((f"[{key!r}]"[:60], part) for key, part in list(value.items())[:_MOST])
    elif kind is FunctionType:
        cells: tuple[CellType, ...] = value.__closure__ or ()
        for name, cell in zip(value.__code__.co_freevars, cells, strict=False):
            try:
                yield f", its variable {name!r}", cell.cell_contents
            except ValueError:  # empty
                continue
        yield from ((f", its default {index}", part) for index, part in enumerate(value.__defaults__ or (), 1))
        yield from ((f", its default {name!r}", part) for name, part in (value.__kwdefaults__ or {}).items())
        from pidfdpool.serialization import by_value, definitions

        if definitions.module_of_globals(value.__globals__) is None:  # they travel along with it, see `by_value`
            names = value.__globals__
            yield from ((f", its global {name!r}", names[name]) for name in by_value.globals_used_by(value)[:_MOST])
    elif not isinstance(value, type) and kind.__reduce_ex__ is _REDUCE:  # otherwise its class says what is pickled
        held = getattr(value, "__dict__", None)
        if type(held) is dict:
            yield from ((f".{name}", part) for name, part in list(held.items())[:_MOST])
