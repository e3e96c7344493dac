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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias, TypeVar

    Table: TypeAlias = dict[type, Any]
    P = TypeVar("P", bound=pickle.Pickler)

PROTOCOL = 5
STACK_GLOBAL = b"\x93"  # since protocol 4 the only way in which a pickle names a global (pickletools.dis)
_SMALL = 4096  # bytes; after more than that a pickler's memory would be larger than what is mostly needed


class _Reducers:
    """multiprocessing's reducers over copyreg's, in one table, and picklers that go by it."""

    def __init__(self, extra: Table) -> None:
        self._extra = extra  # live, as copyreg's
        self._seen = dict(extra), dict(copyreg.dispatch_table)
        self.table: Table = {**copyreg.dispatch_table, **extra}
        self._kept: list[tuple[pickle.Pickler, io.BytesIO]] = []

    def are_up_to_date(self) -> bool:
        """Return whether nobody has registered anything since."""
        extra, registered = self._seen
        return extra == self._extra and registered == copyreg.dispatch_table

    def pickled(self, value: object) -> bytes:
        """Return the pickle of an object."""
        try:
            pickler, stream = pair = self._kept.pop()
        except IndexError:
            stream = io.BytesIO()
            pickler = pickle.Pickler(stream, PROTOCOL)
            pickler.dispatch_table = self.table
            pair = pickler, stream
        pickler.dump(value)
        data = stream.getvalue()
        if len(data) <= _SMALL:
            pickler.clear_memo()
            stream.seek(0)
            stream.truncate()
            self._kept.append(pair)
        return data


_reducers: _Reducers | None = None


def _current() -> _Reducers | None:
    global _reducers  # noqa: PLW0603  what was last seen, per process
    reducers = _reducers
    if reducers is None or not reducers.are_up_to_date():
        reduction: Any = sys.modules.get("multiprocessing.reduction")
        if reduction is None:
            return None
        reducers = _reducers = _Reducers(reduction.ForkingPickler._extra_reducers)
    return reducers


def table() -> Table | None:
    """Return the reducers for a pickler of one's own; None: the ordinary ones will do."""
    reducers = _current()
    return None if reducers is None else reducers.table


def taught(pickler: P) -> P:
    """Return the pickler, which goes by these reducers from now on."""
    reducers = table()
    if reducers is not None:
        pickler.dispatch_table = reducers
    return pickler


def pickled(value: object) -> bytes:
    """Return the pickle of any object.

    Raises:
        Exception: whatever its own reduction raised.
    """
    reducers = _current()
    return pickle.dumps(value, PROTOCOL) if reducers is None else reducers.pickled(value)
