"""What a connection to a template holds, and in which order its parts are closed, reaped and asked."""

from __future__ import annotations

import errno
import os
import select
import signal
from contextlib import closing
from types import SimpleNamespace

import pytest

from pidfdpool.pidfd import ExitStatus, Pidfd, PidfdDenied, PidfdMisused, SentinelHandle, capabilities, sentinel_pipe
from pidfdpool.process import hygiene
from pidfdpool.template import connection as connections
from pidfdpool.template.connection import Launcher, TemplateConnection
from pidfdpool.transport import channel as channels
from pidfdpool.transport import frame_rules, framing
from pidfdpool.worker.boot import PIDFD, SENTINEL
from tests.conditions import open_descriptors

needs_pidfds = pytest.mark.skipif(not capabilities().usable, reason="needs pidfds")


@pytest.fixture
def made():
    """Return a function that makes a connection; gives it, the template's end of the channel, and of the lifeline."""
    opened = []

    def make(handles=SENTINEL):
        ours, theirs = channels.pair()
        reader, lifeline = sentinel_pipe()
        connection = TemplateConnection(ours, handles, lifeline)
        channel = channels.Channel(theirs, frame_rules.TO_TEMPLATE, descriptors=True)
        opened.append((connection, channel, reader))
        return opened[-1]

    yield make
    for connection, channel, reader in opened:
        connection.close()
        channel.close()
        os.close(reader)


class Handle:
    def __init__(self, notes, pid=5):
        self.notes, self.pid = notes, pid

    def close(self):
        self.notes.append(("close", self.pid))

    def close_in_forked_child(self):
        self.notes.append(("close copy", self.pid))


def is_at_its_end(fd):
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))


def test_a_new_connection_waits_for_nobody_and_knows_no_process(made):
    connection, _, reader = made()
    assert (connection.handle, connection.launcher, connection.awaited, connection.pid) == (None,) * 4
    assert not connection.runs_script
    assert connection.early_frames == []
    assert connection.handles == SENTINEL
    assert not is_at_its_end(reader)


def test_all_is_closed_with_a_connection_but_the_launcher_who_has_to_be_reaped(made):
    connection, channel, reader = made()
    notes = []
    connection.handle, connection.launcher = Handle(notes, 12), Handle(notes, 11)
    assert connection.pid == 12
    connection.close()
    assert notes == [("close", 12)]
    assert is_at_its_end(reader)
    with pytest.raises(EOFError):
        channel.receive()


@pytest.mark.parametrize("known", [True, False])
def test_a_forked_child_closes_all_copies(made, known):
    connection, channel, reader = made()
    notes = []
    if known:
        connection.handle, connection.launcher = Handle(notes, 12), Handle(notes, 11)
    connection.close_in_forked_child()
    assert notes == ([("close copy", 12), ("close copy", 11)] if known else [])
    assert is_at_its_end(reader)
    with pytest.raises(EOFError):
        channel.receive()


def test_what_is_not_from_the_template_is_refused(made):
    """Guards: a preload that wrote into any descriptor was taken for the template."""
    connection, channel, _ = made()
    assert connection.cookie
    channel.send(framing.encode(framing.BOOTED))
    with pytest.raises(framing.ProtocolError):
        connection.channel.receive_nowait()


def test_each_template_has_a_cookie_of_its_own(made):
    assert made()[0].cookie != made()[0].cookie


def test_a_template_may_say_what_templates_say_and_nothing_else(made):
    connection, channel, _ = made()
    channel._cookie = framing.cookie_bytes(connection.cookie)
    channel.send(framing.encode(framing.BOOTED))
    assert [frame.kind for frame in connection.channel.receive_nowait()] == [framing.BOOTED]
    channel.send(framing.encode(framing.SPAWN))
    with pytest.raises(framing.ProtocolError):
        connection.channel.receive_nowait()


# ---- the launcher ------------------------------------------------------------------------------------------------


def test_a_launcher_is_nobody_until_it_is_started():
    launcher = Launcher("some program", 1.5)
    assert (launcher.program, launcher.start_timeout, launcher.leads_group, launcher.pid) == (
        "some program",
        1.5,
        False,
        0,
    )


def exiting():
    pid = os.fork()
    if not pid:
        os._exit(3)
    return pid


class Poller:
    def __init__(self):
        self.asked = []

    def register(self, *asked):
        self.asked.append(asked)

    def poll(self, milliseconds):
        self.asked.append(milliseconds)


@needs_pidfds
def test_a_launcher_is_waited_for_by_its_handle_for_some_seconds_at_most_and_by_nobodys_leave(made, monkeypatch):
    connection, _, _ = made(PIDFD)
    masks, poller = [], Poller()
    launcher = Pidfd.self()  # which never exits
    monkeypatch.setattr(connections.native, "poll", lambda: masks.append(hygiene_mask()) or poller)
    connection.launcher = launcher
    fd = launcher.fileno()
    with monkeypatch.context() as patch:
        patch.setattr(Pidfd, "exit_status", lambda _self: masks.append("asked"))
        connection.reap_launcher()
    assert poller.asked == [(fd, select.POLLIN), connections.LAUNCHER_EXIT_TIMEOUT * 1000]
    assert signal.SIGTERM in masks[0]
    assert masks[1] == "asked"
    assert launcher.closed
    assert connection.launcher is None


def hygiene_mask():
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_without_a_pidfd_a_launcher_is_reaped_by_its_number_within_the_same_time(made, monkeypatch):
    connection, _, _ = made()
    asked, pipe = [], sentinel_pipe()
    os.close(pipe[1])
    monkeypatch.setattr(connections, "time", SimpleNamespace(monotonic=lambda: 100.0))
    monkeypatch.setattr(connections, "reap_by_number", lambda *arguments: asked.append(arguments))
    connection.launcher = SentinelHandle(pipe[0], 77, lambda *_: None)
    connection.reap_launcher()
    assert asked == [(77, 100.0 + connections.LAUNCHER_EXIT_TIMEOUT)]


def test_a_child_is_reaped_by_its_number_as_soon_as_it_can_be(monkeypatch):
    slept, statuses = [], [None, None, ExitStatus(code=3)]
    monkeypatch.setattr(connections, "reap", lambda _pid: statuses.pop(0))
    monkeypatch.setattr(connections.native, "sleep", slept.append)
    assert connections.reap_by_number(7, 1e12) == ExitStatus(code=3)
    assert len(slept) == 2
    assert all(0 < each <= 0.01 for each in slept)


@pytest.mark.parametrize("late", [0.0, 1.0])
def test_a_child_that_does_not_end_in_time_is_left_with_nothing_known(monkeypatch, late):
    now = [100.0]

    def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr(connections, "reap", lambda _pid: None)
    monkeypatch.setattr(connections, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(connections.native, "sleep", sleep)
    assert connections.reap_by_number(7, 100.0 + late) == ExitStatus.UNKNOWN
    assert now[0] == pytest.approx(100.0 + late, abs=0.02)


def test_a_real_child_is_reaped_by_its_number():
    pid = exiting()
    with hygiene.signals_blocked():
        assert connections.reap_by_number(pid, 1e12).code == 3
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


# ---- handles of workers ------------------------------------------------------------------------------------------


def test_without_pidfds_the_template_signals_for_the_host(made):
    connection, channel, _ = made()
    pipe = sentinel_pipe()
    with connection.worker_handle(pipe[0], 1003, 3, 7) as handle:
        assert isinstance(handle, SentinelHandle)
        assert (handle.pid, handle.fileno()) == (1003, pipe[0])
        handle.send_signal(signal.SIGTERM)
        handle.send_signal(signal.SIGKILL, group=True)
        frames = channel.receive()
    assert [(each.kind, each.slot, each.generation, each.value) for each in frames] == [
        (framing.SIGNAL, 3, 7, signal.SIGTERM),
        (framing.SIGNAL, 3, 7, signal.SIGKILL),
    ]
    os.close(pipe[1])


@needs_pidfds
def test_with_pidfds_the_host_signals_and_asks_the_template_only_where_it_may_not(made, monkeypatch):
    connection, channel, _ = made(PIDFD)
    sent = []
    with closing(connection.worker_handle(os.pidfd_open(os.getpid()), os.getpid(), 3, 7)) as handle:
        assert isinstance(handle, Pidfd)
        assert handle.pid == os.getpid()
        monkeypatch.setattr(Pidfd, "send_signal", lambda _self, *asked, **options: sent.append((asked, options)))
        handle.send_signal(signal.SIGTERM, 5, group=True)
        assert sent == [((signal.SIGTERM, 5), {"group": True})]
        with pytest.raises(BlockingIOError):
            channel.receive(channels._DONTWAIT)
        for error in (PidfdMisused(errno.EBADF, "send_signal", 1), ProcessLookupError()):

            def refuse(*_, error=error, **__):
                raise error

            monkeypatch.setattr(Pidfd, "send_signal", refuse)
            with pytest.raises(type(error)):
                handle.send_signal(signal.SIGTERM)

        def deny(self, *_, **__):
            raise PidfdDenied(errno.EPERM, "send_signal", self.pid)

        monkeypatch.setattr(Pidfd, "send_signal", deny)
        handle.send_signal(signal.SIGTERM)
    [frame] = channel.receive()
    assert (frame.kind, frame.slot, frame.generation, frame.value) == (framing.SIGNAL, 3, 7, signal.SIGTERM)


def test_nothing_of_a_connection_stays_open(made):
    before = open_descriptors()
    connection, channel, reader = made()
    connection.close()
    connection.close()
    assert open_descriptors().keys() - before.keys() == {channel.fileno(), reader}
