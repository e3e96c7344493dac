"""What a call by value consists of: the call itself, and a value for each name of `__main__` that it comes to use.

In the host, on the submitting thread; `payload` calls it for what cannot travel by reference. `namespaces` is the
other side, in the worker. It imports cloudpickle, and is loaded when first needed for that reason.

A function or class that a module has under its own name is pickled as this name, wherever it turns up, and its
definition is the value of the name. Its globals are names as well: those that its code mentions. So the values of
all names that a call can reach are found one after the other, each is pickled for itself, and the worker can tell
which of them have changed since it last got them. Values that share an object which could be changed are pickled
together, because they are to share it in the worker, too.

This holds for `__main__`, and for modules that are registered with cloudpickle as travelling by value. Functions
whose globals are not those of a module that is loaded (code that was run by `exec`) have globals of their own in
each payload.

A worker answers with the names of functions and classes, too, or rather with a number for each definition that it
got: a result neither carries along the globals of its class's methods, nor makes copies of the host's functions.

What is remembered here is per process, and right after a fork as well. Any thread.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
from types import FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

import cloudpickle
from cloudpickle import cloudpickle as internals

from pidfdpool import definitions, namespaces, origins, picklers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pidfdpool.namespaces import Entry, Key

    LeaveOut = Callable[[pickle.PickleBuffer], bool]
    Uses = dict[Key, dict[str, Any]]  # which names are used, and the globals that they are in

_CACHED = functools._lru_cache_wrapper
_SCALARS = frozenset({int, float, complex, bool, str, bytes, type(None), type(Ellipsis)})
_CONTAINERS = frozenset({list, dict, set, frozenset, tuple, bytearray})
_FEW = 50  # with more in it, there is no time to be gained
_MISSING = object()


# ---- pickling ------------------------------------------------------------------------------------------------


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles names, and notes which."""

    def __init__(
        self, stream: io.BytesIO, table: Mapping[Any, Any], used: Uses, leave_out: LeaveOut | None = None
    ) -> None:
        super().__init__(stream, protocol=picklers.PROTOCOL, buffer_callback=leave_out)
        self.dispatch_table = table
        self.used = used
        self.defining: Sequence[Key] = ()

    def reducer_override(self, value: Any) -> Any:
        """Put names in the place of functions and classes that have one."""
        kind = type(value)
        if kind is not FunctionType and kind is not _CACHED and not issubclass(kind, type):
            return self._reduce_method(value) if kind is MethodType and not self.defining else NotImplemented
        module: Any = getattr(value, "__module__", None)
        if module == internals.__name__ or module == namespaces.__name__:
            return NotImplemented  # they stand for most of what is not the user's; and cloudpickle thinks it over
        origin = None if module == "builtins" else origins.origin_of(value, module)
        if origin is None:
            if kind is _CACHED:
                return _reduce_cached(value)
            if not self.defining:  # but a class may not be there as a whole while another one is rebuilt
                owner = origins.owner_of(value, module)
                if owner is not None:
                    return namespaces.member, (owner, value.__qualname__.partition(".")[2])
            home = origins.home_of(value.__globals__) if kind is FunctionType else None
            return _mended(super().reducer_override(value)) if home is None else self._reduce_at_home(value, home)
        key = module, value.__qualname__
        if key not in self.defining:
            self.used[key] = origin
            return namespaces.named, key
        if kind is FunctionType:
            reduced = self._dynamic_function_reduce(value)
        else:
            reduced = _reduce_cached(value) if kind is _CACHED else _reduce_class(value)
        make, arguments, *rest = reduced
        return namespaces.define, (*key, origins.token_for(key, value), make, *arguments), *rest

    def _reduce_method(self, method: Any) -> Any:
        """Have a method found as pickle itself would do it, in an object of a class that has a name."""
        function = method.__func__
        name = getattr(function, "__name__", "")
        owner = origins.owner_of(function, getattr(function, "__module__", None))
        if owner is None or getattr(method.__self__, name, None) != method:
            return NotImplemented
        return getattr, (method.__self__, name)

    def _dynamic_function_reduce(self, function: Any) -> Any:
        home = origins.home_of(function.__globals__)
        return super()._dynamic_function_reduce(function) if home is None else self._reduce_at_home(function, home)

    def _reduce_at_home(self, function: Any, home: str) -> tuple[Any, ...]:
        """Put the globals' module in the place of what is in them."""
        make, arguments, state, *rest = super()._dynamic_function_reduce(function)
        names, slots = function.__globals__, state[1]
        for name in slots["__globals__"]:
            self.used[home, name] = names
        slots["__globals__"] = {}
        return namespaces.make_function, (home, make, *arguments), state, *rest


def _mended(reduced: Any) -> Any:
    """Return what cloudpickle makes of a class, but with slots that are slots, and the same whenever it is asked.

    Left out is what comes into a class by being looked at: by copyreg, or as its annotations.
    """
    if not isinstance(reduced, tuple) or reduced[-1] is not internals._class_setstate:
        return reduced
    make, arguments, state = reduced[:3]
    names = state[0]
    names.pop("__slotnames__", None)
    if names.get("__annotations__") == {}:
        del names["__annotations__"]
    # Once the class is made it is too late. But typing.NamedTuple, which is no class, has its own way with none.
    bases = arguments[2] if make is internals._make_skeleton_class else ()
    if bases and (names.get("__slots__") or all(isinstance(base, type) for base in bases)) and "__slots__" in names:
        arguments[3]["__slots__"] = names.pop("__slots__")
    return reduced


def _reduce_class(kind: Any) -> tuple[Any, ...]:
    reduced: tuple[Any, ...] = _mended(internals._dynamic_class_reduce(kind))
    if reduced[0] is not internals._make_skeleton_enum:
        return reduced
    # Members are made before there is an __init__ that would give them these.
    attributes = {
        member.name: {name: value for name, value in vars(member).items() if not name.startswith("_")}
        for member in kind
    }
    return *reduced[:2], (reduced[2], attributes), None, None, namespaces.fill_enum


def _reduce_cached(value: Any) -> tuple[Any, ...]:
    parameters = value.cache_parameters()
    return namespaces.cached, (value.__wrapped__, parameters["maxsize"], parameters["typed"])


def dumps(value: object, table: Mapping[Any, Any], leave_out: LeaveOut | None = None) -> bytes:
    """Return the payload of an object.

    table: reducers for the types in it, cloudpickle's own included.
    leave_out: returns False for a large buffer that is not to be in it; the values of names have theirs in any case.

    Raises:
        Exception: whatever cannot be pickled, in the object or under a name that it uses.
    """
    used: Uses = {}
    stream = io.BytesIO()
    _Pickler(stream, table, used, leave_out).dump(value)
    if not used:
        return stream.getvalue()
    entries = _entries(used, table)
    begin = stream.tell()
    pickle.dump(entries, stream, picklers.PROTOCOL)
    stream.write(namespaces.TRAILER.pack(begin, namespaces.MARK))
    return stream.getvalue()


class _Returning(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles by value, but what has come from the host by the number that it has there."""

    def reducer_override(self, value: Any) -> Any:
        """Put numbers in the place of functions and classes that have one."""
        kind = type(value)
        if kind is FunctionType or kind is _CACHED or issubclass(kind, type):
            token = namespaces.token_of(value)
            if token is not None:
                return origins.own, (token,)
        return _mended(super().reducer_override(value))


def dumps_result(value: object, table: Mapping[Any, Any], leave_out: LeaveOut | None = None) -> bytes:
    """Return the payload of what goes from a worker to the host. Otherwise as `dumps`."""
    return _dumped(_Returning, value, table, leave_out)


def dumps_whole(value: object, table: Mapping[Any, Any], leave_out: LeaveOut | None = None) -> bytes:
    """Return the payload of what consists of no names, between a host and what was forked from it."""
    return _dumped(cloudpickle.Pickler, value, table, leave_out)


def _dumped(kind: Any, value: object, table: Mapping[Any, Any], leave_out: LeaveOut | None) -> bytes:
    stream = io.BytesIO()
    pickler = kind(stream, protocol=picklers.PROTOCOL, buffer_callback=leave_out)
    pickler.dispatch_table = table
    pickler.dump(value)
    return stream.getvalue()


# ---- the values of names -------------------------------------------------------------------------------------


class _Module:
    """Stands for a module, which is imported by its name."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return internals.subimport, (self._name,)


class _Part:
    """The pickle of the values of some names, mostly of one."""

    __slots__ = ("alone", "data", "keys", "pickler", "values")

    def __init__(
        self, keys: tuple[Key, ...], values: Sequence[Any], data: bytes, pickler: pickle.Pickler | None = None
    ) -> None:
        self.keys = keys
        self.values = values
        self.data = data
        self.alone: tuple[bytes, ...] = (data,)
        self.pickler = pickler  # None: nothing in there could be changed by whoever shares it


def _entries(used: Uses, table: Mapping[Any, Any]) -> list[Entry]:
    """Return names and their values; these use more names, and so on."""
    parts: dict[Key, _Part] = {}
    uses: dict[Key, Uses] = {}
    shareable = 0
    keys = list(used)
    for key in keys:  # which grows meanwhile
        value = used[key].get(key[1], _MISSING)
        if value is _MISSING:  # another thread has removed it
            continue
        more = uses[key] = {}
        part = parts[key] = _part(key, value, table, more)
        shareable += part.pickler is not None
        for each, names in more.items():
            if each not in used:
                used[each] = names
                keys.append(each)
    ordered = list(parts.values())
    if shareable:
        ordered = [parts[key] for key in _users_last(uses)]
    if shareable > 1:
        ordered = _joined(ordered, table)
    return [(part.keys, part.data, part.alone) for part in ordered]


def _users_last(uses: Mapping[Key, Uses]) -> Iterable[Key]:
    """Return each name after those that its value uses: code may run while it is rebuilt."""
    ordered: dict[Key, None] = {}
    seen: set[Key] = set()
    for first in uses:
        if first in seen:
            continue
        waiting = [(first, iter(uses[first]))]
        while waiting:
            key, rest = waiting[-1]
            seen.add(key)
            following = next((each for each in rest if each not in seen and each in uses), None)
            if following is None:
                ordered[key] = None
                waiting.pop()
            else:
                waiting.append((following, iter(uses[following])))
    return ordered


def _part(key: Key, value: Any, table: Mapping[Any, Any], used: Uses) -> _Part:
    kind: Any = type(value)
    if kind in _SCALARS:
        return _Part((key,), (value,), pickle.dumps([value], picklers.PROTOCOL))
    if kind in _CONTAINERS and len(value) <= _FEW:
        return _plain(key, value) or _pickled((key,), [value], table, used)
    if kind is ModuleType and not internals._PICKLE_BY_VALUE_MODULES and value.__name__ in sys.modules:
        return _Part((key,), (value,), pickle.dumps([_Module(value.__name__)], picklers.PROTOCOL))
    if kind is not FunctionType:
        return _pickled((key,), [value], table, used)
    known = definitions.get(value)
    if known is None or known.key != key or not known.note_uses(value, used):
        part = _pickled((key,), [value], table, used)
        if origins.origin_of(value, key[0]) is not value.__globals__ or (value.__module__, value.__qualname__) != key:
            return part
        known = definitions.remember(key, value, part.data, used)
        if known is None:
            return part
    return _Part((key,), (value,), known.data)


def _plain(key: Key, value: Any) -> _Part | None:
    """Return a list, dictionary or the like that holds nothing but plain data, in a fifth of the time."""
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, picklers.PROTOCOL)
    try:
        pickler.dump([value])
    except Exception:
        return None
    data = stream.getvalue()
    if picklers.STACK_GLOBAL in data:  # or it is some number or text; what was named is in the memo
        memo: Any = pickler.memo.copy()
        if not all(type(held) in _CONTAINERS or type(held) in _SCALARS for _, held in memo.values()):
            return None
    return _Part((key,), (value,), data, pickler)


def _pickled(keys: tuple[Key, ...], values: list[Any], table: Mapping[Any, Any], used: Uses) -> _Part:
    stream = io.BytesIO()
    pickler = _Pickler(stream, table, used)
    pickler.defining = keys
    pickler.dump(values)
    return _Part(keys, values, stream.getvalue(), pickler)


def _joined(parts: Sequence[_Part], table: Mapping[Any, Any]) -> list[_Part]:
    """Pickle together what shares anything."""
    first: dict[int, int] = {}  # in which part an object was seen first
    leader = list(range(len(parts)))  # of the parts that belong together, one

    def find(index: int) -> int:
        while leader[index] != index:
            index = leader[index]
        return index

    for index, part in enumerate(parts):
        memo: Any = {} if part.pickler is None else part.pickler.memo.copy()
        # It holds what has been pickled, so no other object can have come to have its id.
        for _, value in memo.values():
            if _could_be_changed(value):
                leader[find(index)] = find(first.setdefault(id(value), index))
    groups: dict[int, list[_Part]] = {}
    for index, part in enumerate(parts):
        groups.setdefault(find(index), []).append(part)
    joined = []
    for group in groups.values():
        if len(group) == 1:
            joined += group
            continue
        keys = tuple(part.keys[0] for part in group)
        together = _pickled(keys, [part.values[0] for part in group], table, {})
        together.alone = tuple(part.data for part in group)
        joined.append(together)
    return joined


def _could_be_changed(value: Any) -> bool:
    """Return whether it makes a difference to have a copy. What has a hash of its own is a value."""
    own_hash: Any = type(value).__hash__
    if own_hash is not None and own_hash is not object.__hash__:
        return False
    return not isinstance(value, FunctionType | ModuleType | type)
