"""Reduces classes that travel by value: cloudpickle's reductions, with what they lack.

Called by the picklers of `by_value`: in the host on the thread that submits, in a worker for results. No state.
"""

from __future__ import annotations

import _pickle
import sys
from typing import TYPE_CHECKING, Any

from cloudpickle import cloudpickle as internals

from pidfdpool.serialization import definitions, reconstructors, reducers, scripts

if TYPE_CHECKING:
    from pidfdpool.serialization.namespaces import Key


class DeferToScript(Exception):
    """The object could travel by value, but it is better if the script makes it again."""


def has_module_globals(function: Any) -> bool:
    """Return whether a function's globals are those of a module that travels by value."""
    return definitions.module_of_globals(function.__globals__) is not None


def fixed_reduction(reduced: Any, kind: Any) -> Any:
    """Return cloudpickle's reduction of a class, corrected: real slots, and the same bytes at each reduction.

    It leaves out what comes into a class only by being looked at: copyreg's `__slotnames__`, and annotations.
    """
    if not isinstance(reduced, tuple) or reduced[-1] is not internals._class_setstate:
        return reduced
    make, arguments, state = reduced[:3]
    names = state[0]
    names.pop("__slotnames__", None)
    if names.get("__annotations__") == {}:
        del names["__annotations__"]
    if make is internals._make_skeleton_class and kind.__qualname__ != kind.__name__:
        arguments[3]["__qualname__"] = kind.__qualname__
    # Slots have to be there when the class is made. typing.NamedTuple, which is not a class, treats empty slots in
    # its own way.
    bases = arguments[2] if make is internals._make_skeleton_class else ()
    if bases and vars(kind).get("__slots__") == ():
        names["__slots__"] = ()  # left out if a base has the same empty tuple, as all attributes that are inherited
    if bases and (names.get("__slots__") or all(isinstance(base, type) for base in bases)) and "__slots__" in names:
        arguments[3]["__slots__"] = names.pop("__slots__")
    if sys.version_info >= (3, 14):
        _set_annotations(names, kind)
    return reduced


def _set_annotations(names: dict[str, Any], kind: Any) -> None:
    """Put a class's annotations among its contents, in the form in which they travel (Python 3.14)."""
    for name in ("__annotate_func__", "__annotations_cache__", "__classdictcell__"):
        names.pop(name, None)
    held = vars(kind)
    if "__annotations__" not in names and ("__annotate_func__" in held or "__annotations_cache__" in held):
        name, annotations = reducers.annotations_of(kind, has_module_globals)
        if annotations:
            names[name] = annotations


def reduce_class(kind: Any, key: Key) -> tuple[Any, ...]:
    """Reduce a class that is to become the value of a name.

    Raises:
        DeferToScript: making the class again runs code that should run once, and the script can make it.
        pickle.PicklingError: a type of ctypes.
    """
    if type(kind).__module__ == "_ctypes":
        raise _pickle.PicklingError(f"{kind.__qualname__} is a ctypes type, which cannot be pickled by value")
    script = scripts.current()
    if script.can_run_again and key[1] in script.names and _has_class_hooks(kind):
        raise DeferToScript("a metaclass or an __init_subclass__ takes part in making it")
    reduced = fixed_reduction(internals._dynamic_class_reduce(kind), kind)
    if reduced[0] is internals._make_skeleton_class:
        return reconstructors.make_class, *reduced[1:]
    # The members are made before there is an __init__ that would give them these attributes.
    attributes = {
        member.name: {name: value for name, value in vars(member).items() if not name.startswith("_")}
        for member in kind
    }
    return *reduced[:2], (reduced[2], attributes), None, None, reconstructors.fill_enum


def _has_class_hooks(kind: type) -> bool:
    """Return whether code outside the standard library runs when such a class is made."""
    makers = [type(kind)]
    makers += [base for base in kind.__mro__[1:] if "__init_subclass__" in vars(base)]
    return any(maker.__module__.partition(".")[0] not in sys.stdlib_module_names for maker in makers)
