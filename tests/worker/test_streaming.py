"""How a worker sends the items of a stream, with a clock and a loop of the test's own."""

from __future__ import annotations

import pickle
import threading
from collections import deque

import pytest

from pidfdpool.transport import framing
from pidfdpool.worker import streaming
from tests.conditions import eventually

TASK = 7


class Loop:
    """Stands for the worker's loop. What is to be read next lies in `orders`."""

    def __init__(self):
        self.stream_orders = deque()
        self.sent = []
        self.coming = deque()  # lists of orders, one for each wait
        self.waits = 0

    def send_items(self, pieces):
        (frame,) = framing_decoder().feed_data(b"".join(pieces))
        assert (frame.kind, frame.value) == (framing.ITEMS, TASK)
        if frame.slot:
            self.sent.append([pickle.loads(item) for item in pickle.loads(frame.buffers[0])])
        else:
            self.sent.append(pickle.loads(frame.buffers[0], buffers=frame.buffers[1:]))

    def read_orders(self, *, wait):
        if wait:
            self.waits += 1
            assert self.coming, "it waits for ever"
            self.stream_orders.extend(self.coming.popleft())


def framing_decoder():
    from pidfdpool.transport import frame_rules

    return framing.Decoder(frame_rules.FROM_WORKER)


def order(kind=framing.STREAM_ROOM, taken=0, task=TASK):
    return framing.Frame(framing.STREAM, kind, taken, task, [])


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def parts():
    loop, clock = Loop(), Clock()
    sender = streaming.Sender(loop, TASK, 1000, clock)
    sender._thread = _NoThread()
    yield sender, loop, clock
    sender.end()


class _NoThread:
    """Takes the place of the thread that sends what is held."""

    sleeps = True

    def wake(self):
        self.sleeps = False

    def end(self):
        pass


def test_the_first_item_is_sent_at_once(parts):
    sender, loop, _ = parts
    sender.put("a")
    assert loop.sent == [["a"]]


def test_items_that_come_slowly_are_sent_one_by_one(parts):
    sender, loop, clock = parts
    for item in "abc":
        clock.now += streaming.TOGETHER
        sender.put(item)
    assert loop.sent == [["a"], ["b"], ["c"]]


def test_items_that_come_quickly_share_a_frame(parts):
    sender, loop, clock = parts
    sender.put("first")
    for item in range(5):
        clock.now += streaming.TOGETHER / 4.5
        sender.put(item)
    assert loop.sent == [["first"]], "they are held"
    assert not sender._thread.sleeps, "and the thread knows"
    clock.now += streaming.TOGETHER / 4.5
    sender.put("last")
    assert loop.sent == [["first"], [0, 1, 2, 3, 4, "last"]]


def test_a_large_item_waits_for_none_and_overtakes_none(parts):
    sender, loop, _ = parts
    sender.put("first")
    sender.put("held")
    sender.put(bytes(streaming.LARGE))
    assert loop.sent == [["first"], ["held"], bytes(streaming.LARGE)]


def test_many_small_bytes_are_sent_when_they_are_as_much_as_a_large_item(parts):
    sender, loop, _ = parts
    sender.put("first")
    for _ in range(4):
        sender.put(bytes(streaming.LARGE // 3))
    assert len(loop.sent) == 2
    assert len(loop.sent[1]) == 3


def test_it_waits_when_the_reader_has_no_room_and_sends_before_it_waits():
    loop, clock = Loop(), Clock()
    sender = streaming.Sender(loop, TASK, 3, clock)
    sender._thread = _NoThread()
    loop.coming.extend([[order(taken=1)], [order(taken=3)]])
    for item in range(3):
        sender.put(item)
    assert loop.sent == [[0], [1, 2]]
    assert loop.waits == 1
    sender.put(3)
    assert loop.waits == 2
    sender.put(4)
    assert loop.waits == 2, "there is room for two"


def test_what_the_reader_tells_twice_or_late_makes_no_more_room():
    loop, clock = Loop(), Clock()
    sender = streaming.Sender(loop, TASK, 2, clock)
    sender._thread = _NoThread()
    loop.coming.extend([[order(taken=2)], [order(taken=2), order(taken=1)], [order(taken=5)]])
    for item in range(3):
        sender.put(item)
    assert loop.waits == 1
    sender.put(3)
    assert loop.waits == 3, "it waits on, and gets room though the reader has counted an item twice"
    sender.put(4)
    assert loop.waits == 3


def test_it_waits_when_the_reader_has_many_bytes_to_take():
    loop = Loop()
    sender = streaming.Sender(loop, TASK, 1000, Clock())
    large = bytes(streaming.MOST_BYTES // 2)
    loop.coming.append([order(taken=1)])
    sender.put(large)
    assert loop.waits == 0
    sender.put(large)
    assert loop.waits == 1
    assert len(loop.sent) == 2


def test_it_stops_when_nobody_reads_any_more(parts):
    sender, loop, clock = parts
    loop.stream_orders.append(order(framing.STREAM_END))
    clock.now += 1
    sender.put("a")
    assert sender.unwanted
    sender.put("held")
    sender.end()
    assert loop.sent == [["a"]]


def test_orders_for_an_earlier_stream_are_passed_over(parts):
    sender, loop, clock = parts
    loop.stream_orders.extend([order(framing.STREAM_END, task=TASK - 1), order(taken=5, task=TASK - 1)])
    clock.now += 1
    sender.put("a")
    assert not sender.unwanted
    assert not loop.stream_orders


def test_what_was_said_before_the_task_began_counts():
    loop = Loop()
    loop.stream_orders.append(order(framing.STREAM_END))
    sender = streaming.Sender(loop, TASK, 10, Clock())
    sender.put("a")
    assert sender.unwanted


def test_what_is_held_is_sent_at_the_end(parts):
    sender, loop, _ = parts
    sender.put("first")
    sender.put("held")
    sender.end()
    assert loop.sent == [["first"], ["held"]]


def test_a_thread_sends_what_is_held_and_sleeps_when_there_is_nothing():
    loop = Loop()
    sender = streaming.Sender(loop, TASK, 1000)
    try:
        for round_ in range(20):
            sender.put("first of the round")
            sender.put(round_)
            eventually(lambda: loop.sent[-1][-1] == round_, "it is sent though nothing follows")
        eventually(lambda: sender._thread is not None and sender._thread.sleeps, "nothing wakes it")
    finally:
        sender.end()


@pytest.mark.parametrize("asleep", [False, True])
def test_the_thread_ends_at_once(asleep):
    loop, clock = Loop(), Clock()
    sender = streaming.Sender(loop, TASK, 1000, clock)
    sender.put("first")
    sender.put("held")
    if asleep:
        clock.now += 1
        eventually(lambda: sender._thread.sleeps, "it has sent it")
    sender.end()
    assert sender._thread._over.locked(), "it was taken, which the thread releases when it ends"
    assert loop.sent == [["first"], ["held"]]


def test_the_thread_ends_though_it_is_about_to_sleep():
    looks, may_sleep = threading.Event(), threading.Event()

    def flush():
        looks.set()
        assert may_sleep.wait(30)
        thread.sleeps = True  # as it finds nothing to send
        return False

    thread = streaming._FlushThread(flush)
    thread.wake()
    assert looks.wait(30)
    ending = threading.Thread(target=thread.end)
    ending.start()
    eventually(lambda: not thread._stop.locked(), "it is told to end, and not yet asleep")
    may_sleep.set()
    ending.join(30)
    assert not ending.is_alive()


def test_it_needs_a_worker():
    with pytest.raises(RuntimeError, match="in a worker only"):
        streaming.run(range, (3,), 10)
