"""When a stream sends what it holds, in which frames, and what its thread does."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from pidfdpool.transport import framing
from pidfdpool.worker import streaming
from pidfdpool.worker.streaming import LARGE, TOGETHER
from tests.conditions import eventually, in_forked_child
from tests.worker.test_stream_parts import sender, sender_and_clock
from tests.worker.test_streaming import TASK, Clock, Loop


@pytest.fixture
def loop():
    """Give what stands for the worker's loop."""
    return Loop()


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


def test_the_thread_counts_from_the_first_that_is_held_however_late_others_came(loop):
    sending, clock = sender_and_clock(loop)
    sending.put("a")
    for item, at in (("b", 0.25), ("c", 1.0)):
        clock.now = TOGETHER * at
        sending.put(item)
    clock.now = TOGETHER * 1.25
    sending._flush()
    assert loop.sent == [["a"], ["b", "c"]], "the reader waits for the first, whatever came behind it"


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
