"""How the host waits for a launcher, ends one whose start has failed, and finds a template that has said nothing."""

from __future__ import annotations

import errno
import os
import signal
from itertools import islice
from types import SimpleNamespace

import pytest

from pidfdpool.pidfd import ExitStatus, PidfdError, ProcessGone, SentinelHandle, capabilities
from pidfdpool.pidfd.sentinel import sentinel_pipe
from pidfdpool.process import hygiene
from pidfdpool.template import client, handshake
from pidfdpool.template import connection as connections
from pidfdpool.template.connection import Launcher, TemplateConnection
from pidfdpool.template.interpreter import UnusableInterpreter
from pidfdpool.transport import channel as channels
from pidfdpool.transport import framing
from pidfdpool.worker.boot import PIDFD, SENTINEL
from tests.conditions import eventually, is_alive
from tests.interrupting import places

needs_pidfds = pytest.mark.skipif(not capabilities().usable, reason="needs pidfds")


@pytest.fixture(params=[PIDFD])
def ends(request):
    """Give the host's connection to a template, and the template's end of the channel."""
    ours, theirs = channels.pair()
    reader, lifeline = sentinel_pipe()
    connection = TemplateConnection(ours, request.param, lifeline)
    channel = channels.Channel(theirs, send_cookie=framing.cookie_bytes(connection.cookie))
    yield connection, channel
    connection.close()
    channel.close()
    os.close(reader)


class Handle:
    """The handle of a launcher. `ends`: at which wait it is found to have ended; None: never."""

    pid = 5

    def __init__(self, ends=None, refused=None):
        self.ends, self.refused, self.asked = ends, refused, []

    def wait(self, timeout=None):
        self.asked.append(("wait", timeout))
        return self.ends is not None and sum(each[0] == "wait" for each in self.asked) >= self.ends

    def send_signal(self, number, *, group=False):
        self.asked.append(("signal", number, group))
        if self.refused is not None:
            raise self.refused

    def exit_status(self):
        self.asked.append(("status",))
        return ExitStatus(code=7)

    def close(self):
        self.asked.append(("close",))


LONG = connections.LAUNCHER_EXIT_TIMEOUT


@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize("refused", [None, ProcessGone(errno.ESRCH, "send_signal", 5)], ids=["killed", "gone"])
def test_a_launcher_that_stays_is_killed_with_its_group_if_it_leads_one_and_reaped(group, refused):
    """A fork of the host is in the host's own group, which is not to be killed."""
    handle = Handle(refused=refused)
    status = handshake._kill_and_reap(handle, Launcher("some program", 20.0, leads_group=group))
    assert status == ExitStatus(code=7)
    assert handle.asked == [("wait", 0), ("signal", signal.SIGKILL, group), ("wait", LONG), ("status",)]


def test_a_launcher_that_has_exited_is_reaped_and_not_signalled():
    handle = Handle(ends=1)
    assert handshake._kill_and_reap(handle, Launcher("some program", 20.0, leads_group=True)).code == 7
    assert handle.asked == [("wait", 0), ("status",)]


def test_a_launcher_whose_start_has_failed_sees_its_channel_closed_and_has_time_to_exit(ends):
    connection, channel = ends
    connection.launcher = announced = Handle()
    handle = Handle(ends=2)
    status = handshake._end_launcher(connection, Launcher("some program", 20.0), handle)
    assert status.code == 7
    assert handle.asked == [("wait", LONG), ("wait", 0), ("status",)], "it is not killed"
    assert announced.asked == [("close",)]
    assert connection.launcher is None
    with pytest.raises(EOFError):
        channel.receive()


def test_no_signal_handler_runs_while_a_launcher_is_ended(ends):
    connection, _ = ends
    masks = []
    handle = Handle(ends=1)
    handle.exit_status = lambda: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    handshake._end_launcher(connection, Launcher("some program", 20.0), handle)
    assert signal.SIGINT in masks[0]


def exiting(status=0):
    pid = os.fork()
    if not pid:
        os._exit(status)
    return pid


def launcher_of(pid, **options):
    launcher = Launcher("some program", 20.0, **options)
    launcher.pid = pid
    return launcher


def is_reaped(pid):
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def without_pidfds(monkeypatch):
    def refuse(pid):
        raise PidfdError(errno.EMFILE, "pidfd_open", pid)

    monkeypatch.setattr(handshake, "Pidfd", SimpleNamespace(open=refuse))


def test_a_launcher_that_gets_no_pidfd_is_reaped_by_its_number_at_once(ends, monkeypatch):
    connection, _ = ends
    without_pidfds(monkeypatch)
    launcher = launcher_of(exiting())
    handshake.expect_hello(connection, launcher)
    assert connection.awaited is launcher
    assert connection.launcher is None
    assert is_reaped(launcher.pid)
    client.reap_launcher(connection, None)  # has nothing to do
    assert connection.awaited is launcher


def test_a_launcher_that_gets_no_pidfd_and_fails_is_reaped_and_its_status_told(ends, monkeypatch):
    connection, channel = ends
    without_pidfds(monkeypatch)
    launcher = launcher_of(exiting(3))
    channel.close()
    with hygiene.signals_blocked() as mask, pytest.raises(UnusableInterpreter, match="exited with code 3"):
        handshake.wait_for_template(connection, launcher, mask)
    assert is_reaped(launcher.pid)


def test_of_a_launcher_that_somebody_else_has_reaped_nothing_is_known(ends, monkeypatch):
    connection, channel = ends
    without_pidfds(monkeypatch)
    launcher = launcher_of(exiting(3))
    os.waitpid(launcher.pid, 0)
    channel.close()
    with hygiene.signals_blocked() as mask, pytest.raises(UnusableInterpreter, match="exit status unknown"):
        handshake.wait_for_template(connection, launcher, mask)


@needs_pidfds
def test_a_launcher_that_ends_without_reading_what_it_was_sent_has_ended_too(ends):
    connection, channel = ends
    connection.channel.send_nowait(framing.encode(framing.STOP))
    launcher = launcher_of(exiting(3))
    channel.close()
    with hygiene.signals_blocked() as mask, pytest.raises(UnusableInterpreter, match="exited with code 3"):
        handshake.wait_for_template(connection, launcher, mask)


@needs_pidfds
def test_a_program_that_speaks_something_else_is_named_with_what_it_did(ends):
    connection, channel = ends
    launcher = launcher_of(exiting())
    os.write(channel.fileno(), b"nonsense" * 10)
    with (
        hygiene.signals_blocked() as mask,
        pytest.raises(UnusableInterpreter, match="some program, .* did not speak the template's protocol"),
    ):
        handshake.wait_for_template(connection, launcher, mask)
    assert is_reaped(launcher.pid)


@needs_pidfds
def test_the_launcher_is_waited_for_with_the_mask_that_is_asked_for(ends, monkeypatch):
    connection, _ = ends
    masks = []

    def receive(*_):
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        raise EOFError

    monkeypatch.setattr(handshake, "_receive_hello", receive)
    with hygiene.signals_blocked(), pytest.raises(UnusableInterpreter):
        handshake.wait_for_template(connection, launcher_of(exiting()), {signal.SIGUSR1})
    assert masks == [{signal.SIGUSR1}]


@needs_pidfds
def test_a_failed_launcher_takes_along_what_it_has_started(ends, monkeypatch):
    """A program that is no Python may be a script, which has started another program and waits for it."""
    connection, channel = ends
    monkeypatch.setattr(connections, "LAUNCHER_EXIT_TIMEOUT", 0.05)
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.setpgid(0, 0)
        inner = os.fork()
        if inner:
            os.write(writer, f"{inner}\n".encode())
        signal.alarm(60)
        while True:
            signal.pause()
    inner = int(os.read(reader, 20))
    os.write(channel.fileno(), b"nonsense" * 10)
    with hygiene.signals_blocked() as mask, pytest.raises(UnusableInterpreter):
        handshake.wait_for_template(connection, launcher_of(pid, leads_group=True), mask)
    eventually(lambda: not is_alive(inner), "what it has started is gone")
    os.close(reader)
    os.close(writer)


@needs_pidfds
@pytest.mark.parametrize("late", [False, True], ids=["at once", "later"])
def test_a_launcher_that_takes_its_time_to_exit_is_not_killed(ends, late):
    """It has to fork the template first."""
    connection, _ = ends
    gate, done = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        os.read(gate[0], 1)
        if late:
            signal.sigtimedwait({signal.SIGUSR1}, 0.05)
        os.write(done[1], b"forked")
        os._exit(0)
    with hygiene.signals_blocked():
        handshake.expect_hello(connection, launcher_of(pid))
    os.write(gate[1], b"1")
    client.reap_launcher(connection, None)
    assert is_reaped(pid)
    os.close(done[1])
    assert os.read(done[0], 10) == b"forked"
    for fd in (*gate, done[0]):
        os.close(fd)


@needs_pidfds
def test_a_launcher_is_reaped_wherever_a_handler_raises_while_it_is_reaped(ends):
    """Guards: the host kept a child that nobody reaped. All signals are blocked, but another thread may take one."""
    connection, _ = ends
    pids = []

    def attempt():
        pid = os.fork()
        if not pid:
            os._exit(0)
        pids.append(pid)
        with hygiene.signals_blocked():
            handshake.expect_hello(connection, launcher_of(pid))
        return lambda: client.reap_launcher(connection, None)

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    begin = handshake.reap_launcher.__code__
    for number, place in enumerate(islice(places(attempt, lambda code: code is begin), 60)):
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if not number:
            connection.reap_launcher()  # nothing was begun
        assert connection.launcher is None, place
        assert all(map(is_reaped, pids)), place
        pids.clear()


# ---- the wait ----------------------------------------------------------------------------------------------------


class Steps:
    def __init__(self, *steps):
        self.steps = list(steps)

    def next(self):
        return self.steps.pop(0)


class Poller:
    """Finds something at the poll of this number; notes for how long each was."""

    def __init__(self, ready=None):
        self.ready, self.polls = ready, []

    def poll(self, milliseconds):
        self.polls.append(milliseconds)
        return [(3, 1)] if len(self.polls) == self.ready else []


def test_a_wait_consists_of_its_steps_and_ends_with_a_last_look():
    poller = Poller()
    with pytest.raises(UnusableInterpreter, match="some program did not start a template within 1.5 s"):
        handshake._wait(poller, Steps(0.25, 1.25, -0.5), Launcher("some program", 1.5))
    assert poller.polls == [250, 1250, 0], "a negative number would wait for ever"


@pytest.mark.parametrize("ready", [1, 2, 3])
def test_a_wait_ends_when_something_is_there_and_be_it_at_the_last_look(ready):
    poller = Poller(ready)
    handshake._wait(poller, Steps(0.25, 1.25, 0.0), Launcher("some program", 1.5))
    assert len(poller.polls) == ready


def test_a_wait_whose_time_is_just_over_is_over():
    """Guards: it went on for as long as nothing was left of the time to the last bit."""
    poller = Poller()
    with pytest.raises(UnusableInterpreter):
        handshake._wait(poller, Steps(0.0), Launcher("some program", 1.5))


# ---- the first word ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [SENTINEL], indirect=True)
def test_without_pidfds_the_handles_are_the_ends_of_pipes(ends):
    connection, channel = ends
    pipes = [sentinel_pipe(), sentinel_pipe()]
    connection.awaited = Launcher("some program", 20.0)
    channel.send(framing.encode(framing.LAUNCHED, value=11), pipes[0][0])
    channel.send(framing.encode(framing.HELLO, value=12), pipes[1][0])
    handshake.wait_for_hello(connection)
    for handle, pid, pipe in ((connection.launcher, 11, pipes[0]), (connection.handle, 12, pipes[1])):
        assert isinstance(handle, SentinelHandle)
        assert handle.pid == pid
        assert handle.alive()
        os.close(pipe[1])
        assert not handle.alive(), "it is the end of the pipe of this process, and not of the other"
        with pytest.raises(AssertionError, match="never signalled"):
            handle.send_signal(signal.SIGTERM)
        os.close(pipe[0])
    connection.launcher.close()


@pytest.mark.parametrize("ends", [SENTINEL], indirect=True)
def test_what_comes_before_the_first_word_is_kept_and_brings_no_descriptor(ends):
    connection, channel = ends
    reader, writer = sentinel_pipe()
    connection.awaited = Launcher("some program", 20.0)
    channel.send(framing.encode(framing.BOOTED))
    channel.send(framing.encode(framing.HELLO, value=12), reader)
    handshake.wait_for_hello(connection)
    assert connection.pid == 12
    assert [frame.kind for frame in connection.early_frames] == [framing.BOOTED]
    os.close(reader)
    os.close(writer)


def test_a_template_that_ends_without_reading_what_it_was_sent_has_ended(ends):
    """The kernel reports a reset then, and no end of file."""
    connection, channel = ends
    connection.awaited = Launcher("some program", 20.0)
    connection.channel.send_nowait(framing.encode(framing.STOP))
    channel.close()
    with pytest.raises(EOFError):
        handshake.wait_for_hello(connection)
    assert connection.awaited is None


# ---- a template that has said nothing ----------------------------------------------------------------------------


class Processes:
    """What is in /proc, and who is the template that is looked for."""

    def __init__(self, monkeypatch, names, templates):
        self.asked, self.killed, self.closed = [], [], 0
        self.templates, self.gone = templates, set()
        listing = SimpleNamespace(listdir=lambda _: names, path=os.path)
        monkeypatch.setattr(handshake, "os", listing)
        monkeypatch.setattr(handshake, "is_detached_template", self._is_template)
        monkeypatch.setattr(handshake, "Pidfd", SimpleNamespace(open=self._open))

    def _is_template(self, pid, cookie):
        self.asked.append(cookie)
        return pid in self.templates

    def _open(self, pid):
        if pid in self.gone:
            raise ProcessGone(errno.ESRCH, "pidfd_open", pid)
        return self._Opened(self, pid)

    class _Opened:
        def __init__(self, processes, pid):
            self.processes, self.pid = processes, pid

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.processes.closed += 1

        def send_signal(self, number):
            self.processes.killed.append((self.pid, number))


def test_among_all_processes_the_template_is_found_by_its_cookie(monkeypatch):
    found = Processes(monkeypatch, ["1", "20", "self", "21", "meminfo", "22"], {20, 22})
    found.gone.add(20)  # it ended just then
    handshake._kill_detached(77)
    assert found.killed == [(22, signal.SIGKILL)]
    assert found.closed == 1
    assert set(found.asked) == {77}


def test_where_there_is_no_proc_nothing_is_found(monkeypatch):
    def listdir(_path):
        raise FileNotFoundError

    nowhere = SimpleNamespace(listdir=listdir, path=SimpleNamespace(isdir=lambda _: False))
    monkeypatch.setattr(handshake, "os", nowhere)
    handshake._kill_detached(77)
