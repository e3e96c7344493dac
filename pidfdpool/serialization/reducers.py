"""Reducers for objects of a script that neither pickle nor cloudpickle can send unchanged.

The picklers of `by_value` use them, in host and worker, on any thread. The only state is what is known of source
files. `reconstructors` has the functions that rebuild the objects.

- Code keeps its file name, so that tracebacks name the script. If the source is not in a file (a notebook's cell, a
  prompt), its text travels along.
- Annotations travel unevaluated where Python keeps them so (PEP 649, Python 3.14): they may use names that only type
  checkers import, or import something lazily.
- A lazy import (PEP 810, Python 3.15) arrives as a lazy import.
- Type parameters and NewTypes keep their identity, as classes do.
"""

from __future__ import annotations

import functools
import gc
import linecache
import logging
import operator
import os
import re
import sys
import types
import typing
from typing import TYPE_CHECKING, Any

from cloudpickle import cloudpickle as internals

from pidfdpool.serialization import reconstructors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Reducer = Callable[[Any], Any]

_IDENTIFIER = re.compile(r"[^\W\d]\w*")
CLASS_NAMES = "__classdict__"  # the free variable by which annotations reach the names of their class's body
_SOURCES_KEPT = 1000  # file names; notebooks have one for each cell


# ---- code ------------------------------------------------------------------------------------------------------


_code_fields = operator.attrgetter(
    "co_argcount", "co_posonlyargcount", "co_kwonlyargcount", "co_nlocals", "co_stacksize", "co_flags", "co_code",
    "co_consts", "co_names", "co_varnames", "co_filename", "co_name", "co_qualname", "co_firstlineno",
    "co_linetable", "co_exceptiontable", "co_freevars", "co_cellvars",
)  # fmt: skip


def reduce_code(code: types.CodeType) -> tuple[Any, ...]:
    """Reduce code to the arguments of `types.CodeType`, with its source if that is not in a file."""
    fields = _code_fields(code)
    source = _source_of(code)
    if source is None:
        return types.CodeType, fields
    return reconstructors.make_code_with_source, (source, *fields)


_LOOKUPS = frozenset({"__main__", "globals", "eval", "exec"})


@functools.lru_cache(512)
def looks_up_main(code: types.CodeType) -> bool:
    """Return whether code may use names of the script that it does not mention as globals."""
    mentioned: dict[str, None] = internals._extract_code_globals(code)  # also those of nested code
    return not _LOOKUPS.isdisjoint(mentioned) or _mentions_main(code, "__name__" in mentioned)


def _mentions_main(code: types.CodeType, uses_own_name: bool) -> bool:
    """Return whether code mentions `__main__`, or asks for subclasses. uses_own_name: it also reads `__name__`."""
    names, constants = code.co_names, code.co_consts
    if "__main__" in names or "__main__" in constants or "__subclasses__" in names:
        return True
    if uses_own_name and "modules" in names:  # sys.modules[__name__]
        return True
    return any(_mentions_main(inner, uses_own_name) for inner in constants if isinstance(inner, types.CodeType))


_files: dict[str, bool] = {}  # whether there is a file of this name
_sources: dict[str, str] = {}  # one object for each source, so that a pickle holds it only once


def _source_of(code: types.CodeType) -> str | None:
    name = code.co_filename
    is_file = _files.get(name)
    if is_file is None:
        if len(_files) >= _SOURCES_KEPT:
            _files.clear()
        is_file = _files[name] = os.path.isfile(name)
    if is_file:
        return None
    try:
        of_code = getattr(linecache, "_getlines_from_code", None)  # Python 3.13: sources of a prompt and of -c
        lines = (of_code(code) if of_code is not None else None) or linecache.getlines(name)
    except Exception:  # a loader of the host's has failed
        return None
    if not lines:
        return None
    text = "".join(lines)
    if _sources.get(name) != text:
        if len(_sources) >= _SOURCES_KEPT:
            _sources.clear()
        _sources[name] = text
    return _sources[name]


# ---- annotations -----------------------------------------------------------------------------------------------


def is_annotate(function: types.FunctionType) -> bool:
    """Return whether Python itself has made this function from annotations (PEP 649)."""
    return function.__name__ == "__annotate__" and sys.version_info >= (3, 14)


def annotations_of(value: Any, travels_by_value: Callable[[Any], bool]) -> tuple[str, Any]:
    """Return the attribute in which the annotations of a function or class travel, and its value.

    Evaluates nothing that Python has not evaluated, unless a library has made the annotations.

    travels_by_value: tells whether a function's globals are those of a module that workers do not import.
    """
    if sys.version_info < (3, 14):
        return "__annotations__", value.__annotations__
    annotate = value.__annotate__
    if annotate is None:
        return "__annotations__", value.__annotations__  # they were assigned
    if isinstance(annotate, types.FunctionType) and travels_by_value(annotate):
        return "__annotate__", annotate
    import annotationlib  # type: ignore[import-not-found, unused-ignore]

    return "__annotations__", annotationlib.get_annotations(value, format=annotationlib.Format.FORWARDREF)


def names_in_annotations(value: Any) -> Iterator[str]:
    """Yield possible names in those annotations of a function or class that are text. Evaluates nothing."""
    texts: Iterable[Any]
    annotate = getattr(value, "__annotate__", None)
    if annotate is not None:
        texts = annotate.__code__.co_consts if isinstance(annotate, types.FunctionType) else ()
    elif isinstance(value, type):
        texts = vars(value).get("__annotations__", {}).values()
    else:
        texts = value.__annotations__.values()
    for text in texts:
        if type(text) is str:
            yield from _IDENTIFIER.findall(text)


def names_for_annotations(cell: types.CellType, code: types.CodeType) -> types.CellType:
    """Return a cell with those names of the class's body that the annotations use, instead of all of them."""
    try:
        body = cell.cell_contents
    except ValueError:  # an empty cell
        return cell
    return types.CellType({name: body[name] for name in code.co_names if name in body})


def _reduce_forward_reference(reference: Any) -> tuple[Any, ...]:
    """Reduce an annotation that could not be evaluated; its globals are not sent."""
    names = reference.__globals__
    module_name = names.get("__name__") if isinstance(names, dict) else reference.__forward_module__
    details = reference.__owner__, reference.__forward_is_class__, reference.__extra_names__
    return reconstructors.make_forward_reference, (reference.__forward_arg__, module_name, *details)


# ---- imports, type parameters, and the like ----------------------------------------------------------------------


def _reduce_lazy_import(lazy: Any) -> tuple[Any, ...]:
    parts = gc.get_referents(lazy)  # the only way to look at it without importing
    is_attribute = not any(isinstance(part, dict) for part in parts)
    return reconstructors.make_lazy_import, (_lazy_name(lazy), is_attribute)


def _lazy_name(lazy: Any) -> str:
    """Return the dotted name of the module or attribute that would be imported."""
    attributes: list[str] = []
    while True:
        parts = gc.get_referents(lazy)
        name: str = next(part for part in parts if type(part) is str)
        around = next((part for part in parts if type(part) is type(lazy)), None)
        if around is None:
            break
        attributes.insert(0, name)
        lazy = around
    # `import a.b as c` has no list of names: it imports `a.b`, and takes `b` from that.
    has_names = any(type(part) is tuple for part in parts)
    return ".".join([name, *attributes]) if has_names else name


def _is_importable(value: Any) -> bool:
    found = internals._lookup_module_and_qualname(value, name=value.__name__)
    return found is not None and not internals._is_registered_pickle_by_value(found[0])


def _reduce_type_parameter(parameter: Any) -> Any:
    if _is_importable(parameter):
        return parameter.__name__
    details: dict[str, Any] = {}
    for name in ("bound", "covariant", "contravariant", "infer_variance"):
        value = getattr(parameter, f"__{name}__", None)
        if value:
            details[name] = value
    has_default = getattr(parameter, "has_default", None)  # Python 3.13
    if has_default is not None and has_default():
        details["default"] = parameter.__default__
    arguments = parameter.__name__, *getattr(parameter, "__constraints__", ())
    made_of = type(parameter), parameter.__module__, arguments, details
    return reconstructors.make_type_parameter, (*made_of, internals._get_or_create_tracker_id(parameter))


def _reduce_new_type(new_type: Any) -> Any:
    if _is_importable(new_type):
        return new_type.__qualname__
    arguments = new_type.__qualname__, new_type.__module__, new_type.__supertype__
    return reconstructors.make_new_type, (*arguments, internals._get_or_create_tracker_id(new_type))


def _reduce_logger(logger: Any) -> tuple[Any, ...]:
    # A script that is run again is called __mp_main__, and so is the logger that it has set up.
    first, dot, rest = logger.name.partition(".")
    return reconstructors.get_logger, (("__main__" if first == "__mp_main__" else first) + dot + rest,)


def _reduce_cached_property(value: Any) -> tuple[Any, ...]:
    return reconstructors.make_cached_property, (value.func, value.attrname)


def _reduce_partial_method(value: Any) -> tuple[Any, ...]:
    return reconstructors.make_partial_method, (value.func, value.args, value.keywords)


def _own_reducers() -> Iterable[tuple[type, Reducer]]:
    yield types.CodeType, reduce_code
    yield logging.Logger, _reduce_logger
    for kind in (typing.TypeVar, typing.ParamSpec, typing.TypeVarTuple):
        yield kind, _reduce_type_parameter
    yield typing.NewType, _reduce_new_type
    yield functools.cached_property, _reduce_cached_property  # it holds a lock before Python 3.12
    yield functools.partialmethod, _reduce_partial_method  # its own reduction has failed since Python 3.14
    if sys.version_info >= (3, 14):
        import annotationlib  # type: ignore[import-not-found, unused-ignore]

        yield annotationlib.ForwardRef, _reduce_forward_reference
    lazy_import = getattr(types, "LazyImportType", None)
    if lazy_import is not None:
        yield lazy_import, _reduce_lazy_import


REDUCERS: dict[type, Reducer] = dict(_own_reducers())
