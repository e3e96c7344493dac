"""Which sockets of the host's a new process closes, which other descriptors, and what becomes of its streams."""

from __future__ import annotations

import _socket
import faulthandler
import io
import logging
import os
import signal
import socket
import sys
import threading
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import pytest

from pidfdpool.process import hygiene, native
from tests.conditions import in_forked_child, open_descriptors


@contextmanager
def sockets(*made):
    with ExitStack() as stack:
        yield [stack.enter_context(each) for each in made]


def is_closed_in_a_child(*those, keep=()):
    """Return for each socket whether a forked process closes it."""
    reader, writer = os.pipe()

    def child():
        before = open_descriptors()
        hygiene.close_connections(keep)
        after = open_descriptors()
        closed = [before[each.fileno()] != after[each.fileno()] for each in those]
        os.write(writer, bytes(closed))

    assert in_forked_child(child) == "ok"
    found = [bool(each) for each in os.read(reader, 100)]
    os.close(reader)
    os.close(writer)
    return found


# ---- connections -------------------------------------------------------------------------------------------------


def test_a_unix_socket_with_a_name_is_a_connection_at_both_of_its_ends(tmp_path):
    path = str(tmp_path / "socket")
    with sockets(socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)) as (listening, client):
        listening.bind(path)
        listening.listen()
        client.connect(path)
        accepted, _ = listening.accept()
        with accepted:
            assert client.getsockname() == "", "only its peer has a name"
            assert is_closed_in_a_child(listening, client, accepted) == [True, True, True]


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
def test_unnamed_pairs_are_kept_of_whatever_kind(kind):
    """The pipes of multiprocessing are such pairs."""
    with sockets(*socket.socketpair(socket.AF_UNIX, kind)) as pair:
        assert is_closed_in_a_child(*pair) == [False, False]


def test_a_unix_socket_that_is_not_connected_yet_is_kept():
    with sockets(socket.socket(socket.AF_UNIX)) as one:
        assert is_closed_in_a_child(*one) == [False]


def test_a_named_socket_of_packets_is_a_connection(tmp_path):
    with sockets(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as (one,):
        one.bind(str(tmp_path / "socket"))
        assert is_closed_in_a_child(one) == [True]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_socket_of_the_internet_is_a_connection_or_may_become_one(family):
    with sockets(socket.socket(family), socket.socket(family, socket.SOCK_DGRAM)) as (stream, datagrams):
        assert is_closed_in_a_child(stream, datagrams) == [True, False]


def test_what_is_to_be_kept_is_kept():
    with sockets(socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))) as (one, other):
        assert is_closed_in_a_child(one, other, keep={one.fileno()}) == [False, True]


def test_a_copy_of_a_standard_stream_is_kept():
    """It may be a connection to the journal of the system."""

    def child():
        server = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(server.getsockname())
        os.dup2(client.fileno(), 2)
        copy = os.dup(2)
        os.close(0)
        before = open_descriptors()
        hygiene.close_connections(set())
        after = open_descriptors()
        assert {fd for fd in before if before[fd] != after[fd]} == {server.fileno()}
        assert after[copy] == after[2] == before[2]

    assert in_forked_child(child) == "ok"


def test_a_host_that_has_a_default_timeout_keeps_blocking_sockets_and_the_default():
    """Guards: with a timeout, to look at a socket made it one that does not block, for the host as well."""
    ends = native.socketpair()

    def child():
        _socket.setdefaulttimeout(3.0)
        hygiene.close_connections(set())
        assert _socket.getdefaulttimeout() == 3.0

    assert in_forked_child(child) == "ok"
    assert all(os.get_blocking(end.fileno()) for end in ends)
    for end in ends:
        end.close()


def test_in_the_place_of_a_connection_is_what_allows_no_operation():
    listening = socket.create_server(("127.0.0.1", 0))

    def child():
        hygiene.close_connections(set())
        fd = listening.fileno()
        for use in (os.listdir, lambda fd: os.read(fd, 1), lambda fd: os.fchmod(fd, 0o700)):
            with pytest.raises(OSError, match="Bad file descriptor"):
                use(fd)

    assert in_forked_child(child) == "ok"
    listening.close()


# ---- descriptors -------------------------------------------------------------------------------------------------


def test_without_proc_the_usual_numbers_are_tried(monkeypatch):
    def refuse(_path):
        raise PermissionError

    monkeypatch.setattr(os, "listdir", refuse)
    numbers = hygiene._descriptors()
    assert numbers[0] == 3
    assert numbers == list(range(3, len(numbers) + 3))
    assert len(numbers) > 1000


def test_standard_streams_are_no_inherited_descriptors():
    def child():
        for fd in (0, 1, 2):
            os.set_inheritable(fd, True)
        hygiene.close_inherited_descriptors(())
        assert open_descriptors().keys() >= {0, 1, 2}

    assert in_forked_child(child) == "ok"


@pytest.mark.parametrize("active", [True, False])
def test_the_file_that_perf_is_told_by_is_kept_while_that_is_active(monkeypatch, tmp_path, active):
    """Its descriptor is passed on at an exec, but it is this process's own."""

    def child():
        monkeypatch.setattr(sys, "is_stack_trampoline_active", lambda: active, raising=False)
        fds = {}
        for name in (f"jit-{os.getpid()}.dump", "jit-1.dump"):
            fds[name] = os.open(tmp_path / name, os.O_CREAT | os.O_WRONLY)
            os.set_inheritable(fds[name], True)
        hygiene.close_inherited_descriptors(())
        there = open_descriptors()
        assert [fd in there for fd in fds.values()] == [active, False]

    assert in_forked_child(child) == "ok"


def test_a_number_that_is_closed_is_not_open():
    fd = os.dup(0)
    assert hygiene.is_open(fd)
    os.close(fd)
    assert not hygiene.is_open(fd)


@pytest.mark.parametrize("fd", [0, 1, 2])
def test_a_stream_in_place_of_a_closed_one_can_be_used_as_such(fd):
    def child():
        os.close(fd)
        hygiene.occupy_standard_streams()
        if fd == 0:
            assert os.read(0, 1) == b""
        else:
            assert os.write(fd, b"x") == 1
        assert os.get_inheritable(fd)

    assert in_forked_child(child) == "ok"


def test_no_further_descriptor_is_open_when_standard_streams_are_there():
    def child():
        before = open_descriptors().keys()
        hygiene.occupy_standard_streams()
        assert open_descriptors().keys() == before
        assert os.readlink("/proc/self/fd/0") == os.devnull

    assert in_forked_child(child) == "ok"


# ---- streams of Python's -----------------------------------------------------------------------------------------


def test_what_is_printed_after_a_fork_is_written_by_the_same_objects_and_nothing_twice(tmp_path):
    with open(tmp_path / "out", "w", encoding="latin-1", errors="replace") as stream:
        stream.write("of the parent ")

        def child():
            sys.stdout = stream
            hygiene.renew_streams()
            assert sys.stdout is stream
            assert (stream.encoding, stream.errors) == ("latin-1", "replace")
            print("of the child é", flush=True)

        assert in_forked_child(child) == "ok"
    assert (tmp_path / "out").read_text("latin-1") == "of the child é\nof the parent "


@pytest.mark.parametrize("how", [{"line_buffering": True}, {"write_through": True}, {}])
def test_a_stream_is_buffered_as_before(tmp_path, how):
    with open(tmp_path / "out", "w") as stream:
        stream.reconfigure(**how)

        def child():
            sys.stdout = stream
            hygiene.renew_streams()
            wanted = {"line_buffering": False, "write_through": False} | how
            assert {name: getattr(stream, name) for name in wanted} == wanted

        assert in_forked_child(child) == "ok"


@pytest.mark.parametrize("mode", ["w", "r+"])
def test_buffers_that_write_are_emptied_whether_they_read_as_well_or_not(tmp_path, mode):
    (tmp_path / "log").touch()
    with open(tmp_path / "log", mode) as stream:
        handler = logging.StreamHandler(stream)
        stream.buffer.write(b"of the parent")

        def child():
            hygiene.renew_streams()
            stream.buffer.flush()
            assert (tmp_path / "log").read_text() == ""

        assert in_forked_child(child) == "ok"
        handler.close()
    assert (tmp_path / "log").read_text() == "of the parent"


def test_a_stream_that_cannot_be_renewed_in_place_is_replaced_everywhere(tmp_path, monkeypatch):
    with open(tmp_path / "out", "w", encoding="utf-8") as stream:

        def fail(_buffer):
            raise RuntimeError("halfway")

        def child():
            sys.stdout = sys.__stdout__ = stream
            sys.stderr = sys.__stderr__ = None
            monkeypatch.setattr(hygiene, "_renew_buffer", fail)
            hygiene.renew_streams()
            assert sys.stdout is sys.__stdout__
            assert sys.stdout is not stream
            assert (sys.stdout.encoding, sys.stdout.line_buffering) == ("utf-8", True)
            assert stream in hygiene._abandoned
            assert sys.stderr is None
            fd = stream.fileno()
            print("printed")
            sys.stdout = sys.__stdout__ = None
            assert hygiene.is_open(fd)

        assert in_forked_child(child) == "ok"
    assert (tmp_path / "out").read_text() == "printed\n"


def test_streams_that_are_no_files_are_left_as_they_are():
    def child():
        own = io.StringIO()
        sys.stdout, sys.stderr = own, None
        hygiene.renew_streams()
        assert sys.stdout is own
        assert own.getvalue() == ""
        assert hygiene._renew_buffer(io.BytesIO()) is False

    assert in_forked_child(child) == "ok"


def test_standard_input_is_always_a_new_object_at_its_end():
    def child():
        before = sys.stdin
        hygiene.occupy_standard_streams()
        hygiene.renew_streams()
        assert sys.stdin is not before
        assert before in hygiene._abandoned
        assert sys.stdin.fileno() == 0
        assert sys.stdin.read() == ""
        sys.stdin.close()
        assert hygiene.is_open(0), "it does not own the descriptor"

    assert in_forked_child(child) == "ok"


# ---- tracing, signals, faulthandler ------------------------------------------------------------------------------


def test_threads_of_a_new_process_are_not_traced():
    def child():
        threading.settrace(lambda *_: None)
        threading.setprofile(lambda *_: None)
        hygiene.stop_tracing()
        assert (threading.gettrace(), threading.getprofile()) == (None, None)

    assert in_forked_child(child) == "ok"


@pytest.mark.parametrize("which", ["trace", "profile"])
def test_an_object_with_a_call_of_pythons_is_removed_and_set_again(which):
    class Tracer:
        def __call__(self, *_):
            return None

    def child():
        one = Tracer()
        get, set_ = getattr(sys, f"get{which}"), getattr(sys, f"set{which}")
        set_(one)
        with hygiene.untraced():
            assert get() is None
        assert get() is one
        set_(None)

    assert in_forked_child(child) == "ok"


def test_signals_that_are_held_stay_blocked_and_no_others():
    def child():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        hygiene.unblock_signals({signal.SIGUSR1})
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == {signal.SIGUSR1}

    assert in_forked_child(child) == "ok"


def test_a_signal_that_may_not_be_handled_keeps_no_other_from_its_default(monkeypatch):
    real, refused = native.set_signal, []

    def set_signal(number, handler):
        if number == signal.SIGUSR1:
            refused.append(number)
            raise OSError("reserved")
        real(number, handler)

    def child():
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda *_: None)
        monkeypatch.setattr(native, "set_signal", set_signal)
        hygiene.reset_signals()
        assert refused == [signal.SIGUSR1]
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL

    assert in_forked_child(child) == "ok"


def test_where_faulthandler_handles_crashes_its_signals_are_at_their_default(monkeypatch):
    def child():
        faulthandler.enable(2)
        hygiene.reset_signals()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    assert in_forked_child(child) == "ok"


def test_crashes_are_written_to_standard_error(monkeypatch):
    asked = []

    def enable(*arguments):
        asked.append(arguments)
        raise RuntimeError("no usable standard error")

    monkeypatch.setitem(sys.modules, "faulthandler", SimpleNamespace(enable=enable))
    hygiene.start_faulthandler()
    assert asked == [(2,)]
