"""Launchers and templates that have answered, have ended, or stay silent: what the host makes of it."""

from __future__ import annotations

import errno
import os
import signal
import time
from contextlib import closing
from types import SimpleNamespace

import pytest

from pidfdpool import TemplateError
from pidfdpool.pidfd import ExitStatus, Pidfd, SentinelHandle, capabilities
from pidfdpool.pidfd.sentinel import sentinel_pipe
from pidfdpool.process import hygiene
from pidfdpool.template import client, handshake
from pidfdpool.template import connection as connections
from pidfdpool.template.connection import Launcher, TemplateConnection
from pidfdpool.template.interpreter import UnusableInterpreter
from pidfdpool.template.launch import OTHER_PYTHON
from pidfdpool.transport import channel as channels
from pidfdpool.transport import framing
from pidfdpool.worker.boot import PIDFD, SENTINEL
from tests.conditions import is_alive

needs_pidfds = pytest.mark.skipif(not capabilities().usable, reason="needs pidfds")


@pytest.fixture
def ends():
    """Give the host's connection to a template, and the template's end of the channel."""
    ours, theirs = channels.pair()
    _, lifeline = pipe = sentinel_pipe()
    connection = TemplateConnection(ours, PIDFD, lifeline)
    channel = channels.Channel(theirs, send_cookie=framing.cookie_bytes(connection.cookie))
    yield connection, channel
    connection.close()
    channel.close()
    os.close(pipe[0])


def exited(status):
    """Return the pid of a child that exits at once, and a pipe that is closed when it does."""
    reader, writer = sentinel_pipe()
    pid = os.fork()
    if not pid:
        os._exit(status)
    os.close(writer)
    return pid, reader


@pytest.mark.parametrize("handles", [pytest.param(PIDFD, marks=needs_pidfds), SENTINEL])
def test_a_launcher_is_reaped_and_its_handle_is_closed_there(ends, handles):
    """Guards: it was left to the collector, which warns of it; in a host that makes warnings errors it is printed."""
    connection, _ = ends
    pid, reader = exited(3)
    if handles == PIDFD:
        os.close(reader)
        launcher = Pidfd.open(pid)
    else:
        launcher = SentinelHandle(reader, pid, lambda *_: None)
    connection.launcher = launcher
    connection.reap_launcher()
    connection.reap_launcher()
    assert (launcher.closed, connection.launcher) == (True, None)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_a_launcher_that_other_code_has_reaped_is_not_waited_for():
    pid, reader = exited(3)
    os.close(reader)
    os.waitpid(pid, 0)
    deadline = time.monotonic() + 1000.0
    assert connections.reap_by_number(pid, deadline) == ExitStatus.UNKNOWN


@needs_pidfds
def test_a_template_that_has_answered_is_not_late_however_late_the_host_looks(ends):
    """Guards: a host that was stopped meanwhile, or held up, killed a template that was ready."""
    connection, channel = ends
    connection.awaited = Launcher("some program", start_timeout=0.0)
    with closing(Pidfd.self()) as handle:
        channel.send(framing.encode(framing.HELLO, value=os.getpid()), handle.fileno())
    handshake.wait_for_hello(connection)
    assert connection.pid == os.getpid()
    assert connection.awaited is None


def test_a_template_that_stays_silent_is_waited_for_until_its_time_is_over(ends):
    connection, _ = ends
    connection.awaited = Launcher("some program", start_timeout=0.01)
    with pytest.raises(UnusableInterpreter, match="some program did not start a template within 0.01 s"):
        handshake.wait_for_hello(connection)
    assert connection.awaited is None


@needs_pidfds
@pytest.mark.parametrize(
    ("frame", "number", "told"),
    [
        (framing.encode(framing.SPAWN_FAILED, value=errno.EAGAIN), errno.EAGAIN, "some program could not fork"),
        (framing.encode(framing.HELLO, value=1), errno.EMFILE, "no descriptor number left"),
    ],
    ids=["no fork", "no descriptor"],
)
def test_what_the_system_refuses_at_a_start_is_an_error_of_the_systems(ends, frame, number, told):
    connection, channel = ends
    connection.awaited = Launcher("some program", start_timeout=20.0)
    connection.channel.next_descriptor = lambda: None
    channel.send(frame)
    with pytest.raises(OSError, match=told) as caught:
        handshake.wait_for_hello(connection)
    assert caught.value.errno == number


@needs_pidfds
def test_the_launcher_may_be_told_of_first_and_what_comes_along_is_kept(ends):
    connection, channel = ends
    connection.awaited = Launcher("some program", start_timeout=20.0)
    with closing(Pidfd.self()) as handle:
        channel.send(framing.encode(framing.LAUNCHED, value=11), handle.fileno())
        channel.send(framing.encode(framing.HELLO, value=12), handle.fileno())
    channel.send(framing.encode(framing.BOOTED))
    handshake.wait_for_hello(connection)
    assert (connection.launcher.pid, connection.pid) == (11, 12)
    early = [frame.kind for frame in connection.early_frames]
    early += [frame.kind for frame in connection.channel.receive_nowait()] if not early else []
    assert early == [framing.BOOTED]
    connection.launcher.close()


@pytest.mark.parametrize("written", [b"", b"nonsense" * 10])
@pytest.mark.parametrize("detached", [True, False])
def test_a_template_that_ends_or_is_none_is_told_by_what_the_pool_may_do_next(ends, written, detached, monkeypatch):
    connection, channel = ends
    killed = []
    monkeypatch.setattr(handshake, "_kill_detached", killed.append)
    connection.awaited = Launcher("some program", 20.0, leads_group=detached)
    os.write(channel.fileno(), written) if written else channel.close()
    with pytest.raises(client.EndedEarly if detached else TemplateError, match="some program.* ended before"):
        client.finish(connection)
    assert killed == ([connection.cookie] if written else [])
    assert connection.awaited is None


def test_a_silent_template_is_killed_and_named(ends, monkeypatch):
    connection, _ = ends
    killed = []
    monkeypatch.setattr(handshake, "_kill_detached", killed.append)
    connection.awaited = Launcher("some program", 0.01, leads_group=True)
    with pytest.raises(TemplateError, match="some program did not start.*standard error"):
        client.finish(connection)
    assert killed == [connection.cookie]


@needs_pidfds
@pytest.mark.parametrize("looks", [[True, True], [True, False], [False]], ids=["it is", "number used again", "other"])
def test_only_the_silent_template_itself_is_killed(monkeypatch, looks):
    """Its number may be used again between the search and the opening of its pidfd."""
    sent, left = [], list(looks)
    monkeypatch.setattr(handshake.os, "listdir", lambda _: ["self", str(os.getpid())])
    monkeypatch.setattr(handshake, "is_detached_template", lambda _pid, _cookie: left.pop(0))
    monkeypatch.setattr(Pidfd, "send_signal", lambda self, number: sent.append((self.pid, number)))
    handshake._kill_detached(77)
    assert sent == [(os.getpid(), signal.SIGKILL)] * all(looks)
    assert left == []


# ---- an interpreter as the launcher ----------------------------------------------------------------------------


def launcher_that(do):
    """Fork a process that leads a group and does this; return what the host knows of it."""
    pid = os.fork()
    if not pid:
        os.setpgid(0, 0)
        do()
        os._exit(0)
    launcher = Launcher("some program", 20.0, leads_group=True)
    launcher.pid = pid
    return launcher


@needs_pidfds
@pytest.mark.parametrize(
    ("status", "told"), [(OTHER_PYTHON, "Python of another version"), (3, "ended before it was ready: .*code 3")]
)
@pytest.mark.parametrize("later", [0.0, 0.3])
def test_a_program_that_exits_is_reaped_and_named_with_its_status(ends, status, told, later):
    """It closes its end of the channel, and needs a moment for the rest: it is not to be killed meanwhile."""
    connection, channel = ends

    def leave():
        channel.close()
        time.sleep(later)
        os._exit(status)

    launcher = launcher_that(leave)
    channel.close()
    with hygiene.signals_blocked() as mask, pytest.raises(UnusableInterpreter, match=told):
        handshake.wait_for_template(connection, launcher, mask)
    with pytest.raises(ChildProcessError):
        os.waitpid(launcher.pid, os.WNOHANG)


@needs_pidfds
@pytest.mark.parametrize("why", ["silent", "nonsense", "interrupted"])
def test_a_program_that_does_not_leave_by_itself_is_killed_and_reaped(ends, why, monkeypatch):
    connection, channel = ends
    launcher = launcher_that(lambda: (signal.signal(signal.SIGINT, signal.SIG_IGN), signal.pause()))
    monkeypatch.setattr(connections, "LAUNCHER_EXIT_TIMEOUT", 0.2)
    expected = UnusableInterpreter
    if why == "silent":
        launcher.start_timeout = 0.01
    elif why == "nonsense":
        os.write(channel.fileno(), b"nonsense" * 10)
    else:
        expected = KeyboardInterrupt

        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(handshake, "_receive_hello", interrupt)
    with hygiene.signals_blocked() as mask, pytest.raises(expected):
        handshake.wait_for_template(connection, launcher, mask)
    assert not is_alive(launcher.pid)
    with pytest.raises(ChildProcessError):
        os.waitpid(launcher.pid, os.WNOHANG)


@needs_pidfds
def test_signals_are_unblocked_while_the_launchers_exit_is_waited_for_but_for_those_that_are_to_be_blocked(
    ends, monkeypatch
):
    connection, _ = ends
    masks = []
    connection.awaited = Launcher("some program", 20.0)
    connection.launcher = handle = SimpleNamespace(closed=False, close=lambda: masks.append("closed"))
    monkeypatch.setattr(
        handshake, "_await_exit", lambda *_: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    )
    monkeypatch.setattr(
        handshake,
        "_kill_and_reap",
        lambda *_: masks.append(signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    client.reap_launcher(connection, None)
    assert masks == [before | {signal.SIGCHLD}, True, "closed"]
    masks.clear()
    connection.launcher = handle
    client.reap_launcher(connection, {signal.SIGUSR1})
    assert masks == [{signal.SIGUSR1, signal.SIGCHLD}, True, "closed"]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert connection.launcher is None


@needs_pidfds
def test_a_launcher_that_does_not_exit_in_time_is_killed(ends):
    connection, _ = ends
    launcher = launcher_that(signal.pause)
    launcher.start_timeout = 0.01
    with hygiene.signals_blocked():
        handshake.expect_hello(connection, launcher)
    assert connection.awaited is launcher
    client.reap_launcher(connection, None)
    assert not is_alive(launcher.pid)
    with pytest.raises(ChildProcessError):
        os.waitpid(launcher.pid, os.WNOHANG)


# ---- the handle of a worker --------------------------------------------------------------------------------------


@needs_pidfds
def test_what_the_host_may_not_signal_the_template_signals(ends, monkeypatch):
    connection, channel = ends
    handle = connection.worker_handle(os.pidfd_open(os.getpid()), os.getpid(), 3, 7)
    with closing(handle):
        monkeypatch.setattr(Pidfd, "send_signal", refuse)
        handle.send_signal(signal.SIGTERM, group=True)
    [frame] = channel.receive()
    assert (frame.kind, frame.slot, frame.generation, frame.value) == (framing.SIGNAL, 3, 7, signal.SIGTERM)


def refuse(self, *_, **__):
    from pidfdpool.pidfd import PidfdDenied

    raise PidfdDenied(errno.EPERM, "send_signal", self.pid)


def test_the_lifeline_is_closed_once(ends):
    connection, _ = ends
    connection.close_lifeline()
    reader, writer = os.pipe()  # gets its number, perhaps
    connection.close_lifeline()
    os.fstat(writer)
    os.close(reader)
    os.close(writer)
