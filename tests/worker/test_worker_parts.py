"""The loop of a worker, one step at a time, in this process: which task it runs next, and that it runs it once."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace

import pytest

from pidfdpool.transport import framing
from pidfdpool.worker.process import Worker


def lean(number):
    """Give the frame of a small task, as it is read."""
    return number, 0, 1, b"call"


def exit_frame():
    return framing.Frame(framing.EXIT, 0, 0, 0, [])


@pytest.fixture
def worker():
    """Give a worker of which only the queue and the channel are there. `reads` are what each read returns."""
    worker = Worker.__new__(Worker)
    worker._queue = deque()
    worker.reads, worker.segments = [], []
    worker._channel = SimpleNamespace(receive_lean=lambda: worker.reads.pop(0))
    worker._segments = SimpleNamespace(handle_frame=worker.segments.append)
    return worker


def numbers(frames):
    return ["exit" if type(each) is framing.Frame else each[0] for each in frames]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_task_that_is_sent_again_is_taken_out_of_its_place_so_that_it_runs_once(worker, place):
    """Guards: it stayed in the queue, and ran a second time."""
    frames = [lean(8), lean(9)]
    frames.insert(place, lean(7))
    worker.reads = [[lean(5)], [], frames, ["not read"]]
    again = worker._receive_again(7)
    assert (again.kind, again.value, again.buffers) == (framing.TASK, 7, [b"call"])
    assert numbers(worker._queue) == [5, 8, 9]
    assert worker.reads == [["not read"]]


def test_what_comes_before_a_task_that_is_sent_again_is_kept_and_segments_are_mapped_meanwhile(worker):
    mapped = framing.Frame(framing.MAP_SEGMENT, 0, 1, 2, [])
    worker._queue.append(lean(5))
    worker.reads = [[mapped, lean(7), exit_frame()]]
    assert worker._receive_again(7).value == 7
    assert numbers(worker._queue) == [5, "exit"]
    assert worker.segments == [mapped]
