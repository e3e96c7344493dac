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
from pidfdpool.serialization import exception_chains, importable, picklers, plain
from pidfdpool.typed import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType
    from typing import Any

    from pidfdpool.transport.framing import Buffer

MADE_BY_VALUE = b"_class_setstate"  # in the pickle of a class that travels by value


_NEEDS_SCRIPT = _BY_NAMING = 1  # the last byte of such payloads, and the largest last byte of any that names are in


class Sink(Protocol):
    """What is pickled into, if not into one bytes object: a file for picklers that also takes large buffers."""

    def write(self, piece: Buffer, /) -> object:
        """Take the next piece of the pickle."""

    def leave_out(self, buffer: pickle.PickleBuffer, /) -> bool:
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


class AllShared(SharedMain):
    """The same seen from a worker: whatever its `__main__` holds came from the host."""

    def __init__(self) -> None:
        super().__init__(None)

    def covers(self, _value: Any) -> bool:
        """Return True: the worker's own `__main__` is a copy of the host's."""
        return True


class Arrived(SharedMain):
    """The same seen from a worker that is a fresh interpreter: what came from the host is known there by number."""

    def __init__(self) -> None:
        super().__init__(None)


class _MainIsNotShared(Exception):
    """Stops the pickling by reference of something that the other side lacks."""


class _CheckingPickler(pickle.Pickler):
    """Pickles by reference, but nothing of `__main__` that is not shared."""

    shared: SharedMain

    def reducer_override(self, value: Any) -> Any:
        """Refuse what is not shared; otherwise leave it to pickle."""
        of_main = getattr(value, "__module__", None) == "__main__" and hasattr(value, "__qualname__")
        if of_main and not self.shared.covers(value):
            raise _MainIsNotShared
        return NotImplemented


def dumps(value: object, shared: SharedMain | None = None, once: picklers.Once | None = None) -> list[Buffer]:
    """Return the payload of any object. What the caller does to the object afterwards does not change it.

    once: reducers for an object that shares something with whoever gets it. Default: new ones, if it does.

    Raises:
        Exception: whatever the object's own reduction raised, pickle.PicklingError and TypeError most often.
    """
    try:
        data = picklers.pickled(value) if once is None else once.pickled(value)
        if picklers.STACK_GLOBAL not in data or (len(data) >= plain.LONG and plain.is_plain(value, len(data))):
            return [data]  # nothing in it is looked up by its name, or by none that matters
        # What neither name can be in is searched once only.
        if b"main__" not in data or (b"__main__" not in data and b"__mp_main__" not in data):
            strangers = importable.strangers()
            return [
                _by_name_or_value(data, value, shared, once) if strangers and _mentions(data, strangers) else data
            ]
        if shared is not None and not isinstance(shared, Arrived):
            return [pickled_by_reference(value, shared, once)]
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
            return [_cloudpickled(value, shared, once)]
        except picklers.SharesResource:
            if once is not None:
                raise
    with picklers.Once() as once:
        return dumps(value, shared, once)


def loads(buffers: Sequence[Buffer]) -> Any:
    """Rebuild the object of a payload. Runs the object's own code: anything may be raised."""
    data = buffers[0]
    return pickle.loads(data) if data[-1] > _BY_NAMING and len(buffers) == 1 else _load(data, buffers[1:])


def needs_script(buffers: Sequence[Any]) -> bool:
    """Return whether only a worker can rebuild this that has what running the host's script again makes."""
    if type(buffers) is list:
        return bool(buffers[0][-1] == _NEEDS_SCRIPT)
    # What lies in a segment is not here, but its last byte.
    return bool(getattr(buffers, "last_byte", buffers[0][-1]) == _NEEDS_SCRIPT)


def _load(data: Buffer, left_out: Sequence[Buffer] = ()) -> Any:
    if data[-1] <= _BY_NAMING:
        # No pickle ends with such a byte, but what `script_calls` has made does. Not every worker gets such.
        from pidfdpool.serialization import namespaces

        return namespaces.load(data, map(_writable, left_out))
    if not left_out:
        return pickle.loads(data)
    return pickle.loads(data, buffers=map(_writable, left_out))


def _writable(buffer: Buffer) -> Buffer:
    # What came over a channel may be a slice of what was read. In a segment it is writable anyway.
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
    if type(data) is memoryview or picklers.STACK_GLOBAL not in data or MADE_BY_VALUE not in data:
        return loads(buffers)
    return _load_sparingly(buffers[0], buffers[1:])


def _load_sparingly(data: Buffer, left_out: Sequence[Buffer] = ()) -> Any:
    return _SparingUnpickler(io.BytesIO(data), left_out).load()


class _SparingUnpickler(pickle.Unpickler):
    """Fills the classes that it makes, and leaves those alone that were there before."""

    def __init__(self, stream: io.BytesIO, left_out: Sequence[Buffer]) -> None:
        super().__init__(stream, buffers=map(_writable, left_out))
        self._sparing = Sparing()

    def find_class(self, module: str, name: str) -> Any:
        """Put `Sparing` in between."""
        return self._sparing.instead_of(module, name, super().find_class(module, name))


class Sparing:
    """Comes between cloudpickle's own functions and what they do to classes. One for each unpickler."""

    def __init__(self) -> None:
        self._spared: set[type] = set()

    def instead_of(self, module: str, name: str, found: Any) -> Any:
        """Return what is to be used in the place of what the pickle names."""
        if module == "cloudpickle.cloudpickle":
            if name in ("_make_skeleton_class", "_make_skeleton_enum"):
                return partial(self._make, found)
            if name == "_class_setstate":
                return partial(self._fill, found)
        return partial(_load_either, load=_load_sparingly) if found is _load_either else found

    def _make(self, make: Callable[..., type], *arguments: Any) -> type:
        from cloudpickle import cloudpickle

        # The class's id is followed by `extra` only.
        there: type | None = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(arguments[-2])
        if there is None:
            return make(*arguments)
        self._spared.add(there)
        return there

    def _fill(self, fill: Callable[[type, Any], type], kind: type, state: Any) -> type:
        return kind if kind in self._spared else fill(kind, state)


def pickled_by_reference(
    value: object, shared: SharedMain, once: picklers.Once | None = None, into: Sink | None = None
) -> bytes:
    """Return the pickle of an object, or write it, if nothing in it is the host's alone; raise otherwise."""
    stream = io.BytesIO()
    leave_out = None if into is None else into.leave_out
    target = stream if into is None else into
    table = picklers.table() if once is None else once.table
    pickler = picklers.taught(_CheckingPickler(target, picklers.PROTOCOL, buffer_callback=leave_out), table)
    pickler.shared = shared
    pickler.dump(value)
    return stream.getvalue()


def _mentions(data: bytes, modules: tuple[ModuleType, ...]) -> bool:
    return any(_encoded(module) in data for module in modules)


def _encoded(module: ModuleType) -> bytes:
    return module.__name__.encode("utf-8", "replace")


def _by_name_or_value(by_name: bytes, value: object, shared: SharedMain | None, once: picklers.Once | None) -> bytes:
    """Return a pickle which is rebuilt by name where that works, and by value where those modules are not found.

    By name comes first, because an initializer, a preload or a fork may have brought the module into the workers.
    """
    try:
        return picklers.pickled(_Either(by_name, _cloudpickled(value, shared, once)))
    except Exception:
        return by_name


class _Either:
    """Two pickles of one object."""

    def __init__(self, by_name: bytes, by_value: bytes) -> None:
        self._pickles = by_name, by_value

    def __reduce__(self) -> tuple[Callable[[bytes, bytes], Any], tuple[bytes, bytes]]:
        return _load_either, self._pickles


def _load_either(by_name: bytes, by_value: bytes, load: Callable[[bytes], Any] = _load) -> Any:
    try:
        return load(by_name)
    except (ImportError, AttributeError):
        return load(by_value)


def _cloudpickled(
    value: object, shared: SharedMain | None, once: picklers.Once | None = None, into: Sink | None = None
) -> bytes:
    import cloudpickle

    for module in importable.strangers():
        # For good: other threads may be pickling, too. And whoever else uses cloudpickle in this process could not
        # send anything of such a module by name either.
        with suppress(ValueError):  # it is not loaded any more
            cloudpickle.register_pickle_by_value(module)
    # In a process that multiprocessing spawned, the user's script is called __mp_main__, and cloudpickle takes
    # that for a module which any process could import.
    script = sys.modules.get("__mp_main__")
    if script is None or script.__name__ in cloudpickle.list_registry_pickle_by_value():
        return _by_value(value, shared, once, into)
    cloudpickle.register_pickle_by_value(script)
    try:
        return _by_value(value, shared, once, into)
    finally:
        cloudpickle.unregister_pickle_by_value(script)


def _by_value(value: object, shared: SharedMain | None, once: picklers.Once | None, into: Sink | None) -> bytes:
    from pidfdpool.serialization import by_value as naming
    from pidfdpool.serialization import script_calls

    leave_out = None if into is None else into.leave_out
    if shared is None:
        data = script_calls.dumps(value, once, leave_out)
    elif isinstance(shared, Arrived):
        data = naming.dumps_result(value, once, leave_out)
    else:
        data = naming.dumps_whole(value, once, leave_out)
    if into is not None:
        into.write(data)
    return data


# ---- exceptions --------------------------------------------------------------------------------------------


def dump_error(error: BaseException, shared: SharedMain | None = None) -> list[Buffer]:
    """Return the payload of an exception with its traceback as text. Never raises an Exception."""
    text = _formatted(error)
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
        return _caused(PayloadError(f"the exception that the task raised cannot be pickled:\n{text}"), cause)
    try:
        error = load_result(buffers[:1])
        if not issubclass(type(error), BaseException):  # not isinstance, which believes its `__class__`
            raise TypeError(f"it was rebuilt as {describe.type_name(error)}, which is not an exception")
    except BaseException as failure:
        told = f"the exception that the task raised cannot be unpickled ({describe.said(failure)}):\n{text}"
        return _caused(PayloadError(told), failure)
    return _caused(error, cause)


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    # Not by plain assignment: a frozen dataclass, say, refuses to be assigned to.
    BaseException.__dict__["__cause__"].__set__(error, cause)
    return error


def _formatted(error: BaseException) -> str:
    import traceback

    # Not by attribute access, which may be the user's own code.
    trace = BaseException.__dict__["__traceback__"].__get__(error)
    try:
        return "".join(traceback.format_exception(type(error), error, trace))
    except BaseException:  # one of its attributes, or of its causes, raises: what is its own can be told all the same
        stack = "".join(traceback.format_tb(trace))
        return f"Traceback (most recent call last):\n{stack}{describe.said(error)}\n"
