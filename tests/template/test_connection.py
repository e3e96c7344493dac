"""What the host holds of a template: everything is closed with the connection, and in a forked child, too."""

from __future__ import annotations

import errno
import multiprocessing
import os
from contextlib import closing

import pytest

from pidfdpool.pidfd import ExitStatus, Pidfd, SentinelHandle, capabilities
from pidfdpool.pidfd.sentinel import sentinel_pipe
from pidfdpool.template import client, connection as connections, handshake, recipe
from pidfdpool.template.connection import Launcher, TemplateConnection
from pidfdpool.transport import channel as channels
from pidfdpool.transport import framing
from pidfdpool.worker.boot import PIDFD, SENTINEL
from tests.conditions import eventually, in_forked_child, is_alive, open_descriptors


@pytest.fixture
def connection(way):
    """Give a connection to a template whose workers are to inherit a pipe end, and what was open before."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    with ours, theirs:
        before = open_descriptors()
        made = recipe.Recipe(
            way="fork" if way == "fork" else "exec",
            preload=(),
            preload_call=None,
            initializer=(print, (theirs,)),
        )
        connection = client.start(made)
        connection.reap_launcher()
        if connection.awaited is not None:
            client.finish(connection)
        yield connection, before
        template = connection.pid
        connection.close()
        eventually(lambda: not is_alive(template), "the template has left")


def test_what_the_host_keeps_is_closed_with_the_connection(connection):
    connection, before = connection
    kept = open_descriptors().keys() - before.keys()
    assert len(kept) == 3, "the channel, the pidfd, and the lifeline; none of what workers inherit"
    template = connection.pid
    connection.close()
    connection.close()
    assert open_descriptors() == before
    eventually(lambda: not is_alive(template), "the template has left")


def test_in_a_forked_child_the_copies_are_closed_and_the_template_lives_on(connection):
    connection, before = connection

    def child():
        connection.close_in_forked_child()
        left = {fd: name for fd, name in open_descriptors().items() if before.get(fd) != name}
        assert len(left) <= 1, left  # the pipe by which this is told

    assert in_forked_child(child) == "ok"
    assert connection.handle.alive()
    assert len(open_descriptors()) == len(before) + 3


# ---- a launcher and a template that have ended, or are silent ------------------------------------------------------


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
    deadline = connections.time.monotonic() + 1000.0
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
    with pytest.raises(handshake.UnusableInterpreter, match="some program did not start a template within 0.01 s"):
        handshake.wait_for_hello(connection)
    assert connection.awaited is None


def test_a_template_without_a_descriptor_to_know_it_by_is_an_error_of_the_systems(ends):
    connection, channel = ends
    connection.awaited = Launcher("some program", start_timeout=20.0)
    channel.send(framing.encode(framing.SPAWN_FAILED, value=errno.EAGAIN))
    with pytest.raises(OSError, match="some program could not fork the template") as caught:
        handshake.wait_for_hello(connection)
    assert caught.value.errno == errno.EAGAIN
