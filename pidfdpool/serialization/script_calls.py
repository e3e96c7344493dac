"""Makes payloads of calls by value: the call itself, and a value for each name of a script that it can reach.

In the host, on the thread that submits; `payload` calls it for what cannot travel by reference. `namespaces` does the
reverse in the worker.

The values of all names that a call can reach are found one after the other. Each is pickled by itself, so that the
worker can tell which of them have changed since it last got them. Values that share a mutable object are pickled
together, because they have to share it in the worker, too.

A value that cannot be pickled is omitted. If the script can be run again, the worker gets the value that way (see
`worker.script_module`), and the payload says that it needs this. Otherwise a placeholder takes its place, which
raises when a task uses it. Only the parts of the call itself have to be picklable.
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
_MAX_PLAIN_ITEMS = 50  # items; with more of them trying to avoid a full pickler gains nothing
_MISSING = object()
_FUNCTION_PATH = re.compile(rb"__main__[:.]\w")  # "__main__:work" is how schedulers store a function as text


def dumps(value: object, resources: ResourceReducers | None, buffer_callback: BufferCallback | None = None) -> bytes:
    """Return the payload of an object.

    resources: takes the place of reducers that share a resource. Without it, these raise SharesResource.
    buffer_callback: returns False for a large buffer that stays out of the pickle. The values of names keep theirs.

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
        uses_script = pickler.has_module_globals or any(key[0] == "__main__" for key in used)
        reachable.needs_script = (
            holds_function_path or pickler.looks_up_main or (uses_script and reachable.script.changes_process)
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
    """Return the function if it is all that a call uses besides its arguments; None: the call uses more."""
    if len(used) != 1:
        return None
    for (_, name), names in used.items():
        value = names.get(name)
        if type(value) is FunctionType and value.__globals__ is names:
            return value
    return None


class _ModuleReference:
    """Takes the place of a module, which is imported by its name."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return internals.subimport, (self._name,)


class _PickledValues:
    """The pickle of the values of some names, in most cases of one."""

    __slots__ = ("data", "keys", "pickler", "separate_pickles", "values")

    def __init__(
        self, keys: tuple[Key, ...], values: Sequence[Any], data: bytes, pickler: pickle.Pickler | None = None
    ) -> None:
        self.keys = keys
        self.values = values
        self.data = data
        self.separate_pickles: tuple[bytes, ...] = (data,)
        self.pickler = pickler  # None: it holds nothing mutable that others might share


class _ReachableGlobals:
    """The names that one call can reach, and their values."""

    __slots__ = ("_dispatch_table", "_large", "_parts", "_uses", "can_run_again", "needs_script", "script")

    def __init__(self, dispatch_table: Mapping[Any, Any], script: scripts.Script) -> None:
        self._dispatch_table = dispatch_table
        self.script = script
        self.can_run_again = script.can_run_again
        self.needs_script = False
        self._parts: dict[Key, _PickledValues] = {}
        self._uses: dict[Key, Uses] = {}  # by the name whose value uses them
        self._large: list[tuple[Key, int]] = []  # names with large values, and the bytes of these

    def entries(self, used: Uses, hints: Uses, call_names: Collection[Key]) -> list[Entry]:
        """Return the names and their values, including all names that these use in turn.

        call_names: those that the call itself consists of; without their values it is useless to send it.
        """
        parts = self._parts
        self._pickle_reachable(used, hints, call_names)
        if hints:
            # Names that only annotations mention come last. Nothing fails and no script is run again because of them.
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
            ordered = _merge_sharing(ordered, self._dispatch_table)
        return [(part.keys, part.data, part.separate_pickles) for part in ordered]

    def _pickle_reachable(
        self, used: Uses, hints: Uses, call_names: Collection[Key], *, only_hinted: bool = False
    ) -> None:
        """Pickle the values of names, and of the names that these use."""
        parts, uses = self._parts, self._uses
        keys = list(used)
        for key in keys:  # the list grows meanwhile
            value = used[key].get(key[1], _MISSING)
            if value is _MISSING or key in parts:  # another thread has removed it, or it is done
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
        """Return the name of the first that was found to use this one."""
        return next((user[1] for user, uses in self._uses.items() if key in uses and user != key), None)

    def _omitted(self, key: Key, value: Any, error: Exception, *, in_call: bool) -> _PickledValues:
        """Return what the worker gets instead of a value. in_call: the call itself consists of that value."""
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
        return f"the script does not define {key[1]} outside of its guard"

    def _pickle_global(self, key: Key, value: Any, used: Uses, hints: Uses) -> _PickledValues:
        kind: Any = type(value)
        if kind in _SCALARS:
            if kind is int and self.can_run_again and key[1] in self.script.process_local:
                raise class_reducers.DeferToScript("its value is valid in the host's process only")
            return _PickledValues((key,), (value,), self._checked_size(key, pickle.dumps([value], picklers.PROTOCOL)))
        if kind in _CONTAINERS and len(value) <= _MAX_PLAIN_ITEMS:
            plain = _pickle_plain_container(key, value)
            if plain is None:
                return self._pickle_object(key, value, used, hints)
            self._checked_size(key, plain.data)
            return plain
        if kind is ModuleType:
            self.needs_script = self.needs_script or (value.__name__ == "__main__" and self.can_run_again)
            if not internals._PICKLE_BY_VALUE_MODULES and value.__name__ in sys.modules:
                reference = _ModuleReference(value.__name__)
                return _PickledValues((key,), (value,), pickle.dumps([reference], picklers.PROTOCOL))
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
        pickler = by_value.CallPickler(stream, self._dispatch_table, used, hints)
        pickler.defining = (key,)
        pickler.dump([value])
        if pickler.looks_up_main and self.can_run_again:
            self.needs_script = True
        data = stream.getvalue()
        definitions.record_size(key, value, len(data))
        return _PickledValues((key,), [value], self._checked_size(key, data), pickler)


def _dependencies_first(uses: Mapping[Key, Uses]) -> Iterable[Key]:
    """Return each name after those that its value uses, because code may run while it is rebuilt."""
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
    """Return a container that holds only plain data, in a fifth of the time; None: it holds something else."""
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, picklers.PROTOCOL)
    try:
        pickler.dump([value])
    except Exception:
        return None
    data = stream.getvalue()
    if picklers.STACK_GLOBAL in data:  # or it is in a number or text; objects that have a name are in the memo
        memo: Any = pickler.memo.copy()
        if not all(type(held) in _CONTAINERS or type(held) in _SCALARS for _, held in memo.values()):
            return None
    return _PickledValues((key,), (value,), data, pickler)


def _merge_sharing(parts: Sequence[_PickledValues], dispatch_table: Mapping[Any, Any]) -> list[_PickledValues]:
    """Pickle those values together that share a mutable object."""
    first: dict[int, int] = {}  # the first part in which an object occurred
    parent = list(range(len(parts)))  # of each part: a part of the same group, or itself (union-find)

    def find(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    for index, part in enumerate(parts):
        memo: Any = {} if part.pickler is None else part.pickler.memo.copy()
        # The memo keeps all objects that were pickled alive, so their ids are unique.
        for _, value in memo.values():
            if _has_identity(value):
                parent[find(index)] = find(first.setdefault(id(value), index))
    groups: dict[int, list[_PickledValues]] = {}
    for index, part in enumerate(parts):
        groups.setdefault(find(index), []).append(part)
    merged_parts = []
    for group in groups.values():
        if len(group) == 1:
            merged_parts += group
            continue
        keys = tuple(part.keys[0] for part in group)
        stream = io.BytesIO()
        pickler = by_value.CallPickler(stream, dispatch_table, {}, {})
        pickler.defining = keys
        values = [part.values[0] for part in group]
        pickler.dump(values)
        merged = _PickledValues(keys, values, stream.getvalue())
        merged.separate_pickles = tuple(part.data for part in group)
        merged_parts.append(merged)
    return merged_parts


def _has_identity(value: Any) -> bool:
    """Return whether a copy would make a difference. An object with a hash of its own counts as a value."""
    own_hash: Any = type(value).__hash__
    if own_hash is not None and own_hash is not object.__hash__:
        return False
    return not isinstance(value, FunctionType | ModuleType | type)


def pickle_value(key: Key, value: Any) -> bytes:
    """Return the bytes that the host would send for the value of a name. A worker compares them.

    Raises:
        Exception: it cannot be pickled.
    """
    return _ReachableGlobals(by_value.dispatch_table(), scripts.current())._pickle_global(key, value, {}, {}).data
