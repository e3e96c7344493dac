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
    Uses = dict[Key, dict[str, Any]]  # which names are used, and the globals that they are in

_LRU_CACHE = functools._lru_cache_wrapper


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """cloudpickle's pickler, but with our reducers, and a table that is heeded."""

    def __init__(
        self, stream: io.BytesIO, dispatch_table: Mapping[Any, Any], buffer_callback: BufferCallback | None = None
    ) -> None:
        # cloudpickle's own takes as long as all the rest, to find out the protocol.
        _pickle.Pickler.__init__(self, stream, picklers.PROTOCOL, buffer_callback=buffer_callback)
        self.proto = picklers.PROTOCOL
        self.globals_ref: dict[int, dict[str, Any]] = {}
        picklers.with_reducers(self, dispatch_table)
        self._table = dispatch_table

    def reducer_override(self, value: Any) -> Any:
        """Reduce functions and classes, as cloudpickle does, and leave the rest to the table."""
        if type(value).__module__ == "_ctypes" and isinstance(value, type) and not _is_importable(value):
            raise _pickle.PicklingError(f"{value.__qualname__} is a type of ctypes, which does not travel by value")
        return fixed_reduction(super().reducer_override(value), value)

    def _reduce_to_name_or_parts(self, value: Any) -> tuple[str | None, Any]:
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
        values = {name: function.__globals__[name] for name in globals_used_by(function)}
        return internals._make_function, (code, base, *rest), *self._function_state(function, values, values)

    def _function_state(self, function: Any, sent: dict[str, Any], values: dict[str, Any]) -> tuple[Any, ...]:
        """Return the rest of a function's reduction. sent: globals that are to be set along with it."""
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
    """Pickles names, and notes which.

    used: the names that code uses, hints: those that only annotations mention; each with the globals it is in.
    named: those used names that stand in the pickle itself.
    at_home: a function has globals that are a module's in the worker. asks_for_main: code asks for the script itself.
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
        self.has_module_globals = self.looks_up_main = False
        self.defining: Sequence[Key] = ()

    def reducer_override(self, value: Any) -> Any:
        """Put names in the place of functions, classes and other objects that have one."""
        kind = type(value)
        if kind is not FunctionType and kind is not _LRU_CACHE and not issubclass(kind, type):
            if kind is MethodType:
                return NotImplemented if self.defining else self._reduce_method(value)
            name, reduced = self._reduce_to_name_or_parts(value)
            return reduced if name is None else self._reduce_to_name(value, name)
        module: Any = getattr(value, "__module__", None)
        if module == internals.__name__ or module == namespaces.__name__ or module == reconstructors.__name__:
            return NotImplemented  # they stand for most of what is not the user's; and cloudpickle thinks it over
        origin = None if module == "builtins" else definitions.defining_globals(value, module)
        if origin is None:
            if kind is _LRU_CACHE:
                return _reduce_lru_cache(value)
            if not self.defining:  # but a class may not be there as a whole while another one is rebuilt
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
        """Have a method found as pickle itself would do it, in an object of a class that has a name."""
        function = method.__func__
        name = getattr(function, "__name__", "")
        owner = definitions.defining_class(function, getattr(function, "__module__", None))
        if owner is None or getattr(method.__self__, name, None) != method:
            return NotImplemented
        return getattr, (method.__self__, name)

    def _reduce_to_name(self, value: Any, name: str) -> Any:
        """Put the name in the place of an object that says that this is its name in a script."""
        module = getattr(value, "__module__", None) or "__main__"
        names = definitions.globals_of(module)
        root, _, path = name.partition(".")
        if names is None or root not in names:
            return name  # pickle finds it, or says why not
        if path:
            owner = names[root]
            return (
                (reconstructors.get_attribute, (owner, path))
                if reconstructors.get_attribute(owner, path) is value
                else name
            )
        if names[root] is not value:
            return name
        key = definitions.canonical_name(module), name
        if key not in self.defining:
            self.used[key] = names
            self.in_pickle.add(key)
            return namespaces.lookup, key
        return self._reduce_value_of_name(value, key)

    def _reduce_value_of_name(self, value: Any, key: Key) -> tuple[Any, ...]:
        """Reduce what would reduce to its name, because this is to become the value of the name."""
        kind: Any = type(value)
        if kind.__module__ == "typing" and kind.__name__ == "TypeAliasType":
            stream = io.BytesIO()
            inner = CallPickler(stream, self._table, self.used, self.hints)
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
        """Put the globals' module in the place of what is in them."""
        names = function.__globals__
        mentioned = globals_used_by(function)
        noted = self.hints if reducers.is_annotate(function) else self.used
        for name in mentioned:
            noted[module_name, name] = names
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
        """Note what annotations mention that are text, as after `from __future__ import annotations`."""
        for name in reducers.names_in_annotations(annotated):
            if name in names:
                self.hints[module_name, name] = names


class ResultPickler(ByValuePickler):
    """Pickles by value, but what has come from the host by the number or the name that it has there."""

    def reducer_override(self, value: Any) -> Any:
        """Put numbers and names in the place of what has one."""
        kind = type(value)
        if kind is FunctionType or kind is _LRU_CACHE or issubclass(kind, type):
            token = namespaces.definition_id_of(value)
            if token is not None:
                return definitions.definition_by_id, (token,)
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


def globals_used_by(function: Any) -> list[str]:
    """Return the globals that a function's code mentions, as far as they are there."""
    code = function.__code__
    mentioned: Any = internals._extract_code_globals(code)
    if reducers.is_annotate(function):
        # In a class's body such names are looked up in another way, which cloudpickle does not know.
        mentioned = {**dict.fromkeys(code.co_names), **mentioned}
    return [name for name in mentioned if name in function.__globals__]


def _reduce_lru_cache(value: Any) -> tuple[Any, ...]:
    parameters = value.cache_parameters()
    return namespaces.lru_cache, (value.__wrapped__, parameters["maxsize"], parameters["typed"])


_cached_table: tuple[object, dict[Any, Any]] | None = None


def dispatch_table(resources: ResourceReducers | None = None) -> dict[Any, Any]:
    """Return the reducers of cloudpickle, ours, and those that are registered, in one table.

    once: where those come from that share something; without it, they raise.
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
    # multiprocessing's ways with methods are for those that are found by name, so cloudpickle's come before them.
    return {**registered, **cloudpickle.Pickler.dispatch_table.maps[0], **reducers.REDUCERS}


def dumps_result(
    value: object, resources: ResourceReducers | None, buffer_callback: BufferCallback | None = None
) -> bytes:
    """Return the payload of what goes from a worker to the host.

    once: see `table`. leave_out: returns False for a large buffer that is not to be in it.

    Raises:
        Exception: whatever cannot be pickled.
    """
    return _dumps(ResultPickler, value, resources, buffer_callback)


def dumps_self_contained(
    value: object, resources: ResourceReducers | None, buffer_callback: BufferCallback | None = None
) -> bytes:
    """Return the payload of what consists of no names, between a host and what was forked from it."""
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
