"""Pickles of plain functions, made once and used as long as they hold. In the host; `by_value` asks, on any thread.

A script submits the same function again and again, and its code is most of what there is to pickle. Nothing is taken
for granted: the parts of the function that may change are compared each time, and what its globals are now is none
of its pickle.
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

    from pidfdpool.serialization.by_value import Uses
    from pidfdpool.serialization.namespaces import Key

_MISSING = object()
_CONSTANT = frozenset({int, float, complex, bool, str, bytes, type(None)})


class CachedFunction:
    """The pickle of one function."""

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
        self.key = key
        self.data = data
        self.bundle: GlobalsBundle | None = None
        self._code = function.__code__
        self._defaults = function.__defaults__
        self._doc = function.__doc__
        self._annotations = _annotations_of(function)
        self._names = tuple((key[0], name) for name in internals._extract_code_globals(self._code))
        self._other_uses = tuple(each for each in used if each not in self._names)
        self._hints = tuple(hints)
        self.looks_up_main = reducers.looks_up_main(self._code)
        # Which of their submodules are sent along depends on what is loaded.
        self._modules = self._record_globals(function.__globals__, {})
        self._module_count = len(sys.modules)

    def is_valid(self, function: Any) -> bool:
        """Return whether the pickle is still the function's."""
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
        """The globals that the code mentions, there or not."""
        return (name for _, name in self._names)

    def record_uses(self, function: Any, used: Uses, hints: Uses) -> bool:
        """Note which names the function uses now; return False if the pickle does not hold any more."""
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
    """All names that a function can reach, and their values, as they travel: as long as none of them has changed.

    That is told only of what cannot be changed itself: numbers, text, modules, and functions that hold. Functions
    are not kept alive, nor are the globals, nor their pickles: of functions that call each other each is in the
    bundle of the other, and would be kept until the collector runs.
    """

    __slots__ = ("_functions", "_values", "data", "needs_script")

    def __init__(self, root: Any, names: Sequence[str], data: bytes, needs_script: bool) -> None:
        """names: all that are reached, `root` being one of them; for each `_can_be_told` is true.

        data: the pickle of their values.
        """
        self.data = data
        self.needs_script = needs_script
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
        """Return whether the names still stand for the same."""
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
    """Return whether a value changes only by another one coming in its place, or tells that it has changed."""
    kind = type(value)
    return kind in _CONSTANT or kind is ModuleType or (kind is FunctionType and value in _known)


_known: weakref.WeakKeyDictionary[Any, CachedFunction] = weakref.WeakKeyDictionary()
get = _known.get


def remember(key: Key, function: Any, data: bytes, used: Uses, hints: Uses) -> CachedFunction | None:
    """Keep a function's pickle, which used these names, unless something in the function could change unseen."""
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
    """Return the bundle of a function, if all in it is still as it was."""
    known = _known.get(root)
    bundle = None if known is None else known.bundle
    return bundle if bundle is not None and bundle.is_valid(root.__globals__) else None


def remember_bundle(root: Any, used: Uses, data: bytes, needs_script: bool) -> None:
    """Keep the pickle of all that a function can reach, if it can be told whether any of it has changed."""
    known = _known.get(root)
    names = root.__globals__
    if known is None or not all(
        found is names and name in names and _is_comparable(names[name]) for (_, name), found in used.items()
    ):
        return
    known.bundle = GlobalsBundle(root, [name for _, name in used], data, needs_script)


def _annotations_of(function: Any) -> Any:
    """Return what a function's annotations are made of: a function (Python 3.14), or themselves."""
    annotate = getattr(function, "__annotate__", None)
    return annotate if annotate is not None else dict(function.__annotations__)
