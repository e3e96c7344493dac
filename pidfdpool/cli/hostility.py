"""Makes the demo's process a hostile host, and looks for processes that the pool left behind.

Used by `demo`, in the host, on its main thread; `work_until_killed` runs in a worker.

Two things are hostile: a signal handler that reaps every child, and a worker that is killed in the middle of its
work. Nothing here uses the pool's internals, so the observations do not depend on what the pool reports of itself.
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

_KILL_TIMEOUT = 30.0  # seconds after which a task that is not killed returns, so that nothing hangs


class ReapingHandler:
    """A SIGCHLD handler that reaps every child of the process, as servers and process managers have."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []  # pid and wait status of each child that it has reaped

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Set the handler within the block. On the main thread only."""
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
    """Finds every process that was started within `marked`, whatever its parent is now.

    These processes have a variable in the environment with which they were started, and no others have it. So only
    processes that began with an exec are found, and forks of these. By default a pool begins with an exec.
    """

    def __init__(self) -> None:
        self._name = "PIDFDPOOL_DEMO_MARK"
        self._value = uuid.uuid4().hex

    @contextmanager
    def marked(self) -> Iterator[None]:
        """Mark the processes that are started within the block."""
        os.environ[self._name] = self._value
        try:
            yield
        finally:
            del os.environ[self._name]

    def alive(self) -> list[int]:
        """Return the process ids of those that exist now."""
        mark = f"{self._name}={self._value}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            # Processes may end meanwhile, and those of other users cannot be read.
            with suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return sorted(found)


class Announcement:
    """A named pipe by which a task reports to the host that it runs, and in which process."""

    def __init__(self, path: str) -> None:
        self.path = path
        os.mkfifo(path)
        # Opened for writing, too, or it would be at its end whenever no other process has it open for writing.
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def wait(self, task: Future[bytes]) -> int | None:
        """Return the process id that the task reports; None if the task ended without a report."""
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
    """Report this process, then process the block again and again. In a worker."""
    with open(announcement, "wb", buffering=0) as pipe:
        pipe.write(str(os.getpid()).encode())
    end = time.monotonic() + _KILL_TIMEOUT
    while time.monotonic() < end:
        summarize_lines(lines)
    return summarize_lines(lines)


def can_kill() -> bool:
    """Return whether this kernel and this sandbox allow to send a signal through a pidfd."""
    from pidfdpool.pidfd import capabilities

    granted = capabilities()
    return granted.open and granted.send_signal


def kill(pid: int) -> None:
    """Send SIGKILL through a pidfd.

    It is safe to open it by number, because that process has just reported the number and waits to be killed.
    """
    from pidfdpool.pidfd import Pidfd

    with closing(Pidfd.open(pid)) as process:
        process.send_signal(signal.SIGKILL)
