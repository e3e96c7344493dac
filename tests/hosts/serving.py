"""Starting a server as its user would, and talking to it over HTTP. Loopback only."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from tests.conditions import is_alive
from tests.hosts.observing import Observed, end, environment, within


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A running server: its process, its port, and what it has said so far."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: str) -> None:
        self.process = process
        self.pid = process.pid
        self.port = port
        self._log = log

    def log(self) -> str:
        """Return all that the server has written to its standard output and error."""
        with open(self._log, errors="replace") as file:
            return file.read()

    def get(self, path: str, seconds: float = 10.0) -> Any:
        """Return the JSON that the server answers with.

        Raises:
            Observed: the answer is no success, or there is none in time.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request("GET", path)
            with connection.getresponse() as answer:
                body = answer.read().decode(errors="replace")
        except TimeoutError:
            raise Observed(f"a request hangs\nGET {path}: no answer in {seconds:g} s\n{self.log()}") from None
        except (OSError, http.client.HTTPException) as error:
            why = _last_error(self.log())
            what = f"a request is not answered: {why}" if why else "a request is not answered"
            raise Observed(f"{what}\nGET {path}: {error!r}\n{self.log()}") from None
        finally:
            connection.close()
        if answer.status != 200:
            what = _last_error(self.log()) or f"status {answer.status}"
            raise Observed(f"a request fails: {what}\nGET {path}: {body[-2000:]}\n{self.log()}")
        try:
            return json.loads(body)
        except ValueError:  # the server's process may end between the head of an answer and its body
            raise Observed(f"a request is answered in part\nGET {path}: {body[-2000:]!r}\n{self.log()}") from None

    def answers(self, path: str = "/") -> bool:
        """Return whether the server answers at all."""
        try:
            self.get(path, seconds=2.0)
        except Observed:
            return False
        return True

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float, observed: str) -> int:
        """Return the server's exit status; fail the case if it does not end in time."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Observed(f"{observed}\n{self.log()}") from None


def _last_error(log: str) -> str | None:
    """Return the last line of a log that ends a traceback."""
    found = re.findall(
        r"^(?:\W )?((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Pool|Broken|Crashed|Exit)\b.*)$", log, re.MULTILINE
    )
    return found[-1] if found else None


def _last_line(log: str) -> str:
    """Return a log's last line, without the time and the like that stand before it in brackets."""
    lines = log.strip().splitlines() or ["it says nothing"]
    return re.sub(r"^(\[[^]]*\] *)+", "", lines[-1])


@contextmanager
def serve(
    contender: str,
    command: Sequence[str],
    port: int,
    folder: os.PathLike[str],
    *,
    env: dict[str, str] | None = None,
    ready: str = "/ready",
    seconds: float = 20.0,
    stops: float = 5.0,
    **options: Any,
) -> Iterator[Server]:
    """Start a server, wait until it answers at `ready`, and end it with the block: politely, then by SIGKILL.

    seconds, stops: how long it may take to start, and to end.
    """
    log = os.path.join(folder, f"server-{port}.log")
    options.setdefault("start_new_session", True)
    with open(log, "wb") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment(contender, **(env or {})),
            **options,
        )
    server = Server(process, port, log)
    try:
        within(
            seconds,
            lambda: server.answers(ready) or not is_alive(server.pid),
            "the server does not start",
            server.log,
        )
        if not is_alive(server.pid):
            why = _last_error(server.log()) or _last_line(server.log())
            raise Observed(f"the server ends at its start: {why}\n{server.log()}")
        yield server
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(stops)
        end(process)
