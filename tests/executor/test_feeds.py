"""What a stream's feed takes, asks of its pool and tells its reader. Without a pool or a worker."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError
from types import SimpleNamespace

import pytest

from pidfdpool.executor import lifecycle
from pidfdpool.executor.stream import Feed
from tests.conditions import eventually
from tests.executor.stream_pool import StreamPool, attached, bring


def waiting_thread(feed):
    """Return a thread that waits for what comes of the feed."""
    reader = threading.Thread(target=feed.wait, daemon=True)
    reader.start()
    eventually(lambda: feed._arrival is not None, "it waits", seconds=8)
    return reader


def ends(reader):
    reader.join(8)
    return not reader.is_alive()


# ---- what wakes its reader ------------------------------------------------------------------------------------


ARRIVALS = {
    "an item": lambda feed: bring(feed, 1),
    "its end": lambda feed: feed._resolve(None, None),
    "an error": lambda feed: feed._resolve(None, LookupError()),
    "cancelled": lambda feed: feed._resolve_cancelled(),
    "closed": lambda feed: feed.close(),
    "stopped": lambda feed: feed.stop_submitting(LookupError()),
}


@pytest.mark.parametrize("arrive", ARRIVALS.values(), ids=ARRIVALS)
def test_whatever_comes_wakes_the_thread_that_reads(arrive):
    feed = Feed()
    feed._attach(leading(SimpleNamespace(asked=[])), 7, False)
    reader = waiting_thread(feed)
    arrive(feed)
    assert ends(reader)


@pytest.mark.parametrize("arrive", ARRIVALS.values(), ids=ARRIVALS)
def test_whatever_comes_wakes_the_coroutine_that_reads(arrive):
    async def main():
        feed = attached()
        waiting = asyncio.ensure_future(feed.wakeup.wait(feed.is_ready))
        await asyncio.sleep(0)
        assert not waiting.done()
        arrive(feed)
        await asyncio.wait_for(waiting, 20)

    asyncio.run(main())


def test_who_finds_something_does_not_wait():
    for arrive in ARRIVALS.values():
        feed = attached()
        assert not feed.is_ready()
        arrive(feed)
        assert feed.is_ready()
        feed.wait()
        assert feed._arrival is None, "nothing was made for it to wait for"


def leading(pool):
    """Give the pool somebody who notes what a thread waits for by reading the channels."""
    pool.led = []
    pool.leadership = SimpleNamespace(wait=lambda future, timeout: pool.led.append((future._number, timeout)))
    pool.note_observer = lambda: pool.asked.append("observed")
    pool.cancel = lambda _number, _recipient: True
    return pool


def test_a_thread_that_reads_waits_by_reading_the_channels_of_the_pool_for_its_own_task():
    """Guards: each item would wake the pool's thread first, and that the reader."""
    pool = leading(SimpleNamespace(asked=[]))
    feed = Feed()
    feed._attach(pool, 7, True)
    reader = waiting_thread(feed)
    eventually(lambda: pool.led, "it leads", seconds=8)
    assert feed._arrival._cancel_kills is False, "what it waits for is no task that could be killed"
    bring(feed, 1)
    assert ends(reader)
    assert pool.led == [(7, None)]


# ---- what it takes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [False, True])
def test_payloads_lie_in_order_each_with_whether_it_is_a_list(together):
    feed = Feed()
    feed.take_payload([b"first"], together=together)
    feed.take_payload([b"second"], together=not together)
    assert list(feed.payloads) == [([b"first"], together), ([b"second"], not together)]


def test_what_comes_after_it_was_closed_is_dropped():
    feed = attached()
    bring(feed, 1)
    feed.close()
    bring(feed, 2)
    assert not feed.payloads
    feed = attached()
    bring(feed, 1)
    feed.close(keeps=True)
    bring(feed, 2)
    assert len(feed.payloads) == 1, "what had come before is kept"


def test_the_first_end_counts():
    feed, first = attached(), LookupError("first")
    feed._resolve(None, first)
    feed._resolve(None, ValueError("second"))
    assert (feed.ended, feed.error) == (True, first)
    feed.stop_submitting(ValueError("third"))
    assert feed.error is first
    feed = attached()
    feed.close()
    feed._resolve(None, LookupError("of the task that was killed"))
    assert (feed.ended, feed.error) == (True, None), "who has closed it asks for no error"


def test_a_stream_that_the_pool_cancels_fails_of_that():
    feed = attached()
    feed._resolve_cancelled()
    assert feed.ended
    assert type(feed.error) is CancelledError


@pytest.mark.parametrize("end", [lambda feed: feed._resolve(None, None), lambda feed: feed._resolve_cancelled()])
def test_a_feed_whose_task_is_over_keeps_no_pool_alive_and_asks_it_for_nothing(end):
    pool = StreamPool()
    feed = attached(pool)
    end(feed)
    assert feed._pool is None
    feed.close()
    feed.tell_taken(5)
    assert feed.kill() is False
    assert pool.asked == []


def test_the_error_is_there_before_the_end_is_told():
    """Guards: a reader in another thread took the end for that of the generator, and lost the error."""
    seen, error = [], LookupError()

    class Watched(Feed):
        def __setattr__(self, name, value):
            if name == "ended" and value:
                seen.append(self.error)
            super().__setattr__(name, value)

    feed = Watched()
    feed._resolve(None, error)
    assert seen == [error]


# ---- what it asks of its pool ---------------------------------------------------------------------------------


def test_the_worker_is_told_what_was_taken_and_before_there_is_a_pool_nobody_is():
    Feed().tell_taken(3)
    pool = StreamPool()
    feed = attached(pool)
    feed.tell_taken(3)
    feed.tell_taken(2**32 + 5)
    assert pool.asked == [("room", 3), ("room", 5)], "counted as a frame counts"


@pytest.mark.parametrize("kills", [False, True])
@pytest.mark.parametrize("cancels", [False, True])
def test_closing_cancels_what_waits_and_otherwise_ends_or_kills_what_runs_once(cancels, kills):
    pool = StreamPool(cancels=cancels)
    feed = attached(pool, cancel_kills=kills)
    for _ in range(3):
        feed.close()
    assert pool.asked == ["cancel", *([] if cancels else ["kill"] if kills else [("end", 0)])]


@pytest.mark.parametrize("cancels", [False, True])
def test_killing_cancels_what_waits_and_kills_what_runs(cancels):
    pool = StreamPool(cancels=cancels)
    feed = attached(pool)
    assert feed.kill() is True
    assert pool.asked == ["cancel"] if cancels else ["cancel", "kill"]


def test_there_is_nothing_to_kill_before_there_is_a_pool_and_after_the_end():
    assert Feed().kill() is False
    pool = StreamPool()
    feed = attached(pool)
    feed.close()
    pool.asked.clear()
    assert feed.kill() is False
    assert pool.asked == []


def test_a_feed_without_a_pool_is_closed_for_its_reader():
    feed = Feed()
    bring(feed, 1)
    error = LookupError()
    feed.close(error)
    assert (feed.ended, feed.error, len(feed.payloads)) == (True, error, 0)
    assert not feed._is_wanted()


def test_the_end_is_told_before_what_has_come_is_dropped():
    """Guards: a thread that read in between found neither an item nor the end, and waited for ever."""
    feed, seen = attached(), []

    class Payloads(type(feed.payloads)):
        def clear(self):
            seen.append(feed.ended)
            super().clear()

    feed.payloads = Payloads([([b""], False)])
    feed.close()
    assert seen == [True]


@pytest.mark.parametrize("action", ["close", "kill"])
def test_a_fork_that_python_has_not_noticed_is_noticed_by_who_ends_a_stream(action, monkeypatch):
    """Guards: it told the parent's worker."""
    noticed = []
    monkeypatch.setattr(lifecycle, "detect_fork", lambda: noticed.append(1))
    getattr(attached(), action)()
    assert noticed == [1]


# ---- as the recipient of its task -----------------------------------------------------------------------------


def test_a_feed_observes_from_the_beginning():
    """Its items have to be read without anybody who waits for a result."""
    pool = StreamPool()
    Feed()._attach(pool, 7, False)
    assert pool.asked == ["observed"]
    assert Feed()._is_observed() is True
    assert Feed()._has_callbacks() is False


def test_it_is_wanted_and_begins_until_it_is_closed():
    feed = attached(begun=False)
    assert (feed._is_wanted(), feed._mark_cancelled()) == (True, True)
    assert feed._begin() is True
    assert (feed._is_wanted(), feed._mark_cancelled()) == (True, False), "a worker has begun it"
    feed.close()
    assert (feed._is_wanted(), feed._begin(), feed._mark_cancelled()) == (False, False, False)


def test_it_has_one_attempt_and_no_more_to_submit():
    feed = Feed()
    assert feed._note_attempt((0, 1, 4711), 1, 0.0) is None
    assert feed.submit_rest() is True
    assert feed.submit_rest(wait=False) is True
    feed.forget_in_forked_child()
    assert not feed.ended


def test_a_forked_copy_has_failed_and_asks_nothing_of_the_parents_pool():
    pool, error = StreamPool(), LookupError()
    feed = attached(pool)
    bring(feed, 1)
    feed._closing.acquire()  # as another thread of the parent's may
    before, wakeup = feed._closing, feed.wakeup
    feed._fail_in_forked_child(error)
    assert (feed.ended, feed.error, feed._pool) == (True, error, None)
    assert feed._closing is not before
    assert feed.wakeup is not wakeup, "that one's loop is the parent's"
    before.release()
    feed.close()
    assert feed.kill() is False
    feed.tell_taken(4)
    assert pool.asked == []


def test_a_forked_copy_wakes_nobody_of_the_parents():
    feed = attached()
    feed._arrival = SimpleNamespace(_resolve=pytest.fail)
    feed._fail_in_forked_child(LookupError())
    assert feed._arrival is None


# ---- at the executor's end ------------------------------------------------------------------------------------


def test_the_reader_is_the_thread_that_has_made_it_until_another_reads():
    assert Feed().reader == threading.get_ident()


def test_a_stream_that_is_ended_for_its_reader_keeps_what_had_come_and_says_why():
    pool = StreamPool()
    feed = attached(pool)
    bring(feed, 1, 2)
    feed.stop_reading_here()
    assert len(feed.payloads) == 2
    assert type(feed.error) is RuntimeError
    assert str(feed.error) == "the executor was shut down before the generator of this stream had ended"
    assert pool.asked == ["cancel", ("end", 0)]


def test_a_stream_that_is_stopped_gives_its_reader_the_error_and_nothing_else():
    pool, error = StreamPool(), CancelledError()
    feed = attached(pool)
    bring(feed, 1, 2)
    feed.stop_submitting(error)
    assert (feed.error, len(feed.payloads)) == (error, 0)
    assert pool.asked == ["cancel", ("end", 0)]


def test_two_threads_that_close_it_ask_the_pool_once():
    pool, barrier, errors = StreamPool(), threading.Barrier(2, timeout=20), []
    feed = attached(pool)

    class Slow:
        """A lock that is asked for by both before one has it."""

        def __init__(self, lock):
            self.lock = lock

        def __enter__(self):
            barrier.wait()
            self.lock.acquire()

        def __exit__(self, *_):
            self.lock.release()

    feed._closing = Slow(feed._closing)

    def close():
        try:
            feed.close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=close) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert errors == []
    assert pool.asked == ["cancel", ("end", 0)]
