"""Objects <-> buffers: how calls, results and exceptions cross between the host and a worker.

Used in the host by the submitting thread (dump) and the pool thread (load), in a worker by its only thread, in the
template never: no object of the user's is rebuilt there. No state, so thread- and fork-safe.

Plain pickle, protocol 5, comes first because it is fast; it knows what `multiprocessing` has taught its own
pickler (connections, sockets, ...). cloudpickle takes over, by value, when that fails (lambdas, closures) or when
the bytes mention `__main__`: a worker has a `__main__` of its own and would look up names in the wrong module.
A mere string "__main__" costs a little time and does no harm.

A payload is a list of buffers. Today there is one, with everything in it; out-of-band buffers (PEP 574) would
follow it, and everything else already passes lists on.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections import ChainMap
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from pidfdpool import findable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from pidfdpool.wire import Buffer

PROTOCOL = 5


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


def dumps(value: object, shared: SharedMain | None = None) -> list[Buffer]:
    """Return the payload of any object. What the caller does to the object afterwards does not change it.

    Raises:
        Exception: whatever the object's own reduction raised, pickle.PicklingError and TypeError most often.
    """
    try:
        data = _pickled(value, pickle.Pickler)
        if b"__main__" not in data and b"__mp_main__" not in data:
            strangers = findable.strangers()
            return [_by_name_or_value(data, value) if _mentions(data, strangers) else data]
        if shared is not None:
            return [_pickled(value, _CheckingPickler, shared)]
    except MemoryError:
        raise
    except Exception:  # a lambda, a closure, something of __main__: cloudpickle's own error is the better one
        pass
    return [_cloudpickled(value)]


def loads(buffers: Sequence[Buffer]) -> Any:
    """Rebuild the object of a payload. Runs the object's own code: anything may be raised."""
    return pickle.loads(buffers[0])


def load_result(buffers: Sequence[Buffer]) -> Any:
    """Do as `loads`, in the host, whose classes stay as they are.

    A class that travelled by value comes back with every object of it, together with all that it held in the worker.
    cloudpickle knows it again, so the object is of the host's own class; but then it sets each of that class's
    attributes to what came back. What the host did to its class since the submit would be undone, and whatever list
    or cache it holds be replaced by a copy. No module's class is touched by a result, so this one is not either.
    """
    if b"_class_setstate" not in buffers[0]:
        return pickle.loads(buffers[0])
    return _load_sparingly(buffers[0])


def _load_sparingly(data: Buffer) -> Any:
    return _SparingUnpickler(io.BytesIO(data)).load()


class _SparingUnpickler(pickle.Unpickler):
    """Fills the classes that it makes, and leaves those alone that were there before."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self._spared: set[type] = set()

    def find_class(self, module: str, name: str) -> Any:
        """Put itself between cloudpickle's own functions and what they do to classes."""
        found = super().find_class(module, name)
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


def _pickled(value: object, kind: type[pickle.Pickler], shared: SharedMain | None = None) -> bytes:
    table = _reductions()
    if table is None and kind is pickle.Pickler:
        return pickle.dumps(value, PROTOCOL)  # the same, in one call
    stream = io.BytesIO()
    pickler = kind(stream, PROTOCOL)
    if shared is not None and isinstance(pickler, _CheckingPickler):
        pickler.shared = shared
    if table is not None:
        pickler.dispatch_table = table
    pickler.dump(value)
    return stream.getvalue()


def _mentions(data: bytes, modules: tuple[ModuleType, ...]) -> bool:
    return bool(modules) and any(module.__name__.encode("utf-8", "replace") in data for module in modules)


def _by_name_or_value(by_name: bytes, value: object) -> bytes:
    """Return a pickle which is rebuilt by name where that works, and by value where those modules are not found.

    By name comes first, because an initializer, a preload or a fork may have brought the module into the workers.
    """
    try:
        return _pickled(_Either(by_name, _cloudpickled(value)), pickle.Pickler)
    except Exception:
        return by_name


class _Either:
    """Two pickles of one object."""

    def __init__(self, by_name: bytes, by_value: bytes) -> None:
        self._pickles = by_name, by_value

    def __reduce__(self) -> tuple[Callable[[bytes, bytes], Any], tuple[bytes, bytes]]:
        return _load_either, self._pickles


def _load_either(by_name: bytes, by_value: bytes, load: Callable[[bytes], Any] = pickle.loads) -> Any:
    try:
        return load(by_name)
    except (ImportError, AttributeError):
        return load(by_value)


def _cloudpickled(value: object) -> bytes:
    import cloudpickle

    stream = io.BytesIO()
    pickler = cloudpickle.Pickler(stream, protocol=PROTOCOL)
    table = _reductions()
    if table is not None:
        pickler.dispatch_table = ChainMap(*cloudpickle.Pickler.dispatch_table.maps, table.maps[0])
    for module in findable.strangers():
        # For good: other threads may be pickling, too. And whoever else uses cloudpickle in this process could not
        # send anything of such a module by name either.
        with suppress(ValueError):  # it is not loaded any more
            cloudpickle.register_pickle_by_value(module)
    # In a process that multiprocessing spawned, the user's script is called __mp_main__, and cloudpickle takes
    # that for a module which any process could import.
    script = sys.modules.get("__mp_main__")
    if script is None or script.__name__ in cloudpickle.list_registry_pickle_by_value():
        pickler.dump(value)
        return stream.getvalue()
    cloudpickle.register_pickle_by_value(script)
    try:
        pickler.dump(value)
    finally:
        cloudpickle.unregister_pickle_by_value(script)
    return stream.getvalue()


_table: ChainMap[Any, Any] | None = None


def _reductions() -> ChainMap[Any, Any] | None:
    """Return multiprocessing's reducers over copyreg's, or None where multiprocessing is not loaded."""
    global _table  # noqa: PLW0603  both dictionaries are live, so the view over them is made once
    if _table is None:
        reduction = sys.modules.get("multiprocessing.reduction")
        if reduction is None:
            return None
        import copyreg

        _table = ChainMap(reduction.ForkingPickler._extra_reducers, copyreg.dispatch_table)
    return _table


# ---- exceptions --------------------------------------------------------------------------------------------


def dump_error(error: BaseException, shared: SharedMain | None = None) -> list[Buffer]:
    """Return the payload of an exception with its traceback as text. Never raises an Exception."""
    text = _formatted(error)
    try:
        return [dumps(error, shared)[0], text.encode("utf-8", "backslashreplace")]
    except BaseException as failure:
        why = f"{type(failure).__name__}: {_said(failure)}"
        return [b"", f"{text}\n(not pickled: {why})".encode("utf-8", "backslashreplace")]


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
        error = load_result(buffers)
        if not isinstance(error, BaseException):
            raise TypeError(f"it was rebuilt as {type(error).__name__}, which is not an exception")
    except BaseException as failure:
        why = f"{type(failure).__name__}: {_said(failure)}"
        told = f"the exception that the task raised cannot be unpickled ({why}):\n{text}"
        return _caused(PayloadError(told), failure)
    return _caused(error, cause)


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    # Not by plain assignment: a frozen dataclass, say, refuses to be assigned to.
    BaseException.__dict__["__cause__"].__set__(error, cause)
    return error


def _formatted(error: BaseException) -> str:
    import traceback

    try:
        return "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except BaseException as failure:
        return f"{type(error).__name__} (its traceback cannot be formatted: {type(failure).__name__})\n"


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return "(it has no text)"
