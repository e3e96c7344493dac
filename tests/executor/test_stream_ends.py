"""A `Stream` and who reads it: one at a time, and what becomes of it when that one leaves. Without a worker."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import threading
import weakref
from types import SimpleNamespace

import pytest

from pidfdpool.executor.stream import Feed, Stream
from pidfdpool.executor.stream_forms import StreamForms
from tests.conditions import eventually
from tests.executor.stream_pool import END, StreamPool, bring, opened, read_in_each_form

# ---- one reader -----------------------------------------------------------------------------------------------


@read_in_each_form
def test_a_second_reader_is_refused_and_the_first_goes_on(read):
    stream, feed = opened()
    ready, told = feed.is_ready, []

    def meanwhile():
        feed.is_ready = ready
        for item in (lambda: next(stream), lambda: stream.__anext__().send(None)):
            with pytest.raises(RuntimeError) as raised:
                item()
            told.append(str(raised.value))
        return ready()

    feed.is_ready = meanwhile
    bring(feed, 1, 2)
    assert read(stream) == 1
    assert told == ["a stream is for one reader, and somebody else reads it at this moment"] * 2
    assert read(stream) == 2


@read_in_each_form
def test_after_an_error_it_can_be_read_on(read):
    stream, feed = opened()
    feed.is_ready, ready = lambda: 1 / 0, feed.is_ready
    with pytest.raises(ZeroDivisionError):
        read(stream)
    feed.is_ready = ready
    bring(feed, 1)
    assert read(stream) == 1


@read_in_each_form
def test_whoever_reads_last_is_its_reader(read):
    """A shutdown in that thread must not wait for it."""
    stream, feed = opened()
    feed.reader = None
    bring(feed, 1, 2)
    thread = threading.Thread(target=read, args=(stream,))
    thread.start()
    thread.join(20)
    assert feed.reader not in (None, threading.get_ident())
    read(stream)
    assert feed.reader == threading.get_ident()


def test_a_coroutine_that_is_cancelled_while_it_waits_leaves_a_stream_that_can_be_read():
    async def main():
        stream, feed = opened()
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        bring(feed, 1)
        assert await anext(stream) == 1

    asyncio.run(main())


def test_a_thread_that_finds_nothing_waits_for_the_next_item_and_for_the_end():
    stream, feed = opened()
    feed._pool = None  # nobody reads channels here
    got = []
    reader = threading.Thread(target=lambda: got.extend(stream), daemon=True)
    reader.start()
    for number in range(3):
        eventually(lambda: feed._arrival is not None, "it waits", seconds=8)
        assert reader.is_alive()
        bring(feed, number)
        eventually(lambda number=number: len(got) == number + 1, "it has come", seconds=8)
    feed._resolve(None, None)
    reader.join(8)
    assert got == [0, 1, 2]


# ---- its end --------------------------------------------------------------------------------------------------


@read_in_each_form
def test_the_executor_is_kept_until_the_end_was_read(read):
    """Without its executor a pool ends; and who has read all keeps none alive."""
    stream, feed = opened()
    owner = weakref.ref(stream._owner)
    bring(feed, 1)
    feed._resolve(None, None)
    read(stream)
    gc.collect()
    assert owner() is not None
    with pytest.raises(END[read]):
        read(stream)
    assert owner() is None


def leave_block(stream):
    with stream as same:
        assert same is stream


def leave_async_block(stream):
    async def leave():
        async with stream as same:
            assert same is stream

    asyncio.run(leave())


CLOSINGS = {
    "close": lambda stream: stream.close(),
    "aclose": lambda stream: asyncio.run(stream.aclose()),
    "with": leave_block,
    "async with": leave_async_block,
}


@pytest.mark.parametrize("close", CLOSINGS.values(), ids=CLOSINGS)
def test_closing_drops_what_has_come_and_keeps_no_executor(close):
    pool = StreamPool()
    stream, feed = opened(pool)
    owner = weakref.ref(stream._owner)
    bring(feed, 1)
    close(stream)
    assert pool.asked == ["cancel", ("end", 0)]
    assert owner() is None
    assert list(stream) == []
    close(stream)
    assert pool.asked == ["cancel", ("end", 0)], "once"


@pytest.mark.parametrize("error", [None, LookupError("of the generator")])
@pytest.mark.parametrize("close", CLOSINGS.values(), ids=CLOSINGS)
def test_closing_drops_what_is_left_of_a_generator_that_had_ended_before(close, error):
    """Guards: whether a closed stream gave more items depended on how fast the worker had been."""
    stream, feed = opened()
    bring(feed, 1, 2)
    feed._resolve(None, error)
    close(stream)
    assert not feed.payloads
    assert list(stream) == []


def test_what_a_generator_has_given_before_its_end_survives_the_end_of_its_executor():
    stream, feed = opened()
    bring(feed, 1, 2)
    feed._resolve(None, None)
    feed.stop_submitting(LookupError())
    feed.stop_reading_here()
    assert list(stream) == [1, 2]


@read_in_each_form
def test_who_finds_an_item_does_not_wait(read):
    stream, feed = opened()
    bring(feed, 1)
    feed.wait, feed.wakeup = pytest.fail, SimpleNamespace(wait=pytest.fail, tell=lambda: None)
    assert read(stream) == 1


def test_leaving_a_block_passes_on_what_was_raised_in_it():
    stream, _ = opened()
    with pytest.raises(KeyError), stream:
        raise KeyError

    async def leave():
        async with opened()[0]:
            raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(leave())


def test_one_that_is_forgotten_is_closed_and_one_that_has_ended_asks_for_nothing():
    pool = StreamPool()
    stream, feed = opened(pool)
    del stream
    assert pool.asked == ["cancel", ("end", 0)]
    assert feed.ended
    closed = []
    stream, feed = opened()
    feed.ended, feed.close = True, lambda: closed.append(1)
    del stream
    assert closed == []


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_one_that_was_never_made_is_forgotten_in_peace():
    stream = Stream.__new__(Stream)
    del stream
    gc.collect()


class Closes:
    """Closes a stream when it is rebuilt, as another thread might at that moment."""

    def __reduce__(self):
        return close_all, ()


closing: list[Stream] = []


def close_all():
    closing.pop().close()
    return "closed"


@pytest.mark.parametrize("together", [False, True])
def test_a_stream_that_is_closed_while_an_item_is_read_ends(together):
    stream, feed = opened()
    bring(feed, Closes(), 1, 2, together=together)
    closing.append(stream)
    assert next(stream) == "closed"
    assert list(stream) == []


def test_killing_is_told_and_what_is_killed_tells_of_its_end():
    pool = StreamPool()
    stream, feed = opened(pool)
    assert stream.kill() is True
    assert pool.asked == ["cancel", "kill"]
    feed._resolve(None, None)
    assert stream.kill() is False


def test_it_shows_its_state_and_how_much_waits():
    stream, feed = opened()
    assert repr(stream) == "<Stream open, 0 waiting>"
    bring(feed, 1, 2)
    assert repr(stream) == "<Stream open, 2 waiting>"
    feed._resolve(None, None)
    assert repr(stream) == "<Stream ended, 2 waiting>"


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_copy_is_refused(how):
    stream, _ = opened()
    with pytest.raises(TypeError, match="cannot copy or pickle 'Stream' object: it is read where it was made"):
        how(stream)


def test_it_is_its_own_iterator_of_both_kinds():
    stream, _ = opened()
    assert iter(stream) is stream
    assert aiter(stream) is stream


def test_without_a_method_of_its_own_a_form_cannot_be_closed():
    with pytest.raises(NotImplementedError):
        StreamForms.close(Stream(None, Feed(), 1))
