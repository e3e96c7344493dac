"""What a launcher does, and a template from its birth until it serves. In forked children, without a host."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from types import SimpleNamespace

import pytest

from pidfdpool.pidfd import capabilities
from pidfdpool.pidfd.sentinel import sentinel_pipe
from pidfdpool.process import hygiene, native
from pidfdpool.serialization import payload
from pidfdpool.template import guard, interpreter_options, launch, process
from pidfdpool.transport import channel as channels
from pidfdpool.transport import frame_rules, framing
from pidfdpool.worker import shared_tracker
from pidfdpool.worker.boot import PIDFD, SENTINEL, Boot
from tests.conditions import in_forked_child

needs_pidfds = pytest.mark.skipif(not capabilities().usable, reason="needs pidfds")


def boot_of(**options):
    fields = {"preload": (), "forked": True, "preload_call": None, "initializer": None, "handles": PIDFD} | options
    return Boot(host_pid=os.getpid(), host_name="MainProcess", argv=["host", "argument"], authkey=b"key", **fields)


class Channel:
    """The template's end: notes what is sent. `reads` are what each read returns."""

    def __init__(self, *reads, descriptors=()):
        self.reads, self.descriptors, self.sent = list(reads), list(descriptors), []

    def receive(self):
        return self.reads.pop(0)

    def next_descriptor(self):
        return self.descriptors.pop(0)

    def send(self, pieces, descriptor=None):
        kind, _, _, _, value = framing.HEADER.unpack_from(pieces[0])
        self.sent.append((kind, value, descriptor))
        self.last = pieces

    def fileno(self):
        return -1


def frame(kind, buffers=(), value=0):
    return framing.Frame(kind, 0, 0, value, list(buffers))


BOOT = frame(framing.BOOT, boot_of(forked=False).dump())
SPAWN = frame(framing.SPAWN)


def test_requests_that_come_with_what_a_template_is_told_are_kept_for_it():
    inherited = frame(framing.INHERITED)
    channel = Channel([inherited], [inherited, SPAWN, BOOT, frame(framing.STOP)], descriptors=[20, 21])
    boot, requests = process._receive_boot(channel)
    assert boot._descriptors == [20, 21]
    assert boot.argv == ["host", "argument"]
    assert [request.kind for request in requests] == [framing.SPAWN, framing.STOP]


def test_what_workers_inherit_and_has_not_come_is_a_lack_of_descriptors():
    with pytest.raises(OSError, match="workers inherit") as caught:
        process._receive_boot(Channel([frame(framing.INHERITED), BOOT], descriptors=[None]))
    assert caught.value.errno == errno.EMFILE


def test_a_launcher_that_cannot_fork_says_so_and_by_which_handle_it_is_known(monkeypatch):
    def refuse():
        raise OSError(errno.EAGAIN, "no more")

    def leave(status):
        left.append(status)
        raise SystemExit(status)

    left = []
    monkeypatch.setattr(process.native, "fork", refuse)
    monkeypatch.setattr(process.os, "_exit", leave)
    for handle_fds in ([20, 21], []):
        channel = Channel()
        with pytest.raises(SystemExit):
            process._fork_template(channel, handle_fds)
        announced = [(framing.LAUNCHED, os.getpid(), 20)] if handle_fds else []
        assert channel.sent == [*announced, (framing.SPAWN_FAILED, errno.EAGAIN, None)]
    assert left == [1, 1]


# ---- the preload -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [LookupError, SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("forked", [True, False])
def test_a_preload_that_fails_is_told_with_its_error_and_the_template_does_not_serve(monkeypatch, forked, error):
    """Guards: one that calls sys.exit() ended its template, and another was started, which did so again."""

    def fail(_boot, _host):
        raise error("no such module")

    monkeypatch.setattr(guard, "run_preload", fail)
    channel = Channel()
    assert not process._prepare(channel, boot_of(preload=("x",), forked=forked), -1)
    assert channel.sent == [(framing.PRELOAD_FAILED, 0, None)]
    assert type(payload.load_error(list(channel.last[1:]))) is error


def test_what_each_worker_would_load_for_itself_is_loaded_before_they_are_forked(monkeypatch):
    order = []
    monkeypatch.setattr(guard, "run_preload", lambda *_: order.append("preload"))
    monkeypatch.setattr(process.hygiene, "flush_output", lambda: order.append("flush"))
    monkeypatch.setattr("pidfdpool.worker.identity.prepare", lambda: order.append("identity"))
    monkeypatch.setattr(process.gc, "freeze", lambda: order.append("freeze"))
    assert process._prepare(Channel(), boot_of(preload=("x",)), 9)
    assert order == ["preload", "flush", "identity", "freeze"]


def test_what_the_preload_leaves_is_shared_and_collections_are_as_it_left_them(monkeypatch):
    def child():
        ran = []
        monkeypatch.setattr(guard, "run_preload", lambda boot, host: ran.append((host, gc.isenabled())))
        for forked, enabled in ((False, False), (True, False), (True, True)):
            (gc.enable if enabled else gc.disable)()
            gc.unfreeze()
            assert process._prepare(Channel(), boot_of(preload=("x",), forked=forked), 9)
            assert gc.get_freeze_count() > 0
            assert ran.pop() == (9, enabled or not forked), "a script's own objects are to be collected"
            assert gc.isenabled() is (enabled or not forked)
        gc.disable()
        gc.unfreeze()
        assert process._prepare(Channel(), boot_of(forked=False), 9)
        assert ran == []
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0

    assert in_forked_child(child) == "ok"


def test_the_script_is_run_as_that_of_a_child_process_and_its_exit_functions_are_the_templates(monkeypatch):
    order = []
    monkeypatch.setattr(guard, "_become_child_process", lambda *_: order.append("child process"))
    monkeypatch.setattr(guard.exiting, "mark_as_own", lambda: order.append("own exit functions"))
    monkeypatch.setattr(guard, "guarded", lambda host: Noted(order, f"host {host}"))
    monkeypatch.setattr(guard.script_module, "run_script", lambda: order.append("script"))
    monkeypatch.setattr(guard.hygiene, "flush_output", lambda: order.append("flush"))
    monkeypatch.setattr(guard.gc, "freeze", lambda: order.append("freeze"))
    guard.run_script(boot_of(), 5)
    guarded = ["host 5", "script", "over"]
    assert order == ["child process", "own exit functions", *guarded, "flush", "freeze"]
    order.clear()
    guard.run_preload(boot_of(runs_script=True, handles=SENTINEL), 5)
    assert order == ["child process", "own exit functions", "script"], "without pidfds there is no guard"
    order.clear()
    guard.run_preload(boot_of(preload_call=lambda: order.append("call")), 5)
    assert order == ["own exit functions", "host 5", "call", "over"]


class Noted:
    def __init__(self, order, name):
        self.order, self.name = order, name

    def __enter__(self):
        self.order.append(self.name)

    def __exit__(self, *_):
        self.order.append("over")


# ---- the birth ---------------------------------------------------------------------------------------------------


def born(monkeypatch, handles, served, **options):
    """Be a template up to its first look for requests; return the frames that its host has by then."""
    ours, theirs = channels.pair()
    host = channels.Channel(ours, frame_rules.FROM_TEMPLATE, descriptors=True)
    channel = channels.Channel(theirs, frame_rules.TO_TEMPLATE, descriptors=True)
    read, lifeline = sentinel_pipe()
    order = []

    class Server:
        def __init__(self, *made_of):
            self.made_of = made_of

        def run(self, requests):
            served(self.made_of, requests, order)

    monkeypatch.setattr(process, "Server", Server)
    with hygiene.signals_blocked():
        process._run_template(
            channel, read, read, handles, options.get("boot"), lambda: order.append("copies are closed")
        )
    frames = host.receive_nowait()
    while frames[-1].kind != framing.BOOTED:  # a frame with a descriptor comes by itself
        frames += host.receive_nowait()
    native.close(lifeline)
    return host, frames


@needs_pidfds
@pytest.mark.parametrize("handles", [PIDFD, SENTINEL])
def test_a_template_tells_how_to_know_it_before_anything_else_and_is_ready_to_serve_then(monkeypatch, handles):
    seen = []

    def served(made_of, requests, order):
        _, boot, _, _, sentinels = made_of
        assert order == ["copies are closed"]
        assert requests == []
        assert os.getsid(0) == os.getpid()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert os.readlink("/proc/self/fd/0") == os.devnull
        with open("/proc/self/comm") as name:
            assert name.read() == "pidfd-template\n"
        assert len(sentinels) == (1 if boot.handles == SENTINEL else 0)
        seen.append(1)

    def child():
        signal.signal(signal.SIGTERM, lambda *_: None)
        host, frames = born(monkeypatch, handles, served, boot=boot_of(handles=handles))
        assert [each.kind for each in frames] == [framing.HELLO, framing.BOOTED]
        assert frames[0].value == os.getpid()
        fd = host.next_descriptor()
        target = os.readlink(f"/proc/self/fd/{fd}")
        assert ("pidfd" in target) is (handles == PIDFD), target
        assert seen == [1]

    assert in_forked_child(child) == "ok"


@needs_pidfds
@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_handlers_that_the_start_of_the_interpreter_has_set_are_kept_for_workers_and_the_hosts_are_not(
    monkeypatch, way
):
    def child():
        kept = []
        monkeypatch.setattr(process.script_module, "keep_signals", lambda: kept.append(1))
        monkeypatch.setattr(process, "_receive_boot", lambda _channel: (boot_of(forked=False), []))
        born(monkeypatch, PIDFD, lambda *_: None, boot=boot_of() if way == "fork" else None)
        assert len(kept) == (way == "spawn")
        if way == "spawn":
            assert sys.argv == ["host", "argument"]

    assert in_forked_child(child) == "ok"


# ---- the launcher ------------------------------------------------------------------------------------------------


def test_options_of_the_interpreter_are_those_of_the_host(monkeypatch):
    monkeypatch.setattr(sys, "_xoptions", {"dev": True, "mine": "value", "utf8": "1"})
    monkeypatch.setattr(interpreter_options, "_is_unbuffered", lambda: True)
    options = interpreter_options.interpreter_options()
    assert options[-2:] == ["-u", "-P"]
    assert "mine=value" in options
    assert options.count("dev") == 1
    monkeypatch.setattr(interpreter_options, "_is_unbuffered", lambda: False)
    assert "-u" not in interpreter_options.interpreter_options()


def test_streams_that_are_closed_are_opened_for_the_launcher_and_no_others():
    def child():
        assert launch._streams() == []
        for fd, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
            os.close(fd)
            assert launch._streams()[-1] == (os.POSIX_SPAWN_OPEN, fd, os.devnull, mode, 0)
        assert len(launch._streams()) == 3

    assert in_forked_child(child) == "ok"


def test_where_a_group_is_refused_the_launcher_gets_a_session(monkeypatch):
    asked = []

    def start(**options):
        asked.append(options)
        if "setpgroup" in options:
            raise OSError(error, os.strerror(error))
        return 5

    monkeypatch.setattr(launch, "_starting", lambda *_: start)
    error = errno.EPERM
    assert launch.spawn("python", (3, 4, 5), PIDFD, 1) == 5
    assert asked == [{"setpgroup": 0}, {"setsid": True}]
    error = errno.ENOENT
    with pytest.raises(FileNotFoundError):
        launch.spawn("python", (3, 4, 5), PIDFD, 1)


def test_a_template_is_known_by_its_cookie_and_by_nothing_else(monkeypatch, tmp_path):
    def known(*arguments):
        path = tmp_path / "cmdline"
        path.write_bytes(b"\0".join(map(str.encode, arguments)) + b"\0")
        monkeypatch.setattr("builtins.open", lambda _path, mode: real(path, mode))
        try:
            return launch.is_detached_template(1, 77)
        finally:
            monkeypatch.undo()

    real = open
    assert known("python", "-c", launch._LAUNCHER, "77")
    assert not known("python", "-c", launch._LAUNCHER, "78")
    assert not known("python", "-c", "something else", "77")
    assert not known("python", "-c", launch._LAUNCHER, "77", launch._LAUNCHER), "a program that was told to start it"
    assert not launch.is_detached_template(2**22 + 1, 77)


def test_a_fork_of_the_host_closes_its_copies_of_connections_but_those_that_workers_keep(monkeypatch):
    closed = []
    monkeypatch.setattr(launch.hygiene, "close_connections", lambda keep: closed.append(keep))
    monkeypatch.setattr(shared_tracker, "install", lambda fd: closed.append(("asks with", fd)))
    launch._close_copies(SimpleNamespace(close=lambda: closed.append("channel")), {7}, 8)
    assert closed == ["channel", {7}, ("asks with", 8)]
