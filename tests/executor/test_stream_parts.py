"""What comes of a stream, and its reader, without a pool."""

from __future__ import annotations

import pickle
import threading

import pytest

from pidfdpool.executor import stream as streams
from pidfdpool.executor.stream import Feed, Stream
from tests.conditions import eventually


def test_what_comes_between_the_look_and_the_wait_is_not_missed():
    class Late(Feed):
        looks = 0

        def is_ready(self):
            ready, self.looks = super().is_ready(), self.looks + 1
            if self.looks == 1:
                self.take_payload([b""], together=False)  # by another thread, right after this look
            return ready

    feed = Late()
    reader = threading.Thread(target=feed.wait, daemon=True)
    reader.start()
    eventually(lambda: not reader.is_alive(), "it waits no longer", seconds=10)


def test_of_large_items_the_worker_is_told_each_time_when_so_many_bytes_were_taken(monkeypatch):
    monkeypatch.setattr(streams, "_MOST_BYTES", 1000)
    feed, told = Feed(), []
    feed.tell_taken = told.append
    feed.payloads.extend(([pickle.dumps(bytes(300))], False) for _ in range(12))
    stream = Stream(None, feed, 1000)
    assert [next(stream) for _ in range(12)] == [bytes(300)] * 12
    assert told == [4, 8, 12]
    stream.close()


@pytest.mark.parametrize("reader", ["this thread", "gone", "another one"])
def test_a_stream_is_ended_for_a_reader_that_is_about_to_wait_or_is_gone(reader):
    feed, go_on = Feed(), threading.Event()
    if reader != "this thread":
        thread = threading.Thread(target=go_on.wait)
        thread.start()
        feed.reader = thread.ident
        if reader == "gone":
            go_on.set()
            thread.join()
    feed.stop_reading_here()
    assert feed.ended == (reader != "another one")
    go_on.set()
    if reader != "this thread":
        thread.join()
