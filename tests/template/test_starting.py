"""Which way of starting a template is taken, with what, and which error the pool gets."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest

from pidfdpool import TemplateError
from pidfdpool.pidfd import capabilities
from pidfdpool.process import hygiene
from pidfdpool.serialization import inherited
from pidfdpool.template import client, handshake, interpreter, launch
from pidfdpool.template.connection import Launcher
from pidfdpool.transport import framing
from pidfdpool.worker.boot import PIDFD, SENTINEL, Boot
from tests.conditions import open_descriptors

needs_pidfds = pytest.mark.skipif(not capabilities().usable, reason="needs pidfds")


def boot_of(handles=PIDFD, **options):
    fields = {"preload": (), "forked": False, "preload_call": None, "initializer": None} | options
    return Boot(handles=handles, host_pid=os.getpid(), host_name="MainProcess", argv=[], authkey=b"key", **fields)


class Recipe:
    """What a template is made from; notes for which kind of handles."""

    def __init__(self, *, fork=False, initializer=None, fds=()):
        self.fork, self.initializer, self.fds, self.asked = fork, initializer, list(fds), []

    def boot(self, handles):
        self.asked.append(handles)
        return boot_of(handles), self.fds


class Requests:
    """Stands for the inbox of requests; its other end is the number of no descriptor."""

    def open(self):
        return NOBODYS


NOBODYS = 1 << 30


@pytest.fixture
def ways(monkeypatch):
    """Return which ways of starting were taken, with what; each gives a connection that takes what it is sent."""
    taken = []
    sent = SimpleNamespace(send_nowait=lambda *_: None)
    connection = SimpleNamespace(
        channel=sent, awaited=None, close=lambda: None, reap_launcher=lambda: None, tracker_requests=Requests()
    )

    def way(name, gives=connection):
        def take(*asked):
            taken.append((name, *asked[1:]))
            return gives

        return take

    monkeypatch.setattr(client, "_fork", way("fork"))
    monkeypatch.setattr(client, "_spawn_detached", way("detached"))
    monkeypatch.setattr(interpreter, "start_first_usable", way("interpreter"))
    return SimpleNamespace(taken=taken, way=way, connection=connection)


MASK = {signal.SIGUSR1}


@pytest.mark.parametrize("usable", [True, False])
def test_handles_are_pidfds_where_they_can_be_used(ways, monkeypatch, usable):
    monkeypatch.setattr(client, "capabilities", lambda: SimpleNamespace(usable=usable))
    recipe = Recipe()
    client.start(recipe)
    assert recipe.asked == [PIDFD if usable else SENTINEL]


def test_a_fork_keeps_what_the_initializers_arguments_need(ways, monkeypatch):
    monkeypatch.setattr(inherited, "descriptors_of", lambda arguments: {"of": arguments})
    client.start(Recipe(fork=True, initializer=(print, ("one",))), MASK)
    client.start(Recipe(fork=True), MASK)
    assert ways.taken == [("fork", {"of": ("one",)}, MASK), ("fork", {"of": ()}, MASK)]


def test_the_small_program_is_the_launcher_and_an_interpreter_where_that_is_wanted_or_needed(ways, monkeypatch):
    client.start(Recipe(), MASK)
    assert ways.taken == [("detached", MASK)]
    ways.taken.clear()
    client.start(Recipe(), MASK, by_interpreter=True)
    assert ways.taken == [("interpreter",)]
    ways.taken.clear()
    monkeypatch.setattr(client, "_spawn_detached", ways.way("detached", None))
    assert client.start(Recipe(), MASK) is ways.connection
    assert ways.taken == [("detached", MASK), ("interpreter",)]


@pytest.mark.parametrize("fork", [True, False])
def test_the_hosts_copies_of_what_workers_inherit_are_closed_however_a_start_ends(ways, monkeypatch, fork):
    before = open_descriptors()
    for error in (None, OSError("no more"), KeyboardInterrupt()):
        if error is not None:

            def fail(*_, error=error):
                raise error

            monkeypatch.setattr(client, "_fork" if fork else "_spawn_detached", fail)
        recipe = Recipe(fork=fork, fds=[] if fork else [os.open(os.devnull, os.O_RDONLY)])
        if error is None:
            monkeypatch.setattr(ways.connection.channel, "send_nowait", close_given)
            client.start(recipe)
        else:
            with pytest.raises(type(error)):
                client.start(recipe)
        assert open_descriptors() == before


def close_given(_pieces, fd=None):
    if fd not in (None, NOBODYS):
        os.close(fd)


def test_what_a_template_is_told_is_the_recipes_boot(ways, monkeypatch):
    sent = []
    monkeypatch.setattr(ways.connection.channel, "send_nowait", lambda pieces, fd=None: sent.append((pieces, fd)))
    client.start(Recipe())
    [(asking, asks_with), (pieces, fd)] = sent
    assert (framing.HEADER.unpack_from(asking[0])[0], asks_with) == (framing.TRACKER_REQUESTS, NOBODYS)
    assert framing.HEADER.unpack_from(pieces[0])[0] == framing.BOOT
    assert Boot.load(list(pieces[1:]), []).host_pid == os.getpid()
    assert fd is None


# ---- what is started ---------------------------------------------------------------------------------------------


@pytest.fixture
def launchers(monkeypatch):
    """Return what `_start_launcher` was called with; it gives a connection."""
    called = []
    monkeypatch.setattr(client, "_start_launcher", lambda *made_of: called.append(made_of) or "connection")
    return called


THEIRS, CONNECTION = SimpleNamespace(fileno=lambda: 4), SimpleNamespace(cookie=77, tracker_requests=Requests())


def test_the_small_program_is_started_with_the_python_that_is_certain(launchers, monkeypatch):
    asked = []
    monkeypatch.setattr(interpreter, "certain", lambda: "/the/python")
    monkeypatch.setattr(launch, "spawn_detached", lambda *arguments: asked.append(arguments) or 123)
    boot = boot_of()
    assert client._spawn_detached(boot, MASK) == "connection"
    [(given, mask, make_process, launcher, wait)] = launchers
    assert (given, mask, wait) == (boot, MASK, None), "the pool thread waits for it"
    assert (launcher.program, launcher.start_timeout, launcher.leads_group) == (
        "/the/python",
        client.START_TIMEOUT,
        True,
    )
    assert make_process(CONNECTION, THEIRS, 5, 6) == 123
    assert asked == [("/the/python", (4, 5, 6), 77)]


def test_an_interpreter_is_started_with_the_kind_of_handles_and_the_cookie(launchers, monkeypatch):
    asked = []
    monkeypatch.setattr(launch, "spawn", lambda *arguments: asked.append(arguments) or 123)
    boot = boot_of(SENTINEL)
    assert client._spawn(boot, MASK, "/some/python", True) == "connection"
    assert launchers[0][:2] == (boot, MASK)
    assert launchers[0][2](CONNECTION, THEIRS, 5, 6) == 123
    assert asked == [("/some/python", (4, 5, 6), SENTINEL, 77)]


def test_a_fork_of_the_host_is_made_with_what_it_keeps(launchers, monkeypatch):
    asked = []
    monkeypatch.setattr(launch, "fork", lambda *arguments: asked.append(arguments) or 123)
    monkeypatch.setattr(client.native, "close", lambda fd: asked.append(("closed", fd)))
    boot = boot_of()
    assert client._fork(boot, {9}, MASK) == "connection"
    [(given, mask, make_process, launcher, _)] = launchers
    assert (given, mask) == (boot, MASK)
    assert (launcher.program, launcher.start_timeout) == ("the forked host", client.START_TIMEOUT)
    assert make_process(CONNECTION, THEIRS, 5, 6) == 123
    assert asked == [(THEIRS, 5, 6, boot, CONNECTION, {9}, NOBODYS), ("closed", NOBODYS)]


def test_a_candidate_has_less_time_than_who_is_the_last():
    assert 1 <= client.CANDIDATE_TIMEOUT < client.START_TIMEOUT


# ---- the launcher's descriptors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("handles", [pytest.param(PIDFD, marks=needs_pidfds), SENTINEL])
def test_a_launcher_gets_what_is_readable_when_the_host_is_gone_and_the_end_of_the_lifeline(handles):
    before, seen = open_descriptors(), []

    def make_process(connection, _theirs, host, lifeline):
        there = open_descriptors()
        seen.append((there[host], there[lifeline], there[connection._lifeline], host != lifeline))
        seen.append(not any(map(os.get_inheritable, (host, lifeline, connection._lifeline))))
        raise OSError("that was all")

    with pytest.raises(OSError, match="that was all"):
        client._start_launcher(boot_of(handles), None, make_process, Launcher("some program", 20.0), None)
    (host, lifeline, write_end, differ), none_inheritable = seen
    assert lifeline == write_end
    assert ("pidfd" in host) if handles == PIDFD else (host == lifeline)
    assert differ
    assert none_inheritable
    assert open_descriptors() == before


@pytest.mark.parametrize("mask", [None, MASK])
def test_the_wait_lets_signals_through_that_the_caller_had_not_blocked_but_no_sigchld(mask):
    waits = []

    def wait(connection, launcher, blocked):
        waits.append((launcher.pid, blocked, signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= {signal.SIGTERM}))

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        launcher = Launcher("some program", 20.0)
        connection = client._start_launcher(boot_of(SENTINEL), mask, lambda *_: 123, launcher, wait)
        connection.close()
        own = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert waits == [(123, {*(own if mask is None else mask), signal.SIGCHLD}, True)]
    assert signal.SIGTERM not in own


def test_a_template_that_is_told_to_run_the_script_is_known_to_do_so():
    for runs in (True, False):
        boot = boot_of(SENTINEL, runs_script=runs)
        connection = client._start_launcher(
            boot, None, lambda *_: 123, Launcher("some program", 20.0), lambda *_: None
        )
        assert (connection.runs_script, connection.handles) == (runs, SENTINEL)
        connection.close()


# ---- the end of a start ------------------------------------------------------------------------------------------


def test_a_launcher_that_was_waited_for_is_reaped_at_once(monkeypatch):
    asked = []
    connection = SimpleNamespace(awaited=None, reap_launcher=lambda: asked.append("reaped"))
    monkeypatch.setattr(handshake, "reap_launcher", lambda *_: asked.append("waited"))
    client.reap_launcher(connection, None)
    assert asked == ["reaped"]


@pytest.mark.parametrize("blocked", [True, False])
def test_signals_are_blocked_but_for_the_wait_and_are_as_before_when_it_is_over(monkeypatch, blocked):
    masks = []
    connection = SimpleNamespace(awaited="a launcher")
    monkeypatch.setattr(
        handshake,
        "reap_launcher",
        lambda _, mask: masks.append((mask, signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= {signal.SIGTERM})),
    )
    with hygiene.signals_blocked() as before:
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGUSR2} if blocked else ())
        client.reap_launcher(connection, None)
        client.reap_launcher(connection, MASK)
        own = {signal.SIGUSR2} if blocked else set()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == own
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert masks == [(own | {signal.SIGCHLD}, True), (MASK | {signal.SIGCHLD}, True)]


@pytest.mark.parametrize(
    ("raised", "detached", "expected", "told"),
    [
        (EOFError(), True, client.EndedEarly, "^a program, .* template, ended before it was ready$"),
        (EOFError(), False, TemplateError, "ended before it was ready. Its standard error may tell why.$"),
        (interpreter.UnusableInterpreter("too slow"), True, TemplateError, "^too slow. Its standard error may tell"),
        (OSError(24, "no more"), True, OSError, "no more"),
    ],
)
def test_what_becomes_of_a_start_is_told_by_an_error_from_which_the_pool_knows_what_to_do(
    monkeypatch, raised, detached, expected, told
):
    def fail(_connection):
        raise raised

    monkeypatch.setattr(handshake, "wait_for_hello", fail)
    launcher = Launcher("a program", 20.0, leads_group=detached)
    with pytest.raises(expected, match=told) as caught:
        client.finish(SimpleNamespace(awaited=launcher))
    assert type(caught.value) is expected
    if expected is not OSError:
        assert caught.value.__cause__ is raised
