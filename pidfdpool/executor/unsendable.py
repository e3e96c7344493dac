"""The error of a call that cannot be pickled: which part of it, why, and what helps.

Runs in the host, in the submitting thread, after the pickling of a call has failed. pickle's own error names only a
type. So the parts of the call are pickled one by one, which runs the objects' own code.
"""

from __future__ import annotations

import pickle
import sys
from types import CellType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from pidfdpool import checks
from pidfdpool.errors import CallNotSendable, _OnlyInherited, _RemoteTraceback
from pidfdpool.loop import held_arguments
from pidfdpool.process import describe
from pidfdpool.serialization import exception_chains, payload
from pidfdpool.worker.task_context import InContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pidfdpool.loop.chunk_calls import Chunk

_REDUCE: Any = object.__reduce_ex__
_MAX_DEPTH = 6  # levels of containers and attributes
_MAX_PARTS = 100  # parts of each object that are tried
# What pickle and similar modules raise for what they cannot pickle. Other errors come from the objects' own code.
_PICKLING_ERRORS = (TypeError, AttributeError, pickle.PicklingError, NotImplementedError, ValueError)
# For arguments, which are pickled with each start method. A global of a function need not be.
INSTEAD_OF_ARGUMENTS = (
    "Send what it is made of, such as the path instead of an open file. Or have the task take it from a global that "
    "is made in each worker (initializer=...), belongs to a module that workers import, or is inherited by them "
    "(mp_context='fork')."
)
# What multiprocessing says of its locks, queues and values, unless a process is about to start.
_INHERITED_ONLY = "should only be shared between processes through inheritance"
_AT_THE_START = (
    "Give it to the workers when they start (initializer=..., initargs=...), or send one of "
    "multiprocessing.Manager() in its place."
)


def describe_pickling_error(
    error: Exception,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    shared: payload.SharedMain | None,
) -> Exception:
    """Return the error for the future of a call that could not be pickled.

    It is a CallNotSendable that names the part. If each part can be pickled alone, or an object's own code has raised
    the error, it is `error` itself, with its traceback as text, as that of an exception that a task raises. (Its
    traceback holds frames, these hold the arguments and the future, and the future holds the error.) The value of a
    context variable is named whatever its code has raised, because who submits does not see that it travels.

    error: what pickling the whole call raised.
    shared: what host and workers have in common, see `payload`.
    """
    try:
        refused = _find_part(error, function, arguments, keywords, shared)
    except Exception:  # raised by the code of one of the parts
        refused = None
    finally:
        held_arguments.let_go()
    return _with_text_traceback(error) if refused is None else refused


def _find_part(
    error: Exception,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    shared: payload.SharedMain | None,
) -> CallNotSendable | None:
    """Return the error that names the part which cannot be pickled. None: each part that counts can be, alone."""
    from pidfdpool.serialization import omitted_globals
    from pidfdpool.serialization.placeholder import REMEDIES

    if isinstance(error, MemoryError):  # a PayloadTooLarge, too
        return None
    parts: dict[str, Any] = {}
    chunk = _as_chunk(function)
    if chunk is not None:
        function = chunk.call if chunk.func is None else chunk.func
    if type(function) is InContext:
        for module, path, value in function.values:
            parts[f"the value {checks.short_repr(value)} of the context variable {module}.{path}"] = value
        function = function.func
    by_pickle = type(error) in _PICKLING_ERRORS or isinstance(error, pickle.PicklingError)
    if by_pickle or _is_inherited_only(error):
        name = getattr(function, "__qualname__", None) or type(function).__qualname__
        if chunk is not None and chunk.func is not None:
            parts |= chunk.named()
        else:
            parts |= {f"argument {index} of {name}()": value for index, value in enumerate(arguments, 1)}
        parts |= {f"argument {key!r} of {name}()": value for key, value in keywords.items()}
        parts[f"the function {name}"] = function
    for what, value in parts.items():
        reason = _error_of(value, shared)
        if reason is not None:
            path, culprit, reason = _narrow_down("", value, reason, shared, _MAX_DEPTH)
            where = f"{what}, in it {path.removeprefix(', ')}" if path else what
            kind, why = omitted_globals.describe_type(culprit), omitted_globals.reason_of(reason)
            told = f"{where} ({kind}) cannot be sent to a worker: {why}."
            if _is_inherited_only(reason):
                refused: CallNotSendable = _OnlyInherited(f"{told} {_AT_THE_START}")
            else:
                refused = CallNotSendable(f"{told} {REMEDIES if value is function else INSTEAD_OF_ARGUMENTS}")
            exception_chains.drop_tracebacks(error)
            refused.__cause__ = error
            return refused
    return None


def _is_inherited_only(error: Exception) -> bool:
    return type(error) is RuntimeError and _INHERITED_ONLY in describe.text_of(error)


def _as_chunk(function: Any) -> Chunk | None:
    """Return the function if it is a chunk of map. Who makes chunks has loaded their module."""
    module: Any = sys.modules.get("pidfdpool.loop.chunk_calls")
    return function if module is not None and type(function) is module.Chunk else None


def _with_text_traceback(error: Exception) -> Exception:
    text = exception_chains.format_exception(error)
    exception_chains.drop_tracebacks(error)
    exception_chains.with_cause(error, _RemoteTraceback(f'\n"""\n{text}"""'))  # type: ignore[arg-type]
    return error


def _error_of(value: Any, shared: payload.SharedMain | None) -> Exception | None:
    """Return the error of pickling a part of a call. None: it can be pickled."""
    try:
        payload.dumps(value, shared)
    except Exception as error:
        exception_chains.drop_tracebacks(error)
        return error
    return None


def _narrow_down(
    path: str, value: Any, reason: Exception, shared: payload.SharedMain | None, depth: int
) -> tuple[str, Any, Exception]:
    """Return the path of the innermost part that cannot be pickled, the part itself, and its error.

    What refuses by itself to be pickled is not looked into: a queue of multiprocessing, which holds locks.
    """
    if depth and not (_is_inherited_only(reason) and _says_what_is_pickled(type(value))):
        for step, part in _parts_of(value):
            why = _error_of(part, shared)
            if why is not None:
                return _narrow_down(path + step, part, why, shared, depth - 1)
    return path, value, reason


def _says_what_is_pickled(kind: type) -> bool:
    methods: tuple[Any, ...] = (kind.__reduce_ex__, kind.__reduce__, kind.__getstate__)
    return bool(methods != (object.__reduce_ex__, object.__reduce__, object.__getstate__))


def _parts_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parts of an object, each with its path from the object, in Python's notation."""
    kind = type(value)
    if kind in (list, tuple):
        yield from ((f"[{index}]", part) for index, part in enumerate(value[:_MAX_PARTS]))
    elif kind is dict:
        yield from ((f"[{key!r}]"[:60], part) for key, part in list(value.items())[:_MAX_PARTS])
    elif kind is MethodType:
        yield ", its object", value.__self__
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
            yield from (
                (f", its global {name!r}", names[name]) for name in by_value.globals_used_by(value)[:_MAX_PARTS]
            )
    elif not isinstance(value, type) and kind.__reduce_ex__ is _REDUCE:  # otherwise its class says what is pickled
        held = getattr(value, "__dict__", None)
        if type(held) is dict:
            yield from ((f".{name}", part) for name, part in list(held.items())[:_MAX_PARTS])
