"""A small HTTP server for health checks: whatever its clients do, it takes a bounded amount of time and memory.

Runs in the event loop of the supervisor's main thread. Knows no swarm: `answer` says what is told. It serves GET and
HEAD, one request for each connection, and reads no body. A client has `CLIENT_TIMEOUT` seconds for its request and as
many to read the answer. When there are more than `MOST_CLIENTS`, the one that came first is cut off, so that clients
which hang cannot keep a check from being answered.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from pidfdpool.cli.usage import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CLIENT_TIMEOUT = 5.0  # seconds
MOST_CLIENTS = 32
_LONGEST_REQUEST = 16384  # bytes of the request line and the headers


class Answer(NamedTuple):
    """What is told: a status, and a document that is sent as JSON."""

    status: HTTPStatus
    document: dict[str, Any]


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there, close-on-exec. port: 0 for any that is free.

    Raises:
        UsageError: the host is unknown, or the port is in use or reserved; the message names it.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"argument --health-host: {host!r} is not an address of this machine: {why}") from None
    family, _, _, _, address = found[0]
    try:
        return socket.create_server(address[:2], family=family, backlog=MOST_CLIENTS)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"argument --health-host: {host!r} is not an address of this machine") from None
        why = "it is in use" if error.errno == errno.EADDRINUSE else os.strerror(error.errno or 0)
        raise UsageError(f"argument --health-port: cannot listen on port {port} of {host}: {why}") from None


class Server:
    """Answers on a socket that listens, until it is closed.

    answer: is given the path of a request, without its query, and returns what is told; None: there is no such page.
    It has to bound its own time.
    """

    def __init__(self, listener: socket.socket, answer: Callable[[str], Awaitable[Answer | None]]) -> None:
        self._listener = listener
        self._answer = answer
        self._clients: dict[asyncio.StreamWriter, None] = {}  # the one that came first is the first
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to answer. The socket is closed by `close`."""
        self._server = await asyncio.start_server(self._serve, sock=self._listener, limit=_LONGEST_REQUEST)

    def close(self) -> None:
        """Stop listening, and cut off all clients. Once is enough."""
        if self._server is not None:
            self._server.close()
        for client in list(self._clients):
            self._cut_off(client)

    def _cut_off(self, client: asyncio.StreamWriter) -> None:
        self._clients.pop(client, None)  # at once: several may come before this one's task notices
        client.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients[writer] = None
        if len(self._clients) > MOST_CLIENTS:
            self._cut_off(next(iter(self._clients)))
        try:
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(CLIENT_TIMEOUT):
                    data = await self._reply(reader)
                async with asyncio.timeout(CLIENT_TIMEOUT):
                    writer.write(data)
                    writer.write_eof()
                    await writer.drain()
                    await reader.read(1)  # a client whose request is still on its way would lose the answer
        finally:
            self._cut_off(writer)

    async def _reply(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _encoded(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, {"error": "the request is too long"})
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        target, _, version = rest.rpartition(" ")
        if not version.startswith("HTTP/1.") or not target.startswith("/"):
            return _encoded(HTTPStatus.BAD_REQUEST, {"error": "not a request of HTTP/1"})
        if method not in ("GET", "HEAD"):
            return _encoded(HTTPStatus.METHOD_NOT_ALLOWED, {"error": "use GET or HEAD"}, more="Allow: GET, HEAD\r\n")
        found = await self._answer(target.partition("?")[0])
        if found is None:
            found = Answer(HTTPStatus.NOT_FOUND, {"error": "there is no such page"})
        return _encoded(found.status, found.document, body_wanted=method == "GET")


def _encoded(status: HTTPStatus, document: dict[str, Any], *, more: str = "", body_wanted: bool = True) -> bytes:
    body = json.dumps(document).encode() + b"\n"
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n{more}\r\n"
    )
    return head.encode() + (body if body_wanted else b"")
