"""A stream's last decisions: what it asks for, what it leaves undone, and what becomes of the generator."""

from __future__ import annotations

import threading

import pytest

from pidfdpool.transport import framing
from pidfdpool.worker import chunk, context, streaming
from pidfdpool.worker.streaming import MOST_BYTES, TOGETHER
from tests.worker.test_streaming import TASK, Clock, Loop, _NoThread, order


class Reading(Loop):
    """A loop that counts how often it looks whether something has come."""

    looks = 0

    def read_orders(self, *, wait):
        self.looks += not wait
        super().read_orders(wait=wait)


@pytest.fixture
def loop(monkeypatch):
    """Give the loop of a worker that this process is for a while."""
    loop = Reading()
    monkeypatch.setattr(context, "_loop", loop)
    monkeypatch.setattr(context, "_task", (TASK, 1, None))
    monkeypatch.setattr(chunk, "shared_main", None)
    return loop


def sender_and_clock(loop, room=1000):
    """Return a sender without a thread, and its clock, which begins at 0, so that differences are exact."""
    clock = Clock()
    clock.now = 0.0
    made = streaming.Sender(loop, TASK, room, clock)
    made._thread = _NoThread()
    return made, clock


def sender(loop, room=1000):
    return sender_and_clock(loop, room)[0]


# ---- run -----------------------------------------------------------------------------------------------------------


def test_all_items_are_sent_and_then_the_generator_is_closed(loop):
    done = []

    def items(first, second):
        try:
            yield first
            yield second
        finally:
            done.append([each for frame in loop.sent for each in frame])

    streaming.run(items, ("a", "b"), 10)
    assert [each for frame in loop.sent for each in frame] == ["a", "b"]
    assert len(done) == 1


def test_a_generator_that_nobody_reads_is_closed_where_it_is(loop):
    done = []

    def items():
        try:
            while True:
                done.append(1)
                yield 1
        finally:
            done.append("closed")

    loop.coming.append([order(taken=1), order(framing.STREAM_END)])
    streaming.run(items, (), 1)
    assert done == [1, "closed"]


def test_where_nobody_reads_from_the_start_no_item_is_made_after_the_first(loop):
    made = []
    loop.stream_orders.append(order(framing.STREAM_END))
    streaming.run(lambda: (made.append(each) or each for each in range(9)), (), 10)
    assert made == [0]


def test_an_error_of_the_generator_comes_after_what_it_has_yielded(loop):
    def items():
        yield "first"
        yield "held"
        raise LookupError("on purpose")

    with pytest.raises(LookupError, match="on purpose"):
        streaming.run(items, (), 10)
    assert [each for frame in loop.sent for each in frame] == ["first", "held"]


def test_an_item_that_cannot_be_pickled_closes_the_generator(loop):
    closed = []

    def items():
        try:
            yield 1
            yield threading.Lock()
        finally:
            closed.append(1)

    with pytest.raises(TypeError, match="lock"):
        streaming.run(items, (), 10)
    assert closed == [1]
    assert loop.sent == [[1]]


def test_what_is_held_is_sent_and_the_thread_is_over_before_the_generator_is_closed(loop, monkeypatch):
    """To close it may take long, or may fail, and nobody would look after the items and the thread any more."""
    senders, at_close = [], []

    def made(*given, make=streaming.Sender):
        senders.append(make(*given, Clock()))  # whose time stands still, so that the second item is held
        return senders[-1]

    monkeypatch.setattr(streaming, "Sender", made)

    def items():
        try:
            yield "first"
            yield "held"
            yield threading.Lock()
        finally:
            at_close.append(([*loop.sent], senders[0]._thread._ended))
            raise LookupError("while it was closed")

    with pytest.raises(LookupError, match="while it was closed"):
        streaming.run(items, (), 10)
    assert at_close == [([["first"], ["held"]], True)]


def test_what_cannot_be_closed_need_not_be_and_what_is_no_iterable_is_refused(loop):
    streaming.run(list, ("ab",), 10)
    assert [each for frame in loop.sent for each in frame] == ["a", "b"]
    with pytest.raises(TypeError, match="abs"):
        streaming.run(abs, (1,), 10)


def test_the_stream_holds_no_item_while_the_next_is_made(loop):
    class Item:
        def __reduce__(self):
            return int, ()

        def __del__(self):
            gone.append(1)

    gone = []

    def items():
        for number in range(3):
            assert len(gone) == number, "the one before is gone"
            yield Item()

    streaming.run(items, (), 10)


# ---- when it reads what the host says ----------------------------------------------------------------------------


def test_it_reads_orders_when_it_has_sent_and_not_while_it_holds(loop):
    sending, clock = sender_and_clock(loop)
    sending.put("sent")
    assert loop.looks == 1
    for _ in range(3):
        clock.now += TOGETHER / 5
        sending.put("held")
    assert loop.looks == 1
    assert loop.sent == [["sent"]]


@pytest.mark.parametrize("room", [1, 2, 3])
def test_it_waits_exactly_when_there_is_no_room(loop, room):
    sending, clock = sender_and_clock(loop, room)
    for number in range(room):
        assert loop.waits == 0
        if number == room - 1:
            loop.coming.append([order(taken=1)])
        clock.now += 1
        sending.put(number)
    assert loop.waits == 1
    assert sending._room == 1


@pytest.mark.parametrize(("size", "waits"), [(MOST_BYTES - 100, 0), (MOST_BYTES, 1)])
def test_bytes_count_up_to_the_most_that_the_reader_may_have_to_take(loop, size, waits, monkeypatch):
    monkeypatch.setattr(streaming.payload, "dumps", lambda *_: [bytes(size)])
    sending = sender(loop)
    monkeypatch.setattr(sending, "_send", lambda *_, together: loop.sent.append(together))
    loop.coming.append([order(taken=1)])
    sending.put("x")
    assert loop.waits == waits
    assert loop.sent == [False]


def test_it_stops_waiting_when_nobody_reads_any_more(loop):
    sending = sender(loop, 1)
    loop.coming.extend([[], [order(framing.STREAM_END)]])
    sending.put("a")
    assert (loop.waits, sending.unwanted) == (2, True)
    sending.put("b")
    assert loop.waits == 2


def test_what_is_held_is_sent_before_it_waits_even_if_it_comes_while_there_is_little_room(loop):
    sending = sender(loop, 2)
    sending.put("a")
    loop.coming.append([order(taken=2)])
    sending.put("b")
    assert loop.sent == [["a"], ["b"]]
    assert (loop.waits, sending._room, sending._size, len(sending._sizes)) == (1, 2, 0, 0)


def test_what_the_reader_takes_is_counted_modulo_the_width_of_the_number(loop):
    sending = sender(loop, 10)
    sending._taken = framing.COUNT_MASK - 1
    for number in range(4):
        sending.put(number)
    sizes = list(sending._sizes)
    sending._note_taken(1)  # three further on: ...FE, ...FF, 0, 1
    assert (sending._room, list(sending._sizes), sending._size) == (9, sizes[3:], sizes[3])
    sending._note_taken(framing.COUNT_MASK)
    assert sending._room == 9, "that was earlier"


def test_half_of_all_numbers_are_ahead_and_half_behind(loop):
    sending = sender(loop, 10)
    sending.put(1)
    sending._note_taken((framing.COUNT_MASK >> 1) + 1)
    assert len(sending._sizes) == 1, "behind"
    sending._note_taken(framing.COUNT_MASK >> 1)
    assert len(sending._sizes) == 0, "ahead, as a reader says that has counted too much"
