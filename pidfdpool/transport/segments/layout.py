"""Says where the parts of a payload lie in a segment: first the pickle, then each out-of-band buffer, aligned.

A *reference* names such a payload: the segment's number and the length of each part. It takes the payload's place in
a frame. Pure; used at both ends, on any thread.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pidfdpool.transport.framing import Buffer

_ALIGNMENT = 64  # bytes: a cache line, and enough for any array
_NUMBER = struct.Struct("<Q")


class Layout:
    """The places of one payload's parts: the pieces of its pickle, the out-of-band buffers. `size`: bytes of all."""

    __slots__ = ("_at", "_lengths", "_out_of_band", "_pieces", "size")

    def __init__(self, pieces: Sequence[Buffer], out_of_band: Sequence[Buffer] = ()) -> None:
        self._pieces = pieces
        self._out_of_band = out_of_band
        self._lengths = [sum(map(len, pieces)), *map(len, out_of_band)]
        self._at = _places(self._lengths)
        self.size: int = self._at[-1] + self._lengths[-1]

    def write(self, memory: memoryview) -> None:
        """Copy the payload into memory of that size."""
        at = 0
        for piece in self._pieces:
            memory[at : at + len(piece)] = piece
            at += len(piece)
        for at, part in zip(self._at[1:], self._out_of_band, strict=True):
            memory[at : at + len(part)] = part

    @property
    def last_byte(self) -> int:
        """The last byte of the pickle."""
        return self._pieces[-1][-1]

    def reference(self, number: int) -> bytes:
        """Return the reference to it in a segment of this number."""
        return struct.pack(f"<Q{len(self._lengths)}Q", number, *self._lengths)

    def buffers(self) -> list[Buffer]:
        """Return it as buffers for a frame. The pieces of the pickle are copied if there are several."""
        return [b"".join(self._pieces), *self._out_of_band]


def number_of(reference: Buffer) -> int:
    """Return the number of the segment that a reference names."""
    number: int = _NUMBER.unpack_from(reference)[0]
    return number


def size_of(reference: Buffer) -> int:
    """Return the size in bytes of the payload that a reference names."""
    lengths = _lengths(reference)
    return _places(lengths)[-1] + lengths[-1]


def parts(reference: Buffer, memory: memoryview) -> list[memoryview]:
    """Return views of a payload's parts in the memory of its segment.

    Raises:
        ValueError: it exceeds the segment.
    """
    lengths = _lengths(reference)
    places = _places(lengths)
    if not lengths or places[-1] + lengths[-1] > len(memory):
        raise ValueError("the reference exceeds its segment")
    return [memory[at : at + length] for at, length in zip(places, lengths, strict=True)]


def _lengths(reference: Buffer) -> tuple[int, ...]:
    return struct.unpack_from(f"<{len(reference) // 8 - 1}Q", reference, _NUMBER.size)


def _places(lengths: Sequence[int]) -> list[int]:
    places, at = [], 0
    for length in lengths:
        places.append(at)
        at = -(-(at + length) // _ALIGNMENT) * _ALIGNMENT
    return places
