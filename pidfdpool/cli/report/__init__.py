"""`python -m pidfdpool report TRACE`: one HTML page of a trace that `pool.trace` has written.

Runs on the main thread of a process of its own, or in that of `map --report`. Reading, numbers, advice and the page
are apart, so that each is tested with data that is made up. It uses no pool.

    __init__      the arguments, exit codes and messages; `write_page`
    reading       a trace file, line by line -> the trace
    trace         the trace, as data: columns of numbers
    lives         what each worker did with its time
    analysis      the trace -> numbers
    advice        numbers -> what could be better, in a sentence each
    sections      numbers -> tables and bars
    encoding      what the timeline draws, packed
    page          all of this -> one text
    words         numbers as readers want them
    assets        the page's frame, style and scripts
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from pidfdpool.cli import outputs
from pidfdpool.cli.outputs import WriteError
from pidfdpool.cli.report import page, reading
from pidfdpool.cli.report.reading import TraceError as TraceError
from pidfdpool.cli.streams import Output, print_error, private_stdout
from pidfdpool.cli.usage import UsageError

if TYPE_CHECKING:
    import argparse

_DETAILS = """\
TRACE is a file that pool.trace() has written. The page needs no other file and
no network. It is written completely or not at all, over a page that is there.

exit codes:
  0    the page is written
  1    TRACE cannot be read or is no trace of pidfdpool, or the page cannot be
       written
  2    the command line is wrong
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = _DETAILS
    parser.add_argument("trace", metavar="TRACE", help="the trace")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write the page there; -: to standard output (default: next to TRACE, with the ending .html)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    target = arguments.output if arguments.output is not None else default_page(arguments.trace)
    if not target:
        raise UsageError("argument -o/--output: the name is empty")
    _see_that_they_differ(arguments.trace, target)
    try:
        with private_stdout(needed=outputs.is_stdout(target)) as stdout:
            found = _write(arguments.trace, target, stdout)
    except (TraceError, WriteError) as error:
        print_error(str(error))
        return 1
    for notice in found:
        print_error(f"{arguments.trace}: {notice}")
    return 0


def write_page(trace_path: str | os.PathLike[str], page_path: str | os.PathLike[str]) -> list[str]:
    """Write the page of a trace file. It is written completely or not at all.

    page_path: `-` is standard output.

    Returns what a reader has to know of the trace itself, in a sentence each: that it ends early, for instance.

    Raises:
        UsageError: both are the same file, or the page cannot be written there.
        TraceError: the trace cannot be read, or is none of this package.
        WriteError: the page could not be written completely.
    """
    trace, target = os.fspath(trace_path), os.fspath(page_path)
    _see_that_they_differ(trace, target)
    return _write(trace, target, Output(1))


def default_page(trace_path: str) -> str:
    """Return where the page of a trace goes: next to it."""
    return f"{os.path.splitext(trace_path)[0]}.html"


def _see_that_they_differ(trace_path: str, page_path: str) -> None:
    same = False
    if not outputs.is_stdout(page_path):
        with suppress(OSError, ValueError):
            same = os.path.samefile(trace_path, page_path)
    if same:
        raise UsageError(f"argument -o/--output: {page_path!r} is the trace itself: it would be overwritten")


def page_of(trace_path: str) -> tuple[bytes, list[str]]:
    """Return the page of a trace file, and what its reader has to know, in a sentence each.

    Raises:
        TraceError: the trace cannot be read, or is none of this package.
    """
    trace = reading.read(trace_path)
    return page.render(trace).encode("utf-8", "replace"), page.notices(trace)


def _write(trace_path: str, page_path: str, stdout: Output) -> list[str]:
    text, notices = page_of(trace_path)
    with outputs.opened("-o/--output", page_path, stdout, [trace_path]) as output:
        output.write(text)
        output.finish()
    return notices
