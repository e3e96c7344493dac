"""Finds the names of functions and classes that travel by value, and gives each definition an id.

In the host, for `by_value`, on any thread; a worker calls it for results. A definition has its id as long as it
lives; `kept_definitions` says how long that is at least.
"""

from __future__ import annotations

import functools
import itertools
import pickle
import sys
import weakref
from types import FunctionType
from typing import TYPE_CHECKING, Any

from cloudpickle import cloudpickle as internals

from pidfdpool.serialization import kept_definitions, namespaces

if TYPE_CHECKING:
    from pidfdpool.serialization.namespaces import Key


def canonical_name(module: str) -> str:
    """Return the name of a module in payloads: a script that is run again is still called `__main__`."""
    if module == "__mp_main__" and sys.modules.get(module) is sys.modules.get("__main__"):
        return "__main__"
    return module


def module_of_globals(names: dict[str, Any]) -> str | None:
    """Return the module whose globals these are, if it travels by value."""
    module = names.get("__name__")
    if not isinstance(module, str):
        return None
    module = canonical_name(module)
    if names is namespaces.globals_by_module.get(module):  # this process is a worker that has a pool of its own
        return module
    loaded = sys.modules.get(module)
    return module if getattr(loaded, "__dict__", None) is names and _travels_by_value(loaded, module) else None


def globals_of(module: str) -> dict[str, Any] | None:
    """Return the globals of a module, if it travels by value."""
    module = canonical_name(module)
    loaded = sys.modules.get(module)
    if loaded is not None and _travels_by_value(loaded, module):
        return vars(loaded)
    return namespaces.globals_by_module.get(module)


def key_of(value: Any, module: str) -> Key:
    """Return module and name of a function or class that `defining_globals` has found."""
    return canonical_name(module), value.__qualname__


def _travels_by_value(loaded: Any, module: str) -> bool:
    if module == "__main__":
        return True
    registered = internals._PICKLE_BY_VALUE_MODULES
    return module in registered or (bool(registered) and internals._is_registered_pickle_by_value(loaded))


def defining_globals(value: Any, module: Any) -> dict[str, Any] | None:
    """Return the globals in which this function or class has its own name, if its module travels by value."""
    name = getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    module = canonical_name(module)
    loaded = sys.modules.get(module)
    names: dict[str, Any] | None = getattr(loaded, "__dict__", None)
    if names is not None and names.get(name) is value and _travels_by_value(loaded, module):
        return names
    names = namespaces.globals_by_module.get(module)
    return names if names is not None and names.get(name) is value else None


def defining_class(value: Any, module: Any) -> type | None:
    """Return the class that defines this method or class, if that class has its own name in such a module."""
    name = getattr(value, "__qualname__", None)
    root, _, rest = name.partition(".") if isinstance(name, str) else ("", "", "")
    if not rest or not isinstance(module, str):
        return None
    module = canonical_name(module)
    candidates: list[dict[str, Any]] = [
        getattr(sys.modules.get(module), "__dict__", {}),
        namespaces.globals_by_module.get(module, {}),
    ]
    for names in candidates:
        owner = names.get(root)
        if isinstance(owner, type) and namespaces.class_member(owner, rest) is value:
            return owner if defining_globals(owner, owner.__module__) is names else None
    return None


_next_id = itertools.count(1)
_ids: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_sent: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def id_of(value: Any) -> int:
    """Return the id of a definition, a new one if it has none."""
    number = _ids.get(value)
    if number is None:
        number = _ids.setdefault(value, next(_next_id))
        _sent[number] = value
    return number


def record_size(key: Key, value: Any, size: int) -> None:
    """Record the size of the pickle of a name's value, if the value is a definition."""
    kind = type(value)
    if kind is FunctionType or kind is functools._lru_cache_wrapper or issubclass(kind, type):
        number, names = _ids.get(value), globals_of(key[0])
        if number is not None and names is not None:
            kept_definitions.record(number, key, value, size, names)


def definition_by_id(number: int) -> Any:
    """Return the function or class of this process that was sent under this id. Called by pickles of results."""
    value = _sent.get(number)
    if value is None:
        raise pickle.UnpicklingError(
            "it uses a function or class of the script that the host has since deleted or redefined"
        )
    return value


def name_in_script(value: Any) -> str | None:
    """Return the dotted name of a function or class that this worker has from running the script again."""
    name = getattr(value, "__qualname__", None)
    if getattr(value, "__module__", None) != "__mp_main__" or not isinstance(name, str):
        return None
    loaded: Any = namespaces.globals_by_module.get("__main__", {}).get(name.partition(".")[0])
    for part in name.split(".")[1:]:
        loaded = getattr(loaded, part, None)
    return name if loaded is value else None


def definition_by_name(name: str) -> Any:
    """Return what has this dotted name in this process's script. Called by pickles of results."""
    loaded: Any = sys.modules["__main__"]
    for part in name.split("."):
        loaded = getattr(loaded, part)
    return loaded
