"""Pickles of plain functions, made once and used as long as they hold. In the host; `naming` asks, on any thread.

A script submits the same function again and again, and its code is most of what there is to pickle. Nothing is taken
for granted: the parts of the function that may change are compared each time, and what its globals are now is none
of its pickle.
"""

from __future__ import annotations

import sys
import weakref
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cloudpickle import cloudpickle as internals

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
        "_loaded",
        "_modules",
        "_names",
        "_others",
        "data",
        "key",
    )

    def __init__(self, key: Key, function: Any, data: bytes, used: Uses) -> None:
        self.key = key
        self.data = data
        self._code = function.__code__
        self._defaults = function.__defaults__
        self._doc = function.__doc__
        self._annotations = dict(function.__annotations__)
        self._names = tuple((key[0], name) for name in internals._extract_code_globals(self._code))
        self._others = tuple(each for each in used if each not in self._names)
        # Which of their submodules are sent along depends on what is loaded.
        self._modules = self._note(function.__globals__, {})
        self._loaded = len(sys.modules)

    def note_uses(self, function: Any, used: Uses) -> bool:
        """Note which names the function uses now; return False if the pickle does not hold any more."""
        if (
            function.__code__ is not self._code
            or function.__defaults__ is not self._defaults
            or function.__doc__ is not self._doc
            or function.__kwdefaults__
            or function.__dict__
            or function.__annotations__ != self._annotations
        ):
            return False
        modules = self._note(function.__globals__, used)
        for key in self._others:
            used[key] = function.__globals__
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


def remember(key: Key, function: Any, data: bytes, used: Uses) -> Definition | None:
    """Keep a function's pickle, which used these names, unless something in the function could change unseen."""
    if (
        function.__closure__ is not None
        or function.__kwdefaults__
        or function.__dict__
        or not all(type(value) in _CONSTANT for value in function.__defaults__ or ())
        or not all(value is None or isinstance(value, str | type) for value in function.__annotations__.values())
        or not all(names is function.__globals__ for names in used.values())
    ):
        return None
    known = _known[function] = Definition(key, function, data, used)
    return known
