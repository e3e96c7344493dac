"""What a host tells its workers of log levels, and what it takes of their records. Without workers."""

from __future__ import annotations

import logging
import pickle
from types import SimpleNamespace

import pytest

from pidfdpool.loop.log_relay import LogRelay
from pidfdpool.process import log_levels
from pidfdpool.transport import framing

NAME = "relay.levels"


class Link:
    """The host's end of a worker: notes the levels that it is sent."""

    def __init__(self, slot=0, *, gone=False):
        self.name, self.log_levels, self.sent, self.gone = (slot, 7, 4711), None, [], gone

    def post(self, pieces):
        if self.gone:
            raise BrokenPipeError
        assert framing.HEADER.unpack_from(pieces[0])[0] == framing.LOG_LEVELS
        self.sent.append(pickle.loads(pieces[1]))


@pytest.fixture
def logger():
    logger = logging.getLogger(NAME)
    yield logger
    logger.setLevel(logging.NOTSET)


class Emitter:
    def __init__(self):
        self.items, self.lost, self.log = [], 0, []

    def put(self, item):
        self.items.append(item)

    def lose(self):
        self.lost += 1

    def join(self):
        self.log.append("join")

    def abandon_in_forked_child(self):
        self.log.append("abandon")


def relay(levels):
    made = LogRelay(SimpleNamespace(log_levels=levels), object())
    made._emitter = Emitter()
    return made


# ---- levels ------------------------------------------------------------------------------------------------------


def test_a_worker_whose_template_was_told_the_present_levels_is_told_nothing(logger):
    told = relay(log_levels.current())
    link = Link()
    told.update(link)
    told.update(link)
    assert link.sent == []


def test_a_worker_is_told_levels_that_have_changed_since_its_template_began_and_once(logger):
    told = relay(log_levels.current())
    links = [Link(0), Link(1)]
    logger.setLevel(logging.DEBUG)
    for _ in range(2):
        for link in links:
            told.update(link)
    for link in links:
        assert [levels[1][NAME] for levels in link.sent] == [(logging.DEBUG, False)]


def test_a_worker_that_was_told_of_a_change_is_told_when_all_is_as_its_template_knew_it(logger):
    told = relay(log_levels.current())
    link, fresh = Link(), Link(1)
    logger.setLevel(logging.DEBUG)
    told.update(link)
    logger.setLevel(logging.NOTSET)
    told.update(link)
    told.update(fresh)
    assert [NAME in levels[1] for levels in link.sent] == [True, False]
    assert fresh.sent == [], "its template's are right"


def test_a_change_that_comes_to_the_same_is_told_to_nobody(logger):
    told = relay(log_levels.current())
    link = Link()
    logger.setLevel(logging.DEBUG)
    told.update(link)
    logger.setLevel(logging.INFO)
    logger.setLevel(logging.DEBUG)
    told.update(link)
    assert len(link.sent) == 1


def test_levels_are_read_only_after_a_change(logger, monkeypatch):
    told, reads = relay(log_levels.current()), []
    monkeypatch.setattr(log_levels, "current", lambda: reads.append(1) or (0, {}))
    for _ in range(3):
        told.update(Link())
    assert len(reads) == 1
    logger.setLevel(logging.DEBUG)
    for _ in range(3):
        told.update(Link())
    assert len(reads) == 2


def test_where_nothing_is_forwarded_levels_concern_nobody(logger):
    told, link = relay(None), Link()
    logger.setLevel(logging.DEBUG)
    told.update(link)
    assert (link.sent, link.log_levels) == ([], None)


def test_a_worker_that_could_not_be_told_counts_as_not_told(logger):
    told, link = relay(log_levels.current()), Link(gone=True)
    logger.setLevel(logging.DEBUG)
    with pytest.raises(BrokenPipeError):
        told.update(link)
    link.gone = False
    told.update(link)
    assert len(link.sent) == 1


# ---- records -----------------------------------------------------------------------------------------------------


def log_frame(task, *buffers):
    return framing.Frame(framing.LOG, 0, 0, task, list(buffers))


def test_a_record_goes_with_its_worker_and_its_task():
    told = relay(None)
    tasks = {5: SimpleNamespace(name="jobs.work")}
    told.take(Link(3), log_frame(5, bytearray(b"data")), tasks)
    told.take(Link(3), log_frame(6, b"of a task that is over"), tasks)
    told.take(Link(3), log_frame(0, b"of no task"), tasks)
    assert told._emitter.items == [
        (b"data", 3, 4711, 5, "jobs.work"),
        (b"of a task that is over", 3, 4711, 6, None),
        (b"of no task", 3, 4711, None, None),
    ]
    assert type(told._emitter.items[0][0]) is bytes, "a copy: the buffer is used again"
    assert told._emitter.lost == 0


def test_a_record_for_which_there_was_no_memory_is_counted():
    told = relay(None)
    told.take(Link(3), log_frame(5), {})
    assert (told._emitter.items, told._emitter.lost) == ([], 1)


def test_the_end_and_a_fork_are_the_emitters_matter():
    told = relay(None)
    told.join()
    told.abandon_in_forked_child()
    assert told._emitter.log == ["join", "abandon"]


def test_what_is_handed_over_keeps_the_pool_alive():
    pool = object()
    assert LogRelay(SimpleNamespace(log_levels=None), pool)._emitter._pool is pool
