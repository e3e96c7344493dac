"""`python -m pidfdpool map MODULE:FUNCTION [FILE...]`: applies a function to JSON Lines, in parallel.

Runs in the host, on its main thread. This module has the arguments, the messages and the exit codes; `flow` does the
work. However a run ends, its pool ends before the process, and what was written is a beginning of the right output.
"""

from __future__ import annotations

import os
from concurrent.futures import BrokenExecutor
from typing import TYPE_CHECKING, cast

from pidfdpool import PidfdPoolExecutor
from pidfdpool.cli import target as targets
from pidfdpool.cli import usage
from pidfdpool.cli.flow import DocumentError, Flow
from pidfdpool.cli.progress import Progress
from pidfdpool.cli.source import ReadError, Source
from pidfdpool.cli.streams import print_error, private_stdout
from pidfdpool.cli.transform import Job

if TYPE_CHECKING:
    import argparse

    from pidfdpool.cli.flow import Tally
    from pidfdpool.cli.streams import Output
    from pidfdpool.cli.transform import OnError

BLOCKS_PER_WORKER = 4  # that are read and not yet written: enough that a slow block does not keep other workers idle

_DETAILS = """\
Each line of input is a JSON document. Worker processes decode it, call the
function with it, and encode the result as one line of output. The output is
compact JSON in UTF-8. NaN and Infinity are errors, as in the JSON standard.
Blank lines are skipped. What the function prints goes to standard error.

A function named "loads" (json:loads, orjson:loads, ...) takes text by
convention, so it gets the line itself. --input json changes that, and
--input text gives the line to any function.

A document fails if it cannot be decoded, if the function raises, or if the
result cannot be encoded. Then
  --on-error fail    writes the output of the documents before it, reports it
                     as FILE:LINE, and ends the run (the default);
  --on-error skip    omits it, and writes a summary to standard error;
  --on-error record  does the same, and writes this in its place, where "input"
                     is the line as it was read:
                     {"error":{"type":...,"message":...,"file":...,"line":...},
                      "input":...}
A document whose worker dies (it was killed, or native code crashed) fails, too.
A worker gets many lines at a time. If it dies, its lines are tried once more,
one by one. So a line may be run twice, but not more often, and only the line
that was the cause fails.

exit codes:
  0         every document was transformed, skipped or recorded
  1         a document failed (--on-error fail), the input broke off, or the
            output or the pool failed
  2         the command line is wrong: no such file, no such function, ...
  130, 141  ended by Ctrl-C, or because the reader of the output went away

examples:
  %(prog)s json:loads events.jsonl.gz > normalized.jsonl
  zcat *.gz | %(prog)s mymodule:enrich --on-error record | head
  %(prog)s shop.rules:Order.from_event a.jsonl b.jsonl --unordered
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
        help="JSON Lines; gzip if the name ends in .gz; - is standard input (default)",
    )
    parser.add_argument("--workers", type=usage.workers, metavar="N", help="worker processes (default: one per CPU)")
    parser.add_argument("--unordered", action="store_true", help="write documents when they are done, in any order")
    parser.add_argument(
        "--on-error", choices=("fail", "skip", "record"), default="fail", help="what to do if a document fails"
    )
    parser.add_argument(
        "--input",
        choices=("auto", "json", "text"),
        default="auto",
        help="call the function with the decoded document, or with the line's text (default: auto, see below)",
    )
    parser.add_argument("--traceback", action="store_true", help="show where in the function a document failed")
    parser.add_argument(
        "--no-progress", action="store_true", help="no progress bar (there is one if stderr is a terminal)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    target = targets.parse(arguments.function)
    with private_stdout() as output:
        source = Source(arguments.files)
        target.load()
        job = Job(
            target=target,
            text=target.takes_text if arguments.input == "auto" else arguments.input == "text",
            on_error=cast("OnError", arguments.on_error),
            traceback=arguments.traceback,
        )
        progress = Progress(wanted=not arguments.no_progress, total=source.total, shares_terminal=output.isatty())
        try:
            tally = _transform(job, source, output, progress, arguments)
        except BrokenPipeError:
            raise
        except (DocumentError, ReadError) as error:
            problem = str(error)
        except BrokenExecutor as error:
            problem = f"the pool broke: {error}"
        except OSError as error:
            problem = f"cannot write the output: {error.strerror}"
        else:
            progress.close()
            _summarize(tally, job.on_error)
            return 0
        finally:
            progress.close()
    print_error(problem)
    return 1


def _transform(job: Job, source: Source, output: Output, progress: Progress, arguments: argparse.Namespace) -> Tally:
    """Run the flow in a pool of its own. The pool is shut down when this returns or raises."""
    workers = arguments.workers or len(os.sched_getaffinity(0))
    pool = PidfdPoolExecutor(workers, preload=("pidfdpool.cli.transform", job.target.module))
    flow = Flow(
        pool,
        job,
        source,
        _Sink(output, progress),
        ordered=not arguments.unordered,
        permits=BLOCKS_PER_WORKER * workers,
    )
    try:
        return flow.run()
    except BaseException:
        pool.kill_workers()
        raise
    finally:
        pool.shutdown()


class _Sink:
    """Writes output and advances the progress bar."""

    def __init__(self, output: Output, progress: Progress) -> None:
        self._output = output
        self._progress = progress

    def write(self, data: bytes, size: int, documents: int) -> None:
        if data:
            with self._progress.hidden():
                self._output.write(data)
        self._progress.advance(size, documents)


def _summarize(tally: Tally, on_error: OnError) -> None:
    if tally.failed:
        done = {"skip": "skipped", "record": "recorded as errors"}[on_error]
        print_error(f"{tally.failed} of {tally.documents} documents failed and were {done}; the first: {tally.first}")
