"""What the template does with requests: which worker gets what, and what is left open of a start that fails."""

from __future__ import annotations

import errno
import sys
from types import SimpleNamespace

import pytest

from pidfdpool.template import server as servers
from pidfdpool.template import tracker_process
from pidfdpool.template.server import Server
from pidfdpool.template.worker_fork import LivingWorkers
from pidfdpool.transport import framing
from pidfdpool.transport.framing import Frame


class Channel:
    """The template's channel: gives the descriptors that have come, and notes what is sent."""

    def __init__(self):
        self.descriptors, self.sent, self.error = [], [], None

    def next_descriptor(self):
        return self.descriptors.pop(0) if self.descriptors else None

    def send(self, pieces, descriptor=None):
        if self.error is not None:
            raise self.error
        kind, _, slot, generation, value = framing.HEADER.unpack_from(pieces[0])
        self.sent.append((kind, slot, generation, value, descriptor))


class Descriptors:
    """Those of one worker."""

    def __init__(self, end, tokens, closed):
        self.end, self.tokens, self._closed = end, tokens, closed
        self.black_box, self.stderr = end + 100, None

    def close(self):
        self._closed.append(self.end)


class Handle:
    """The handle of a worker."""

    def __init__(self, pid):
        self.pid, self.signals = pid, []

    def fileno(self):
        return self.pid + 1000

    def send_signal(self, number, *, group):
        self.signals.append((number, group))


class Forker:
    """Forks nothing, and notes for whom."""

    def __init__(self):
        self.forked, self.closed, self.error = [], [], None

    def new_descriptors(self, end, tokens):
        self.forked.append((end, tokens))
        return Descriptors(end, tokens, self.closed)

    def fork(self, slot, generation, _cookie, _descriptors):
        if self.error is not None:
            raise self.error
        return SimpleNamespace(slot=slot, generation=generation, handle=Handle(slot + 10), mark=slot)


@pytest.fixture
def server():
    """Give a server with nothing real around it."""
    server = object.__new__(Server)
    server._channel, server._forker, server._workers = Channel(), Forker(), LivingWorkers(None)
    server._tokens, server._reaper, server._stopping, server._host_is_gone = None, SimpleNamespace(), False, False
    server._epoll = SimpleNamespace(register=lambda fd, _mask: server.watched.append(fd))
    server.watched = []
    return server


def request(server, kind, slot=0, generation=1, value=0, descriptor=None):
    if descriptor is not None:
        server._channel.descriptors.append(descriptor)
    server._serve([Frame(kind, slot, generation, value, [])])


def test_a_worker_is_watched_and_its_host_gets_the_black_box_before_the_pidfd(server):
    request(server, framing.TOKENS, descriptor=50)
    request(server, framing.SPAWN, slot=3, generation=7, descriptor=60)
    assert server._forker.forked == [(60, 50)]
    assert server._channel.sent == [(framing.BLACK_BOX, 3, 7, 0, 160), (framing.SPAWNED, 3, 7, 13, 1013)]
    assert server.watched == [1013]
    assert server._workers.of_handle(1013).slot == 3
    assert server._forker.closed == [60], "the template needs none of them"


def test_tokens_are_those_of_the_next_worker_only(server):
    request(server, framing.TOKENS, descriptor=50)
    request(server, framing.SPAWN, descriptor=60)
    request(server, framing.SPAWN, slot=1, descriptor=61)
    assert server._forker.forked == [(60, 50), (61, None)]


def test_a_start_that_fails_is_told_and_leaves_nothing_open(server):
    server._forker.error = OSError(errno.EAGAIN, "no process")
    request(server, framing.TOKENS, descriptor=50)
    request(server, framing.SPAWN, slot=3, generation=7, descriptor=60)
    assert server._channel.sent == [(framing.SPAWN_FAILED, 3, 7, errno.EAGAIN, None)]
    assert server._forker.closed == [60]
    assert not server._workers.by_pid
    assert not server.watched


def test_nothing_stays_open_whatever_a_start_raises(server):
    server._forker.error = MemoryError()
    with pytest.raises(MemoryError):
        request(server, framing.SPAWN, descriptor=60)
    assert server._forker.closed == [60]


def test_a_tracker_is_started_with_the_descriptor_that_came(server, monkeypatch):
    started = []
    monkeypatch.setattr(tracker_process, "start", started.append)
    request(server, framing.START_TRACKER, descriptor=70)
    request(server, framing.START_TRACKER)
    assert started == [70], "otherwise no number was left for it"


def test_a_template_that_can_load_nothing_any_more_starts_no_tracker_and_goes_on(server, monkeypatch):
    closed = []
    monkeypatch.setattr(servers.native, "close", closed.append)
    monkeypatch.delattr("pidfdpool.template.tracker_process")
    monkeypatch.setitem(sys.modules, "pidfdpool.template.tracker_process", None)
    request(server, framing.START_TRACKER, descriptor=70)
    assert closed == [70]


def test_a_signal_goes_to_the_worker_that_is_meant_and_not_to_its_successor(server):
    for slot, generation in ((0, 1), (1, 2)):
        request(server, framing.SPAWN, slot=slot, generation=generation, descriptor=60)
    handles = {worker.generation: worker.handle for worker in server._workers.by_pid.values()}
    request(server, framing.SIGNAL, slot=1, generation=1, value=9)
    request(server, framing.SIGNAL, slot=0, generation=1, value=15)
    assert (handles[1].signals, handles[2].signals) == ([(15, True)], [])


@pytest.mark.parametrize("error", [BrokenPipeError, ConnectionResetError])
def test_when_nobody_reads_any_more_the_workers_are_killed_and_the_template_leaves(server, monkeypatch, error):
    done = []
    server._reaper = SimpleNamespace(
        kill_workers=lambda: done.append("kill"), kill_remaining=lambda: done.append("rest")
    )
    monkeypatch.setattr("pidfdpool.template.server.os._exit", lambda code: done.append(code))
    server._workers.by_pid[1] = object()
    server._channel.error = error()
    server._send(framing.encode(framing.BOOTED))
    assert done == ["kill", "rest", 0]
    server._send(framing.encode(framing.BOOTED))
    assert len(done) == 3, "to whom is gone nothing is sent"


def test_a_stop_kills_the_workers_and_is_remembered(server):
    done = []
    server._reaper = SimpleNamespace(kill_workers=lambda: done.append("kill"))
    server._workers.by_pid[1] = object()
    request(server, framing.STOP)
    assert done == ["kill"]
    assert server._stopping
