"""What every handle of a process can do, for who names the type. Not loaded for anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pidfdpool.pidfd.status import ExitStatus


class ProcessHandle(Protocol):
    """What can be done with a process, with pidfds or without. `Pidfd` tells what each of these promises."""

    @property
    def pid(self) -> int:
        """The process's number, for people."""

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
        """Wait until the process has ended, at most so many seconds; return whether it has."""

    def exit_status(self) -> ExitStatus | None:
        """Return how the process ended; None while it runs."""

    def close(self) -> None:
        """Give the handle up."""

    def close_in_forked_child(self) -> None:
        """Close the copies that a forked child has."""
