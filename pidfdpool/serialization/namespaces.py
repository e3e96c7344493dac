"""Where functions of the host's `__main__` live in a worker: one dictionary of globals for each module of theirs.

Such functions travel by value, and would each get globals of their own. Here they share those of their module, which
last as long as the process, as they would had the worker imported the module: what an initializer sets, a counter, a
cache are there for the next task. `by_value` says in the host how a payload is made of names and their values; this
takes it apart again. Called by `payload` on the only thread of a worker (and of the template, for a preload).

A value is assigned when it came for the first time, or differs from what came last under its name, byte by byte.
Otherwise the name is left as it is, because the worker may have changed it since. What a worker has set before the
first value came stays as well: it was later than the import that the worker never made.

This is not the worker's real `__main__`: multiprocessing would take that for a script, which it runs once more in
each process that a task spawns; and a script needs no guard against that here.
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
from pidfdpool.serialization.placeholder import Placeholder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Key = tuple[str, str]  # a module, and a name in it
    # Names, the pickle of the list of their values, and a pickle for each of them alone.
    Entry = tuple[tuple[Key, ...], bytes, tuple[bytes, ...]]
    Buffer = bytes | bytearray | memoryview

WITH_GLOBALS = 0  # the last byte of a payload that carries globals; no pickle ends with it, nor with the next
NEEDS_SCRIPT = 1  # the same, and the script has to be run again for it
# Behind the call's own pickle and that of the entries: where these begin, and the mark.
TRAILER = struct.Struct("<QB")
_MAX_COMPARED = 4096  # bytes; longer ones are remembered by their hash

globals_by_module: dict[str, dict[str, Any]] = {}
_last_received: dict[Key, object] = {}  # what came last under a name
_pending: dict[Key, tuple[bytes, dict[Key, object]]] = {}  # has come, and is not loaded yet
_loading: dict[Key, bytes] = {}  # is being loaded, and is not there yet
_definition_ids: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_made_by_script: dict[Key, Any] = {}  # what running the script again has made of a name
_pickle_value: Callable[[Key, Any], bytes] = lambda _key, _value: b""  # noqa: E731  until there is a script
_SCALARS = frozenset({int, float, complex, bool, str, bytes, type(None)})
_CONTAINERS = frozenset({list, tuple, set, frozenset})
_DEFINITIONS = (FunctionType, type, functools._lru_cache_wrapper)


def load(data: Buffer, out_of_band: Iterable[Buffer] = (), loads: Callable[..., Any] = pickle.loads) -> Any:
    """Rebuild the object of a pickle, or of a payload made by `by_value`. Runs the object's own code.

    left_out: the buffers that are not in the pickle.
    loads: what rebuilds the object itself, in the place of pickle.loads.
    """
    if data[-1] <= NEEDS_SCRIPT:
        view = memoryview(data)
        begin, _ = TRAILER.unpack(view[-TRAILER.size :])
        _receive(pickle.loads(view[begin:]))
    return loads(data, buffers=out_of_band)  # it goes no further than to the end of the first


def definition_id_of(value: Any) -> int | None:
    """Return by what the host knows this function or class, if it came from there as the value of a name."""
    try:
        return _definition_ids.get(value)
    except TypeError:  # its metaclass makes it unhashable
        return None


def _receive(entries: Sequence[Entry]) -> None:
    waiting = []
    for keys, data, separate_pickles in entries:
        # Of what is shared by several names each has a pickle without the others, which tells whether it has changed.
        last: dict[Key, object] = dict(zip(keys, map(_fingerprint, separate_pickles), strict=True))
        if any(_last_received.get(key) != fingerprint for key, fingerprint in last.items()):
            waiting.append(keys[0])
            for key in keys:
                _pending[key] = data, last
    try:
        for key in waiting:
            try:
                _assign(key)
            except Exception as error:  # that is for the task that uses it
                _set_placeholder(key, error)
    except BaseException:
        _pending.clear()
        raise


def _set_placeholder(key: Key, error: Exception) -> None:
    """Put something that raises when it is used where a value could not be made, unless the script makes one.

    Raises:
        NeedsScript: the script makes one, and was not run again in this process.
    """
    names = module_globals(key[0])
    if key[1] not in names:
        script = scripts.current()
        if not scripts.ran_again and key[0] == "__main__" and script.can_run_again and key[1] in script.names:
            raise scripts.NeedsScript(key[1]) from error
        why = f"the script's global {key[1]!r} could not be made in this worker: {describe.said(error)}"
        names[key[1]] = Placeholder(why, error)


def _fingerprint(fingerprint: bytes) -> object:
    return fingerprint if len(fingerprint) <= _MAX_COMPARED else (len(fingerprint), hash(fingerprint))


def _assign(key: Key) -> None:
    """Assign what has come for this name, and for those that came along with it."""
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
        for module, name in fresh:  # half of it may be there
            globals_by_module[module].pop(name, None)
            _last_received.pop((module, name), None)
            if (module, name) in _made_by_script:
                globals_by_module[module][name] = _made_by_script[module, name]
        raise
    _last_received.update(last)


def _must_be_assigned(key: Key, fingerprint: object) -> bool:
    """Return whether what has come is to be assigned. own: its pickle, as it is remembered."""
    if key in _last_received:
        return _last_received[key] != fingerprint
    module, name = key
    names = module_globals(module)
    if name not in names or type(names[name]) is Placeholder:
        return True
    # The worker has set it since, or the script has. What the script makes is kept if the host has the same, so that
    # all that the script has made of it (defaults, registries) still belongs together.
    if not _is_still_of_script(key):
        return False
    if isinstance(names[name], _DEFINITIONS):
        return True  # told apart when it is made
    try:
        return _fingerprint(_pickle_value(key, names[name])) != fingerprint
    except Exception:  # it does not travel: the script's it is
        return True


def _load(data: bytes, keys: Sequence[Key], fresh: Sequence[Key]) -> None:
    made = {key: _made_by_script[key] for key in keys if _is_still_of_script(key)}
    _loading.update(dict.fromkeys(keys, data))
    try:
        received = dict(zip(keys, pickle.loads(data), strict=True))
        # What has come together refers to each other, and so does what the script has made: all of it or nothing.
        keep = all(
            key in made and _is_same_definition(made[key], received[key]) and _has_script_bases(made[key], keys)
            for key in fresh
        )
        for key, value in received.items():
            if keep and key in made:
                _copy_plain_changes(made[key], value)
                globals_by_module[key[0]][key[1]] = made[key]
            elif key in fresh or key in made:
                globals_by_module[key[0]][key[1]] = value
    finally:
        for key in keys:
            _loading.pop(key, None)


# ---- what the script has made ------------------------------------------------------------------------------------


def adopt_script_globals(module: str, pickle_value: Callable[[Key, Any], bytes]) -> None:
    """Take note of what a module's names stand for, because its script has just been run again in this process.

    pickled_alone: returns what the host would send for the value of a name.
    """
    global _pickle_value  # noqa: PLW0603  per process, and inherited
    _pickle_value = pickle_value
    for key in [key for key in _last_received if key[0] == module]:
        del _last_received[key]
    _made_by_script.update({(module, name): value for name, value in globals_by_module[module].items()})


def _is_still_of_script(key: Key) -> bool:
    """Return whether a name stands for what running the script again has made of it."""
    return key in _made_by_script and globals_by_module[key[0]].get(key[1], key) is _made_by_script[key]


def _has_script_bases(made: Any, keys: Sequence[Key]) -> bool:
    """Return whether what the script has made a class of has not been replaced. keys: not decided about yet."""
    names = [("__main__", base.__qualname__) for base in made.__bases__] if isinstance(made, type) else []
    return all(key in keys or key not in _made_by_script or _is_still_of_script(key) for key in names)


def _is_same_definition(made: Any, received: Any) -> bool:
    """Return whether two functions or classes come of the same lines."""
    if type(made) is not type(received) and not (isinstance(made, type) and isinstance(received, type)):
        return False
    if isinstance(made, FunctionType):
        return bool(made.__code__ == received.__code__)
    if isinstance(made, type):
        return _codes_in(made) == _codes_in(received)
    return _code_in(made) is not None and _code_in(made) == _code_in(received)


def _copy_plain_changes(made: Any, received: Any) -> None:
    """Give a function or class of the script's what plain data the host's has: the host may have changed it."""
    if isinstance(made, FunctionType):
        for name in ("__defaults__", "__kwdefaults__"):
            if _is_changed_data(getattr(made, name), getattr(received, name)):
                setattr(made, name, getattr(received, name))
        vars(made).update(
            {name: value for name, value in vars(received).items() if _is_changed_data(vars(made).get(name), value)}
        )
    elif isinstance(made, type) and made is not received:
        _substitute(made, received)
        for name, value in vars(received).items():
            if not name.startswith("__") and _is_changed_data(vars(made).get(name), value):
                with suppress(Exception):  # it refuses to be changed
                    setattr(made, name, value)


def _substitute(made: type, received: type) -> None:
    """Have a class that the script has made stand for the host's, which has come; so with the classes in it.

    What comes of the host's class later, because it has changed, is put into the script's.
    """
    from cloudpickle import cloudpickle as internals

    tracker = internals._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(received)
    if tracker is not None:
        internals._DYNAMIC_CLASS_TRACKER_BY_ID[tracker] = made
        internals._DYNAMIC_CLASS_TRACKER_BY_CLASS[made] = tracker
    for name, value in vars(received).items():
        inner = vars(made).get(name)
        if (
            isinstance(value, type)
            and isinstance(inner, type)
            and value.__qualname__ == f"{received.__qualname__}.{name}"
        ):
            _substitute(inner, value)


def _is_changed_data(made: Any, received: Any) -> bool:
    """Return whether what has come is plain data, and not what the script has made."""
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
        code = _code_in(value)
        # What a base has as well does not travel with the class.
        if code is not None and not any(vars(base).get(name) is value for base in kind.__mro__[1:]):
            found[name] = code
    return found


def _code_in(value: Any) -> Any:
    """Return the code of a function, or of what is around one: a property, a classmethod, a cache."""
    for name in ("__func__", "fget", "__wrapped__", "func"):
        value = getattr(value, name, value)
    return getattr(value, "__code__", None)


# ---- named in pickles ------------------------------------------------------------------------------------------


def module_globals(module: str, base: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the globals of a module's functions. base: what a module has from its beginning, such as `__file__`."""
    space = globals_by_module.get(module)
    if space is None:
        # The script's are those of the module that stands for it here (`script_module`), so that it is found by name.
        stand_in = vars(sys.modules[module]) if module == "__main__" else {}
        space = globals_by_module[module] = stand_in if stand_in.get(scripts.STAND_IN) else {"__name__": module}
    if base is not None:
        for name, value in base.items():
            if space.get(name) is None:  # a new module has a __package__, which is None
                space[name] = value
    return space


def lookup(module: str, name: str) -> Any:
    """Return what has this name in a module."""
    key = module, name
    _assign(key)
    # Of two classes, say, that refer to each other, one has to be there before the other is complete.
    data = _loading.pop(key, None)
    if data is not None:
        pickle.loads(data)
    return globals_by_module[module][name]


def class_member(owner: Any, path: str) -> Any:
    """Return a method's function, or a class, that is defined in a class; None: nothing there has this name."""
    for name in path.split("."):
        try:
            owner = vars(owner).get(name)
        except TypeError:
            return None
        owner = getattr(owner, "__func__", owner)  # of a classmethod, say
    return owner


def define(module: str, name: str, number: int, make: Callable[..., Any], *arguments: Any) -> Any:
    """Make a function or class, and give it its name before it is filled: what it holds may refer to it."""
    value = make(*arguments)
    _loading.pop((module, name), None)
    module_globals(module)[name] = value
    _definition_ids[value] = number
    return value


def fill_enum(kind: Any, state: tuple[Any, dict[str, dict[str, Any]]]) -> None:
    """Give an Enum what it holds, and its members what their own __init__ has given them in the host."""
    from cloudpickle.cloudpickle import _class_setstate

    held, attributes = state
    _class_setstate(kind, held)
    for name, values in attributes.items():
        vars(kind[name]).update(values)


def make_function(module: str, code: Any, base: dict[str, Any], closure: Any) -> FunctionType:
    """Make a function with the globals of its module. base: see `namespace`."""
    names = module_globals(module, base)
    names.setdefault("__builtins__", builtins)
    return FunctionType(code, names, None, None, closure)


def script_value(module: str, name: str, why: str) -> Any:
    """Return what cannot travel: from the script, if that was run again here, or what raises when it is used.

    why: what to say then.
    """
    names = module_globals(module)
    if name in names and type(names[name]) is not Placeholder:
        return names[name]
    failure = sys.modules["__main__"].__dict__.get(scripts.FAILURE)
    if failure is not None:
        why = f"{why} The script was run again to make it, and that ended: {failure}."
    return Placeholder(why)


def lru_cache(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    """Return what functools.lru_cache makes of a function."""
    return functools.lru_cache(maxsize, typed)(function)
