"""The template's loop: what wakes it, what ends it, and what it does at its end. Without real workers."""

from __future__ import annotations

import atexit
import errno
import os
import select
import signal
import sys
from types import SimpleNamespace

import pytest

from pidfdpool.pidfd import sentinel_pipe
from pidfdpool.process import hygiene, lifeline, native
from pidfdpool.serialization import scripts
from pidfdpool.template import guard, reaper, server
from pidfdpool.template.server import Server
from pidfdpool.template.worker_fork import LivingWorkers
from pidfdpool.transport import channel as channels
from pidfdpool.transport import frame_rules, framing
from pidfdpool.transport.framing import Frame
from pidfdpool.worker.boot import SENTINEL, Boot
from tests.conditions import in_forked_child, open_descriptors


def boot_of(**options):
    fields = {"preload": (), "forked": True, "preload_call": None, "initializer": None} | options
    return Boot(
        handles=SENTINEL, host_pid=os.getpid(), host_name="MainProcess", argv=["host"], authkey=b"key", **fields
    )


class World:
    """A template with a real loop, and its host. To be used in a forked child only."""

    def __init__(self, **options):
        ours, theirs = channels.pair()
        self.host = channels.Channel(ours, frame_rules.FROM_TEMPLATE, descriptors=True)
        channel = channels.Channel(theirs, frame_rules.TO_TEMPLATE, descriptors=True)
        self.host_end, self.lifeline, self.sentinel = sentinel_pipe(), sentinel_pipe(), sentinel_pipe()
        self.boot = boot_of(**options)
        self.server = Server(channel, self.boot, self.host_end[0], self.lifeline[0], [self.sentinel[1]])
        self.done = []

    def ask(self, kind, **fields):
        self.host.send_nowait(framing.encode(kind, **fields))

    def run(self, *early):
        self.server.run([Frame(kind, 0, 0, 0, []) for kind in early])


class Worker:
    """One that was forked, and whose handle is the reading end of a pipe."""

    def __init__(self, slot, done):
        self.slot, self.generation, self.mark = slot, slot + 1, slot
        self.reader, self.writer = os.pipe()
        self.handle = SimpleNamespace(
            fileno=lambda: self.reader,
            pid=slot + 1000,
            send_signal=lambda number, group: done.append((slot, number, group)),
        )


@pytest.fixture
def noting_reaper(monkeypatch):
    """Have the reaper note what is asked of it; give its notes."""
    notes = []

    class Reaper:
        def __init__(self, workers, epoll, pipe, send):
            self.workers, self.epoll = workers, epoll
            notes.append("made")

        def reap_workers(self, fds):
            notes.append(("reap", list(fds)))
            for worker in list(self.workers.by_pid.values()):
                if worker.handle.fileno() in fds:
                    self.epoll.unregister(worker.handle.fileno())
                    self.workers.remove(worker)

        def on_sigchld(self):
            notes.append("sigchld")

        def kill_workers(self):
            notes.append("kill")
            for worker in self.workers.by_pid.values():
                os.close(worker.writer)

        def kill_remaining(self):
            notes.append("rest")

    monkeypatch.setattr(reaper, "Reaper", Reaper)
    return SimpleNamespace(notes=notes)


def test_a_template_that_is_told_to_stop_before_it_has_any_worker_leaves_at_once(monkeypatch, noting_reaper):
    """And with no functions for its exit, as nobody can have registered any."""

    def child():
        monkeypatch.setattr(atexit, "_run_exitfuncs", lambda: noting_reaper.notes.append("exit functions"))
        World().run(framing.STOP)
        assert noting_reaper.notes == []

    assert in_forked_child(child) == "ok"


def test_a_template_that_stops_serves_until_its_last_worker_has_ended(noting_reaper):
    def child():
        world = World()
        workers = [Worker(slot, world.done) for slot in (0, 1)]
        for worker in workers:
            world.server._workers.add(worker)
            world.server._epoll.register(worker.reader, select.EPOLLIN)
        world.ask(framing.STOP)
        world.run()
        assert noting_reaper.notes[:2] == ["made", "kill"]
        reaped = [fd for each in noting_reaper.notes[2:-1] for fd in each[1]]
        assert sorted(reaped) == sorted(worker.reader for worker in workers)
        assert noting_reaper.notes[-1] == "rest"

    assert in_forked_child(child) == "ok"


@pytest.mark.parametrize("why", ["host", "channel", "nonsense", "reset"])
def test_a_host_that_is_gone_however_that_shows_has_all_workers_killed(monkeypatch, noting_reaper, why):
    def child():
        world, told = World(), []

        def leave(code):
            noting_reaper.notes.append(("exit", code))
            raise SystemExit

        world.server._workers.add(Worker(0, world.done))
        if why == "host":
            native.close(world.host_end[1])
        elif why == "channel":
            world.host.close()
        elif why == "nonsense":
            os.write(world.host.fileno(), b"nonsense" * 10)
        else:
            world.server._channel.send(framing.encode(framing.BOOTED))
            world.host.close()  # and has not read that
        with monkeypatch.context() as patch:
            patch.setattr(sys, "excepthook", lambda kind, *_: told.append(kind))
            patch.setattr(server.os, "_exit", leave)
            with pytest.raises(SystemExit):
                world.run()
        assert [each for each in noting_reaper.notes if each != "made"] == ["kill", "rest", ("exit", 0)]
        assert told == ([framing.ProtocolError] if why == "nonsense" else [])

    assert in_forked_child(child) == "ok"


def test_a_death_of_any_child_wakes_the_template(monkeypatch, noting_reaper):
    def child():
        world = World()
        pid = os.fork()
        if not pid:
            os._exit(0)

        def on_sigchld(_self):
            os.read(world.server._sigchld_pipe, 100)
            os.waitpid(pid, 0)
            world.ask(framing.STOP)
            noting_reaper.notes.append("seen")

        monkeypatch.setattr(reaper.Reaper, "on_sigchld", on_sigchld)
        world.run()
        assert "seen" in noting_reaper.notes

    assert in_forked_child(child) == "ok"


def test_signals_that_come_by_the_thousand_neither_block_the_template_nor_are_complained_of():
    def child():
        world = World()
        assert world.server._sigchld_pipe > 2
        for fd in world.server._closed_in_worker[1:]:
            assert not os.get_inheritable(fd)
            assert not os.get_blocking(fd)
        complaints = []
        sys.unraisablehook = complaints.append
        for _ in range(70_000):
            signal.raise_signal(signal.SIGCHLD)
        assert complaints == []

    assert in_forked_child(child) == "ok"


def test_a_sandbox_that_refuses_a_handler_keeps_no_template_from_serving(monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "refused")

    def child():
        monkeypatch.setattr(server.native, "set_signal", refuse)
        World().run(framing.STOP)

    assert in_forked_child(child) == "ok"


def test_a_child_of_the_preloads_that_died_before_is_looked_for(monkeypatch, noting_reaper):
    def child():
        monkeypatch.setattr(lifeline, "signal_me_at_end", lambda *_: None)
        World(preload=("sys",)).run(framing.STOP)
        assert noting_reaper.notes == ["made", "sigchld", "rest"]

    assert in_forked_child(child) == "ok"


@pytest.mark.parametrize("why", ["preload", "script"])
def test_exit_functions_of_the_users_run_at_the_end_and_the_hosts_end_kills_what_they_do(monkeypatch, why):
    def child():
        order = []
        monkeypatch.setattr(lifeline, "signal_me_at_end", lambda *asked: order.append(asked))
        monkeypatch.setattr(atexit, "_run_exitfuncs", lambda: order.append("exit functions"))
        monkeypatch.setattr(hygiene, "flush_output", lambda: order.append("flush"))
        monkeypatch.setattr(scripts, "ran_again", why == "script")
        world = World(preload=("sys",) if why == "preload" else ())
        world.run(framing.STOP)
        assert order == [(world.lifeline[0], signal.SIGKILL), "exit functions", "flush"]

    assert in_forked_child(child) == "ok"


def test_a_worker_has_nothing_of_the_templates():
    def child():
        before = open_descriptors()
        world = World()
        worker = Worker(0, world.done)
        world.server._workers.add(worker)
        kept = {world.host.fileno(), *world.host_end, *world.lifeline, world.sentinel[0], worker.writer}
        world.server._close_in_worker()
        assert open_descriptors().keys() - before.keys() == kept

    assert in_forked_child(child) == "ok"


# ---- requests ----------------------------------------------------------------------------------------------------


class Channel:
    """The template's channel, which notes what is sent."""

    def __init__(self):
        self.sent, self.descriptors = [], []

    def next_descriptor(self):
        return self.descriptors.pop(0)

    def send(self, pieces, descriptor=None):
        kind, _, slot, generation, value = framing.HEADER.unpack_from(pieces[0])
        self.sent.append((kind, slot, generation, value, descriptor))


@pytest.fixture
def serving():
    """Give a server with nothing real around it."""
    serving = object.__new__(Server)
    serving._boot, serving._host_fd = boot_of(), 9
    serving._channel, serving._workers, serving._reaper = Channel(), LivingWorkers(None), None
    serving._tokens, serving._stopping, serving._host_is_gone = None, False, False
    serving._epoll, serving._sigchld_pipe = SimpleNamespace(register=lambda *asked: serving.watched.append(asked)), -1
    serving.watched, serving.closed = [], []
    serving._forker = SimpleNamespace(
        new_descriptors=lambda end, tokens: SimpleNamespace(
            black_box=70, stderr=(80, 81), close=lambda: serving.closed.append((end, tokens))
        )
    )
    return serving


def serve(serving, kind, slot=0, generation=1, value=0, descriptor=None):
    if descriptor is not None:
        serving._channel.descriptors.append(descriptor)
    serving._serve([Frame(kind, slot, generation, value, [])])


def forked(serving, made):
    handle = SimpleNamespace(fileno=lambda: 90, pid=1003)

    def fork(*asked):
        made.append(asked[:3])
        return SimpleNamespace(slot=asked[0], generation=asked[1], handle=handle, mark=5)

    serving._forker.fork = fork


def test_a_worker_is_forked_with_its_cookie_and_the_host_gets_all_its_ends(serving):
    made = []
    forked(serving, made)
    serve(serving, framing.SPAWN, slot=3, generation=7, value=0x01020304, descriptor=60)
    assert made == [(3, 7, 0x01020304)]
    assert serving._channel.sent == [
        (framing.BLACK_BOX, 3, 7, 0, 70),
        (framing.STDERR, 3, 7, 0, 80),
        (framing.SPAWNED, 3, 7, 1003, 90),
    ]
    assert serving.watched == [(90, select.EPOLLIN)]
    assert serving.closed == [(60, None)]


def test_what_deals_with_deaths_is_loaded_behind_the_first_workers_and_not_before(serving, noting_reaper):
    """They do not wait for that; and nobody has to load it who has no worker."""
    made = []
    forked(serving, made)
    serve(serving, framing.TOKENS, descriptor=50)
    assert noting_reaper.notes == []
    serve(serving, framing.SPAWN, descriptor=60)
    assert noting_reaper.notes == ["made"]
    serve(serving, framing.TOKENS, descriptor=51)
    assert noting_reaper.notes == ["made"]


@pytest.mark.parametrize(("number", "told"), [(errno.ENOMEM, errno.ENOMEM), (None, errno.EIO)])
def test_a_failure_is_told_by_a_number_also_where_it_has_none(serving, number, told):
    def refuse(*_):
        raise OSError(number, "no more") if number else OSError("no more")

    serving._forker.fork = refuse
    serve(serving, framing.SPAWN, slot=3, generation=7, descriptor=60)
    assert serving._channel.sent == [(framing.SPAWN_FAILED, 3, 7, told, None)]


def test_where_not_even_descriptors_can_be_made_that_is_told(serving):
    def refuse(*_):
        raise OSError(errno.EMFILE, "no more")

    serving._forker.new_descriptors = refuse
    serve(serving, framing.TOKENS, descriptor=50)
    serve(serving, framing.SPAWN, slot=3, generation=7, descriptor=60)
    assert serving._channel.sent == [(framing.SPAWN_FAILED, 3, 7, errno.EMFILE, None)]
    assert serving._tokens is None, "these belonged to that worker"


def test_the_script_is_run_again_with_what_the_template_was_told(serving, monkeypatch):
    ran = []
    monkeypatch.setattr(guard, "run_script", lambda *asked: ran.append(asked))
    serve(serving, framing.RUN_SCRIPT)
    assert ran == [(serving._boot, 9)]


def test_a_worker_that_cannot_be_signalled_disturbs_nobody(serving):
    def refuse(_number, *, group):
        assert group
        raise ProcessLookupError

    serving._reaper = SimpleNamespace()
    serving._workers.add(
        SimpleNamespace(
            slot=0, generation=1, mark=1, handle=SimpleNamespace(pid=1, fileno=lambda: 5, send_signal=refuse)
        )
    )
    serve(serving, framing.SIGNAL, value=15)


def test_without_any_worker_nothing_is_killed_and_nothing_loaded_for_that(serving, noting_reaper):
    serve(serving, framing.STOP)
    serving._kill_remaining()
    assert serving._stopping
    assert noting_reaper.notes == []


def test_the_mark_of_a_template_in_a_worker_is_one_of_the_living(monkeypatch):
    """A process that bears it belongs to the outer pool's worker."""
    asked = []
    monkeypatch.setattr(server.mark, "of", lambda pid: asked.append(pid) or 77)

    def child():
        world = World()
        assert world.server._workers.marks == {77}
        assert asked == [0]

    assert in_forked_child(child) == "ok"
