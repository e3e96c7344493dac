"""Picklers that replace what belongs to a script by names, and record which names these are.

In the host they run on the thread that submits, and `script_calls` makes payloads with them; in a worker they pickle
results. This file imports cloudpickle, so it is loaded only when it is needed.

If a module has a function or class under the object's own name, the object is pickled as that name wherever it
occurs, and its definition is the value of the name. The same holds for an object whose reduction is its name, as with
a singleton. The globals that a function's code mentions are names, too. Names that only annotations mention are
recorded apart: a call does not fail because such a value cannot travel.

This applies to `__main__`, and to modules that are registered with cloudpickle to travel by value. A function whose
globals are not those of a loaded module (code that `exec` ran) has globals of its own in each payload.

A worker also returns names of functions and classes, or rather the id of each definition that it got. So a result
does not carry the globals of its class's methods, and the host's functions are not copied.

State is kept per process, and stays valid after a fork. Any thread.
"""

from __future__ import annotations

import _pickle
import copyreg
import functools
import io
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import cloudpickle
from cloudpickle import cloudpickle as internals

from pidfdpool.serialization import definitions, namespaces, picklers, reconstructors, reducers
from pidfdpool.serialization.class_reducers import fixed_reduction, has_module_globals, reduce_class

if TYPE_CHECKING:
    import pickle
    from collections.abc import Callable, Mapping, Sequence

    from pidfdpool.serialization.namespaces import Key
    from pidfdpool.serialization.picklers import ResourceReducers

    BufferCallback = Callable[[pickle.PickleBuffer], bool]
    Uses = dict[Key, dict[str, Any]]  # the names that are used, with the globals that they are in

    class _CloudPickler(_pickle.Pickler):
        """What is used of cloudpickle's pickler, which has no types."""

        def reducer_override(self, value: Any, /) -> Any: ...
        def _function_getnewargs(self, function: Any) -> tuple[Any, ...]: ...

else:
    _CloudPickler = cloudpickle.Pickler

_LRU_CACHE = functools._lru_cache_wrapper


class ByValuePickler(_CloudPickler):
    """cloudpickle's pickler with additional reducers, and a dispatch table that takes effect."""

    def __init__(
        self, stream: io.BytesIO, dispatch_table: Mapping[Any, Any], buffer_callback: BufferCallback | None = None
    ) -> None:
        # cloudpickle's own __init__ finds out the protocol, which takes as long as everything else together.
        _pickle.Pickler.__init__(self, stream, picklers.PROTOCOL, buffer_callback=buffer_callback)
        self.proto = picklers.PROTOCOL
        self.globals_ref: dict[int, dict[str, Any]] = {}
        picklers.with_reducers(self, dispatch_table)
        self._dispatch_table = dispatch_table

    def reducer_override(self, value: Any) -> Any:
        """Reduce functions and classes as cloudpickle does, and leave everything else to the table."""
        if type(value) is _LRU_CACHE:
            return NotImplemented if _is_importable_cache(value) else _reduce_lru_cache(value)
        if type(value).__module__ == "_ctypes" and isinstance(value, type) and not _is_importable(value):
            raise _pickle.PicklingError(f"{value.__qualname__} is a ctypes type, which cannot be pickled by value")
        return fixed_reduction(super().reducer_override(value), value)

    def _reduce_to_name_or_parts(self, value: Any) -> tuple[str | None, Any]:
        """Return the name that an object reduces to and None; or None and its other reduction."""
        kind: Any = type(value)
        if kind in self._dispatch_table or (
            kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__
        ):
            return None, NotImplemented
        reduced = value.__reduce_ex__(picklers.PROTOCOL)
        return (reduced, None) if type(reduced) is str else (None, reduced)

    def _dynamic_function_reduce(self, function: Any) -> tuple[Any, ...]:
        code, base, *rest = self._function_getnewargs(function)
        values = {name: function.__globals__[name] for name in globals_used_by(function)}
        return internals._make_function, (code, base, *rest), *self._function_state(function, values, values)

    def _function_state(self, function: Any, sent: dict[str, Any], values: dict[str, Any]) -> tuple[Any, ...]:
        """Return the state part of a function's reduction. sent: globals that are to be set along with it."""
        code, closure = function.__code__, function.__closure__
        if closure is not None and reducers.CLASS_NAMES in code.co_freevars:
            at = code.co_freevars.index(reducers.CLASS_NAMES)
            closure = (*closure[:at], reducers.names_for_annotations(closure[at], code), *closure[at + 1 :])
        annotations, annotated = reducers.annotations_of(function, has_module_globals)
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


class CallPickler(ByValuePickler):
    """Pickles names in the place of what a script defines, and records them.

    used: the names that code uses. hints: the names that only annotations mention. Both with the globals they are in.
    in_pickle: those used names that occur in the pickle itself.
    defining: the names whose values are being pickled; they are pickled as values and not as names.
    has_module_globals: the pickle holds a function whose globals are a module's in the worker.
    looks_up_main: code in it may look up names of the script that it does not mention as globals.
    """

    def __init__(
        self,
        stream: io.BytesIO,
        dispatch_table: Mapping[Any, Any],
        used: Uses,
        hints: Uses,
        buffer_callback: BufferCallback | None = None,
    ) -> None:
        super().__init__(stream, dispatch_table, buffer_callback)
        self.used = used
        self.hints = hints
        self.in_pickle: set[Key] = set()
        self.has_module_globals: bool = False
        self.looks_up_main: bool = False
        self.defining: Sequence[Key] = ()

    def reducer_override(self, value: Any) -> Any:
        """Replace functions, classes and other objects that have a name by that name."""
        kind = type(value)
        if kind is not FunctionType and kind is not _LRU_CACHE and not issubclass(kind, type):
            if kind is MethodType:
                return NotImplemented if self.defining else self._reduce_method(value)
            name, reduced = self._reduce_to_name_or_parts(value)
            return reduced if name is None else self._reduce_to_name(value, name)
        module: Any = getattr(value, "__module__", None)
        if module == internals.__name__ or module == namespaces.__name__ or module == reconstructors.__name__:
            # most objects that are not the user's; cloudpickle would examine them at length
            return NotImplemented
        origin = None if module == "builtins" else definitions.defining_globals(value, module)
        if origin is None:
            if kind is _LRU_CACHE:
                return super().reducer_override(value)
            if not self.defining:  # while a class is rebuilt, another one may not be complete
                owner = definitions.defining_class(value, module)
                if owner is not None:
                    return namespaces.class_member, (owner, value.__qualname__.partition(".")[2])
            module_name = definitions.module_of_globals(value.__globals__) if kind is FunctionType else None
            return (
                super().reducer_override(value)
                if module_name is None
                else self._reduce_with_module_globals(value, module_name)
            )
        key = definitions.key_of(value, module)
        if key not in self.defining:
            self.used[key] = origin
            self.in_pickle.add(key)
            return namespaces.lookup, key
        if kind is FunctionType:
            reduced = self._dynamic_function_reduce(value)
        elif kind is _LRU_CACHE:
            reduced = _reduce_lru_cache(value)
        else:
            reduced = reduce_class(value, key)
            self._record_hints(key[0], origin, value)
        make, arguments, *rest = reduced
        return namespaces.define, (*key, definitions.id_of(value), make, *arguments), *rest

    def _reduce_method(self, method: Any) -> Any:
        """Reduce a method to an attribute of its object, as pickle does, if its class has a name."""
        function = method.__func__
        name = getattr(function, "__name__", "")
        owner = definitions.defining_class(function, getattr(function, "__module__", None))
        if owner is None or getattr(method.__self__, name, None) != method:
            return NotImplemented
        return getattr, (method.__self__, name)

    def _reduce_to_name(self, value: Any, name: str) -> Any:
        """Reduce an object to its name in a script, if it says so itself and is found there."""
        module = getattr(value, "__module__", None) or "__main__"
        names = definitions.globals_of(module)
        root, _, path = name.partition(".")
        if names is None or root not in names:
            return name  # pickle finds it, or raises the right error
        owner = names[root]
        if (reconstructors.get_attribute(owner, path) if path else owner) is not value:
            return name
        key = definitions.canonical_name(module), root
        if key in self.defining:
            return self._reduce_value_of_name(value, (key[0], name))
        if path:
            return reconstructors.get_attribute, (owner, path)
        self.used[key] = names
        self.in_pickle.add(key)
        return namespaces.lookup, key

    def _reduce_value_of_name(self, value: Any, key: Key) -> tuple[Any, ...]:
        """Reduce an object that would reduce to its name, because it is to become the value of that name."""
        kind: Any = type(value)
        if kind.__module__ == "typing" and kind.__name__ == "TypeAliasType":
            stream = io.BytesIO()
            inner = CallPickler(stream, self._dispatch_table, self.used, self.hints)
            inner.dump(value.__value__)
            return reconstructors.make_type_alias, (key, value.__type_params__, stream.getvalue())
        if kind.__module__ == "builtins" and kind.__name__ == "sentinel":
            return reconstructors.make_sentinel, (key, repr(value))
        return copyreg.__newobj__, (kind,), value.__getstate__()  # type: ignore[attr-defined]

    def _dynamic_function_reduce(self, function: Any) -> tuple[Any, ...]:
        module_name = definitions.module_of_globals(function.__globals__)
        return (
            super()._dynamic_function_reduce(function)
            if module_name is None
            else self._reduce_with_module_globals(function, module_name)
        )

    def _reduce_with_module_globals(self, function: Any, module_name: str) -> tuple[Any, ...]:
        """Reduce a function whose globals are a module's: the module's name takes their place."""
        names = function.__globals__
        mentioned = globals_used_by(function)
        recorded = self.hints if reducers.is_annotate(function) else self.used
        for name in mentioned:
            recorded[module_name, name] = names
        self._record_hints(module_name, names, function)
        self.has_module_globals = True
        if module_name == "__main__":
            self.looks_up_main = self.looks_up_main or reducers.looks_up_main(function.__code__)
        code, base, _, _, closure = self._function_getnewargs(function)
        arguments = module_name, code, base, closure
        return (
            namespaces.make_function,
            arguments,
            *self._function_state(function, {}, {n: names[n] for n in mentioned}),
        )

    def _record_hints(self, module_name: str, names: dict[str, Any], annotated: Any) -> None:
        """Record the names in annotations that are text, as after `from __future__ import annotations`."""
        for name in reducers.names_in_annotations(annotated):
            if name in names:
                self.hints[module_name, name] = names


class ResultPickler(ByValuePickler):
    """Pickles by value, but replaces what came from the host by its id or its name there."""

    def reducer_override(self, value: Any) -> Any:
        """Replace objects that have an id or a name in the host."""
        kind = type(value)
        if kind is FunctionType or kind is _LRU_CACHE or issubclass(kind, type):
            number = namespaces.definition_id_of(value)
            if number is not None:
                return definitions.definition_by_id, (number,)
            name = definitions.name_in_script(value)
            if name is not None:
                return definitions.definition_by_name, (name,)
            return super().reducer_override(value)
        name, reduced = self._reduce_to_name_or_parts(value)
        if name is None:
            return reduced
        names = namespaces.globals_by_module.get(
            definitions.canonical_name(getattr(value, "__module__", None) or "__main__"), {}
        )
        return (definitions.definition_by_name, (name,)) if names.get(name) is value else name


def _is_importable(kind: type) -> bool:
    return internals._should_pickle_by_reference(kind)  # type: ignore[no-any-return]


def _is_importable_cache(value: Any) -> bool:
    found = internals._lookup_module_and_qualname(value)
    return found is not None and not internals._is_registered_pickle_by_value(found[0])


def globals_used_by(function: Any) -> list[str]:
    """Return the globals that a function's code mentions and that exist."""
    code = function.__code__
    mentioned: Any = internals._extract_code_globals(code)
    if reducers.is_annotate(function):
        # Names are looked up differently in the body of a class, which cloudpickle does not take into account.
        mentioned = {**dict.fromkeys(code.co_names), **mentioned}
    return [name for name in mentioned if name in function.__globals__]


def _reduce_lru_cache(value: Any) -> tuple[Any, ...]:
    parameters = value.cache_parameters()
    return reconstructors.make_lru_cache, (value.__wrapped__, parameters["maxsize"], parameters["typed"])


_cached_table: tuple[object, dict[Any, Any]] | None = None


def dispatch_table(resources: ResourceReducers | None = None) -> dict[Any, Any]:
    """Return cloudpickle's reducers, ours, and all registered ones, in one table.

    resources: takes the place of those reducers that share a resource. Without it, these raise SharesResource.
    """
    global _cached_table  # noqa: PLW0603  per process; to make it twice does no harm
    if resources is not None:
        return _merged(resources.dispatch_table)
    extra = picklers.dispatch_table()
    source = dict(copyreg.dispatch_table) if extra is None else extra
    known = _cached_table
    if known is None or (known[0] is not source and known[0] != source):
        known = _cached_table = source, _merged(source)
    return known[1]


def _merged(registered: dict[Any, Any]) -> dict[Any, Any]:
    # multiprocessing's reducers of methods are for methods that are found by name, so cloudpickle's take precedence.
    return {**registered, **cloudpickle.Pickler.dispatch_table.maps[0], **reducers.REDUCERS}


def dumps_result(
    value: object, resources: ResourceReducers | None, buffer_callback: BufferCallback | None = None
) -> bytes:
    """Return the payload of a result, from a worker to the host.

    resources: see `dispatch_table`. buffer_callback: returns False for a large buffer that stays out of the pickle.

    Raises:
        Exception: whatever cannot be pickled.
    """
    return _dumps(ResultPickler, value, resources, buffer_callback)


def dumps_self_contained(
    value: object, resources: ResourceReducers | None, buffer_callback: BufferCallback | None = None
) -> bytes:
    """Return a payload that refers to no names of a script, between a host and what was forked from it."""
    return _dumps(ByValuePickler, value, resources, buffer_callback)


def _dumps(
    kind: type[ByValuePickler],
    value: object,
    resources: ResourceReducers | None,
    buffer_callback: BufferCallback | None,
) -> bytes:
    stream = io.BytesIO()
    kind(stream, dispatch_table(resources), buffer_callback).dump(value)
    return stream.getvalue()
