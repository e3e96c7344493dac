"""Pickles of objects that may be large: their large parts are not copied, and come back as they were."""

from __future__ import annotations

import pickle

from pidfdpool.serialization import payload
from pidfdpool.serialization.out_of_band import OutOfBandPickle

MB = 1 << 20


class _Large:
    def __init__(self, size: int) -> None:
        self.content = bytearray(size)

    def __reduce_ex__(self, protocol):
        return _Large._made, (pickle.PickleBuffer(self.content),)

    @staticmethod
    def _made(buffer):
        made = _Large(0)
        made.content = buffer
        return made


def test_large_bytes_are_separate_pieces_and_large_buffers_out_of_band():
    data, large = b"x" * MB, _Large(MB)
    pickled = OutOfBandPickle([data, large, 5])
    assert any(piece is data for piece in pickled.pieces)
    assert [part.nbytes for part in pickled.out_of_band] == [MB]
    one, other, five = payload.loads([b"".join(pickled.pieces), *pickled.out_of_band])
    assert (one, five) == (data, 5)
    other.content[0] = 7
    assert large.content[0] == 7, "it is the same memory here"


def test_small_buffers_stay_in_the_pickle():
    pickled = OutOfBandPickle([_Large(10), _Large(1000)])
    assert not pickled.out_of_band
    assert [len(it.content) for it in payload.loads([b"".join(pickled.pieces)])] == [10, 1000]


def test_more_large_buffers_than_fit_into_a_frame():
    pickled = OutOfBandPickle([_Large(100_000) for _ in range(300)])
    assert len(pickled.out_of_band) < 250
    assert len(payload.loads([b"".join(pickled.pieces), *pickled.out_of_band])) == 300


def test_names_are_searched_in_the_pickle_and_not_in_large_objects():
    assert not OutOfBandPickle(b"__main__" * 100_000).mentions(b"__main__")
    assert OutOfBandPickle(["__main__", b"x" * MB]).mentions(b"__main__")
    assert OutOfBandPickle([b"x" * MB, "__main__"]).mentions(b"__main__")
    assert OutOfBandPickle([["y" * 60_000] * 1, "__main__", b"x" * MB, ["z" * 90_000]]).mentions(b"__main__")


def test_unpicklable_functions_travel_by_value():
    data = _Large(MB)
    function = payload.loads([b"".join((it := OutOfBandPickle(lambda: data)).pieces), *it.out_of_band])
    assert function().content == data.content


def test_out_of_band_buffers_are_writable():
    pickled = pickle.dumps(large := _Large(20_000), 5, buffer_callback=lambda _: False)
    loaded = payload.loads([pickled, bytes(large.content)])
    loaded.content[0] = 1
