"""A `Stream` as its reader uses it: the items, and what the worker is told. Without a pool or a worker."""

from __future__ import annotations

import gc
import pickle
import signal
import weakref

import pytest

from pidfdpool import PayloadError
from pidfdpool.executor import stream as streams
from pidfdpool.worker import streaming
from tests.executor.stream_pool import END, StreamPool, bring, opened, read_in_each_form


class Refuses:
    def __reduce__(self):
        return refuse, ()


def refuse():
    raise LookupError("refused")


# ---- items ----------------------------------------------------------------------------------------------------


@read_in_each_form
def test_items_come_in_order_however_they_travelled_and_then_the_end(read):
    stream, feed = opened()
    bring(feed, 0)
    bring(feed, 1, 2, 3, together=True)
    bring(feed, 4, together=True)
    bring(feed, 5, 6, together=True)
    bring(feed, 7)
    feed._resolve(None, None)
    assert [read(stream) for _ in range(8)] == list(range(8))
    for _ in range(2):
        with pytest.raises(END[read]):
            read(stream)
    assert not feed.payloads


@read_in_each_form
def test_what_it_failed_of_comes_behind_the_items_and_once(read):
    stream, feed = opened()
    bring(feed, 1)
    feed._resolve(None, LookupError("mine"))
    assert read(stream) == 1
    with pytest.raises(LookupError, match="mine"):
        read(stream)
    with pytest.raises(END[read]):
        read(stream)


@read_in_each_form
def test_an_item_that_cannot_be_rebuilt_costs_only_itself_and_was_taken(read):
    pool = StreamPool()
    stream, feed = opened(pool, buffersize=2)
    bring(feed, Refuses())
    bring(feed, Refuses(), "between", together=True)
    bring(feed, "after")
    for _ in range(2):
        with pytest.raises(PayloadError, match="refused"):
            read(stream)
    assert [read(stream), read(stream)] == ["between", "after"]
    assert pool.told() == [1, 2, 3, 4]


@read_in_each_form
@pytest.mark.parametrize(
    ("payload", "told"), [(b"no pickle", "UnpicklingError"), (pickle.dumps(5), "int"), (pickle.dumps([]), "list")]
)
def test_items_together_that_cannot_be_read_cost_only_themselves(read, payload, told):
    stream, feed = opened()
    feed.take_payload([payload], together=True)
    bring(feed, "after")
    with pytest.raises(PayloadError, match=f"the items of a stream cannot be read: .*{told}"):
        read(stream)
    assert read(stream) == "after"


def test_an_item_is_let_go_of_when_its_reader_does():
    stream, feed = opened()
    bring(feed, Kept(), Kept(), together=True)
    bring(feed, Kept())
    gc.disable()
    try:
        for _ in range(3):
            item = next(stream)
            gone = weakref.ref(item)
            del item
            assert gone() is None
    finally:
        gc.enable()


class Kept:
    """Can be watched."""


def test_an_error_of_the_end_is_let_go_of_when_its_reader_does():
    stream, feed = opened()
    feed._resolve(None, Watched())
    gc.disable()
    try:
        try:
            next(stream)
        except Watched as error:
            gone = weakref.ref(error)
        assert gone() is None, "neither the feed nor a frame holds it"
    finally:
        gc.enable()


class Watched(Exception):
    """Can be watched."""


# ---- what the worker is told ----------------------------------------------------------------------------------


@read_in_each_form
@pytest.mark.parametrize(
    ("buffersize", "told"),
    [
        (1, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (2, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (3, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (4, [2, 4, 6, 8, 10]),
        (7, [3, 6, 9]),
        (20, [10]),
        (21, [10]),
        (22, []),
    ],
)
def test_the_worker_is_told_each_time_when_half_of_its_room_was_taken(read, buffersize, told):
    pool = StreamPool()
    stream, feed = opened(pool, buffersize)
    for number in range(10):
        bring(feed, number)
    assert [read(stream) for _ in range(10)] == list(range(10))
    assert pool.told() == told


def test_bytes_are_counted_from_what_the_worker_was_told_last(monkeypatch):
    monkeypatch.setattr(streams, "_MOST_BYTES", 200)
    pool = StreamPool()
    stream, feed = opened(pool, buffersize=6)
    for size in (60, 60, 60, 60, 150, 60, 60, 199, 60):
        bring_sized(feed, size)
    for _ in range(9):
        next(stream)
    assert pool.told() == [3, 5, 8], "three items, more than 200 bytes after these, and again three items"


def bring_sized(feed, size):
    """Have an item come whose payload has so many bytes."""
    item = bytes(size - len(pickle.dumps(bytes(50))) + 50)
    assert len(pickle.dumps(item)) == size
    bring(feed, item)


def test_the_bytes_of_all_parts_of_an_item_count(monkeypatch):
    monkeypatch.setattr(streams, "_MOST_BYTES", 200)
    pool, parts = StreamPool(), []
    stream, feed = opened(pool)
    head = pickle.dumps([pickle.PickleBuffer(bytearray(110)) for _ in range(2)], 5, buffer_callback=parts.append)
    feed.take_payload([head, *map(bytes, parts)], together=False)
    assert [len(each) for each in next(stream)] == [110, 110]
    assert len(head) < 100
    assert pool.told() == [1]


@pytest.mark.parametrize("size", [99, 100])
def test_just_so_many_bytes_are_enough(monkeypatch, size):
    monkeypatch.setattr(streams, "_MOST_BYTES", 100)
    pool = StreamPool()
    stream, feed = opened(pool)
    bring_sized(feed, size)
    next(stream)
    assert pool.told() == ([1] if size == 100 else [])


@read_in_each_form
def test_who_is_about_to_wait_tells_what_was_taken_and_only_once(read):
    """The generator may wait for room, and nobody would tell it of any."""
    pool = StreamPool()
    stream, feed = opened(pool)
    bring(feed, 0, 1)
    assert [read(stream), read(stream)] == [0, 1]
    assert pool.told() == [], "there was something to read"
    ready, looks = feed.is_ready, []

    def comes_late():
        looks.append(pool.told())
        if len(looks) > 1:
            bring(feed, 2)
        return ready()

    feed.is_ready = comes_late
    assert read(stream) == 2
    assert looks[:2] == [[], [2]]
    feed.is_ready, looks = ready, []
    bring(feed, 3)
    assert read(stream) == 3
    assert pool.told() == [2]


def test_what_was_told_is_not_told_again():
    pool = StreamPool()
    stream, feed = opened(pool, buffersize=4)
    bring(feed, 0, 1, together=True)
    assert [next(stream), next(stream)] == [0, 1]
    assert pool.told() == [2]
    assert stream._prepare() is False
    assert pool.told() == [2]


def test_a_generator_that_has_ended_is_told_nothing():
    pool = StreamPool()
    stream, feed = opened(pool, buffersize=2)
    bring(feed, 0, 1, 2)
    feed.ended = True
    assert list(stream) == [0, 1, 2]
    assert pool.asked == []


def test_a_handler_that_raises_while_the_worker_is_told_has_it_told_again():
    pool = StreamPool()
    stream, feed = opened(pool, buffersize=4)
    tell, interrupts = feed.tell_taken, [LookupError("by a handler")]

    def interrupted(total):
        if interrupts:
            raise interrupts.pop()
        tell(total)

    feed.tell_taken = interrupted
    bring(feed, 0, 1, 2, together=True)
    assert next(stream) == 0
    with pytest.raises(LookupError):
        next(stream)
    assert next(stream) == 1, "it was not taken away"
    assert pool.told() == [3], "the item was counted before, and perhaps twice"
    assert next(stream) == 2


def test_the_worker_is_told_when_half_of_the_bytes_that_it_may_be_ahead_were_taken():
    pool = StreamPool()
    stream, feed = opened(pool)
    for taken in (1, 2):
        bring(feed, bytes(streaming.MOST_BYTES * 2 // 5))
        next(stream)
        assert pool.told() == [taken] * (taken - 1)


# ---- signal handlers ------------------------------------------------------------------------------------------


class Interrupted(Exception):
    """What a signal handler raises."""


class Interrupts:
    """Is interrupted by a signal when it is rebuilt for the first time. Is a list of pickled items then."""

    def __reduce__(self):
        return interrupt_once, ()


def interrupt_once():
    if signals:
        signals.pop()
        signal.raise_signal(signal.SIGUSR1)
    return [pickle.dumps("rebuilt")]


signals: list[int] = []


@pytest.fixture
def handler():
    """Have the next signal be handled by a function that raises."""

    def interrupt(_number, _frame):
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    signals.append(1)
    yield
    signal.signal(signal.SIGUSR1, before)
    signals.clear()


@pytest.mark.usefixtures("handler")
@pytest.mark.parametrize("together", [False, True])
def test_what_a_signal_handler_raises_while_an_item_is_rebuilt_is_no_error_of_the_item(together):
    stream, feed = opened()
    feed.take_payload([pickle.dumps(Interrupts())], together=together)
    bring(feed, "after")
    with pytest.raises(Interrupted):
        next(stream)
    assert next(stream) == ("rebuilt" if together else [pickle.dumps("rebuilt")]), "it was not taken away"
    assert next(stream) == "after"
