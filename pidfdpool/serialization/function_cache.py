"""Keeps the pickles of plain functions for as long as the functions do not change.

In the host; `script_calls` asks, on any thread. A script submits the same function again and again, and the code is
most of what has to be pickled. The parts of a function that may change are compared at each use. The values of its
globals are not part of its pickle.
"""

from __future__ import annotations

import sys
import weakref
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from cloudpickle import cloudpickle as internals

from pidfdpool.serialization import reducers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Final

    from pidfdpool.serialization.by_value import Uses
    from pidfdpool.serialization.namespaces import Key

_MISSING = object()
_CONSTANT = frozenset({int, float, complex, bool, str, bytes, type(None)})


class CachedFunction:
    """The pickle of one function, and what it depends on."""

    __slots__ = (
        "__weakref__",
        "_annotations",
        "_code",
        "_defaults",
        "_doc",
        "_hints",
        "_module_count",
        "_modules",
        "_names",
        "_other_uses",
        "bundle",
        "data",
        "key",
        "looks_up_main",
    )

    def __init__(self, key: Key, function: Any, data: bytes, used: Uses, hints: Uses) -> None:
        self.key: Key = key
        self.data: bytes = data
        self.bundle: GlobalsBundle | None = None
        self._code = function.__code__
        self._defaults = function.__defaults__
        self._doc = function.__doc__
        self._annotations = _annotations_of(function)
        self._names = tuple((key[0], name) for name in internals._extract_code_globals(self._code))
        self._other_uses = tuple(each for each in used if each not in self._names)
        self._hints = tuple(hints)
        self.looks_up_main: bool = reducers.looks_up_main(self._code)
        # Which submodules of these modules are sent along depends on which modules are loaded.
        self._modules = self._record_globals(function.__globals__, {})
        self._module_count = len(sys.modules)

    def is_valid(self, function: Any) -> bool:
        """Return whether the pickle is still that of the function."""
        return self._matches(function) and (not self._modules or len(sys.modules) == self._module_count)

    def _matches(self, function: Any) -> bool:
        return (
            function.__code__ is self._code
            and function.__defaults__ is self._defaults
            and function.__doc__ is self._doc
            and not function.__kwdefaults__
            and not function.__dict__
            and _annotations_of(function) == self._annotations
        )

    @property
    def names(self) -> Iterator[str]:
        """The globals that the code mentions, whether they exist or not."""
        return (name for _, name in self._names)

    def record_uses(self, function: Any, used: Uses, hints: Uses) -> bool:
        """Record the names that the function uses now; return False if the pickle is no longer valid."""
        if not self._matches(function):
            return False
        modules = self._record_globals(function.__globals__, used)
        for key in self._other_uses:
            used[key] = function.__globals__
        for key in self._hints:
            hints[key] = function.__globals__
        return not (modules or self._modules) or (modules == self._modules and len(sys.modules) == self._module_count)

    def _record_globals(self, names: dict[str, Any], used: Uses) -> list[ModuleType]:
        modules = []
        for key in self._names:
            if key[1] in names:
                used[key] = names
                value = names.get(key[1])
                if isinstance(value, ModuleType):
                    modules.append(value)
        return modules


class GlobalsBundle:
    """The pickle of all names that a function can reach, with their values; valid until one of them changes.

    That is possible only for values that cannot change in place: numbers, text, modules, and functions whose pickle
    is known. The functions are not kept alive, nor are the globals and the functions' pickles. Functions that call
    each other are in each other's bundles, and would be kept until the garbage collector runs.
    """

    __slots__ = ("_functions", "_values", "data", "needs_script")

    def __init__(self, root: Any, names: Sequence[str], data: bytes, needs_script: bool) -> None:
        """names: all names that are reached, including `root`; `_is_comparable` is true of each value.

        data: the pickle of their values.
        """
        self.data: bytes = data
        self.needs_script: bool = needs_script
        self._functions: list[tuple[str, weakref.ref[Any], weakref.ref[CachedFunction]]] = []
        self._values: list[tuple[str, Any]] = []
        values = root.__globals__
        absent: set[str] = set()
        for name in names:
            value = values[name]
            if type(value) is FunctionType:
                self._functions.append((name, weakref.ref(value), weakref.ref(_known[value])))
                absent.update(_known[value].names)
            else:
                self._values.append((name, value))
        self._values += [(name, _MISSING) for name in absent if name not in values]

    def is_valid(self, names: dict[str, Any]) -> bool:
        """Return whether each name still has the same value."""
        for name, value in self._values:
            if names.get(name, _MISSING) is not value:
                return False
        for name, reference, described in self._functions:
            function, definition = names.get(name), described()
            if (
                function is not reference()
                or function is None
                or definition is None
                or not definition.is_valid(function)
            ):
                return False
        return True


def _is_comparable(value: Any) -> bool:
    """Return whether a change of the value can be noticed: it is immutable, or its cached pickle shows the change."""
    kind = type(value)
    return kind in _CONSTANT or kind is ModuleType or (kind is FunctionType and value in _known)


_known: weakref.WeakKeyDictionary[Any, CachedFunction] = weakref.WeakKeyDictionary()
get: Final = _known.get


def remember(key: Key, function: Any, data: bytes, used: Uses, hints: Uses) -> CachedFunction | None:
    """Keep a function's pickle, which uses these names, unless a part of the function could change unnoticed."""
    annotations = _annotations_of(function)
    if (
        function.__closure__ is not None
        or function.__kwdefaults__
        or function.__dict__
        or not all(type(value) in _CONSTANT for value in function.__defaults__ or ())
        or not (
            annotations is None
            or isinstance(annotations, FunctionType)
            or all(value is None or isinstance(value, str | type) for value in annotations.values())
        )
        or not all(names is function.__globals__ for names in (*used.values(), *hints.values()))
    ):
        return None
    known = _known[function] = CachedFunction(key, function, data, used, hints)
    return known


def bundle_of(root: Any) -> GlobalsBundle | None:
    """Return the bundle of a function, if everything in it is unchanged."""
    known = _known.get(root)
    bundle = None if known is None else known.bundle
    return bundle if bundle is not None and bundle.is_valid(root.__globals__) else None


def remember_bundle(root: Any, used: Uses, data: bytes, needs_script: bool) -> None:
    """Keep the pickle of all that a function can reach, if a change of any of it can be noticed."""
    known = _known.get(root)
    names = root.__globals__
    if known is None or not all(
        found is names and name in names and _is_comparable(names[name]) for (_, name), found in used.items()
    ):
        return
    known.bundle = GlobalsBundle(root, [name for _, name in used], data, needs_script)


def _annotations_of(function: Any) -> Any:
    """Return what a function's annotations are made of: a function (Python 3.14), or the annotations themselves."""
    annotate = getattr(function, "__annotate__", None)
    return annotate if annotate is not None else dict(function.__annotations__)
