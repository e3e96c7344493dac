"""Pickles objects that may be large, without copying their large parts.

`payload.dumps` copies bytes objects and arrays into one pickle, and copies again when the pickle grows. Here the
pickler writes to an object that only collects the pieces: CPython's pickler passes on large bytes objects as they
are.

Called in the host by the threads that submit, and in a worker by its only thread. No state; runs the objects' own
code.
"""

from __future__ import annotations

import _pickle as pickle
import struct

from pidfdpool.serialization import exception_chains, importable, payload, picklers, plain_data

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pidfdpool.serialization.picklers import ResourceReducers
    from pidfdpool.transport.framing import Buffer

_MIN_BUFFER = 16 << 10  # bytes; a smaller buffer goes into the pickle, because it is not worth a buffer of its own
_MAX_BUFFERS = 200  # a frame has room for 255 buffers
_LARGE_OBJECT = 64 << 10  # bytes; CPython's pickler passes on objects from this size on as pieces of their own
_FRAMED = 0x80, 0x95  # the first byte of all other pieces: the opcodes PROTO and FRAME
_FRAME = struct.Struct("<BQ")
_NEXT_BUFFER = b"\x97"  # the opcode in the place of a buffer that was left out
_BYTES = {5: 0x42, 9: 0x8E}  # the opcodes before a large bytes object, by their size with its length (pickletools)


class OutOfBandPickle:
    """The payload of an object that may be large, in pieces that are not copied; valid until the object changes.

    `pieces` together are the pickle; large bytes objects are pieces of it as they are. `out_of_band` are the large
    buffers outside the pickle: those of numpy arrays, and of everything else that gives out a pickle.PickleBuffer.
    """

    def __init__(self, value: object, shared: payload.SharedMain | None = None) -> None:
        """Pickle any object.

        Raises:
            Exception: as `payload.dumps`.
        """
        self.pieces: list[Buffer] = []
        self.out_of_band: list[memoryview] = []
        self._followed: list[int] = []  # how many pieces came before each of them
        # The pickler calls it; CPython's passes large bytes objects separately.
        self.write: Callable[[Buffer], None] = self.pieces.append
        self._fill(value, shared)

    def _fill(
        self, value: object, shared: payload.SharedMain | None, resources: ResourceReducers | None = None
    ) -> None:
        try:
            dispatch_table = picklers.dispatch_table() if resources is None else resources.dispatch_table
            pickler = pickle.Pickler(self, picklers.PROTOCOL, buffer_callback=self.buffer_callback)
            picklers.with_reducers(pickler, dispatch_table).dump(value)
            self._unwrap()
            if plain_data.is_plain(value, sum(map(len, self.pieces))):
                return
            by_name = not (self.mentions(b"__main__") or self.mentions(b"__mp_main__"))
            if by_name and not any(
                self.mentions(importable.encoded_name(module)) for module in importable.unimportable_modules()
            ):
                return
            if by_name:
                self._reset()
                self.pieces.extend(payload.dumps(value, shared, resources))
                return
            if shared is not None and not isinstance(shared, payload.ReceivedMain):
                self._reset()
                payload.dumps_by_reference(value, shared, resources, sink=self)
                self._unwrap()
                return
            shares = False
        except MemoryError:
            raise
        except picklers.SharesResource:  # as in `payload.dumps`
            shares = True
        except Exception as error:
            exception_chains.pass_over(error)
            shares = False
        self._reset()
        if not shares:
            try:
                payload.dumps_by_value(value, shared, resources, sink=self)
                self._unwrap()
                return
            except picklers.SharesResource:
                if resources is not None:
                    raise
            self._reset()
        with picklers.ResourceReducers() as resources:
            self._fill(value, shared, resources)

    def mentions(self, name: bytes) -> bool:
        """Return whether the name occurs in the pickle itself, apart from the contents of large bytes objects."""
        return any(name in piece for piece in self.pieces if len(piece) < _LARGE_OBJECT or piece[0] in _FRAMED)

    def buffers(self) -> list[pickle.PickleBuffer]:
        """Return it as buffers that can be part of another payload without being copied again."""
        pickled: list[Any] = [b"".join(self.pieces), *self.out_of_band]
        return [pickle.PickleBuffer(part) for part in pickled]

    def left_out(self) -> list[Buffer]:
        """Return it as buffers for a frame, with large bytes objects left out as well: nothing large is copied.

        `payload.loads` puts in the place of each what it is given for it; so it has to be given bytes for these.
        """
        pieces: list[Buffer] = []
        buffers: list[Buffer] = []
        arrays = list(zip(self._followed, self.out_of_band, strict=True))[::-1]
        room = _MAX_BUFFERS - len(arrays)
        is_contents = False  # this piece is the contents of a bytes object, or of something else, not opcodes
        for index, piece in enumerate(self.pieces):
            size = 0 if is_contents else _size_of_header(piece)
            while not is_contents and arrays and arrays[-1][0] <= index:
                buffers.append(arrays.pop()[1])
            following = self.pieces[index + 1] if size and index + 1 < len(self.pieces) else None
            if is_contents and pieces[-1] is _NEXT_BUFFER:
                buffers.append(piece)
            elif type(following) is bytes and piece[-size] == _BYTES[size] and room:
                room -= 1
                pieces += (memoryview(piece)[:-size], _NEXT_BUFFER)
            else:
                pieces.append(piece)
            is_contents = following is not None
        return [b"".join(pieces), *buffers]

    def buffer_callback(self, buffer: pickle.PickleBuffer) -> bool:
        """Return False for a buffer that stays out of the pickle. Picklers call it."""
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous; the pickler raises a better error
            return True
        if raw.nbytes < _MIN_BUFFER or len(self.out_of_band) >= _MAX_BUFFERS:
            return True
        self.out_of_band.append(raw)
        self._followed.append(len(self.pieces))
        return False

    def _unwrap(self) -> None:
        """Turn large buffers that were not left out, because there were too many, into ordinary pieces."""
        if len(self.out_of_band) >= _MAX_BUFFERS:
            wrapped = (piece.raw() if isinstance(piece, pickle.PickleBuffer) else piece for piece in self.pieces)
            self.pieces[:] = list(wrapped)

    def _reset(self) -> None:
        self.pieces.clear()
        self.out_of_band.clear()
        self._followed.clear()


def _size_of_header(piece: Buffer) -> int:
    """Return the size of the opcode and the length at the end of a piece whose object is the next piece; 0: none.

    They follow the last frame of the piece, and before them are three bytes at most: shorter opcodes get no frame
    (Modules/_pickle.c, _Pickler_CommitFrame and _Pickler_write_bytes).
    """
    at = 2 if piece[0] == _FRAMED[0] else 0
    size = len(piece)
    while size - at >= _FRAME.size and piece[at] == _FRAMED[1]:
        at += _FRAME.size + _FRAME.unpack_from(piece, at)[1]
    left = size - at
    return 0 if left not in range(5, 13) else 5 if left <= 8 else 9
