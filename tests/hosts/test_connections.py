"""What the host has open stays the host's: its connections end when it closes them, and its ports are free then."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.conditions import run_python
from tests.hosts.observing import Observed, expect, host, python, run_clean, within

SECTION = "Connections, ports, and what subprocesses inherit"

CONNECTED = [sys.executable, "-m", "tests.hosts.programs.connected"]
KINDS = ["sockets as Python makes them", "inheritable"]


def client_of(process):
    """Connect to the host, which has printed its port."""
    client = socket.create_connection(("127.0.0.1", int(process.stdout.readline())))
    client.settimeout(10)
    return client


@pytest.mark.case(SECTION, "the host closes a connection that was open at the pool's first task", ways="both")
@pytest.mark.parametrize("kind", KINDS)
def test_the_host_closes_a_connection(contender, kind):
    with host(contender, [*CONNECTED, "answer", kind], stdin=subprocess.PIPE) as process:
        with client_of(process) as client:
            expect(client.recv(100) == b"42\n", "the client gets no answer")
            client.settimeout(3)
            try:
                expect(client.recv(100) == b"", "the client gets something else")
            except TimeoutError:
                raise Observed("the client never sees its connection close") from None
        process.stdin.close()
        expect(process.wait(10) == 0, "the host does not end well")


@pytest.mark.case(SECTION, "the host is killed; another process listens on its port", ways="both")
@pytest.mark.parametrize("kind", KINDS)
def test_the_port_of_a_killed_host(contender, kind):
    with host(contender, [*CONNECTED, "listen", kind]) as process:
        with client_of(process) as client:
            expect(client.recv(100) == b"working\n", "the host does not get to work")
            port = client.getpeername()[1]
        process.kill()
        process.wait()
        within(2, lambda: _is_free(port), "its port stays in use")


def _is_free(port):
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@pytest.mark.case(SECTION, "the host stops listening on a port and listens anew, while its pool lives", ways="both")
@pytest.mark.parametrize("kind", KINDS)
def test_the_host_listens_anew(contender, kind):
    out = run_clean(contender, [*CONNECTED, "stop_listening", kind])
    expect(out == "free\n", "its port stays in use")


@pytest.mark.case(
    SECTION, "subprocesses of the host (Popen, posix_spawn, popen) inherit nothing of the pool", ways="both"
)
def test_subprocesses_of_the_host(contender):
    out = run_clean(contender, [*CONNECTED, "subprocesses"])
    expect(out == "{}\n", "subprocesses inherit descriptors of the pool", out)


@pytest.mark.case(SECTION, "the host becomes another program (exec), which inherits nothing of the pool", ways="both")
def test_a_host_that_becomes_another_program(contender):
    with host(contender, [*CONNECTED, "replaced"]) as process:
        listed = [process.stdout.readline() for _ in range(4)]
        expect(listed == ["0\n", "1\n", "2\n", "3\n"], "it inherits descriptors of the pool", listed)


@pytest.mark.case(
    SECTION, "a subprocess of a task inherits the standard streams, and nothing of host or pool", ways="both"
)
@pytest.mark.parametrize("kind", KINDS)
def test_subprocesses_of_tasks(contender, kind):
    with host(contender, [*CONNECTED, "subprocesses_of_tasks", kind]) as process:
        with client_of(process):
            listed = process.stdout.readline().split()  # 3 is the folder that is being listed
            expect(listed == ["0", "1", "2", "3"], "it inherits more", listed)
        expect(process.wait(10) == 0, "the host does not end well")


@pytest.mark.case(SECTION, "a subprocess that reads its input to the end, started before the pool's first task")
def test_a_subprocess_that_waits_for_the_end_of_its_input(contender):
    out = run_clean(
        contender, [*CONNECTED, "feed"], seconds=5, hangs="the end of its input never comes: the host hangs"
    )
    expect(out == "42\n", "it says something else", out)


# ---- the fork way: what is inherited, and what is given up -------------------------------------------------


def fork_host(code):
    done = run_python(
        """
import gc, mmap, multiprocessing, os, socket, tempfile
from pidfdpool import PidfdPoolExecutor
"""
        + code
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_what_tasks_rely_on_is_inherited_by_a_fork():
    """Pipes, files, memory, socket pairs, datagram sockets: all but connections and listening sockets."""
    out = fork_host(
        """
reader, writer = os.pipe()
ours, theirs = socket.socketpair()
context = multiprocessing.get_context("fork")
duplex_ours, duplex_theirs = context.Pipe()
queue = context.SimpleQueue()
file = tempfile.TemporaryFile(buffering=0)
memory = mmap.mmap(-1, 4096)
log = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
log.bind(("127.0.0.1", 0))
to_log = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
to_log.connect(log.getsockname())

def task():
    os.write(writer, b"pipe ")
    theirs.sendall(b"pair ")
    duplex_theirs.send("duplex")
    queue.put("queue")
    file.write(b"file ")
    memory[:6] = b"memory"
    to_log.send(b"datagram ")

with PidfdPoolExecutor(1, mp_context="fork") as pool:
    pool.submit(task).result(timeout=20)
    file.seek(0)
    print(os.read(reader, 9).decode(), ours.recv(9).decode(), duplex_ours.recv(), queue.get(), file.read().decode(),
          memory[:6].decode(), log.recv(99).decode())
"""
    )
    assert out.split() == ["pipe", "pair", "duplex", "queue", "file", "memory", "datagram"]


SOCKETS = """
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server, _ = listener.accept()
named = socket.socket(socket.AF_UNIX)
named.bind(b"\\0pidfdpool-test-%d" % os.getpid())
named.listen()
unix_client = socket.socket(socket.AF_UNIX)
unix_client.connect(named.getsockname())
unix_server, _ = named.accept()
sockets = [listener, client, server, named, unix_client, unix_server]
"""


def test_connections_are_given_up_by_a_fork_and_nobody_can_use_them_by_mistake():
    out = fork_host(
        SOCKETS
        + """
def errors():
    found = set()
    for use in (lambda s: s.send(b"x"), lambda s: s.recv(1), lambda s: s.getpeername(), lambda s: s.accept()):
        for sock in sockets:
            try:
                use(sock)
                found.add("no error")
            except OSError as error:
                found.add(error.strerror)
    return found

with PidfdPoolExecutor(1, mp_context="fork") as pool:
    print(pool.submit(errors).result(timeout=20))
"""
    )
    assert out == "{'Bad file descriptor'}\n"


@pytest.mark.parametrize("end", ["sock.close()", "sock.detach()", "None"])
def test_copies_of_the_hosts_sockets_can_be_closed_without_harm(end):
    """They do not know that they were given up. Their numbers must not be anybody else's by then."""
    fork_host(
        SOCKETS
        + f"""
def close_all():
    for sock in sockets:
        {end}
    for name in ("sock", "sockets", "listener", "client", "server", "named", "unix_client", "unix_server"):
        globals().pop(name, None)
    gc.collect()
    return os.getpid()

with PidfdPoolExecutor(1, mp_context="fork") as pool:
    worker = pool.submit(close_all).result(timeout=20)
    assert [pool.submit(os.getpid).result(timeout=20) for _ in range(20)] == [worker] * 20
    pool.submit(os._exit, 3).exception(timeout=20)
    assert pool.submit(os.getpid).result(timeout=20) != worker
client.sendall(b"still the host's")
assert server.recv(99) == b"still the host's"
"""
    )


def test_a_connection_that_is_in_initargs_is_handed_over_to_a_fork():
    out = fork_host(
        SOCKETS
        + """
def keep(sock):
    global kept
    kept = sock

def speak():
    kept.sendall(b"from a worker")

with PidfdPoolExecutor(1, mp_context="fork", initializer=keep, initargs=(server,)) as pool:
    pool.submit(speak).result(timeout=20)
    print(client.recv(99).decode())
"""
    )
    assert out == "from a worker\n"


def test_looking_at_the_hosts_sockets_does_not_change_them():
    """A default timeout makes each new socket object set its descriptor to non-blocking, for the host, too."""
    fork_host(
        """
ours, theirs = socket.socketpair()
kept = socket.create_server(("127.0.0.1", 0))
socket.setdefaulttimeout(30)
with PidfdPoolExecutor(1, mp_context="fork", initializer=id, initargs=(kept,)) as pool:
    assert pool.submit(socket.getdefaulttimeout).result(timeout=20) == 30
    assert [os.get_blocking(sock.fileno()) for sock in (ours, theirs, kept)] == [True] * 3
"""
    )


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are listed by /proc")
def test_a_standard_stream_that_is_a_connection_is_left_alone(tmp_path):
    """As under inetd, or where a unit's output goes to the journal: printing must go on, through copies as well."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as out, listener.accept()[0] as end:
            code = """
                import os
                from pidfdpool import PidfdPoolExecutor
                copy = os.dup(1)
                with PidfdPoolExecutor(1, mp_context="fork") as pool:
                    pool.submit(print, "printed").result(timeout=20)
                    pool.submit(os.write, copy, b"written").result(timeout=20)
            """
            with host("fork", python(code), stdout=out, stderr=None) as process:
                assert process.wait(20) == 0
            end.settimeout(10)
            assert end.recv(8, socket.MSG_WAITALL) == b"printed\n"
            assert end.recv(7, socket.MSG_WAITALL) == b"written"
