"""Picklers that also know what `multiprocessing` has taught its own: connections, sockets, locks, whatever registers.

Where multiprocessing is loaded, which it is in every host, `pickle.dumps` will not do: a pickler of one's own needs
the table of those reducers. To make one, and something for it to write into, takes longer than to pickle a small
call. So picklers are kept and used again.

Any thread, and any code that interrupts one, takes a pickler for itself; both steps, taking and putting back, are
atomic. One that has failed is not put back: nobody knows what it is in the middle of.
"""

from __future__ import annotations

import _pickle as pickle
import copyreg
import io
import sys
from _thread import get_ident
from contextlib import suppress
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, TypeAlias, TypeVar

    Table: TypeAlias = dict[type, Any]
    P = TypeVar("P", bound=pickle.Pickler)

PROTOCOL = 5
STACK_GLOBAL = b"\x93"  # since protocol 4 the only way in which a pickle names a global (pickletools.dis)
_MAX_REUSED_PARTS = 3  # parts of a reduced object; behind these come iterators, which can be read once
_MAX_KEPT = 4096  # bytes; after more than that a pickler's memory would be larger than what is mostly needed


# Reducers of multiprocessing's that do nothing but to look at the object, by module and name.
_WITHOUT_EFFECT = frozenset(
    {
        ("multiprocessing.reduction", "_reduce_method"),
        ("multiprocessing.reduction", "_reduce_method_descriptor"),
        ("multiprocessing.reduction", "_reduce_partial"),
        ("multiprocessing.managers", "reduce_array"),
        ("multiprocessing.managers", "rebuild_as_list"),
    }
)


class SharesResource(pickle.PicklingError):
    """An object that each pickle shares anew: a socket, a connection, a tensor."""


def _raise_shares_resource(value: object) -> Any:
    raise SharesResource(
        f"cannot pickle {type(value).__qualname__!r} object here: each time that it is pickled a descriptor, or the "
        "like, is shared anew; pass it as an argument"
    )


class _Tables:
    """multiprocessing's reducers over copyreg's, in one table, and picklers that go by it.

    dispatch_table: all of them.
    harmless: those that may be called for nothing. The others raise SharesResource.
    """

    def __init__(self, extra: Table) -> None:
        self._extra = extra  # live, as copyreg's
        self._snapshot = dict(extra), dict(copyreg.dispatch_table)
        self.dispatch_table: Table = {**copyreg.dispatch_table, **extra}
        self.sharing: Table = {kind: reduce for kind, reduce in extra.items() if not _is_without_effect(reduce)}
        self.without_effect: Table = {**self.dispatch_table, **dict.fromkeys(self.sharing, _raise_shares_resource)}
        self._idle: list[tuple[pickle.Pickler, io.BytesIO]] = []

    def is_current(self) -> bool:
        """Return whether nobody has registered anything since."""
        extra, registered = self._snapshot
        return extra == self._extra and registered == copyreg.dispatch_table

    def dumps(self, value: object) -> bytes:
        """Return the pickle of an object."""
        try:
            pickler, stream = pair = self._idle.pop()
        except IndexError:
            stream = io.BytesIO()
            pickler = pickle.Pickler(stream, PROTOCOL)
            pickler.dispatch_table = self.without_effect
            pair = pickler, stream
        pickler.dump(value)
        data = stream.getvalue()
        if len(data) <= _MAX_KEPT:
            pickler.clear_memo()
            stream.seek(0)
            stream.truncate()
            self._idle.append(pair)
        return data


_tables: _Tables | None = None


def _current_tables() -> _Tables | None:
    global _tables  # noqa: PLW0603  what was last seen, per process
    reducers = _tables
    if reducers is None or not reducers.is_current():
        reduction: Any = sys.modules.get("multiprocessing.reduction")
        if reduction is None:
            return None
        reducers = _tables = _Tables(reduction.ForkingPickler._extra_reducers)
    return reducers


def _is_without_effect(reduce: Any) -> bool:
    return (getattr(reduce, "__module__", None), getattr(reduce, "__qualname__", None)) in _WITHOUT_EFFECT


def dispatch_table() -> Table | None:
    """Return reducers that may be called for nothing, for a pickler of one's own; None: the ordinary ones will do.

    For the types of other reducers there are some that raise SharesResource.
    """
    reducers = _current_tables()
    return None if reducers is None else reducers.without_effect


def with_reducers(pickler: P, reducers: Mapping[Any, Any] | None) -> P:
    """Return the pickler, which goes by these reducers from now on. None: it stays as it is."""
    if reducers is not None:
        # By assignment a class with an attribute of that name (cloudpickle's) would keep it from the pickler.
        pickle.Pickler.dispatch_table.__set__(pickler, reducers)  # type: ignore[attr-defined]
    return pickler


def dumps(value: object) -> bytes:
    """Return the pickle of any object that shares nothing with whoever gets it.

    Raises:
        SharesResource: it does; see `Once`.
        Exception: whatever its own reduction raised.
    """
    reducers = _current_tables()
    return pickle.dumps(value, PROTOCOL) if reducers is None else reducers.dumps(value)


shared_resources: dict[
    int, list[Any]
] = {}  # by thread: what it has shared since it last asked, see `take_handed_over`


class ResourceReducers:
    """All reducers, for what is delivered once, in whichever of several ways it can be pickled in the end.

    To reduce a socket, a connection or a tensor has an effect: multiprocessing duplicates a descriptor, and keeps it
    until somebody has fetched it. So each of these is reduced once, however often it is pickled. As a context
    manager it takes that back if an exception is raised. One per payload, for one thread.
    """

    def __init__(self) -> None:
        self._reduced: dict[int, tuple[object, Any]] = {}
        self.dispatch_table: Table = dict(copyreg.dispatch_table)
        reducers = _current_tables()
        if reducers is not None:
            own = {kind: partial(self._reduce, reduce) for kind, reduce in reducers.sharing.items()}
            self.dispatch_table = {**reducers.dispatch_table, **own}

    def __enter__(self) -> ResourceReducers:
        """Return itself."""
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Close what nobody is going to fetch, if there was an exception; otherwise note what is to be fetched."""
        shared = [reduced for _object, reduced in self._reduced.values()]
        self._reduced.clear()
        if kind is not None:
            close_unfetched(shared)
        else:
            shared_resources.setdefault(get_ident(), []).extend(shared)

    def dumps(self, value: object) -> bytes:
        """Do as the function of that name, whatever the object shares."""
        stream = io.BytesIO()
        with_reducers(pickle.Pickler(stream, PROTOCOL), self.dispatch_table).dump(value)
        return stream.getvalue()

    def _reduce(self, reduce: Any, value: object) -> Any:
        known = self._reduced.get(id(value))
        if known is not None:
            return known[1]
        reduced = reduce(value)
        if type(reduced) is tuple and len(reduced) <= _MAX_REUSED_PARTS:
            self._reduced[id(value)] = value, reduced  # the object, so that no other one comes to have its id
        return reduced


def pop_shared_resources() -> list[Any]:
    """Return what this thread has shared since it last asked. For who first looks whether `handed_over` is empty."""
    return shared_resources.pop(get_ident(), [])


def close_unfetched(shared: Any) -> None:
    """Have multiprocessing close the duplicates in what reducers returned (multiprocessing/resource_sharer.py).

    Its own thread takes them out of the same dictionary in the same way, so each is closed once. Those that were
    fetched are not there any more.
    """
    for key, cache in _cache_entries(shared):
        with suppress(KeyError):
            _, close = cache.pop(key)
            close()


def are_fetched(shared: Any) -> bool:
    """Return whether all that reducers have shared was fetched."""
    return all(key not in cache for key, cache in _cache_entries(shared))


def _cache_entries(shared: Any) -> Iterator[tuple[int, dict[int, Any]]]:
    sharing: Any = sys.modules.get("multiprocessing.resource_sharer")
    if sharing is None:
        return
    waiting = [shared]
    while waiting:
        part = waiting.pop()
        if type(part) in (tuple, list):
            waiting.extend(part)
        elif isinstance(part, sharing.DupFd):
            with suppress(AttributeError):  # these are private names
                yield part._id[1], sharing._resource_sharer._cache
