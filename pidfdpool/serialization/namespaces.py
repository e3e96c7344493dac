"""Holds, in a worker, the globals of functions of the host's `__main__`: one dictionary for each of their modules.

Such functions travel by value, and each would get globals of its own. Here they share those of their module, which
last as long as the process, as if the worker had imported the module: what an initializer sets, a counter or a cache
is there for the next task. In the host `script_calls` makes a payload of names and their values; this file takes it
apart. `payload` calls it on a worker's only thread, and on the template's for a preload.

A value is assigned if it is the first that came under its name, if its bytes differ from those that came last, or if
it holds a definition that was replaced by another one: its bytes name that, and do not show it. Otherwise the name is
left as it is, because the worker may have changed it since. A value that the worker set before the first one came
also stays: it was set after the point where an import would have been.

These globals are not in the worker's real `__main__`. multiprocessing would take that for a script, and would run it
again in each process that a task spawns. With this a script needs no guard against that.
"""

from __future__ import annotations

import builtins
import functools
import pickle
import struct
import sys
import weakref
from contextlib import suppress
from types import FunctionType
from typing import TYPE_CHECKING, Any

from pidfdpool.process import describe
from pidfdpool.serialization import scripts
from pidfdpool.serialization.placeholder import REMEDIES, Placeholder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Key = tuple[str, str]  # a module, and a name in it
    # Names, the pickle of the list of their values, and the pickle of each value by itself.
    Entry = tuple[tuple[Key, ...], bytes, tuple[bytes, ...]]
    Buffer = bytes | bytearray | memoryview

WITH_GLOBALS = 0  # the last byte of a payload that carries globals; no pickle ends with it, nor with the next
NEEDS_SCRIPT = 1  # the same, and the script has to be run again for it
# It follows the pickle of the call and the pickle of the entries: where the latter begins, and the last byte.
TRAILER = struct.Struct("<QB")
_MAX_COMPARED = 4096  # bytes of a value's pickle; of a longer one only length and hash are remembered

globals_by_module: dict[str, dict[str, Any]] = {}
_last_received: dict[Key, object] = {}  # fingerprint of what came last under a name
_pending: dict[Key, tuple[bytes, dict[Key, object]]] = {}  # what came and is not loaded yet, with fingerprints
_loading: dict[Key, bytes] = {}  # pickles that are being loaded, by the names that they will define
_held: dict[Key, set[Key]] = {}  # the names that the pickle of a name's value has looked up
_undecided: set[Key] = set()  # names of which it is not known yet whether they keep what the script has made
_looking_up: list[set[Key]] = []  # the same of the pickles that are being loaded, the innermost last
_definition_ids: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_made_by_script: dict[Key, Any] = {}  # what running the script again has made, by name
_pickle_value: Callable[[Key, Any], bytes] = lambda _key, _value: b""  # noqa: E731  until there is a script
_SCALARS = frozenset({int, float, complex, bool, str, bytes, type(None)})
_CONTAINERS = frozenset({list, tuple, set, frozenset})
_DEFINITIONS = (FunctionType, type, functools._lru_cache_wrapper)


def load(data: Buffer, out_of_band: Iterable[Buffer] = (), loads: Callable[..., Any] = pickle.loads) -> Any:
    """Rebuild the object of a pickle, or of a payload that carries globals. This runs the object's own code.

    out_of_band: the buffers that are not in the pickle.
    loads: rebuilds the object itself. Default: pickle.loads.
    """
    if data[-1] <= NEEDS_SCRIPT:
        view = memoryview(data)
        begin, _ = TRAILER.unpack(view[-TRAILER.size :])
        _receive(pickle.loads(view[begin:]))
    return loads(data, buffers=out_of_band)  # it reads no further than to the end of the first pickle


def definition_id_of(value: Any) -> int | None:
    """Return the host's id for this function or class, if it came from there as the value of a name."""
    try:
        return _definition_ids.get(value)
    except TypeError:  # its metaclass makes it unhashable
        return None


def _receive(entries: Sequence[Entry]) -> None:
    changed = []
    for keys, data, alone in entries:
        # If several names share objects, their values travel in one pickle. The pickle of each value by itself tells
        # whether that value has changed.
        last: dict[Key, object] = dict(zip(keys, map(_fingerprint, alone), strict=True))
        if any(_last_received.get(key) != fingerprint for key, fingerprint in last.items()):
            changed.append(keys)
            for key in keys:
                _pending[key] = data, last
    try:
        if changed:
            replaced = _assign_all(changed)
            if replaced:
                _assign_holders(entries, replaced)
    except BaseException:
        _pending.clear()
        raise


def _assign_all(changed: Sequence[tuple[Key, ...]]) -> set[Key]:
    """Assign the values that came, in groups. Return those names that had another object before."""
    before = {key: globals_by_module[key[0]][key[1]] for keys in changed for key in keys if _is_set(key)}
    for keys in changed:
        try:
            _assign(keys[0])
        except Exception as error:  # the task that uses the name is to see the error
            _set_placeholder(keys[0], error)
    return {key for key, value in before.items() if globals_by_module[key[0]].get(key[1]) is not value}


def _is_set(key: Key) -> bool:
    return key[1] in globals_by_module.get(key[0], ())


def _assign_holders(entries: Sequence[Entry], replaced: set[Key]) -> None:
    """Assign anew the values that hold a definition which was replaced, those that hold these, and so on.

    Those that are not among the entries are assigned when they come again.
    """
    left = list(entries)
    came = {key for keys, _, _ in entries for key in keys}
    while replaced:
        outdated = {key for key, held in _held.items() if not replaced.isdisjoint(held)}
        holders = [entry for entry in left if not outdated.isdisjoint(entry[0])]
        left = [entry for entry in left if outdated.isdisjoint(entry[0])]
        for keys, data, alone in holders:
            last: dict[Key, object] = dict(zip(keys, map(_fingerprint, alone), strict=True))
            _pending.update(dict.fromkeys(keys, (data, last)))
        again = outdated - came | {key for keys, _, _ in holders for key in keys}
        _last_received.update(dict.fromkeys(again & _last_received.keys()))
        replaced = _assign_all([keys for keys, _, _ in holders])


def _set_placeholder(key: Key, error: Exception) -> None:
    """Assign a placeholder to a name whose value could not be made, unless the script can make it.

    Raises:
        NeedsScript: the script can make it, and was not run again in this process.
    """
    names = module_globals(key[0])
    if key[1] not in names:
        script = scripts.current()
        if not scripts.ran_again and key[0] == "__main__" and script.can_run_again and key[1] in script.names:
            raise scripts.NeedsScript(key[1]) from error
        reason = describe.error_text(error).rstrip(". ")
        message = f"the script's global {key[1]!r} cannot be rebuilt in this worker: {reason}. {REMEDIES}"
        names[key[1]] = Placeholder(message, error)


def _fingerprint(pickled: bytes) -> object:
    return pickled if len(pickled) <= _MAX_COMPARED else (len(pickled), hash(pickled))


def _assign(key: Key) -> None:
    """Assign the value that came for this name, and those that came in the same pickle."""
    found = _pending.pop(key, None)
    if found is None:
        return
    data, last = found
    for each in last:
        _pending.pop(each, None)
    fresh = [each for each, fingerprint in last.items() if _must_be_assigned(each, fingerprint)]
    try:
        if fresh:
            _load(data, tuple(last), fresh)
    except BaseException:
        for module, name in fresh:  # they may be half made
            globals_by_module[module].pop(name, None)
            _last_received.pop((module, name), None)
            if (module, name) in _made_by_script:
                globals_by_module[module][name] = _made_by_script[module, name]
        raise
    _last_received.update(last)


def _must_be_assigned(key: Key, fingerprint: object) -> bool:
    """Return whether the value that came has to be assigned. fingerprint: of its pickle."""
    if key in _last_received:
        return _last_received[key] != fingerprint
    module, name = key
    names = module_globals(module)
    if name not in names or type(names[name]) is Placeholder:
        return True
    # The worker or the script has set this name. The script's value is kept if the host has the same, so that
    # everything that the script has made of it (defaults, registries) still belongs together.
    if not _is_still_of_script(key):
        return False
    if isinstance(names[name], _DEFINITIONS):
        return True  # `_load` compares definitions once they are made
    try:
        return _fingerprint(_pickle_value(key, names[name])) != fingerprint
    except Exception:  # it does not pickle, so the host's is also the script's
        return True


def _load(data: bytes, keys: Sequence[Key], fresh: Sequence[Key]) -> None:
    made = {key: _made_by_script[key] for key in keys if _is_still_of_script(key)}
    _loading.update(dict.fromkeys(keys, data))
    around = _undecided - set(keys)
    _undecided.update(keys)
    held: set[Key] = set()
    _looking_up.append(held)
    try:
        received = dict(zip(keys, pickle.loads(data), strict=True))
        # Values that came together refer to each other, and so do those that the script has made. So all of the
        # script's are kept, or none; and only with what of the script's they hold.
        keep = all(key in made and _is_same_definition(made[key], received[key]) for key in fresh) and all(
            key in _undecided or key not in _made_by_script or _is_still_of_script(key) for key in held
        )
        for key, value in received.items():
            if keep and key in made:
                _copy_plain_changes(made[key], value, substitute=held.isdisjoint(around))
                globals_by_module[key[0]][key[1]] = made[key]
            elif key in fresh or key in made:
                globals_by_module[key[0]][key[1]] = value
    finally:
        _looking_up.pop()
        _undecided.difference_update(keys)
        for key in keys:
            _loading.pop(key, None)
            _held[key] = held


# ---- what the script has made ------------------------------------------------------------------------------------


def adopt_script_globals(module: str, pickle_value: Callable[[Key, Any], bytes]) -> None:
    """Take over the globals of a module, because its script has just been run again in this process.

    pickle_value: returns the bytes that the host would send for the value of a name.
    """
    global _pickle_value  # noqa: PLW0603  per process, and inherited
    _pickle_value = pickle_value
    for key in [key for key in _last_received if key[0] == module]:
        del _last_received[key]
    _made_by_script.update({(module, name): value for name, value in globals_by_module[module].items()})


def _is_still_of_script(key: Key) -> bool:
    """Return whether a name still has the value that running the script again gave it."""
    return key in _made_by_script and globals_by_module[key[0]].get(key[1], key) is _made_by_script[key]


def _is_same_definition(made: Any, received: Any) -> bool:
    """Return whether two functions or classes are made by the same source lines."""
    if type(made) is not type(received) and not (isinstance(made, type) and isinstance(received, type)):
        return False
    if isinstance(made, FunctionType):
        return bool(made.__code__ == received.__code__)
    if isinstance(made, type):
        return _codes_in(made) == _codes_in(received)
    return _code_in(made) is not None and _code_in(made) == _code_in(received)


def _copy_plain_changes(made: Any, received: Any, *, substitute: bool) -> None:
    """Copy plain data from the host's function or class to the script's: the host may have changed it.

    substitute: later changes of the host's class are made in the script's class, too.
    """
    if isinstance(made, FunctionType):
        for name in ("__defaults__", "__kwdefaults__"):
            if _is_changed_data(getattr(made, name), getattr(received, name)):
                setattr(made, name, getattr(received, name))
        vars(made).update(
            {name: value for name, value in vars(received).items() if _is_changed_data(vars(made).get(name), value)}
        )
    elif isinstance(made, type) and made is not received:
        if substitute:
            _substitute(made, received)
        for name, value in vars(received).items():
            own = vars(made).get(name)
            is_class = isinstance(own, type) and _is_class_in(received, name, value)
            if is_class or type(value) is type(own) is FunctionType:
                _copy_plain_changes(own, value, substitute=substitute)
            elif not name.startswith("__") and _is_changed_data(own, value):
                with suppress(Exception):  # it refuses to be changed
                    setattr(made, name, value)


def _substitute(made: type, received: type) -> None:
    """Have what comes later for a class that was received from the host be put into the script's class."""
    from cloudpickle import cloudpickle as internals

    tracker = internals._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(received)
    if tracker is not None:
        internals._DYNAMIC_CLASS_TRACKER_BY_ID[tracker] = made
        internals._DYNAMIC_CLASS_TRACKER_BY_CLASS[made] = tracker


def _is_class_in(kind: type, name: str, value: Any) -> bool:
    """Return whether a class's attribute is a class that was defined in its body."""
    return isinstance(value, type) and value.__qualname__ == f"{kind.__qualname__}.{name}"


def _is_changed_data(made: Any, received: Any) -> bool:
    """Return whether the received value is plain data and differs from the script's."""
    try:
        return _is_plain(received) and _is_plain(made) and pickle.dumps(made) != pickle.dumps(received)
    except RecursionError:
        return False


def _is_plain(value: Any) -> bool:
    if type(value) is dict:
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    return type(value) in _SCALARS or (type(value) in _CONTAINERS and all(map(_is_plain, value)))


def _codes_in(kind: type) -> dict[str, Any]:
    found = {}
    for name, value in vars(kind).items():
        code = _codes_in(value) if _is_class_in(kind, name, value) else _code_in(value)
        # What the class inherits unchanged from a base does not travel with it.
        if code is not None and not any(vars(base).get(name) is value for base in kind.__mro__[1:]):
            found[name] = code
    return found


def _code_in(value: Any) -> Any:
    """Return the code of a function, or of the function inside a property, a classmethod or a cache."""
    for name in ("__func__", "fget", "__wrapped__", "func"):
        value = getattr(value, name, value)
    return getattr(value, "__code__", None)


# ---- named in pickles ------------------------------------------------------------------------------------------


def module_globals(module: str, base: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the globals of a module's functions. base: what the module has from its start, such as `__file__`."""
    space = globals_by_module.get(module)
    if space is None:
        # The script's globals are those of the module that stands for it here (`worker.script_module`), so that
        # lookups by name in `__main__` find them.
        stand_in = vars(sys.modules[module]) if module == "__main__" else {}
        space = globals_by_module[module] = stand_in if stand_in.get(scripts.STAND_IN) else {"__name__": module}
    if base is not None:
        for name, value in base.items():
            if space.get(name) is None:  # a new module has a __package__ that is None
                space[name] = value
    return space


def lookup(module: str, name: str) -> Any:
    """Return the value of a name in a module. Called by pickles."""
    key = module, name
    if _looking_up:
        _looking_up[-1].add(key)
    _assign(key)
    # Of two classes that refer to each other, for example, one has to exist before the other is complete.
    data = _loading.pop(key, None)
    if data is not None:
        pickle.loads(data)
    return globals_by_module[module][name]


def class_member(owner: Any, path: str) -> Any:
    """Return what a class defines under this dotted path: a method's function, or a class; None: nothing."""
    for name in path.split("."):
        try:
            owner = vars(owner).get(name)
        except TypeError:
            return None
        owner = getattr(owner, "__func__", owner)  # of a classmethod, for example
    return owner


def define(module: str, name: str, number: int, make: Callable[..., Any], *arguments: Any) -> Any:
    """Make a function or class, and assign it to its name before it is filled: its contents may refer to it."""
    value = make(*arguments)
    _loading.pop((module, name), None)
    module_globals(module)[name] = value
    _definition_ids[value] = number
    return value


def make_function(module: str, code: Any, base: dict[str, Any], closure: Any) -> FunctionType:
    """Make a function with the globals of its module. base: see `module_globals`."""
    names = module_globals(module, base)
    names.setdefault("__builtins__", builtins)
    return FunctionType(code, names, None, None, closure)


def script_value(module: str, name: str, message: str) -> Any:
    """Return the value of a name that could not travel: the script's, if that was run again here, or a placeholder.

    message: the text of the placeholder's error.
    """
    names = module_globals(module)
    if name in names and type(names[name]) is not Placeholder:
        return names[name]
    failure = sys.modules["__main__"].__dict__.get(scripts.FAILURE)
    if failure is not None:
        message = f"{message} The script was run again to make it, but it failed: {failure}."
    return Placeholder(message)
