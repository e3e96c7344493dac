"""Objects <-> buffers: how calls, results and exceptions cross between the host and a worker.

Used in the host by the submitting thread (dump) and the pool thread (load), in a worker by its only thread, in the
template never: no object of the user's is rebuilt there. No state, so thread- and fork-safe.

Plain pickle, protocol 5, comes first because it is fast; it knows what `multiprocessing` has taught its own
pickler (see `picklers`). cloudpickle takes over, by value, when that fails (lambdas, closures) or when
the bytes mention `__main__`: a worker has a `__main__` of its own and would look up names in the wrong module.
A mere string "__main__" costs a little time and does no harm.

A payload is a list of buffers: the pickle, and after it whatever large buffers were left out of it (PEP 574). `dumps`
leaves out nothing and is the quickest for what is small; `serialization.out_of_band` is for what may be large.
"""

from __future__ import annotations

import _pickle as pickle
import io
import sys
from contextlib import suppress
from functools import partial

from pidfdpool.process import describe
from pidfdpool.serialization import exception_chains, importable, picklers, plain_data
from pidfdpool.typed import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType
    from typing import Any

    from pidfdpool.serialization.picklers import ResourceReducers
    from pidfdpool.transport.framing import Buffer

CLASS_BY_VALUE = b"_class_setstate"  # in the pickle of a class that travels by value


_NEEDS_SCRIPT = HIGHEST_MARK = 1  # the last byte of such payloads, and the largest last byte of any that names are in


class Sink(Protocol):
    """What is pickled into, if not into one bytes object: a file for picklers that also takes large buffers."""

    def write(self, piece: Buffer, /) -> object:
        """Take the next piece of the pickle."""

    def buffer_callback(self, buffer: pickle.PickleBuffer, /) -> bool:
        """Return False for a buffer that is left out of the pickle."""


class SharedMain:
    """What host and workers have in common of `__main__`, because the template was forked from the host.

    Only functions and classes that were there at the fork, under the same name, may travel by reference.
    """

    def __init__(self, main: ModuleType | None) -> None:
        # Identities suffice: a name that is bound to the same id now as then is bound to the same object, unless
        # that was deleted and another one came to live at its address; so functions and classes are kept alive.
        self._objects = {name: value for name, value in vars(main).items() if callable(value)} if main else {}

    def covers(self, value: Any) -> bool:
        """Return whether a worker finds this function or class of `__main__` under the name it has here."""
        root, _, rest = value.__qualname__.partition(".")
        found = self._objects.get(root)
        main = sys.modules.get("__main__")
        if found is None or getattr(main, root, None) is not found:
            return False
        return bool(rest) or found is value


class InheritedMain(SharedMain):
    """The same seen from a worker: whatever its `__main__` holds came from the host."""

    def __init__(self) -> None:
        super().__init__(None)

    def covers(self, _value: Any) -> bool:
        """Return True: the worker's own `__main__` is a copy of the host's."""
        return True


class ReceivedMain(SharedMain):
    """The same seen from a worker that is a fresh interpreter: what came from the host is known there by number."""

    def __init__(self) -> None:
        super().__init__(None)


class _NotShared(Exception):
    """Stops the pickling by reference of something that the other side lacks."""


class _ByReferencePickler(pickle.Pickler):
    """Pickles by reference, but nothing of `__main__` that is not shared."""

    shared: SharedMain

    def reducer_override(self, value: Any) -> Any:
        """Refuse what is not shared; otherwise leave it to pickle."""
        of_main = getattr(value, "__module__", None) == "__main__" and hasattr(value, "__qualname__")
        if of_main and not self.shared.covers(value):
            raise _NotShared
        return NotImplemented


def dumps(value: object, shared: SharedMain | None = None, resources: ResourceReducers | None = None) -> list[Buffer]:
    """Return the payload of any object. What the caller does to the object afterwards does not change it.

    once: reducers for an object that shares something with whoever gets it. Default: new ones, if it does.

    Raises:
        Exception: whatever the object's own reduction raised, pickle.PicklingError and TypeError most often.
    """
    try:
        data = picklers.dumps(value) if resources is None else resources.dumps(value)
        if picklers.STACK_GLOBAL not in data or (
            len(data) >= plain_data.SEARCHED_BELOW and plain_data.is_plain(value, len(data))
        ):
            return [data]  # nothing in it is looked up by its name, or by none that matters
        # What neither name can be in is searched once only.
        if b"main__" not in data or (b"__main__" not in data and b"__mp_main__" not in data):
            unimportable = importable.unimportable_modules()
            return [
                _by_reference_or_value(data, value, shared, resources)
                if unimportable and _mentions_any(data, unimportable)
                else data
            ]
        if shared is not None and not isinstance(shared, ReceivedMain):
            return [dumps_by_reference(value, shared, resources)]
        shares = False
    except MemoryError:
        raise
    except picklers.SharesResource:
        shares = True
    except Exception as error:  # a lambda, a closure, something of __main__: cloudpickle's error is the better one
        exception_chains.drop_tracebacks(error)  # nobody sees it, and its frames may hold the object, and themselves
        shares = False
    if not shares:
        try:
            return [dumps_by_value(value, shared, resources)]
        except picklers.SharesResource:
            if resources is not None:
                raise
    with picklers.ResourceReducers() as resources:
        return dumps(value, shared, resources)


def loads(buffers: Sequence[Buffer]) -> Any:
    """Rebuild the object of a payload. Runs the object's own code: anything may be raised."""
    data = buffers[0]
    return pickle.loads(data) if data[-1] > HIGHEST_MARK and len(buffers) == 1 else _load(data, buffers[1:])


def needs_script(buffers: Sequence[Any]) -> bool:
    """Return whether only a worker can rebuild this that has what running the host's script again makes."""
    if type(buffers) is list:
        return bool(buffers[0][-1] == _NEEDS_SCRIPT)
    # What lies in a segment is not here, but its last byte.
    return bool(getattr(buffers, "last_byte", buffers[0][-1]) == _NEEDS_SCRIPT)


def _load(data: Buffer, out_of_band: Sequence[Buffer] = ()) -> Any:
    if data[-1] <= HIGHEST_MARK:
        # No pickle ends with such a byte, but what `script_calls` has made does. Not every worker gets such.
        from pidfdpool.serialization import namespaces

        return namespaces.load(data, map(writable, out_of_band))
    if not out_of_band:
        return pickle.loads(data)
    return pickle.loads(data, buffers=map(writable, out_of_band))


def writable(buffer: Buffer) -> Buffer:
    """Return a buffer that can be written to, copied if it was bytes. One in a segment is writable anyway."""
    return bytearray(buffer) if type(buffer) is bytes else buffer


def load_result(buffers: Sequence[Buffer]) -> Any:
    """Do as `loads`, in the host, whose classes stay as they are.

    A class that travelled by value comes back with every object of it, together with all that it held in the worker.
    cloudpickle knows it again, so the object is of the host's own class; but then it sets each of that class's
    attributes to what came back. What the host did to its class since the submit would be undone, and whatever list
    or cache it holds be replaced by a copy. No module's class is touched by a result, so this one is not either.
    """
    data = buffers[0]
    # What lies in a segment mentions no class that is to be spared: see `out_of_band`. Elsewhere a class is a global,
    # and its one byte is found, or not, much more quickly than its name.
    if type(data) is memoryview or picklers.STACK_GLOBAL not in data or CLASS_BY_VALUE not in data:
        return loads(buffers)
    return _load_guarding(buffers[0], buffers[1:])


def _load_guarding(data: Buffer, out_of_band: Sequence[Buffer] = ()) -> Any:
    return _GuardingUnpickler(io.BytesIO(data), out_of_band).load()


class _GuardingUnpickler(pickle.Unpickler):
    """Fills the classes that it makes, and leaves those alone that were there before."""

    def __init__(self, stream: io.BytesIO, out_of_band: Sequence[Buffer]) -> None:
        super().__init__(stream, buffers=map(writable, out_of_band))
        self._guard = ClassGuard()

    def find_class(self, module: str, name: str) -> Any:
        """Put `Sparing` in between."""
        return self._guard.replacement(module, name, super().find_class(module, name))


class ClassGuard:
    """Comes between cloudpickle's own functions and what they do to classes. One for each unpickler."""

    def __init__(self) -> None:
        self._existing: set[type] = set()

    def replacement(self, module: str, name: str, found: Any) -> Any:
        """Return what is to be used in the place of what the pickle names."""
        if module == "cloudpickle.cloudpickle":
            if name in ("_make_skeleton_class", "_make_skeleton_enum"):
                return partial(self._make, found)
            if name == "_class_setstate":
                return partial(self._fill, found)
        return partial(load_reference_or_value, load=_load_guarding) if found is load_reference_or_value else found

    def _make(self, make: Callable[..., type], *arguments: Any) -> type:
        from cloudpickle import cloudpickle

        # The class's id is followed by `extra` only.
        there: type | None = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(arguments[-2])
        if there is None:
            return make(*arguments)
        self._existing.add(there)
        return there

    def _fill(self, fill: Callable[[type, Any], type], kind: type, state: Any) -> type:
        return kind if kind in self._existing else fill(kind, state)


def dumps_by_reference(
    value: object, shared: SharedMain, resources: ResourceReducers | None = None, sink: Sink | None = None
) -> bytes:
    """Return the pickle of an object, or write it, if nothing in it is the host's alone; raise otherwise."""
    stream = io.BytesIO()
    buffer_callback = None if sink is None else sink.buffer_callback
    target = stream if sink is None else sink
    dispatch_table = picklers.dispatch_table() if resources is None else resources.dispatch_table
    pickler = picklers.with_reducers(
        _ByReferencePickler(target, picklers.PROTOCOL, buffer_callback=buffer_callback), dispatch_table
    )
    pickler.shared = shared
    pickler.dump(value)
    return stream.getvalue()


def _mentions_any(data: bytes, modules: tuple[ModuleType, ...]) -> bool:
    return any(encoded_name(module) in data for module in modules)


def encoded_name(module: ModuleType) -> bytes:
    """Return a module's name as it stands in a pickle."""
    return module.__name__.encode("utf-8", "replace")


def _by_reference_or_value(
    by_reference: bytes, value: object, shared: SharedMain | None, resources: ResourceReducers | None
) -> bytes:
    """Return a pickle which is rebuilt by name where that works, and by value where those modules are not found.

    By name comes first, because an initializer, a preload or a fork may have brought the module into the workers.
    """
    try:
        return picklers.dumps(ReferenceOrValue(by_reference, dumps_by_value(value, shared, resources)))
    except Exception:
        return by_reference


class ReferenceOrValue:
    """Two pickles of one object."""

    def __init__(self, by_reference: bytes, by_value: bytes) -> None:
        self._pickles = by_reference, by_value

    def __reduce__(self) -> tuple[Callable[[bytes, bytes], Any], tuple[bytes, bytes]]:
        return load_reference_or_value, self._pickles


def load_reference_or_value(by_reference: bytes, by_value: bytes, load: Callable[[bytes], Any] = _load) -> Any:
    """Rebuild one of two pickles of an object: by reference, or by value where its modules are not found."""
    try:
        return load(by_reference)
    except (ImportError, AttributeError):
        return load(by_value)


def dumps_by_value(
    value: object, shared: SharedMain | None, resources: ResourceReducers | None = None, sink: Sink | None = None
) -> bytes:
    """Return the pickle of an object with what it consists of, or write it, by means of cloudpickle.

    Raises:
        SharesResource: the object shares something, and `resources` is None.
        Exception: what its own reduction raised.
    """
    import cloudpickle

    for module in importable.unimportable_modules():
        # For good: other threads may be pickling, too. And whoever else uses cloudpickle in this process could not
        # send anything of such a module by name either.
        with suppress(ValueError):  # it is not loaded any more
            cloudpickle.register_pickle_by_value(module)
    # In a process that multiprocessing spawned, the user's script is called __mp_main__, and cloudpickle takes
    # that for a module which any process could import.
    script = sys.modules.get("__mp_main__")
    if script is None or script.__name__ in cloudpickle.list_registry_pickle_by_value():
        return _dump_by_value(value, shared, resources, sink)
    cloudpickle.register_pickle_by_value(script)
    try:
        return _dump_by_value(value, shared, resources, sink)
    finally:
        cloudpickle.unregister_pickle_by_value(script)


def _dump_by_value(
    value: object, shared: SharedMain | None, resources: ResourceReducers | None, sink: Sink | None
) -> bytes:
    from pidfdpool.serialization import by_value, script_calls

    buffer_callback = None if sink is None else sink.buffer_callback
    if shared is None:
        data = script_calls.dumps(value, resources, buffer_callback)
    elif isinstance(shared, ReceivedMain):
        data = by_value.dumps_result(value, resources, buffer_callback)
    else:
        data = by_value.dumps_self_contained(value, resources, buffer_callback)
    if sink is not None:
        sink.write(data)
    return data


# ---- exceptions --------------------------------------------------------------------------------------------


def dump_error(error: BaseException, shared: SharedMain | None = None) -> list[Buffer]:
    """Return the payload of an exception with its traceback as text. Never raises an Exception."""
    text = exception_chains.format_exception(error)
    try:
        return [dumps(error, shared)[0], text.encode("utf-8", "backslashreplace")]
    except BaseException as failure:
        told = f"{text}\n(not pickled: {describe.said(failure)})"
        exception_chains.drop_tracebacks(failure)
        return [b"", told.encode("utf-8", "backslashreplace")]


def load_error(buffers: Sequence[Buffer]) -> BaseException:
    """Rebuild an exception, with the remote traceback as its `__cause__`, as the standard library does.

    One that cannot be rebuilt is replaced by a PayloadError that holds everything there is to know.
    """
    # The standard's own class, so that tools and people who know it recognise what they see.
    from concurrent.futures.process import _RemoteTraceback

    from pidfdpool.errors import PayloadError

    data, text = buffers[0], bytes(buffers[1]).decode("utf-8", "replace")
    cause: BaseException = _RemoteTraceback(text)  # type: ignore[arg-type]
    if not data:
        return exception_chains.with_cause(
            PayloadError(f"the exception that the task raised cannot be pickled:\n{text}"), cause
        )
    try:
        error = load_result(buffers[:1])
        if not issubclass(type(error), BaseException):  # not isinstance, which believes its `__class__`
            raise TypeError(f"it was rebuilt as {describe.type_name(error)}, which is not an exception")
    except BaseException as failure:
        told = f"the exception that the task raised cannot be unpickled ({describe.said(failure)}):\n{text}"
        return exception_chains.with_cause(PayloadError(told), failure)
    return exception_chains.with_cause(error, cause)
