"""`python -m pidfdpool map MODULE:FUNCTION [FILE...]`: applies a function to JSON Lines, in parallel.

Runs in the host, on its main thread. This module has the messages and the exit codes; `flow` does the work. However a
run ends, its pool ends before the process. What was written to standard output is a beginning of the right output.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, cast

from pidfdpool.cli import hints, map_arguments, map_report, outputs, pools
from pidfdpool.cli import target as targets
from pidfdpool.cli.attempts import Attempts
from pidfdpool.cli.flow import DocumentError, Flow
from pidfdpool.cli.outputs import WriteError
from pidfdpool.cli.pools import AddressError, ClusterError, Limits
from pidfdpool.cli.progress import Progress
from pidfdpool.cli.source import ReadError, Source
from pidfdpool.cli.streams import print_error, private_stdout
from pidfdpool.cli.transform import Job
from pidfdpool.cli.usage import UsageError

if TYPE_CHECKING:
    import argparse

    from pidfdpool.cli.flow import Tally
    from pidfdpool.cli.map_report import Report
    from pidfdpool.cli.outputs import Destination
    from pidfdpool.cli.transform import Failure, OnError, Outcome

BLOCKS_PER_WORKER = 4  # that are read and not yet written: enough that a slow block does not keep other workers idle

configure = map_arguments.configure


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    map_arguments.check(arguments)
    target = targets.parse(arguments.function)
    places = [name for name in (arguments.output, arguments.errors) if name is not None]
    written = [*places, arguments.report] if arguments.report is not None else places
    with private_stdout(needed=any(map(outputs.is_stdout, written))) as stdout, ExitStack() as stack:
        source = Source(arguments.files)
        target.load()
        if arguments.cluster is not None:
            pools.load_door()
        output, *others = [
            stack.enter_context(outputs.opened(option, name, stdout, arguments.files))
            for option, name in zip(("--output", "--errors"), places, strict=False)
        ]
        report = None
        if arguments.report is not None:
            report = stack.enter_context(map_report.opened(arguments.report, stdout, arguments.files))
        progress = Progress(
            wanted=not arguments.no_progress,
            total=source.total,
            shares_terminal=any(place.isatty() for place in (output, *others)),
        )
        job = Job(
            target=target.for_cluster() if arguments.cluster else target,
            text=target.takes_text if arguments.input == "auto" else arguments.input == "text",
            on_error=cast("OnError", arguments.on_error),
            traceback=arguments.traceback,
            drop_null=arguments.drop_null,
            list_errors=bool(others),
            retries=arguments.retries > 0,
        )
        code = _tell(job, source, _Sink(progress, output, *others), arguments, report)
        return code if report is None else _finish(report) or code


def _finish(report: Report) -> int:
    """Complete the report of a run; return the exit code."""
    try:
        for notice in report.finish():
            print_error(f"the report: {notice}")
    except WriteError as error:
        print_error(str(error))
        return 1
    return 0


def _tell(job: Job, source: Source, sink: _Sink, arguments: argparse.Namespace, report: Report | None) -> int:
    """Transform everything, and tell what went wrong; return the exit code."""
    failure: Failure | None = None
    try:
        try:
            tally = _transform(job, source, sink, arguments, report)
            sink.finish()
        finally:
            sink.progress.close()
    except DocumentError as error:
        problem = str(error)
        failure = error.failure
    except (ReadError, WriteError, ClusterError) as error:
        problem = str(error)
    except BrokenExecutor as error:
        problem = f"the pool broke: {error}"
    except UsageError as error:
        if arguments.cluster is None or isinstance(error, AddressError):
            raise
        problem = f"a worker of the cluster cannot load the function: {error}"
    except Exception as error:
        # Of our own pool, any other error is a bug, and its traceback is wanted.
        if arguments.cluster is None or isinstance(error, BrokenPipeError):
            raise
        problem = f"the cluster {arguments.cluster!r} failed: {type(error).__name__}: {error}"
    else:
        if tally.failed:
            _summarize(tally, arguments)
            _give_hint(tally.first)
        elif source.arrays:
            print_error(hints.hint(source.arrays[0], "array"))
        return 0
    print_error(problem)
    _give_hint(failure)
    return 1


def _transform(job: Job, source: Source, sink: _Sink, arguments: argparse.Namespace, report: Report | None) -> Tally:
    """Run the flow in a pool of its own. The pool is shut down when this returns or raises."""
    limits = Limits(arguments.timeout, arguments.max_memory)
    attempts = Attempts(job, arguments.retries, preloaded=arguments.cluster is None)
    with (
        pools.opened(job.target, limits, attempts, workers=arguments.workers, cluster=arguments.cluster) as pool,
        nullcontext() if report is None else report.tracing(pool.pool),
    ):
        return Flow(
            pool.first,
            job,
            source,
            sink,
            ordered=not arguments.unordered,
            permits=BLOCKS_PER_WORKER * pool.workers,
            attempts=attempts,
            again=pool.again,
            block_seconds=limits.block_seconds,
        ).run()


class _Sink:
    """Writes output and errors, and advances the progress bar."""

    def __init__(self, progress: Progress, output: Destination, errors: Destination | None = None) -> None:
        self.progress = progress
        self._output = output
        self._errors = errors

    def write(self, outcome: Outcome, size: int) -> None:
        if outcome.output or outcome.errors:
            with self.progress.hidden():
                if outcome.output:
                    self._output.write(outcome.output)
                if outcome.errors and self._errors is not None:
                    self._errors.write(outcome.errors)
        self.progress.advance(size, outcome.documents)

    def finish(self) -> None:
        """Complete what was written: first the output, then the errors."""
        self._output.finish()
        if self._errors is not None:
            self._errors.finish()


def _summarize(tally: Tally, arguments: argparse.Namespace) -> None:
    done = {"skip": "skipped", "record": "recorded as errors"}[arguments.on_error]
    if arguments.errors is not None:
        done += f" and listed in {arguments.errors}"
    print_error(f"{tally.failed} of {tally.documents} documents failed and were {done}; the first: {tally.first}")


def _give_hint(failure: Failure | None) -> None:
    if failure is not None and failure.shape:
        print_error(hints.hint(failure.name, failure.shape))
