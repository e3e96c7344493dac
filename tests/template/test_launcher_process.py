"""The launcher, and what becomes of the descriptors and arguments that it is started with. In forked children."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from types import SimpleNamespace

import pytest

from pidfdpool.pidfd import capabilities, sentinel_pipe
from pidfdpool.process import exiting, hygiene, lifeline
from pidfdpool.serialization import scripts
from pidfdpool.template import process
from pidfdpool.transport import channel as channels
from pidfdpool.transport import frame_rules, framing
from pidfdpool.worker import script_module
from pidfdpool.worker.boot import DETACHED, PIDFD, SENTINEL, Boot
from tests.conditions import in_forked_child, open_descriptors

needs_pidfds = pytest.mark.skipif(not capabilities().usable, reason="needs pidfds")
KINDS = [pytest.param(PIDFD, marks=needs_pidfds), SENTINEL]


def boot_of(**options):
    fields = {"preload": (), "forked": True, "preload_call": None, "initializer": None, "handles": PIDFD} | options
    return Boot(host_pid=os.getpid(), host_name="MainProcess", argv=["host"], authkey=b"key", **fields)


# ---- the arguments -----------------------------------------------------------------------------------------------


def started(monkeypatch, *, detached):
    """Be started with descriptors that an exec has passed on; return how `launch` was called."""
    called = []

    def launch(*arguments, **options):
        called.append((arguments, options))
        raise SystemExit

    monkeypatch.setattr(process, "launch", launch)
    monkeypatch.setattr(os, "dup2", lambda *numbers: called.append(numbers))
    fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]
    for fd in fds:
        os.set_inheritable(fd, True)
    handles = f"{DETACHED}{fds[3]}" if detached else SENTINEL
    with pytest.raises(SystemExit):
        process.main([*map(str, fds[:3]), handles, str(0x01020304)])
    return fds, called


@pytest.mark.parametrize("detached", [True, False])
def test_a_new_interpreter_is_the_template_or_its_launcher_and_keeps_the_three_descriptors(monkeypatch, detached):
    def child():
        fds, called = started(monkeypatch, detached=detached)
        cookie = framing.cookie_bytes(0x01020304)
        if detached:
            assert called == [(fds[3], 2), ((*fds[:3], PIDFD, cookie), {"is_template": True})]
        else:
            assert called == [((*fds[:3], SENTINEL, cookie), {"is_awaited": True})]
        there = open_descriptors()
        assert [fd in there for fd in fds] == [True, True, True, False]
        assert not any(map(os.get_inheritable, fds[:3])), "tasks that start programs would pass them on"

    assert in_forked_child(child) == "ok"


# ---- the launcher ------------------------------------------------------------------------------------------------


class Left(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def launched(monkeypatch):
    """Return a function that calls `launch`, and gives its exit code, what was run, and the host's frames."""

    def launch(forked, run=lambda *_: None, **options):
        ours, theirs = channels.pair()
        host = channels.Channel(ours, frame_rules.FROM_TEMPLATE, descriptors=True)
        ran, codes = [], []

        def fork_template(_channel, handle_fds):
            ran.append(("fork", len(handle_fds), signal.pthread_sigmask(signal.SIG_BLOCK, ())))
            if isinstance(forked, BaseException):
                raise forked
            return forked

        def run_template(channel, *rest):
            ran.append(("template", rest))
            run(channel)

        def leave(code):
            codes.append(code)
            raise Left

        with monkeypatch.context() as patch:
            patch.setattr(process, "_fork_template", fork_template)
            patch.setattr(process, "_run_template", run_template)
            patch.setattr(process.os, "_exit", leave)
            with pytest.raises(Left):
                process.launch(theirs.detach(), 20, 21, options.pop("handles", SENTINEL), b"", **options)
        return codes, ran, host

    return launch


def frames_of(host):
    try:
        return host.receive_nowait()
    except EOFError:
        return []


def test_a_launcher_exits_at_once_and_is_content(launched):
    codes, ran, host = launched(123)
    assert codes == [0]
    [(what, fds, mask)] = ran
    assert (what, fds) == ("fork", 0), "nobody waits for it by a descriptor of its own"
    assert mask >= {signal.SIGTERM, signal.SIGCHLD}
    assert frames_of(host) == []
    host.close()


def test_the_template_goes_on_with_all_that_the_launcher_was_given(launched):
    boot, close = boot_of(), lambda: None
    codes, ran, host = launched(0, boot=boot, close_copies=close)
    assert codes == [0]
    assert ran[1:] == [("template", (20, 21, SENTINEL, boot, close))]
    host.close()


def test_who_is_the_template_already_does_not_fork(launched):
    codes, ran, host = launched(AssertionError("it forked"), is_template=True)
    assert codes == [0]
    assert [each[0] for each in ran] == ["template"]
    host.close()


@pytest.mark.parametrize("handles", KINDS)
def test_a_launcher_that_is_awaited_is_told_of_by_the_template_and_kept_open_by_the_launcher_alone(launched, handles):
    before = open_descriptors()
    codes, ran, host = launched(0, handles=handles, is_awaited=True)
    assert codes == [0]
    assert ran[0][1] == (1 if handles == PIDFD else 2)
    [frame] = frames_of(host)
    assert (frame.kind, frame.value) == (framing.LAUNCHED, os.getpid())
    fd = host.next_descriptor()
    assert ("pidfd" in os.readlink(f"/proc/self/fd/{fd}")) is (handles == PIDFD)
    os.close(fd)
    host.close()
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (EOFError, False),
        (BrokenPipeError, False),
        (ConnectionResetError, False),
        (LookupError, True),
        (KeyboardInterrupt, True),
        (OSError, True),
    ],
)
def test_a_host_that_is_gone_is_no_failure_to_print_and_everything_else_is(launched, capsys, error, told):
    def fail(_channel):
        raise error

    codes, _, host = launched(0, fail)
    assert codes == [1]
    printed = capsys.readouterr().err
    assert (error.__name__ in printed) is told
    assert bool(printed) is told
    host.close()


def test_a_lack_of_processes_that_has_no_number_is_told_as_one_that_may_pass(monkeypatch):
    def refuse():
        raise OSError("no number")

    def leave(_code):
        raise Left

    sent = []
    monkeypatch.setattr(process.native, "fork", refuse)
    monkeypatch.setattr(process.os, "_exit", leave)
    channel = SimpleNamespace(send=lambda pieces, *_: sent.append(framing.HEADER.unpack_from(pieces[0])[-1]))
    with pytest.raises(Left):
        process._fork_template(channel, [])
    assert sent == [errno.EAGAIN]


def test_the_own_handle_is_readable_when_the_process_is_gone():
    fds = process._open_own_handle(SENTINEL)
    assert len(fds) == 2
    os.close(fds.pop())
    assert os.read(fds[0], 1) == b"", "the second is what keeps it from being readable"
    os.close(fds[0])


# ---- the birth of the template -----------------------------------------------------------------------------------


def born(monkeypatch, handles=SENTINEL, boot=None, prepares=True, subreaper=lambda _on: None):
    """Be a template; return the order of what was done, and what the server was made of and given."""
    ours, theirs = channels.pair()
    host = channels.Channel(ours, frame_rules.FROM_TEMPLATE, descriptors=True)
    channel = channels.Channel(theirs, frame_rules.TO_TEMPLATE, descriptors=True)
    pipe, order, served = sentinel_pipe(), [], []

    def noted(module, name, call=lambda *_: None):
        def note(*arguments):
            order.append((name, *arguments))
            return call(*arguments)

        monkeypatch.setattr(module, name, note)

    def serve(*made_of):
        served.extend(made_of)
        return SimpleNamespace(run=served.append)

    noted(lifeline, "signal_me_at_end")
    noted(hygiene, "reset_signals")
    noted(hygiene, "renew_streams")
    noted(hygiene, "occupy_standard_streams")
    noted(exiting, "discard_inherited")
    noted(script_module, "keep_signals")
    noted(process.prctl, "set_child_subreaper", subreaper)
    monkeypatch.setattr(process, "_prepare", lambda *made_of: order.append(("prepare", *made_of[1:])) or prepares)
    monkeypatch.setattr(process, "Server", serve)
    with hygiene.signals_blocked():
        process._run_template(channel, pipe[0], pipe[1], handles, boot, None)
    return order, served, host, channel, pipe


@pytest.mark.parametrize("way", ["fork", "exec"])
def test_a_template_is_made_ready_in_the_way_that_it_came_into_being(monkeypatch, way):
    requests = [object()]

    def child():
        told = boot_of(forked=False)
        monkeypatch.setattr(process, "_receive_boot", lambda _channel: (told, requests))
        boot, argv = boot_of() if way == "fork" else None, sys.argv
        order, served, _, channel, pipe = born(monkeypatch, boot=boot)
        names = [each[0] for each in order]
        of_fork = ["renew_streams", "discard_inherited"]
        wakes = ["signal_me_at_end"] * 2
        begin = ["keep_signals"] * (way == "exec") + ["reset_signals", *wakes, "occupy_standard_streams"]
        assert names == [*begin, "set_child_subreaper", *(of_fork if way == "fork" else []), "prepare"]
        asked = [each[1:] for each in order if each[0] == "signal_me_at_end"]
        assert asked == [(pipe[1], signal.SIGCONT), (channel.fileno(), signal.SIGCONT)], "it may be stopped"
        assert ("set_child_subreaper", True) in order
        used = boot or told
        assert order[-1] == ("prepare", used, pipe[0])
        assert served[:4] == [channel, used, pipe[0], pipe[1]]
        assert served[5] == ([] if way == "fork" else requests)
        assert sys.argv is argv, "other modules may hold it"
        assert (argv == ["host"]) is (way == "exec")

    assert in_forked_child(child) == "ok"


@needs_pidfds
def test_with_pidfds_only_the_lifeline_wakes_a_template(monkeypatch):
    def child():
        order, served, _, _, pipe = born(monkeypatch, handles=PIDFD, boot=boot_of())
        assert [each[1:] for each in order if each[0] == "signal_me_at_end"] == [(pipe[1], signal.SIGCONT)]
        assert served[4] == [], "a pidfd needs no other end"

    assert in_forked_child(child) == "ok"


@pytest.mark.parametrize("handles", KINDS)
def test_of_its_own_handle_a_template_keeps_what_others_watch_by_it_and_no_more(monkeypatch, handles):
    def child():
        before = open_descriptors()
        _, served, _, _, pipe = born(monkeypatch, handles=handles, boot=boot_of())
        new = {fd: name for fd, name in open_descriptors().items() if before.get(fd) != name and fd > 2}
        assert not any("pidfd" in name for name in new.values())
        pipes = {fd for fd, name in new.items() if name.startswith("pipe:")}
        assert pipes == {*pipe, *served[4]}

    assert in_forked_child(child) == "ok"


def test_a_template_whose_preload_fails_does_not_serve(monkeypatch):
    def child():
        _, served, host, _, _ = born(monkeypatch, boot=boot_of(), prepares=False)
        assert served == []
        assert [frame.kind for frame in frames_of(host) + frames_of(host)] == [framing.HELLO]

    assert in_forked_child(child) == "ok"


def test_a_template_whose_sandbox_refuses_to_make_it_a_subreaper_serves(monkeypatch):
    def refuse(_on):
        raise PermissionError(errno.EPERM, "refused")

    def child():
        _, served, *_ = born(monkeypatch, boot=boot_of(), subreaper=refuse)
        assert served

    assert in_forked_child(child) == "ok"


# ---- what it is told and loads -----------------------------------------------------------------------------------


class Channel:
    """The template's end, which reads these frames at once."""

    def __init__(self, *frames):
        self.frames, self.sent = list(frames), []

    def receive(self):
        return self.frames

    def send(self, *pieces):
        self.sent.append(pieces)


@pytest.mark.parametrize("there", [True, False])
def test_the_hosts_script_is_put_in_place_if_there_is_one(monkeypatch, there):
    installed = []
    monkeypatch.setattr(script_module, "install", installed.append)
    script = scripts.Script(*scripts.current().as_fields())
    boot = boot_of(forked=False, script=script.as_fields() if there else None)
    process._receive_boot(Channel(framing.Frame(framing.BOOT, 0, 0, 0, boot.dump())))
    assert [type(each) for each in installed] == [scripts.Script] * there
    assert [each.as_fields() for each in installed] == [script.as_fields()] * there


def test_threads_are_limited_before_the_preload_and_what_workers_run_is_loaded_for_all(monkeypatch, tmp_path):
    """Guards: each worker loaded the module that sends what it logs by itself."""
    (tmp_path / "of_the_program.py").write_text("")
    forwarding = "pidfdpool.worker.log_forwarding"

    def child():
        order = []
        monkeypatch.syspath_prepend(tmp_path)
        for name in (forwarding, "faulthandler", "mmap"):
            sys.modules.pop(name, None)
        monkeypatch.setattr("pidfdpool.worker.thread_limits.apply", lambda count: order.append(count))
        boot = boot_of(threads=3, preload_call=lambda: order.append("preload"), handles=SENTINEL)
        boot.program = ("of_the_program", "Program")
        assert process._prepare(Channel(), boot, -1)
        assert order == [3, "preload"]
        assert {"of_the_program", "faulthandler", "mmap"} <= sys.modules.keys()
        assert forwarding not in sys.modules
        boot.logs = (False, 0, None, (0, {}))
        boot._preload_call = None
        assert process._prepare(Channel(), boot, -1)
        assert forwarding in sys.modules

    assert in_forked_child(child) == "ok"


@pytest.mark.parametrize("enabled", [True, False])
def test_a_fork_of_the_host_collects_garbage_as_the_host_does_and_a_fresh_interpreter_from_here_on(enabled):
    def child():
        (gc.enable if enabled else gc.disable)()
        assert process._prepare(Channel(), boot_of(), -1)
        assert gc.isenabled() is enabled
        assert process._prepare(Channel(), boot_of(forked=False), -1)
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0

    assert in_forked_child(child) == "ok"


def test_the_error_of_a_preload_shows_the_users_frames_and_none_of_the_templates():
    def preload():
        raise LookupError("nothing there")

    def child():
        channel = Channel()
        assert not process._prepare(channel, boot_of(handles=SENTINEL, preload_call=preload), -1)
        [(pieces,)] = channel.sent
        told = b"".join(bytes(piece) for piece in pieces)
        assert b"nothing there" in told
        assert b"in preload" in told
        assert b"_prepare" not in told

    assert in_forked_child(child) == "ok"
