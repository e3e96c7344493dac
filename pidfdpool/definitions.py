"""Pickles of plain functions, made once and used as long as they hold. In the host; `naming` asks, on any thread.

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

from pidfdpool import reducing

if TYPE_CHECKING:
    from pidfdpool.namespaces import Key
    from pidfdpool.naming import Uses

_CONSTANT = frozenset({int, float, complex, bool, str, bytes, type(None)})


class Definition:
    """The pickle of one function."""

    __slots__ = (
        "_annotations",
        "_code",
        "_defaults",
        "_doc",
        "_hints",
        "_loaded",
        "_modules",
        "_names",
        "_others",
        "asks_for_main",
        "data",
        "key",
    )

    def __init__(self, key: Key, function: Any, data: bytes, used: Uses, hints: Uses) -> None:
        self.key = key
        self.data = data
        self._code = function.__code__
        self._defaults = function.__defaults__
        self._doc = function.__doc__
        self._annotations = _annotations_of(function)
        self._names = tuple((key[0], name) for name in internals._extract_code_globals(self._code))
        self._others = tuple(each for each in used if each not in self._names)
        self._hints = tuple(hints)
        self.asks_for_main = reducing.asks_for_main(self._code)
        # Which of their submodules are sent along depends on what is loaded.
        self._modules = self._note(function.__globals__, {})
        self._loaded = len(sys.modules)

    def note_uses(self, function: Any, used: Uses, hints: Uses) -> bool:
        """Note which names the function uses now; return False if the pickle does not hold any more."""
        if (
            function.__code__ is not self._code
            or function.__defaults__ is not self._defaults
            or function.__doc__ is not self._doc
            or function.__kwdefaults__
            or function.__dict__
            or _annotations_of(function) != self._annotations
        ):
            return False
        modules = self._note(function.__globals__, used)
        for key in self._others:
            used[key] = function.__globals__
        for key in self._hints:
            hints[key] = function.__globals__
        return not (modules or self._modules) or (modules == self._modules and len(sys.modules) == self._loaded)

    def _note(self, names: dict[str, Any], used: Uses) -> list[ModuleType]:
        modules = []
        for key in self._names:
            if key[1] in names:
                used[key] = names
                value = names.get(key[1])
                if isinstance(value, ModuleType):
                    modules.append(value)
        return modules


_known: weakref.WeakKeyDictionary[Any, Definition] = weakref.WeakKeyDictionary()
get = _known.get


def remember(key: Key, function: Any, data: bytes, used: Uses, hints: Uses) -> Definition | None:
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
    known = _known[function] = Definition(key, function, data, used, hints)
    return known


def _annotations_of(function: Any) -> Any:
    """Return what a function's annotations are made of: a function (Python 3.14), or themselves."""
    annotate = getattr(function, "__annotate__", None)
    return annotate if annotate is not None else dict(function.__annotations__)
