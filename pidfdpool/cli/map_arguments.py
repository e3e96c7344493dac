"""The arguments of `map`, and its help. Called by `map`, in the host, on its main thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool.cli import outputs, usage
from pidfdpool.cli.usage import UsageError

if TYPE_CHECKING:
    import argparse

_DETAILS = """\
Each line of input is a JSON document. Worker processes decode it, call the
function with it, and encode the result as one line of output. The output is
compact JSON in UTF-8. NaN and Infinity are errors, as in the JSON standard.
Blank lines are skipped. What the function prints goes to standard error.

A function named "loads" (json:loads, orjson:loads, ...) takes text by
convention, so it gets the line itself. --input json changes that, and
--input text gives the line to any function.

A generator, and a function that returns any other iterator, gives a document
for each of its items, or none at all. A list is one document. With --drop-null
what would be null is left out.

A document fails if it cannot be decoded, if the function raises, or if the
result cannot be encoded. Then
  --on-error fail    writes the output of the documents before it, reports it
                     as FILE:LINE, and ends the run (the default);
  --on-error skip    omits it, and writes a summary to standard error;
  --on-error record  does the same, and writes this in its place, where "input"
                     is the line as it was read:
                     {"error":{"type":...,"message":...,"file":...,"line":...},
                      "input":...}
  --errors FILE      omits it, too, and writes a line to FILE:
                     {"file":...,"line":...,"how":...,"type":...,"message":...,
                      "input":...}
                     "how" is one of input, function, crash, timeout, memory.
A document whose worker dies (it was killed, or native code crashed) fails, too,
and so does one that exceeds --timeout or --max-memory.
A worker gets many lines at a time. If it dies, its lines are tried once more,
one by one. So a line may be run twice, but not more often, and only the line
that was the cause fails. --retries allows more attempts at a document that
failed: one at once, the others after growing pauses. A line that is not JSON is
not tried again.

--output FILE and --errors FILE are written completely or not at all: what FILE
was before stays until the exit code is 0. Pipes and devices are written to as
they are. A name that ends in .gz, .bz2, .xz or .zst is that of a compressed
file, for input and output.

exit codes:
  0         every document was transformed, skipped or recorded
  1         a document failed (--on-error fail), the input broke off, or the
            output, the pool or the cluster failed
  2         the command line is wrong: no such file, no such function, ...
  130, 141  ended by Ctrl-C, or because the reader of the output went away

examples:
  %(prog)s json:loads events.jsonl.gz > normalized.jsonl
  zcat *.gz | %(prog)s mymodule:enrich --on-error record | head
  %(prog)s shop.rules:Order.from_event a.jsonl b.jsonl --unordered
  %(prog)s shop:score big.jsonl.zst --timeout 30 --retries 2 --max-memory 2G \\
      --output scores.jsonl.gz --errors failed.jsonl
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = _DETAILS
    parser.add_argument(
        "function", metavar="MODULE:FUNCTION", help="the function; its module is imported as by python -m"
    )
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help="JSON Lines; compressed if the name ends in .gz, .bz2, .xz or .zst; - is standard input (default)",
    )
    parser.add_argument("--workers", type=usage.workers, metavar="N", help="worker processes (default: one per CPU)")
    parser.add_argument("--unordered", action="store_true", help="write documents when they are done, in any order")
    parser.add_argument("--output", metavar="FILE", default="-", help="where to write (default: standard output)")
    parser.add_argument(
        "--on-error", choices=("fail", "skip", "record"), help="what to do if a document fails (default: fail)"
    )
    parser.add_argument("--errors", metavar="FILE", help="go on if documents fail, and list them here, as JSON Lines")
    parser.add_argument(
        "--timeout", type=usage.seconds, metavar="SECONDS", help="stop the function if a document takes longer"
    )
    parser.add_argument(
        "--retries", type=usage.retries, metavar="N", default=0, help="further attempts at a document that failed"
    )
    parser.add_argument(
        "--max-memory",
        type=usage.memory,
        metavar="SIZE",
        help="kill a worker that grows above it, such as 500M or 2G; one above three quarters is replaced "
        "between documents",
    )
    parser.add_argument("--drop-null", action="store_true", help="leave out results that are null")
    parser.add_argument(
        "--input",
        choices=("auto", "json", "text"),
        default="auto",
        help="call the function with the decoded document, or with the line's text (default: auto, see below)",
    )
    parser.add_argument("--traceback", action="store_true", help="show where in the function a document failed")
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="use the workers of a Dask cluster, such as tcp://host:8786; the function's module must be there, too",
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="write there what the workers did: one HTML page, or the trace if FILE ends in .json",
    )
    parser.add_argument(
        "--no-progress", action="store_true", help="no progress bar (there is one if stderr is a terminal)"
    )


def check(arguments: argparse.Namespace) -> None:
    """Refuse what contradicts each other, and fill in what follows from the rest."""
    if arguments.errors is not None:
        if arguments.on_error == "fail":
            raise UsageError("argument --errors: not with --on-error fail, which ends the run at the first error")
        if outputs.are_same(arguments.output, arguments.errors):
            raise UsageError(f"argument --errors: {arguments.errors!r} is where --output writes, too")
    if arguments.report is not None:
        if arguments.cluster is not None:
            raise UsageError("argument --report: not with --cluster, whose workers are not seen from here")
        for option, name in (("--output", arguments.output), ("--errors", arguments.errors)):
            if name is not None and outputs.are_same(name, arguments.report):
                raise UsageError(f"argument --report: {arguments.report!r} is where {option} writes, too")
    if arguments.on_error is None:
        arguments.on_error = "fail" if arguments.errors is None else "skip"
    if arguments.cluster is not None and not arguments.cluster.strip():
        raise UsageError(
            f"argument --cluster: must be an address, such as tcp://host:8786, not {arguments.cluster!r}"
        )
