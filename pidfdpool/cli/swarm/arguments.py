"""The arguments of `swarm`, and its help. Called by the command, on its main thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pidfdpool.cli import usage
from pidfdpool.cli.usage import UsageError
from pidfdpool.process import cpus

if TYPE_CHECKING:
    import argparse

_MOST_PORT = 65535
_DETAILS = """\
Each node is a process of its own that calls the function with the node as its
first argument, and the ARGs as texts after it. It runs as long as it likes. In
the function
  node.id, node.attempt   which node this is, 0 to N-1, and how often it was
                          started
  node.healthy()          says that it is well; with --report-timeout at least
                          once in that time, or it is stopped
  node.unhealthy(why)     asks to be replaced
  node.stopping           is set when the node is to end
A node that returns is done. One that raises, exits with another code than 0 or
is killed is started again, after a pause.

signals:
  TERM, INT  stop every node; what has not ended after --stop-timeout is killed
             a second one kills every node at once
  HUP        restart every node, one after the other
  TSTP       quiet every node: it takes no new work, and nothing is restarted
  TTIN       show the Python stack of every node

With --health-port it answers over HTTP, on this machine only unless
--health-host says otherwise:
  /livez     200 while the supervisor works
  /readyz    200 while, besides, --min-healthy nodes are healthy
  /status    all nodes, as JSON

It may be pid 1 of a container. What happens is written to standard error, and
at the end a table of the nodes to standard output.

exit codes:
  0    all nodes are done, or were stopped
  1    a node was given up, because it died too often while it was young; or no
       node could be started
  2    a node had to be killed to stop it; or the command line is wrong

examples:
  %(prog)s shop.consumer:run orders --nodes 4 --report-timeout 60
  %(prog)s shop.consumer:run --nodes 8 --preload shop.model --max-memory 2G \\
      --health-port 3000 --health-host 0.0.0.0 --min-healthy 6
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = _DETAILS
    parser.add_argument(
        "function", metavar="MODULE:FUNCTION", help="what each node calls; its module is imported as by python -m"
    )
    parser.add_argument("arguments", metavar="ARG", nargs="*", help="texts that the function gets after the node")
    parser.add_argument("--nodes", type=usage.workers, metavar="N", help="how many (default: one per CPU)")
    parser.add_argument(
        "--preload",
        action="append",
        default=[],
        metavar="MODULE",
        help="import it once, before the nodes are forked, so that they share its memory; may be repeated",
    )
    parser.add_argument(
        "--restart",
        choices=("on-failure", "always"),
        default="on-failure",
        help="which nodes are started again (default: on-failure, those that are not done)",
    )
    parser.add_argument("--no-reports", action="store_true", help="the function does not call healthy()")
    _times(parser)
    parser.add_argument(
        "--max-memory",
        type=usage.memory,
        metavar="SIZE",
        help="replace a node that grows above it, such as 500M or 2G",
    )
    parser.add_argument(
        "--overlap",
        action="store_true",
        help="start the replacement of a node first, and stop the node when it is healthy",
    )
    parser.add_argument(
        "--intensity",
        type=usage.retries,
        metavar="N",
        help="give a node up after more than N young deaths within --period (default: 5)",
    )
    parser.add_argument(
        "--health-port", type=_port, metavar="PORT", help="answer health checks there; 0: any port that is free"
    )
    parser.add_argument(
        "--health-host", metavar="HOST", help="the address that health checks come to (default: 127.0.0.1)"
    )
    parser.add_argument(
        "--min-healthy", type=usage.workers, metavar="N", help="how many nodes have to be healthy (default: all)"
    )


def _times(parser: argparse.ArgumentParser) -> None:
    for name, text in (
        ("--report-timeout", "replace a node that has not called healthy() for so long (default: 60)"),
        ("--stop-timeout", "kill a node that has not ended so long after it was told to stop (default: 30)"),
        (
            "--restart-pause",
            "how long after its death a node is started again (default: 5); doubles if it died young",
        ),
        ("--restart-pause-limit", "the longest such pause (default: 60)"),
        ("--start-timeout", "stop a node that has not reported so long after its start (default: --report-timeout)"),
        ("--memory-interval", "how often --max-memory is looked at (default: 1)"),
        ("--max-age", "replace a node that is older"),
        ("--period", "the time for --intensity (default: 600)"),
    ):
        parser.add_argument(name, type=usage.seconds, metavar="SECONDS", help=text)


def _port(text: str) -> int:
    return usage.count(text, _MOST_PORT, 0)


def check(arguments: argparse.Namespace) -> None:
    """Refuse what contradicts each other, and fill in what follows from the rest."""
    if arguments.nodes is None:
        arguments.nodes = cpus.usable()
    if arguments.no_reports and arguments.report_timeout is not None:
        raise UsageError("argument --no-reports: not with --report-timeout")
    if arguments.health_port is None:
        for name in ("health_host", "min_healthy"):
            if getattr(arguments, name) is not None:
                raise UsageError(f"argument --{name.replace('_', '-')}: it is of no use without --health-port")
    if arguments.health_host is None:
        arguments.health_host = "127.0.0.1"
    if arguments.min_healthy is None:
        arguments.min_healthy = arguments.nodes
    if arguments.min_healthy > arguments.nodes:
        raise UsageError(
            f"argument --min-healthy: {arguments.min_healthy} of {arguments.nodes} nodes cannot be healthy"
        )


def options_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of the swarm that were given; the others keep the defaults of `Swarm`."""
    names = ["report_timeout", "stop_timeout", "restart_pause", "start_timeout", "max_memory", "max_age"]
    names += ["intensity", "period", "memory_interval", "restart_pause_limit"]
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if arguments.no_reports:
        given["report_timeout"] = None
    return {**given, "restart": arguments.restart, "overlap": arguments.overlap}
