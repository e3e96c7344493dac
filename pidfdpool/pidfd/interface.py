"""The interface of all handles of processes. Loaded by type checkers, and by code that uses the name at run time."""

from __future__ import annotations

from typing import Protocol

from pidfdpool.pidfd.status import ExitStatus


class ProcessHandle(Protocol):
    """What a handle can do, with pidfds or without. `Pidfd` documents what each method promises."""

    @property
    def pid(self) -> int:
        """The process's number, for messages."""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""

    def fileno(self) -> int:
        """Return the descriptor, which can be polled for the end of the process."""

    def alive(self) -> bool:
        """Return whether the process runs; a zombie does not."""

    def send_signal(self, sig: int, value: int | None = None, *, group: bool = False) -> None:
        """Send a signal to the process; group: to the process group that it leads, if it leads one."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the process has ended, at most `timeout` seconds; return whether it has."""

    def exit_status(self) -> ExitStatus | None:
        """Return how the process ended; None while it runs."""

    def close(self) -> None:
        """Close the descriptor."""

    def close_in_forked_child(self) -> None:
        """Close the copies that a forked child has."""
