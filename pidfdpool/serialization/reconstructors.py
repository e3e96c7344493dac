"""Rebuilds what `reducers` has reduced: pickles name the functions in this file.

On the thread that unpickles: a worker's only thread, or in the host the thread that resolves a result. State: what
cloudpickle keeps of definitions, and the sources that are put where tracebacks look for them.
"""

from __future__ import annotations

import functools
import linecache
import logging
import sys
import types
import typing
from typing import TYPE_CHECKING, Any

from cloudpickle import cloudpickle as internals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pidfdpool.serialization.namespaces import Key


_sources: dict[str, Any] = {}  # what was put into `linecache.cache` here, by file name


def make_code_with_source(source: str, *fields: Any) -> types.CodeType:
    """Return code whose source is not in a file; tracebacks find the source under the code's file name.

    A later source of that name takes the place of one that was put there. What the host has there itself stays.
    """
    code = types.CodeType(*fields)
    name = code.co_filename
    known = linecache.cache.get(name)
    if known is None or known is _sources.get(name):
        lines = source.splitlines(keepends=True)
        entry = len(source), None, lines, name  # None: there is no file to compare with
        linecache.cache[name] = _sources[name] = entry
    return code


def make_forward_reference(
    text: str, module_name: str | None, owner: Any, is_class: bool, names: Mapping[str, Any] | None
) -> Any:
    """Return an annotation that could not be evaluated yet. module_name: the module in which to evaluate it."""
    import annotationlib  # type: ignore[import-not-found, unused-ignore]  # Python 3.14

    from pidfdpool.serialization import namespaces

    reference: Any = annotationlib.ForwardRef(text, owner=owner, is_class=is_class)
    if module_name is not None and module_name in namespaces.globals_by_module:
        reference.__globals__ = namespaces.globals_by_module[module_name]
    elif module_name is not None:
        reference.__forward_module__ = module_name
    reference.__extra_names__ = names
    return reference


def make_lazy_import(name: str, is_attribute: bool) -> Any:
    """Return a lazy import that is still lazy.

    is_attribute: the import binds the last part of the name, and not the package with which the name begins.
    """
    scratch: dict[str, Any] = {"__name__": __name__}
    package, _, last = name.rpartition(".")
    if is_attribute and package:
        exec(f"lazy from {package} import {last} as found", scratch)
        return scratch["found"]
    exec(f"lazy import {name}", scratch)
    return scratch[name.partition(".")[0]]


def make_type_parameter(
    kind: type, module: str, arguments: Sequence[Any], details: Mapping[str, Any], tracker: str
) -> Any:
    """Return a TypeVar or similar: the existing one, if it came before."""
    made: Any = kind(*arguments, **details)
    made.__module__ = module
    return internals._lookup_class_or_track(tracker, made)


def make_new_type(name: str, module: str, supertype: Any, tracker: str) -> Any:
    """Return a NewType: the existing one, if it came before."""
    make: Any = typing.NewType
    made = make(name, supertype)
    made.__module__ = module
    return internals._lookup_class_or_track(tracker, made)


def get_logger(name: str) -> logging.Logger:
    """Return the logger of this name. The script's own logger has the name that the script has here."""
    first, dot, rest = name.partition(".")
    if first == "__main__":
        first = vars(sys.modules["__main__"]).get("__name__", first)
    return logging.getLogger(first + dot + rest)


def make_cached_property(function: Any, name: str | None) -> Any:
    """Return functools.cached_property of a function, as if it was assigned in a class."""
    made: Any = functools.cached_property(function)
    made.attrname = name
    return made


def make_lru_cache(function: Any, maxsize: int | None, typed: bool) -> Any:
    """Return functools.lru_cache of a function."""
    return functools.lru_cache(maxsize, typed)(function)


def make_partial_method(function: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """Return a functools.partialmethod."""
    return functools.partialmethod(function, *arguments, **keywords)


def make_type_alias(key: Key, parameters: tuple[Any, ...], value: bytes) -> Any:
    """Return what the statement `type X = ...` makes. value: the pickle of the aliased type, loaded at the first use.

    It is loaded late because an alias may be part of the type that it stands for.
    """
    from pidfdpool.serialization import namespaces

    module, name = key
    scratch: dict[str, Any] = {"__name__": module, "load": functools.partial(namespaces.load, value)}
    if parameters:
        scratch |= {"Alias": typing.TypeAliasType, "parameters": parameters}  # type: ignore[attr-defined, unused-ignore]
        return eval(f"Alias({name!r}, load(), type_params=parameters)", scratch)
    exec(f"type {name} = load()", scratch)
    return scratch[name]


def make_sentinel(key: Key, shown: str) -> Any:
    """Return what `sentinel` (Python 3.15) makes in a module. shown: its repr."""
    module, name = key
    make: Any = vars(sys.modules["builtins"])["sentinel"]
    made = make(name) if shown == name else make(name, repr=shown)
    made.__module__ = module
    return made


def get_attribute(owner: Any, path: str) -> Any:
    """Return the attribute of an object that has this dotted name."""
    for name in path.split("."):
        owner = getattr(owner, name)
    return owner


def make_class(
    kind: type, name: str, bases: tuple[Any, ...], names: dict[str, Any], tracker: str, extra: Any
) -> type:
    """Return a class that came by value, still without its contents; the existing one, if it came before.

    The effects of the user's own metaclass or `__init_subclass__` on a new class are not repeated here. They took
    place in the host: they are in the contents of the class, and in the values of the script's names. To repeat them
    would fill a registry twice, or use names that have not come yet, or lack the keywords of the class statement.
    """
    there = internals._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker)
    if there is not None:
        return there  # type: ignore[no-any-return]
    resolved = types.resolve_bases(bases)
    with_hook = _first_with_hook(resolved)
    if not _came_by_value(kind) and with_hook is None:
        return internals._make_skeleton_class(kind, name, bases, names, tracker, extra)  # type: ignore[no-any-return]
    body = dict(names)
    if resolved is not bases:
        body["__orig_bases__"] = bases
    maker: Any = next(each for each in kind.__mro__ if not _came_by_value(each))
    hook = vars(with_hook).get("__init_subclass__") if with_hook is not None else None
    try:
        if with_hook is not None:
            type.__setattr__(with_hook, "__init_subclass__", classmethod(_skip_hook))
        made = maker.__new__(kind, name, resolved, body)
    finally:
        if with_hook is not None:
            type.__setattr__(with_hook, "__init_subclass__", hook)
    return internals._lookup_class_or_track(tracker, made)  # type: ignore[no-any-return]


def fill_enum(kind: Any, state: tuple[Any, dict[str, dict[str, Any]]]) -> None:
    """Give an Enum its contents, and its members the attributes that their own __init__ gave them in the host."""
    held, attributes = state
    internals._class_setstate(kind, held)
    for name, values in attributes.items():
        vars(kind[name]).update(values)


def _skip_hook(_kind: type, /, **_keywords: Any) -> None:
    """Take the place of a hook while its subclass is made for the second time."""


def _first_with_hook(bases: Sequence[type]) -> type | None:
    """Return the class whose `__init_subclass__` would be called, if that hook is the user's own."""
    for base in bases:
        for each in base.__mro__:
            if "__init_subclass__" in vars(each):
                if _came_by_value(each):
                    return each
                break
    return None


def _came_by_value(kind: type) -> bool:
    """Return whether a class came by value."""
    return kind in internals._DYNAMIC_CLASS_TRACKER_BY_CLASS
