"""Pickles of objects that may be large: their large parts are not copied, and come back as they were."""

from __future__ import annotations

import pickle
import sys
import types
from multiprocessing.reduction import ForkingPickler

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pidfdpool.serialization import payload, picklers
from pidfdpool.serialization.out_of_band import OutOfBandPickle

MB = 1 << 20
MIN_BUFFER = 16 << 10  # bytes; a smaller buffer stays in the pickle
LARGE = 64 << 10  # bytes; from this size on the pickler hands on a bytes object as it is


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


def test_left_out_bytes_are_the_objects_themselves_among_the_other_buffers():
    one, two, array = b"x" * MB, b"y" * 100_000, _Large(MB)
    value = [1, one, array, two, "z" * 100_000, bytearray(MB), one, 5, two]
    pickled, *buffers = OutOfBandPickle(value).left_out()
    assert buffers[0] is one
    assert buffers[2] is two
    assert [type(buffer) for buffer in buffers] == [bytes, memoryview, bytes]
    loaded = payload.loads([pickled, *buffers])
    assert loaded[1] is loaded[6] is one
    assert (loaded[0], loaded[3:6], loaded[7:]) == (1, value[3:6], [5, two])
    assert loaded[2].content == array.content


parts = st.one_of(
    st.integers(0, 300).map(lambda size: b"s" * size),
    # contents that end like the opcode and the length before a large bytes object
    st.integers(LARGE - 1, LARGE + 1).map(lambda size: b"c" * (size - 5) + b"B" + (LARGE).to_bytes(4, "little")),
    st.integers(LARGE - 1, LARGE + 1).map(lambda size: "t" * size),
    st.integers(LARGE - 1, LARGE + 1).map(bytearray),
    st.integers(20_000, 30_000).map(_Large),
    st.just([b"B" + (LARGE).to_bytes(4, "little")] * 9000),
    st.integers(),
)


@given(st.lists(parts, max_size=6), st.booleans())
def test_what_was_left_out_comes_back_as_it_was(value, again):
    value = value * 2 if again else value
    pickled, *buffers = OutOfBandPickle(value).left_out()
    # as they arrive: bytes as bytes, everything else as memory that may be written to
    arrived = [bytes([*buffer]) if type(buffer) is bytes else bytearray(buffer) for buffer in buffers]
    loaded = payload.loads([pickled, *arrived])
    expected = payload.loads([pickle.dumps(value, 5)])
    assert [type(one) for one in loaded] == [type(one) for one in expected]
    for one, other in zip(loaded, expected, strict=True):
        assert one.content == other.content if type(one) is _Large else one == other


def test_more_large_bytes_than_fit_into_a_frame_stay_in_the_pickle():
    value = [b"%d" % number * 40_000 for number in range(10, 310)] + [_Large(20_000)]
    buffers = OutOfBandPickle(value).left_out()
    assert len(buffers) < 250
    assert payload.loads(buffers)[:-1] == value[:-1]


@pytest.mark.parametrize("arrays_first", [True, False], ids=["arrays first", "bytes first"])
def test_arrays_and_large_bytes_together_are_no_more_than_fit_into_a_frame(arrays_first):
    """Both come beside the pickle, so each array leaves less room there for bytes objects."""
    arrays, large = [_Large(MIN_BUFFER) for _ in range(180)], [bytes(LARGE) for _ in range(90)]
    value = arrays + large if arrays_first else large + arrays
    buffers = OutOfBandPickle(value).left_out()
    assert len(arrays) < len(buffers) <= 255
    loaded = payload.loads(buffers)
    assert [type(one) for one in loaded] == [type(one) for one in value]
    assert {len(one.content if type(one) is _Large else one) for one in loaded} == {MIN_BUFFER, LARGE}


# ---- attempts that fail ----------------------------------------------------------------------------------------


class Shared:
    """Stands for what multiprocessing shares with each pickle, such as a connection."""


@pytest.fixture
def parts(monkeypatch):
    """Return objects, each of which makes an attempt to pickle it fail at its place."""
    monkeypatch.setitem(ForkingPickler._extra_reducers, Shared, lambda _: (str, ("shared",)))
    module = types.ModuleType("made_for_buffers")
    exec("class Own: pass", vars(module))
    monkeypatch.setitem(sys.modules, "made_for_buffers", module)
    yield {"by value": lambda: 1, "shared": Shared(), "both": [lambda: 1, Shared()], "in two forms": module.Own()}
    picklers.pop_shared_resources()


@pytest.mark.parametrize("why", ["by value", "shared", "both", "in two forms"])
def test_an_attempt_that_failed_leaves_nothing_behind_in_the_next(parts, why):
    """What was left out before it failed would be sent twice, or come in the place of something else."""
    value = [_Large(MB), b"x" * MB, parts[why], _Large(20_000)]
    left_out = OutOfBandPickle(value).left_out()
    pickled = OutOfBandPickle(value)
    for buffers in (left_out, [b"".join(pickled.pieces), *pickled.out_of_band]):
        one, data, _, other = payload.loads(buffers)
        assert (bytes(one.content), data, bytes(other.content)) == (bytes(MB), value[1], bytes(20_000))
    assert len(pickled.out_of_band) == (0 if why == "in two forms" else 2)
