"""`python -m pidfdpool swarm MODULE:FUNCTION`: the supervisor of a swarm as a program.

Runs on the main thread of a process of its own, which is the host of the swarm, and may be pid 1 of a container.

    __init__      messages and exit codes
    arguments     the arguments, and the help
    supervisor    runs the swarm: signals, health checks, events
    commands      signals -> what is to be done
    http          a server for health checks
    health        a reading of the swarm -> what a health check is told
    table         the nodes, as they are printed at the end
    reaping       orphans, where this process has to reap them
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pidfdpool import CallNotSendable, TemplateError
from pidfdpool.cli import target as targets
from pidfdpool.cli.streams import print_error, show
from pidfdpool.cli.swarm import arguments as declared
from pidfdpool.cli.swarm import http, table
from pidfdpool.cli.swarm.commands import Commands
from pidfdpool.cli.swarm.supervisor import Journal, Program, tell
from pidfdpool.cli.usage import UsageError
from pidfdpool.pidfd import SignalReceiver
from pidfdpool.swarm import Swarm

if TYPE_CHECKING:
    import argparse

    from pidfdpool.swarm import SwarmStatus

configure = declared.configure

FORCED = 2


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    declared.check(arguments)
    target = targets.parse(arguments.function)
    with ExitStack() as stack:
        listener = None
        if arguments.health_port is not None:
            listener = stack.enter_context(http.listen(arguments.health_host, arguments.health_port))
        # Before the module is imported, because a thread that it starts has to block the signals, too.
        receiver = stack.enter_context(SignalReceiver(Commands.SIGNALS))
        journal = Journal()
        swarm = _made(target, journal, arguments)
        if listener is not None:
            host, port = listener.getsockname()[:2]
            tell(f"health checks are answered at http://{f'[{host}]' if ':' in host else host}:{port}/")
        program = Program(swarm, receiver, listener=listener, needed=arguments.min_healthy)
        try:
            asyncio.run(program.run())
        except (CallNotSendable, TemplateError, OSError) as error:
            print_error(f"the swarm cannot be started: {error}")
            return 1
        status = swarm.status()
        show(table.render(journal.rows(status.nodes)))
        return _exit_code(status, forced=program.forced or journal.killed_at_stop)


def _made(target: targets.Target, journal: Journal, arguments: argparse.Namespace) -> Swarm:
    function = target.load()
    journal.take_over_logging()
    try:
        return Swarm(
            function,
            arguments.nodes,
            args=arguments.arguments,
            preload=arguments.preload,
            on_event=journal.note,
            **declared.options_of(arguments),
        )
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None


def _exit_code(status: SwarmStatus, *, forced: bool) -> int:
    if forced:
        return FORCED
    if status.failure:
        tell(status.failure)
    complete = all(node.state.over for node in status.nodes)  # or the supervisor's thread has failed
    return int(bool(status.failure or status.given_up or not complete))
