"""Pickles what may be large, without copying anything that is.

`payload.dumps` copies bytes objects and arrays into one pickle, and what is being written grows and is copied again.
Here the pickler is given a file that only collects: CPython's hands on large bytes objects as they are.

Used in the host by the threads that submit, in a worker by its only thread. No state; runs the objects' own code.
"""

from __future__ import annotations

import _pickle as pickle

from pidfdpool.serialization import exception_chains, importable, payload, picklers, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pidfdpool.transport.framing import Buffer

_LEFT_OUT = 16 << 10  # bytes of a buffer that is left out of the pickle; for less it is not worth a buffer of its own
_MOST_LEFT_OUT = 200  # a frame has room for 255 buffers
_LARGE_OBJECT = 64 << 10  # bytes from which on an object's own do not share a piece with anything else (CPython)
_BEGINNINGS = 0x80, 0x95  # of the pieces with other things in them: the opcodes PROTO and FRAME


class Apart:
    """The payload of an object that may be large: in pieces, none of them copied, and valid until they change.

    `pieces` make up the pickle; large bytes objects are among them as they are. `left_out` are the large buffers that
    are not in it: those of numpy arrays, and of whatever else gives out a pickle.PickleBuffer. `mentions` tells
    whether a name occurs in the pickle itself.
    """

    def __init__(self, value: object, shared: payload.SharedMain | None = None) -> None:
        """Pickle any object.

        Raises:
            Exception: as `payload.dumps`.
        """
        self.pieces: list[Buffer] = []
        self.left_out: list[memoryview] = []
        self.write = self.pieces.append  # what a pickler calls; large bytes objects come by themselves (CPython)
        self._fill(value, shared)

    def _fill(self, value: object, shared: payload.SharedMain | None, once: picklers.Once | None = None) -> None:
        try:
            table = picklers.table() if once is None else once.table
            pickler = pickle.Pickler(self, picklers.PROTOCOL, buffer_callback=self.leave_out)
            picklers.taught(pickler, table).dump(value)
            self._unwrap()
            if plain.is_plain(value, sum(map(len, self.pieces))):
                return
            by_name = not (self.mentions(b"__main__") or self.mentions(b"__mp_main__"))
            if by_name and not any(self.mentions(payload._encoded(module)) for module in importable.strangers()):
                return
            if by_name:
                self._begin_anew()
                self.pieces.extend(payload.dumps(value, shared, once))
                return
            if shared is not None and not isinstance(shared, payload.Arrived):
                self._begin_anew()
                payload.pickled_by_reference(value, shared, once, into=self)
                self._unwrap()
                return
            shares = False
        except MemoryError:
            raise
        except picklers.SharesResource:  # as in `payload.dumps`
            shares = True
        except Exception as error:
            exception_chains.drop_tracebacks(error)
            shares = False
        self._begin_anew()
        if not shares:
            try:
                payload._cloudpickled(value, shared, once, into=self)
                self._unwrap()
                return
            except picklers.SharesResource:
                if once is not None:
                    raise
            self._begin_anew()
        with picklers.Once() as once:
            self._fill(value, shared, once)

    def mentions(self, name: bytes) -> bool:
        """Return whether the name occurs in the pickle, whatever the objects' own bytes hold."""
        return any(name in piece for piece in self.pieces if len(piece) < _LARGE_OBJECT or piece[0] in _BEGINNINGS)

    def buffers(self) -> list[pickle.PickleBuffer]:
        """Return it as buffers that may be part of another payload, where they need not be copied again."""
        pickled: list[Any] = [b"".join(self.pieces), *self.left_out]
        return [pickle.PickleBuffer(part) for part in pickled]

    def leave_out(self, buffer: pickle.PickleBuffer) -> bool:
        """Return False for a buffer that is left out. For picklers."""
        try:
            raw = buffer.raw()
        except BufferError:  # it is not contiguous; the pickler says so in its own words
            return True
        if raw.nbytes < _LEFT_OUT or len(self.left_out) >= _MOST_LEFT_OUT:
            return True
        self.left_out.append(raw)
        return False

    def _unwrap(self) -> None:
        """Make large buffers that were not left out, because there were so many, pieces like any other."""
        if len(self.left_out) >= _MOST_LEFT_OUT:
            wrapped = (piece.raw() if isinstance(piece, pickle.PickleBuffer) else piece for piece in self.pieces)
            self.pieces[:] = list(wrapped)

    def _begin_anew(self) -> None:
        self.pieces.clear()
        self.left_out.clear()
