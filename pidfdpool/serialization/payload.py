"""Converts calls, results and exceptions to buffers and back: a *payload* is what travels between host and worker.

The host dumps on the thread that submits and loads on the pool thread. A worker does both on its only thread. The
template loads only what it preloads. The module holds no state, so it is thread-safe and fork-safe.

Plain pickle, protocol 5, is tried first because it is fast. It knows the reducers that `multiprocessing` has
registered (see `picklers`). cloudpickle pickles by value in two cases: plain pickle fails (lambdas, closures), or the
bytes mention `__main__`. A worker has a `__main__` of its own, so a name of the host's `__main__` would be looked up
in the wrong module. A mere string "__main__" costs a little time and does no harm.

A payload is a list of buffers. The first is the pickle; the others are the large out-of-band buffers (PEP 574).
`dumps` makes no out-of-band buffers and is the fastest for small objects. `serialization.out_of_band` is for objects
that may be large.
"""

from __future__ import annotations

import _pickle as pickle
import sys
from _io import BytesIO
from contextlib import suppress
from functools import partial

from pidfdpool.process import describe
from pidfdpool.serialization import exception_chains, importable, named_calls, picklers, plain_data
from pidfdpool.typed import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType
    from typing import Any

    from pidfdpool.serialization.picklers import ResourceReducers
    from pidfdpool.transport.framing import Buffer

NONE = pickle.dumps(None, picklers.PROTOCOL)  # the result of many tasks
_SCALARS = frozenset(
    {type(None), bool, int, float, str, bytes}
)  # no reducer is asked for these, and they name nothing
CLASS_BY_VALUE = b"_class_setstate"  # in the pickle of a class that travels by value


NEEDS_SCRIPT = 1  # `namespaces.NEEDS_SCRIPT`, here so that `namespaces` need not be loaded
HIGHEST_MARK = named_calls.MARK  # no pickle ends with a byte up to this one


class Sink(Protocol):
    """A target for picklers that takes the pickle in pieces, and large buffers beside it."""

    def write(self, piece: Buffer, /) -> object:
        """Take the next piece of the pickle."""

    def buffer_callback(self, buffer: pickle.PickleBuffer, /) -> bool:
        """Return False if the buffer stays out of the pickle (out of band), True if it goes into it."""


class SharedMain:
    """The part of `__main__` that host and workers share because the template was forked from the host.

    A function or class may travel by reference only if it was there at the fork, under the same name.
    """

    def __init__(self, main: ModuleType | None) -> None:
        # Comparing identities is enough: if a name is bound to the same id now as at the fork, it is bound to the
        # same object. The exception would be a deleted object whose address another object got; so functions and
        # classes are kept alive here.
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
    """`__main__` in a worker that was forked from the host: everything in it is a copy of the host's."""

    def __init__(self) -> None:
        super().__init__(None)

    def covers(self, _value: Any) -> bool:
        """Return True: the host has everything that this `__main__` holds."""
        return True


class ReceivedMain(SharedMain):
    """`__main__` in a worker that is a fresh interpreter: the host knows by id what it has sent there."""

    def __init__(self) -> None:
        super().__init__(None)


class _NotShared(Exception):
    """Ends pickling by reference at an object that the other side does not have."""


class _ByReferencePickler(pickle.Pickler):
    """Pickles by reference, and refuses objects of `__main__` that are not shared."""

    shared: SharedMain

    def reducer_override(self, value: Any) -> Any:
        """Raise for an object that is not shared; leave everything else to pickle."""
        of_main = getattr(value, "__module__", None) == "__main__" and hasattr(value, "__qualname__")
        if of_main and not self.shared.covers(value):
            raise _NotShared
        return NotImplemented


def dumps(value: object, shared: SharedMain | None = None, resources: ResourceReducers | None = None) -> list[Buffer]:
    """Return the payload of any object. Later changes to the object do not change the payload.

    shared: the part of `__main__` that the receiver has too. Default: none; this is the host of a fresh interpreter.
    resources: reducers for an object that shares a resource with the receiver. Default: new ones, if it does.

    Raises:
        Exception: whatever the object's own reduction raised, most often pickle.PicklingError and TypeError.
    """
    if type(value) in _SCALARS:
        return [NONE if value is None else pickle.dumps(value, picklers.PROTOCOL)]
    try:
        data = picklers.dumps(value) if resources is None else resources.dumps(value)
        if picklers.STACK_GLOBAL not in data or (
            len(data) >= plain_data.SEARCHED_BELOW and plain_data.is_plain(value, len(data))
        ):
            return [data]  # the pickle names no global, or none that matters
        # If even "main__" is not there, neither of the two names is, and one search was enough.
        if b"main__" not in data or (b"__main__" not in data and b"__mp_main__" not in data):
            return [
                _by_reference_or_value(data, value, shared, resources)
                if importable.mentions_unimportable(data)
                else data
            ]
        if shared is not None and not isinstance(shared, ReceivedMain):
            return [dumps_by_reference(value, shared, resources)]
        shares = False
    except MemoryError:
        raise
    except picklers.SharesResource:
        shares = True
    except Exception as error:  # a lambda, a closure, something of __main__; cloudpickle's error says more
        exception_chains.pass_over(error)  # its frames may hold the object and the error itself
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
    """Rebuild the object of a payload. This runs the object's own code, so anything may be raised."""
    data = buffers[0]
    return pickle.loads(data) if data[-1] > HIGHEST_MARK and len(buffers) == 1 else _load(data, buffers[1:])


def needs_script(buffers: Sequence[Any]) -> bool:
    """Return whether a worker can rebuild this payload only after it has run the host's script again."""
    if type(buffers) is list:
        return bool(buffers[0][-1] == NEEDS_SCRIPT)
    # The payload lies in a segment. Its buffers are not here, but its last byte is.
    return bool(getattr(buffers, "last_byte", buffers[0][-1]) == NEEDS_SCRIPT)


def _load(data: Buffer, out_of_band: Sequence[Buffer] = ()) -> Any:
    if data[-1] == named_calls.MARK:
        return named_calls.loads(data)
    if data[-1] <= HIGHEST_MARK:
        # No pickle ends with such a byte; payloads of `script_calls` do. `namespaces` is loaded only in processes
        # that get one.
        from pidfdpool.serialization import namespaces

        return namespaces.load(data, out_of_band)
    if not out_of_band:
        return pickle.loads(data)
    return pickle.loads(data, buffers=out_of_band)


def load_result(buffers: Sequence[Buffer]) -> Any:
    """Rebuild the object of a result in the host, as `loads` does, without changing the host's classes.

    A class that travelled by value comes back with every object of it, together with all its attributes in the
    worker. cloudpickle recognises the class, so the object is of the host's own class; but it then sets every
    attribute of that class to the value that came back. This would undo what the host did to its class since the
    submit, and would replace its lists and caches by copies. A result never changes a class of an importable module,
    so it must not change these classes either.
    """
    data = buffers[0]
    # A payload in a segment contains no class by value: see `out_of_band` and `worker.leased_segments`. In other
    # payloads a class needs STACK_GLOBAL, and to search for one byte is much quicker than for a name.
    if type(data) is memoryview or picklers.STACK_GLOBAL not in data or CLASS_BY_VALUE not in data:
        return pickle.loads(data) if data[-1] > HIGHEST_MARK and len(buffers) == 1 else _load(data, buffers[1:])
    return _load_guarding(buffers[0], buffers[1:])


def _load_guarding(data: Buffer, out_of_band: Sequence[Buffer] = ()) -> Any:
    return _GuardingUnpickler(BytesIO(data), out_of_band).load()


class _GuardingUnpickler(pickle.Unpickler):
    """Fills the classes that it makes, and leaves existing classes as they are."""

    def __init__(self, stream: BytesIO, out_of_band: Sequence[Buffer]) -> None:
        super().__init__(stream, buffers=out_of_band)
        self._guard = ClassGuard()

    def find_class(self, module: str, name: str) -> Any:
        """Find a global; the class guard replaces cloudpickle's functions that make and fill classes."""
        return self._guard.replacement(module, name, super().find_class(module, name))


class ClassGuard:
    """Replaces cloudpickle's functions that make and fill classes, so that existing ones stay as they are.

    One for each unpickler.
    """

    def __init__(self) -> None:
        self._existing: set[type] = set()

    def replacement(self, module: str, name: str, found: Any) -> Any:
        """Return what the unpickler is to use for the global `name` of `module`, which is `found`."""
        if module == "cloudpickle.cloudpickle":
            if name in ("_make_skeleton_class", "_make_skeleton_enum"):
                return partial(self._make, found)
            if name == "_class_setstate":
                return partial(self._fill, found)
        return partial(load_reference_or_value, load=_load_guarding) if found is load_reference_or_value else found

    def _make(self, make: Callable[..., type], *arguments: Any) -> type:
        from cloudpickle import cloudpickle

        # The class's id is the last argument but one; after it comes only `extra`.
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
    """Return the pickle of an object, or write it to the sink, if the receiver has all that it refers to.

    Raises:
        Exception: the object contains something of `__main__` that is not shared, or its reduction failed.
    """
    stream = BytesIO()
    buffer_callback = None if sink is None else sink.buffer_callback
    target = stream if sink is None else sink
    dispatch_table = picklers.dispatch_table() if resources is None else resources.dispatch_table
    pickler = picklers.with_reducers(
        _ByReferencePickler(target, picklers.PROTOCOL, buffer_callback=buffer_callback), dispatch_table
    )
    pickler.shared = shared
    pickler.dump(value)
    return stream.getvalue()


def _by_reference_or_value(
    by_reference: bytes, value: object, shared: SharedMain | None, resources: ResourceReducers | None
) -> bytes:
    """Return a pickle that is rebuilt by reference where that works, and by value where its modules are not found.

    By reference comes first, because an initializer, a preload or a fork may have brought the module into the
    workers.
    """
    try:
        return picklers.dumps(ReferenceOrValue(by_reference, dumps_by_value(value, shared, resources)))
    except Exception as error:
        exception_chains.pass_over(error)
        return by_reference


class ReferenceOrValue:
    """Two pickles of one object: by reference and by value."""

    def __init__(self, by_reference: bytes, by_value: bytes) -> None:
        self._pickles = by_reference, by_value

    def __reduce__(self) -> tuple[Callable[[bytes, bytes], Any], tuple[bytes, bytes]]:
        return load_reference_or_value, self._pickles


def load_reference_or_value(by_reference: bytes, by_value: bytes, load: Callable[[bytes], Any] = _load) -> Any:
    """Rebuild the first of two pickles, or the second where the modules of the first are not found."""
    try:
        return load(by_reference)
    except (ImportError, AttributeError):
        return load(by_value)


def dumps_by_value(
    value: object, shared: SharedMain | None, resources: ResourceReducers | None = None, sink: Sink | None = None
) -> bytes:
    """Return the pickle of an object by value, made by cloudpickle, or write it to the sink.

    Raises:
        SharesResource: the object shares a resource, and `resources` is None.
        Exception: whatever its own reduction raised.
    """
    import cloudpickle

    for module in importable.unimportable_modules():
        # They stay registered, because other threads may be pickling at the same time. No other user of cloudpickle
        # in this process could send anything of such a module by name either.
        with suppress(ValueError):  # it is no longer loaded
            cloudpickle.register_pickle_by_value(module)
    # In a process that multiprocessing spawned, the user's script is called __mp_main__. cloudpickle takes that for a
    # module which any process could import. Everywhere else that is a second name of __main__, which it knows.
    script = sys.modules.get("__mp_main__")
    if (
        script is None
        or script.__name__ == "__main__"
        or script.__name__ in cloudpickle.list_registry_pickle_by_value()
    ):
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
    """Return the payload of an exception: its pickle, and its traceback as text. Never raises an Exception."""
    text = exception_chains.format_exception(error)
    try:
        return [dumps(error, shared)[0], text.encode("utf-8", "backslashreplace")]
    except BaseException as failure:
        text = f"{text}\n(the exception could not be pickled: {describe.error_text(failure)})"
        exception_chains.drop_tracebacks(failure)
        return [b"", text.encode("utf-8", "backslashreplace")]


def load_error(buffers: Sequence[Buffer]) -> BaseException:
    """Rebuild an exception, with the remote traceback as its `__cause__`, as the standard library does.

    If it cannot be rebuilt, a PayloadError takes its place, whose text has the remote traceback and the reason.
    """
    # This is the standard library's own class, so that tools and people who know it recognise what they see.
    from pidfdpool.errors import PayloadError, _RemoteTraceback

    data, text = buffers[0], bytes(buffers[1]).decode("utf-8", "replace")
    cause: BaseException = _RemoteTraceback(text)  # type: ignore[arg-type]
    if not data:
        return exception_chains.with_cause(
            PayloadError(f"the exception that the task raised cannot be pickled:\n{text}"), cause
        )
    try:
        error = load_result(buffers[:1])
        if not issubclass(type(error), BaseException):  # not isinstance, which believes the object's `__class__`
            raise TypeError(f"it was rebuilt as {describe.type_name(error)}, which is not an exception")
    except BaseException as failure:
        text = f"the exception that the task raised cannot be unpickled ({describe.error_text(failure)}):\n{text}"
        return exception_chains.with_cause(PayloadError(text), failure)
    return exception_chains.with_cause(error, cause)
