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
