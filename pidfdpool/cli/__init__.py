"""The command line: `python -m pidfdpool COMMAND ...`, which uses the pool through its public API only.

`main` runs in a process of its own, which is the host of the pool, on its main thread. Each command is a module with
two functions: `configure(parser)` declares its arguments, `run(arguments)` does the work and returns the exit code. A
command's module is imported when that command is run, because the workers of `map` import this package, too.

    __init__         which command to run, and how an interrupted run ends
    usage            the parser, and the error for a wrong command line: exit code 2
    streams          separates the output from what a function prints; exits by a signal
    map              the messages and exit codes of `map`
      map_arguments  its arguments, and its help
      map_report     the report of a run
      target         MODULE:FUNCTION
      source         files and standard input -> blocks of whole lines
      compression    .gz, .bz2, .xz, .zst
      hints          input that is not one document per line
      pacing         how many lines a block has
      pools          workers here, or on a cluster
      flow           blocks -> pool -> output, in input order or not, in bounded memory
      attempts       what is done again when a task has failed
      transform      a block of lines -> a block of output; the only part that runs in workers
      outputs        files that are written completely or not at all
      progress       the bar on standard error
    swarm            the supervisor of a swarm, as a program
    doctor           what a pool finds on this machine; the pools of a running host
    report           the page of a trace
    demo             a demonstration for newcomers, which checks each statement that it prints
      sample         the events that it processes, and the function
      hostility      the SIGCHLD handler that reaps every child, and a search for processes that are left
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    from pidfdpool import PidfdPoolExecutor  # noqa: F401  it raises ImportError, and says what there is instead

import signal
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pidfdpool._version import __version__
from pidfdpool.cli import streams
from pidfdpool.cli.usage import Parser, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

# name -> (module, what it does)
COMMANDS = {
    "map": (
        "pidfdpool.cli.map",
        "transform JSON Lines: one document per line through a function, in parallel",
    ),
    "swarm": ("pidfdpool.cli.swarm", "keep processes of a function alive: consumers, servers, pollers"),
    "report": ("pidfdpool.cli.report", "make one HTML page of a trace: timeline, shares, durations, deaths, advice"),
    "doctor": (
        "pidfdpool.cli.doctor",
        "tell what a pool finds on this machine, or show the pools of a running process",
    ),
    "demo": ("pidfdpool.cli.demo", "see the pool survive a hostile host and a killed worker"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments ask for, by default those of this process; return the exit code.

    A run that is interrupted by Ctrl-C, or whose reader goes away, does not return. The process exits by the same
    signal as any other filter, so that shells and scripts see what happened.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            code = _dispatch(given)
        except KeyboardInterrupt:
            with suppress(streams.OutputLost, BrokenPipeError):
                streams.flush_stdout()
            streams.print_error("interrupted")
            return streams.exit_by_signal(signal.SIGINT)
        finally:
            streams.flush_stdout()
    except streams.OutputLost as error:
        streams.print_error(str(error))
        return 1
    except BrokenPipeError:
        return streams.exit_by_signal(signal.SIGPIPE)
    return code


def _dispatch(given: list[str]) -> int:
    name = given[0] if given else ""
    if name not in COMMANDS:
        return _no_command(given)
    home, summary = COMMANDS[name]
    command = import_module(home)
    parser = Parser(prog=f"{_program()} {name}", description=summary[0].upper() + summary[1:] + ".")
    command.configure(parser)
    try:
        code: int = command.run(parser.parse_intermixed_args(given[1:]))
    except UsageError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return code


def _no_command(given: list[str]) -> int:
    """Handle --help and --version; anything else is an error."""
    parser = Parser(
        prog=_program(),
        usage="%(prog)s [--help] [--version] COMMAND ...",
        description="A process pool that tracks its workers by pidfd. What it does from the command line:",
        epilog="commands:\n"
        + "".join(f"  {name:8} {summary}\n" for name, (_, summary) in COMMANDS.items())
        + "\nFor the help of a command: %(prog)s COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=f"pidfdpool {__version__}")
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="see below")
    if not given:
        parser.print_help()
        return 2
    asked = parser.parse_args(given[:1]).command[0]
    likely = get_close_matches(asked, COMMANDS, 1)
    hint = f"did you mean {likely[0]!r}?" if likely else f"use one of {', '.join(COMMANDS)}"
    return parser.error(f"there is no command {asked!r}: {hint}")


def _program() -> str:
    """Return the program's name as the user typed it, for usage messages."""
    name = Path(sys.argv[0]).name
    return name if name == "pidfdpool" else "python -m pidfdpool"
