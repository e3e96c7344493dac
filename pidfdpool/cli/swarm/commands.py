"""What each signal asks of the supervisor. Pure."""

from __future__ import annotations

import enum
import signal


class Command(enum.Enum):
    """What is to be done; the values are texts for messages."""

    STOP = "stop every node"
    STOP_NOW = "kill every node"
    QUIET = "quiet every node"
    RESTART = "restart every node, one after the other"
    DUMP_STACKS = "show the Python stack of every node"
    REAP = "reap the orphans that came to this process"
    NOTHING = "ignored, because the nodes are being stopped"


class Commands:
    """Signals to commands. It remembers whether a stop was asked for, because the next request for one is urgent."""

    SIGNALS = frozenset(
        {signal.SIGTERM, signal.SIGINT, signal.SIGTSTP, signal.SIGHUP, signal.SIGTTIN, signal.SIGCHLD}
    )

    def __init__(self) -> None:
        self._stopping = False

    def of(self, number: int) -> Command:
        """Return what a signal, one of SIGNALS, asks for."""
        if number in (signal.SIGTERM, signal.SIGINT):
            command = Command.STOP_NOW if self._stopping else Command.STOP
            self._stopping = True
            return command
        if number == signal.SIGCHLD:
            return Command.REAP
        if number == signal.SIGTTIN:
            return Command.DUMP_STACKS
        if self._stopping:
            return Command.NOTHING
        return Command.QUIET if number == signal.SIGTSTP else Command.RESTART
