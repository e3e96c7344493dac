"""Payloads of calls by value: the call itself, and a value for each name of a script that it comes to use.

In the host, on the submitting thread; `payload` calls it for what cannot travel by reference. `namespaces` is the
other side, in the worker.

The values of all names that a call can reach are found one after the other, each is pickled for itself, and the
worker can tell which of them have changed since it last got them. Values that share an object which could be changed
are pickled together, because they are to share it in the worker, too.

A value that cannot be pickled is left out. Where the script can be run again, the worker has it from there (see
`script_module`), and the payload says that it needs that. Elsewhere something stands in its place that raises when a
task uses it. Only what the call itself consists of has to travel.
"""

from __future__ import annotations

import io
import pickle
import re
import sys
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from cloudpickle import cloudpickle as internals

from pidfdpool.serialization import (
    by_value,
    class_reducers,
    definitions,
    function_cache,
    namespaces,
    omitted_globals,
    picklers,
    scripts,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from pidfdpool.serialization.by_value import BufferCallback, Uses
    from pidfdpool.serialization.namespaces import Entry, Key
    from pidfdpool.serialization.picklers import ResourceReducers

_SCALARS = frozenset({int, float, complex, bool, str, bytes, type(None), type(Ellipsis)})
_CONTAINERS = frozenset({list, dict, set, frozenset, tuple, bytearray})
_MAX_PLAIN_ITEMS = 50  # with more in it, there is no time to be gained
_MISSING = object()
_FUNCTION_PATH = re.compile(rb"__main__[:.]\w")  # as text: "__main__:work" is how schedulers store a function


def dumps(value: object, resources: ResourceReducers | None, buffer_callback: BufferCallback | None = None) -> bytes:
    """Return the payload of an object.

    once: where reducers come from that share something; without it, they raise.
    leave_out: returns False for a large buffer that is not to be in it; the values of names have theirs in any case.

    Raises:
        Exception: whatever cannot be pickled in the object itself.
    """
    stream = io.BytesIO()
    used: Uses = {}
    hints: Uses = {}
    pickler = by_value.CallPickler(stream, by_value.dispatch_table(resources), used, hints, buffer_callback)
    pickler.dump(value)
    holds_function_path = not used and _FUNCTION_PATH.search(stream.getbuffer()) is not None
    if not (used or hints or pickler.has_module_globals or holds_function_path):
        return stream.getvalue()
    begin = stream.tell()
    root = _only_function(used) if not hints and not pickler.looks_up_main else None
    bundle = None if root is None else function_cache.bundle_of(root)
    if bundle is not None:
        stream.write(bundle.data)
        mark = namespaces.NEEDS_SCRIPT if bundle.needs_script else namespaces.WITH_GLOBALS
        stream.write(namespaces.TRAILER.pack(begin, mark))
        return stream.getvalue()
    reachable = _ReachableGlobals(by_value.dispatch_table(), scripts.current())
    if reachable.can_run_again:
        of_script = pickler.has_module_globals or any(key[0] == "__main__" for key in used)
        reachable.needs_script = (
            holds_function_path or pickler.looks_up_main or (of_script and reachable.script.changes_process)
        )
    data = pickle.dumps(reachable.entries(used, hints, pickler.in_pickle), picklers.PROTOCOL)
    stream.write(data)
    if root is not None and not hints:
        function_cache.remember_bundle(root, used, data, reachable.needs_script)
    stream.write(
        namespaces.TRAILER.pack(begin, namespaces.NEEDS_SCRIPT if reachable.needs_script else namespaces.WITH_GLOBALS)
    )
    return stream.getvalue()


def _only_function(used: Uses) -> Any:
    """Return the function that is all that a call consists of, besides its arguments; None: there is more to it."""
    if len(used) != 1:
        return None
    for (_, name), names in used.items():
        value = names.get(name)
        if type(value) is FunctionType and value.__globals__ is names:
            return value
    return None


class _ModuleReference:
    """Stands for a module, which is imported by its name."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return internals.subimport, (self._name,)


class _PickledValues:
    """The pickle of the values of some names, mostly of one."""

    __slots__ = ("data", "keys", "pickler", "separate_pickles", "values")

    def __init__(
        self, keys: tuple[Key, ...], values: Sequence[Any], data: bytes, pickler: pickle.Pickler | None = None
    ) -> None:
        self.keys = keys
        self.values = values
        self.data = data
        self.separate_pickles: tuple[bytes, ...] = (data,)
        self.pickler = pickler  # None: nothing in there could be changed by whoever shares it


class _ReachableGlobals:
    """The names that one call can reach, and their values."""

    __slots__ = ("_large", "_parts", "_table", "_uses", "can_run_again", "needs_script", "script")

    def __init__(self, table: Mapping[Any, Any], script: scripts.Script) -> None:
        self._table = table
        self.script = script
        self.can_run_again = script.can_run_again
        self.needs_script = False
        self._parts: dict[Key, _PickledValues] = {}
        self._uses: dict[Key, Uses] = {}  # by the name whose value uses them
        self._large: list[tuple[Key, int]] = []  # names whose values are large, and how many bytes these have

    def entries(self, used: Uses, hints: Uses, call_names: Collection[Key]) -> list[Entry]:
        """Return names and their values; these use more names, and so on.

        own: those of which the call itself consists, so that it is no use to send it without them.
        """
        parts = self._parts
        self._pickle_reachable(used, hints, call_names)
        if hints:
            # What only annotations mention comes last: nothing fails or is run again for the sake of it.
            self._pickle_reachable(
                {key: names for key, names in hints.items() if key not in used}, {}, (), only_hinted=True
            )
        for key, size in self._large:
            omitted_globals.warn_about_large(key, size, self._user_of(key))
        ordered = list(parts.values())
        shareable = sum([part.pickler is not None for part in ordered])
        if shareable:
            ordered = [parts[key] for key in _dependencies_first(self._uses)]
        if shareable > 1:
            ordered = _merge_sharing(ordered, self._table)
        return [(part.keys, part.data, part.separate_pickles) for part in ordered]

    def _pickle_reachable(
        self, used: Uses, hints: Uses, call_names: Collection[Key], *, only_hinted: bool = False
    ) -> None:
        """Pickle the values of names, and of those that these use."""
        parts, uses = self._parts, self._uses
        keys = list(used)
        for key in keys:  # which grows meanwhile
            value = used[key].get(key[1], _MISSING)
            if value is _MISSING or key in parts:  # another thread has removed it; or it is there
                continue
            more: Uses = {}
            try:
                parts[key] = self._pickle_global(key, value, more, hints)
            except MemoryError:
                raise
            except Exception as error:
                if not only_hinted:
                    uses[key] = {}
                    parts[key] = self._omitted(key, value, error, in_call=key in call_names)
                continue
            uses[key] = more
            for each, names in more.items():
                if each not in used:
                    used[each] = names
                    keys.append(each)

    def _user_of(self, key: Key) -> str | None:
        """Return who uses a name: the first that was found."""
        return next((user[1] for user, uses in self._uses.items() if key in uses and user != key), None)

    def _omitted(self, key: Key, value: Any, error: Exception, *, in_call: bool) -> _PickledValues:
        """Return what the worker gets in the place of a value. itself: the call consists of that."""
        by_script = self.can_run_again and key[0] == "__main__" and key[1] in self.script.names
        if in_call and not by_script:
            raise error
        self.needs_script = self.needs_script or by_script
        why = omitted_globals.Omission(
            key, omitted_globals.describe_type(value), self._user_of(key), omitted_globals.reason_of(error)
        )
        stand_in = omitted_globals.OmittedValue(key, why.message(None if by_script else self._script_obstacle(key)))
        return _PickledValues((key,), (value,), pickle.dumps([stand_in], picklers.PROTOCOL))

    def _script_obstacle(self, key: Key) -> str | None:
        if key[0] != "__main__":
            return None
        if not self.can_run_again:
            return self.script.obstacle
        return f"nothing outside of the script's guard is called {key[1]}"

    def _pickle_global(self, key: Key, value: Any, used: Uses, hints: Uses) -> _PickledValues:
        kind: Any = type(value)
        if kind in _SCALARS:
            if kind is int and self.can_run_again and key[1] in self.script.process_local:
                raise class_reducers.DeferToScript("its value means something in the host's process only")
            return _PickledValues((key,), (value,), self._checked_size(key, pickle.dumps([value], picklers.PROTOCOL)))
        if kind in _CONTAINERS and len(value) <= _MAX_PLAIN_ITEMS:
            return _pickle_plain_container(key, value) or self._pickle_object(key, value, used, hints)
        if kind is ModuleType and not internals._PICKLE_BY_VALUE_MODULES and value.__name__ in sys.modules:
            self.needs_script = self.needs_script or (value.__name__ == "__main__" and self.can_run_again)
            return _PickledValues(
                (key,), (value,), pickle.dumps([_ModuleReference(value.__name__)], picklers.PROTOCOL)
            )
        if kind is not FunctionType:
            return self._pickle_object(key, value, used, hints)
        known = function_cache.get(value)
        if known is None or known.key != key or not known.record_uses(value, used, hints):
            part = self._pickle_object(key, value, used, hints)
            if definitions.defining_globals(value, key[0]) is not value.__globals__ or value.__qualname__ != key[1]:
                return part
            known = function_cache.remember(key, value, part.data, used, hints)
            if known is None:
                return part
        if known.looks_up_main and self.can_run_again and key[0] == "__main__":
            self.needs_script = True
        return _PickledValues((key,), (value,), known.data)

    def _checked_size(self, key: Key, data: bytes) -> bytes:
        if len(data) >= omitted_globals.LARGE:
            self._large.append((key, len(data)))
        return data

    def _pickle_object(self, key: Key, value: Any, used: Uses, hints: Uses) -> _PickledValues:
        stream = io.BytesIO()
        pickler = by_value.CallPickler(stream, self._table, used, hints)
        pickler.defining = (key,)
        pickler.dump([value])
        if pickler.looks_up_main and self.can_run_again:
            self.needs_script = True
        data = stream.getvalue()
        definitions.record_size(key, value, len(data))
        return _PickledValues((key,), [value], self._checked_size(key, data), pickler)


def _dependencies_first(uses: Mapping[Key, Uses]) -> Iterable[Key]:
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


def _pickle_plain_container(key: Key, value: Any) -> _PickledValues | None:
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
    return _PickledValues((key,), (value,), data, pickler)


def _merge_sharing(parts: Sequence[_PickledValues], table: Mapping[Any, Any]) -> list[_PickledValues]:
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
            if _has_identity(value):
                leader[find(index)] = find(first.setdefault(id(value), index))
    groups: dict[int, list[_PickledValues]] = {}
    for index, part in enumerate(parts):
        groups.setdefault(find(index), []).append(part)
    joined = []
    for group in groups.values():
        if len(group) == 1:
            joined += group
            continue
        keys = tuple(part.keys[0] for part in group)
        stream = io.BytesIO()
        pickler = by_value.CallPickler(stream, table, {}, {})
        pickler.defining = keys
        values = [part.values[0] for part in group]
        pickler.dump(values)
        together = _PickledValues(keys, values, stream.getvalue())
        together.separate_pickles = tuple(part.data for part in group)
        joined.append(together)
    return joined


def _has_identity(value: Any) -> bool:
    """Return whether it makes a difference to have a copy. What has a hash of its own is a value."""
    own_hash: Any = type(value).__hash__
    if own_hash is not None and own_hash is not object.__hash__:
        return False
    return not isinstance(value, FunctionType | ModuleType | type)


def pickle_value(key: Key, value: Any) -> bytes:
    """Return what is told of the value of a name, to see whether it has changed. In a worker.

    Raises:
        Exception: it cannot be pickled.
    """
    return _ReachableGlobals(by_value.dispatch_table(), scripts.current())._pickle_global(key, value, {}, {}).data
