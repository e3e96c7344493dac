"""Runs a swarm until it has ended: signals, health checks and events, in one event loop on the main thread.

What takes time (a ping, the stacks of nodes) is waited for in a thread beside the loop, so that signals and checks
are seen to meanwhile. Those threads have the signals blocked, as the main thread does.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from pidfdpool.cli.streams import print_error
from pidfdpool.cli.swarm import health, reaping
from pidfdpool.cli.swarm.commands import Command, Commands
from pidfdpool.cli.swarm.http import Server
from pidfdpool.cli.swarm.table import Row
from pidfdpool.swarm import EventKind, Reason

if TYPE_CHECKING:
    import socket

    from pidfdpool.cli.swarm.http import Answer
    from pidfdpool.pidfd import SignalReceiver
    from pidfdpool.swarm import NodeDeath, NodeEvent, NodeStatus, Swarm

PING_TIMEOUT = 2.0  # seconds; a supervisor that does not answer within them stands still
STACK_TIMEOUT = 2.0  # seconds that nodes have to write their stacks


class Journal:
    """What has happened to nodes: it is written to standard error, and remembered for the table.

    `note` is called in the swarm's thread, the rest in the main thread once that has ended.
    """

    def __init__(self) -> None:
        self._deaths: dict[int, Counter[str]] = {}
        self.killed_at_stop: bool = False
        self._tells = True

    def take_over_logging(self) -> None:
        """Leave it to logging to write events, if the function's module has set that up."""
        log: logging.Logger | None = logging.getLogger("pidfdpool.swarm")
        while log is not None and self._tells:
            self._tells = all(isinstance(handler, logging.NullHandler) for handler in log.handlers)
            log = log.parent if log.propagate else None

    def note(self, event: NodeEvent) -> None:
        """Take notice of an event."""
        if self._tells:
            tell(str(event))
        if event.death is not None:
            self._deaths.setdefault(event.node, Counter())[_in_short(event.death)] += 1
        if event.kind is EventKind.KILLED and event.reason is Reason.SHUTDOWN:
            self.killed_at_stop = True

    def rows(self, nodes: tuple[NodeStatus, ...]) -> list[Row]:
        """Return the table's rows."""
        return [
            Row(node.id, node.attempt, node.state.value.lower().replace("_", " "), self._deaths.get(node.id, {}))
            for node in nodes
        ]


def _in_short(death: NodeDeath) -> str:
    """Return how a process ended, and in a word why, if the swarm had it end."""
    why = "" if death.reason is Reason.UNASKED else f" ({death.reason.name.lower()})"
    return f"{death.exit_status}{why}"


class Program:
    """A swarm and what it is commanded by.

    receiver: of the signals of `Commands`. listener: a socket for health checks, which this closes. needed: how many
    nodes have to be healthy.
    """

    def __init__(
        self, swarm: Swarm, receiver: SignalReceiver, *, listener: socket.socket | None = None, needed: int = 1
    ) -> None:
        self._swarm = swarm
        self._receiver = receiver
        self._listener = listener
        self._needed = needed
        self._commands = Commands()
        self._reaps = reaping.is_wanted()
        self._ping: asyncio.Future[bool] | None = None
        self._dumps: set[asyncio.Task[None]] = set()
        self.forced = False  # whether the nodes were killed by a second request to stop

    async def run(self) -> None:
        """Start the swarm, and return when it has ended."""
        loop = asyncio.get_running_loop()
        server = None if self._listener is None else Server(self._listener, self._answer)
        try:
            async with self._swarm as running:
                loop.add_reader(self._receiver.fileno(), self._on_signals)
                if server is not None:
                    await server.start()
                await running.wait()
        finally:
            loop.remove_reader(self._receiver.fileno())
            if server is not None:
                server.close()
            if self._reaps:
                reaping.reap()

    # ---- signals -------------------------------------------------------------------------------------------

    def _on_signals(self) -> None:
        for received in self._receiver.pending():
            command = self._commands.of(received.number)
            if command is Command.REAP:
                if self._reaps:
                    reaping.reap()
                continue
            tell(f"{signal.Signals(received.number).name}: {command.value}")
            try:
                self._obey(command)
            except RuntimeError as error:  # the swarm has ended meanwhile
                tell(str(error))

    def _obey(self, command: Command) -> None:
        if command is Command.STOP:
            self._swarm.stop(wait=False)
        elif command is Command.STOP_NOW:
            self.forced = True
            self._swarm.kill(wait=False)
        elif command is Command.QUIET:
            self._swarm.quiet()
        elif command is Command.RESTART:
            self._swarm.restart()
        elif command is Command.DUMP_STACKS:
            task = asyncio.get_running_loop().create_task(self._dump_stacks())
            self._dumps.add(task)  # the loop itself does not keep it
            task.add_done_callback(self._dumps.discard)

    async def _dump_stacks(self) -> None:
        found = await asyncio.to_thread(self._swarm.stacks, STACK_TIMEOUT)
        for node in self._swarm.status().nodes:
            if node.id in found:
                print_error(f"Python stack of node {node.id} (pid {node.pid}):\n{found[node.id].rstrip()}\n")
            elif node.state.has_process:
                print_error(f"node {node.id} (pid {node.pid}) has not written its stack\n")

    # ---- health checks -------------------------------------------------------------------------------------

    async def _answer(self, path: str) -> Answer | None:
        return health.answer(path, await self._read())

    async def _read(self) -> health.Reading:
        if self._ping is None or self._ping.done():
            self._ping = asyncio.ensure_future(asyncio.to_thread(self._swarm.ping, PING_TIMEOUT))
        turning = await asyncio.shield(self._ping)  # one ping for all checks that come meanwhile
        status = self._swarm.status()
        return health.Reading(
            turning=turning,
            state=status.phase.value.lower(),
            healthy=status.healthy,
            needed=self._needed,
            nodes=[_told(node) for node in status.nodes],
        )


def _told(node: NodeStatus) -> dict[str, Any]:
    """Return what /status tells of a node; all times are in seconds, and the memory in bytes."""
    return {
        "node": node.id,
        "state": node.state.value.lower().replace("_", " "),
        "attempt": node.attempt,
        "pid": node.pid,
        "uptime": node.uptime,
        "reported": node.reported,
        "memory": node.memory,
        "deaths": node.deaths,
        "last_death": None if node.last_death is None else str(node.last_death),
        "starts_in": node.starts_in,
    }


def tell(message: str) -> None:
    """Write a line to standard error, with the time."""
    print_error(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}")
