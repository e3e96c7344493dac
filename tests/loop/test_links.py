"""The host's ends of a worker: what was asked for before the worker has a name."""

from __future__ import annotations

import os
from types import SimpleNamespace

from pidfdpool.loop import answers
from pidfdpool.loop.links import WorkerLink
from pidfdpool.loop.poller import WRITE, Poller
from pidfdpool.loop.segment_account import ResultLease, SegmentAccount, TaskSegments
from pidfdpool.transport import channel as channels
from pidfdpool.transport import black_box, tokens


class Handle:
    """A process of which all that is asked is kept."""

    pid = 4711

    def __init__(self):
        self.signals = []
        self._fd, self._other = os.pipe()

    def fileno(self):
        return self._fd

    def send_signal(self, number, group=False):
        self.signals.append((number, group))

    def close(self):
        os.close(self._fd)
        os.close(self._other)


def test_a_signal_that_was_asked_for_before_the_worker_is_known_is_sent_when_it_is():
    poller = Poller()
    ours, theirs = channels.pair()
    our_tokens, its_tokens = tokens.pair()
    link = WorkerLink(0, 1, ours, answers.attach(ours), our_tokens, poller)
    link.watch_channel(lambda _mask: None)
    link.signal(15)
    link.signal(9)
    handle = Handle()
    link.watch_exit(handle, lambda _mask: None)
    assert handle.signals == [(9, True)]
    link.close()
    poller.close()
    theirs.close()
    os.close(its_tokens)


class Arena:
    """Takes what is given back."""

    def __init__(self):
        self.back = []

    def release(self, segment):
        self.back.append(segment)


def test_what_a_dead_worker_was_lent_is_not_used_again():
    """A process that its task started may have it mapped."""
    arena, account = Arena(), SegmentAccount()
    call, loan = SimpleNamespace(not_reusable=False), SimpleNamespace(not_reusable=False)
    account.leased[1] = TaskSegments(call, ResultLease(arena, loan), None)
    account.close()
    assert (call.not_reusable, loan.not_reusable) == (True, True)
    assert arena.back == [loan]


def test_a_channel_is_not_waited_for_to_take_more_when_a_later_post_has_sent_all():
    """Otherwise the pool's thread would go round and round: a channel with nothing in it can always take more."""
    poller = Poller()
    ours, theirs = channels.pair()
    our_tokens, its_tokens = tokens.pair()
    link = WorkerLink(0, 1, ours, answers.attach(ours), our_tokens, poller)
    flushed = []

    def serve(mask):
        flushed.append(mask)
        link.flush()

    link.watch_channel(serve)
    link.post([bytes(1 << 22)])  # more than the kernel takes
    theirs.setblocking(False)
    while link.channel.has_unsent:
        while True:
            try:
                theirs.recv(1 << 20)
            except BlockingIOError:
                break
        link.post([b"more"])
    poller.wait(0)
    poller.wait(0)
    assert flushed == [WRITE]
    link.close()
    poller.close()
    theirs.close()
    os.close(its_tokens)


def test_of_a_dead_worker_everything_is_found_that_nobody_has_looked_at_before():
    """Guards: the last lines of its standard error, such as a crash, were missing where it ended at once."""
    poller = Poller()
    ours, theirs = channels.pair()
    our_tokens, its_tokens = tokens.pair()
    link = WorkerLink(0, 1, ours, answers.attach(ours), our_tokens, poller)
    stderr, writer = os.pipe()
    link.set_stderr(stderr)
    box = black_box.create()
    link.set_black_box(box)
    with black_box.map_marks(box) as marks:
        black_box.clear_marks(marks)
        marks.write(b"\1\1")
    os.write(writer, b"the last line")
    os.close(writer)
    link.usage = 1 << 20, 0.5
    evidence = link.evidence()
    assert (evidence.stderr, evidence.marks) == (("the last line",), 2)
    assert (evidence.peak_rss, evidence.cpu_time) == (1 << 20, 0.5)
    link.close()
    poller.close()
    theirs.close()
    os.close(its_tokens)
