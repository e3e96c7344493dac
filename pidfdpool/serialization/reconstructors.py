"""Makes again what `reducers` has taken apart: the functions that its pickles name.

On the thread that unpickles: a worker's only one, or in the host whichever takes a result. Holds no state but what
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


def make_code_with_source(source: str, *fields: Any) -> types.CodeType:
    """Return code whose source is no file, and have tracebacks find that under the code's file name."""
    code = types.CodeType(*fields)
    name = code.co_filename
    if name not in linecache.cache:
        lines = source.splitlines(keepends=True)
        linecache.cache[name] = (len(source), None, lines, name)  # None: there is no file to compare it with
    return code


def make_forward_reference(
    text: str, module_name: str | None, owner: Any, is_class: bool, names: Mapping[str, Any] | None
) -> Any:
    """Return an annotation that could not be evaluated yet. home: the module in which it is to be."""
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

    is_attribute: it is the last part of the name that is wanted, and not the package that the name begins with.
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
    """Return a TypeVar or its like: the one that is there already, if it has come before."""
    made: Any = kind(*arguments, **details)
    made.__module__ = module
    return internals._lookup_class_or_track(tracker, made)


def make_new_type(name: str, module: str, supertype: Any, tracker: str) -> Any:
    """Return a NewType: the one that is there already, if it has come before."""
    make: Any = typing.NewType
    made = make(name, supertype)
    made.__module__ = module
    return internals._lookup_class_or_track(tracker, made)


def get_logger(name: str) -> logging.Logger:
    """Return the logger of this name: the script's own is called as the script is here."""
    first, dot, rest = name.partition(".")
    if first == "__main__":
        first = vars(sys.modules["__main__"]).get("__name__", first)
    return logging.getLogger(first + dot + rest)


def make_cached_property(function: Any, name: str | None) -> Any:
    """Return what functools.cached_property makes of a function in a class."""
    made: Any = functools.cached_property(function)
    made.attrname = name
    return made


def make_partial_method(function: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """Return a functools.partialmethod."""
    return functools.partialmethod(function, *arguments, **keywords)


def make_type_alias(key: Key, parameters: tuple[Any, ...], value: bytes) -> Any:
    """Return what the statement `type X = ...` makes. value: the pickle of what it stands for, loaded when asked for.

    An alias may stand for something that it is part of.
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
    """Return what has this dotted name in an object."""
    for name in path.split("."):
        owner = getattr(owner, name)
    return owner


def make_class(
    kind: type, name: str, bases: tuple[Any, ...], names: dict[str, Any], tracker: str, extra: Any
) -> type:
    """Return a class that has come by value, without what it holds; the one that is there, if it has come before.

    What the user's own metaclass or `__init_subclass__` does to a new class was done in the host: it is in what the
    class holds, and in what the names of the script stand for. To do it again would fill a registry twice, or use
    names that have not come yet, or miss the keywords that the class statement had.
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


def _skip_hook(_kind: type, /, **_keywords: Any) -> None:
    """Stand in for the hook of a class whose subclass is made for the second time."""


def _first_with_hook(bases: Sequence[type]) -> type | None:
    """Return the class whose `__init_subclass__` would be called, if that is the user's own."""
    for base in bases:
        for each in base.__mro__:
            if "__init_subclass__" in vars(each):
                if _came_by_value(each):
                    return each
                break
    return None


def _came_by_value(kind: type) -> bool:
    """Return whether a class has come by value."""
    return kind in internals._DYNAMIC_CLASS_TRACKER_BY_CLASS
