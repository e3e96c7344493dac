"""Frozen dataclasses that cost nothing until they are used.

`dataclasses` writes and compiles several functions for every class, and loads `inspect` for that: a third of what it
takes to import a pool, which has dozens of small classes for what happens and what is to be done. Here a class gets
its slots at once, and its constructor, which is all of it that is called often, at its first object.

What comes out is a dataclass for everybody else, too: `dataclasses.fields`, `asdict`, `replace` and the like work.
Type checkers see the real thing. Pure; any thread.
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
        """Describe a field whose default is made anew for each object, or one that is derived from the others.

        The latter is set by __post_init__, and is no field for `dataclasses`.
        """
        return _Made(default_factory) if init else _DERIVED

    def dataclass(*, slots: bool, frozen: bool = False, eq: bool = True) -> Callable[[type], type]:
        """Do as `dataclasses.dataclass`, for classes with slots that inherit nothing."""
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
                namespace |= {"__setattr__": _refuse, "__delattr__": _refuse, "__reduce__": _reduce}
            return type(plain.__name__, (), namespace)

        return make


_DERIVED = object()  # in the place of a default


class _Made:
    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


def replace(record: Any, **changes: Any) -> Any:
    """Return a copy in which some fields have other values. As `dataclasses.replace`."""
    return type(record)(**{name: getattr(record, name) for name in record.__match_args__} | changes)


class _Fields:
    """The fields as `dataclasses` describes them, made when somebody asks."""

    def __get__(self, _record: Any, kind: type[Any]) -> Any:
        import dataclasses

        annotations = {name: kind.__annotations__[name] for name in kind.__match_args__}
        annotated = {"__annotations__": annotations, "__module__": kind.__module__}
        defaults = {
            name: dataclasses.field(default_factory=value.make) if isinstance(value, _Made) else value
            for name, value in kind._defaults.items()
            if value is not _DERIVED
        }
        shadow: Any = dataclasses.dataclass(type(kind.__name__, (), annotated | defaults))
        kind.__dataclass_fields__ = shadow.__dataclass_fields__
        return kind.__dataclass_fields__


class _Constructor:
    """Stands for __init__, and is replaced by it when somebody asks: the first object, or who reads its signature."""

    def __get__(self, record: Any, kind: type[Any]) -> Any:
        if isinstance(record, type):  # `inspect` looks the class itself up, as if it were an object
            kind = record
        kind.__init__ = _constructor(kind)
        return kind.__init__ if record is None else MethodType(kind.__init__, record)


class _Factory:
    """Stands for a default that is made anew for each object."""

    def __repr__(self) -> str:
        return "<factory>"


_FACTORY = _Factory()
_NO_WORDS = str.maketrans("[]|,.()", "       ")


def _constructor(kind: type[Any]) -> Any:
    """Return the function that sets the fields. By the slots' own descriptors, which a frozen class still obeys."""
    annotations = {name: kind.__annotations__[name] for name in kind.__match_args__}
    of_module = getattr(sys.modules.get(kind.__module__), "__dict__", {})
    # The names of the annotations, for `typing.get_type_hints`, and what the function itself uses. As its globals,
    # not as its closure, and not the module's: an object with seven fields took 40 ns (8 %) longer.
    words = " ".join(map(str, annotations.values())).translate(_NO_WORDS).split()
    known: dict[str, Any] = {word: of_module[word] for word in words if word in of_module}
    parameters, body = [], []
    for name in kind.__match_args__:
        known[f"_set_{name}"] = getattr(kind, name).__set__
        value = name
        if name not in kind._defaults:
            parameters.append(name)
        elif isinstance(kind._defaults[name], _Made):
            known[f"_make_{name}"] = kind._defaults[name].make
            known["_missing"] = _FACTORY
            parameters.append(f"{name}=_missing")
            value = f"_make_{name}() if {name} is _missing else {name}"
        else:
            known[f"_default_{name}"] = kind._defaults[name]
            parameters.append(f"{name}=_default_{name}")
        body.append(f"    _set_{name}(self, {value})\n")
    if hasattr(kind, "__post_init__"):
        body.append("    self.__post_init__()\n")
    source = f"def __init__({', '.join(['self', *parameters])}):\n{''.join(body) or '    pass'}"
    # Compiled apart: text that is run makes CPython forget that it is about to end by Ctrl-C (pythonrun.c,
    # run_eval_code_obj), and some classes have their first object at a program's end.
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
    """Return what was pickled or copied."""
    record: Any = object.__new__(kind)
    for name, value in zip(kind.__match_args__, values, strict=True):
        getattr(kind, name).__set__(record, value)
    if hasattr(kind, "__post_init__"):
        record.__post_init__()  # which sets what is derived
    return record


def _refuse(self: Any, name: str, *_value: Any) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot change {name!r}: {type(self).__name__} is frozen")
