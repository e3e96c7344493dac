"""Picklers that know the reducers which `multiprocessing` and other libraries have registered.

multiprocessing has reducers for connections, sockets, locks and more, in a table of its own. Once it is loaded, which
it is in every host, `pickle.dumps` is not enough: only a pickler object can be given that table. To make a pickler,
and a stream for it to write to, takes longer than to pickle a small call. So picklers are kept and used again.

Called by `payload` and `out_of_band` on any thread. Each thread, and any code that interrupts one, takes a pickler
for itself; taking and putting back are atomic steps. A pickler that has failed is not put back, because its state is
not known.
"""

from __future__ import annotations

import _pickle as pickle
import copyreg
import sys
from _io import BytesIO
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
STACK_GLOBAL = b"\x93"  # since protocol 4 the only opcode by which a pickle names a global (pickletools.dis)
_MAX_REUSED_PARTS = 3  # of a reduced object's tuple; the parts after these are iterators, which can be read only once
_MAX_KEPT = 4096  # bytes of a pickle; after a larger one the pickler's memory would be larger than most calls need


# multiprocessing's reducers that only look at the object and have no effect, by module and name.
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
    """Each pickle of this object shares something anew: a socket, a connection, a tensor."""


def _raise_shares_resource(value: object) -> Any:
    raise SharesResource(
        f"cannot pickle {type(value).__qualname__!r} object in a global: each pickle would share its descriptor, or "
        "something similar, once more; pass it as an argument instead"
    )


class _Tables:
    """One table with copyreg's reducers and, taking precedence, multiprocessing's; and idle picklers that use it.

    dispatch_table: all reducers.
    sharing: those that share a resource each time.
    without_effect: all, but those that share a resource are replaced by one that raises SharesResource.
    """

    def __init__(self, extra: Table) -> None:
        self.extra = extra  # multiprocessing's own dictionary, which may still change, as copyreg's may
        self.extra_before, self.registered_before = dict(extra), dict(copyreg.dispatch_table)
        self.dispatch_table: Table = {**copyreg.dispatch_table, **extra}
        self.sharing: Table = {kind: reduce for kind, reduce in extra.items() if not _is_without_effect(reduce)}
        self.without_effect: Table = {**self.dispatch_table, **dict.fromkeys(self.sharing, _raise_shares_resource)}
        self.idle: list[tuple[pickle.Pickler, _Pieces]] = []

    def is_current(self) -> bool:
        """Return whether nobody has registered a reducer since the tables were made."""
        return self.extra_before == self.extra and self.registered_before == copyreg.dispatch_table

    def pickler(self) -> tuple[pickle.Pickler, _Pieces]:
        """Return a new pickler for `dumps`, and what it writes to."""
        pieces = _Pieces()
        pickler = pickle.Pickler(pieces, PROTOCOL)
        pickler.dispatch_table = self.without_effect
        return pickler, pieces


class _Pieces(list[bytes]):
    """What a pickler writes: mostly one piece. A stream would need three calls more for each pickle."""

    write = list.append


_tables: _Tables | None = None


def _current_tables() -> _Tables | None:
    global _tables  # noqa: PLW0603  the newest tables, per process
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
    """Return reducers without side effects, for a pickler of the caller's; None: pickle's own are enough.

    For types whose reducers share a resource the table has reducers that raise SharesResource.
    """
    reducers = _current_tables()
    return None if reducers is None else reducers.without_effect


def with_reducers(pickler: P, reducers: Mapping[Any, Any] | None) -> P:
    """Give a pickler these reducers, and return it. None: the pickler stays as it is."""
    if reducers is not None:
        # A plain assignment would not reach the pickler if its class has an attribute of that name, as cloudpickle's
        # has.
        pickle.Pickler.dispatch_table.__set__(pickler, reducers)  # type: ignore[attr-defined]
    return pickler


def dumps(value: object) -> bytes:
    """Return the pickle of any object that shares no resource with the receiver.

    Raises:
        SharesResource: the object shares one; see `ResourceReducers`.
        Exception: whatever its own reduction raised.
    """
    tables = _tables
    if (  # as `is_current`
        tables is None or tables.extra_before != tables.extra or tables.registered_before != copyreg.dispatch_table
    ):
        tables = _current_tables()
        if tables is None:
            return pickle.dumps(value, PROTOCOL)
    idle = tables.idle
    try:
        pickler, pieces = pair = idle.pop()
    except IndexError:
        pickler, pieces = pair = tables.pickler()
    pickler.dump(value)
    if len(pieces) == 1:
        data = pieces.pop()
    else:
        data = b"".join(pieces)
        pieces.clear()
    if len(data) <= _MAX_KEPT:
        pickler.clear_memo()
        idle.append(pair)
    return data


shared_resources: dict[int, list[Any]] = {}  # by thread: what was shared since the last `pop_shared_resources`


class ResourceReducers:
    """All reducers, for an object that is sent once, even if several ways to pickle it have to be tried.

    To reduce a socket, a connection or a tensor has a side effect: multiprocessing duplicates a descriptor, and keeps
    the duplicate until somebody fetches it. So each of these objects is reduced only once, however often it is
    pickled. Used as a context manager; if an exception leaves it, the duplicates are closed. One per payload, on one
    thread.
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
        """Close the duplicates if there was an exception; otherwise note that they wait to be fetched."""
        shared = [reduced for _object, reduced in self._reduced.values()]
        self._reduced.clear()
        if kind is not None:
            close_unfetched(shared)
        else:
            shared_resources.setdefault(get_ident(), []).extend(shared)

    def dumps(self, value: object) -> bytes:
        """Return the pickle of any object, also of one that shares resources."""
        stream = BytesIO()
        with_reducers(pickle.Pickler(stream, PROTOCOL), self.dispatch_table).dump(value)
        return stream.getvalue()

    def _reduce(self, reduce: Any, value: object) -> Any:
        known = self._reduced.get(id(value))
        if known is not None:
            return known[1]
        reduced = reduce(value)
        if type(reduced) is tuple and len(reduced) <= _MAX_REUSED_PARTS:
            self._reduced[id(value)] = value, reduced  # the object is kept, so that no other object gets its id
        return reduced


def pop_shared_resources() -> list[Any]:
    """Return what this thread has shared since the last call. Ask first whether `shared_resources` is empty."""
    return shared_resources.pop(get_ident(), [])


def close_unfetched(shared: Any) -> None:
    """Have multiprocessing close those duplicates that nobody has fetched (multiprocessing/resource_sharer.py).

    multiprocessing's own thread takes a duplicate out of the same dictionary in the same way when it is fetched. So
    each duplicate is closed once, and those that were fetched are no longer there.
    """
    for key, cache in _cache_entries(shared):
        with suppress(KeyError):
            _, close = cache.pop(key)
            close()


def are_fetched(shared: Any) -> bool:
    """Return whether everything that these reductions shared was fetched."""
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
            with suppress(AttributeError):  # private names, which a later Python may not have
                yield part._id[1], sharing._resource_sharer._cache
