"""The guard as a process: what it is deaf to, what it is called, and what it does where a sandbox refuses calls."""

from __future__ import annotations

import errno
import os
import signal
import sys

import pytest

from pidfdpool.pidfd import Pidfd, capabilities
from pidfdpool.process import exiting
from pidfdpool.template import guard
from pidfdpool.worker import identity
from pidfdpool.worker.boot import PIDFD, SENTINEL, Boot
from tests.conditions import children, eventually, in_forked_child, is_alive

pytestmark = pytest.mark.skipif(not capabilities().usable, reason="needs pidfds")


def boot_of(**options):
    fields = {"preload": (), "forked": True, "preload_call": None, "initializer": None, "handles": PIDFD} | options
    return Boot(host_pid=os.getpid(), host_name="MainProcess", argv=["host"], authkey=b"key", **fields)


@pytest.fixture
def host():
    """Give what is readable when the host is gone, and its other end, which the host alone holds."""
    reader, writer = os.pipe()
    ends = [reader, writer]
    yield ends
    for fd in ends:
        os.close(fd)


def go_away(host):
    os.close(host.pop())


def start_template(host, before=lambda: None):
    """Fork a process that stays in the block for ever; return its pid, and that of its guard when that watches."""
    pid = os.fork()
    if not pid:
        signal.alarm(10)
        os.close(host[1])
        before()
        try:
            with guard.guarded(host[0]):
                while True:
                    signal.pause()
        finally:
            os._exit(0)
    watcher = eventually(lambda: children(pid), "its guard is there")[0]
    eventually(lambda: name_of(watcher) == "pidfd-guard", "it has its name")
    return pid, watcher


def name_of(pid):
    with open(f"/proc/{pid}/comm") as file:
        return file.read().strip()


def send(pid, number):
    with Pidfd.open(pid) as handle:
        handle.send_signal(number)


def test_a_guard_is_deaf_to_all_signals_and_watches_on(host):
    """Signals to all processes of a session or a container end neither it nor the template."""
    template, watcher = start_template(host)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        os.kill(watcher, number)
    assert is_alive(watcher)
    go_away(host)
    assert os.waitpid(template, 0)[1] == signal.SIGKILL
    eventually(lambda: not is_alive(watcher), "the guard is gone")


def test_a_guard_that_was_stopped_dies_with_its_template_all_the_same(host):
    template, watcher = start_template(host)
    with Pidfd.open(watcher) as handle:
        handle.send_signal(signal.SIGSTOP)
        send(template, signal.SIGKILL)
        os.waitpid(template, 0)
        try:
            assert handle.wait(5), "the guard is gone"
        finally:
            handle.send_signal(signal.SIGKILL) if handle.alive() else None


def test_a_guard_watches_where_a_sandbox_refuses_to_tie_it_to_the_template(host):
    def refuse(_number):
        raise PermissionError(errno.EPERM, "refused")

    def in_sandbox():
        guard.prctl.set_parent_death_signal = refuse

    template, watcher = start_template(host, in_sandbox)
    assert is_alive(watcher)
    go_away(host)
    assert os.waitpid(template, 0)[1] == signal.SIGKILL
    eventually(lambda: not is_alive(watcher), "the guard is gone")


def test_a_host_that_was_gone_before_takes_the_template_along_and_the_guard_runs_nothing_of_the_templates(
    host, monkeypatch
):
    """Also where the guard is not tied to the template, which otherwise takes it along."""
    monkeypatch.setattr(guard.prctl, "set_parent_death_signal", lambda _number: None)
    go_away(host)
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reader)
        signal.alarm(10)
        try:
            with guard.guarded(host[0]):
                while True:
                    signal.pause()
        except BaseException as error:
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    with open(reader) as file:
        assert file.read() == "", "until the guard is gone, too"


def test_in_the_block_signals_reach_the_template_as_before(host):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with guard.guarded(host[0]):
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_guard_that_was_killed_by_others_is_reaped_at_the_end_of_the_block(host):
    there = children(os.getpid())
    with guard.guarded(host[0]):
        [watcher] = set(children(os.getpid())) - set(there)
        os.kill(watcher, signal.SIGKILL)
    assert children(os.getpid()) == there


# ---- what is done before the user's code runs --------------------------------------------------------------------


def test_what_deals_with_deaths_is_loaded_before_the_preload_runs():
    """The preload may leave no descriptor to read that file with."""
    name, seen = "pidfdpool.template.reaper", []

    def child():
        sys.modules.pop(name, None)
        boot = boot_of(handles=SENTINEL, preload_call=lambda: seen.append(name in sys.modules))
        guard.run_preload(boot, -1)
        assert seen == [True]

    assert in_forked_child(child) == "ok"


@pytest.mark.parametrize("what", ["preload", "script"])
def test_the_template_is_a_child_process_of_the_host_where_it_runs_the_script(monkeypatch, what):
    """Scripts ask `multiprocessing` for that, to guard their main part."""
    asked = []
    monkeypatch.setattr(identity, "become_process", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(exiting, "mark_as_own", lambda: None)
    monkeypatch.setattr(guard.script_module, "run_script", lambda: None)
    monkeypatch.setattr(guard.gc, "freeze", lambda: None)
    boot = boot_of(handles=SENTINEL, runs_script=True)
    if what == "script":
        guard.run_script(boot, 9)
    else:
        guard.run_preload(boot, 9)
    assert asked == [(identity.TEMPLATE, (), boot, 9)]
    asked.clear()
    guard.run_preload(boot_of(handles=SENTINEL), 9)
    assert asked == [], "a preload without the script asks for nothing"
