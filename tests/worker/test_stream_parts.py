"""A stream's last decisions: what it asks for, what it leaves undone, and what becomes of the generator."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from pidfdpool.transport import framing
from pidfdpool.worker import chunk, context, streaming
from pidfdpool.worker.streaming import LARGE, MOST_BYTES, TOGETHER
from tests.conditions import eventually, in_forked_child
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


def test_the_process_that_began_a_stream_goes_on_after_each_item(loop):
    def stream():
        sending = sender(loop)
        sending.put("a")
        sending.put("held")
        sending.end()
        assert loop.sent == [["a"], ["held"]]

    assert in_forked_child(stream) == "ok"


def test_what_nobody_wants_any_more_is_not_sent_by_the_thread_either(loop):
    sending, clock = sender_and_clock(loop)
    sending.put("a")
    sending.put("held")
    sending.unwanted = True
    sending.end()
    clock.now += 1
    assert not sending._flush()
    assert loop.sent == [["a"]]


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


# ---- when it sends -------------------------------------------------------------------------------------------------


def test_after_a_pause_an_item_is_sent_at_once_together_with_what_is_held(loop):
    sending, clock = sender_and_clock(loop)
    sending.put("a")
    clock.now += TOGETHER / 2
    sending.put("b")
    clock.now += TOGETHER
    sending.put("c")
    assert loop.sent == [["a"], ["b", "c"]]


def test_the_time_counts_from_the_first_that_is_held(loop):
    sending, clock = sender_and_clock(loop)
    sending.put("a")
    for item, at in (("b", 0.25), ("c", 1.0)):
        clock.now = TOGETHER * at
        sending.put(item)
    assert loop.sent == [["a"]]
    clock.now = TOGETHER * 1.25
    sending.put("d")
    assert loop.sent == [["a"], ["b", "c", "d"]]
    assert (sending._held, sending._held_size) == ([], 0)


def test_a_pause_is_as_long_as_items_may_be_held(loop):
    sending, clock = sender_and_clock(loop)
    for item, at in (("a", 0.0), ("b", 1.0), ("c", 1.5), ("d", 2.5)):
        clock.now = TOGETHER * at
        sending.put(item)
    assert loop.sent == [["a"], ["b"], ["c", "d"]]


@pytest.mark.parametrize(("sizes", "frames"), [([LARGE - 1], 1), ([LARGE], 2), ([LARGE // 2, LARGE // 2 - 1], 1)])
def test_items_wait_for_others_up_to_the_size_of_a_large_one(loop, sizes, frames, monkeypatch):
    sending = sender(loop)
    sending.put("a")
    monkeypatch.setattr(streaming.payload, "dumps", lambda size, _: [bytes(size)])
    sent = []
    monkeypatch.setattr(sending, "_send", lambda buffers, *, together: sent.append(together))
    for size in sizes:
        sending.put(size)
    assert 1 + len(sent) == frames
    if len(sizes) == 2:
        sending.put(1)
        assert sent == [True], "together they are as much"


def test_an_item_with_buffers_of_its_own_is_sent_alone_and_at_once(loop, monkeypatch):
    sending = sender(loop)
    sending.put("a")
    sending.put("held")
    monkeypatch.setattr(streaming.payload, "dumps", lambda *_: [b"pickle", b"buffer"])
    frames = []
    monkeypatch.setattr(loop, "send_items", lambda pieces: frames.append(framing.HEADER.unpack_from(pieces[0])))
    sending.put("two buffers")
    assert [(kind, count, slot, value) for kind, count, slot, _, value in frames] == [
        (framing.ITEMS, 1, 1, TASK),
        (framing.ITEMS, 2, 0, TASK),
    ]
    assert sending._sizes[-1] == len(b"picklebuffer")


@pytest.mark.parametrize("elapsed", [TOGETHER / 2, TOGETHER])
def test_the_thread_sends_what_is_held_for_long_and_not_before(loop, elapsed):
    sending, clock = sender_and_clock(loop)
    sending.put("a")
    sending.put("held")
    clock.now += elapsed
    assert sending._flush(), "it may be needed again"
    assert (len(loop.sent) == 2) is (elapsed >= TOGETHER)
    assert not sending._thread.sleeps
    if elapsed >= TOGETHER:
        assert not sending._flush()
        assert sending._thread.sleeps


def test_no_thread_is_made_where_nothing_is_held(loop):
    sending = streaming.Sender(loop, TASK, 10, clock := Clock())
    for item in "ab":
        clock.now += 1
        sending.put(item)
    assert sending._thread is None
    sending.end()


def test_one_thread_is_made_however_much_is_held_and_it_is_woken_each_time(loop):
    sending = sender(loop)
    thread = sending._thread
    for item in "abc":
        thread.sleeps = True
        sending.put(item)
    assert sending._thread is thread
    assert not thread.sleeps


def test_every_frame_is_sent_under_the_lock_so_that_the_thread_sends_none_meanwhile(loop, monkeypatch):
    sending, clock = sender_and_clock(loop, 4)
    held, waits = [], []

    def read_orders(*, wait):
        assert not sending._lock.locked(), "the thread may send while this waits"
        if wait:
            waits.append(len(held))
            sending._note_taken(sending._taken + 3)

    monkeypatch.setattr(loop, "send_items", lambda _pieces: held.append(sending._lock.locked()))
    monkeypatch.setattr(loop, "read_orders", read_orders)
    sending.put("sent")
    sending.put("held")
    sending.put(bytes(LARGE))
    assert len(held) == 3
    sending.put("held")
    assert (len(held), waits) == (4, [4]), "it was sent before the wait"
    clock.now += 1
    sending.put("after a pause")
    sending.put("held")
    clock.now += 1
    sending._flush()
    sending.put("at once")
    sending._room = 100
    sending.put("held")
    sending.end()
    assert held == [True] * len(held)
    assert len(held) == 8


def test_a_host_that_is_gone_is_for_the_workers_thread_to_notice(loop, monkeypatch):
    def gone(_pieces):
        raise BrokenPipeError

    sending, clock = sender_and_clock(loop)
    sending.put("a")
    sending.put("held")
    monkeypatch.setattr(loop, "send_items", gone)
    clock.now += 1
    assert sending._flush()
    assert not sending._lock.locked()
    sending._held = [b"x"]
    sending.end()
    assert sending._held == []
    with pytest.raises(BrokenPipeError):
        sending.put("b")


def test_the_thread_leaves_signals_to_the_workers_thread():
    import signal

    blocked, thread = [], None

    def flush():
        blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        thread.sleeps = True
        return False

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    thread = streaming._FlushThread(flush)
    thread.wake()
    eventually(lambda: blocked, "it is called")
    thread.end()
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1} <= blocked[0]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_the_thread_calls_again_and_again_as_long_as_it_is_needed_and_then_sleeps_until_it_is_woken():
    calls, thread = [], None

    def flush():
        calls.append(1)
        thread.sleeps = len(calls) % 3 == 0
        return not thread.sleeps

    thread = streaming._FlushThread(flush)
    assert thread.sleeps, "nothing is held yet"
    for rounds in (1, 2):
        thread.wake()
        eventually(lambda: thread.sleeps and len(calls) == 3 * rounds, "it sleeps")
    thread.end()


def test_no_thread_is_left_of_a_stream_that_held_items(loop):
    before = sys._current_frames().keys()
    sending = streaming.Sender(loop, TASK, 10)
    sending.put("a")
    sending.put("held")
    made = eventually(lambda: sys._current_frames().keys() - before, "it runs")
    sending.end()
    eventually(lambda: not made & sys._current_frames().keys(), "it has ended")


def test_a_copy_of_the_generator_that_yields_ends_without_a_word(loop):
    def copy():
        sending = sender(loop)
        pid = os.fork()
        if not pid:
            sending._lock.acquire()  # as if the worker's thread had it at the fork
            sending.put("of the copy")
            os._exit(5)
        assert os.waitpid(pid, 0)[1] == 0
        assert loop.sent == []

    assert in_forked_child(copy) == "ok"
