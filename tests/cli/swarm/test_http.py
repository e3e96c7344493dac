"""The server for health checks, and what clients may do to it. Real sockets; the answers are made up."""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import socket
import threading
import warnings
from contextlib import contextmanager
from http import HTTPStatus

import pytest

from pidfdpool.cli.swarm import http as served
from pidfdpool.cli.swarm.http import Answer, Server, listen
from pidfdpool.cli.usage import UsageError
from tests.conditions import eventually


class Running:
    """A server in a thread of its own."""

    def __init__(self, answer):
        self.socket = listen("127.0.0.1", 0)
        self.port = self.socket.getsockname()[1]
        self._answer = answer
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(30)

    async def _serve(self):
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.server = Server(self.socket, self._answer)
        await self.server.start()
        self._ready.set()
        await self._stop.wait()
        self.server.close()

    def close(self):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    def connect(self, *, small=False):
        client = socket.socket()
        if small:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.settimeout(30)
        client.connect(("127.0.0.1", self.port))
        return client

    def get(self, path, method="GET"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def said_to(self, request):
        with self.connect() as client:
            client.sendall(request)
            return read_all(client)


def read_all(client):
    data = b""
    with client:
        while more := client.recv(65536):
            data += more
    return data


@contextmanager
def running(answer):
    server = Running(answer)
    try:
        yield server
    finally:
        server.close()


async def pages(path):
    found = {"/here": Answer(HTTPStatus.OK, {"path": path}), "/down": Answer(HTTPStatus.SERVICE_UNAVAILABLE, {})}
    return found.get(path)


@pytest.fixture(scope="module")
def server():
    with running(pages) as found:
        yield found


def test_a_page_is_told_as_json(server):
    status, body = server.get("/here?verbose")
    assert (status, json.loads(body)) == (200, {"path": "/here"})


def test_the_status_is_that_of_the_answer(server):
    assert server.get("/down")[0] == 503
    assert server.get("/nothing")[0] == 404


def test_a_head_request_has_no_body(server):
    assert server.get("/here", "HEAD") == (200, b"")


def test_another_method_is_refused(server):
    assert server.get("/here", "POST")[0] == 405


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\r\n\r\n", b"400"),
        (b"GET\r\n\r\n", b"400"),
        (b"GET /here\r\n\r\n", b"400"),
        (b"GET here HTTP/1.1\r\n\r\n", b"400"),
        (b"\xff\xfe\x00 /here HTTP/1.1\r\n\r\n", b"405"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"400"),
        (b"GET /here HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", b"431"),
        (b"GET /here HTTP/1.0\r\n\r\n", b"200"),
    ],
)
def test_whatever_is_sent_gets_an_answer(server, request_, status):
    assert server.said_to(request_).split()[1] == status


def test_a_client_that_leaves_at_once_harms_nothing(server):
    for data in (b"", b"GET /he", b"GET /here HTTP/1.1\r\n\r\n"):
        client = server.connect()
        client.sendall(data)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, not an end
        client.close()
    assert server.get("/here")[0] == 200
    eventually(lambda: not server.server._clients, "the server has let go of all clients")


def test_clients_that_say_nothing_are_cut_off(monkeypatch):
    monkeypatch.setattr(served, "CLIENT_TIMEOUT", 0.05)
    with running(pages) as server:
        silent = server.connect()
        half = server.connect()
        half.sendall(b"GET /here HTTP/1.1\r\n")
        assert read_all(silent) == read_all(half) == b""
        assert server.get("/here")[0] == 200


def test_a_client_that_does_not_read_is_cut_off(monkeypatch):
    monkeypatch.setattr(served, "CLIENT_TIMEOUT", 0.1)

    async def long(path):
        return Answer(HTTPStatus.OK, {"text": "x" * 10_000_000})

    with running(long) as server:
        client = server.connect(small=True)
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        eventually(lambda: server.server._clients, "the server serves it")
        eventually(lambda: not server.server._clients, "the server has let go of it")
        assert len(read_all(client)) < 10_000_000


def test_clients_that_hang_do_not_keep_others_from_being_answered(monkeypatch):
    """There are twice as many as are served at a time, and each of them might stay."""
    monkeypatch.setattr(served, "CLIENT_TIMEOUT", 1000)
    with running(pages) as server:
        hanging = [server.connect() for _ in range(2 * served.MOST_CLIENTS)]
        assert server.get("/here")[0] == 200
        assert len(server.server._clients) <= served.MOST_CLIENTS
        for client in hanging:
            client.close()


def test_an_answer_that_takes_too_long_is_none(monkeypatch):
    monkeypatch.setattr(served, "CLIENT_TIMEOUT", 0.05)

    async def never(path):
        await asyncio.Event().wait()

    with running(never) as server:
        assert server.said_to(b"GET / HTTP/1.1\r\n\r\n") == b""


def test_closing_cuts_off_whoever_is_there():
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with running(pages) as server:
            client = server.connect()
            eventually(lambda: server.server._clients, "the server serves it")
        assert read_all(client) == b""
        gc.collect()
    assert not [str(warning.message) for warning in warned]


def test_a_port_in_use_is_named():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UsageError, match=f"--health-port: cannot listen on port {port} of 127.0.0.1: it is in use"
        ):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "a" * 300, "", "a..b"])
def test_a_host_that_is_not_here_is_named(host):
    with pytest.raises(UsageError, match=f"argument --health-host: '{host}' is not an address of this machine"):
        listen(host, 0)


def test_a_server_may_listen_on_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("there is no IPv6 here")
    with listen("::1", 0) as found:
        assert found.family == socket.AF_INET6
        assert not found.get_inheritable()
