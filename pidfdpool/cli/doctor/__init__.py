"""`python -m pidfdpool doctor [PID]`: what a pool finds on this machine, or how the pools of a running host are.

Runs on the main thread of a process of its own. What was read (facts), what follows from it (rules) and the reading
are apart, so that the rules are tested with facts that are made up.

    __init__      the arguments, exit codes and messages
    facts         this machine, as data
    reading       asks the kernel and the interpreter for the facts
    selftest      a real pool whose workers crash, hang and are killed, and a real host that is killed
    rules         facts -> findings: what follows, in a sentence each
    hosts         a running host and its pools, as data, and what follows from their states
    processes     reads these from /proc, without touching the processes
    report        the reports, as text and as JSON
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from pidfdpool.cli import usage
from pidfdpool.cli.doctor import hosts, processes, reading, report, rules, selftest
from pidfdpool.cli.doctor.facts import Facts
from pidfdpool.cli.streams import print_error, show
from pidfdpool.cli.usage import UsageError

if TYPE_CHECKING:
    import argparse

    from pidfdpool.cli.doctor.hosts import Host

_DETAILS = """\
Without a PID it tells what this kernel, this interpreter and this container
grant, each thing by doing it, and what follows for a pool; and it tries a real
pool: a crash, a timeout, a kill, and the death of a host.
  ok        it is as a pool wants it
  note      a pool works, with what the sentence says
  missing   something that a pool needs is not there

With the PID of a process that uses pools it shows their templates and workers,
as /proc tells it. The processes are not touched.

exit codes:
  0    everything that a pool needs is here; or the process was looked at
  1    something is missing; or there is no such process, it is another user's,
       or there is no /proc
  2    the command line is wrong
"""
_LARGEST_PID = 1 << 22  # PID_MAX_LIMIT of the kernel
_LONGEST_SLEEP = 1e6  # seconds; the system has a limit
_CLEAR = "\033[H\033[2J"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = _DETAILS
    parser.add_argument("pid", metavar="PID", nargs="?", type=_pid, help="a process whose pools are shown")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--no-self-test", action="store_true", help="leave out the self-test; not with a PID")
    parser.add_argument(
        "--watch", action="store_true", help="with a PID: show it again and again, until Ctrl-C or its end"
    )
    parser.add_argument(
        "--every", metavar="SECONDS", type=usage.seconds, help="how often --watch looks (default: each second)"
    )


def _pid(text: str) -> int:
    return usage.count(text, _LARGEST_PID)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    if arguments.every is not None and not arguments.watch:
        raise UsageError("argument --every: it says how often --watch looks, and is of no use without")
    if arguments.pid is None:
        if arguments.watch:
            raise UsageError("argument --watch: name the PID of a process to watch")
        return _of_machine(arguments)
    if arguments.no_self_test:
        raise UsageError("argument --no-self-test: there is no self-test with a PID")
    try:
        if arguments.watch:
            _watch(arguments)
        else:
            show(_report(_look(arguments.pid), arguments))
    except processes.CannotRead as error:
        print_error(str(error))
        return 1
    return 0


def _of_machine(arguments: argparse.Namespace) -> int:
    kernel = reading.kernel()
    steps = () if arguments.no_self_test or kernel.needed is not None else selftest.run()
    facts = Facts(reading.interpreter(), kernel, reading.container(), steps)
    show(report.of_machine_as_json(facts) if arguments.json else report.of_machine(facts))
    return int(rules.is_missing_something(rules.findings(facts)))


def _look(pid: int) -> Host:
    return hosts.arrange(pid, processes.read(pid))


def _report(host: Host, arguments: argparse.Namespace) -> str:
    return report.of_host_as_json(host) if arguments.json else report.of_host(host)


def _watch(arguments: argparse.Namespace) -> None:
    """Show the host again and again, until Ctrl-C, or until it has ended."""
    pid = arguments.pid
    first = _look(pid)
    started = first.process.started
    host: Host | None = first
    on_terminal = sys.stdout.isatty() and not arguments.json
    try:
        while host is not None and host.process.started == started and host.process.state not in "ZX":
            text = _report(host, arguments)
            show(f"{_CLEAR}{text}" if on_terminal else text, end="\n" if arguments.json else "\n\n")
            time.sleep(min(arguments.every or 1.0, _LONGEST_SLEEP))
            host = _look_again(pid)
    except KeyboardInterrupt:
        if on_terminal:
            show("")
    else:
        print_error(f"process {pid} has ended")


def _look_again(pid: int) -> Host | None:
    """Return what can be seen now; None if the process has ended."""
    try:
        return _look(pid)
    except processes.CannotRead:
        if os.path.exists(f"/proc/{pid}"):
            raise
        return None
