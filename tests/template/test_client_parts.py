"""The host's part of a start, with launchers that the test makes: whatever fails, nothing of it is left."""

from __future__ import annotations

import errno
import gc
import os
from types import SimpleNamespace

import pytest

from pidfdpool import TemplateError
from pidfdpool.pidfd import capabilities, sentinel_pipe
from pidfdpool.process import hygiene
from pidfdpool.template import client, handshake, interpreter, launch
from pidfdpool.template.client import NotSendable
from pidfdpool.template.connection import Launcher
from pidfdpool.transport import channel as channels
from pidfdpool.transport import framing
from pidfdpool.worker.boot import PIDFD, SENTINEL, Boot
from tests.conditions import open_descriptors

needs_pidfds = pytest.mark.skipif(not capabilities().usable, reason="needs pidfds")


def boot_of(handles=PIDFD, **options):
    fields = {"preload": (), "forked": False, "preload_call": None, "initializer": None} | options
    return Boot(handles=handles, host_pid=os.getpid(), host_name="MainProcess", argv=[], authkey=b"key", **fields)


@pytest.fixture(autouse=True)
def nothing_stays_open():
    before = open_descriptors()
    yield
    assert open_descriptors() == before


class Recipe:
    """What a template is made from: `descriptors` are what its workers inherit."""

    fork, initializer = False, None

    def __init__(self, descriptors=0, error=None):
        self.descriptors, self.error = descriptors, error

    def boot(self, handles):
        if self.error is not None:
            raise self.error
        self.fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(self.descriptors)]
        return boot_of(handles), self.fds


def started(monkeypatch, make_process, wait=None, launcher=None):
    launcher = launcher or Launcher("some program", 20.0)
    return client._start_launcher(boot_of(runs_script=True), None, make_process, launcher, wait)


def exiting(*_):
    pid = os.fork()
    if not pid:
        os._exit(0)
    return pid


@needs_pidfds
def test_a_start_gives_the_launcher_its_ends_and_keeps_only_the_hosts(monkeypatch):
    given = []

    def make_process(connection, theirs, host, lifeline):
        given.extend([theirs, theirs.fileno(), host, lifeline])
        assert hygiene.signal.pthread_sigmask(hygiene.signal.SIG_BLOCK, ()) >= {hygiene.signal.SIGTERM}
        theirs.send(b"x")
        return exiting()

    launcher = Launcher("some program", 20.0)
    connection = started(monkeypatch, make_process, launcher=launcher)
    assert connection.awaited is launcher
    assert connection.launcher.pid == launcher.pid > 0
    assert connection.runs_script
    assert given[0].fileno() == -1, "the launcher has its own"
    for fd in given[2:]:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    connection.reap_launcher()
    connection.close()


@pytest.mark.parametrize("error", [OSError(errno.ENOENT, "no such program"), KeyboardInterrupt()], ids=repr)
def test_of_a_launcher_that_cannot_be_started_nothing_is_left(monkeypatch, error):
    def refuse(*_):
        raise error

    with pytest.raises(type(error)):
        started(monkeypatch, refuse)


@pytest.mark.parametrize("handles", [PIDFD, SENTINEL])
def test_where_the_host_gets_no_handle_of_itself_the_lifeline_is_closed_at_both_ends(monkeypatch, handles):
    def refuse(*_):
        raise OSError(errno.EMFILE, "no more")

    lifelines = []
    monkeypatch.setattr(client, "sentinel_pipe", lambda: lifelines.append(sentinel_pipe()) or lifelines[-1])
    place, name = (os, "pidfd_open") if handles == PIDFD else (client.native, "duplicate")
    monkeypatch.setattr(place, name, refuse, raising=False)
    with pytest.raises(OSError, match="no more"):
        client._start_launcher(boot_of(handles), None, exiting, Launcher("some program", 20.0), None)
    [ends] = lifelines
    for fd in ends:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@needs_pidfds
def test_a_handler_that_interrupts_the_wait_leaves_no_launcher(monkeypatch):
    masks = []

    def interrupt(connection, launcher, mask):
        masks.append(mask)
        handshake.expect_hello(connection, launcher)
        raise KeyboardInterrupt

    launcher = Launcher("some program", 20.0)
    with pytest.raises(KeyboardInterrupt):
        started(monkeypatch, exiting, interrupt, launcher)
    assert hygiene.signal.SIGCHLD in masks[0]
    with pytest.raises(ChildProcessError):
        os.waitpid(launcher.pid, os.WNOHANG)


@pytest.mark.parametrize("refused", ["pair", "sentinel_pipe"])
def test_where_no_descriptor_is_left_none_stays_open_and_none_is_left_to_the_collector(monkeypatch, recwarn, refused):
    def refuse():
        raise OSError(errno.EMFILE, "no more")

    monkeypatch.setattr(channels if refused == "pair" else client, refused, refuse)
    with pytest.raises(OSError, match="no more"):
        started(monkeypatch, exiting)
    gc.collect()
    assert [each.message for each in recwarn if issubclass(each.category, ResourceWarning)] == []


# ---- what a template is told -------------------------------------------------------------------------------------


class Connection:
    """Stands for that of a template. `error`: what its channel raises from the third frame on."""

    def __init__(self, error=None, awaited=None):
        self.error, self.awaited, self.sent, self.ended = error, awaited, [], []
        self.channel = SimpleNamespace(send_nowait=self._send)
        self.tracker_requests = SimpleNamespace(open=lambda: os.open(os.devnull, os.O_RDONLY))
        self.close = lambda: self.ended.append("closed")
        self.reap_launcher = lambda: self.ended.append("reaped")

    def _send(self, pieces, descriptor=None):
        if descriptor is not None:
            os.close(descriptor)
        if self.error is not None and len(self.sent) == 2:
            raise self.error
        self.sent.append((framing.HEADER.unpack_from(pieces[0])[0], descriptor is not None))


def use(monkeypatch, connection, *, detached=True):
    monkeypatch.setattr(client, "_spawn_detached", lambda *_: connection if detached else None)
    monkeypatch.setattr(interpreter, "start_first_usable", lambda _start: connection)


@pytest.mark.parametrize("by_interpreter", [False, True])
def test_a_template_is_told_what_workers_inherit_before_anything_else(monkeypatch, by_interpreter):
    connection, recipe = Connection(), Recipe(2)
    use(monkeypatch, connection, detached=not by_interpreter)
    assert client.start(recipe, by_interpreter=by_interpreter) is connection
    inherited = [(framing.TRACKER_REQUESTS, True), *[(framing.INHERITED, True)] * 2]
    assert connection.sent == [*inherited, (framing.BOOT, False)]
    assert connection.ended == []


@pytest.mark.parametrize(
    ("error", "awaited", "abandoned"),
    [
        (BrokenPipeError(), "a launcher", False),
        (BrokenPipeError(), None, True),
        (OSError(errno.ENOBUFS, "no room"), "a launcher", True),
        (KeyboardInterrupt(), "a launcher", True),
    ],
    ids=["ended early", "ended", "refused", "interrupted"],
)
def test_one_that_has_ended_already_is_told_of_when_it_is_waited_for_and_else_it_is_given_up(
    monkeypatch, error, awaited, abandoned
):
    connection = Connection(error, awaited)
    use(monkeypatch, connection)
    if abandoned:
        with pytest.raises(type(error)):
            client.start(Recipe(2))
        assert connection.ended == ["closed", "reaped"]
    else:
        assert client.start(Recipe(2)) is connection
        assert connection.ended == []


def test_what_cannot_be_sent_is_told_apart_from_what_the_system_refuses():
    with pytest.raises(NotSendable) as caught:
        client.start(Recipe(error=TypeError("does not pickle")))
    assert type(caught.value.__cause__) is TypeError
    with pytest.raises(OSError, match="no more"):
        client.start(Recipe(error=OSError(errno.EMFILE, "no more")))


# ---- the small program -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["sentinel", "not certain", "no program", "a launcher that fails"])
def test_where_the_small_program_cannot_be_used_an_interpreter_is(monkeypatch, why):
    asked = []

    def spawn_detached(*_):
        asked.append(1)
        raise FileNotFoundError

    monkeypatch.setattr(interpreter, "certain", lambda: None if why == "not certain" else "python")
    monkeypatch.setattr(launch, "spawn_detached", spawn_detached)
    if not capabilities().usable and why != "sentinel":
        pytest.skip("needs pidfds")
    assert client._spawn_detached(boot_of(SENTINEL if why == "sentinel" else PIDFD), None) is None
    assert bool(asked) is (why in ("no program", "a launcher that fails"))


@pytest.mark.parametrize(("is_last", "seconds"), [(True, client.START_TIMEOUT), (False, client.CANDIDATE_TIMEOUT)])
def test_where_another_program_can_be_tried_one_has_less_time(monkeypatch, is_last, seconds):
    seen = []
    monkeypatch.setattr(client, "_start_launcher", lambda *made_of: seen.append(made_of))
    client._spawn(boot_of(), None, "python", is_last)
    [(_, _, _, launcher, wait)] = seen
    assert (launcher.program, launcher.start_timeout, launcher.leads_group) == ("python", seconds, True)
    assert wait is handshake.wait_for_template


@pytest.mark.parametrize("handles", [PIDFD, SENTINEL])
def test_a_fork_of_the_host_is_waited_for_where_there_are_no_pidfds(monkeypatch, handles):
    seen = []
    monkeypatch.setattr(client, "_start_launcher", lambda *made_of: seen.append(made_of))
    client._fork(boot_of(handles, forked=True), set(), None)
    [(_, _, _, launcher, wait)] = seen
    assert (launcher.leads_group, wait is None) == (False, handles == PIDFD)

    def fail(*_):
        raise interpreter.UnusableInterpreter("the forked host, it ended")

    monkeypatch.setattr(client, "_start_launcher", fail)
    with pytest.raises(TemplateError, match="it ended. Its standard error may tell why"):
        client._fork(boot_of(handles, forked=True), set(), None)


def test_a_subinterpreter_cannot_be_forked(monkeypatch):
    monkeypatch.setattr(client.native, "in_subinterpreter", lambda: True)
    with pytest.raises(TemplateError, match="subinterpreter"):
        client._fork(boot_of(forked=True), set(), None)
