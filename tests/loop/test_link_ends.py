"""What a worker had when its link is closed: segments, and what it may still write to."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from pidfdpool.loop import answers
from pidfdpool.loop.links import WorkerLink
from pidfdpool.loop.segment_account import TaskSegments
from pidfdpool.transport import channel as channels
from pidfdpool.transport import tokens
from tests.loop.test_links import nothing


@pytest.fixture
def link(poller):
    ours, theirs = channels.pair()
    our_tokens, its_tokens = tokens.pair()
    os.close(its_tokens)
    link = WorkerLink(3, 7, ours, answers.attach(ours), our_tokens, poller)
    yield link
    link.close()
    theirs.close()


def test_what_a_worker_was_lent_is_not_used_again_when_it_is_closed(link):
    """A process that its task started may have it mapped."""
    segment = SimpleNamespace(not_reusable=False)
    link.account.leased[1] = TaskSegments(segment, None, None)
    link.account.mapped_sizes[1] = 5
    link.close()
    assert segment.not_reusable
    assert (link.account.leased, link.account.mapped) == ({}, 0)


def test_each_link_expects_another_cookie(poller, link):
    """Otherwise what one task has read could be written into another worker's answers."""
    ours, theirs = channels.pair()
    our_tokens, its_tokens = tokens.pair()
    other = WorkerLink(4, 8, ours, answers.attach(ours), our_tokens, poller)
    assert other.cookie != link.cookie
    other.close()
    theirs.close()
    os.close(its_tokens)


def test_what_is_closed_twice_closes_nothing_of_others(link, poller):
    link.watch_channel(nothing)
    link.watch_pipe(nothing)
    reader, writer = os.pipe()
    link.set_stderr(reader)
    link.close()
    others = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(12)]
    link.close()
    link.close_in_forked_child()
    for other in (*others, writer):
        os.close(other)  # which fails if it was closed


def test_a_standard_error_that_goes_on_is_watched_on(link, poller, capfd):
    reader, writer = os.pipe()
    link.set_stderr(reader)
    for text in (b"one\n", b"two\n"):
        os.write(writer, text)
        poller.wait(20)
    assert link.evidence().stderr == ("one", "two")
    assert capfd.readouterr().err == "one\ntwo\n", "it is passed on"
    assert reader in poller._watches
    os.close(writer)
