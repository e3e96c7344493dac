"""What workers inherit at their start: the descriptors that are made for it have an owner at all times."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing import context

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


def test_nobody_takes_the_process_for_one_that_starts_another_after_a_capture():
    """Multiprocessing would hand descriptors of later pickles to what is no process."""
    with multiprocessing.Pipe()[0] as end:
        assert context.get_spawning_popen() is None
        for fd in inherited.capture(end)[1]:
            native.close(fd)
        assert context.get_spawning_popen() is None
        with pytest.raises(ValueError, match="it does not travel"):
            inherited.capture(Refusing())
        assert context.get_spawning_popen() is None


def test_an_object_that_only_a_fork_can_share_is_told_from_one_that_cannot_be_sent():
    with pytest.raises(inherited.NeedsFork):
        inherited.capture(multiprocessing.get_context("fork").Lock())


def test_descriptors_are_known_of_what_has_one():
    with multiprocessing.Pipe()[0] as end:
        values = [1, end, "text", open(os.devnull)]
        assert inherited.descriptors_of(values) == {end.fileno(), values[3].fileno()}
        values[3].close()
        assert inherited.descriptors_of(values) == {end.fileno()}


def test_several_descriptors_arrive_in_their_places():
    pairs = [multiprocessing.Pipe() for _ in range(3)]
    buffers, captured = inherited.capture([theirs for _, theirs in pairs])
    assert len(set(captured)) == 3
    ends = inherited.restore(buffers, captured)
    for number, ((ours, theirs), end) in enumerate(zip(pairs, ends, strict=True)):
        ours.send(number)
        assert end.recv() == number
        for each in (ours, theirs, end):
            each.close()


def test_a_capture_within_a_start_gives_that_start_back_its_place():
    class Starting:
        pass

    starting = Starting()
    context.set_spawning_popen(starting)
    try:
        assert inherited.capture(5) == (inherited.payload.dumps(5), [])
        assert context.get_spawning_popen() is starting
    finally:
        context.set_spawning_popen(None)


def test_any_other_error_is_told_as_it_is():
    class Failing:
        def __reduce__(self):
            raise RuntimeError("another reason")

    with pytest.raises(RuntimeError, match="another reason") as caught:
        inherited.capture(Failing())
    assert not isinstance(caught.value, inherited.NeedsFork)
    with pytest.raises(inherited.NeedsFork, match="fork context") as caught:
        inherited.capture(multiprocessing.get_context("fork").Lock())
    assert type(caught.value.__cause__) is RuntimeError


def test_what_says_that_its_descriptor_is_something_else_has_none():
    class Odd:
        def fileno(self):
            return "3"

    assert inherited.descriptors_of([Odd(), None]) == set()


def test_where_multiprocessing_is_not_loaded_there_is_nothing_to_capture(monkeypatch):
    monkeypatch.delitem(sys.modules, "multiprocessing.context")
    assert inherited.capture([5]) == (inherited.payload.dumps([5]), [])
