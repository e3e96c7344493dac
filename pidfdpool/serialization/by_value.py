"""Picklers that put names in the place of what belongs to a script, and note which names these are.

In the host, on the submitting thread; in a worker for results. `script_calls` makes payloads with it. It imports
cloudpickle, and is loaded when first needed for that reason.

A function or class that a module has under its own name is pickled as this name, wherever it turns up, and its
definition is the value of the name; so is an object that reduces to its name, as a singleton may. A function's
globals are names as well: those that its code mentions. What only its annotations mention is noted apart: nothing
fails because that cannot travel.

This holds for `__main__`, and for modules that are registered with cloudpickle as travelling by value. Functions
whose globals are not those of a module that is loaded (code that was run by `exec`) have globals of their own in
each payload.

A worker answers with the names of functions and classes, too, or rather with a number for each definition that it
got: a result neither carries along the globals of its class's methods, nor makes copies of the host's functions.

What is remembered here is per process, and right after a fork as well. Any thread.
"""

from __future__ import annotations

import _pickle
import copyreg
import functools
import io
import sys
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import cloudpickle
from cloudpickle import cloudpickle as internals

from pidfdpool.serialization import namespaces, origins, picklers, reconstructors, reducers, scripts

if TYPE_CHECKING:
    import pickle
    from collections.abc import Callable, Mapping, Sequence

    from pidfdpool.serialization.namespaces import Key

    LeaveOut = Callable[[pickle.PickleBuffer], bool]
    Uses = dict[Key, dict[str, Any]]  # which names are used, and the globals that they are in

_CACHED = functools._lru_cache_wrapper


class LeftToScript(Exception):
    """This travels by value, but not well: the script had better make it again."""


class ByValue(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """cloudpickle's pickler, but with our reducers, and a table that is heeded."""

    def __init__(self, stream: io.BytesIO, table: Mapping[Any, Any], leave_out: LeaveOut | None = None) -> None:
        # cloudpickle's own takes as long as all the rest, to find out the protocol.
        _pickle.Pickler.__init__(self, stream, picklers.PROTOCOL, buffer_callback=leave_out)
        self.proto = picklers.PROTOCOL
        self.globals_ref: dict[int, dict[str, Any]] = {}
        picklers.taught(self, table)
        self._table = table

    def reducer_override(self, value: Any) -> Any:
        """Reduce functions and classes, as cloudpickle does, and leave the rest to the table."""
        if type(value).__module__ == "_ctypes" and isinstance(value, type) and not _is_importable(value):
            raise _pickle.PicklingError(f"{value.__qualname__} is a type of ctypes, which does not travel by value")
        return _mended(super().reducer_override(value), value)

    def _named_by_itself(self, value: Any) -> tuple[str | None, Any]:
        """Return the name that an object reduces to, or None and what else it reduces to."""
        kind: Any = type(value)
        if kind in self._table or (
            kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__
        ):
            return None, NotImplemented
        reduced = value.__reduce_ex__(picklers.PROTOCOL)
        return (reduced, None) if type(reduced) is str else (None, reduced)

    def _dynamic_function_reduce(self, function: Any) -> tuple[Any, ...]:
        code, base, *rest = self._function_getnewargs(function)
        values = {name: function.__globals__[name] for name in globals_of(function)}
        return internals._make_function, (code, base, *rest), *self._state_of(function, values, values)

    def _state_of(self, function: Any, sent: dict[str, Any], values: dict[str, Any]) -> tuple[Any, ...]:
        """Return the rest of a function's reduction. sent: globals that are to be set along with it."""
        code, closure = function.__code__, function.__closure__
        if closure is not None and reducers.CLASS_NAMES in code.co_freevars:
            at = code.co_freevars.index(reducers.CLASS_NAMES)
            closure = (*closure[:at], reducers.names_for_annotations(closure[at], code), *closure[at + 1 :])
        annotations, annotated = reducers.annotations_of(function, _is_at_home)
        inside = [] if closure is None else list(map(internals._get_cell_contents, closure))
        slots: dict[str, Any] = {
            "__name__": function.__name__,
            "__qualname__": function.__qualname__,
            annotations: annotated,
            "__kwdefaults__": function.__kwdefaults__,
            "__defaults__": function.__defaults__,
            "__module__": function.__module__,
            "__doc__": function.__doc__,
            "__closure__": closure,
            "__globals__": sent,
            "_cloudpickle_submodules": internals._find_imported_submodules(code, [*values.values(), *inside]),
        }
        parameters = getattr(function, "__type_params__", ())
        if parameters:
            slots["__type_params__"] = parameters
        return (dict(vars(function)), slots), None, None, internals._function_setstate


class NotingPickler(ByValue):
    """Pickles names, and notes which.

    used: the names that code uses, hints: those that only annotations mention; each with the globals it is in.
    named: those used names that stand in the pickle itself.
    at_home: a function has globals that are a module's in the worker. asks_for_main: code asks for the script itself.
    """

    def __init__(
        self, stream: io.BytesIO, table: Mapping[Any, Any], used: Uses, hints: Uses, leave_out: LeaveOut | None = None
    ) -> None:
        super().__init__(stream, table, leave_out)
        self.used = used
        self.hints = hints
        self.named: set[Key] = set()
        self.at_home = self.asks_for_main = False
        self.defining: Sequence[Key] = ()

    def reducer_override(self, value: Any) -> Any:
        """Put names in the place of functions, classes and other objects that have one."""
        kind = type(value)
        if kind is not FunctionType and kind is not _CACHED and not issubclass(kind, type):
            if kind is MethodType:
                return NotImplemented if self.defining else self._reduce_method(value)
            name, reduced = self._named_by_itself(value)
            return reduced if name is None else self._reduce_named(value, name)
        module: Any = getattr(value, "__module__", None)
        if module == internals.__name__ or module == namespaces.__name__ or module == reconstructors.__name__:
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
            return super().reducer_override(value) if home is None else self._reduce_at_home(value, home)
        key = origins.key_of(value, module)
        if key not in self.defining:
            self.used[key] = origin
            self.named.add(key)
            return namespaces.named, key
        if kind is FunctionType:
            reduced = self._dynamic_function_reduce(value)
        elif kind is _CACHED:
            reduced = _reduce_cached(value)
        else:
            reduced = _reduce_class(value, key)
            self._note_annotations(key[0], origin, value)
        make, arguments, *rest = reduced
        return namespaces.define, (*key, origins.token_for(value), make, *arguments), *rest

    def _reduce_method(self, method: Any) -> Any:
        """Have a method found as pickle itself would do it, in an object of a class that has a name."""
        function = method.__func__
        name = getattr(function, "__name__", "")
        owner = origins.owner_of(function, getattr(function, "__module__", None))
        if owner is None or getattr(method.__self__, name, None) != method:
            return NotImplemented
        return getattr, (method.__self__, name)

    def _reduce_named(self, value: Any, name: str) -> Any:
        """Put the name in the place of an object that says that this is its name in a script."""
        module = getattr(value, "__module__", None) or "__main__"
        names = origins.globals_of(module)
        root, _, path = name.partition(".")
        if names is None or root not in names:
            return name  # pickle finds it, or says why not
        if path:
            owner = names[root]
            return (
                (reconstructors.attribute, (owner, path)) if reconstructors.attribute(owner, path) is value else name
            )
        if names[root] is not value:
            return name
        key = origins.name_of_home(module), name
        if key not in self.defining:
            self.used[key] = names
            self.named.add(key)
            return namespaces.named, key
        return self._reduce_by_value(value, key)

    def _reduce_by_value(self, value: Any, key: Key) -> tuple[Any, ...]:
        """Reduce what would reduce to its name, because this is to become the value of the name."""
        kind: Any = type(value)
        if kind.__module__ == "typing" and kind.__name__ == "TypeAliasType":
            stream = io.BytesIO()
            inner = NotingPickler(stream, self._table, self.used, self.hints)
            inner.dump(value.__value__)
            return reconstructors.type_alias, (key, value.__type_params__, stream.getvalue())
        if kind.__module__ == "builtins" and kind.__name__ == "sentinel":
            return reconstructors.sentinel, (key, repr(value))
        return copyreg.__newobj__, (kind,), value.__getstate__()  # type: ignore[attr-defined]

    def _dynamic_function_reduce(self, function: Any) -> tuple[Any, ...]:
        home = origins.home_of(function.__globals__)
        return super()._dynamic_function_reduce(function) if home is None else self._reduce_at_home(function, home)

    def _reduce_at_home(self, function: Any, home: str) -> tuple[Any, ...]:
        """Put the globals' module in the place of what is in them."""
        names = function.__globals__
        mentioned = globals_of(function)
        noted = self.hints if reducers.is_annotate(function) else self.used
        for name in mentioned:
            noted[home, name] = names
        self._note_annotations(home, names, function)
        self.at_home = True
        if home == "__main__":
            self.asks_for_main = self.asks_for_main or reducers.asks_for_main(function.__code__)
        code, base, _, _, closure = self._function_getnewargs(function)
        arguments = home, code, base, closure
        return namespaces.make_function, arguments, *self._state_of(function, {}, {n: names[n] for n in mentioned})

    def _note_annotations(self, home: str, names: dict[str, Any], annotated: Any) -> None:
        """Note what annotations mention that are text, as after `from __future__ import annotations`."""
        for name in reducers.names_in_annotations(annotated):
            if name in names:
                self.hints[home, name] = names


class ReturningPickler(ByValue):
    """Pickles by value, but what has come from the host by the number or the name that it has there."""

    def reducer_override(self, value: Any) -> Any:
        """Put numbers and names in the place of what has one."""
        kind = type(value)
        if kind is FunctionType or kind is _CACHED or issubclass(kind, type):
            token = namespaces.token_of(value)
            if token is not None:
                return origins.own, (token,)
            name = origins.name_in_script(value)
            if name is not None:
                return origins.own_by_name, (name,)
            return super().reducer_override(value)
        name, reduced = self._named_by_itself(value)
        if name is None:
            return reduced
        names = namespaces.spaces.get(origins.name_of_home(getattr(value, "__module__", None) or "__main__"), {})
        return (origins.own_by_name, (name,)) if names.get(name) is value else name


def _is_importable(kind: type) -> bool:
    return internals._should_pickle_by_reference(kind)  # type: ignore[no-any-return]


def _is_at_home(function: Any) -> bool:
    return origins.home_of(function.__globals__) is not None


def globals_of(function: Any) -> list[str]:
    """Return the globals that a function's code mentions, as far as they are there."""
    code = function.__code__
    mentioned: Any = internals._extract_code_globals(code)
    if reducers.is_annotate(function):
        # In a class's body such names are looked up in another way, which cloudpickle does not know.
        mentioned = {**dict.fromkeys(code.co_names), **mentioned}
    return [name for name in mentioned if name in function.__globals__]


def _mended(reduced: Any, kind: Any) -> Any:
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
    if make is internals._make_skeleton_class and kind.__qualname__ != kind.__name__:
        arguments[3]["__qualname__"] = kind.__qualname__
    # Once the class is made it is too late. But typing.NamedTuple, which is no class, has its own way with none.
    bases = arguments[2] if make is internals._make_skeleton_class else ()
    if bases and (names.get("__slots__") or all(isinstance(base, type) for base in bases)) and "__slots__" in names:
        arguments[3]["__slots__"] = names.pop("__slots__")
    if sys.version_info >= (3, 14):
        _annotate(names, kind)
    return reduced


def _annotate(names: dict[str, Any], kind: Any) -> None:
    """Put a class's annotations into what it holds, in the way in which they travel (Python 3.14)."""
    for name in ("__annotate_func__", "__annotations_cache__", "__classdictcell__"):
        names.pop(name, None)
    held = vars(kind)
    if "__annotations__" not in names and ("__annotate_func__" in held or "__annotations_cache__" in held):
        name, annotations = reducers.annotations_of(kind, _is_at_home)
        if annotations:
            names[name] = annotations


def _reduce_class(kind: Any, key: Key) -> tuple[Any, ...]:
    if type(kind).__module__ == "_ctypes":
        raise _pickle.PicklingError(f"{kind.__qualname__} is a type of ctypes, which does not travel by value")
    script = scripts.current()
    if script.can_run_again and key[1] in script.names and _minds_being_made_again(kind):
        raise LeftToScript("a metaclass or __init_subclass__ has a part in making it")
    reduced = _mended(internals._dynamic_class_reduce(kind), kind)
    if reduced[0] is internals._make_skeleton_class:
        return reconstructors.make_class, *reduced[1:]
    # Members are made before there is an __init__ that would give them these.
    attributes = {
        member.name: {name: value for name, value in vars(member).items() if not name.startswith("_")}
        for member in kind
    }
    return *reduced[:2], (reduced[2], attributes), None, None, namespaces.fill_enum


def _minds_being_made_again(kind: type) -> bool:
    """Return whether code that is not the standard library's runs when such a class is made."""
    makers = [type(kind)]
    makers += [base for base in kind.__mro__[1:] if "__init_subclass__" in vars(base)]
    return any(maker.__module__.partition(".")[0] not in sys.stdlib_module_names for maker in makers)


def _reduce_cached(value: Any) -> tuple[Any, ...]:
    parameters = value.cache_parameters()
    return namespaces.cached, (value.__wrapped__, parameters["maxsize"], parameters["typed"])


_tables: tuple[object, dict[Any, Any]] | None = None


def table(once: picklers.Once | None = None) -> dict[Any, Any]:
    """Return the reducers of cloudpickle, ours, and those that are registered, in one table.

    once: where those come from that share something; without it, they raise.
    """
    global _tables  # noqa: PLW0603  per process; to make it twice does no harm
    if once is not None:
        return _over(once.table)
    extra = picklers.table()
    source = dict(copyreg.dispatch_table) if extra is None else extra
    known = _tables
    if known is None or (known[0] is not source and known[0] != source):
        known = _tables = source, _over(source)
    return known[1]


def _over(registered: dict[Any, Any]) -> dict[Any, Any]:
    # multiprocessing's ways with methods are for those that are found by name, so cloudpickle's come before them.
    return {**registered, **cloudpickle.Pickler.dispatch_table.maps[0], **reducers.REDUCERS}


def dumps_result(value: object, once: picklers.Once | None, leave_out: LeaveOut | None = None) -> bytes:
    """Return the payload of what goes from a worker to the host.

    once: see `table`. leave_out: returns False for a large buffer that is not to be in it.

    Raises:
        Exception: whatever cannot be pickled.
    """
    return _dumped(ReturningPickler, value, once, leave_out)


def dumps_whole(value: object, once: picklers.Once | None, leave_out: LeaveOut | None = None) -> bytes:
    """Return the payload of what consists of no names, between a host and what was forked from it."""
    return _dumped(ByValue, value, once, leave_out)


def _dumped(kind: type[ByValue], value: object, once: picklers.Once | None, leave_out: LeaveOut | None) -> bytes:
    stream = io.BytesIO()
    kind(stream, table(once), leave_out).dump(value)
    return stream.getvalue()
