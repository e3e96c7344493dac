"""A host with connections, listening sockets and subprocesses, which it has before its pool's first task.

The first argument says which of the functions below to run, the others are its own.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor

LIST = ["ls", "/proc/self/fd"]


def accept(kind: str) -> tuple[socket.socket, socket.socket]:
    """Listen, wait for a client, and return the listening socket and the connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    connection, _ = listener.accept()
    for sock in (listener, connection):
        sock.set_inheritable(kind == "inheritable")
    return listener, connection


def answer(kind: str) -> None:
    """Answer a client with what a task returns, and close the connection; the pool lives on."""
    _, connection = accept(kind)
    with ProcessPoolExecutor(2) as pool:
        connection.sendall(b"%d\n" % pool.submit(tasks.double, 21).result())
        connection.close()
        sys.stdin.read()


def listen(kind: str) -> None:
    """Listen until somebody ends this, with busy workers."""
    listener, connection = accept(kind)
    with ProcessPoolExecutor(2) as pool:
        pool.submit(tasks.pid).result()
        for _ in range(2):
            pool.submit(tasks.sleep, 600)
        connection.sendall(b"working\n")
        time.sleep(600)
    listener.close()


def stop_listening(kind: str) -> None:
    """Close the listening socket, and listen again at the same address, while the pool lives."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.set_inheritable(kind == "inheritable")
    address = listener.getsockname()
    with ProcessPoolExecutor(2) as pool:
        pool.submit(tasks.pid).result()
        listener.close()
        try:
            socket.create_server(address).close()
            print("free")
        except OSError:
            print("in use")


def subprocesses() -> None:
    """Start subprocesses in every way, before there is a pool and while there is, and compare what they inherit."""

    def lists() -> dict[str, str]:
        reader, writer = os.pipe()
        os.posix_spawn("/bin/ls", LIST, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)])
        os.close(writer)
        os.wait()
        with open(reader) as file:
            spawned = file.read()
        return {
            "subprocess": subprocess.run(LIST, close_fds=False, capture_output=True, text=True).stdout,
            "posix_spawn": spawned,
            "system": os.popen(" ".join(LIST)).read(),
        }

    before = lists()
    with ProcessPoolExecutor(2) as pool:
        pool.submit(tasks.pid).result()
        print({way: listed.split() for way, listed in lists().items() if listed != before[way]}, flush=True)


def replaced() -> None:
    """Become another program while the pool lives."""
    pool = ProcessPoolExecutor(2)
    pool.submit(tasks.pid).result()
    os.execvp(LIST[0], LIST)


def list_descriptors() -> str:
    return subprocess.run(LIST, close_fds=False, capture_output=True, text=True).stdout


def subprocesses_of_tasks(kind: str) -> None:
    """Print what a task's subprocess inherits from a host that has connections."""
    kept = accept(kind)
    with ProcessPoolExecutor(2) as pool:
        print(*pool.submit(list_descriptors).result().split())
    del kept


def feed() -> None:
    """Start a filter, compute what it is to be fed with in the pool, close its input, and wait for its end."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        with ProcessPoolExecutor(2) as pool:
            process.stdin.write(b"%d\n" % pool.submit(tasks.double, 21).result())
            process.stdin.close()
            print(process.stdout.read().decode(), end="", flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
