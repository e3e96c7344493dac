"""Dataclasses that cost almost nothing until they are used.

`dataclasses` generates and compiles several functions for every class, and loads `inspect` for that. This took a
third of the time in which the pool is imported, which has dozens of small classes for events and actions. Here the
constructor alone is compiled, and only for classes of which several objects are made: to compile one takes 0.1 ms,
and many classes have one object in each start of a pool.

The classes are dataclasses for everybody else, too: `dataclasses.fields`, `asdict`, `replace` and the like work. Type
checkers see the real decorator. Pure; any thread.
"""

from __future__ import annotations

import sys
from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
else:

    def field(*, default_factory: Callable[[], Any] | None = None, init: bool = True) -> object:
        """Describe a field whose default is made for each object, or with init=False one that __post_init__ sets.

        The latter is not a field for `dataclasses`.
        """
        return _DefaultFactory(default_factory) if init else _DERIVED

    def dataclass(*, slots: bool, frozen: bool = False, eq: bool = True) -> Callable[[type], type]:
        """Make a dataclass, as `dataclasses.dataclass` does. Only for classes with slots and without base classes."""
        assert slots

        def make(plain: type) -> type:
            namespace = dict(plain.__dict__)
            slots = tuple(plain.__annotations__)
            defaults = {name: namespace.pop(name) for name in slots if name in namespace}
            names = tuple(name for name in slots if defaults.get(name) is not _DERIVED)
            for name in ("__dict__", "__weakref__"):
                namespace.pop(name, None)
            namespace |= {
                "__slots__": slots,
                "__match_args__": names,
                "__dataclass_fields__": _Fields(),
                "_defaults": defaults,
                "__init__": _Constructor(),
                "__repr__": _repr,
            }
            if eq:
                namespace |= {"__eq__": _eq, "__hash__": _hash if frozen else None}
            if frozen:
                namespace |= {"__setattr__": _reject_change, "__delattr__": _reject_change, "__reduce__": _reduce}
            return type(plain.__name__, (), namespace)

        return make


_DERIVED = object()  # takes the place of the default of a field that __post_init__ sets


class _DefaultFactory:
    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


def replace(record: Any, **changes: Any) -> Any:
    """Return a copy with other values of some fields, as `dataclasses.replace`."""
    return type(record)(**{name: getattr(record, name) for name in record.__match_args__} | changes)


class _Fields:
    """The fields as `dataclasses` describes them, made at the first access."""

    def __get__(self, _record: Any, kind: type[Any]) -> Any:
        import dataclasses

        annotations = {name: kind.__annotations__[name] for name in kind.__match_args__}
        annotated = {"__annotations__": annotations, "__module__": kind.__module__}
        defaults = {
            name: dataclasses.field(default_factory=value.make) if isinstance(value, _DefaultFactory) else value
            for name, value in kind._defaults.items()
            if value is not _DERIVED
        }
        shadow: Any = dataclasses.dataclass(type(kind.__name__, (), annotated | defaults))
        kind.__dataclass_fields__ = shadow.__dataclass_fields__
        return kind.__dataclass_fields__


class _Constructor:
    """Takes the place of `__init__` for the first objects, until there are more or its signature is asked for."""

    def __init__(self) -> None:
        self._left = _NOT_COMPILED

    def __get__(self, record: Any, kind: type[Any]) -> Any:
        if isinstance(record, type):  # `inspect` passes the class as if it were an object
            kind = record
        elif record is not None and self._left > 0:
            self._left -= 1
            return MethodType(_fill, record)
        kind.__init__ = _constructor(kind)
        return kind.__init__ if record is None else MethodType(kind.__init__, record)


class _FactoryMark:
    """Takes the place of a default that is made for each object."""

    def __repr__(self) -> str:
        return "<factory>"


def _fill(record: Any, /, *values: Any, **named: Any) -> None:
    """Set the fields of a new object, as a compiled constructor does, which takes longer to make than to run this."""
    kind = type(record)
    names = kind.__match_args__
    given = dict(zip(names, values, strict=False))
    if len(values) > len(names) or given.keys() & named.keys() or not named.keys() <= set(names):
        return _constructor(kind)(record, *values, **named)  # type: ignore[no-any-return]  # it raises the error
    given |= named
    for name in names:
        if name in given:
            value = given[name]
        elif name not in kind._defaults:
            return _constructor(kind)(record, *values, **named)  # type: ignore[no-any-return]
        else:
            value = kind._defaults[name]
            if isinstance(value, _DefaultFactory):
                value = value.make()
        getattr(kind, name).__set__(record, value)
    if hasattr(kind, "__post_init__"):
        record.__post_init__()
    return None


_NOT_COMPILED = 3  # objects of a class that are made before its constructor is compiled
_MISSING = _FactoryMark()
_PUNCTUATION = str.maketrans("[]|,.()", "       ")


def _constructor(kind: type[Any]) -> Any:
    """Return the function that sets the fields, by the slots' descriptors, which work for frozen classes, too."""
    annotations = {name: kind.__annotations__[name] for name in kind.__match_args__}
    of_module = getattr(sys.modules.get(kind.__module__), "__dict__", {})
    # The globals of the function: the names in the annotations, for `typing.get_type_hints`, and those that its code
    # uses. With these in a closure, and the module's globals, an object with seven fields took 40 ns (8 %) longer.
    words = " ".join(map(str, annotations.values())).translate(_PUNCTUATION).split()
    known: dict[str, Any] = {word: of_module[word] for word in words if word in of_module}
    parameters, body = [], []
    for name in kind.__match_args__:
        known[f"_set_{name}"] = getattr(kind, name).__set__
        value = name
        if name not in kind._defaults:
            parameters.append(name)
        elif isinstance(kind._defaults[name], _DefaultFactory):
            known[f"_make_{name}"] = kind._defaults[name].make
            known["_missing"] = _MISSING
            parameters.append(f"{name}=_missing")
            value = f"_make_{name}() if {name} is _missing else {name}"
        else:
            known[f"_default_{name}"] = kind._defaults[name]
            parameters.append(f"{name}=_default_{name}")
        body.append(f"    _set_{name}(self, {value})\n")
    if hasattr(kind, "__post_init__"):
        body.append("    self.__post_init__()\n")
    source = f"def __init__({', '.join(['self', *parameters])}):\n{''.join(body) or '    pass'}"
    # Compiled first: exec() of a text makes CPython forget that it is about to end by Ctrl-C (pythonrun.c,
    # run_eval_code_obj), and some classes get their first object when a program ends.
    exec(compile(source, f"<{kind.__qualname__}.__init__>", "exec"), known)
    init = known["__init__"]
    init.__qualname__ = f"{kind.__qualname__}.__init__"
    init.__module__ = kind.__module__
    init.__annotations__ = annotations | {"return": None}
    return init


def _values(record: Any) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name in record.__match_args__)


def _eq(self: Any, other: object) -> Any:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _repr(self: Any) -> str:
    return (
        f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__match_args__)})"
    )


def _reduce(self: Any) -> tuple[Any, ...]:
    return _rebuilt, (type(self), _values(self))


def _rebuilt(kind: type[Any], values: tuple[Any, ...]) -> Any:
    """Return the object that was pickled or copied."""
    record: Any = object.__new__(kind)
    for name, value in zip(kind.__match_args__, values, strict=True):
        getattr(kind, name).__set__(record, value)
    if hasattr(kind, "__post_init__"):
        record.__post_init__()  # sets the fields with init=False
    return record


def _reject_change(self: Any, name: str, *_value: Any) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot change {name!r}: {type(self).__name__} is frozen")
