"""What a new process removes of its parent's, and what the host has again when it has forked or blocked signals."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from contextlib import nullcontext, suppress
from types import SimpleNamespace

import pytest

from pidfdpool.process import hygiene
from pidfdpool.process.native import get_signal
from tests.conditions import in_forked_child, is_alive, open_descriptors
from tests.interrupting import places


def test_signals_are_blocked_in_the_block_and_the_mask_is_as_before_however_it_ends():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        for error in (None, ValueError, KeyboardInterrupt):
            with nullcontext() if error is None else pytest.raises(error), hygiene.signals_blocked() as mask:
                assert signal.SIGUSR1 in mask
                assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())
                if error is not None:
                    raise error
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before | {signal.SIGUSR1}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_handler_that_is_called_when_signals_are_blocked_leaves_none_blocked():
    """Guards: pthread_sigmask calls the handlers of signals that came just before it, and has blocked all by then."""

    def use():
        with hygiene.signals_blocked():
            pass

    before, entered = signal.pthread_sigmask(signal.SIG_BLOCK, ()), 0
    for place in places(lambda: use):
        now = signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if "__enter__" in place:
            entered += 1
            assert now == before, place
    assert entered >= 3


def test_a_new_process_has_no_handler_and_no_wakeup_descriptor_of_its_parents():
    def child():
        import faulthandler

        _, writer = os.pipe2(os.O_NONBLOCK)
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        faulthandler.register(signal.SIGUSR2, file=writer)
        with hygiene.signals_blocked():
            hygiene.reset_signals()
        assert signal.set_wakeup_fd(-1) == -1
        assert not faulthandler.unregister(signal.SIGUSR2)
        ignored = {n for n in signal.valid_signals() if get_signal(n) == signal.SIG_IGN}
        assert ignored == {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT}
        others = signal.valid_signals() - ignored - {signal.SIGKILL, signal.SIGSTOP}
        assert {get_signal(n) for n in others} <= {signal.SIG_DFL, None}

    assert in_forked_child(child) == "ok"


def test_a_new_process_unblocks_what_its_parents_thread_had_blocked():
    def child():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        hygiene.unblock_signals()
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())

    assert in_forked_child(child) == "ok"


def test_a_new_process_leads_a_session_or_a_group_of_its_own():
    def session():
        hygiene.leave_session()
        assert os.getsid(0) == os.getpgid(0) == os.getpid()

    def group():
        before = os.getsid(0)
        hygiene.lead_group()
        assert (os.getsid(0), os.getpgid(0)) == (before, os.getpid())

    assert in_forked_child(session) == "ok"
    assert in_forked_child(group) == "ok"


def watch(*_):
    return None


def both():
    return sys.gettrace(), sys.getprofile()


def test_functions_that_watch_the_host_are_there_again_after_a_fork_however_that_ends():
    def child():  # where no coverage tool is disturbed
        sys.setprofile(watch)
        sys.settrace(watch)
        for error in (None, OSError):
            with suppress(OSError), hygiene.untraced():
                assert both() == (None, None)
                if error is not None:
                    raise error
            assert both() == (watch, watch)
        sys.settrace(None)
        with hygiene.untraced():
            pass
        assert both() == (None, watch)
        hygiene.stop_tracing()
        assert both() == (None, None)

    assert in_forked_child(child) == "ok"


class InC:
    """Stands for a tool written in C, whose object is not callable or must see each call."""

    __call__ = len


def test_a_function_of_cs_is_left_until_the_new_process_stops_it(monkeypatch):
    done = []
    tracer = InC()
    monkeypatch.setattr(
        hygiene,
        "sys",
        SimpleNamespace(
            gettrace=lambda: tracer,
            getprofile=lambda: tracer,
            settrace=done.append,
            setprofile=done.append,
        ),
    )
    with hygiene.untraced():
        pass
    assert done == []


def test_what_the_parent_has_buffered_is_written_once(tmp_path):
    path = tmp_path / "file"
    stream = open(path, "w")
    handler = logging.StreamHandler(stream)

    def child():
        hygiene.renew_streams()
        stream.write("of the child, ")
        stream.flush()

    try:
        stream.buffer.write(b"of the parent")
        assert in_forked_child(child) == "ok"
    finally:
        handler.close()
        stream.close()
    assert path.read_text() == "of the child, of the parent"


def test_connections_of_the_host_are_closed_and_everything_else_is_kept():
    listening = socket.create_server(("127.0.0.1", 0))
    pair, pipe, datagrams = socket.socketpair(), os.pipe(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    connected = socket.create_connection(listening.getsockname())
    accepted, _ = listening.accept()

    def child():
        socket.setdefaulttimeout(7.0)
        before = open_descriptors()
        hygiene.close_connections(keep={connected.fileno()})
        after = open_descriptors()
        assert before.keys() == after.keys(), "the numbers stay in use"
        changed = {fd for fd in before if before[fd] != after[fd]}
        assert changed == {listening.fileno(), accepted.fileno()}
        assert {after[fd] for fd in changed} == {"/"}
        assert not any(map(os.get_inheritable, changed))
        assert socket.getdefaulttimeout() == 7.0

    try:
        assert in_forked_child(child) == "ok"
    finally:
        for each in (listening, connected, accepted, datagrams, *pair):
            each.close()
        for fd in pipe:
            os.close(fd)


def test_closed_standard_streams_are_occupied_and_standard_input_always_is():
    def child():
        reader, writer = os.pipe()
        os.dup2(reader, 0)
        os.dup2(writer, 2)
        os.close(1)
        before = open_descriptors()
        hygiene.occupy_standard_streams()
        after = open_descriptors()
        assert after[0] == after[1] == "/dev/null"
        assert {fd: after[fd] for fd in after if fd > 1} == {fd: before[fd] for fd in before if fd > 1}
        assert all(map(os.get_inheritable, (0, 1)))

    assert in_forked_child(child) == "ok"


def test_what_is_inherited_at_an_exec_is_closed_but_for_what_is_to_be_kept():
    def child():
        kept, inherited = os.pipe()
        _, own = os.pipe()
        os.set_inheritable(kept, True)
        os.set_inheritable(inherited, True)
        hygiene.close_inherited_descriptors(keep={kept})
        there = open_descriptors()
        assert (kept in there, inherited in there, own in there) == (True, False, True)

    assert in_forked_child(child) == "ok"


@pytest.mark.parametrize("when", ["before", "later"])
def test_the_end_of_the_host_kills_who_holds_the_lifeline(when):
    from pidfdpool.process import lifeline

    reader, writer = os.pipe()
    ready, tell = os.pipe()
    if when == "before":
        os.close(writer)
    pid = os.fork()
    if not pid:
        signal.alarm(20)  # or it would be there for ever, if it is not killed
        if when == "later":
            os.close(writer)
        own = lifeline.kill_me_at_end(reader)
        os.write(tell, b"1")
        while own is not None and when == "later":
            pass
        os._exit(0)
    os.close(tell)
    os.close(reader)
    if when == "later":
        assert os.read(ready, 1) == b"1"
        assert is_alive(pid)
        os.close(writer)
    _, status = os.waitpid(pid, 0)
    os.close(ready)
    assert status == (signal.SIGKILL if when == "later" else 1 << 8)


def test_each_of_several_processes_that_hold_the_lifeline_is_signalled_as_it_has_asked():
    """Guards: they asked through one description, so that only the last of them was signalled, and as it wanted."""
    from pidfdpool.process import lifeline

    reader, writer = os.pipe()
    ready, tell = os.pipe()

    def template():
        lifeline.signal_me_at_end(reader, signal.SIGUSR1)

    def worker():
        assert lifeline.kill_me_at_end(reader) > 2

    pids = []
    for ask in (template, worker, worker):
        pid = os.fork()
        if not pid:
            signal.alarm(20)
            os.close(writer)
            ask()
            os.write(tell, b"1")
            while True:
                signal.pause()
        pids.append(pid)
        assert os.read(ready, 1) == b"1"
    for fd in (reader, writer, ready, tell):
        os.close(fd)
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    assert statuses == [signal.SIGUSR1, signal.SIGKILL, signal.SIGKILL]


def test_where_a_sandbox_refuses_one_call_the_other_way_out_of_the_hosts_group_is_taken(monkeypatch):
    def refuse(*_):
        raise PermissionError

    def no_session():
        monkeypatch.setattr(os, "setsid", refuse)
        hygiene.leave_session()
        assert os.getpgid(0) == os.getpid()
        monkeypatch.setattr(os, "setpgid", refuse)
        hygiene.leave_session()

    def no_group():
        monkeypatch.setattr(os, "setpgid", refuse)
        hygiene.lead_group()
        assert os.getpgid(0) == os.getsid(0) == os.getpid()
        monkeypatch.setattr(os, "setsid", refuse)
        hygiene.lead_group()

    assert in_forked_child(no_session) == "ok"
    assert in_forked_child(no_group) == "ok"


def test_where_there_is_no_null_device_a_stream_is_at_its_end(monkeypatch):
    def child():
        real = os.open
        monkeypatch.setattr(os, "open", lambda path, *rest: refuse() if path == os.devnull else real(path, *rest))
        os.close(1)
        hygiene.occupy_standard_streams()
        assert os.read(0, 1) == b""
        with pytest.raises(BrokenPipeError):
            os.write(1, b"x")
        assert len(open_descriptors().keys() & {0, 1, 2}) == 3

    def refuse():
        raise FileNotFoundError

    assert in_forked_child(child) == "ok"


def test_standard_streams_that_were_closed_are_passed_on_to_what_is_executed():
    def child():
        for fd in (0, 1):
            os.close(fd)
        hygiene.occupy_standard_streams()
        assert os.get_inheritable(0)
        assert os.get_inheritable(1)

    assert in_forked_child(child) == "ok"


@pytest.mark.skipif(not hasattr(sys, "monitoring"), reason="needs Python 3.12")
def test_tools_that_monitor_are_stopped_in_a_new_process():
    def child():
        called = []
        events = sys.monitoring.events
        sys.monitoring.use_tool_id(3, "test")
        sys.monitoring.register_callback(3, events.PY_START, lambda code, _at: called.append(code.co_name))
        sys.monitoring.set_events(3, events.PY_START)
        sys.monitoring.set_local_events(3, monitored.__code__, events.PY_START)
        monitored()
        assert "monitored" in called
        hygiene.stop_tracing()
        called.clear()
        monitored()
        assert called == []

    assert in_forked_child(child) == "ok"


def monitored():
    pass


def test_output_is_flushed_whatever_the_streams_are(monkeypatch):
    flushed = []
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(flush=lambda: flushed.append("stderr")))
    hygiene.flush_output()
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(flush=lambda: flushed.append("stdout")))
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(flush=lambda: 1 / 0))
    hygiene.flush_output()
    assert flushed == ["stderr", "stdout"]


def test_a_file_that_a_new_process_has_not_closed_is_written_at_its_end_and_one_of_its_parents_is_not(tmp_path):
    from pidfdpool.process import exiting

    inherited = open(tmp_path / "inherited", "w")
    inherited.write("of the parent")

    def child():
        import gc

        gc.freeze()
        own = open(tmp_path / "own", "wb")
        own.write(b"its own")
        exiting._flush_files()
        assert (tmp_path / "own").read_text() == "its own"
        assert (tmp_path / "inherited").read_text() == ""

    assert in_forked_child(child) == "ok"
    inherited.close()
    assert (tmp_path / "inherited").read_text() == "of the parent"
