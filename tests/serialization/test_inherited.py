"""What workers inherit at their start: the descriptors that are made for it have an owner at all times."""

from __future__ import annotations

import multiprocessing
import os

import pytest

from pidfdpool.process import native
from pidfdpool.serialization import inherited


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


class Refusing:
    def __reduce__(self):
        raise ValueError("it does not travel")


def test_a_capture_that_fails_leaves_no_descriptor():
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        before = descriptors()
        with pytest.raises(ValueError, match="it does not travel"):
            inherited.capture((theirs, Refusing()))
        assert descriptors() == before


def test_the_caller_owns_the_descriptors_of_a_capture():
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        before = descriptors()
        buffers, captured = inherited.capture((theirs, 5))
        assert len(captured) == len(descriptors() - before) == 1
        end, number = inherited.restore(buffers, captured)
        with end:
            ours.send("through")
            assert (end.recv(), number) == ("through", 5)
        for fd in captured:
            if os.path.exists(f"/proc/self/fd/{fd}"):
                native.close(fd)
