"""What makes the demo's process a hard place for a pool, and what looks for processes that it left behind.

The hardships are a handler that reaps everything and a worker that is killed in the middle of its work.

Nothing here knows the pool's insides, so what is observed is not what the pool would like to be seen.
"""

from __future__ import annotations

import os
import select
import signal
import time
import uuid
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pidfdpool.cli.sample import summarize_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

_PATIENCE = 30.0  # seconds after which the victim stops waiting for its death, so that nothing hangs


class Reaper:
    """A SIGCHLD handler that reaps every child, whoever started it: servers and process managers have one."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []  # pid and wait status of each child that it got

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Be the handler for a while. In the main thread only."""
        before = signal.signal(signal.SIGCHLD, self._reap_everything)
        try:
            yield
        finally:
            signal.signal(signal.SIGCHLD, before)

    def _reap_everything(self, *_: object) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self.seen.append((pid, status))


class Descendants:
    """Finds every process that was started from here since, whoever is its parent by now.

    They carry a mark in the environment that they were started with, which nothing but they have. So it
    finds only what began with an exec, and that is how a pool begins by default.
    """

    def __init__(self) -> None:
        self._name = "PIDFDPOOL_DEMO_MARK"
        self._value = uuid.uuid4().hex

    @contextmanager
    def marked(self) -> Iterator[None]:
        """Mark what is started meanwhile."""
        os.environ[self._name] = self._value
        try:
            yield
        finally:
            del os.environ[self._name]

    def alive(self) -> list[int]:
        """Return the process ids of those that are there now."""
        mark = f"{self._name}={self._value}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            # Processes come and go while we look, and those of others are none of our business.
            with suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return sorted(found)


class Announcement:
    """How a task tells the host that it is running, and in which process: a named pipe."""

    def __init__(self, path: str) -> None:
        self.path = path
        os.mkfifo(path)
        # For writing, too: otherwise it would be at its end whenever nobody has opened it for writing.
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def wait(self, task: Future[bytes]) -> int | None:
        """Return the process id that the task announces; None if it ended without a word."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        while not poll.poll(100):
            if task.done():
                return None
        return int(os.read(self._fd, 64))

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._fd)


def work_until_killed(lines: bytes, announcement: str) -> bytes:
    """Announce this process, then do the block's work again and again. In a worker."""
    with open(announcement, "wb", buffering=0) as pipe:
        pipe.write(str(os.getpid()).encode())
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        summarize_lines(lines)
    return summarize_lines(lines)


def can_kill() -> bool:
    """Return whether this kernel, or this sandbox, lets us send a signal through a pidfd."""
    from pidfdpool.pidfd import capabilities

    granted = capabilities()
    return granted.open and granted.send_signal


def kill(pid: int) -> None:
    """Send SIGKILL through a pidfd.

    The number is good for opening one only because that process has just announced it and is waiting for us.
    """
    from pidfdpool.pidfd import Pidfd

    with closing(Pidfd.open(pid)) as process:
        process.send_signal(signal.SIGKILL)
